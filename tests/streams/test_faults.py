"""
Faults on Apache Kafka: whatever happens to workers and brokers, every decision and the final state equal those of a
single-threaded replay of the same input. Nothing is lost, and repeated records are identical.
"""

import asyncio
import json
import random
import re
import resource
import threading
import time
import urllib.error
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from kafka import KafkaAdminClient
from kafka.admin import NewPartitions
from msgspec import structs
from sqlalchemy import Table, create_engine, text
from sqlalchemy.engine import make_url

from analyst.tables import archived_labels, archived_transactions
from cli.supervisor import free_ports
from core.decoding import decode_label, decode_transaction, decode_transactions
from core.errors import InvalidEvent
from core.event_time import is_ahead
from core.messages import Transaction, decode_decision, encode
from core.privacy.masking import Privacy
from core.settings import Settings
from core.topics import ALERTS, DEAD_LETTERS, DECISIONS, LABELS, PROFILED, TOPICS, TRANSACTIONS
from models.bundles.bundle import Bundle, load_bundle
from models.bundles.store import BundleStore
from models.features.spec import default_spec
from models.scorer import Decider
from streams.checkpoints import Checkpoint, CheckpointLog
from streams.kafka.clients import Sender, create_topics
from streams.kafka.connection import Connection
from streams.profiled import ProfiledRows, decode_profiled
from streams.stages.decider_sources import SingleDecider
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage
from streams.stages.stage import Chunk
from streams.state import PartitionState
from tests.conftest import DAY, GIVEN, needs, transactions_file
from tests.kafka import KafkaCluster, Node
from tests.kafka.proxy import Proxy
from tests.streams.rows import single_rows
from tests.streams.test_kafka import _whyflag
from tests.workers import Worker, collect
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile, read_labels
from training.progress import NoProgress
from training.replay import transactions_of
from training.train import Recipe, train

pytestmark = pytest.mark.faults

PARTITIONS = 4
KILLS = int(GIVEN.get("WHYFLAG_FAULT_KILLS", "6"))  # `make test-faults` sets 50
LONG = KILLS >= 50  # bursts and broker outages of a minute, and a soak of ten minutes
N = 20_000


class Input:
    """Transactions of the world mixed with labels, duplicates, late records and poison, as (topic, key, value)."""

    def __init__(self, world: Path, count: int, seed: int = 0, hot: float = 0.0) -> None:
        """``hot`` is the share of transactions that one card makes."""
        rng = random.Random(seed)
        table = pq.read_table(world / "transactions.parquet").slice(0, count)
        path = world / f"first-{count}.parquet"
        pq.write_table(table, path)
        transactions = list(transactions_of(TransactionFile(path, load_mapping("whyflag"))))
        labels = iter(read_labels(world / "labels.parquet"))
        self.records: list[tuple[str, bytes | None, bytes | None]] = []
        late: list = []
        for transaction in transactions:
            if rng.random() < hot:
                transaction = structs.replace(transaction, card_id="hot")
            kind = rng.random()
            if kind < 0.05:
                late.append(transaction)  # out of order: sent up to some hundred records later
                continue
            self._add(TRANSACTIONS, transaction)
            if kind < 0.15:
                # a duplicate; without a key it could land in a partition that has not seen the original
                self.records.append(rng.choice([record for record in self.records[-300:] if record[1] is not None]))
            elif kind < 0.16:
                value = self._poison(rng, transaction)
                self.records.append((TRANSACTIONS, rng.choice((rng.randbytes(4), None)) if value else rng.randbytes(4), value))
            elif kind < 0.20 and (label := next(labels, None)):
                self._add(LABELS, label)
            if late and rng.random() < 0.05:
                self._add(TRANSACTIONS, late.pop(rng.randrange(len(late))))
        for transaction in late:
            self._add(TRANSACTIONS, transaction)

    def part(self, begin: int, end: int | None) -> "Input":
        """Return a slice of the records."""
        return self._of(self.records[begin:end])

    def later(self, milliseconds: int, suffix: str) -> "Input":
        """Return the valid transactions with later event times and new ids."""
        records = []
        for topic, key, value in self.records:
            decoded = decode_transactions([value], Privacy())[0]
            if topic == TRANSACTIONS and isinstance(decoded, Transaction):
                moved = structs.replace(
                    decoded, event_time=decoded.event_time + milliseconds, transaction_id=decoded.transaction_id + suffix
                )
                records.append((topic, key, encode(moved)))
        return self._of(records)

    @staticmethod
    def _of(records: list) -> "Input":
        made = Input.__new__(Input)
        made.records = records
        return made

    def _add(self, topic: str, message) -> None:
        self.records.append((topic, message.card_id.encode(), encode(message)))

    @staticmethod
    def _poison(rng: random.Random, transaction) -> bytes | None:
        whole = encode(transaction)
        strange = json.loads(whole)
        strange["event_time"] = rng.choice(
            (0, -1, 2**62, transaction.event_time - DAY, transaction.event_time + DAY, "now", None)
        )
        strange["transaction_id"] += "-strange"
        if rng.random() < 0.3:
            strange |= rng.choice(({"amount": 0}, {"amount": -1}, {"amount": 10**30}, {"amount": "12"}, {"merchant_id": None}))
        if rng.random() < 0.1:
            del strange[rng.choice(("card_id", "merchant_id", "amount", "event_time"))]
        return rng.choice(
            (
                None,
                b"",
                b"\x00" * 50,
                b"x" * 1_000_000,
                b"1 " * 400_000,  # a card number might begin at every digit
                whole[:-1] + b',"channel":"' + b"x" * 1_000_000 + b'"}',  # the decoding error quotes the long value
                b'{"a":' * 3000,
                whole[:-2],
                whole.replace(b"{", b"[", 1),
                whole.replace(str(transaction.event_time).encode(), b"NaN"),
            )
            + (json.dumps(strange).encode(),) * 4
        )


