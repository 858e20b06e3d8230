"""
The checkpoint log: a partition's state and its positions in one place, so that they cannot disagree.

Each hop has a compacted topic with a partition for each of its source's. A checkpoint is one Kafka transaction: the rows of all keys
that changed, then a marker. So a reader of committed records sees whole checkpoints only, compaction never lets a torn one hide
a row, and a later owner's claim makes the broker refuse whatever an earlier one still writes.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from msgspec import Struct, structs

from core.errors import DeliveryError, StateError
from streams.kafka.connection import Connection
from streams.state import KEY_BYTES, LogRecord

logger = logging.getLogger(__name__)

_MARKER = b"marker"
_FORMAT = 2  # of rows and marker
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
    ``keys`` those of the state. ``clean`` says that nothing was read after it: its writer stopped in order. Rows of another
    ``lineage`` are left over from before a rebuild. ``pan_key`` is the fingerprint of the key under which card numbers became tokens.
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
    """The log of one hop's partition. One owner at a time writes it: the last to ``claim``."""

    def __init__(self, connection: Connection, topic: str, partition: int) -> None:
        self._connection, self._tp = connection, TopicPartition(topic, partition)
        self._name = f"{topic}/{partition}"
        self._producer: AIOKafkaProducer | None = None
        self._end = 0
        self._written: Checkpoint | None = None  # as this owner has written it
        self._lineage = 0
        self._stale: set[bytes] = set()

    async def claim(self) -> None:
        """
        Become the owner: the broker ends a transaction that an earlier owner left open, and refuses its writes from now on.

        Raises:
            KafkaError: if no broker answers.
        """
        self._producer = AIOKafkaProducer(
            **self._connection.aiokafka,
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

    async def read(self, load: Callable[[Sequence[LogRecord]], None]) -> Checkpoint | None:
        """
        Hand all rows to ``load``, in order, and return the last marker; None where there is no checkpoint.

        What is not of a checkpoint is passed over: records behind the last marker, because a transaction ends with one, and records
        whose keys are not those of rows. The digest in the marker tells whether a foreign record took the place of a row.

        Raises:
            KafkaError: if no broker answers.
            StateError: if there are records but no marker that can be understood.
        """
        async with self._reader() as consumer:
            begin, end = await self._bounds(consumer)
            found, count = await self._last_marker(consumer, begin, end)
            self._end = end
            if found is None:
                if count:
                    raise StateError(
                        f"the checkpoint log {self._name} holds no marker that can be read: something else was written to it. Run `whyflag "
                        f"state rebuild --partition {self._tp.partition}`"
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
        Forget all rows: those written from here on are of a new lineage, and the next ``write`` removes the old ones.

        Returns the last marker that can be understood, if there is one.
        """
        checkpoint, lineages = None, {0}
        async with self._reader() as consumer:
            begin, end = await self._bounds(consumer)
            async for records in self._records(consumer, begin, end):
                for record in records:
                    if record.key == _MARKER:
                        with contextlib.suppress(StateError):  # of another format: the positions are lost, not the records
                            checkpoint = _decoded(record.value) or checkpoint
                    elif record.key:
                        lineages.add(record.key[0])
                        self._stale.add(record.key)
        self._lineage = (max(lineages) + 1) % 256
        return checkpoint

    def _reader(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **self._connection.aiokafka,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_POLL_MS,
            max_partition_fetch_bytes=8 << 20,
        )

    async def _bounds(self, consumer: AIOKafkaConsumer) -> tuple[int, int]:
        consumer.assign([self._tp])
        begins, ends = await consumer.beginning_offsets([self._tp]), await consumer.end_offsets([self._tp])
        return begins[self._tp], ends[self._tp]

    async def _last_marker(self, consumer: AIOKafkaConsumer, begin: int, end: int) -> tuple[tuple[Checkpoint, int] | None, int]:
        """
        The last marker and its offset, and how many committed records were looked at. Behind it may be what was rolled back, and the
        transactions' own records.
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
                "%d records behind the last marker of %s are of no checkpoint and passed over: who else may write to it?",
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
        Whether nobody else has written to the log or claimed it since this owner wrote last.

        A successor that claimed the log and died before it wrote left no record. So the last marker is written again: the broker
        refuses it to a former owner.
        """
        async with self._reader() as consumer:
            if (await self._bounds(consumer))[1] != self._end or self._written is None:
                return False
        try:
            await self._write([], self._written)
        except ProducerFenced:
            return False
        return True

    async def write(self, rows: Sequence[LogRecord], checkpoint: Checkpoint) -> None:
        """
        Numbered steps of a checkpoint: 1 begin; 2 rows; 3 marker; 4 commit. It exists from step 4 on, or not at all.

        Raises:
            DeliveryError: if it could not be written, or if another owner has claimed the log.
        """
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._write(rows, checkpoint)
        except ProducerFenced:
            raise DeliveryError(f"{self._name} has a new owner: this worker was taken for dead and must start again") from None
        except (KafkaError, TimeoutError) as error:
            raise DeliveryError(f"Kafka did not take a checkpoint of {self._name}: {error!r}") from error

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
        self._end = marker + 2  # behind the marker and the transaction's own record

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


def _decoded(raw: bytes | None) -> Checkpoint | None:
    """
    The marker in a record's value; None if it is none.

    Raises:
        StateError: if it is of another format.
    """
    try:
        checkpoint = msgspec.json.decode(raw or b"", type=Checkpoint)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if checkpoint.v != _FORMAT:
        raise StateError(
            f"the checkpoint log is of format {checkpoint.v}, this version reads format {_FORMAT}: run `whyflag state rebuild` once"
        )
    return checkpoint
