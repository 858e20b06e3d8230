"""The whole chain on a broker that enforces ACLs, with only the rights that `whyflag topics acls` lists."""

import gc
import subprocess
import sys
import time
from contextlib import closing

import msgspec
import pytest
from kafka.errors import TopicAuthorizationFailedError
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from core.errors import BrokerError, SettingsError
from core.messages import Finding, Opinion, decode_alert, decode_decision, encode
from core.settings import Settings
from core.topics import ALERTS, AUDIT_ANCHORS, DEAD_LETTERS, DECISIONS, EXPLANATIONS, LABELS, PROFILED, TRANSACTIONS, VERDICTS
from streams.kafka.acls import RIGHTS, Role, acls, commands, create_acls
from streams.kafka.clients import Observer, Sender, create_topics
from streams.kafka.connection import connection_of
from streams.tracing import NO_TRACING, traced
from tests.analyst.conftest import ANN
from tests.conftest import needs, transactions_file
from tests.kafka.secured import PREFIX
from tests.streams.collector import Collector
from tests.workers import Worker, collect
from training.replay import transactions_of

# kafka-python leaves the sockets of failed connections to the garbage collector
pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    """A broker with our topics and the least rights of each role."""
    needs("java"), needs("mvn")
    from tests.kafka.secured import SecuredKafka

    with SecuredKafka(tmp_path_factory.mktemp("secured")) as broker:
        create_topics(broker.settings("admin"), partitions=2, replication=1)
        for role in Role:
            create_acls(broker.settings("admin"), acls(role, f"User:{broker.user(role)}", PREFIX))
        for principal in ("User:plain", "User:CN=certified"):
            create_acls(broker.settings("admin"), acls(Role.PRODUCER, principal, PREFIX))
        yield broker


def _produced(settings, transactions, tracing=NO_TRACING):
    """Send transactions, and return the traceparent of each."""
    sender, traces = Sender(settings, 0), {}
    for transaction in transactions:
        ids = {"transaction_id": transaction.transaction_id}
        traces[transaction.transaction_id] = trace = tracing.span("produce", "", time.time(), ids)
        sender.send(TRANSACTIONS, transaction.card_id.encode(), encode(transaction), trace=trace)
    sender.close()
    return traces


def _written(settings, topic):
    sender = Sender(settings, 0)
    try:
        sender.send(topic, b"k", b"v", partition=0)
    finally:
        sender.close()


def test_the_whole_chain_runs_with_the_least_rights(kafka, world, bundle_dir, tmp_path):
    from analyst.archive import Archive
    from analyst.policy import QueuePolicy
    from analyst.queue import Queue
    from analyst.verdicts import Verdicts
    from core.clock import SystemClock
    from streams.relay import Relay

    some = [t for t, _ in zip(transactions_of(transactions_file(world)), range(3_000), strict=False)]
    database = f"sqlite:///{tmp_path}/queue.db"
    reader = kafka.settings("reader")
    with (
        Collector() as collector,
        Worker("score", kafka.settings("score"), bundle=bundle_dir, environment=collector.settings) as score,
        Worker(
            "explain", kafka.settings("explain"), bundle=bundle_dir, database=database, environment=collector.settings
        ) as explain,
        Worker("archive", kafka.settings("archive"), database=database) as archive,
    ):
        traces = _produced(kafka.settings("producer"), some[:1_000], traced(SimpleSpanProcessor(collector.own), "produce", 1.0))
        _produced(kafka.settings("producer", "SCRAM-SHA-256"), some[1_000:1_500])
        _produced(kafka.settings("plain", "PLAIN"), some[1_500:2_000])
        _produced(kafka.with_certificate("certified"), some[2_000:])
        decided = {decode_decision(record.value).transaction_id for record in collect(reader, {DECISIONS: 3_000}, 120)[DECISIONS]}
        assert decided == {t.transaction_id for t in some}
        alerts = [decode_alert(record.value) for record in collect(kafka.settings("admin"), {ALERTS: 1})[ALERTS]]
        collect(reader, {EXPLANATIONS: len(alerts)}, 120)
        queue = Queue(database, SystemClock(), QueuePolicy(grace_ms=0))
        Verdicts(queue).give(alerts[0].alert_id, Opinion(Finding.FRAUD), ANN, 0)
        relay = Relay(queue, kafka.settings("console"))
        relay.start()
        collect(kafka.settings("admin"), {VERDICTS: 1, LABELS: 1, AUDIT_ANCHORS: 1})
        relay.stop()
        queue.close()
        assert "AuthorizationFailed" not in score.stop() + explain.stop() + archive.stop()
        alerted = [alert.transaction.transaction_id for alert in alerts if alert.transaction.transaction_id in traces]
        assert alerted
        for transaction_id in alerted:
            chain = collector.chain(traces[transaction_id])
            assert [(span.service, span.name) for span in chain] == [
                ("whyflag-produce", "produce"), ("whyflag-score", "profile"), ("whyflag-score", "score"), ("whyflag-explain", "explain"),
            ]  # fmt: skip
            assert {span.attributes["transaction_id"] for span in chain} == {transaction_id}
        assert len(collector.roots()) == 1_000, "the workers' own share is 0: nothing else is traced"
    store = Archive(database, SystemClock(), days=100)
    assert all(store.contains(transaction) for transaction in some)
    store.close()


