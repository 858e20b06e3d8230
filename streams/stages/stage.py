"""What a hop is to the operator: records in, outputs out, state of its own."""

from typing import Any, Protocol

import msgspec

from core import metrics
from core.errors import WhyflagError
from core.messages import MESSAGES, DeadLetter, encode
from core.privacy.masking import mask_bytes, mask_start
from core.topics import DEAD_LETTERS
from streams.kafka.publishing import Outputs, Publisher
from streams.state import PartitionState

_RAW_KEPT = 2_048  # bytes of a dead letter's record: enough to see what it was, and never too slow to mask
_KEY_KEPT = 256
_MESSAGE_KEPT = 1_000
_FIELDS = frozenset(field for message in MESSAGES for field in message.__struct_fields__)


class Stage(Protocol):
    """One hop. ``process`` is called with the chunks of its topics, one at a time, in order within each partition."""

    @property
    def name(self) -> str:
        """The hop's name in metrics and dead letters."""

    @property
    def topics(self) -> tuple[str, ...]:
        """What it reads. Partition p of each belongs together: one worker has them all."""

    @property
    def checkpoints(self) -> str:
        """The topic of its checkpoint log; empty for a stage without state."""

    @property
    def version(self) -> str:
        """The version of the feature spec that its state belongs to."""

    def decider_version(self, partition: int) -> str:
        """The version of what decides a partition's outputs now; empty where nothing does."""

    def outdated(self, partition: int) -> bool:
        """Whether something newer should decide from the next epoch on."""

    def renew(self, partition: int) -> None:
        """Decide by the newest from here on. Called between epochs only."""

    def adopt(self, partition: int, version: str, clean: bool) -> bool:
        """
        Decide a partition by what a checkpoint names, or by the newest if its writer stopped in order. False: what follows the
        checkpoint cannot be decided as it was.
        """

    @property
    def states(self) -> dict[int, PartitionState]:
        """Its state by partition: the operator puts in what it restored and takes out what moved away."""

    def new_state(self) -> PartitionState:
        """The state of a partition that nothing is known of."""

    async def start(self, publisher: Publisher) -> None:
        """Called once before the first chunk."""

    async def process(self, topic: str, partition: int, records: list[Any]) -> list[Outputs]:
        """The outputs of some records. An exception stops the worker without acknowledging them."""

    async def stop(self) -> None:
        """Called once after the last chunk."""


class StageWithoutDecider:
    """Part of a stage whose outputs follow from its input alone: no bundle decides them."""

    def decider_version(self, partition: int) -> str:
        """No version."""
        return ""

    def outdated(self, partition: int) -> bool:
        """Never."""
        return False

    def renew(self, partition: int) -> None:
        """Nothing to renew."""

    def adopt(self, partition: int, version: str, clean: bool) -> bool:
        """Always possible."""
        return True


def dead_letter(stage: str, record: Any, error: WhyflagError) -> Outputs:
    """A record that cannot be used, on its way to the dead letters with source, offset and reason."""
    kind = type(error).__name__
    metrics.DEAD_LETTERS.labels(stage, kind).inc()
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        stage=stage,
        error=kind,
        message=mask_start(str(error), _MESSAGE_KEPT),
        raw=_kept(record.value or b""),
    )
    return Outputs(DEAD_LETTERS, [mask_bytes(record.key or b"", _KEY_KEPT)], [encode(letter)])


def _kept(raw: bytes) -> bytes:
    """The beginning of a record's value, masked; of a JSON object only the fields of a message, for others may hold names."""
    try:
        fields = msgspec.json.decode(raw, type=dict[str, Any])
        kept = {name: _masked(value) for name, value in fields.items() if name in _FIELDS}
        return mask_bytes(msgspec.json.encode(kept), _RAW_KEPT)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return mask_bytes(raw, _RAW_KEPT)


def _masked(value: Any) -> Any:
    """A JSON value with every text in it masked, before escapes of the encoding can stand between digits."""
    if isinstance(value, str):
        return mask_start(value, _RAW_KEPT)
    if isinstance(value, list):
        return [_masked(one) for one in value]
    if isinstance(value, dict):
        return {mask_start(name, _KEY_KEPT): _masked(one) for name, one in value.items()}
    return value
