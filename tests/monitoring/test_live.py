"""
A real Prometheus scrapes a real run: Apache Kafka, the three workers and the console. Metrics are clean, no panel is empty, and alerts
are provoked by their faults.

The rules run in fast motion: windows are divided by 300, and so are the thresholds that are waiting times, by 100.
"""

import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec import structs

from analyst.policy import QueuePolicy
from analyst.queue import Queue
from analyst.verdicts import Verdicts
from cli.supervisor import Child, free_ports
from core.clock import SystemClock
from core.messages import Finding, Label, LabelSource, Opinion, decode_alert, encode
from core.settings import Settings
from core.topics import ALERTS, DECISIONS, LABELS, PROFILED, TRANSACTIONS
from models.bundles.bundle import load_bundle
from models.bundles.store import BundleStore
from monitoring.dashboards import panels
from monitoring.rules import alerts
from streams.kafka.clients import Sender, admin_client, create_topics
from tests.analyst.conftest import LEA
from tests.conftest import needs, transactions_file
from tests.explain.test_llm import GOOD
from tests.kafka import KafkaCluster
from tests.monitoring.prometheus import Prometheus
from tests.openai_server import OpenAIServer
from tests.workers import Worker, collect
from training.replay import transactions_of

pytestmark = pytest.mark.system

RULES = """
[[rules]]
id = "large"
owner = "tests"
expires = 2099-01-01
when = "amount > 1"
outcome = "review"
words = "A test."
"""
NOT_PROVOKED = {
    "WhyflagScoringFailures": "a bundle that cannot score is refused when it is loaded",
    "WhyflagRuleDisabled": "a rule that can fail is refused when it is loaded",
    "WhyflagScoreDrift": "a window needs 160,000 transactions",
    "WhyflagFeatureDrift": "a window needs 160,000 transactions",
    "WhyflagPrecisionHalved": "compares 7 days with 28",
    "WhyflagRebalances": "seven rebalances do not fit into 12 seconds",
}
EMPTY = {  # panels without data in a short run
    "whyflag_restore_seconds": "workers restore before the first scrape, and Prometheus counts changes only",
    "whyflag_score_stability_index": "a window needs 160,000 transactions",
    "whyflag_feature_stability_index": "a window needs 160,000 transactions",
    "whyflag_rule_failures_total": "appears with the first failure",
    "whyflag_words_missing_total": "appears with the first missing message",
    "whyflag_investigations_total": "the console of this run has no language model",
    "whyflag_investigation_seconds": "the console of this run has no language model",
}
LOUD = {  # alerts that fire without their fault in this run
    "AlertRateHigh": "a rule of this run sends everything to review",
    "CriticalBreaches": "alerts have a second for their verdict",
    "QueueAgeBurnFast": "alerts have a second for their verdict",
    "QueueAgeBurnSlow": "alerts have a second for their verdict",
    "LagHigh": "transactions and alerts come in bursts, which wait longer than 0.6 s",
    "DecisionLatencyBurnFast": "transactions come in bursts, which wait longer than 0.1 s",
    "DecisionLatencyBurnSlow": "transactions come in bursts, which wait longer than 0.1 s",
    "ExplanationTimelinessBurnFast": "alerts come in bursts, which may wait longer than 30 s",
    "ExplanationTimelinessBurnSlow": "alerts come in bursts, which may wait longer than 30 s",
}