@pytest.fixture(scope="module")
def stream_input(world) -> Input:
    return Input(world, N)


@pytest.fixture(scope="module")
def short_input(world) -> Input:
    return Input(world, 3_000, seed=1)


@pytest.fixture
def kafka(apache) -> Settings:
    create_topics(apache, partitions=PARTITIONS, replication=1)
    return Settings(kafka_bootstrap=apache.kafka_bootstrap, session_seconds=3, checkpoint_seconds=0.3)


class Load:
    """``with Load(...)``: write the input at a given rate from a thread; the block exits once everything is written."""

    def __init__(self, kafka: Settings, made: Input, rate: float) -> None:
        self._kafka, self._made, self._rate = kafka, made, rate
        self._thread = threading.Thread(target=self._run)
        self.error: Exception | None = None

    def _run(self) -> None:
        try:
            asyncio.run(self._write())
        except Exception as error:
            self.error = error

    async def _write(self) -> None:
        # aiokafka, because kafka-python leaks its sockets when a broker is killed
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka.kafka_bootstrap, enable_idempotence=True, request_timeout_ms=120_000
        )
        await producer.start()
        try:
            began = time.monotonic()
            for sent, (topic, key, value) in enumerate(self._made.records):
                if self._rate and (ahead := began + sent / self._rate - time.monotonic()) > 0:
                    await asyncio.sleep(ahead)
                await producer.send(topic, value, key)
            await producer.flush()
        finally:
            await producer.stop()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._thread.join()
        if self.error:
            raise self.error


