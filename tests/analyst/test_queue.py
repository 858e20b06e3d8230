"""Queue tests, run on both SQLite and a real PostgreSQL."""

import asyncio
import json
import stat
import threading
from types import SimpleNamespace

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from analyst.access.roles import Actor, Role
from analyst.cases import Cases
from analyst.queue import AlertState, Queue
from analyst.tables import metadata
from analyst.verdicts import Verdicts
from core.clock import SystemClock
from core.errors import DatabaseError
from core.messages import Finding, Opinion, Outcome, alert_id, decode_alert, decode_dead_letter, encode
from core.topics import ALERTS, DEAD_LETTERS, EXPLANATIONS, VERDICTS
from explain.casebook import Casebook, CasesInMemory
from explain.explainer import Explainer
from streams.stages.explain import ExplainStage
from streams.stages.stage import Chunk

ANN = Actor("ann", Role.ANALYST)


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
        for table in metadata.tables:
            connection.execute(text(f"DELETE FROM {table}"))
    opened.close()


@pytest.fixture(scope="module")
def pairs(replayed, bundle):
    """Alerts with their explanations."""
    out, _ = replayed
    explainer = Explainer(bundle, Casebook(bundle, CasesInMemory()))
    alerts = [decode_alert(line) for line in (out / "alerts.jsonl").read_bytes().splitlines()[:12]]
    return [(alert, explainer.explain(alert)) for alert in alerts]


def test_open_alerts_are_ordered_by_expected_loss(queue, pairs):
    for alert, explanation in pairs:
        queue.put(alert, explanation)
    waiting = queue.open_alerts(50)
    losses = [queued.loss for queued in waiting]
    assert losses == sorted(losses, reverse=True)
    assert {queued.alert.alert_id for queued in waiting} == {alert.alert_id for alert, _ in pairs}
    assert queue.counts() == {"open": len(pairs)}


def test_a_stored_alert_round_trips(queue, pairs):
    alert, explanation = pairs[0]
    queue.put(alert, explanation)
    queued = queue.get(alert.alert_id)
    assert (queued.alert, queued.explanation, queued.finding) == (alert, explanation, None)
    assert (queued.state, queued.version, queued.claimed_by) == (AlertState.OPEN, 0, None)
    assert queue.get("al_none") is None


def test_storing_an_alert_again_only_replaces_its_explanation(queue, pairs):
    alert, explanation = pairs[0]
    queue.put(alert, explanation)
    Verdicts(queue).give(alert.alert_id, Opinion(Finding.FRAUD, "stolen card"), ANN, 0)
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


def test_the_migrations_match_the_table_definitions(queue):
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
def test_a_database_that_cannot_be_opened_raises_a_database_error(url):
    with pytest.raises(DatabaseError, match="WHYFLAG_DATABASE"):
        Queue(url, SystemClock())


def test_alert_ids_do_not_depend_on_the_outcome(pairs):
    assert all(alert.alert_id == alert_id(alert.transaction) for alert, _ in pairs)
    assert all(alert.decision.outcome is not Outcome.APPROVE for alert, _ in pairs)


def test_a_database_error_reveals_nothing_about_the_transaction(queue, pairs):
    """The text of the error goes to logs and dead letters."""
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


def _verdict_record(offset, **changes):
    values = {
        "alert_id": "al_1", "transaction_id": "t", "card_id": "c", "merchant_id": "m", "event_time": 1_750_000_000_000,
        "verdict_time": 1_750_000_000_001, "finding": "fraud", "analyst": "ann",
    }  # fmt: skip
    return SimpleNamespace(
        topic=VERDICTS, partition=0, timestamp=0, offset=offset, key=b"k", value=json.dumps(values | changes).encode()
    )


