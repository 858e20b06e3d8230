"""
The checkpoint log: a partition's state and its positions in one place, so that they cannot disagree.

Each hop has a compacted topic with a partition for each of its source's. A checkpoint is one Kafka transaction: the rows of all keys
that changed, then a marker. So a reader of committed records sees whole checkpoints only, compaction never lets a torn one hide
a row, and a later owner's claim makes the broker refuse whatever an earlier one still writes.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from msgspec import Struct

from core.errors import DeliveryError, StateError

logger = logging.getLogger(__name__)

_MARKER = b"marker"
_BATCH_BYTES = 512 << 10  # a topic takes 1 MiB by default
_LARGEST_ROW = 1 << 20
# A checkpoint takes milliseconds to seconds. A broker that is away for longer than this is met again by the worker's successor.
_WRITE_SECONDS = 120.0
_TRANSACTION_MS = 120_000
_POLL_MS = 500  # a poll that finds nothing


class Checkpoint(Struct, frozen=True, kw_only=True):
    """
    The marker at the end of a checkpoint.

    ``positions`` are the next offsets to read, by source topic; ``origins`` the highest origin offsets seen; ``digest`` and
    ``keys`` those of the state. ``clean`` says that nothing was read after it: its writer stopped in order.
    """

    spec: str
    bundle: str
    partitions: int
    positions: dict[str, int]
    origins: dict[str, int]
    keys: int
    digest: str
    clean: bool = False
    v: int = 1


class CheckpointLog:
    """The log of one hop's partition. One owner at a time writes it: the last to ``claim``."""

    def __init__(self, bootstrap: str, topic: str, partition: int) -> None:
        """``bootstrap`` is host:port[,host:port]."""
        self._bootstrap, self._tp = bootstrap, TopicPartition(topic, partition)
        self._producer: AIOKafkaProducer | None = None
        self._end = 0

    async def claim(self) -> None:
        """
        Become the owner: the broker ends a transaction that an earlier owner left open, and refuses its writes from now on.

        Raises:
            KafkaError: if no broker answers.
        """
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            transactional_id=f"whyflag-{self._tp.topic}-{self._tp.partition}",
            transaction_timeout_ms=_TRANSACTION_MS,
            max_batch_size=_BATCH_BYTES,
            max_request_size=2 * _LARGEST_ROW,
            request_timeout_ms=int(_WRITE_SECONDS * 1000),
        )
        await self._producer.start()

    async def close(self) -> None:
        """Disconnect."""
        if self._producer:
            producer, self._producer = self._producer, None
            await producer.stop()

    async def read(self, load: Callable[[Sequence[tuple[bytes, bytes]]], None]) -> Checkpoint | None:
        """
        Hand all rows to ``load``, in order, and return the last marker; None where there is no checkpoint.

        Raises:
            KafkaError: if no broker answers.
            StateError: if a marker cannot be understood, or rows follow the last one.
        """
        checkpoint, torn, begin = None, False, None
        async with AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_POLL_MS,
            max_partition_fetch_bytes=8 << 20,
        ) as consumer:
            consumer.assign([self._tp])
            end = (await consumer.end_offsets([self._tp]))[self._tp]
            await consumer.seek_to_beginning(self._tp)
            begin = await consumer.position(self._tp)
            while await consumer.position(self._tp) < end:
                for records in (await consumer.getmany(self._tp, timeout_ms=_POLL_MS)).values():
                    rows = [(record.key, record.value) for record in records if record.key != _MARKER]
                    if rows:
                        load(rows)
                    torn = records[-1].key != _MARKER
                    for record in reversed(records):
                        if record.key == _MARKER:
                            checkpoint = _decoded(record.value)
                            break
        if torn or (checkpoint is None and end > begin):
            raise StateError(
                f"the checkpoint log {self._tp.topic}/{self._tp.partition} has rows without a marker: it was cut off"
            )
        self._end = end
        return checkpoint

    async def unchanged(self) -> bool:
        """Whether nobody has written since this owner did, read from the log itself."""
        async with AIOKafkaConsumer(bootstrap_servers=self._bootstrap, group_id=None) as consumer:
            consumer.assign([self._tp])
            return bool((await consumer.end_offsets([self._tp]))[self._tp] == self._end)

    async def write(self, rows: Sequence[tuple[bytes, bytes]], checkpoint: Checkpoint) -> None:
        """
        Numbered steps of a checkpoint: 1 begin; 2 rows; 3 marker; 4 commit. It exists from step 4 on, or not at all.

        Raises:
            DeliveryError: if it could not be written, or if another owner has claimed the log.
        """
        assert self._producer is not None
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._producer.begin_transaction()  # 1
                await self._append(rows)  # 2
                marker = await self._append([(_MARKER, msgspec.json.encode(checkpoint))])  # 3
                await self._producer.commit_transaction()  # 4
        except ProducerFenced:
            raise DeliveryError(
                f"{self._tp.topic}/{self._tp.partition} has a new owner: this worker was taken for dead and must start again"
            ) from None
        except (KafkaError, TimeoutError) as error:
            raise DeliveryError(f"Kafka did not take a checkpoint of {self._tp.topic}/{self._tp.partition}: {error!r}") from error
        self._end = marker + 2  # behind the marker and the transaction's own record

    async def _append(self, records: Sequence[tuple[bytes, bytes]]) -> int:
        assert self._producer is not None
        waiting = []
        batch = self._producer.create_batch()
        for key, value in records:
            if batch.append(key=key, value=value, timestamp=None) is None:
                waiting.append(await self._send(batch))
                batch = self._producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        if batch.record_count():
            waiting.append(await self._send(batch))
        sent: list[Any] = await asyncio.gather(*waiting)
        return int(sent[-1].offset) if sent else -1

    async def _send(self, batch: Any) -> "asyncio.Future[Any]":
        assert self._producer is not None
        batch.close()
        future: asyncio.Future[Any] = await self._producer.send_batch(batch, self._tp.topic, partition=self._tp.partition)
        return future


def _decoded(raw: bytes) -> Checkpoint:
    try:
        return msgspec.json.decode(raw, type=Checkpoint)
    except msgspec.MsgspecError as error:
        raise StateError(f"the marker of a checkpoint cannot be read ({error}): was it written by another version?") from None
