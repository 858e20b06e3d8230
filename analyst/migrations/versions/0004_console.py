"""Split each alert into a narrow row and its documents; add users, views, bulk verdicts, lists, webhooks and audit anchors."""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_CHUNK = 500
_DEADLINES_MS = (3_600_000, 14_400_000, 86_400_000)
_ZERO_DECIMALS = {
    "BIF",
    "CLP",
    "DJF",
    "GNF",
    "ISK",
    "JPY",
    "KMF",
    "KRW",
    "PYG",
    "RWF",
    "UGX",
    "UYI",
    "VND",
    "VUV",
    "XAF",
    "XOF",
    "XPF",
}
_THREE_DECIMALS = {"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"}

_alerts = sa.table(
    "alerts",
    *map(
        sa.column,
        (
            "alert_id", "message", "explanation", "finding", "raised_at", "expected_loss", "currency", "probability", "merchant_name",
            "loss", "loss_currency", "theme", "typology", "top_fact", "severity", "deadline", "state", "version", "closed_at",
            "closed_by", "changed_at",
        ),
    ),
)  # fmt: skip
_documents = sa.table("alert_documents", *map(sa.column, ("alert_id", "message", "explanation")))
_search = sa.table("alert_search", sa.column("term"), sa.column("alert_id"))
_rules = sa.table("alert_rules", sa.column("alert_id"), sa.column("rule"))
_verdicts = sa.table(
    "verdicts",
    *map(
        sa.column,
        ("number", "alert_id", "message", "published", "given_by", "given_at", "publish_after", "published_at", "state"),
    ),
)

_ORDERS = {
    "alerts_by_priority": ["state", "severity", "deadline", "alert_id"],
    "alerts_by_loss": ["state", "loss", "alert_id"],
    "alerts_by_severity_and_loss": ["state", "severity", "loss", "alert_id"],
    "alerts_by_deadline": ["state", "deadline", "alert_id"],
    "alerts_by_time": ["state", "event_time", "alert_id"],
    "alerts_by_transaction": ["transaction_id"],
    "alerts_by_claim": ["claimed_by", "claimed_until"],
    "alerts_by_change": ["changed_at"],
    "alerts_by_snooze": ["state", "snoozed_until"],
    "alerts_by_closing": ["closed_at"],
}


def upgrade() -> None:
    """Add the new columns, fill them from the messages, move the messages and create the new tables."""
    big, text = sa.BigInteger, sa.Text
    op.create_table(
        "alert_documents",
        sa.Column("alert_id", sa.String(64), primary_key=True),
        sa.Column("message", text, nullable=False),
        sa.Column("explanation", text),
    )
    op.create_table(
        "alert_rules", sa.Column("alert_id", sa.String(64), primary_key=True), sa.Column("rule", sa.String(64), primary_key=True)
    )
    op.create_index("alert_rules_by_rule", "alert_rules", ["rule"])
    term = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")
    op.create_table(
        "alert_search", sa.Column("term", term, primary_key=True), sa.Column("alert_id", sa.String(64), primary_key=True)
    )
    op.create_index("alert_search_by_alert", "alert_search", ["alert_id"])
    with op.batch_alter_table("alerts") as table:
        for name, kind in (
            ("merchant_name", text), ("loss", big), ("loss_currency", sa.String(3)), ("theme", sa.String(32)), ("typology", sa.String(64)),
            ("top_fact", text), ("severity", sa.Integer), ("deadline", big), ("state", sa.String(16)), ("version", sa.Integer),
            ("claimed_by", sa.String(64)), ("claimed_until", big), ("snoozed_until", big), ("closed_at", big), ("closed_by", sa.String(64)),
            ("changed_at", big),
        ):  # fmt: skip
            table.add_column(sa.Column(name, kind))
    with op.batch_alter_table("verdicts") as table:
        for name, kind in (
            ("given_by", sa.String(64)), ("given_at", big), ("publish_after", big), ("published_at", big), ("state", sa.String(16)), ("bulk", sa.Integer),
        ):  # fmt: skip
            table.add_column(sa.Column(name, kind))
    _fill_verdicts()
    _fill_alerts()
    with op.batch_alter_table("alerts") as table:
        table.drop_index("alerts_open_by_loss")
        table.drop_column("message")
        table.drop_column("explanation")
        for name in ("loss", "loss_currency", "severity", "deadline", "state", "version", "changed_at"):
            table.alter_column(name, nullable=False)
    for name, columns in _ORDERS.items():
        op.create_index(name, "alerts", columns)
    with op.batch_alter_table("verdicts") as table:
        table.drop_column("published")
        for name in ("given_by", "given_at", "publish_after", "state"):
            table.alter_column(name, nullable=False)
    op.create_index("verdicts_by_state", "verdicts", ["state", "publish_after"])
    op.create_index("verdicts_by_bulk", "verdicts", ["bulk"])
    op.add_column("investigations", sa.Column("question", text))
    op.create_index("investigations_by_asker", "investigations", ["asked_by", "asked_at"])
    op.add_column("audit", sa.Column("scheme", sa.Integer))
    _fill_audit()
    with op.batch_alter_table("audit") as table:
        table.alter_column("scheme", existing_type=sa.Integer, nullable=False)
    op.create_index("audit_by_subject", "audit", ["subject"])
    _create_tables()


