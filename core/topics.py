"""The topics: names, and how each is kept. Their keys are stated with the messages."""

from typing import Final

from msgspec import Struct

TRANSACTIONS: Final = "transactions"
LABELS: Final = "labels"
PROFILED: Final = "profiled"
DECISIONS: Final = "decisions"
ALERTS: Final = "alerts"
EXPLANATIONS: Final = "explanations"
VERDICTS: Final = "verdicts"
DEAD_LETTERS: Final = "dead-letters"

_DAY_MS = 86_400_000


class Topic(Struct, frozen=True):
    """A topic as ``whyflag topics create`` makes it."""

    name: str
    retention_ms: int


TOPICS: Final = (
    Topic(TRANSACTIONS, 7 * _DAY_MS),
    Topic(LABELS, -1),  # the training set of tomorrow: kept for ever
    Topic(PROFILED, 2 * _DAY_MS),
    Topic(DECISIONS, 30 * _DAY_MS),
    Topic(ALERTS, 30 * _DAY_MS),
    Topic(EXPLANATIONS, 30 * _DAY_MS),
    Topic(VERDICTS, -1),
    Topic(DEAD_LETTERS, 30 * _DAY_MS),
)