async def _logs(kafka: Settings, *topics: str) -> dict[str, dict[int, list]]:
    """Return all records that the topics hold now, by topic and partition."""
    found: dict[str, dict[int, list]] = {topic: {partition: [] for partition in range(PARTITIONS)} for topic in topics}
    async with AIOKafkaConsumer(bootstrap_servers=kafka.kafka_bootstrap, group_id=None, auto_offset_reset="earliest") as consumer:
        places = [TopicPartition(topic, partition) for topic in topics for partition in range(PARTITIONS)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        await consumer.seek_to_beginning()
        while any([await consumer.position(place) < ends[place] for place in places]):
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                found[place.topic][place.partition] += records
    return found


async def _restored(kafka: Settings, stage) -> dict[int, tuple[Checkpoint | None, PartitionState]]:
    found = {}
    for partition in range(PARTITIONS):
        state = stage.new_state()
        found[partition] = (
            await CheckpointLog(Connection(kafka.kafka_bootstrap), stage.checkpoints, partition).read(state.load),
            state,
        )
    return found


def settle(kafka: Settings, seconds: float = 240) -> None:
    """Wait until the checkpoints show that everything is processed."""

    async def done() -> bool:
        logs = await _logs(kafka, TRANSACTIONS, LABELS, PROFILED)
        for stage in (ProfileStage(default_spec(), Privacy()), ScoreStage(default_spec(), SingleDecider(Decider(None)))):
            for partition, (checkpoint, _) in (await _restored(kafka, stage)).items():
                for topic in stage.topics:
                    records = logs[topic][partition]
                    end = records[-1].offset + 1 if records else 0
                    if end > (checkpoint.positions[topic] if checkpoint else 0):
                        return False
        return True

    deadline = time.monotonic() + seconds
    while not asyncio.run(done()):
        assert time.monotonic() < deadline, "the workers did not process everything in time"
        time.sleep(0.5)


def check(kafka: Settings, bundle: Bundle) -> dict[str, int]:
    """
    Compare the workers' output with a single-threaded run of the same stages over the same logs.

    The profile stage runs over the transactions of each partition, the score stage over the ``profiled`` topic, whose order
    across cards is each merchant's order of events. All workers must have stopped cleanly.
    Return how many records are repeated, by topic.
    """

    async def compare() -> dict[str, int]:
        logs = await _logs(kafka, TRANSACTIONS, LABELS, PROFILED, DECISIONS, ALERTS, DEAD_LETTERS)
        expected = defaultdict(list)
        stages = ProfileStage(bundle.spec, Privacy()), ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
        for stage in stages:
            for topic in stage.topics:
                for partition, records in logs[topic].items():
                    for begin in range(0, len(records), 1000):
                        for output in await stage.process([Chunk(topic, partition, records[begin : begin + 1000])]):
                            expected[output.topic] += _units(output.topic, output.values)
        twice = {}
        for topic, values in expected.items():
            made = _units(topic, [record.value for partition in logs[topic].values() for record in partition])
            lost, extra = set(values) - set(made), set(made) - set(values)
            assert not lost, f"{len(lost)} of {len(values)} {topic} are missing: {sorted(lost)[:2]}"
            assert not extra, f"{len(extra)} unexpected {topic}: {sorted(extra)[:2]}"
            assert len(set(values)) == len(values)
            twice[topic] = len(made) - len(values)
        ids = Counter(decode_decision(value).transaction_id for value in expected[DECISIONS])
        assert ids
        _only_the_forgotten_come_again({id for id, count in ids.items() if count > 1}, logs[PROFILED], bundle)
        for stage in stages:
            for partition, (checkpoint, state) in (await _restored(kafka, stage)).items():
                stage.states[partition].changed()
                digests = {state.digest, stage.states[partition].digest, checkpoint.digest}
                assert len(digests) == 1, f"the state of {stage.name}/{partition} differs"
                assert checkpoint.clean
                assert checkpoint.origins == stage.states[partition].origins
                for topic in stage.topics:
                    records = logs[topic][partition]
                    assert checkpoint.positions[topic] == (records[-1].offset + 1 if records else 0)
        return twice

    return asyncio.run(compare())


def _units(topic: str, values: list[bytes]) -> list[bytes]:
    """Return what must be equal however often workers restarted: a record of ``profiled`` holds the rows of whatever chunk it came from."""
    return [row for value in values for row in single_rows(value)] if topic == PROFILED else values


def _only_the_forgotten_come_again(ids: set[str], profiled: dict[int, list], bundle: Bundle) -> None:
    """Assert that a transaction is decided twice only if its card has ``history`` newer ones, so that the state dropped it."""
    profiles = (decode_profiled(record.value) for records in profiled.values() for record in records)
    made = [rows.transaction(i) for rows in profiles if isinstance(rows, ProfiledRows) for i in range(rows.count)]
    for again in (transaction for transaction in made if transaction.transaction_id in ids):
        newer = {t.transaction_id for t in made if t.card_id == again.card_id and t.event_time > again.event_time}
        assert len(newer) >= bundle.spec.entity("card").history, f"{again.transaction_id} was decided twice"


def test_kill_9_at_random(kafka, stream_input, bundle, bundle_dir):
    rng = random.Random(0)
    with Load(kafka, stream_input, N / (6.0 * KILLS)) as load:
        for _ in range(KILLS):
            with Worker("score", kafka, bundle=bundle_dir) as worker:
                time.sleep(rng.uniform(0.1, 2.0))
                worker.kill()
        with Worker("score", kafka, bundle=bundle_dir):
            while load.running:
                time.sleep(0.2)
            settle(kafka)
    twice = check(kafka, bundle)
    print("repeated records:", twice)
    assert twice[PROFILED] > 0, "no crash caused a repeated record, so the test proves nothing"


async def _decided_by(bundle: Bundle, profiled: dict[int, list]) -> dict[int, list[bytes]]:
    """Return the decisions that one bundle alone makes, in order, by partition of the ``profiled`` topic."""
    stage = ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
    return {
        partition: [
            value
            for output in await stage.process([Chunk(PROFILED, partition, records)])
            if output.topic == DECISIONS
            for value in output.values
        ]
        for partition, records in profiled.items()
    }


def test_a_champion_is_promoted_under_load(kafka, stream_input, bundle, bundle_dir, other_bundle_dir, tmp_path):
    """
    Workers that are killed repeatedly switch to a new champion. Each transaction is decided by one bundle, each partition
    switches from the old bundle to the new one once, and the state equals that of a run with either: features ignore the bundle.
    """
    store = BundleStore(tmp_path / "store")
    versions = [store.add(bundle_dir), store.add(other_bundle_dir)]
    store.promote(versions[0], "", "test", "first")
    rng = random.Random(5)
    half = len(stream_input.records) // 2
    with Load(kafka, stream_input.part(0, half), N / 48):
        for _ in range(3):
            with Worker("score", kafka, bundle=store.root) as worker:
                time.sleep(rng.uniform(0.1, 2.5))
                worker.kill()
    with Load(kafka, stream_input.part(half, None), N / 48) as load:
        for kill in range(3):
            with Worker("score", kafka, bundle=store.root) as worker:
                time.sleep(rng.uniform(0.1, 2.5))
                if kill == 0:
                    store.promote(versions[1], "", "test", "better")
                    time.sleep(rng.uniform(0.9, 1.4))  # about when the worker switches to it
                worker.kill()
        with Worker("score", kafka, bundle=store.root):
            while load.running:
                time.sleep(0.2)
            settle(kafka)

    async def compare() -> None:
        logs = await _logs(kafka, PROFILED, DECISIONS)
        by_old, by_new = [await _decided_by(load_bundle(store.folder(version)), logs[PROFILED]) for version in versions]
        made = {record.value for records in logs[DECISIONS].values() for record in records}
        seen = set()
        for partition in by_old:
            both = list(zip(by_old[partition], by_new[partition], strict=True))
            was_old = [old in made for old, _ in both]
            is_new = [new in made for _, new in both]
            twice = sum(a and b for a, b in zip(was_old, is_new, strict=True))
            never = sum(not (a or b) for a, b in zip(was_old, is_new, strict=True))
            assert (twice, never) == (0, 0), f"number of {len(both)} transactions decided by both bundles, and by neither"
            assert was_old == sorted(was_old, reverse=True), "the old bundle decided after the new one"
            seen |= set(was_old)
            made -= {value for pair in both for value in pair}
        assert seen == {True, False}, "only one of the bundles made decisions, so the test proves nothing"
        assert not made
        stage = ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
        for partition, records in logs[PROFILED].items():
            await stage.process([Chunk(PROFILED, partition, records)])
            stage.states[partition].changed()
            checkpoint, state = (await _restored(kafka, stage))[partition]
            assert checkpoint.bundle == versions[1]
            assert checkpoint.digest == state.digest == stage.states[partition].digest

    asyncio.run(compare())


@pytest.mark.parametrize("before", ["nothing", "an orderly stop"])
def test_first_epoch_decisions_are_repeated_by_the_same_bundle_after_a_promotion(
    kafka, short_input, bundle_dir, other_bundle_dir, tmp_path, before
):
    """A worker is killed before its first regular checkpoint, and a new champion is promoted before the restart."""
    store = BundleStore(tmp_path / "store")
    versions = [store.add(bundle_dir), store.add(other_bundle_dir)]
    store.promote(versions[0], "", "test", "first")
    slow = structs.replace(kafka, checkpoint_seconds=600)
    if before == "an orderly stop":
        with Load(kafka, short_input.part(0, 300), 0), Worker("score", kafka, bundle=store.root):
            collect(kafka, {DECISIONS: 100})
            settle(kafka)
    done = len(collect(kafka, {DECISIONS: 0})[DECISIONS])
    with Load(kafka, short_input.part(300, 600), 0):
        pass
    with Worker("score", slow, bundle=store.root) as worker:
        collect(kafka, {DECISIONS: done + 100})
        worker.kill()
    store.promote(versions[1], "", "test", "better")
    with Worker("score", kafka, bundle=store.root):
        settle(kafka)
        with Load(kafka, short_input.part(600, 800), 0):
            pass
        settle(kafka)
    decided = defaultdict(set)
    for records in asyncio.run(_logs(kafka, DECISIONS))[DECISIONS].values():
        for record in records:
            decided[decode_decision(record.value).transaction_id].add(decode_decision(record.value).bundle)
    assert all(len(bundles) == 1 for bundles in decided.values())
    assert {bundle for bundles in decided.values() for bundle in bundles} == set(versions)


def _finish(kafka: Settings, load: Load, bundle: Bundle, bundle_dir: Path) -> dict[str, int]:
    """Run a worker to the end of the input, stop it cleanly and check all its output."""
    with Worker("score", kafka, bundle=bundle_dir):
        while load.running:
            time.sleep(0.2)
        settle(kafka)
    return check(kafka, bundle)


# Where a worker is killed: the module, the method, and whether ``before`` or ``after`` the n-th call of that method
STEPS = {
    "before the outputs are published": ("streams.kafka.publishing", "Publisher.send", "before"),
    "after the outputs are put on their way": ("streams.kafka.publishing", "Publisher.send", "after"),
    "after outputs are acknowledged": ("streams.kafka.publishing", "PartitionWriter._acknowledged", "after"),
    "before a checkpoint": ("streams.checkpoints", "CheckpointLog.write", "before"),
    "between rows and marker": ("streams.checkpoints", "CheckpointLog._append", "after"),
    "before the commit": ("aiokafka", "AIOKafkaProducer.commit_transaction", "before"),
    "after the commit": ("aiokafka", "AIOKafkaProducer.commit_transaction", "after"),
    "during a restore": ("streams.checkpoints", "CheckpointLog.read", "before"),
}


@pytest.mark.parametrize("step", STEPS)
def test_kill_9_at_a_step(kafka, short_input, bundle, bundle_dir, tmp_path, step):
    module, name, when = STEPS[step]
    owner, method = name.split(".")
    # a worker that keeps up with the load publishes more often than it writes checkpoints, and it restores eight partitions
    first, last = (3, 6) if "restore" in step else (4 + PARTITIONS, 10 + PARTITIONS)
    if module == "streams.kafka.publishing":
        first, last = (
            (2, 5) if "put on their way" in step or "published" in step else (15, 40)
        )  # a batch is sent once, to many partitions
    (tmp_path / "sitecustomize.py").write_text(
        "import os, random, signal\n"
        f"import {module} as module\n"
        f"original = module.{owner}.{method}\n"
        f"left = random.Random(1).randint({first}, {last})\n"
        "async def dying(self, *args, **kwargs):\n"
        "    global left\n"
        "    left -= 1\n"
        f"    if left <= 0 and {when == 'before'}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    result = await original(self, *args, **kwargs)\n"
        "    if left <= 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return result\n"
        f"module.{owner}.{method} = dying\n"
    )
    with Load(kafka, short_input, 1000) as load:
        with Worker("score", kafka, bundle=bundle_dir, environment={"PYTHONPATH": f"{tmp_path}:."}, ready=False) as worker:
            status, output = worker.ended()
            assert status == -9, output
        twice = _finish(kafka, load, bundle, bundle_dir)
    if step == "after outputs are acknowledged":
        assert twice[PROFILED] + twice[DECISIONS] > 0


def test_records_that_faust_fetched_and_dropped_are_read_again(kafka, short_input, bundle, bundle_dir, tmp_path):
    """Even the last record of a partition is read again, although no later record reveals the gap."""
    (tmp_path / "sitecustomize.py").write_text(
        "import random\n"
        "from streams.operator import Operator\n"
        "original, rng = Operator.handle, random.Random(1)\n"
        "async def forgetful(self, chunk):\n"
        "    if rng.random() < 0.6: return await original(self, chunk)\n"
        "Operator.handle = forgetful\n"
    )
    with Load(kafka, short_input, 0):
        pass
    small = Settings(**{**_fields(kafka), "max_poll_records": 100})
    with Worker("score", small, bundle=bundle_dir, environment={"PYTHONPATH": f"{tmp_path}:."}) as worker:
        settle(kafka)
        assert "is read again from" in worker.printed()
    assert not any(check(kafka, bundle).values())


def test_sigterm_in_the_middle_reprocesses_nothing(kafka, short_input, bundle, bundle_dir):
    with Load(kafka, short_input, 600) as load:
        for _ in range(2):
            with Worker("score", kafka, bundle=bundle_dir) as worker:
                time.sleep(1.5)
                began = time.monotonic()
                worker.stop()
                assert time.monotonic() - began < 10
        twice = _finish(kafka, load, bundle, bundle_dir)
    assert not any(twice.values())


def test_workers_come_and_go_under_load(kafka, short_input, bundle, bundle_dir):
    """Scale from one worker to three and back: partitions move with their state, and a clean move repeats nothing."""
    with Load(kafka, short_input, 350) as load:
        with Worker("score", kafka, bundle=bundle_dir):
            time.sleep(1)
            with Worker("score", kafka, bundle=bundle_dir):
                time.sleep(1)
                with Worker("score", kafka, bundle=bundle_dir):
                    time.sleep(3)
            time.sleep(1)
            while load.running:
                time.sleep(0.2)
            settle(kafka)
        twice = check(kafka, bundle)
    assert not any(twice.values())


def test_a_paused_worker_wakes_up_as_a_zombie(kafka, short_input, bundle, bundle_dir):
    with Load(kafka, short_input, 300) as load:
        with Worker("score", kafka, bundle=bundle_dir) as zombie:
            time.sleep(1.5)
            zombie.pause()
            with Worker("score", kafka, bundle=bundle_dir):
                time.sleep(3)  # the second worker takes over and writes checkpoints
                zombie.resume()
                time.sleep(3)
                zombie.kill()
                while load.running:
                    time.sleep(0.2)
                settle(kafka)
        check(kafka, bundle)


@pytest.fixture
def own_kafka(tmp_path):
    """Start a cluster that only this test uses and may damage."""
    needs("java"), needs("mvn")
    with KafkaCluster(tmp_path / "kafka") as cluster:
        settings = Settings(kafka_bootstrap=cluster.bootstrap, session_seconds=3, checkpoint_seconds=0.3)
        create_topics(settings, partitions=PARTITIONS, replication=1)
        yield cluster, settings


def _killed(cluster: KafkaCluster, node: Node, seconds: float) -> None:
    node.kill()
    time.sleep(seconds)
    node.start()
    cluster.wait()


def _paused(cluster: KafkaCluster, node: Node, seconds: float) -> None:
    node.pause()
    time.sleep(seconds)
    node.resume()


def _full(cluster: KafkaCluster, node: Node, seconds: float) -> None:
    """Forbid the broker to grow its files, so that it stops as on a full disk; restart it without the limit after ``seconds``."""
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    assert node.process.wait(60) != 0
    time.sleep(seconds)
    node.start()
    cluster.wait()


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [(_paused, [5, 5]), (_killed, [3] * (5 if LONG else 2)), (_full, [1])] + ([(_killed, [60])] if LONG else []),
    ids=lambda value: value.__name__.strip("_") if callable(value) else f"{value[0]} s, {len(value)} times",
)
def test_a_worker_survives_a_broker_outage(own_kafka, short_input, bundle, bundle_dir, fault, seconds):
    """The worker survives the outage in bounded memory, reconnects and continues."""
    cluster, kafka = own_kafka
    (node,) = cluster.nodes
    with Load(kafka, short_input, 0):
        pass
    slow = Settings(**{**_fields(kafka), "max_poll_records": 20})
    with Worker("score", slow, bundle=bundle_dir) as worker:
        before = worker.memory
        for away in seconds:
            time.sleep(1.0)
            fault(cluster, node, away)
        settle(kafka)
        assert worker.process.poll() is None
        assert worker.memory < before + 200
    check(kafka, bundle)


