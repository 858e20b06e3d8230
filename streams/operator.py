"""
The operator runs one stage over its chunks and writes its checkpoints. A worker has one operator per stage.

The chunks that were fetched together form a batch. Its steps, numbered in ``handle``, ``_unprocessed`` and ``_process``:

1. compare each chunk with its partition's position: drop replayed records, and read again from the position if records are
   missing;
2. let the stage compute the outputs of all chunks and update its state;
3. queue the outputs for Kafka; only a few batches may have unacknowledged outputs at once;
4. advance the positions;
5. start a checkpoint of each partition whose epoch is over.

Steps of a checkpoint, numbered in ``_checkpoint`` and ``_write``:

1. wait until the previous checkpoint is committed;
2. switch to a newer decider, if there is one, and take a snapshot of the changed rows, the positions and the digest;
3. wait until every output queued before the snapshot is acknowledged, while the next epoch runs;
4. write the rows and the marker in one transaction;
5. after a switch, wait for that commit. A new bundle or new rules decide their first record only after the marker that names
   them is committed. They never decide a record that may already have been decided before a crash.

Without a checkpoint log, a chunk is done when its outputs are acknowledged, and positions start at the consumer group's
committed offsets.

Any error ends the process without acknowledging the input. The records are then read again with the same state as the first
time, and produce the same outputs with the same ids.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic, perf_counter, time
from typing import Any, Protocol

from msgspec import Struct

from core.errors import StateError
from core.metrics import (
    ACK_SECONDS,
    BATCH_SECONDS,
    CHECKPOINT_BYTES,
    CHECKPOINT_SECONDS,
    RECORDS,
    RESTORE_SECONDS,
)
from streams.checkpoints import Checkpoint, CheckpointLog
from streams.kafka.clients import refuse_missing
from streams.kafka.publishing import Delivery, Latency, Publisher
from streams.kafka.transport import OffsetRange, RecordChunk
from streams.stages.stage import Chunk, Stage
from streams.state import LogRecord

logger = logging.getLogger(__name__)

# An epoch also ends after this many bytes of records, so that after a crash a busy partition replays for seconds, not minutes.
_EPOCH_BYTES = 64 << 20
# Faust may silently drop fetched records. If a position has not moved for this long although later records were fetched, the
# partition is read again from that position. If the records were only waiting behind chunks of other partitions, they arrive
# twice, and the second copy is dropped as a replay.
_LOST_SECONDS = 2.0
_TICK_SECONDS = 0.1  # longest delay of a checkpoint when no more records arrive
# Batches whose outputs may await acknowledgement. One would leave the CPU idle while Kafka writes; many would only use memory.
_BATCHES_AHEAD = 4
_RESTORES_AT_ONCE = 4  # each uses a connection and some megabytes for the log

Place = tuple[str, int]  # topic, partition


class Source(Protocol):
    """Interface of the consumer that feeds the operator."""

    async def bounds(self, places: list[Place]) -> Mapping[Place, OffsetRange]:
        """Return the current first and next offset of each partition in Kafka."""

    async def committed(self, places: list[Place]) -> Mapping[Place, int]:
        """Return the consumer group's committed offsets; partitions without one are left out."""

    def read_from(self, place: Place, offset: int) -> None:
        """Continue reading a partition at this offset, and drop the records already fetched from it."""

    def reached(self, place: Place) -> int:
        """Return the offset after the last chunk fetched from a partition."""


class Epoch(Struct):
    """The time since a partition's last snapshot (monotonic seconds): its start, its first record, and its records and their bytes."""

    began: float
    first: float | None = None
    records: int = 0
    bytes: int = 0


