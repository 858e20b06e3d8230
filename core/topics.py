"""Kafka topics: their names and retention. The docstrings of the messages state the record keys."""

from typing import Final

from msgspec import Struct

TRANSACTIONS: Final = "transactions"
LABELS: Final = "labels"
PROFILED: Final = "profiled"
DECISIONS: Final = "decisions"
ALERTS: Final = "alerts"
EXPLANATIONS: Final = "explanations"
VERDICTS: Final = "verdicts"
DISAGREEMENTS: Final = "disagreements"
DEAD_LETTERS: Final = "dead-letters"
AUDIT_ANCHORS: Final = "audit-anchors"
PROFILE_CHECKPOINTS: Final = "profile-checkpoints"
SCORE_CHECKPOINTS: Final = "score-checkpoints"

_DAY_MS = 86_400_000
TIMESTAMP_TYPE: Final = "message.timestamp.type"
LOG_APPEND_TIME: Final = "LogAppendTime"
MIN_INSYNC: Final = "min.insync.replicas"


class Topic(Struct, frozen=True):
    """A topic as created by ``whyflag topics create``. A compacted topic keeps the newest record of each key."""

    name: str
    retention_ms: int = -1
    compacted: bool = False
    outsiders: bool = False  # producers other than whyflag's workers write to it

    @property
    def config(self) -> dict[str, str]:
        """Kafka topic settings. Only closed segments are compacted, so small segments keep the log close to the state's size."""
        if self.compacted:
            return {"cleanup.policy": "compact", "segment.bytes": str(64 << 20), "min.cleanable.dirty.ratio": "0.3"}
        config = {"retention.ms": str(self.retention_ms)}
        # the broker, not the producer, must set a record's timestamp: this timestamp decides which event times are in the future
        return config | ({TIMESTAMP_TYPE: LOG_APPEND_TIME} if self.outsiders else {})


TOPICS: Final = (
    Topic(TRANSACTIONS, 7 * _DAY_MS, outsiders=True),
    Topic(LABELS, outsiders=True),  # future training data, kept forever
    Topic(PROFILED, 2 * _DAY_MS),
    Topic(DECISIONS, 30 * _DAY_MS),
    Topic(ALERTS, 30 * _DAY_MS),
    Topic(EXPLANATIONS, 30 * _DAY_MS),
    Topic(VERDICTS),
    Topic(DISAGREEMENTS, 30 * _DAY_MS),
    Topic(DEAD_LETTERS, 30 * _DAY_MS),
    Topic(AUDIT_ANCHORS),  # proves the audit trail, kept forever
    Topic(PROFILE_CHECKPOINTS, compacted=True),
    Topic(SCORE_CHECKPOINTS, compacted=True),
)
