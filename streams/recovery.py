"""
How a partition continues after its worker has ended: two kinds of logs with one interface.

``CheckpointedLog`` keeps the stage's state and its positions in a checkpoint log, so that no decision is lost or repeated.
``MemoryLog`` keeps nothing: the positions are the consumer group's committed offsets, and state is lost with the worker. A chunk
of such a partition is done when its outputs are acknowledged.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple, Protocol

from core.errors import StateError
from core.metrics import CHECKPOINT_BYTES, CHECKPOINT_SECONDS, RESTORE_SECONDS
from streams.checkpoints import Checkpoint, CheckpointLog
from streams.kafka.clients import refuse_missing
from streams.source import Place, Source
from streams.stages.stage import DecidingStage, Stage, StatefulStage, decider_version
from streams.state import LogRecord, PartitionState

logger = logging.getLogger(__name__)

Write = Callable[[], Awaitable[None]]


class Restored(NamedTuple):
    """
    Where a partition continues, by topic: its positions, and the offsets up to which a previous owner may have decided.

    If ``announce``, a checkpoint must be written before the first record is processed. If the worker crashes in its first epoch, its
    successor then knows which decider was in use.
    """

    positions: dict[str, int]
    replays: dict[str, int]
    announce: bool = False


class Log(Protocol):
    """What one partition leaves behind for its next owner."""

    waits_for_outputs: bool
    """
    True: a batch is finished only when Kafka has acknowledged its outputs. False: processing goes on, and the next checkpoint waits
    for the acknowledgements.
    """

    epoch_seconds: float
    """Time from one checkpoint to the next; 0: one after each batch."""

    async def resume(self, source: Source, topics: Iterable[str], positions: dict[str, int]) -> dict[str, int] | None:
        """
        Return where this worker continues, by topic, after a rebalance that left it the partition at ``positions``.

        None: another worker has processed records of the partition meanwhile, so this state is out of date and must be restored.
        """

    async def restore(self, source: Source, topics: Iterable[str]) -> Restored:
        """
        Take over the partition, restore its state, and return where it continues.

        Raises:
            StateError: if the log cannot be used.
            KafkaError: if no broker answers.
        """

    def snapshot(self, positions: dict[str, int], clean: bool) -> Write:
        """
        Take a snapshot and return the function that writes it. ``clean`` means that the partition is released after this snapshot and
        that every record decided before a crash has been replayed.
        """

    def report_loss(self, records: int, place: Place) -> None:
        """Report records that retention deleted before they were read. Raise StateError if the state would be wrong without them."""

    async def close(self) -> None:
        """Release the partition."""


class Logs(Protocol):
    """The logs of a stage's partitions."""

    checkpointed: bool
    """
    Whether positions are kept in a checkpoint log. If not, Faust commits the position after each chunk, so the operator processes
    each chunk alone.
    """

    async def check(self, assigned: set[Place]) -> None:
        """
        Refuse an assignment that the stage cannot work with.

        Raises:
            StateError: if the stage's topics do not fit together.
        """

    def create(self, partition: int) -> Log:
        """Return the log of a partition, not yet taken over."""


class MemoryLogs:
    """Logs of a stage without a checkpoint log."""

    checkpointed = False

    async def check(self, assigned: set[Place]) -> None:
        """Do nothing: the topics need not have the same number of partitions."""

    def create(self, partition: int) -> "MemoryLog":
        """Return the log of a partition."""
        return MemoryLog(partition)


class MemoryLog:
    """The log of a partition whose positions are the consumer group's committed offsets."""

    waits_for_outputs, epoch_seconds = True, 0.0

    def __init__(self, partition: int) -> None:
        self._partition = partition

    async def resume(self, source: Source, topics: Iterable[str], positions: dict[str, int]) -> dict[str, int] | None:
        """Return the committed offsets, unless they are beyond ``positions``."""
        places = [(topic, self._partition) for topic in topics]
        committed = await source.committed(places)
        if any(offset > positions.get(topic, offset) for (topic, _), offset in committed.items()):
            return None
        return await self._continued(source, places, committed)

    async def restore(self, source: Source, topics: Iterable[str]) -> Restored:
        """Return the committed offsets. A topic without one, or whose one Kafka no longer has, continues at its first offset."""
        places = [(topic, self._partition) for topic in topics]
        return Restored(await self._continued(source, places, await source.committed(places)), {})

    async def _continued(self, source: Source, places: list[Place], committed: Mapping[Place, int]) -> dict[str, int]:
        """Return the committed offsets that Kafka still has, and the first offset of every other topic."""
        positions = {}
        for place, (begin, end) in (await source.bounds(places)).items():
            position = committed.get(place, begin)
            if position < begin:
                self.report_loss(begin - position, place)
            positions[place[0]] = position if begin <= position <= end else begin
        return positions

    def snapshot(self, positions: dict[str, int], clean: bool) -> Write:
        """Return a function that does nothing: there is no log to write."""

        async def nothing() -> None:
            pass

        return nothing

    def report_loss(self, records: int, place: Place) -> None:
        """Log the loss as an error: the remaining records are still worth processing."""
        logger.error(_lost(records, place))

    async def close(self) -> None:
        """Do nothing."""


