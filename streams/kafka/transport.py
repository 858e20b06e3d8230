"""
A Faust transport that delivers whole chunks to an agent instead of single messages.

Faust's standard agent costs about 200 µs per event, most of it for asyncio futures. Here the consumer yields one Faust message
for each run of records fetched from a partition: its value is the ``RecordChunk``, and its offset is that of the last record.
Faust finds the transport by the entry point ``whyflag`` in the group ``faust.transports``. ``tests/streams/test_faust_members.py`` lists the
private members of Faust that it overrides, and fails when they change.
"""

import asyncio
import logging
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.kafka.connection import Connection

logger = logging.getLogger(__name__)

# Longest time that a broker may hold a fetch that finds no records. A partition that was just read is not part of the pending
# fetch, so its new records wait until that fetch ends. Fetching therefore adds at most this latency. An idle worker sends one
# small request to each broker per interval.
_FETCH_WAIT_MS = 20
_GROUP_BYTES = 1 << 20  # of record values in a group; the records of one partition are never divided


class OffsetRange(NamedTuple):
    """The first offset of a partition that is still in Kafka, and the next offset that Kafka will assign."""

    begin: int
    end: int


class RecordChunk:
    """
    Records of one partition, in order and without omissions from offset ``begin`` to the last one.

    ``done`` means that the operator has taken responsibility for them: Kafka has acknowledged their outputs or, with a
    checkpoint log, the next checkpoint waits for those acknowledgements. ``group`` holds the chunks that were fetched together, this one
    included: the operator processes them in one batch.
    """

    # record attributes that Faust and aiokafka read
    headers: Sequence[Any] = ()
    key = None
    checksum = None
    serialized_key_size = serialized_value_size = 0

    def __init__(self, tp: TP, records: list[Any], begin: int, source: str | None = None) -> None:
        """``source`` is the topic's name without the prefix of the settings."""
        last = records[-1]
        self.begin, self.source = begin, tp.topic if source is None else source
        self.topic, self.partition, self.offset = tp.topic, tp.partition, last.offset
        self.timestamp, self.timestamp_type = last.timestamp, last.timestamp_type
        self.records = records
        self.done = False
        self.group: list[RecordChunk] = [self]

    @property
    def value(self) -> "RecordChunk":
        """Return the chunk itself, as the value of its Faust message."""
        return self


def group_chunks(chunks: Sequence[RecordChunk]) -> None:
    """Form groups of about ``_GROUP_BYTES``: larger ones would keep the event loop busy for too long."""
    group: list[RecordChunk] = []
    size = 0
    for chunk in chunks:
        group.append(chunk)
        chunk.group = group
        size += sum(len(record.value or b"") for record in chunk.records)
        if size >= _GROUP_BYTES:
            group, size = [], 0