class Run:
    """The programs of one installation, their databases and their Kafka."""

    def __init__(self, folder: Path, world: Path, bundle_dir: Path, other: Path, stack: ExitStack) -> None:
        self.folder, self.world = folder, world
        self.cluster = stack.enter_context(KafkaCluster(folder / "kafka"))
        self.settings = Settings(kafka_bootstrap=self.cluster.bootstrap, session_seconds=6, checkpoint_seconds=0.5)
        create_topics(self.settings, 2, 1)
        self.model = stack.enter_context(OpenAIServer([GOOD]))
        self.store = self._store(bundle_dir, other)
        self.queue_file, self.archive_file = folder / "queue.db", folder / "archive.db"
        self.database = f"sqlite:///{self.queue_file}"
        Queue(self.database, SystemClock()).close()  # made before its users race for it
        common = {
            "WHYFLAG_ARCHIVE": f"sqlite:///{self.archive_file}",
            "WHYFLAG_SEVERITY_DEADLINES": "1s,1s,1s",
            "WHYFLAG_SEVERITY_LOSSES": "1,0",
        }
        self.score = stack.enter_context(
            Worker("score", self.settings, bundle=self.store.root, environment={"WHYFLAG_STATE_KEYS": "1000"})
        )
        self.archive = stack.enter_context(
            Worker("archive", self.settings, database=self.database, environment=common | {"WHYFLAG_LABEL_DELAY_DAYS": "0.00002"})
        )
        model = {"WHYFLAG_LLM_URL": self.model.url, "WHYFLAG_LLM_MODEL": "test", "WHYFLAG_LLM_PROMPT_PRICE": "1"}
        self.explain = stack.enter_context(
            Worker("explain", self.settings, bundle=self.store.root, database=self.database, environment=common | model)
        )
        self.console = self._console(common)
        self.transactions = cycle(islice(transactions_of(transactions_file(world)), 3_000))
        self.made = 0

    def _store(self, bundle_dir: Path, other: Path) -> BundleStore:
        store = BundleStore(self.folder / "store")
        (self.folder / "rules.toml").write_text(RULES)
        bundle = store.add(bundle_dir)
        rules = store.add_rules(self.folder / "rules.toml", load_bundle(bundle_dir).spec.feature_names)
        store.promote(bundle, rules, "test", "first")
        store.challenge(store.add(other))
        return store

    def _console(self, common: dict[str, str]) -> Child:
        pages, probes = free_ports(2)
        environment = self.explain.environment | common | {
            "WHYFLAG_CONSOLE_PORT": str(pages), "WHYFLAG_METRICS_PORT": str(probes), "WHYFLAG_DATABASE": self.database, "WHYFLAG_LLM_URL": "",
        }  # fmt: skip
        self.pages = pages
        console = Child(["console"], environment, probes, self.folder / "console.log")
        console.start()
        console.wait_ready()
        return console

    def logs(self) -> dict[str, str]:
        workers = {"score": self.score, "archive": self.archive, "explain": self.explain}
        return {name: worker.printed() for name, worker in workers.items()} | {"console": self.console.output()}

    @property
    def ports(self) -> list[int]:
        return [self.score.port, self.archive.port, self.explain.port, self.console.port]

    def produce(self, count: int, new_cards: bool = False) -> None:
        sender = Sender(self.settings, 0)
        for one in islice(self.transactions, count):
            card = f"card-{self.made}" if new_cards else one.card_id
            one = structs.replace(one, transaction_id=f"t-{self.made}", card_id=card)
            sender.send(TRANSACTIONS, one.card_id.encode(), encode(one))
            self.made += 1
        sender.close()

    def send(self, topic: str, values: list[bytes]) -> None:
        sender = Sender(self.settings, 0)
        for value in values:
            sender.send(topic, b"key", value)
        sender.close()

    def open_page(self, path: str, data: bytes | None = None) -> None:
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.pages}{path}", data, timeout=10).close()

    def judge(self, count: int) -> None:
        """Give verdicts as an analyst does, and wait for no grace period."""
        queue = Queue(self.database, SystemClock(), QueuePolicy(grace_ms=0))
        for queued in queue.open_alerts(count):
            Verdicts(queue).give(queued.alert.alert_id, Opinion(Finding.FRAUD), LEA, queued.version)
        queue.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, world, bundle_dir, other_bundle_dir):
    needs("java"), needs("mvn")
    with ExitStack() as stack:
        made = Run(tmp_path_factory.mktemp("live"), world, bundle_dir, other_bundle_dir, stack)
        yield made
        for name, log in made.logs().items():
            print(f"-- {name}\n{log[-3_000:]}")  # shown if a test fails
        if made.console.running:
            made.console.stop()


@pytest.fixture(scope="module")
def prometheus(run, tmp_path_factory):
    with Prometheus(needs("prometheus"), tmp_path_factory.mktemp("prometheus"), run.ports) as started:
        run.produce(3_000)
        raised = collect(run.settings, {DECISIONS: 3_000, ALERTS: 20}, 90)[ALERTS]
        alert = decode_alert(raised[0].value)
        label = Label(
            transaction_id=alert.transaction.transaction_id, card_id=alert.transaction.card_id, merchant_id=alert.transaction.merchant_id,
            event_time=alert.transaction.event_time, label_time=SystemClock().now_ms(), fraud=True, source=LabelSource.CHARGEBACK,
        )  # fmt: skip
        run.send(LABELS, [encode(label)])
        run.judge(3)
        for _ in range(5):
            run.open_page("/")
            run.produce(200)
            time.sleep(1)
        yield started


def test_the_metrics_of_each_program_are_clean(run, prometheus):
    promtool = needs("promtool")
    for program in (run.score, run.archive, run.explain, run.console):
        checked = subprocess.run([promtool, "check", "metrics"], input=program.get("metrics"), capture_output=True, text=True)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_no_panel_is_empty(prometheus):
    deadline = time.monotonic() + 60
    missing = {one.expression: one for one in panels("30s") if not any(name in one.expression for name in EMPTY)}
    while missing and time.monotonic() < deadline:
        missing = {expression: one for expression, one in missing.items() if not prometheus.numbers(expression)}
        time.sleep(1)
    assert not missing, "\n".join(f"{one.dashboard}, {one.panel}: {one.expression}" for one in missing.values())