class Operator:
    """Runs one stage of a worker. A lock makes its chunks, checkpoints and rebalances take turns."""

    def __init__(
        self,
        stage: Stage,
        publisher: Publisher,
        log: Callable[[str, int], CheckpointLog] | None,
        epoch_seconds: float,
        failed: Callable[[BaseException], None],
        pan_key: str = "",
    ) -> None:
        """
        ``log`` creates the checkpoint log of a (topic, partition); None keeps state in memory only. ``failed`` ends the
        process. ``pan_key`` is the fingerprint of the key that tokenises card numbers.
        """
        self.stage = stage
        self._publisher = publisher
        self._make_log = log if stage.checkpoints else None
        self._epoch_seconds = epoch_seconds
        self._failed = failed
        self._pan_key = pan_key
        self._turn = asyncio.Lock()
        self._positions: dict[Place, int] = {}
        self._owned: set[int] = set()
        self._logs: dict[int, CheckpointLog] = {}
        self._writes: dict[int, asyncio.Task[None]] = {}
        self._deliveries: deque[Delivery] = deque()  # of the latest batches, in order
        self._replays: dict[Place, int] = {}  # the offsets up to which a previous owner may have decided
        self._epochs: dict[int, Epoch] = {}
        self._unwritten: dict[int, float] = {}  # first record of the checkpoint that is being written, monotonic seconds
        self.written: dict[Place, int] = {}  # when the last processed record was written to Kafka, epoch ms
        self._source: Source | None = None
        self._unmoved: dict[Place, tuple[int, float]] = {}  # position below the fetched offset; start of the wait
        self._partitions = 0

    @property
    def positions(self) -> dict[Place, int]:
        """Next offset to process, for each partition that is owned and restored."""
        return {place: offset for place, offset in self._positions.items() if place[1] in self._owned}

    @property
    def has_log(self) -> bool:
        """Whether the stage keeps its state in a checkpoint log."""
        return self._make_log is not None

    def checkpoint_age(self, now: float) -> float:
        """Return the age of the oldest processed record that no checkpoint holds; 0 if there is none."""
        first = [*self._unwritten.values(), *(epoch.first for epoch in self._epochs.values() if epoch.first is not None)]
        return max(0.0, now - min(first, default=now))

    # -- assignment -----------------------------------------------------------------------------------------------------------

    async def open(self, assigned: set[Place], source: Source) -> None:
        """
        Take over the assigned partitions: drop the state of all others, restore the new ones, and read on from their positions.

        Raises:
            StateError: if a partition's log cannot be used.
            KafkaError: if no broker answers.
        """
        async with self._turn:
            owned = {partition for topic, partition in assigned if topic in self.stage.topics}
            await self._drop(set(self.stage.states) - owned)
            self._source = source
            self._unmoved.clear()
            if self._make_log is None:
                self._positions = await self._committed(sorted(assigned))
            else:
                await self._check_partitions(assigned, owned)
                at_once = asyncio.Semaphore(_RESTORES_AT_ONCE)
                async with asyncio.TaskGroup() as group:
                    for partition in owned:
                        group.create_task(self._restore(partition, at_once))
            for place, offset in self._positions.items():
                source.read_from(place, offset)
            self._owned = owned

    async def _committed(self, places: list[Place]) -> dict[Place, int]:
        """Return the group's committed positions, or a partition's first offset if it has none or the topic was recreated."""
        assert self._source is not None
        if not places:
            return {}
        bounds, committed = await self._source.bounds(places), await self._source.committed(places)
        positions = {}
        for place, (begin, end) in bounds.items():
            position = committed.get(place, begin)
            if position < begin:
                logger.error("%d records of %s/%d were deleted by retention before they were read", begin - position, *place)
            positions[place] = position if begin <= position <= end else begin
        return positions

    async def _check_partitions(self, assigned: set[Place], owned: set[int]) -> None:
        counts = await self._publisher.counts([*self.stage.topics, self.stage.checkpoints])
        refuse_missing([topic for topic, count in counts.items() if not count])
        if len(set(counts.values())) > 1:
            raise StateError(
                f"these topics must have the same number of partitions, but have {counts}: see 'Adding partitions' in docs/concepts/delivery.md"
            )
        if apart := {(topic, partition) for topic in self.stage.topics for partition in owned} - assigned:
            raise StateError(f"the group assigned partitions of only some of the stage's topics, missing: {sorted(apart)}")
        self._partitions = counts[self.stage.topics[0]] or 0

    async def _restore(self, partition: int, at_once: asyncio.Semaphore) -> None:
        assert self._make_log is not None
        async with at_once:
            if partition in self._logs:
                if await self._logs[partition].still_owned():
                    return
                await self._drop({partition})
            began = perf_counter()
            log = self._logs[partition] = self._make_log(self.stage.checkpoints, partition)
            await log.claim()
            state = self.stage.new_state()
            checkpoint = await log.read(state.load)
            self._positions |= await self._start(partition, checkpoint)
            if checkpoint is not None:
                if (checkpoint.digest, checkpoint.keys) != (state.digest, state.keys):
                    raise StateError(
                        f"the checkpoint log {self.stage.checkpoints}/{partition} is damaged: it holds {state.keys} keys with digest "
                        f"{state.digest}, its marker says {checkpoint.keys} and {checkpoint.digest}. Run `whyflag state rebuild --partition {partition}`"
                    )
                state.origins = dict(checkpoint.origins)
            self.stage.states[partition] = state
            self._epochs[partition] = Epoch(monotonic())
            if (checkpoint is None or checkpoint.clean) and self.stage.decider_version(partition):
                # after a crash in this first epoch, the successor must know that the epoch began and which decider it used
                await self._checkpoint(partition, first=True)
                await self._writes[partition]
            RESTORE_SECONDS.labels(self.stage.name).observe(perf_counter() - began)
            logger.info("%s %d restored: %d keys in %.1f s", self.stage.name, partition, state.keys, perf_counter() - began)

    async def _start(self, partition: int, checkpoint: Checkpoint | None) -> dict[Place, int]:
        """
        Return the positions to read from.

        Raises:
            StateError: if the checkpoint does not fit this worker, or Kafka no longer has all records after it.
        """
        assert self._source is not None
        places = [(topic, partition) for topic in self.stage.topics]
        bounds = await self._source.bounds(places)
        if checkpoint is None:
            self.stage.use_newest_decider(partition)
            return {place: bounds[place][0] for place in places}
        name = f"{self.stage.checkpoints}/{partition}"
        if checkpoint.spec != self.stage.version:
            raise StateError(
                f"the state in {name} has feature spec {checkpoint.spec!r}, this worker uses {self.stage.version!r}: use a "
                "bundle with the state's spec, or run `whyflag state rebuild` to recompute the state with this worker's spec"
            )
        if checkpoint.pan_key and checkpoint.pan_key != self._pan_key:
            raise StateError(
                f"the state in {name} has tokens of another WHYFLAG_PAN_KEY (fingerprint {checkpoint.pan_key}, this worker's is "
                f"{self._pan_key or 'none'}): start with that key, or see 'Another key' in docs/concepts/privacy.md"
            )
        if checkpoint.partitions != self._partitions:
            raise StateError(
                f"the state in {name} is for {checkpoint.partitions} partitions, but the topics now have {self._partitions}: "
                "see 'Adding partitions' in docs/concepts/delivery.md"
            )
        if not self.stage.restore_decider(partition, checkpoint.bundle, checkpoint.clean):
            raise StateError(
                f"the worker that wrote {name} did not stop cleanly and used bundle {checkpoint.bundle or 'none'}; its "
                "unfinished records need the same bundle: start a worker with that bundle once, stop it with SIGTERM, then start "
                "one with the new bundle"
            )
        for topic, partition in places:
            begin, end = bounds[topic, partition]
            if not checkpoint.clean:
                self._replays[topic, partition] = end
            position = checkpoint.positions[topic]
            if position < begin:
                raise StateError(
                    f"{begin - position} records of {topic}/{partition} were deleted by retention before they were read (read up to "
                    f"{position}, kept from {begin}): run `whyflag state rebuild`, which continues with the remaining records"
                )
            if position > end:
                raise StateError(
                    f"{topic}/{partition} ends at {end} but was read up to {position}: the topic was recreated or lost "
                    f"records. Run `whyflag state rebuild`, which continues at its present end"
                )
        return {place: checkpoint.positions[place[0]] for place in places}

    async def revoke(self) -> None:
        """Release all partitions: finish the current chunk, write a last checkpoint, and process nothing more."""
        async with self._turn:
            for partition in self._owned if self._make_log else ():
                await self._checkpoint(partition, clean=True)
            await self._written()
            self._owned = set()

    async def stop(self) -> None:
        """Release all partitions for good, and close the stage and its logs."""
        await self.revoke()
        async with self._turn:
            await self.stage.stop()
            for log in self._logs.values():
                await log.close()

    async def _drop(self, partitions: set[int]) -> None:
        for partition in partitions:
            self.stage.states.pop(partition, None)
            self._epochs.pop(partition, None)
            self._unwritten.pop(partition, None)
            for topic in self.stage.topics:
                self._positions.pop((topic, partition), None)
                self.written.pop((topic, partition), None)
                self._replays.pop((topic, partition), None)
            if log := self._logs.pop(partition, None):
                await log.close()

    # -- chunks ---------------------------------------------------------------------------------------------------------------

    async def handle(self, chunk: RecordChunk) -> None:
        """
        Process a chunk together with the others of its group. The others are done when their turn comes.

        Raises:
            WhyflagError: if it could not be finished; the process must end.
        """
        async with self._turn:
            batch: list[Chunk] = []
            taken: list[RecordChunk] = []
            # without a log, positions are those that Faust commits when a chunk arrives here, so each chunk must arrive
            for one in chunk.group if self._make_log is not None else [chunk]:
                if one.done or one.source not in self.stage.topics:
                    continue
                records = await self._unprocessed(one, may_seek=one is chunk)
                if records is not None:
                    taken.append(one)
                    batch.append(Chunk(one.source, one.partition, records))
            if not taken:
                return
            if any(one.records for one in batch):
                self._deliveries.append(await self._process([one for one in batch if one.records]))
            for one in taken:  # 4
                place = (one.source, one.partition)
                self._positions[place] = max(self._positions[place], one.offset + 1)
                self.written[place] = one.timestamp
            await self._keep_up(0 if self._make_log is None else _BATCHES_AHEAD)
            for one in taken:
                one.done = True
            await self._end_epochs(batch)  # 5

    async def _unprocessed(self, chunk: RecordChunk, may_seek: bool) -> list[Any] | None:
        """Return the records of a chunk from the partition's position on; None if this worker cannot take the chunk now."""
        place = (chunk.source, chunk.partition)
        position = self._positions.get(place)
        if chunk.partition not in self._owned or position is None:
            return None  # the partition's owner reads these records
        records = chunk.records
        if chunk.begin > position:  # 1
            assert self._source is not None
            if may_seek:
                self._source.read_from(place, position)
            return None
        if records[0].offset < position:
            return [record for record in records if record.offset >= position]
        if records[0].offset > position:
            await self._check_gap(place, position)
        return records

    async def _end_epochs(self, batch: Sequence[Chunk]) -> None:
        """Count the records of a batch, and start a checkpoint of each partition whose epoch is over."""
        for chunk in batch:
            if self._make_log is None:
                if self.stage.has_newer_decider(chunk.partition):
                    self.stage.use_newest_decider(chunk.partition)
            else:
                epoch = self._epochs[chunk.partition]
                epoch.records += len(chunk.records)
                epoch.bytes += sum(len(record.value or b"") for record in chunk.records)
                if chunk.records:
                    epoch.first = epoch.first or monotonic()
        if self._make_log is not None:
            for partition in sorted({chunk.partition for chunk in batch}):
                if self._epoch_ended(partition):
                    await self._checkpoint(partition)

    async def _process(self, batch: Sequence[Chunk]) -> Delivery:
        began = perf_counter()
        outputs = await self.stage.process(batch)  # 2
        computed = perf_counter()
        delivery = await self._publisher.send(outputs)  # 3
        latencies = [output.latency for output in outputs if output.latency is not None]
        delivery.add_done_callback(partial(self._delivered, computed, latencies))
        for chunk in batch:
            RECORDS.labels(self.stage.name, chunk.topic).inc(len(chunk.records))
        BATCH_SECONDS.labels(self.stage.name).observe(computed - began)
        return delivery

    def _delivered(self, sent: float, latencies: list[Latency], delivery: asyncio.Future[None]) -> None:
        if delivery.cancelled():
            return
        if error := delivery.exception():
            self._failed(error)
            return
        now = time() * 1000
        for histogram, written in latencies:
            histogram.observe((now - written) / 1000)
        ACK_SECONDS.labels(self.stage.name).observe(perf_counter() - sent)

    async def _keep_up(self, ahead: int) -> None:
        """Wait until at most ``ahead`` batches have unacknowledged outputs."""
        while self._deliveries and (len(self._deliveries) > ahead or self._deliveries[0].done()):
            await asyncio.shield(self._deliveries[0])
            self._deliveries.popleft()

    async def _check_gap(self, place: Place, position: int) -> None:
        """
        Check whether a gap in the offsets is a loss. Gaps from producers' transactions are harmless. If retention deleted
        records, a stage with a checkpoint log stops, because its state would be wrong without them; any other stage logs an
        error.
        """
        assert self._source is not None
        begin, _ = (await self._source.bounds([place]))[place]
        if begin > position:
            lost = f"{begin - position} records of {place[0]}/{place[1]} were deleted by retention before they were read"
            if self._make_log is not None:
                raise StateError(lost)
            logger.error(lost)

    # -- checkpoints ----------------------------------------------------------------------------------------------------------

    def _epoch_ended(self, partition: int) -> bool:
        epoch = self._epochs[partition]
        if self._decider_outdated(partition):
            return True
        return epoch.records > 0 and (epoch.bytes >= _EPOCH_BYTES or monotonic() - epoch.began >= self._epoch_seconds)

    def _decider_outdated(self, partition: int) -> bool:
        """Return whether a newer decider should take over now. It waits until all records decided before a crash are replayed."""
        return self.stage.has_newer_decider(partition) and self._replay_finished(partition)

    def _replay_finished(self, partition: int) -> bool:
        """Return whether all records that a previous owner may have processed after its last checkpoint are replayed."""
        places = [(topic, partition) for topic in self.stage.topics]
        return all(self._positions[place] >= self._replays.get(place, 0) for place in places)

    async def run_maintenance(self) -> None:
        """End epochs that receive no more records, and read again records that were fetched but lost. Runs until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if not self._turn.locked():
                self._reread_lost(monotonic())
            if any(self._epoch_ended(partition) for partition in self._owned if partition in self._epochs):
                async with self._turn:
                    for partition in self._owned:
                        if self._epoch_ended(partition):
                            await self._checkpoint(partition)

    def _reread_lost(self, now: float) -> None:
        for place, position in self.positions.items():
            assert self._source is not None
            before, since = self._unmoved.get(place, (-1, now))
            if self._source.reached(place) <= position:
                self._unmoved.pop(place, None)
            elif before != position:
                self._unmoved[place] = (position, now)
            elif now - since >= _LOST_SECONDS:
                logger.info("%s/%d is read again from %d: the fetched records have not arrived", *place, position)
                self._source.read_from(place, position)
                self._unmoved[place] = (position, now)

    async def _checkpoint(self, partition: int, clean: bool = False, first: bool = False) -> None:
        renewed = not clean and not first and self._decider_outdated(partition)
        if not clean and not first and not renewed and not self._epochs[partition].records:
            return
        if partition in self._writes:  # 1
            await asyncio.shield(self._writes[partition])
        if renewed:  # 2
            self.stage.use_newest_decider(partition)
        state = self.stage.states[partition]
        rows = state.changed()
        checkpoint = Checkpoint(
            spec=self.stage.version,
            bundle=self.stage.decider_version(partition),
            partitions=self._partitions,
            positions={topic: self._positions[topic, partition] for topic in self.stage.topics},
            origins=dict(state.origins),
            keys=state.keys,
            digest=state.digest,
            pan_key=self._pan_key,
            clean=clean and self._replay_finished(partition),  # not while records decided before a crash are being replayed
        )
        if (since := self._epochs[partition].first) is not None:
            self._unwritten[partition] = since
        self._epochs[partition] = Epoch(monotonic())
        self._writes[partition] = asyncio.create_task(self._write(partition, rows, checkpoint, tuple(self._deliveries)))
        if renewed:  # 5
            await asyncio.shield(self._writes[partition])

    async def _write(self, partition: int, rows: list[LogRecord], checkpoint: Checkpoint, deliveries: Iterable[Delivery]) -> None:
        try:
            for delivery in deliveries:  # 3
                await asyncio.shield(delivery)
            began = perf_counter()
            await self._logs[partition].write(rows, checkpoint)  # 4
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failed(error)
            return
        CHECKPOINT_SECONDS.labels(self.stage.name).observe(perf_counter() - began)
        CHECKPOINT_BYTES.labels(self.stage.name).inc(sum(len(row or b"") for _, row in rows))
        self._unwritten.pop(partition, None)

    async def _written(self) -> None:
        await asyncio.gather(*self._writes.values())
        self._writes.clear()