def test_sigterm_while_the_broker_is_away_ends_the_worker_and_loses_nothing(own_kafka, short_input, bundle, bundle_dir):
    """The worker exits before Kubernetes would kill it; input whose output Kafka has not accepted is read again."""
    cluster, kafka = own_kafka
    with Load(kafka, short_input, 0):
        pass
    slow = Settings(**{**_fields(kafka), "max_poll_records": 20})
    with Worker("score", slow, bundle=bundle_dir) as worker:
        time.sleep(1.5)
        cluster.nodes[0].pause()
        time.sleep(1.0)
        worker.process.terminate()
        status, output = worker.ended(29)
        cluster.nodes[0].resume()
    assert status == 70, output
    assert "Kafka has not accepted the pending writes" in output
    with Worker("score", kafka, bundle=bundle_dir):
        settle(kafka)
    check(kafka, bundle)


@pytest.mark.parametrize("outage", ["pause", "kill"])
def test_an_explainer_without_kafka_is_not_ready_and_exits_in_time(own_kafka, bundle_dir, tmp_path, outage):
    """Kubernetes sends it no traffic and need not kill it, because it exits on SIGTERM."""
    cluster, kafka = own_kafka
    with Worker(
        "explain",
        kafka,
        bundle=bundle_dir,
        database=f"sqlite:///{tmp_path}/queue.db",
        environment={"WHYFLAG_BROKER_SILENCE_SECONDS": "2"},
    ) as worker:
        getattr(cluster.nodes[0], outage)()
        deadline, answer = time.monotonic() + 20, ""
        while time.monotonic() < deadline and "Kafka" not in answer:
            time.sleep(0.2)
            try:
                worker.get("ready")
            except urllib.error.HTTPError as refused:
                answer = refused.read().decode()
        assert "no answer for 2 s from: Kafka" in answer
        assert worker.get("live") == "live\n"
        began = time.monotonic()
        worker.process.terminate()
        status, output = worker.ended(25)
        if outage == "pause":
            cluster.nodes[0].resume()
    assert time.monotonic() - began < 25
    assert status in (0, 70)
    assert "Traceback" not in output


