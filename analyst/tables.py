"""Tables of the queue and the archive. Migrations in ``analyst/migrations`` create them; a test checks that both agree."""

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

alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", String(64), primary_key=True),
    Column("transaction_id", String(128), nullable=False),
    Column("card_id", String(128), nullable=False),
    Column("merchant_id", String(128), nullable=False),
    Column("device_id", String(128)),
    Column("event_time", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("probability", Float),
    Column("expected_loss", BigInteger, nullable=False),
    Column("bundle", String(64), nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("finding", String(16)),
    Column("message", Text, nullable=False),
    Column("explanation", Text),
    Index("alerts_open_by_loss", "finding", "expected_loss"),
    Index("alerts_by_card", "card_id", "event_time"),
    Index("alerts_by_merchant", "merchant_id", "event_time"),
    Index("alerts_by_device", "device_id", "event_time"),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("alert_id", String(64), nullable=False, index=True),
    Column("message", Text, nullable=False),
    Column("published", Boolean, nullable=False),
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
    Column("message", Text),
)

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
