"""
A partition of a stage: how far it is processed, what awaits acknowledgement, and its checkpoints.

Steps of a checkpoint, numbered in ``commit`` and ``_write``:

1. wait until the previous checkpoint is written;
2. switch to a newer decider, if there is one;
3. take a snapshot of the changed rows, the positions and the digest, and begin a new epoch;
4. wait until every output queued before the snapshot is acknowledged, while the next epoch runs;
5. write the rows and the marker in one transaction;
6. after a switch, wait until step 5 is finished. A new bundle or new rules decide their first record only after the marker that
   names them is written. They never decide a record that may already have been decided before a crash.

A partition without a checkpoint log has nothing to write: its commit only waits for the acknowledgements, after each batch.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any

from msgspec import Struct

from streams.kafka.publishing import Delivery
from streams.kafka.transport import RecordChunk
from streams.recovery import Log, Write
from streams.source import Place, Source
from streams.stages.stage import DecidingStage, Stage

logger = logging.getLogger(__name__)

# An epoch also ends after this many bytes of records, so that after a crash a busy partition replays for seconds, not minutes.
_EPOCH_BYTES = 64 << 20
# Faust may silently drop fetched records. If a position has not moved for this long although later records were fetched, the
# partition is read again from that position. If the records were only waiting behind chunks of other partitions, they arrive
# twice, and the second copy is dropped as a replay.
_LOST_SECONDS = 2.0


class Epoch(Struct):
    """Since the last snapshot: its time and that of the first record (monotonic seconds), number of records, and their bytes."""

    began: float
    first: float | None = None
    records: int = 0
    bytes: int = 0


class Partition:
    """One partition of all topics of a stage that this worker reads."""

    def __init__(self, stage: Stage, number: int, log: Log, source: Source, failed: Callable[[BaseException], None]) -> None:
        """``failed`` is called with the error of a checkpoint that could not be written."""
        self.number, self.log = number, log
        self.positions: dict[str, int] = {}  # next offset to process, by topic
        self.written: dict[str, int] = {}  # when the last processed record was written to Kafka, epoch ms, by topic
        self.claimed = False  # taken over and not yet released
        self.active = False  # claimed, like all partitions of the assignment, so that its records are processed
        self._stage, self._source, self._failed = stage, source, failed
        self._replays: Mapping[str, int] = {}  # by topic: a previous owner may have decided records below this offset
        self._deliveries: list[Delivery] = []  # of this epoch's batches
        self._epoch = Epoch(monotonic())
        self._commit: asyncio.Task[None] | None = None
        self._blocked = False  # until the checkpoint is written, no record may be processed
        self._uncommitted: float | None = None  # when the first record of the pending checkpoint was processed, monotonic seconds
        # by topic: a position that lags behind the fetched offset, and since when
        self._waiting: dict[str, tuple[int, float]] = {}

    async def restore(self, topics: Iterable[str]) -> None:
        """
        Take over the partition of these topics.

        Raises:
            StateError: if its log cannot be used.
            KafkaError: if no broker answers.
        """
        restored = await self.log.restore(self._source, topics)
        self.positions, self._replays, self._epoch = restored.positions, restored.replays, Epoch(monotonic())
        if restored.announce:
            await self.log.snapshot(dict(self.positions), clean=False)()
        self.claimed = True

    async def resume(self, topics: Iterable[str]) -> bool:
        """Continue after a rebalance that left the partition with this worker. Return False if it must be restored instead."""
        positions = await self.log.resume(self._source, topics, self.positions)
        if positions is None:
            return False
        self.positions, self.claimed = positions, True
        return True

    def activate(self) -> None:
        """Read on from the positions."""
        self._waiting.clear()
        for topic, offset in self.positions.items():
            self._source.read_from((topic, self.number), offset)
        self.active = True

    async def release(self) -> None:
        """Process nothing more, and write a last checkpoint."""
        self.active = self.claimed = False
        await self.commit(monotonic(), clean=True)
        await self.committed()

    async def close(self) -> None:
        """Wait for a pending checkpoint, then close the log."""
        self.active = False
        if self._commit is not None:
            await asyncio.wait([self._commit])
        await self.log.close()

    # -- records --------------------------------------------------------------------------------------------------------------

    async def unprocessed(self, chunk: RecordChunk, may_seek: bool) -> list[Any] | None:
        """
        Return the chunk's records from the position on, or None if earlier records are missing.

        If ``may_seek``, the consumer is then sent back to the position. Waits for a checkpoint that must come before the next record.
        """
        if self._blocked:
            await self.committed()
        position = self.positions[chunk.source]
        if chunk.begin > position:
            if may_seek:
                self._source.read_from((chunk.source, self.number), position)
            return None
        first = chunk.records[0].offset
        if first < position:
            return [record for record in chunk.records if record.offset >= position]
        if first > position:
            await self._check_gap((chunk.source, self.number), position)
        return chunk.records

    async def _check_gap(self, place: Place, position: int) -> None:
        """Check whether a gap in the offsets is a loss. Gaps from producers' transactions are harmless."""
        begin, _ = (await self._source.bounds([place]))[place]
        if begin > position:
            self.log.report_loss(begin - position, place)

    def advance(self, chunk: RecordChunk, records: list[Any], delivery: Delivery | None, now: float) -> None:
        """Record that the new records of a chunk are processed; ``delivery`` is that of their outputs."""
        self.positions[chunk.source] = max(self.positions[chunk.source], chunk.offset + 1)
        self.written[chunk.source] = chunk.timestamp
        if records and delivery is not None:
            self._deliveries = [one for one in self._deliveries if not one.done() or one.exception() is not None]
            self._deliveries.append(delivery)
            self._epoch.first = self._epoch.first or now
            self._epoch.records += len(records)
            self._epoch.bytes += sum(len(record.value or b"") for record in records)

    def reread_lost(self, now: float) -> None:
        """Fetch records again that were fetched but never reached the operator."""
        for topic, position in self.positions.items():
            place = (topic, self.number)
            before, since = self._waiting.get(topic, (-1, now))
            if self._source.reached(place) <= position:
                self._waiting.pop(topic, None)
            elif before != position:
                self._waiting[topic] = (position, now)
            elif now - since >= _LOST_SECONDS:
                logger.info("%s/%d is read again from %d: the fetched records have not arrived", *place, position)
                self._source.read_from(place, position)
                self._waiting[topic] = (position, now)

    # -- checkpoints ----------------------------------------------------------------------------------------------------------

    @property
    def replayed(self) -> bool:
        """Whether all records that a previous owner may have processed after its last checkpoint are replayed."""
        return all(position >= self._replays.get(topic, 0) for topic, position in self.positions.items())

    def epoch_ended(self, now: float) -> bool:
        """Return whether it is time for a checkpoint."""
        epoch = self._epoch
        full = epoch.bytes >= _EPOCH_BYTES or now - epoch.began >= self.log.epoch_seconds
        return (epoch.records > 0 and full) or self._newer_decider() is not None

    def age(self, now: float) -> float:
        """Return the age of the oldest processed record that no checkpoint holds; 0 if there is none."""
        first = [one for one in (self._uncommitted, self._epoch.first) if one is not None]
        return max(0.0, now - min(first, default=now))

    def _newer_decider(self) -> DecidingStage | None:
        """Return the stage if a newer decider may take over now, else None; none may while records decided before are replayed."""
        stage = self._stage
        return stage if isinstance(stage, DecidingStage) and stage.has_newer_decider(self.number) and self.replayed else None

    async def commit(self, now: float, clean: bool = False) -> None:
        """
        Start a checkpoint. ``clean`` means that the partition is released and no record follows.

        Raises:
            DeliveryError: if the previous checkpoint could not be written, or this one if the call waits for it.
        """
        await self.committed()  # 1
        deciding = None if clean else self._newer_decider()
        if deciding is not None:  # 2
            deciding.use_newest_decider(self.number)
        # 3: a checkpoint is not clean while records decided before a crash are being replayed
        write = self.log.snapshot(dict(self.positions), clean and self.replayed)
        deliveries, self._deliveries = self._deliveries, []
        self._uncommitted, self._epoch = self._epoch.first, Epoch(now)
        self._commit = asyncio.create_task(self._write(deliveries, write))
        self._commit.add_done_callback(self._end)
        self._blocked = deciding is not None or self.log.waits_for_outputs
        if self._blocked:  # 6
            await self.committed()

    async def _write(self, deliveries: Iterable[Delivery], write: Write) -> None:
        for delivery in deliveries:  # 4
            await asyncio.shield(delivery)
        await write()  # 5
        self._uncommitted = None

    def _end(self, commit: asyncio.Task[None]) -> None:
        if not commit.cancelled() and (error := commit.exception()):
            self._failed(error)

    async def committed(self) -> None:
        """Wait until the last checkpoint is written."""
        if self._commit is not None:
            await asyncio.shield(self._commit)
        self._blocked = False