class ArchiveDatabase:
    """A separate database in the system's PostgreSQL that can be made to refuse connections."""

    def __init__(self, server: str) -> None:
        self._admin = create_engine(server, isolation_level="AUTOCOMMIT")
        self.url = make_url(server).set(database="archive").render_as_string(hide_password=False)
        self._run("CREATE DATABASE archive")

    def _run(self, *statements: str) -> None:
        with self._admin.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def refuse(self) -> None:
        self._run(
            "ALTER DATABASE archive ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'archive'",
        )

    def allow(self) -> None:
        self._run("ALTER DATABASE archive ALLOW_CONNECTIONS true")

    def rows(self, table: Table) -> list:
        engine = create_engine(self.url)
        with engine.connect() as connection:
            found = connection.execute(table.select()).all()
        engine.dispose()
        return found

    def drop(self) -> None:
        self._run("DROP DATABASE archive WITH (FORCE)")
        self._admin.dispose()


@pytest.fixture
def archive_database(postgres):
    database = ArchiveDatabase(postgres)
    yield database
    database.drop()


def test_the_archive_has_every_record_once_after_kills_and_an_outage_of_its_database(kafka, short_input, archive_database):
    """The worker is killed while storing, stopped by an outage and restarted; it stores every valid record exactly once."""

    def stored() -> Counter:
        return Counter(
            (table.name.removeprefix("archived_"), row.source_partition, row.source_offset)
            for table in (archived_transactions, archived_labels)
            for row in archive_database.rows(table)
        )

    def worker(ready: bool = True) -> Worker:
        return Worker(
            "archive", kafka, ready=ready, environment={"WHYFLAG_ARCHIVE": archive_database.url, "WHYFLAG_DATABASE": "sqlite://"}
        )

    # three starts take up to 15 s: the load must still run when the database goes away
    with Load(kafka, short_input, 120):
        for seconds in (0.3, 1.1):
            with worker() as killed:
                time.sleep(seconds)
                killed.kill()
        with worker() as stopped:
            time.sleep(0.5)
            archive_database.refuse()
            status, output = stopped.ended(60)
        assert status == 70, output
        assert "the archive's database does not answer" in output
        archive_database.allow()
    logs = asyncio.run(_logs(kafka, TRANSACTIONS, LABELS))
    wanted = Counter()
    for topic, decode in ((TRANSACTIONS, decode_transaction), (LABELS, decode_label)):
        for partition, records in logs[topic].items():
            for record in records:
                try:
                    decoded = decode(record.value, Privacy())
                except InvalidEvent:
                    continue
                if not is_ahead(decoded.event_time, record.timestamp):
                    wanted[topic, partition, record.offset] += 1
    assert sum(wanted.values()) > 2_000
    with worker():
        deadline = time.monotonic() + 60
        while stored().total() < wanted.total() and time.monotonic() < deadline:
            time.sleep(0.5)
    assert stored() == wanted


