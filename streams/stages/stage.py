"""The stage interface that the operator runs: records in, outputs out, and a state per partition."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

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
    """What a dead letter keeps of the record that it stands for."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes


class Stage(Protocol):
    """One processing step. ``process`` receives chunks of its topics, in order within each partition."""

    @property
    def name(self) -> str:
        """The stage's name in metrics and dead letters."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Input topics. They are co-partitioned: one worker owns partition p of all of them."""

    @property
    def checkpoints(self) -> str:
        """Topic of the stage's checkpoint log; empty for a stage without one."""

    @property
    def version(self) -> str:
        """Version of the feature spec that the state is computed with."""

    def decider_version(self, partition: int) -> str:
        """Return the version of the partition's current decider; empty for a stage without deciders."""

    def has_newer_decider(self, partition: int) -> bool:
        """Return whether a newer decider should take over at the next epoch."""

    def use_newest_decider(self, partition: int) -> None:
        """Switch a partition to the newest decider. Called only between epochs."""

    def restore_decider(self, partition: int, version: str, clean: bool) -> bool:
        """
        Switch a partition to the decider that a checkpoint names, or to the newest one if the checkpoint is ``clean``.

        Return False if that decider is not available: the records after the checkpoint could not be decided as before.
        """

    @property
    def states(self) -> dict[int, PartitionState]:
        """State by partition. The operator adds restored partitions and removes those that have moved to another worker."""

    def new_state(self) -> PartitionState:
        """Return an empty state for a partition."""

    async def start(self, publisher: Publisher) -> None:
        """Prepare the stage. Called once, before the first chunk."""

    async def process(self, chunks: Sequence[Chunk]) -> list[Outputs]:
        """
        Return the outputs of some chunks; those of each partition do not depend on which chunks come together.

        An exception stops the worker without acknowledging the records.
        """

    async def stop(self) -> None:
        """Release resources. Called once, after the last chunk."""


class StageWithoutDecider:
    """Mixin for stages without deciders: no bundle influences their outputs."""

    def decider_version(self, partition: int) -> str:
        """Return an empty string: there is no decider."""
        return ""

    def has_newer_decider(self, partition: int) -> bool:
        """Return False: there is no decider to replace."""
        return False

    def use_newest_decider(self, partition: int) -> None:
        """Do nothing: there is no decider to replace."""

    def restore_decider(self, partition: int, version: str, clean: bool) -> bool:
        """Return True: no decider is needed to continue from a checkpoint."""
        return True


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