def _fill_verdicts() -> None:
    connection = op.get_bind()
    rows = connection.execute(sa.select(_verdicts.c.number, _verdicts.c.message, _verdicts.c.published)).all()
    for row in rows:
        verdict = json.loads(row.message)
        given_at = verdict["verdict_time"]
        values = {"given_by": verdict["analyst"], "given_at": given_at, "publish_after": given_at}
        values |= {"state": "published", "published_at": given_at} if row.published else {"state": "waiting"}
        connection.execute(sa.update(_verdicts).where(_verdicts.c.number == row.number).values(values))


def _fill_alerts() -> None:
    connection = op.get_bind()
    ids = connection.execute(sa.select(_alerts.c.alert_id)).scalars().all()
    closings = {
        row.alert_id: (row.given_at, row.given_by)
        for row in connection.execute(
            sa.select(_verdicts.c.alert_id, _verdicts.c.given_at, _verdicts.c.given_by).order_by(_verdicts.c.number)
        )
    }
    for begin in range(0, len(ids), _CHUNK):
        rows = connection.execute(sa.select(_alerts).where(_alerts.c.alert_id.in_(ids[begin : begin + _CHUNK]))).mappings().all()
        for row in rows:
            alert, explanation = json.loads(row["message"]), json.loads(row["explanation"] or "{}")
            loss, currency = _loss(alert, row)
            severity = max(_severity(loss, currency), 0 if currency == alert.get("currency") else 1)
            closed_at, closed_by = closings.get(row["alert_id"], (None, None))
            state = {None: "open", "escalate": "escalated"}.get(row["finding"], "closed")
            values = {
                "merchant_name": alert["transaction"].get("merchant_name"), "loss": loss, "loss_currency": currency,
                "theme": next((one["theme"] for one in explanation.get("themes", ()) if one["contribution"] > 0), None),
                "typology": (explanation.get("typology") or {}).get("name"),
                "top_fact": _top_fact(explanation), "severity": severity, "deadline": row["raised_at"] + _DEADLINES_MS[severity],
                "state": state, "version": 0 if row["finding"] is None else 1,
                "closed_at": closed_at if state == "closed" else None, "closed_by": closed_by if state == "closed" else None,
                "changed_at": closed_at or row["raised_at"],
            }  # fmt: skip
            connection.execute(sa.update(_alerts).where(_alerts.c.alert_id == row["alert_id"]).values(values))
            for term in _terms(row["alert_id"], alert["transaction"]):
                connection.execute(sa.insert(_search).values(alert_id=row["alert_id"], term=term))
            for rule in dict.fromkeys(alert["decision"].get("rule_hits", ())):
                connection.execute(sa.insert(_rules).values(alert_id=row["alert_id"], rule=rule[:64]))
        documents = [{name: row[name] for name in ("alert_id", "message", "explanation")} for row in rows]
        if documents:
            connection.execute(sa.insert(_documents), documents)


def _terms(alert_id: str, transaction: dict) -> list[str]:  # type: ignore[type-arg]
    names = (alert_id, transaction["transaction_id"], transaction["card_id"], transaction["merchant_id"])
    return list(dict.fromkeys([*names, (transaction.get("merchant_name") or "").lower()[:256]]))