def test_one_broker_of_three_is_killed(tmp_path, short_input, bundle, bundle_dir):
    """A production setup: three replicas, two of which must have each write, so that no write waits for the killed broker."""
    needs("java"), needs("mvn")
    with KafkaCluster(tmp_path / "kafka", nodes=3) as cluster:
        kafka = Settings(kafka_bootstrap=cluster.bootstrap, session_seconds=3, checkpoint_seconds=0.3)
        create_topics(kafka, partitions=PARTITIONS)
        assert create_topics(kafka, partitions=PARTITIONS, replication=3).differences == [], "three brokers: three replicas"
        fewer = "\n".join(create_topics(kafka, partitions=PARTITIONS, replication=1).differences)
        assert "replicas is 3, not 1" in fewer
        assert "min.insync.replicas is 2, not 1" in fewer
        with Load(kafka, short_input, 200) as load, Worker("score", kafka, bundle=bundle_dir) as worker:
            for node in cluster.nodes[: 3 if LONG else 2]:
                time.sleep(2.0)
                _killed(cluster, node, 4.0)
            while load.running:
                time.sleep(0.2)
            settle(kafka)
            assert worker.process.poll() is None
        check(kafka, bundle)


@pytest.mark.parametrize("which", ["checkpoint", "group"])
def test_a_commit_fails(kafka, short_input, bundle, bundle_dir, tmp_path, which):
    """A failed commit of a checkpoint ends the worker; a failed commit of the group's positions loses nothing."""
    owner, method = {
        "checkpoint": ("AIOKafkaProducer", "commit_transaction"), "group": ("AIOKafkaConsumer", "commit"),
    }[which]  # fmt: skip
    (tmp_path / "sitecustomize.py").write_text(
        "import aiokafka, aiokafka.errors\n"
        f"original, left = aiokafka.{owner}.{method}, {3 + PARTITIONS}\n"  # each restore writes a first checkpoint
        "async def failing(self, *args, **kwargs):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0: raise aiokafka.errors.KafkaError('it fails on purpose')\n"
        "    return await original(self, *args, **kwargs)\n"
        f"aiokafka.{owner}.{method} = failing\n"
    )
    with Load(kafka, short_input, 600) as load:
        with Worker("score", kafka, bundle=bundle_dir, environment={"PYTHONPATH": f"{tmp_path}:."}) as worker:
            if which == "checkpoint":
                status, output = worker.ended()
                assert status == 70
                assert "on purpose" in output
            else:
                time.sleep(4)
                worker.kill()
        _finish(kafka, load, bundle, bundle_dir)


def test_one_card_makes_half_of_the_traffic(kafka, world, bundle, bundle_dir):
    made = Input(world, 6_000, seed=2, hot=0.5)
    with Load(kafka, made, 1500) as load:
        with Worker("score", kafka, bundle=bundle_dir) as worker:
            time.sleep(2)
            worker.kill()
        _finish(kafka, load, bundle, bundle_dir)


def test_a_burst_of_five_times_the_rate(kafka, world, bundle, bundle_dir):
    """The backlog stays in Kafka, not in the worker's memory, and is processed within a minute."""
    usual, burst = 150.0, 60 if LONG else 10
    made = Input(world, int(usual * 10 + 5 * usual * burst), seed=4)
    calm, rest = made.part(0, int(10 * usual)), made.part(int(10 * usual), None)
    with Worker("score", kafka, bundle=bundle_dir) as worker:
        with Load(kafka, calm, usual):
            pass
        before = worker.memory
        with Load(kafka, rest, 5 * usual):
            pass
        settle(kafka, 60)
        assert worker.memory < before + 200
    check(kafka, bundle)


