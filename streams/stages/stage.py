"""Base classes of the stages that the operator runs: without state, with a state per partition, and with a decider as well."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from core import metrics
from core.errors import InvalidEvent
from core.messages import MESSAGES, DeadLetter, encode
from core.privacy.masking import mask_bytes, mask_start
from core.topics import DEAD_LETTERS
from streams.kafka.publishing import Outputs, Publisher
from streams.state import PartitionState

_RAW_KEPT = 2_048  # bytes of the record kept in a dead letter: enough to identify it, and fast to mask
_KEY_KEPT = 256
_MESSAGE_KEPT = 1_000
_FIELDS = frozenset(field for message in MESSAGES for field in message.__struct_fields__)


class Chunk(NamedTuple):
    """New records of one partition of a topic, in order."""

    topic: str
    partition: int
    records: list[Any]


class SourceRecord(NamedTuple):
    """The parts of a rejected record that its dead letter keeps."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes


class Stage(ABC):
    """One processing step of a worker. ``process`` receives chunks of its topics, in order within each partition."""

    name: str
    """The stage's name in metrics and dead letters."""
    topics: tuple[str, ...]
    """Input topics."""

    async def start(self, publisher: Publisher) -> None:  # noqa: B027 - a stage that has nothing to prepare
        """Prepare the stage. Called once, before the first chunk."""

    @abstractmethod
    async def process(self, chunks: Sequence[Chunk]) -> list[Outputs]:
        """
        Return the outputs of a batch of chunks. A partition's outputs must not depend on how its chunks are batched.

        An exception stops the worker without acknowledging the records.
        """

    async def stop(self) -> None:  # noqa: B027 - a stage that holds nothing
        """Release resources. Called once, after the last chunk."""


class StatefulStage(Stage):
    """A stage with a state per partition. Its topics are co-partitioned: one worker owns partition p of all of them."""

    checkpoints: str
    """Topic of the stage's checkpoint log."""
    version: str
    """Version of the feature spec that the state is computed with."""

    def __init__(self) -> None:
        self.states: dict[int, PartitionState] = {}
        """State by partition. The operator adds restored partitions and removes those that have moved to another worker."""

    @abstractmethod
    def new_state(self) -> PartitionState:
        """Return an empty state for a partition."""

    def state(self, partition: int) -> PartitionState:
        """Return the state of a partition, creating it if needed."""
        if partition not in self.states:
            self.states[partition] = self.new_state()
        return self.states[partition]


class DecidingStage(StatefulStage):
    """A stage whose outputs depend on a decider: a bundle with its policy and rules."""

    @abstractmethod
    def decider_version(self, partition: int) -> str:
        """Return the version of the partition's current decider; empty for one without a bundle."""

    @abstractmethod
    def has_newer_decider(self, partition: int) -> bool:
        """Return whether a newer decider should take over at the next epoch."""

    @abstractmethod
    def use_newest_decider(self, partition: int) -> None:
        """Switch a partition to the newest decider. Called only between epochs."""

    @abstractmethod
    def restore_decider(self, partition: int, version: str, clean: bool) -> bool:
        """
        Switch a partition to the decider that a checkpoint names, or to the newest one if the checkpoint is ``clean``.

        Return False if that decider is not available: the records after the checkpoint could not be decided as before.
        """


def decider_version(stage: StatefulStage, partition: int) -> str:
    """Return the version of the partition's current decider; empty if there is none."""
    return stage.decider_version(partition) if isinstance(stage, DecidingStage) else ""


def dead_letter(stage: str, record: Any, error: InvalidEvent) -> Outputs:
    """Return the dead letter of an unusable record, with its source, offset and reason."""
    metrics.DEAD_LETTERS.labels(stage, error.reason.value).inc()
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        stage=stage,
        error=type(error).__name__,
        message=mask_start(str(error), _MESSAGE_KEPT),
        raw=_kept(record.value or b""),
    )
    return Outputs(DEAD_LETTERS, [mask_bytes(record.key or b"", _KEY_KEPT)], [encode(letter)])


def _kept(raw: bytes) -> bytes:
    """Return the masked start of a record's value. A JSON object keeps only message fields: others may hold people's names."""
    try:
        fields = msgspec.json.decode(raw, type=dict[str, Any])
        kept = {name: _masked(value) for name, value in fields.items() if name in _FIELDS}
        return mask_bytes(msgspec.json.encode(kept), _RAW_KEPT)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return mask_bytes(raw, _RAW_KEPT)


def _masked(value: Any) -> Any:
    """Return a JSON value with every string masked. Masking comes before encoding, whose escapes could split a run of digits."""
    if isinstance(value, str):
        return mask_start(value, _RAW_KEPT)
    if isinstance(value, list):
        return [_masked(one) for one in value]
    if isinstance(value, dict):
        return {mask_start(name, _KEY_KEPT): _masked(one) for name, one in value.items()}
    return value
