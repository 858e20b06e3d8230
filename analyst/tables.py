"""Tables of the console and the archive. Migrations in ``analyst/migrations`` create them; a test checks that both agree."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# One narrow row per alert, so that the queue's pages read no messages: these are in ``alert_documents``.
# ``loss`` is the expected loss in minor units of ``loss_currency``, the feature spec's currency. ``severity`` is a number, 0 the most
# severe. ``version`` counts the changes by people, so that a verdict on an outdated page is refused. ``changed_at`` is the time of the
# last change of any kind.
alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", String(64), primary_key=True),
    Column("transaction_id", String(128), nullable=False),
    Column("card_id", String(128), nullable=False),
    Column("merchant_id", String(128), nullable=False),
    Column("device_id", String(128)),
    Column("merchant_name", Text),
    Column("event_time", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("probability", Float),
    Column("expected_loss", BigInteger, nullable=False),
    Column("loss", BigInteger, nullable=False),
    Column("loss_currency", String(3), nullable=False),
    Column("bundle", String(64), nullable=False),
    Column("theme", String(32)),
    Column("typology", String(64)),
    Column("top_fact", Text),
    Column("raised_at", BigInteger, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("deadline", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("finding", String(16)),
    Column("version", Integer, nullable=False),
    Column("claimed_by", String(64)),
    Column("claimed_until", BigInteger),
    Column("snoozed_until", BigInteger),
    Column("closed_at", BigInteger),
    Column("closed_by", String(64)),
    Column("changed_at", BigInteger, nullable=False),
    Index("alerts_by_priority", "state", "severity", "deadline", "alert_id"),
    Index("alerts_by_loss", "state", "loss", "alert_id"),
    Index("alerts_by_severity_and_loss", "state", "severity", "loss", "alert_id"),
    Index("alerts_by_deadline", "state", "deadline", "alert_id"),
    Index("alerts_by_time", "state", "event_time", "alert_id"),
    Index("alerts_by_card", "card_id", "event_time"),
    Index("alerts_by_merchant", "merchant_id", "event_time"),
    Index("alerts_by_device", "device_id", "event_time"),
    Index("alerts_by_transaction", "transaction_id"),
    Index("alerts_by_claim", "claimed_by", "claimed_until"),
    Index("alerts_by_change", "changed_at"),
    Index("alerts_by_snooze", "state", "snoozed_until"),
    Index("alerts_by_closing", "closed_at"),
)

alert_documents = Table(
    "alert_documents",
    metadata,
    Column("alert_id", String(64), primary_key=True),
    Column("message", Text, nullable=False),
    Column("explanation", Text),
)

# The beginning of what a search may name: the alert's, transaction's, card's and merchant's IDs, and the merchant's name in lower case.
# PostgreSQL sorts it by bytes, as SQLite does, so that an index finds a beginning.
_TERM = String(256).with_variant(String(256, collation="C"), "postgresql")
alert_search = Table(
    "alert_search",
    metadata,
    Column("term", _TERM, primary_key=True),
    Column("alert_id", String(64), primary_key=True),
    Index("alert_search_by_alert", "alert_id"),
)

alert_rules = Table(
    "alert_rules",
    metadata,
    Column("alert_id", String(64), primary_key=True),
    Column("rule", String(64), primary_key=True),
    Index("alert_rules_by_rule", "rule"),
)

# ``state`` is waiting (until ``publish_after``), leaving (being sent to Kafka), published or undone
verdicts = Table(
    "verdicts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("alert_id", String(64), nullable=False, index=True),
    Column("message", Text, nullable=False),
    Column("given_by", String(64), nullable=False),
    Column("given_at", BigInteger, nullable=False),
    Column("publish_after", BigInteger, nullable=False),
    Column("published_at", BigInteger),
    Column("state", String(16), nullable=False),
    Column("bulk", Integer),
    Index("verdicts_by_state", "state", "publish_after"),
    Index("verdicts_by_bulk", "bulk"),
)

# One verdict on many alerts: those of a preview, with the versions that it showed. ``opinion`` and ``given_at`` are empty until the
# verdict is given, and ``result`` until it has been given on the item.
bulks = Table(
    "bulks",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("made_by", String(64), nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("query", Text, nullable=False),
    Column("opinion", Text),
    Column("given_at", BigInteger),
    Column("undone_at", BigInteger),
    sqlite_autoincrement=True,  # the number of a forgotten preview must not lead to another one
)

bulk_items = Table(
    "bulk_items",
    metadata,
    Column("bulk", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("alert_id", String(64), nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("result", String(16)),
)

saved_views = Table(
    "saved_views",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("owner", String(64), nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("query", Text, nullable=False),
    Column("shared", Boolean, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password", String(256)),  # argon2id hash; none for users of OpenID Connect or of a proxy
    Column("subject", String(512), unique=True),  # issuer and subject of an OpenID Connect user
    Column("created_at", BigInteger, nullable=False),
    Column("disabled", Boolean, nullable=False),
)

# Secrets that are sent to people are stored only as SHA-256 hashes.
invitations = Table(
    "invitations",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("name", String(64), nullable=False, index=True),
    Column("role", String(16), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("name", String(64), nullable=False, index=True),
    Column("csrf", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("owner", String(64), nullable=False, index=True),
    Column("label", String(64), nullable=False),
    Column("scopes", String(256), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

# failed log-ins by user name and by address
log_in_failures = Table(
    "log_in_failures",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("blocked_until", BigInteger, nullable=False),
)

# log-ins by OpenID Connect that have left for the provider
oidc_log_ins = Table(
    "oidc_log_ins",
    metadata,
    Column("state_hash", String(64), primary_key=True),
    Column("nonce", String(64), nullable=False),
    Column("verifier", String(128), nullable=False),
    Column("target", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

# maker-checker: what one person proposes and another approves
proposals = Table(
    "proposals",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_by", String(64), nullable=False),
    Column("proposed_at", BigInteger, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("decided_by", String(64)),
    Column("decided_at", BigInteger),
)

list_entries = Table(
    "list_entries",
    metadata,
    Column("list", String(16), primary_key=True),
    Column("key", String(16), primary_key=True),
    Column("value", String(128), primary_key=True),
    Column("expires_on", String(10), nullable=False),
    Column("proposal", Integer, nullable=False),
)

next_step_tables = Table(
    "next_step_tables",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("content", Text, nullable=False),
    Column("proposal", Integer, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("url", Text, nullable=False),
    Column("secret", String(128), nullable=False),
    Column("events", String(64), nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

# ``state`` is waiting, delivered or failed
deliveries = Table(
    "deliveries",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("webhook", Integer, nullable=False, index=True),
    Column("event", String(16), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("error", String(256)),
    Index("deliveries_by_state", "state", "next_at"),
)

# a task that only one of several consoles does at a time
leases = Table(
    "leases",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", BigInteger, nullable=False),
)

# number identifies a case permanently; changed is the number of its last change, so that an index can catch up
cases = Table(
    "cases",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("bundle", String(64), nullable=False),
    Column("case_id", String(64), nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("removed", Boolean, nullable=False),
    Column("judged", Boolean, nullable=False),  # a person judged the case; the case that came with the bundle cannot replace it
    Column("outcome", String(16), nullable=False),
    Column("closed_time", BigInteger, nullable=False),
    Column("typology", String(64)),
    Column("note", Text),
    Column("features", LargeBinary, nullable=False),
    Column("contributions", LargeBinary, nullable=False),
    UniqueConstraint("bundle", "case_id", name="cases_by_id"),
    Index("cases_by_change", "bundle", "changed"),
    Index("cases_last_change", "changed"),
)

investigations = Table(
    "investigations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("alert_id", String(64), nullable=False, index=True),
    Column("asked_by", String(64), nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("question", Text),
    Column("message", Text),
    Index("investigations_by_asker", "asked_by", "asked_at"),
)

# ``scheme`` 1: ``hash`` is a SHA-256 hash, as in version 0.1; 2: an HMAC with the audit key
audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("scheme", Integer, nullable=False),
    Index("audit_by_subject", "subject"),
)

# heads of the audit chain that wait to be published to Kafka or were published
audit_anchors = Table(
    "audit_anchors",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
)


def _archived(name: str, *columns: Column[Any] | Index) -> Table:
    """
    Return an archive table with one row per record, keyed by the record's write time, partition and offset.

    On PostgreSQL, each day has its own partition, so that old records are removed by dropping tables instead of deleting rows.
    """
    return Table(
        name,
        metadata,
        Column("written_at", BigInteger, primary_key=True, autoincrement=False),
        Column("source_partition", BigInteger, primary_key=True, autoincrement=False),
        Column("source_offset", BigInteger, primary_key=True, autoincrement=False),
        Column("card_id", String(128), nullable=False),
        Column("transaction_id", String(128), nullable=False),
        Column("merchant_id", String(128), nullable=False),
        Column("event_time", BigInteger, nullable=False),
        *columns,
        postgresql_partition_by="RANGE (written_at)",
    )


archived_transactions = _archived(
    "archived_transactions",
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("mcc", String(4)),
    Column("merchant_name", Text),
    Column("country", String(2)),
    Column("channel", String(16)),
    Column("device_id", String(128)),
    Column("lat", Float),
    Column("lon", Float),
    Index("archived_transactions_by_card", "card_id"),
    Index("archived_transactions_by_merchant", "merchant_id"),
    Index("archived_transactions_by_device", "device_id"),
)

archived_decisions = _archived(
    "archived_decisions",
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("probability", Float),
    Column("expected_loss", BigInteger, nullable=False),
    Column("bundle", String(64), nullable=False),
    Column("reason_codes", Text, nullable=False),
    Index("archived_decisions_by_card", "card_id"),
)

archived_labels = _archived(
    "archived_labels",
    Column("label_time", BigInteger, nullable=False),
    Column("fraud", Boolean, nullable=False),
    Column("source", String(16), nullable=False),
    Index("archived_labels_by_card", "card_id"),
    Index("archived_labels_by_merchant", "merchant_id"),
)
