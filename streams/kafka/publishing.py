"""
Batched writing to Kafka, with one writer per partition: messages that arrive while a batch is in flight form the next batch.

aiokafka's ``send`` costs 14 µs per message; a batch built here costs 1 µs per message. A failed or missing acknowledgement raises
``DeliveryError``: the worker stops without acknowledging its input, and the input is read again.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from core.collectors import ArrayHistogram
from core.errors import DeliveryError
from streams.kafka.connection import Connection
from streams.tracing import headers_of

# An acknowledgement takes milliseconds. If the broker is unavailable, the worker waits this long, as Kafka's own producers do
# by default. Then it exits, and its successor continues from the last checkpoint.
_ACK_SECONDS = 120.0
_LARGEST_MESSAGE = 1 << 20
_BATCH_BYTES = 512 << 10  # a topic's default limit is 1 MiB


class Latency(NamedTuple):
    """When the inputs of some outputs were written to Kafka (epoch ms), and the histogram for the time until acknowledgement."""

    histogram: ArrayHistogram
    written: npt.NDArray[np.int64]


class Outputs(NamedTuple):
    """
    Messages for one topic, in order. If ``partition`` is None, each message's key determines its partition. ``latency`` says what to
    measure when Kafka has acknowledged them. ``traces`` holds the traceparent of each message, empty if it has none; an empty list
    means that no message has one.
    """

    topic: str
    keys: list[bytes]
    values: list[bytes]
    partition: int | None = None
    latency: Latency | None = None
    traces: Sequence[str] = ()


class Messages(NamedTuple):
    """Messages of one partition, in order, with the traceparent of each or of none."""

    keys: list[bytes]
    values: list[bytes]
    traces: list[str]


def partition_of(key: bytes, partitions: int) -> int:
    """
    Return the partition of a key in topics that only workers write: CRC-32 modulo the number of partitions.

    Kafka's own hash, murmur2, takes ten times as long in Python. It is used only for the topics that other clients write to
    (transactions, labels).
    """
    return crc32(key) % partitions


class Delivery(asyncio.Future[None]):
    """
    Future of a set of outputs, done when Kafka has acknowledged all of them.

    Awaiting it raises DeliveryError if one was not acknowledged.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open = 1

    def expect(self) -> None:
        """Add a part that must be acknowledged before the delivery is done."""
        self._open += 1

    def arrived(self) -> None:
        """Record that a part was acknowledged, or that no more parts will be added."""
        self._open -= 1
        if self._open == 0 and not self.done():
            self.set_result(None)

    def failed(self, error: DeliveryError | None) -> None:
        """Fail the delivery: a part will not be acknowledged."""
        if error is not None and not self.done():
            self.set_exception(error)


class PartitionWriter:
    """
    Writer of one partition. It writes one batch at a time and nothing after a failed batch, because consumers take an origin
    offset as proof that all lower ones were delivered.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str, partition: int) -> None:
        self._producer, self._topic, self._partition = producer, topic, partition
        self._waiting: deque[tuple[Messages, Delivery]] = deque()
        self._first = 0  # number of messages of the first waiting entry that are already in a batch
        self._run: asyncio.Task[None] | None = None
        self._error: DeliveryError | None = None

    def put(self, messages: Messages, delivery: Delivery) -> None:
        """Queue messages behind all earlier ones."""
        delivery.expect()
        self._waiting.append((messages, delivery))
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(self._write())

    async def _write(self) -> None:
        complete: list[Delivery] = []
        try:
            while self._waiting and self._error is None:
                batch, complete = self._batch()
                async with asyncio.timeout(_ACK_SECONDS):
                    await self._acknowledged(batch)
                for delivery in complete:
                    delivery.arrived()
                complete = []
        except Exception as error:  # whatever the error, no delivery may wait forever
            self._error = DeliveryError(f"Kafka did not acknowledge an output for {self._topic}: {error!r}")
            self._error.__cause__ = error
        finally:
            unfinished = [*complete, *(delivery for _, delivery in self._waiting)]
            if unfinished and self._error is None:
                self._error = DeliveryError(f"the writer of {self._topic} was closed before all outputs were written")
            for delivery in unfinished:
                delivery.failed(self._error)
            self._waiting.clear()

    def _batch(self) -> tuple[Any, list[Delivery]]:
        """Return the next batch of waiting messages, and the deliveries whose last message is in it."""
        batch = self._producer.create_batch()
        complete: list[Delivery] = []
        while self._waiting:
            (keys, values, traces), delivery = self._waiting[0]
            for at in range(self._first, len(keys)):
                headers = headers_of(traces[at]) if traces else []
                # None: the batch is full; an empty batch accepts any size
                if batch.append(key=keys[at], value=values[at], timestamp=None, headers=headers) is None:
                    self._first = at
                    return batch, complete
            self._waiting.popleft()
            self._first = 0
            complete.append(delivery)
        return batch, complete

    async def _acknowledged(self, batch: Any) -> None:
        batch.close()
        await (await self._producer.send_batch(batch, self._topic, partition=self._partition))


class Publisher:
    """An idempotent producer that writes outputs in order within each partition."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[str, int] = {}
        self._writers: dict[tuple[str, int], PartitionWriter] = {}

    async def start(self) -> None:
        """
        Connect.

        Raises:
            BrokerError: if no broker answers.
        """
        self._producer = AIOKafkaProducer(
            **self._connection.aiokafka,
            enable_idempotence=True,
            acks="all",
            max_batch_size=_BATCH_BYTES,
            max_request_size=_LARGEST_MESSAGE * 2,
            request_timeout_ms=int(_ACK_SECONDS * 1000),
        )
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise self._connection.failed(error) from None

    async def stop(self) -> None:
        """Disconnect."""
        if self._producer:
            await self._producer.stop()
            self._producer = None

    async def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic."""
        if topic not in self._partitions:
            assert self._producer is not None
            self._partitions[topic] = len(await self._producer.partitions_for(self._connection.name(topic)))
        return self._partitions[topic]

    async def counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Return the current number of partitions of each topic; 0 for a topic that does not exist."""
        assert self._producer is not None
        cluster = await self._producer.client.fetch_all_metadata()
        return {topic: len(cluster.partitions_for_topic(self._connection.name(topic)) or ()) for topic in topics}

    async def send(self, outputs: Iterable[Outputs]) -> Delivery:
        """Queue messages for writing, and return their delivery."""
        delivery = Delivery()
        for output in outputs:
            if output.partition is not None:
                messages = Messages(output.keys, output.values, list(output.traces))
                self._writer(output.topic, output.partition).put(messages, delivery)
                continue
            count = await self.partitions(output.topic)
            by_partition = [Messages([], [], []) for _ in range(count)]
            for at, (key, value) in enumerate(zip(output.keys, output.values, strict=True)):
                own = by_partition[partition_of(key, count)]
                own.keys.append(key)
                own.values.append(value)
                if output.traces:
                    own.traces.append(output.traces[at])
            for partition, messages in enumerate(by_partition):
                if messages.keys:
                    self._writer(output.topic, partition).put(messages, delivery)
        delivery.arrived()
        return delivery

    async def publish(self, outputs: Iterable[Outputs]) -> None:
        """
        Write messages, and return once all of them are acknowledged.

        Raises:
            DeliveryError: if one is not acknowledged.
        """
        await (await self.send(outputs))

    def _writer(self, topic: str, partition: int) -> PartitionWriter:
        place = (topic, partition)
        if place not in self._writers:
            assert self._producer is not None
            self._writers[place] = PartitionWriter(self._producer, self._connection.name(topic), partition)
        return self._writers[place]
