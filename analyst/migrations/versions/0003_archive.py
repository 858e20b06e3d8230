"""Add the archive of transactions, decisions and labels, and the device of each alert."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_INDEXES = (
    ("archived_transactions", "card"),
    ("archived_transactions", "merchant"),
    ("archived_transactions", "device"),
    ("archived_decisions", "card"),
    ("archived_labels", "card"),
    ("archived_labels", "merchant"),
)


def _source() -> tuple[sa.Column, ...]:  # type: ignore[type-arg]
    return (
        sa.Column("written_at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("source_partition", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("source_offset", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("card_id", sa.String(128), nullable=False),
        sa.Column("transaction_id", sa.String(128), nullable=False),
        sa.Column("merchant_id", sa.String(128), nullable=False),
        sa.Column("event_time", sa.BigInteger, nullable=False),
    )


def upgrade() -> None:
    """Create the tables; add the device column of alerts and fill it from their messages."""
    op.create_table(
        "archived_transactions",
        *_source(),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("mcc", sa.String(4)),
        sa.Column("merchant_name", sa.Text),
        sa.Column("country", sa.String(2)),
        sa.Column("channel", sa.String(16)),
        sa.Column("device_id", sa.String(128)),
        sa.Column("lat", sa.Float),
        sa.Column("lon", sa.Float),
        postgresql_partition_by="RANGE (written_at)",
    )
    op.create_table(
        "archived_decisions",
        *_source(),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("probability", sa.Float),
        sa.Column("expected_loss", sa.BigInteger, nullable=False),
        sa.Column("bundle", sa.String(64), nullable=False),
        sa.Column("reason_codes", sa.Text, nullable=False),
        postgresql_partition_by="RANGE (written_at)",
    )
    op.create_table(
        "archived_labels",
        *_source(),
        sa.Column("label_time", sa.BigInteger, nullable=False),
        sa.Column("fraud", sa.Boolean, nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        postgresql_partition_by="RANGE (written_at)",
    )
    for table, key in _INDEXES:
        op.create_index(f"{table}_by_{key}", table, [f"{key}_id"])
    op.add_column("alerts", sa.Column("device_id", sa.String(128)))
    op.create_index("alerts_by_device", "alerts", ["device_id", "event_time"])
    alerts = sa.table("alerts", sa.column("alert_id"), sa.column("device_id"), sa.column("message"))
    connection = op.get_bind()
    for alert_id, message in connection.execute(sa.select(alerts.c.alert_id, alerts.c.message)).all():
        device = json.loads(message)["transaction"].get("device_id")
        if device is not None:
            connection.execute(sa.update(alerts).where(alerts.c.alert_id == alert_id).values(device_id=device))


def downgrade() -> None:
    """Drop the tables and the column."""
    op.drop_index("alerts_by_device", "alerts")
    op.drop_column("alerts", "device_id")
    for table in ("archived_labels", "archived_decisions", "archived_transactions"):
        op.drop_table(table)