class Host(Protocol):
    """The part of the Faust app that this transport calls: it opens partitions and sets their read positions."""

    connection: Connection

    async def open_partitions(self, assigned: set[tuple[str, int]], source: "Consumer") -> None:
        """Open the assigned partitions. Called after a rebalance, before the first fetch."""


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with a shorter wait for data."""

    mundane_level = "debug"
    _fetch: asyncio.Task[Any] | None = None

    async def _fetch_records(self, *args: Any, **kwargs: Any) -> Any:
        self._fetch = asyncio.ensure_future(super()._fetch_records(*args, **kwargs))
        return await self._fetch

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        # The caller of an older fetch may have been cancelled, for example by a rebalance. That fetch would take the first records
        # after the new position and hand them to nobody
        if self._fetch is not None and not self._fetch.done():
            self._fetch.cancel()
            await asyncio.wait([self._fetch])
        await super()._seek_wait(consumer, partitions)

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # Faust hard-codes 1500; the value is read when the consumer starts
        return consumer

    async def on_thread_stop(self) -> None:
        """
        Close the consumer. While Kafka is away, aiokafka cancels its own fetch and raises; nothing is lost then, because what is
        not committed is read again.
        """
        try:
            await super().on_thread_stop()
        except (asyncio.CancelledError, KafkaError) as error:
            logger.warning("Kafka does not answer, so the consumer has not left its group: %r", error)


class Consumer(driver.Consumer):
    """Faust's aiokafka consumer, changed to deliver chunks and to acknowledge only those that the operator finished."""

    mundane_level = "debug"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._next: dict[TP, int] = {}  # the offset after the last chunk, or the last seek target
        self._sought: dict[TP, int] = {}  # seeks to perform before the next fetch
        self._opening: asyncio.Future[None] | None = None

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Mapping[TP, list[Any]]:
        if self._opening is not None and not self._opening.done():
            await asyncio.wait([self._opening], timeout=timeout)
            if self._opening is None or not self._opening.done():
                return {}
        # Seeks happen only between two fetches, so that a chunk's ``begin`` is correct: a fetch that is pending when a seek is
        # requested may return records from the old or from the new position
        if self._sought:
            owned = self.assignment()
            sought = {tp: offset for tp, offset in self._sought.items() if tp in owned}
            await self._thread.seek_wait(sought)
            self._next |= sought
            self._sought = {tp: offset for tp, offset in self._sought.items() if sought.get(tp) != offset}
        try:
            fetched = await super()._getmany(active_partitions, timeout) or {}
        except asyncio.CancelledError:
            self._sought = self._next | self._sought  # the records that this fetch took are lost: read them again
            raise
        chunks = {}
        for tp, records in fetched.items():
            if records and tp not in self._sought:
                begin = self._next.get(tp, records[0].offset)
                chunks[tp] = [RecordChunk(tp, records, begin, self._host.connection.plain(tp.topic))]
                self._next[tp] = records[-1].offset + 1
        group_chunks([chunk for own in chunks.values() for chunk in own])
        return chunks

    @property
    def _host(self) -> Host:
        return cast(Host, self.app)

    def _tp(self, place: tuple[str, int]) -> TP:
        return TP(self._host.connection.name(place[0]), place[1])

    def _place(self, tp: TP) -> tuple[str, int]:
        return self._host.connection.plain(tp.topic), tp.partition

    async def bounds(self, places: list[tuple[str, int]]) -> dict[tuple[str, int], OffsetRange]:
        """Return the current first and next offset of each partition in Kafka."""
        tps = [self._tp(place) for place in places]
        begins, ends = await self.earliest_offsets(*tps), await self.highwaters(*tps)
        return {self._place(tp): OffsetRange(begins[tp], ends[tp]) for tp in tps}

    async def committed(self, places: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return the consumer group's committed offsets; partitions without one are left out."""
        found = {self._place(tp): offset for tp, offset in (await super().seek_to_committed()).items()}
        return {place: offset for place in places if (offset := found.get(place)) is not None}

    def read_from(self, place: tuple[str, int], offset: int) -> None:
        """Continue reading a partition at this offset, and drop the records already fetched from it."""
        self._sought[self._tp(place)] = offset

    def reached(self, place: tuple[str, int]) -> int:
        """Return the offset after the last chunk fetched from a partition."""
        return self._next.get(self._tp(place), -1)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget a pending opening of partitions, because a rebalance begins."""
        self._opening = None
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Open the assigned partitions after a rebalance, before anything is fetched from them."""
        self._next.clear()
        self._sought.clear()
        self._opening = asyncio.ensure_future(self._open(assigned))
        await super().on_partitions_assigned(assigned, generation_id)

    async def _open(self, assigned: set[TP]) -> None:
        await self._host.open_partitions({self._place(tp) for tp in assigned}, self)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """
        Seek nowhere: the operators set the positions, and nothing is fetched before the partitions are open.

        Faust calls this before it resumes fetching, and would never fetch again if it took longer than 90 s. Faust drops fetched
        records whenever it pauses its flow; the operators detect this and read the records again.
        """
        return {}

    def ack(self, message: Any) -> bool:
        """
        Acknowledge a chunk only if the operator finished it in this generation of the group.

        Faust acknowledges a message whenever its agent releases it: also after an exception, on cancellation, and when the
        message was skipped because of a rebalance. In these cases the message has not been processed.
        """
        if not message.value.done or message.generation_id != self.app.consumer_generation_id:
            self._unacked_messages.discard(message)
            return False
        return bool(super().ack(message))

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing: gaps between the offsets of chunks are normal."""

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset to commit: the one after the last finished chunk, because one agent finishes the chunks in order."""
        acked = self._acked[tp]
        if not acked:
            return None
        offset = max(acked) + 1
        acked.clear()
        self._acked_index[tp].clear()
        return offset


class Transport(driver.Transport):
    """Faust's aiokafka transport with the consumer above."""

    Consumer = Consumer
    _topic_waiters: MutableMapping[str, Any]