def test_memory_does_not_grow_with_time(kafka, world, bundle, bundle_dir):
    """Soak test with the same cards for a long time: state drops expired transactions, and nothing else accumulates."""
    seconds, rate = (600, 1000.0) if LONG else (30, 1500.0)
    made = Input(world, 20_000, seed=5)
    with Worker("score", kafka, bundle=bundle_dir) as worker:
        begin, sizes, lap = time.monotonic(), [], 0
        while (now := time.monotonic() - begin) < seconds or len(sizes) < 4:
            with Load(kafka, made.later(15 * DAY * lap, f"-{lap}"), rate):
                pass
            lap += 1
            sizes.append((now, worker.memory))
        settle(kafka, 120)
        warm = sizes[len(sizes) // 2 :]
        slope = np.polyfit(*np.array(warm).T, 1)[0] * 60
        print(f"memory: {sizes[-1][1]:.0f} MB after {lap} laps, slope over the second half {slope:.1f} MB a minute")
        assert warm[-1][1] - warm[0][1] < 30
    check(kafka, bundle)


@pytest.fixture
def proxied_kafka(tmp_path):
    """Start a cluster that only this test uses; all clients connect through a proxy."""
    needs("java"), needs("mvn")
    (port,) = free_ports(1)
    cluster = KafkaCluster(tmp_path / "kafka", advertised=[port])
    with Proxy(port, cluster.nodes[0].port) as proxy, cluster:
        settings = Settings(kafka_bootstrap=cluster.bootstrap, session_seconds=3, checkpoint_seconds=0.3, max_poll_records=20)
        create_topics(settings, partitions=PARTITIONS, replication=1)
        yield proxy, settings


def test_connections_are_cut_and_delayed_and_replies_are_lost(proxied_kafka, short_input, bundle, bundle_dir):
    """A write whose acknowledgement is lost is stored once, because the producer is idempotent."""
    proxy, kafka = proxied_kafka
    with Load(kafka, short_input, 0):
        pass
    with Worker("score", kafka, bundle=bundle_dir) as worker:
        for _ in range(5):
            time.sleep(0.5)
            proxy.cut()
        proxy.delay = 0.05
        time.sleep(2)
        proxy.delay = 0.0
        for _ in range(3):
            proxy.swallow_replies = True
            time.sleep(0.3)
            proxy.cut()
            proxy.swallow_replies = False
            time.sleep(0.5)
        settle(kafka)
        assert worker.process.poll() is None
    check(kafka, bundle)


def test_dead_letters_that_cannot_be_written_stop_the_stream_and_lose_nothing(kafka, short_input, bundle, bundle_dir):
    admin = KafkaAdminClient(bootstrap_servers=kafka.kafka_bootstrap)
    try:
        with Load(kafka, short_input, 0):
            admin.delete_topics([DEAD_LETTERS])
            while DEAD_LETTERS in admin.list_topics():  # a letter written before then would be deleted with the topic
                time.sleep(0.1)
            time.sleep(0.5)
        with Worker("score", kafka, bundle=bundle_dir) as worker:
            time.sleep(3)
            assert worker.process.poll() is None
            create_topics(kafka, partitions=PARTITIONS, replication=1)
            settle(kafka)
    finally:
        admin.close()
    check(kafka, bundle)


def _fields(settings: Settings) -> dict:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


# -- what a worker refuses ----------------------------------------------------------------------------------------------------------


def _fed(kafka: Settings, made: Input, bundle_dir: Path, count: int = 400) -> None:
    sender = Sender(kafka, 0)
    for topic, key, value in made.records[:count]:
        sender.send(topic, key, value)
    sender.close()
    with Worker("score", kafka, bundle=bundle_dir):
        settle(kafka)


def _refusal(kafka: Settings, bundle_dir: Path) -> str:
    with Worker("score", kafka, bundle=bundle_dir, ready=False) as worker:
        status, output = worker.ended()
    assert status == 70, output
    assert "Traceback" not in output
    return output


def test_another_feature_spec_is_refused_until_the_state_is_rebuilt(kafka, short_input, world, bundle_dir, tmp_path):
    _fed(kafka, short_input, bundle_dir)
    other = tmp_path / "other"
    train(
        transactions_file(world), structs.replace(default_spec(), rates={"USD": 0.9}), labels=world / "labels.parquet", alerts_per_day=30, label_delay_ms=5 * DAY,
        out=other, seed=1, privacy=Privacy(), progress=NoProgress(), recipe=Recipe(rounds=40),
    )  # fmt: skip
    assert "whyflag state rebuild" in _refusal(kafka, other)
    done = _whyflag(kafka, "state", "rebuild", "--bundle", other)
    assert done.returncode == 0, done.stderr
    _fed(kafka, short_input, other, 700)
    decisions = asyncio.run(_logs(kafka, DECISIONS))[DECISIONS]
    versions = defaultdict(list)
    for records in decisions.values():
        for record in records:
            versions[(decided := decode_decision(record.value)).bundle].append(decided.transaction_id)
    assert len(versions) == 2
    ids = [transaction_id for decided in versions.values() for transaction_id in decided]
    assert len(set(ids)) == len(ids), "transactions that the old bundle had decided were decided again"


def test_a_rebuilt_state_equals_the_original(kafka, short_input, bundle, bundle_dir):
    """A log with a damaged row is refused; the rebuilt state is bit-identical to the original, and the stream continues."""
    _fed(kafka, short_input, bundle_dir)
    stage = ProfileStage(bundle.spec, Privacy())
    before = {p: state.digest for p, (_, state) in asyncio.run(_restored(kafka, stage)).items()}

    async def damage():
        log = CheckpointLog(Connection(kafka.kafka_bootstrap), stage.checkpoints, 0)
        await log.claim()
        state = stage.new_state()
        checkpoint = await log.read(state.load)
        state.engines[0]._state.dirty[:1] = 1
        key, row = state.changed()[0]
        await log.write([(key, row[:8] + bytes(8) + row[16:])], checkpoint)
        await log.close()

    asyncio.run(damage())
    assert "damaged" in _refusal(kafka, bundle_dir)
    assert _whyflag(kafka, "state", "rebuild", "--bundle", bundle_dir, "--partition", 0).returncode == 0
    assert {p: state.digest for p, (_, state) in asyncio.run(_restored(kafka, stage)).items()} == before
    _fed(kafka, short_input, bundle_dir, 600)


def test_a_garbage_record_in_a_log_affects_only_the_row_it_replaces(kafka, short_input, bundle, bundle_dir):
    """Records that belong to no checkpoint are skipped; if one replaces a row, only that partition has to be rebuilt."""
    stage = ProfileStage(bundle.spec, Privacy())
    _fed(kafka, short_input, bundle_dir, 600)
    before = {p: state.digest for p, (_, state) in asyncio.run(_restored(kafka, stage)).items()}

    async def written(key, value):
        async with AIOKafkaProducer(bootstrap_servers=kafka.kafka_bootstrap) as producer:
            await producer.send_and_wait(stage.checkpoints, value, key=key, partition=1)

    for key in (b"\x00" * 10, b"marker", b"foreign", b"\x00" + b"\x07" * 9):  # Kafka itself rejects a missing key
        asyncio.run(written(key, b"torn"))
    assert {p: state.digest for p, (_, state) in asyncio.run(_restored(kafka, stage)).items()} == before
    with Worker("score", kafka, bundle=bundle_dir) as worker:  # continues, and writes after the garbage
        assert "belong to no checkpoint" in worker.stop()
    checkpoint, state = asyncio.run(_restored(kafka, stage))[1]
    key = state.engines[0]._state.keys[0].tobytes()
    asyncio.run(written(bytes([checkpoint.lineage, 0]) + key, b"torn torn torn"))
    with Worker("score", kafka, bundle=bundle_dir) as worker:  # the garbage follows the last marker: no error yet
        worker.stop()
    assert "whyflag state rebuild --partition 1" in _refusal(kafka, bundle_dir)
    assert _whyflag(kafka, "state", "rebuild", "--bundle", bundle_dir, "--partition", 1).returncode == 0
    assert {p: state.digest for p, (_, state) in asyncio.run(_restored(kafka, stage)).items()} == before
    _fed(kafka, short_input, bundle_dir, 600)


def test_added_partitions_are_refused_until_the_state_is_rebuilt(kafka, short_input, world, bundle_dir):
    _fed(kafka, short_input, bundle_dir)
    admin = KafkaAdminClient(bootstrap_servers=kafka.kafka_bootstrap)
    try:
        admin.create_partitions({TRANSACTIONS: NewPartitions(PARTITIONS + 2)})
        assert "same number of partitions" in _refusal(kafka, bundle_dir)
        for topic in TOPICS:
            if topic.name != TRANSACTIONS:
                admin.create_partitions({topic.name: NewPartitions(PARTITIONS + 2)})
    finally:
        admin.close()
    assert "Adding partitions" in _refusal(kafka, bundle_dir)
    history = ("--history", world / "transactions.parquet", "--labels", world / "labels.parquet")
    done = _whyflag(kafka, "state", "rebuild", "--bundle", bundle_dir, *history)
    assert done.returncode == 0, done.stderr
    with Worker("score", kafka, bundle=bundle_dir) as worker:
        time.sleep(2)
        assert "whyflag_records_total{" not in worker.get("metrics"), "transactions that were already decided were read again"


def test_a_recreated_topic_is_refused(kafka, short_input, bundle_dir):
    _fed(kafka, short_input, bundle_dir)
    admin = KafkaAdminClient(bootstrap_servers=kafka.kafka_bootstrap)
    try:
        admin.delete_topics([TRANSACTIONS])
        time.sleep(1)
    finally:
        admin.close()
    create_topics(kafka, partitions=PARTITIONS, replication=1)
    assert "was recreated" in _refusal(kafka, bundle_dir)


def _took_over(worker: Worker) -> None:
    """Wait until the worker has restored all partitions of both stages."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = re.findall(r'^whyflag_restore_seconds_count\{stage="(\w+)"\} (\d+)', worker.get("metrics"), re.M)
        if sorted(stage for stage, count in told if int(count) >= PARTITIONS) == ["profile", "score"]:
            return
        time.sleep(0.2)
    raise AssertionError("the worker did not take over all partitions")


def test_another_bundle_is_refused_until_the_crashed_one_has_stopped_cleanly(kafka, short_input, world, bundle_dir, tmp_path):
    other = tmp_path / "other"
    train(
        transactions_file(world), default_spec(), labels=world / "labels.parquet", alerts_per_day=10, label_delay_ms=5 * DAY,
        out=other, seed=2, privacy=Privacy(), progress=NoProgress(),
    )  # fmt: skip
    with Load(kafka, short_input, 500):
        with Worker("score", kafka, bundle=bundle_dir) as worker:
            time.sleep(2)
            worker.kill()
        assert "start a worker with that bundle once" in _refusal(kafka, other)
        with Worker("score", kafka, bundle=bundle_dir) as worker:
            _took_over(worker)
            time.sleep(3)  # ten checkpoints: enough to decide and write what the killed worker had begun
        with Worker("score", kafka, bundle=other) as worker:  # after a clean stop, the new bundle may start
            _took_over(worker)