def test_a_restarted_worker_reads_its_checkpoints(kafka, bundle_dir):
    with Worker("score", kafka.settings("score"), bundle=bundle_dir) as worker:
        assert "restored" in worker.stop()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kafka_password": "wrong"}, "refuses the log-in"),
        ({"kafka_ca": "other"}, "unknown authority"),
        ({"kafka_sasl": "PLAIN"}, "refuses the log-in"),
        ({"kafka_security": "SSL", "kafka_user": "", "kafka_password": ""}, "WHYFLAG_KAFKA_SECURITY"),
        ({"kafka_security": "PLAINTEXT", "kafka_user": "", "kafka_password": "", "kafka_ca": ""}, "WHYFLAG_KAFKA_SECURITY"),
    ],
)
def test_workers_and_other_clients_report_wrong_connection_settings(kafka, bundle_dir, tmp_path, changes, told):
    from tests.kafka.secured import Authority

    if changes.get("kafka_ca"):
        changes = {"kafka_ca": str(Authority(tmp_path, "somebody else").path)}
    settings = msgspec.structs.replace(kafka.settings("score"), **changes)
    with Worker("score", settings, bundle=bundle_dir, ready=False) as worker:
        with pytest.raises(BrokerError, match=told):
            Sender(settings, 0)
        status, printed = worker.ended(90)
    assert status == 70
    assert told in printed
    assert settings.kafka_password == "" or settings.kafka_password not in printed
    assert "Traceback" not in printed


def test_a_missing_right_is_reported(kafka, bundle_dir):
    with pytest.raises(BrokerError, match="lacks a right"):
        create_acls(kafka.settings("nobody"), acls(Role.PRODUCER, "User:whyflag-nobody"))
    with Worker("score", kafka.settings("nobody"), bundle=bundle_dir, ready=False) as worker:
        status, printed = worker.ended(90)
    assert status == 70
    assert "lacks a right" in printed


def test_a_producer_can_write_to_no_other_topic(kafka):
    """A client that can write to a checkpoint topic can change decisions."""
    written = {right.name for right in RIGHTS[Role.PRODUCER]}
    assert written == {TRANSACTIONS, LABELS}
    for topic in (PROFILED, ALERTS, DEAD_LETTERS, "score-checkpoints"):
        with pytest.raises(BrokerError, match="lacks a right"):
            _written(kafka.settings("producer"), topic)


def test_a_producer_cannot_read(kafka):
    with closing(Observer(kafka.settings("producer"), [TRANSACTIONS])) as observer, pytest.raises(TopicAuthorizationFailedError):
        list(observer.all())


def test_topics_that_outsiders_write_to_carry_the_brokers_time(kafka, apache, bundle_dir):
    """A worker refuses such a topic if producers set the timestamps."""
    from kafka import KafkaAdminClient
    from kafka.admin import NewTopic

    record = collect(kafka.settings("admin"), {TRANSACTIONS: 1})[TRANSACTIONS][0]
    assert record.timestamp_type == 1
    admin = KafkaAdminClient(**connection_of(apache).kafka_python)
    admin.create_topics([NewTopic(TRANSACTIONS, num_partitions=4, replication_factor=1)])
    admin.close()
    create_topics(apache, partitions=4, replication=1)
    with Worker("score", apache, bundle=bundle_dir, ready=False) as worker:
        status, printed = worker.ended(60)
    assert status == 70
    assert "message.timestamp.type=CreateTime" in printed
    assert "kafka-configs.sh" in printed


def test_the_rights_can_be_printed(kafka):
    done = subprocess.run([sys.executable, "-m", "cli.main", "topics", "acls"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == sum(1 + len(RIGHTS[role]) for role in Role)
    assert commands(Role.PRODUCER, "User:p")[0] == "--add --allow-principal User:p --operation Write --topic transactions"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kafka_security": "SASL_SSL"}, "needs WHYFLAG_KAFKA_USER"),
        ({"kafka_security": "SSL", "kafka_user": "u"}, "SASL_SSL only"),
        ({"kafka_ca": "x.pem"}, "SSL or SASL_SSL only"),
        ({"kafka_security": "SSL", "kafka_ca": "/no/ca.pem"}, "no file /no/ca.pem"),
        ({"kafka_security": "SSL", "kafka_certificate": __file__}, "cannot be used"),
    ],
)
def test_contradictory_settings_raise_a_settings_error(settings, told):
    with pytest.raises(SettingsError, match=told):
        connection_of(Settings(**settings))
