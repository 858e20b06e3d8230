"""
A Faust transport that hands an agent whole chunks instead of single messages.

A stock agent costs about 200 µs an event, most of it futures. Here the consumer yields one Faust message for each run of
records fetched from a partition: its value is the ``RecordChunk``, its offset that of the last record. Faust finds the transport by
the entry point ``whyflag`` in the group ``faust.transports``.
"""

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Protocol, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

# How long a broker may hold a fetch that finds nothing. A partition that was just read is not part of the fetch under way, so what
# arrives there waits for it to end: this is the worst case that fetching adds to the latency. An idle worker pays one small request
# to each broker in this time.
_FETCH_WAIT_MS = 20


class RecordChunk:
    """
    Records of one partition, in order: all that there are from offset ``begin`` up to the last.

    ``done`` says that the operator answers for them: their outputs are acknowledged by Kafka or, where there is a checkpoint log, on
    their way and waited for by the next checkpoint.
    """

    # what Faust and aiokafka read of a record
    headers: Sequence[Any] = ()
    key = None
    checksum = None
    serialized_key_size = serialized_value_size = 0

    def __init__(self, tp: TP, records: list[Any], begin: int) -> None:
        last = records[-1]
        self.begin = begin
        self.topic, self.partition, self.offset = tp.topic, tp.partition, last.offset
        self.timestamp, self.timestamp_type = last.timestamp, last.timestamp_type
        self.records = records
        self.done = False

    @property
    def value(self) -> "RecordChunk":
        """The chunk is its own value."""
        return self


class Host(Protocol):
    """The Faust app as this transport knows it: it opens partitions and says where to read them from."""

    async def open_partitions(self, assigned: set[tuple[str, int]], source: "Consumer") -> None:
        """Called after a rebalance, before anything is fetched."""


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with a shorter wait for data."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # Faust fixes it at 1500 and has no setting; read when the consumer starts
        return consumer


class Consumer(driver.Consumer):
    """Faust's aiokafka consumer, with chunks for records and its own, stricter way to acknowledge them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._next: dict[TP, int] = {}  # the offset behind the last chunk, or the one sought
        self._sought: dict[TP, int] = {}  # seeks to carry out before the next fetch
        self._opening: asyncio.Future[None] | None = None

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Mapping[TP, list[Any]]:
        # Seeks take place between two fetches and nowhere else, so that a chunk's ``begin`` is true: a fetch under way while one is
        # asked for may have read on from the old place or the new
        if self._sought:
            owned = self.assignment()
            sought = {tp: offset for tp, offset in self._sought.items() if tp in owned}
            await self._thread.seek_wait(sought)
            self._next |= sought
            self._sought = {tp: offset for tp, offset in self._sought.items() if sought.get(tp) != offset}
        fetched = await super()._getmany(active_partitions, timeout) or {}
        chunks = {}
        for tp, records in fetched.items():
            if records and tp not in self._sought:
                chunks[tp] = [RecordChunk(tp, records, self._next.get(tp, records[0].offset))]
                self._next[tp] = records[-1].offset + 1
        return chunks

    async def bounds(self, places: list[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
        """First and next offset of partitions, as Kafka has them now."""
        tps = [TP(*place) for place in places]
        begins, ends = await self.earliest_offsets(*tps), await self.highwaters(*tps)
        return {(tp.topic, tp.partition): (begins[tp], ends[tp]) for tp in tps}

    async def committed(self, places: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The offsets that the consumer group has committed, for the partitions where there are any."""
        found = {(tp.topic, tp.partition): offset for tp, offset in (await super().seek_to_committed()).items()}
        return {place: offset for place in places if (offset := found.get(place)) is not None}

    def read_from(self, place: tuple[str, int], offset: int) -> None:
        """Read a partition from this offset on; whatever was fetched for it before is dropped."""
        self._sought[TP(*place)] = offset

    def reached(self, place: tuple[str, int]) -> int:
        """The offset behind the last chunk that was fetched of a partition."""
        return self._next.get(TP(*place), -1)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Before a rebalance."""
        self._opening = None
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """After a rebalance: the worker opens its partitions before anything is fetched from them."""
        self._next.clear()
        self._sought.clear()
        self._opening = asyncio.ensure_future(self._open(assigned))
        await super().on_partitions_assigned(assigned, generation_id)

    async def _open(self, assigned: set[TP]) -> None:
        await cast(Host, self.app).open_partitions({(tp.topic, tp.partition) for tp in assigned}, self)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """
        Where Faust lets fetching go on. It seeks nowhere: positions are the operators' own.

        Faust drops what it has fetched whenever its flow stops; the operators notice and read it again.
        """
        if self._opening is not None:
            await asyncio.shield(self._opening)
        return {}

    def ack(self, message: Any) -> bool:
        """
        Acknowledge a chunk only if the operator finished it in this generation of the group.

        Faust acknowledges a message whenever its agent lets go of it: after an exception, on cancellation, and when it was
        skipped because the partition had moved on. None of these has been processed.
        """
        if not message.value.done or message.generation_id != self.app.consumer_generation_id:
            self._unacked_messages.discard(message)
            return False
        return bool(super().ack(message))

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Chunks skip offsets by nature; there is nothing to remember about them."""

    def _new_offset(self, tp: TP) -> int | None:
        """What may be committed: behind the last finished chunk, because one agent finishes them in order."""
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
