"""
The checkpoint log: keeps a partition's state and its positions together, so that they cannot disagree.

Each stage has a compacted topic with as many partitions as its source topics. A checkpoint is one Kafka transaction: the rows
of all keys that changed, then a marker. Therefore a reader of committed records sees only complete checkpoints, and
compaction never replaces a row with one from an incomplete checkpoint. Once a new owner has claimed the log, the broker refuses
all writes of an earlier owner.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, NodeNotReadyError, ProducerFenced
from msgspec import Struct, structs

from core.errors import DeliveryError, StateError
from streams.kafka.connection import Connection
from streams.state import KEY_BYTES, LogRecord

logger = logging.getLogger(__name__)

_MARKER = b"marker"
_FORMAT = 2  # version of the row and marker format
_BATCH_BYTES = 512 << 10  # a topic's default limit is 1 MiB
_LARGEST_ROW = 1 << 20
# A checkpoint takes milliseconds to seconds. If the broker is unavailable for longer, the worker ends and its successor retries.
_WRITE_SECONDS = 120.0
_TRANSACTION_MS = 120_000
_CLOSE_SECONDS = 5.0  # aiokafka would wait without limit for a broker that is away
_POLL_MS = 500  # longest wait of a poll that finds nothing


class Checkpoint(Struct, frozen=True, kw_only=True):
    """
    The marker at the end of a checkpoint.

    ``positions`` are the next offsets to read, by source topic; ``origins`` are the highest origin offsets seen; ``digest`` and
    ``keys`` are the state's digest and number of keys. ``clean`` means that the worker that wrote the
    checkpoint stopped cleanly and processed no record after it. Rows of another ``lineage`` are leftovers from before a rebuild.
    ``pan_key`` is the fingerprint of the key that tokenised card numbers.
    """

    spec: str
    bundle: str
    partitions: int
    positions: dict[str, int]
    origins: dict[str, int]
    keys: int
    digest: str
    clean: bool = False
    lineage: int = 0
    pan_key: str = ""
    v: int = _FORMAT


class CheckpointLog:
    """The log of one partition of a stage. Only its owner, the last caller of ``claim``, can write to it."""

    def __init__(self, connection: Connection, topic: str, partition: int) -> None:
        self._connection, self._tp = connection, TopicPartition(connection.name(topic), partition)
        self._writer = connection.name(f"whyflag-{topic}-{partition}")
        self._name = f"{topic}/{partition}"
        self._producer: AIOKafkaProducer | None = None
        self._end = 0
        self._written: Checkpoint | None = None  # the last checkpoint that this owner wrote
        self._lineage = 0
        self._stale: set[bytes] = set()

    async def claim(self) -> None:
        """
        Become the owner: the broker aborts an open transaction of an earlier owner, and refuses that owner's writes from now on.

        Raises:
            KafkaError: if no broker answers.
        """
        self._written = None
        self._producer = AIOKafkaProducer(
            **self._connection.aiokafka,
            transactional_id=self._writer,
            transaction_timeout_ms=_TRANSACTION_MS,
            max_batch_size=_BATCH_BYTES,
            max_request_size=2 * _LARGEST_ROW,
            request_timeout_ms=int(_WRITE_SECONDS * 1000),
        )
        client = self._producer.client
        client.coordinator_lookup = _repeated(client.coordinator_lookup)
        await _answered(self._producer.start())

    async def close(self) -> None:
        """Disconnect. A transaction that Kafka has not finished by then is aborted by the log's next owner."""
        if self._producer:
            producer, self._producer = self._producer, None
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await producer.stop()
            except TimeoutError:
                logger.warning("%s was closed without an answer from Kafka", self._name)
                await producer.client.close()

    async def read(self, load: Callable[[Sequence[LogRecord]], None]) -> Checkpoint | None:
        """
        Pass all rows to ``load``, in order, and return the last marker, or None if there is no checkpoint.

        Records that belong to no checkpoint are skipped: those after the last marker, because a checkpoint ends with its
        marker, and those whose key is not a row's key. The caller compares the marker's digest to detect a foreign record that
        replaced a row.

        Raises:
            KafkaError: if no broker answers.
            StateError: if there are records but no readable marker, or a marker has another format.
        """
        async with self._reader() as consumer:
            begin, end = await self._bounds(consumer)
            found, count = await self._last_marker(consumer, begin, end)
            self._end = end
            if found is None:
                if count:
                    raise StateError(
                        f"the checkpoint log {self._name} holds no readable marker: foreign records were written to it. Run "
                        f"`whyflag state rebuild --partition {self._tp.partition}`"
                    )
                return None
            checkpoint, behind = found
            self._lineage = checkpoint.lineage
            prefix = bytes([self._lineage])
            async for records in self._records(consumer, begin, behind):
                load(
                    [
                        (r.key[1:], r.value)
                        for r in records
                        if r.key is not None and r.key[:1] == prefix and len(r.key) == 1 + KEY_BYTES and r.offset < behind
                    ]
                )
        return checkpoint

    async def start_over(self) -> Checkpoint | None:
        """
        Discard all rows: start a new lineage, and let the next ``write`` delete the old rows.

        Return the last readable marker, or None.
        """
        checkpoint, lineages = None, {0}
        async with self._reader() as consumer:
            begin, end = await self._bounds(consumer)
            async for records in self._records(consumer, begin, end):
                for record in records:
                    if record.key == _MARKER:
                        # skip a marker in another format: this loses its positions, but no source records
                        with contextlib.suppress(StateError):
                            checkpoint = _decoded(record.value) or checkpoint
                    elif record.key:
                        lineages.add(record.key[0])
                        self._stale.add(record.key)
        self._lineage = (max(lineages) + 1) % 256
        return checkpoint

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            **self._connection.aiokafka,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_POLL_MS,
            max_partition_fetch_bytes=8 << 20,
        )
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()

    async def _bounds(self, consumer: AIOKafkaConsumer) -> tuple[int, int]:
        consumer.assign([self._tp])
        begins, ends = await consumer.beginning_offsets([self._tp]), await consumer.end_offsets([self._tp])
        return begins[self._tp], ends[self._tp]

    async def _last_marker(self, consumer: AIOKafkaConsumer, begin: int, end: int) -> tuple[tuple[Checkpoint, int] | None, int]:
        """
        Return the last marker with its offset, and the number of committed records read. Aborted records and the transactions'
        control records may follow the marker, so the search starts near the end and widens until it finds one.
        """
        reach, found, count = 2, None, 0
        while found is None and reach // 4 < end - begin:
            count = 0
            async for records in self._records(consumer, max(begin, end - reach), end):
                count += len(records)
                for record in records:
                    if record.key == _MARKER and (checkpoint := _decoded(record.value)) is not None:
                        found = (checkpoint, record.offset)
            reach *= 4
        if found is not None and (foreign := await self._behind(consumer, found[1], end)):
            logger.warning(
                "%d records after the last marker of %s belong to no checkpoint and are skipped: check who may write to it",
                foreign,
                self._name,
            )
        return found, count

    async def _behind(self, consumer: AIOKafkaConsumer, marker: int, end: int) -> int:
        count = 0
        async for records in self._records(consumer, marker + 1, end):
            count += len(records)
        return count

    async def _records(self, consumer: AIOKafkaConsumer, begin: int, end: int) -> AsyncIterator[list[Any]]:
        consumer.seek(self._tp, begin)
        while await consumer.position(self._tp) < end:
            for records in (await consumer.getmany(self._tp, timeout_ms=_POLL_MS)).values():
                if records:
                    yield records

    async def still_owned(self) -> bool:
        """
        Return whether this owner still owns the log: nobody has written to it or claimed it since this owner's last write.

        A successor that claimed the log but died before writing leaves no record. To detect this, the last marker is written
        again: the broker refuses the write of a former owner. It is no longer clean, because this owner goes on after it.
        """
        written, self._written = self._written, None  # after an error, the log must be claimed again
        async with self._reader() as consumer:
            if (await self._bounds(consumer))[1] != self._end or written is None:
                return False
        try:
            await _answered(self._write([], structs.replace(written, clean=False)))
        except ProducerFenced:
            return False
        return True

    async def write(self, rows: Sequence[LogRecord], checkpoint: Checkpoint) -> None:
        """
        Write a checkpoint in four steps: 1 begin; 2 rows; 3 marker; 4 commit. Readers see the checkpoint only after step 4.

        Raises:
            DeliveryError: if it could not be written, or if another owner has claimed the log.
        """
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._write(rows, checkpoint)
        except ProducerFenced:
            raise DeliveryError(f"{self._name} has a new owner: this worker was considered dead and must be restarted") from None
        except (KafkaError, TimeoutError) as error:
            raise DeliveryError(f"Kafka did not accept a checkpoint of {self._name}: {error!r}") from error

    async def _write(self, rows: Sequence[LogRecord], checkpoint: Checkpoint) -> None:
        assert self._producer is not None
        await self._producer.begin_transaction()  # 1
        prefix = bytes([self._lineage])
        await self._append([*((key, None) for key in self._stale), *((prefix + key, row) for key, row in rows)])  # 2
        marked = structs.replace(checkpoint, lineage=self._lineage)
        marker = await self._append([(_MARKER, msgspec.json.encode(marked))])  # 3
        await self._producer.commit_transaction()  # 4
        self._stale.clear()
        self._written = marked
        self._end = marker + 2  # after the marker and the transaction's control record

    async def _append(self, records: Sequence[tuple[bytes, bytes | None]]) -> int:
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


