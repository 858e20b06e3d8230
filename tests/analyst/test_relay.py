"""The console's background work on a broker, and its probes and metrics."""

import time

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from analyst.bulk import Bulks
from analyst.listing import AlertFilter, Listing
from analyst.queue import Queue
from analyst.statistics import Statistics
from analyst.verdicts import Outbox, Verdicts
from analyst.verification import verify
from analyst.web.operations import operations_app
from core.clock import SystemClock
from core.decoding import decode_label
from core.messages import Finding, Opinion, decode_audit_anchor, decode_verdict
from core.privacy.masking import Privacy
from core.settings import Settings
from core.topics import AUDIT_ANCHORS, LABELS, VERDICTS
from streams.kafka.embedded import API_VERSION, EmbeddedBroker
from streams.relay import Relay
from tests.analyst.conftest import ANN, LEA, ids_of
from tests.workers import collect


def operations(queue, alive=True, publishing=True):
    app = operations_app(Outbox(queue.database, queue.clock), Statistics(queue), lambda: alive, lambda: publishing, 30.0)
    return TestClient(app, base_url="http://127.0.0.1")


def test_the_relay_publishes_every_verdict_its_label_and_the_head_of_the_audit_trail(sqlite_queue, clock):
    ids = ids_of(sqlite_queue)[:3]
    for one, finding in zip(ids, Finding, strict=True):
        Verdicts(sqlite_queue).give(one, Opinion(finding), ANN, 0)
    clock.pass_by(31)
    with EmbeddedBroker() as broker:
        kafka = Settings(kafka_bootstrap=broker.bootstrap, kafka_api_version=API_VERSION)
        relays = [Relay(sqlite_queue, kafka) for _ in range(2)]  # two consoles
        for relay in relays:
            relay.start()
        try:
            got = collect(kafka, {VERDICTS: 3, LABELS: 2, AUDIT_ANCHORS: 1})
            time.sleep(1.5)  # enough for the other console to send everything again, if it did
        finally:
            for relay in relays:
                relay.stop()
        again = collect(kafka, {VERDICTS: 3, LABELS: 2, AUDIT_ANCHORS: 1})
    assert {(v := decode_verdict(record.value)).alert_id: v.finding for record in got[VERDICTS]} == dict(
        zip(ids, Finding, strict=True)
    )
    assert sorted(decode_label(record.value, Privacy()).fraud for record in got[LABELS]) == [False, True]
    assert {topic: len(records) for topic, records in again.items()} == {VERDICTS: 3, LABELS: 2, AUDIT_ANCHORS: 1}
    assert Outbox(sqlite_queue.database, clock).backlog().verdicts == 0
    found = verify(sqlite_queue, [decode_audit_anchor(record.value) for record in got[AUDIT_ANCHORS]])
    assert (found.intact, found.anchors) == (True, 1)


def test_the_relay_is_not_publishing_once_kafka_is_silent_for_too_long(monkeypatch, tmp_path):
    queue = Queue(f"sqlite:///{tmp_path}/q.db", SystemClock())
    monkeypatch.setattr(Relay, "_publish", lambda self: 1 / 0)
    relay = Relay(queue, Settings(broker_silence_seconds=5.0))
    relay.start()
    try:
        deadline = time.monotonic() + 10
        while relay._failing_since is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert relay.publishing, "a short failure is none yet"
        relay._failing_since -= 5.0
        assert not relay.publishing
        assert relay.alive
    finally:
        relay.stop()
    assert not relay.publishing
    queue.close()


def test_readiness_tells_of_waiting_verdicts_but_keeps_the_console_in_service(sqlite_queue, clock):
    with operations(sqlite_queue) as probe:
        assert probe.get("/live").text == "live\n"
        assert probe.get("/ready").text == "ready\n"
        Verdicts(sqlite_queue).give(ids_of(sqlite_queue)[0], Opinion(Finding.FRAUD), ANN, 0)
        clock.pass_by(90)
        answer = probe.get("/ready")
        assert (answer.status_code, answer.text) == (200, "ready; 1 verdicts wait until Kafka answers, the first for 60 s\n")
    with operations(sqlite_queue, alive=False) as probe:
        assert probe.get("/ready").status_code == 503
    with operations(sqlite_queue, publishing=False) as probe:
        assert "until Kafka answers" in probe.get("/ready").text


def test_the_console_is_not_ready_without_its_database(sqlite_queue):
    with sqlite_queue.engine.begin() as connection:
        connection.execute(text("ALTER TABLE verdicts RENAME TO hidden"))
    with operations(sqlite_queue) as probe:
        assert probe.get("/ready").status_code == 503
        assert probe.get("/metrics").status_code == 200


def test_metrics_show_the_queue_and_the_outbox(sqlite_queue, clock):
    bulks = Bulks(sqlite_queue, Listing(sqlite_queue))
    Verdicts(sqlite_queue).give(ids_of(sqlite_queue)[0], Opinion(Finding.ESCALATE), ANN, 0)
    bulks.give(bulks.preview(AlertFilter(), LEA).number, Opinion(Finding.FRAUD), LEA)
    clock.pass_by(700)
    with operations(sqlite_queue) as probe:
        families = {family.name: family for family in text_string_to_metric_families(probe.get("/metrics").text)}
    values = {
        name: sum(sample.value for sample in families[name].samples)
        for name in ("whyflag_outbox_verdicts", "whyflag_queue_alerts")
    }
    assert values == {"whyflag_outbox_verdicts": 20, "whyflag_queue_alerts": 1}
    (state,) = {sample.labels["state"] for sample in families["whyflag_queue_alerts"].samples if sample.value}
    assert state == "escalated"
    assert families["whyflag_outbox_seconds"].samples[0].value == pytest.approx(670, abs=1)