def _fill_audit() -> None:
    """Mark the entries of version 0.1, which have plain hashes. After a downgrade, entries with a key may follow them."""
    connection = op.get_bind()
    table = sa.table(
        "audit", *map(sa.column, ("number", "at", "actor", "action", "subject", "detail", "previous", "hash", "scheme"))
    )
    first_keyed = None
    for row in connection.execute(sa.select(table).order_by(table.c.number)):
        content = [row.number, row.at, row.actor, row.action, row.subject, row.detail, row.previous]
        if hashlib.sha256(json.dumps(content).encode()).hexdigest() != row.hash:
            first_keyed = row.number
            break
    connection.execute(sa.update(table).values(scheme=1))
    if first_keyed is not None:
        connection.execute(sa.update(table).where(table.c.number >= first_keyed).values(scheme=2))


def _loss(alert: dict, row) -> tuple[int, str]:  # type: ignore[type-arg, no-untyped-def]
    """Return the expected loss in the spec's currency, or in the transaction's if the amount has no price in the spec's."""
    price, currency = alert.get("features", {}).get("amount"), alert.get("currency")
    if price is None or not currency:
        return row["expected_loss"], row["currency"]
    probability = 1.0 if row["probability"] is None else row["probability"]
    return round(price * _minor_units(currency) * probability), currency


def _minor_units(currency: str) -> int:
    return 1 if currency in _ZERO_DECIMALS else 1000 if currency in _THREE_DECIMALS else 100


def _severity(loss: int, currency: str) -> int:
    major = loss / _minor_units(currency)
    return 0 if major >= 500 else 1 if major >= 50 else 2


def _top_fact(explanation: dict) -> str | None:  # type: ignore[type-arg]
    found = (one for one in explanation.get("facts", ()) if one.get("feature") and one.get("side") == "fraud")
    fact = next(found, None)
    return json.dumps(fact) if fact else None


def _create_tables() -> None:
    big, text, name = sa.BigInteger, sa.Text, sa.String(64)
    number = sa.Column("number", sa.Integer, primary_key=True, autoincrement=True)

    def table(title: str, *columns: sa.Column, **options: Any) -> None:  # type: ignore[type-arg]
        op.create_table(title, *(column.copy() if column is number else column for column in columns), **options)

    def needed(title: str, kind: Any) -> sa.Column:  # type: ignore[type-arg]
        return sa.Column(title, kind, nullable=False)

    table(
        "bulks", number, needed("made_by", name), needed("made_at", big), needed("query", text), sa.Column("opinion", text),
        sa.Column("given_at", big), sa.Column("undone_at", big), sqlite_autoincrement=True,
    )  # fmt: skip
    table(
        "bulk_items", sa.Column("bulk", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False), needed("alert_id", name), needed("version", sa.Integer),
        sa.Column("result", sa.String(16)),
    )  # fmt: skip
    op.create_index("ix_bulk_items_alert_id", "bulk_items", ["alert_id"])
    table("saved_views", number, needed("owner", name), needed("name", name), needed("query", text), needed("shared", sa.Boolean))
    op.create_index("ix_saved_views_owner", "saved_views", ["owner"])
    table(
        "users", sa.Column("name", name, primary_key=True), needed("role", sa.String(16)), sa.Column("password", sa.String(256)),
        sa.Column("subject", sa.String(512), unique=True), needed("created_at", big), needed("disabled", sa.Boolean),
    )  # fmt: skip
    table(
        "invitations", sa.Column("secret_hash", name, primary_key=True), needed("name", name), needed("role", sa.String(16)),
        needed("expires_at", big),
    )  # fmt: skip
    op.create_index("ix_invitations_name", "invitations", ["name"])
    table(
        "sessions", sa.Column("secret_hash", name, primary_key=True), needed("name", name), needed("csrf", name),
        needed("created_at", big), needed("used_at", big),
    )  # fmt: skip
    op.create_index("ix_sessions_name", "sessions", ["name"])
    table(
        "tokens", number, sa.Column("secret_hash", name, nullable=False, unique=True), needed("owner", name), needed("label", name),
        needed("scopes", sa.String(256)), needed("created_at", big), needed("expires_at", big),
    )  # fmt: skip
    op.create_index("ix_tokens_owner", "tokens", ["owner"])
    table(
        "log_in_failures",
        sa.Column("key", sa.String(128), primary_key=True),
        needed("failures", sa.Integer),
        needed("blocked_until", big),
    )
    table(
        "oidc_log_ins", sa.Column("state_hash", name, primary_key=True), needed("nonce", name), needed("verifier", sa.String(128)),
        needed("target", text), needed("expires_at", big),
    )  # fmt: skip
    table(
        "proposals", number, needed("kind", sa.String(16)), needed("content", text), needed("reason", text), needed("proposed_by", name),
        needed("proposed_at", big), needed("state", sa.String(16)), sa.Column("decided_by", name), sa.Column("decided_at", big),
    )  # fmt: skip
    op.create_index("ix_proposals_state", "proposals", ["state"])
    table(
        "list_entries", sa.Column("list", sa.String(16), primary_key=True), sa.Column("key", sa.String(16), primary_key=True),
        sa.Column("value", sa.String(128), primary_key=True), needed("expires_on", sa.String(10)), needed("proposal", sa.Integer),
    )  # fmt: skip
    table("next_step_tables", number, needed("content", text), needed("proposal", sa.Integer))
    table(
        "webhooks", number, needed("url", text), needed("secret", sa.String(128)), needed("events", name), needed("created_by", name),
        needed("created_at", big),
    )  # fmt: skip
    table(
        "deliveries", number, needed("webhook", sa.Integer), needed("event", sa.String(16)), needed("body", text),
        needed("state", sa.String(16)), needed("attempts", sa.Integer), needed("next_at", big), sa.Column("error", sa.String(256)),
    )  # fmt: skip
    op.create_index("ix_deliveries_webhook", "deliveries", ["webhook"])
    op.create_index("deliveries_by_state", "deliveries", ["state", "next_at"])
    table("leases", sa.Column("task", sa.String(32), primary_key=True), needed("holder", name), needed("until", big))
    table(
        "audit_anchors",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        needed("hash", name),
        needed("at", big),
    )


