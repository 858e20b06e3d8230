"""The minimal Kafka permissions of each role, as data. ``whyflag topics acls`` prints or creates them."""

from enum import StrEnum

from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.admin import ACLResourcePatternType as PatternType
from msgspec import Struct

from core.settings import Settings
from core.topics import (
    ALERTS,
    AUDIT_ANCHORS,
    DEAD_LETTERS,
    DECISIONS,
    DISAGREEMENTS,
    EXPLANATIONS,
    LABELS,
    PROFILE_CHECKPOINTS,
    PROFILED,
    SCORE_CHECKPOINTS,
    TRANSACTIONS,
    VERDICTS,
)
from streams.kafka.clients import admin_client
from streams.kafka.connection import connection_of

SCORE_GROUP, EXPLAIN_GROUP, ARCHIVE_GROUP = "whyflag-score", "whyflag-explain", "whyflag-archive"
READER_GROUPS = "whyflag-reader"  # the groups of other systems begin with this
TRANSACTIONAL_PREFIX = "whyflag-"


class Role(StrEnum):
    """A kind of Kafka client with its own permissions."""

    PRODUCER = "producer"  # the bank's systems that write transactions and labels
    SCORE = "score"  # `whyflag worker score`
    EXPLAIN = "explain"  # `whyflag worker explain`
    ARCHIVE = "archive"  # `whyflag worker archive`
    CONSOLE = "console"  # `whyflag console`, which publishes verdicts and heads of the audit trail
    AUDITOR = "auditor"  # `whyflag audit verify`, which reads the heads of the audit trail
    RETRAIN = "retrain"  # `whyflag retrain --kafka-labels`, which reads the labels
    SCALER = "scaler"  # KEDA, which asks how many records wait for the workers
    READER = "reader"  # systems that act on decisions: read decisions, explanations, disagreements and dead letters


class Right(Struct, frozen=True):
    """A role's permission on one resource or, with ``prefix``, on every resource whose name begins with ``name``."""

    resource: ResourceType
    name: str
    operation: ACLOperation
    prefix: bool = False

    @property
    def operation_name(self) -> str:
        """The operation as ``kafka-acls.sh`` and Strimzi spell it, such as ``DescribeConfigs``."""
        return str(self.operation.name.title().replace("_", ""))


def _topics(operation: ACLOperation, *names: str) -> tuple[Right, ...]:
    return tuple(Right(ResourceType.TOPIC, name, operation) for name in names)


_READ, _WRITE, _CONFIGS = ACLOperation.READ, ACLOperation.WRITE, ACLOperation.DESCRIBE_CONFIGS
RIGHTS: dict[Role, tuple[Right, ...]] = {
    Role.PRODUCER: _topics(_WRITE, TRANSACTIONS, LABELS),
    Role.SCORE: (
        *_topics(_READ, TRANSACTIONS, LABELS, PROFILED, PROFILE_CHECKPOINTS, SCORE_CHECKPOINTS),
        *_topics(_CONFIGS, TRANSACTIONS, LABELS),
        *_topics(_WRITE, PROFILED, DECISIONS, ALERTS, DISAGREEMENTS, DEAD_LETTERS, PROFILE_CHECKPOINTS, SCORE_CHECKPOINTS),
        Right(ResourceType.GROUP, SCORE_GROUP, _READ),
        Right(ResourceType.TRANSACTIONAL_ID, TRANSACTIONAL_PREFIX, _WRITE, prefix=True),
    ),
    Role.EXPLAIN: (
        *_topics(_READ, ALERTS, VERDICTS),
        *_topics(_WRITE, EXPLANATIONS, DEAD_LETTERS),
        Right(ResourceType.GROUP, EXPLAIN_GROUP, _READ),
    ),
    Role.ARCHIVE: (
        *_topics(_READ, TRANSACTIONS, DECISIONS, LABELS),
        *_topics(_CONFIGS, TRANSACTIONS, LABELS),
        *_topics(_WRITE, DEAD_LETTERS),
        Right(ResourceType.GROUP, ARCHIVE_GROUP, _READ),
    ),
    Role.CONSOLE: _topics(_WRITE, VERDICTS, LABELS, AUDIT_ANCHORS),
    Role.AUDITOR: _topics(_READ, AUDIT_ANCHORS),
    Role.RETRAIN: _topics(_READ, LABELS),
    Role.SCALER: (
        *_topics(ACLOperation.DESCRIBE, TRANSACTIONS, ALERTS),
        Right(ResourceType.GROUP, SCORE_GROUP, ACLOperation.DESCRIBE),
        Right(ResourceType.GROUP, EXPLAIN_GROUP, ACLOperation.DESCRIBE),
    ),
    Role.READER: (
        *_topics(_READ, DECISIONS, EXPLANATIONS, DISAGREEMENTS, DEAD_LETTERS),
        Right(ResourceType.GROUP, READER_GROUPS, _READ, prefix=True),
    ),
}


def acls(role: Role, principal: str, prefix: str = "") -> list[ACL]:
    """Return a role's permissions as Kafka ACL entries for a principal such as ``User:whyflag-score``. ``prefix`` as in the settings."""
    return [
        ACL(
            principal=principal,
            host="*",
            operation=right.operation,
            permission_type=ACLPermissionType.ALLOW,
            resource_pattern=ResourcePattern(
                right.resource, prefix + right.name, PatternType.PREFIXED if right.prefix else PatternType.LITERAL
            ),
        )
        for right in RIGHTS[role]
    ]


def commands(role: Role, principal: str, prefix: str = "") -> list[str]:
    """Return a role's permissions as arguments of ``kafka-acls.sh``."""
    options = {
        ResourceType.TOPIC: "--topic",
        ResourceType.GROUP: "--group",
        ResourceType.TRANSACTIONAL_ID: "--transactional-id",
    }
    return [
        f"--add --allow-principal {principal} --operation {right.operation_name} "
        f"{options[right.resource]} {prefix}{right.name}{' --resource-pattern-type prefixed' if right.prefix else ''}"
        for right in RIGHTS[role]
    ]


def create_acls(settings: Settings, entries: list[ACL]) -> None:
    """
    Create access control entries.

    Raises:
        BrokerError: if Kafka does not answer or refuses.
    """
    with admin_client(settings) as admin:
        failed = admin.create_acls(entries)["failed"]
    if failed:
        raise connection_of(settings).failed(failed[0]())
