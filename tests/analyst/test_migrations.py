"""Migrations forward and back, on data of the previous version, on SQLite and PostgreSQL."""

import hashlib
import json

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from analyst.audit import FIRST
from analyst.database import database_at
from analyst.listing import AlertFilter, Listing, Section
from analyst.queue import AlertState, Queue
from analyst.tables import metadata
from analyst.verdicts import Outbox, Verdicts, VerdictState
from analyst.verification import verify
from core.messages import Finding, Opinion, encode
from tests.analyst.conftest import ANN, LEA, HandClock
from tests.conftest import ROOT


@pytest.fixture
def engine(database_url):
    """An empty database without tables."""
    opened = database_at(database_url, "WHYFLAG_DATABASE")
    _drop_all(opened)
    yield opened
    _drop_all(opened)
    opened.dispose()
    Queue(database_url, HandClock()).close()  # the next test expects the tables


def _drop_all(engine):
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def migrated(engine, revision, up=True):
    config = Config()
    config.set_main_option("script_location", str(ROOT / "analyst" / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.upgrade if up else command.downgrade)(config, revision)


def old_verdict(alert, finding, at, analyst):
    transaction = alert.transaction
    return json.dumps(
        {"alert_id": alert.alert_id, "transaction_id": transaction.transaction_id, "card_id": transaction.card_id, "merchant_id": transaction.merchant_id,
         "event_time": transaction.event_time, "verdict_time": at, "finding": finding, "analyst": analyst}
    )  # fmt: skip


def fill_version_3(engine, pairs):
    """Data as version 0.1 stored it: five alerts, three verdicts (one unpublished) and their audit entries."""
    findings = [None, "fraud", "legitimate", "escalate", None]
    with engine.begin() as connection:
        previous = FIRST
        for number, ((alert, explanation), finding) in enumerate(zip(pairs, findings, strict=True)):
            decision = alert.decision
            values = {
                "alert_id": alert.alert_id, "transaction_id": decision.transaction_id, "card_id": decision.card_id, "merchant_id": decision.merchant_id,
                "event_time": decision.event_time, "amount": decision.amount, "currency": decision.currency, "outcome": decision.outcome.value,
                "probability": decision.probability, "expected_loss": decision.expected_loss, "bundle": decision.bundle, "raised_at": 1_759_000_000_000,
                "finding": finding, "message": encode(alert).decode(), "explanation": encode(explanation).decode(), "device_id": alert.transaction.device_id,
            }  # fmt: skip
            names = ", ".join(values)
            connection.execute(text(f"INSERT INTO alerts ({names}) VALUES ({', '.join(f':{name}' for name in values)})"), values)
            if finding is None:
                continue
            message = old_verdict(alert, finding, 1_759_000_100_000 + number, "ann")
            connection.execute(
                text("INSERT INTO verdicts (alert_id, message, published) VALUES (:a, :m, :p)"),
                {"a": alert.alert_id, "m": message, "p": finding != "legitimate"},
            )
            entry = [number, 1_759_000_100_000, "ann", "verdict", alert.alert_id, message, previous]
            digest = hashlib.sha256(json.dumps(entry).encode()).hexdigest()
            connection.execute(
                text(
                    "INSERT INTO audit (number, at, actor, action, subject, detail, previous, hash) VALUES (:n, :at, :a, :b, :s, :d, :p, :h)"
                ),
                dict(zip(["n", "at", "a", "b", "s", "d", "p"], entry, strict=True)) | {"h": digest},
            )
            previous = digest


def content(engine):
    """Everything that version 0.1 knew, by table."""
    wanted = {
        "alerts": "alert_id, transaction_id, card_id, merchant_id, device_id, event_time, amount, currency, outcome, probability, expected_loss, bundle, raised_at, finding, message, explanation",
        "verdicts": "number, alert_id, message, published", "audit": "number, at, actor, action, subject, detail, previous, hash",
    }  # fmt: skip
    with engine.begin() as connection:
        return {
            name: [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {name} ORDER BY 1"))]
            for name, columns in wanted.items()
        }


def test_alerts_and_verdicts_of_the_previous_version_are_carried_over(engine, database_url, explained):
    migrated(engine, "0003")
    pairs = explained[-5:]
    fill_version_3(engine, pairs)
    before = content(engine)
    queue = Queue(database_url, HandClock(1_759_000_200_000), audit_key=b"a key of the audit trail")
    states = [queue.get(alert.alert_id).state for alert, _ in pairs]
    assert states == [AlertState.OPEN, AlertState.CLOSED, AlertState.CLOSED, AlertState.ESCALATED, AlertState.OPEN]
    fresh = Queue(f"{database_url}x", HandClock()) if "sqlite" in database_url else None
    for alert, explanation in pairs:
        queued = queue.get(alert.alert_id)
        assert (queued.alert, queued.explanation) == (alert, explanation)
        if fresh is not None:  # the same columns as for an alert that arrives now
            fresh.put(alert, explanation)
            now = fresh.get(alert.alert_id)
            assert (queued.loss, queued.loss_currency, queued.severity) == (now.loss, now.loss_currency, now.severity)
    rows = {row.alert_id: row for row in Listing(queue).page(AlertFilter(section=Section.ALL), ANN).rows}
    for alert, explanation in pairs:
        assert rows[alert.alert_id].theme == next((one.theme for one in explanation.themes if one.contribution > 0), None)
        assert rows[alert.alert_id].top_fact in (None, *explanation.facts)
    legitimate, fraud = pairs[2][0].alert_id, pairs[1][0].alert_id
    assert [one.verdict.alert_id for one in Outbox(queue.database, queue.clock).take()] == [legitimate], "still to be published"
    (given,) = Verdicts(queue).of(fraud)
    assert (given.state, given.verdict.finding) == (VerdictState.PUBLISHED, Finding.FRAUD)
    assert verify(queue, []).first_broken is None
    queue.close()
    if fresh is not None:
        fresh.close()
    migrated(engine, "0003", up=False)
    assert content(engine) == before


def test_an_audit_trail_survives_a_downgrade_and_an_upgrade(engine, database_url, explained):
    migrated(engine, "0003")
    fill_version_3(engine, explained[-5:])
    key = b"a key of the audit trail"
    for _ in range(2):
        queue = Queue(database_url, HandClock(1_759_000_200_000), audit_key=key)
        Verdicts(queue).give(
            explained[-5][0].alert_id, Opinion(Finding.ESCALATE), LEA, queue.get(explained[-5][0].alert_id).version
        )
        with queue.reading() as connection:
            assert queue.database.audit.check(connection).first_broken is None
        queue.close()
        migrated(engine, "0003", up=False)
    queue = Queue(database_url, HandClock(1_759_000_200_000), audit_key=key)
    assert (verify(queue, None).first_broken, verify(queue, None).unkeyed) == (None, 3)
    queue.close()


def test_every_migration_can_be_undone_on_an_empty_database(engine):
    migrated(engine, "head")
    migrated(engine, "base", up=False)
    migrated(engine, "head")


def test_a_migration_fills_in_the_devices_of_older_alerts(engine, database_url, explained):
    migrated(engine, "0002")
    alerts = [alert for alert, _ in explained]
    online = next(alert for alert in alerts if alert.transaction.device_id)
    without = next(alert for alert in alerts if not alert.transaction.device_id)
    with engine.begin() as connection:
        for alert in (online, without):
            connection.execute(
                text(
                    "INSERT INTO alerts (alert_id, transaction_id, card_id, merchant_id, event_time, amount, currency, outcome, expected_loss, "
                    "bundle, raised_at, message) VALUES (:id, 't', 'c', 'm', 1, 1, 'EUR', 'review', 1, 'b', 1, :message)"
                ),
                {"id": alert.alert_id, "message": encode(alert).decode()},
            )
    opened = Queue(database_url, HandClock())
    found = [queued.alert.alert_id for queued in opened.of_device(online.transaction.device_id)]
    opened.close()
    assert found == [online.alert_id]