def downgrade() -> None:
    """Move the messages back and drop what was added. An undone verdict is dropped; one that waits stays unpublished."""
    for table in (
        "audit_anchors", "leases", "deliveries", "webhooks", "next_step_tables", "list_entries", "proposals", "oidc_log_ins",
        "log_in_failures", "tokens", "sessions", "invitations", "users", "saved_views", "bulk_items", "bulks",
    ):  # fmt: skip
        op.drop_table(table)
    op.drop_index("audit_by_subject", "audit")
    op.drop_column("audit", "scheme")
    op.drop_index("investigations_by_asker", "investigations")
    op.drop_column("investigations", "question")
    op.execute("DELETE FROM verdicts WHERE state = 'undone'")
    op.add_column("verdicts", sa.Column("published", sa.Boolean))
    connection = op.get_bind()
    connection.execute(sa.update(_verdicts).values(published=_verdicts.c.state == "published"))
    op.drop_index("verdicts_by_state", "verdicts")
    op.drop_index("verdicts_by_bulk", "verdicts")
    with op.batch_alter_table("verdicts") as verdicts:
        verdicts.alter_column("published", existing_type=sa.Boolean, nullable=False)
        for name in ("given_by", "given_at", "publish_after", "published_at", "state", "bulk"):
            verdicts.drop_column(name)
    op.add_column("alerts", sa.Column("message", sa.Text))
    op.add_column("alerts", sa.Column("explanation", sa.Text))
    for name in ("message", "explanation"):
        value = sa.select(_documents.c[name]).where(_documents.c.alert_id == _alerts.c.alert_id).scalar_subquery()
        connection.execute(sa.update(_alerts).values({name: value}))
    for index in _ORDERS:
        op.drop_index(index, "alerts")
    with op.batch_alter_table("alerts") as alerts:
        alerts.alter_column("message", existing_type=sa.Text, nullable=False)
        for name in (
            "merchant_name", "loss", "loss_currency", "theme", "typology", "top_fact", "severity", "deadline", "state", "version",
            "claimed_by", "claimed_until", "snoozed_until", "closed_at", "closed_by", "changed_at",
        ):  # fmt: skip
            alerts.drop_column(name)
    op.create_index("alerts_open_by_loss", "alerts", ["finding", "expected_loss"])
    op.drop_table("alert_search")
    op.drop_table("alert_rules")
    op.drop_table("alert_documents")