def _repeated(lookup: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
    """
    Return a look-up of a transaction's coordinator that aiokafka repeats if the connection closes.

    aiokafka repeats it after most errors of a broker that goes away, but after this one its producer fails for good.
    """

    async def repeated(*arguments: Any) -> int:
        try:
            return await lookup(*arguments)
        except KafkaConnectionError as error:
            raise NodeNotReadyError(str(error)) from error

    return repeated


async def _answered(request: Awaitable[None]) -> None:
    """
    Wait for a request that aiokafka would repeat without limit.

    Raises:
        KafkaTimeoutError: if Kafka has not answered in time.
    """
    try:
        async with asyncio.timeout(_WRITE_SECONDS):
            await request
    except TimeoutError:
        raise KafkaTimeoutError(f"no answer within {_WRITE_SECONDS:.0f} s") from None


def _decoded(raw: bytes | None) -> Checkpoint | None:
    """
    Return the marker in a record's value, or None if the value is not a marker.

    Raises:
        StateError: if the marker has another format.
    """
    try:
        checkpoint = msgspec.json.decode(raw or b"", type=Checkpoint)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if checkpoint.v != _FORMAT:
        raise StateError(
            f"the checkpoint log has format {checkpoint.v}, this version reads format {_FORMAT}: run `whyflag state rebuild` once"
        )
    return checkpoint