def test_a_record_that_the_store_refuses_is_a_dead_letter_and_the_next_one_is_handled(queue, pairs, bundle):
    """PostgreSQL rejects NUL bytes, and every store rejects integers that exceed 64 signed bits."""
    alert, explanation = pairs[0]
    queue.put(alert, explanation)
    cases = Cases(queue)
    stage = ExplainStage(Explainer(bundle, Casebook(bundle, CasesInMemory())), queue, cases)
    named = {"alert_id": alert.alert_id, "transaction_id": alert.transaction.transaction_id}
    records = [
        _verdict_record(0, alert_id="al_\0"),
        _verdict_record(1, **named, note="called\0 the customer, card 4111 1111 1111 1111"),
        _verdict_record(2, verdict_time=2**63),
    ]
    letters = [
        decode_dead_letter(value)
        for output in asyncio.run(stage.process([Chunk(VERDICTS, 0, records)]))
        for value in output.values
    ]
    assert [letter.offset for letter in letters if letter.offset != 0] == [2]
    if queue.engine.dialect.name == "postgresql":
        assert [letter.offset for letter in letters] == [0, 2]
        assert "the database rejected a value" in letters[0].message
    ((_, case),) = cases.find(alert.alert_id)
    assert case.note == "called the customer, card [card ending 1111]"


def test_an_alert_with_an_integer_too_large_for_any_store_is_a_dead_letter(queue, pairs, bundle):
    alert, _ = pairs[0]
    stage = ExplainStage(Explainer(bundle, Casebook(bundle, CasesInMemory())), queue, Cases(queue))
    value = encode(alert).replace(b'"expected_loss":%d' % alert.decision.expected_loss, b'"expected_loss":%d' % 2**63)
    records = [
        SimpleNamespace(topic=ALERTS, partition=0, timestamp=0, offset=offset, key=b"k", value=one)
        for offset, one in enumerate((value, encode(alert)))
    ]
    outputs = asyncio.run(stage.process([Chunk(ALERTS, 0, records)]))
    assert [output.topic for output in outputs] == [DEAD_LETTERS, EXPLANATIONS]


def test_an_alert_whose_id_does_not_match_its_transaction_is_a_dead_letter(queue, pairs, bundle):
    """Otherwise its evidence would appear on another alert's page."""
    stage = ExplainStage(Explainer(bundle, Casebook(bundle, CasesInMemory())), queue, Cases(queue))
    forged = msgspec.structs.replace(pairs[0][0], alert_id=pairs[1][0].alert_id)
    record = SimpleNamespace(topic=ALERTS, partition=0, timestamp=0, offset=0, key=b"k", value=encode(forged))
    (output,) = asyncio.run(stage.process([Chunk(ALERTS, 0, [record])]))
    assert output.topic == DEAD_LETTERS


def test_a_transaction_id_reused_with_other_content_is_another_alert(queue, pairs, bundle):
    """Closing one alert as legitimate leaves the others open, each with its own explanation."""
    explainer = Explainer(bundle, Casebook(bundle, CasesInMemory()))
    alert, explanation = pairs[0]
    queue.put(alert, explanation)
    Verdicts(queue).give(alert.alert_id, Opinion(Finding.LEGITIMATE), ANN, 0)
    for field, value in (("card_id", "another"), ("amount", 50_000_000), ("merchant_id", "elsewhere")):
        transaction = msgspec.structs.replace(alert.transaction, **{field: value})
        other = msgspec.structs.replace(alert, alert_id=alert_id(transaction), transaction=transaction)
        queue.put(other, explainer.explain(other))
        assert queue.get(other.alert_id).finding is None
        assert queue.get(other.alert_id).alert.transaction == transaction
    assert queue.get(alert.alert_id).finding is Finding.LEGITIMATE
    assert queue.get(alert.alert_id).explanation == explanation
    assert queue.counts() == {"open": 3, "legitimate": 1}


def test_a_database_file_is_accessible_only_to_its_owner(tmp_path):
    queue = Queue(f"sqlite:///{tmp_path}/private.db", SystemClock())
    queue.counts()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    queue.close()