class Locked:
    """Holds the write lock of a SQLite database, as a stuck maintenance job would."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


@contextmanager
def alerts_that_nobody_judges(run: Run) -> Iterator[None]:
    yield


@contextmanager
def garbage(run: Run) -> Iterator[None]:
    run.send(TRANSACTIONS, [b"no transaction"] * 20)
    run.send(PROFILED, [b"no record"] * 20)
    yield


@contextmanager
def more_cards_than_the_ceiling(run: Run) -> Iterator[None]:
    run.produce(2_500, new_cards=True)
    yield


@contextmanager
def a_damaged_bundle(run: Run) -> Iterator[None]:
    damaged = run.store.folder(run.store.current.challenger)
    run.store.challenge("")
    time.sleep(2)  # the worker drops the challenger, or it would not load it again
    for path in damaged.iterdir():
        path.write_bytes(b"damaged")
    run.store.challenge(damaged.name)
    yield


@contextmanager
def a_language_model_that_fails(run: Run) -> Iterator[None]:
    run.model.script = ["500"]
    run.produce(500)
    yield


@contextmanager
def locked_databases(run: Run) -> Iterator[None]:
    with Locked(run.queue_file), Locked(run.archive_file):
        run.produce(1_000)
        yield


@contextmanager
def a_broker_that_hangs(run: Run) -> Iterator[None]:
    run.produce(2_000)
    run.cluster.nodes[0].pause()
    try:
        yield
    finally:
        run.cluster.nodes[0].resume()


@contextmanager
def a_broker_that_answers_again(run: Run) -> Iterator[None]:
    yield  # what waited for the broker has been decided late


@contextmanager
def an_explainer_that_hangs(run: Run) -> Iterator[None]:
    run.explain.pause()
    try:
        run.produce(300)
        yield
        time.sleep(30)  # an explanation is late after 30 s, a bound of the histogram
    finally:
        run.explain.resume()


@contextmanager
def an_explainer_that_answers_again(run: Run) -> Iterator[None]:
    yield


@contextmanager
def a_console_without_its_users(run: Run) -> Iterator[None]:
    with closing(sqlite3.connect(run.queue_file)) as connection:
        connection.execute("ALTER TABLE users RENAME TO hidden")
        for _ in range(8):
            run.open_page("/sign-in", b"name=ann&password=wrong")
            time.sleep(0.5)
        try:
            yield
        finally:
            connection.execute("ALTER TABLE hidden RENAME TO users")


@contextmanager
def a_console_that_restarts(run: Run) -> Iterator[None]:
    for _ in range(3):
        run.console.stop()
        run.console.start()
        run.console.wait_ready()
        time.sleep(2)  # for a scrape
    yield


@contextmanager
def a_console_without_the_topic_of_verdicts(run: Run) -> Iterator[None]:
    run.explain.stop()  # it reads this topic, too
    with admin_client(run.settings) as admin:
        admin.delete_topics(["verdicts"])
    run.judge(2)
    yield


class Expected(NamedTuple):
    """The alerts that a fault provokes, and the seconds within which they fire."""

    alerts: set[str]
    seconds: float


FAULTS = {
    alerts_that_nobody_judges: Expected({"AlertRateHigh", "CriticalBreaches", "QueueAgeBurnFast", "QueueAgeBurnSlow"}, 60),
    garbage: Expected({"DeadLetters", "DecisionCompletenessBurnFast", "DecisionCompletenessBurnSlow"}, 60),
    more_cards_than_the_ceiling: Expected({"StateCeiling"}, 60),
    a_damaged_bundle: Expected({"BundleRejected"}, 30),
    a_language_model_that_fails: Expected({"LanguageModelDown"}, 60),
    locked_databases: Expected({"Standstill", "LagHigh", "ArchiveDelayed"}, 18),
    a_broker_that_hangs: Expected({"CheckpointOld", "DependencySilent"}, 40),
    a_broker_that_answers_again: Expected({"DecisionLatencyBurnFast", "DecisionLatencyBurnSlow"}, 60),
    an_explainer_that_hangs: Expected({"TargetDown", "ProgramAbsent"}, 30),
    an_explainer_that_answers_again: Expected({"ExplanationTimelinessBurnFast", "ExplanationTimelinessBurnSlow"}, 60),
    a_console_without_its_users: Expected({"ConsoleAvailabilityBurnFast", "ConsoleAvailabilityBurnSlow"}, 30),
    a_console_that_restarts: Expected({"Restarts"}, 30),
    a_console_without_the_topic_of_verdicts: Expected({"OutboxDelayed"}, 60),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_fires_its_alerts(fault, run, prometheus):
    """The faults follow each other: each is a test of its own, so that a failure names it. Before its fault, an alert is quiet."""
    expected = FAULTS[fault]
    prometheus.wait_until_quiet({f"Whyflag{name}" for name in expected.alerts - LOUD.keys()}, 120)
    with fault(run):
        prometheus.wait_for({f"Whyflag{name}" for name in expected.alerts}, expected.seconds)


def test_every_other_alert_has_a_reason_not_to_be_provoked():
    provoked = {f"Whyflag{name}" for expected in FAULTS.values() for name in expected.alerts}
    assert {alert.name for alert in alerts()} - provoked == set(NOT_PROVOKED)
