"""The queue, on SQLite and on a real PostgreSQL: the same tests."""

import threading

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from analyst.audit import first_broken
from analyst.queue import Queue
from analyst.tables import metadata
from core.clock import SystemClock
from core.errors import QueueError
from core.messages import Finding, LabelSource, Outcome, alert_id, decode_alert, label_of
from explain.casebook import Casebook, CasesInMemory
from explain.explainer import Explainer


class FixedClock:
    def __init__(self, now=1_760_000_000_000):
        self.now = now

    def now_ms(self):
        self.now += 1
        return self.now


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def queue(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/queue.db"
    else:
        url = request.getfixturevalue("postgres")
    opened = Queue(url, FixedClock())
    yield opened
    with opened.engine.begin() as connection:
        for table in ("alerts", "verdicts", "audit", "cases"):
            connection.execute(text(f"DELETE FROM {table}"))
    opened.close()


@pytest.fixture(scope="module")
def pairs(replayed, bundle):
    """Alerts with their explanations."""
    out, _ = replayed
    explainer = Explainer(bundle, Casebook(bundle, CasesInMemory()))
    alerts = [decode_alert(line) for line in (out / "alerts.jsonl").read_bytes().splitlines()[:12]]
    return [(alert, explainer.explain(alert)) for alert in alerts]


def test_alerts_wait_in_the_order_of_their_expected_loss(queue, pairs):
    for alert, explanation in pairs:
        queue.put(alert, explanation)
    waiting = queue.open_alerts(50)
    losses = [queued.alert.decision.expected_loss for queued in waiting]
    assert losses == sorted(losses, reverse=True)
    assert {queued.alert.alert_id for queued in waiting} == {alert.alert_id for alert, _ in pairs}
    assert [q.alert.alert_id for q in queue.open_alerts(3, 2)] == [q.alert.alert_id for q in waiting[2:5]]
    assert queue.counts() == {"open": len(pairs)}


def test_what_is_stored_comes_back_as_it_was(queue, pairs):
    alert, explanation = pairs[0]
    queue.put(alert, explanation)
    queued = queue.get(alert.alert_id)
    assert (queued.alert, queued.explanation, queued.finding) == (alert, explanation, None)
    assert queue.get("al_none") is None


def test_the_same_alert_twice_is_one_alert_and_takes_the_newer_words(queue, pairs):
    alert, explanation = pairs[0]
    queue.put(alert, explanation)
    queue.decide(alert.alert_id, Finding.FRAUD, "ann", "stolen card", None)
    newer = msgspec.structs.replace(explanation, narrator="model")
    queue.put(alert, newer)
    queued = queue.get(alert.alert_id)
    assert queued.explanation == newer
    assert queued.finding is Finding.FRAUD
    assert queue.counts() == {"fraud": 1}


def test_two_explainers_at_once_make_one_alert(queue, pairs):
    alert, explanation = pairs[0]
    threads = [threading.Thread(target=queue.put, args=(alert, explanation)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queue.counts() == {"open": 1}


def test_a_verdict_closes_the_alert_waits_to_be_published_and_becomes_a_label(queue, pairs):
    alert, explanation = pairs[0]
    queue.put(alert, explanation)
    given = queue.decide(alert.alert_id, Finding.FRAUD, "ann", "stolen card", "customer called")
    assert queue.open_alerts(5) == []
    ((number, verdict),) = queue.unpublished()
    assert verdict == given
    label = label_of(verdict)
    assert (label.transaction_id, label.card_id, label.fraud, label.source) == (
        alert.transaction.transaction_id, alert.transaction.card_id, True, LabelSource.ANALYST,
    )  # fmt: skip
    assert label.label_time >= label.event_time
    queue.published(number)
    assert queue.unpublished() == []


def test_an_escalation_is_no_label_and_no_case(queue, pairs):
    queue.put(*pairs[0])
    verdict = queue.decide(pairs[0][0].alert_id, Finding.ESCALATE, "ann", None, None)
    assert label_of(verdict) is None


def test_a_later_verdict_replaces_the_finding_and_both_stay(queue, pairs):
    alert, explanation = pairs[0]
    queue.put(alert, explanation)
    queue.decide(alert.alert_id, Finding.LEGITIMATE, "ann", None, None)
    queue.decide(alert.alert_id, Finding.FRAUD, "bob", None, None)
    assert queue.get(alert.alert_id).finding is Finding.FRAUD
    assert [v.analyst for v in queue.verdicts_of(alert.alert_id)] == ["ann", "bob"]


def test_a_verdict_on_nothing_is_told(queue):
    with pytest.raises(QueueError, match="no alert al_x"):
        queue.decide("al_x", Finding.FRAUD, "ann", None, None)


def test_the_audit_trail_shows_any_tampering(queue, pairs):
    for alert, explanation in pairs[:6]:
        queue.put(alert, explanation)
    threads = [
        threading.Thread(target=queue.decide, args=(alert.alert_id, Finding.FRAUD, "ann", None, None)) for alert, _ in pairs[:6]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with queue.engine.begin() as connection:
        assert first_broken(connection) is None
        assert connection.execute(text("SELECT count(*) FROM audit")).scalar() == 6
        connection.execute(text("UPDATE audit SET actor = 'eve' WHERE number = 3"))
    with queue.engine.connect() as connection:
        assert first_broken(connection) == 3
    with queue.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE number = 3"))
    with queue.engine.connect() as connection:
        assert first_broken(connection) == 3


def test_the_migrations_make_the_tables_of_the_code(queue):
    with queue.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_many_processes_may_open_a_new_database_at_once(tmp_path):
    url, errors = f"sqlite:///{tmp_path}/new.db", []

    def open_it():
        try:
            Queue(url, SystemClock()).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("url", ["nonsense", "oracle9://x", "sqlite:////no/such/folder/q.db"])
def test_a_database_that_cannot_be_opened_is_told(url):
    with pytest.raises(QueueError, match="WHYFLAG_DATABASE"):
        Queue(url, SystemClock())


def test_alert_ids_do_not_depend_on_the_outcome(pairs):
    assert all(alert.alert_id == alert_id(alert.transaction) for alert, _ in pairs)
    assert all(alert.decision.outcome is not Outcome.APPROVE for alert, _ in pairs)


def test_an_error_of_the_database_tells_nothing_of_the_transaction(queue, pairs):
    """Its text goes to logs and dead letters."""
    alert, explanation = pairs[0]
    private = msgspec.structs.replace(
        alert, transaction=msgspec.structs.replace(alert.transaction, memo="CANARY", ip="203.0.113.9")
    )
    with queue.engine.begin() as connection:
        connection.execute(text("ALTER TABLE alerts RENAME TO hidden"))
    try:
        with pytest.raises(SQLAlchemyError) as told:
            queue.put(private, explanation)
    finally:
        with queue.engine.begin() as connection:
            connection.execute(text("ALTER TABLE hidden RENAME TO alerts"))
    assert "CANARY" not in str(told.value)
    assert "203.0.113.9" not in str(told.value)