class Counts(Protocol):
    """Interface for asking Kafka how many partitions each topic has."""

    async def counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Return the current number of partitions of each topic; 0 for a topic that does not exist."""


@dataclass
class CheckpointLogs:
    """
    Checkpoint logs of a stage.

    ``open_log`` returns the checkpoint log of a topic and partition; ``pan_key`` is the fingerprint of the key that tokenises
    card numbers.
    """

    stage: StatefulStage
    kafka: Counts
    open_log: Callable[[str, int], CheckpointLog]
    epoch_seconds: float
    pan_key: str = ""
    partitions: int = field(default=0, init=False)
    checkpointed = True

    async def check(self, assigned: set[Place]) -> None:
        """Require that all topics have the same number of partitions, and that this worker owns the same partitions of each topic."""
        counts = await self.kafka.counts([*self.stage.topics, self.stage.checkpoints])
        refuse_missing([topic for topic, count in counts.items() if not count])
        if len(set(counts.values())) > 1:
            raise StateError(
                f"these topics must have the same number of partitions, but have {counts}: see 'Adding partitions' in docs/concepts/delivery.md"
            )
        owned = {partition for _, partition in assigned}
        if apart := {(topic, partition) for topic in self.stage.topics for partition in owned} - assigned:
            raise StateError(f"the group assigned partitions of only some of the stage's topics, missing: {sorted(apart)}")
        self.partitions = counts[self.stage.topics[0]]

    def create(self, partition: int) -> "CheckpointedLog":
        """Return the log of a partition."""
        return CheckpointedLog(self, partition, self.open_log(self.stage.checkpoints, partition))


class CheckpointedLog:
    """The log of a partition whose state and positions are in a checkpoint log."""

    waits_for_outputs = False

    def __init__(self, logs: CheckpointLogs, partition: int, log: CheckpointLog) -> None:
        self._logs, self._stage, self._partition, self._log = logs, logs.stage, partition, log
        self._name = f"{logs.stage.checkpoints}/{partition}"
        self.epoch_seconds = logs.epoch_seconds

    async def resume(self, source: Source, topics: Iterable[str], positions: dict[str, int]) -> dict[str, int] | None:
        """Return the positions, unless another worker has claimed the log since the last checkpoint."""
        return positions if await self._log.still_owned() else None

    async def restore(self, source: Source, topics: Iterable[str]) -> Restored:
        """Claim the log, load the state and the decider of its last checkpoint, and continue at its positions."""
        began = perf_counter()
        await self._log.claim()
        state = self._stage.new_state()
        checkpoint = await self._log.read(state.load)
        places = [(topic, self._partition) for topic in topics]
        bounds = await source.bounds(places)
        if checkpoint is None:
            if isinstance(self._stage, DecidingStage):
                self._stage.use_newest_decider(self._partition)
            positions, replays = {topic: bounds[topic, partition].begin for topic, partition in places}, {}
        else:
            self._check_fit(checkpoint, state)
            for place in places:
                self._check_range(place, checkpoint.positions[place[0]], *bounds[place])
            self._restore_decider(checkpoint)
            state.origins = dict(checkpoint.origins)
            positions = {topic: checkpoint.positions[topic] for topic, _ in places}
            replays = {} if checkpoint.clean else {topic: bounds[topic, partition].end for topic, partition in places}
        self._stage.states[self._partition] = state
        RESTORE_SECONDS.labels(self._stage.name).observe(perf_counter() - began)
        logger.info("%s %d restored: %d keys in %.1f s", self._stage.name, self._partition, state.keys, perf_counter() - began)
        first = checkpoint is None or checkpoint.clean  # no record has been processed since
        return Restored(positions, replays, announce=first and decider_version(self._stage, self._partition) != "")

    def _check_fit(self, checkpoint: Checkpoint, state: PartitionState) -> None:
        """Require that the checkpoint is for this worker's spec, key and number of partitions, and that the state is complete."""
        if checkpoint.spec != self._stage.version:
            raise StateError(
                f"the state in {self._name} has feature spec {checkpoint.spec!r}, this worker uses {self._stage.version!r}: use a "
                "bundle with the state's spec, or run `whyflag state rebuild` to recompute the state with this worker's spec"
            )
        if checkpoint.pan_key and checkpoint.pan_key != self._logs.pan_key:
            raise StateError(
                f"the state in {self._name} has tokens of another WHYFLAG_PAN_KEY (fingerprint {checkpoint.pan_key}, this worker's "
                f"is {self._logs.pan_key or 'none'}): start with that key, or see 'Another key' in docs/concepts/privacy.md"
            )
        if checkpoint.partitions != self._logs.partitions:
            raise StateError(
                f"the state in {self._name} is for {checkpoint.partitions} partitions, but the topics now have "
                f"{self._logs.partitions}: see 'Adding partitions' in docs/concepts/delivery.md"
            )
        if (checkpoint.digest, checkpoint.keys) != (state.digest, state.keys):
            raise StateError(
                f"the checkpoint log {self._name} is damaged: it holds {state.keys} keys with digest {state.digest}, its marker says "
                f"{checkpoint.keys} and {checkpoint.digest}. Run `whyflag state rebuild --partition {self._partition}`"
            )

    def _check_range(self, place: Place, position: int, begin: int, end: int) -> None:
        """Require that Kafka has all records from the position on."""
        if position < begin:
            raise StateError(
                f"{_lost(begin - position, place)} (read up to {position}, kept from {begin}): run `whyflag state rebuild`, which "
                "continues with the remaining records"
            )
        if position > end:
            raise StateError(
                f"{place[0]}/{place[1]} ends at {end} but was read up to {position}: the topic was recreated or lost records. Run "
                "`whyflag state rebuild`, which continues at its present end"
            )

    def _restore_decider(self, checkpoint: Checkpoint) -> None:
        if isinstance(self._stage, DecidingStage) and not self._stage.restore_decider(
            self._partition, checkpoint.bundle, checkpoint.clean
        ):
            raise StateError(
                f"the worker that wrote {self._name} did not stop cleanly and used bundle {checkpoint.bundle or 'none'}; its "
                "unfinished records need the same bundle: start a worker with that bundle once, stop it with SIGTERM, then start "
                "one with the new bundle"
            )

    def snapshot(self, positions: dict[str, int], clean: bool) -> Write:
        """Take the rows that changed since the last snapshot, and the marker that follows them."""
        state = self._stage.states[self._partition]
        rows = state.changed()
        checkpoint = Checkpoint(
            spec=self._stage.version,
            bundle=decider_version(self._stage, self._partition),
            partitions=self._logs.partitions,
            positions=positions,
            origins=dict(state.origins),
            keys=state.keys,
            digest=state.digest,
            pan_key=self._logs.pan_key,
            clean=clean,
        )
        return lambda: self._write(rows, checkpoint)

    async def _write(self, rows: list[LogRecord], checkpoint: Checkpoint) -> None:
        began = perf_counter()
        await self._log.write(rows, checkpoint)
        CHECKPOINT_SECONDS.labels(self._stage.name).observe(perf_counter() - began)
        CHECKPOINT_BYTES.labels(self._stage.name).inc(sum(len(row or b"") for _, row in rows))

    def report_loss(self, records: int, place: Place) -> None:
        """Raise StateError: the state would be wrong without these records."""
        raise StateError(_lost(records, place))

    async def close(self) -> None:
        """Disconnect."""
        await self._log.close()


def logs_of(
    stage: Stage, kafka: Counts, open_log: Callable[[str, int], CheckpointLog] | None, epoch_seconds: float, pan_key: str
) -> Logs:
    """Return the logs of a stage's partitions. ``open_log`` is None if workers keep their state in memory only."""
    if open_log is None or not isinstance(stage, StatefulStage):
        return MemoryLogs()
    return CheckpointLogs(stage, kafka, open_log, epoch_seconds, pan_key)


def _lost(records: int, place: Place) -> str:
    return f"{records} records of {place[0]}/{place[1]} were deleted by retention before they were read"
