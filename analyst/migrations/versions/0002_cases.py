"""Add cases, investigations, and an index of alerts by merchant."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables and the index."""
    op.create_table(
        "cases",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("bundle", sa.String(64), nullable=False),
        sa.Column("case_id", sa.String(64), nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("removed", sa.Boolean, nullable=False),
        sa.Column("judged", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("closed_time", sa.BigInteger, nullable=False),
        sa.Column("typology", sa.String(64)),
        sa.Column("note", sa.Text),
        sa.Column("features", sa.LargeBinary, nullable=False),
        sa.Column("contributions", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("bundle", "case_id", name="cases_by_id"),
    )
    op.create_index("cases_by_change", "cases", ["bundle", "changed"])
    op.create_index("cases_last_change", "cases", ["changed"])
    op.create_index("alerts_by_merchant", "alerts", ["merchant_id", "event_time"])
    op.create_table(
        "investigations",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("alert_id", sa.String(64), nullable=False, index=True),
        sa.Column("asked_by", sa.String(64), nullable=False),
        sa.Column("asked_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("message", sa.Text),
    )


def downgrade() -> None:
    """Drop the tables and the index."""
    op.drop_table("investigations")
    op.drop_index("alerts_by_merchant", "alerts")
    op.drop_table("cases")
