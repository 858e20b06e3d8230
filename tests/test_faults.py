"""
Faults on Apache Kafka: whatever happens to workers and brokers, every decision and the final state are those of a single-threaded
replay of the same input. Nothing is lost, and a record that came twice is the same record.
"""

import asyncio
import json
import os
import random
import threading
import time
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from core.messages import decode_decision, encode
from core.settings import Settings
from core.topics import ALERTS, DEAD_LETTERS, DECISIONS, LABELS, PROFILED, TRANSACTIONS
from models.bundle import Bundle
from models.features.spec import default_spec
from streams.checkpoints import Checkpoint, CheckpointLog
from streams.clients import Sender, create_topics
from streams.profile import ProfileStage
from streams.score import ScoreStage
from streams.state import PartitionState
from tests.conftest import DAY
from tests.workers import Worker
from training.mapping import load_mapping
from training.readers import TransactionFile, read_labels
from training.replay import transactions_of

pytestmark = pytest.mark.system

PARTITIONS = 4
KILLS = int(os.environ.get("WHYFLAG_FAULT_KILLS", "6"))  # `make test-faults` sets 50
N = 20_000


class Input:
    """Transactions of the world with labels, duplicates, disorder and poison among them, as (topic, key, value)."""

    def __init__(self, world: Path, count: int, seed: int = 0) -> None:
        rng = random.Random(seed)
        table = pq.read_table(world / "transactions.parquet").slice(0, count)
        path = world / f"first-{count}.parquet"
        pq.write_table(table, path)
        transactions = list(transactions_of(TransactionFile(path, load_mapping("whyflag"))))
        labels = iter(read_labels(world / "labels.parquet"))
        self.records: list[tuple[str, bytes, bytes | None]] = []
        late: list = []
        for transaction in transactions:
            kind = rng.random()
            if kind < 0.05:
                late.append(transaction)  # out of order: up to some hundred later
                continue
            self._add(TRANSACTIONS, transaction)
            if kind < 0.15:
                self.records.append(rng.choice(self.records[-300:]))  # a duplicate
            elif kind < 0.16:
                self.records.append((TRANSACTIONS, rng.randbytes(4), self._poison(rng, transaction)))
            elif kind < 0.20 and (label := next(labels, None)):
                self._add(LABELS, label)
            if late and rng.random() < 0.05:
                self._add(TRANSACTIONS, late.pop(rng.randrange(len(late))))
        for transaction in late:
            self._add(TRANSACTIONS, transaction)

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
        return rng.choice(
            (
                None,
                b"",
                b"\x00" * 50,
                b"x" * 900_000,
                b'{"a":' * 3000,
                whole[:-2],
                whole.replace(b"{", b"[", 1),
                b'{"amount": NaN}',
            )
            + (json.dumps(strange).encode(),) * 4
        )


@pytest.fixture(scope="module")
def stream_input(world) -> Input:
    return Input(world, N)


@pytest.fixture
def kafka(apache) -> Settings:
    create_topics(apache, partitions=PARTITIONS, replication=1)
    return Settings(kafka_bootstrap=apache.kafka_bootstrap, session_seconds=3, checkpoint_seconds=0.3)


class Load:
    """``with Load(...)``: a thread that writes the input at a rate; the block ends when all is written."""

    def __init__(self, kafka: Settings, made: Input, rate: float) -> None:
        self._kafka, self._made, self._rate = kafka, made, rate
        self._thread = threading.Thread(target=self._run)
        self.error: Exception | None = None

    def _run(self) -> None:
        try:
            sender = Sender(self._kafka, self._rate)
            for topic, key, value in self._made.records:
                sender.send(topic, key, value)
            sender.close()
        except Exception as error:
            self.error = error

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
    """All records of topics as they are now, by partition."""
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
        found[partition] = (await CheckpointLog(kafka.kafka_bootstrap, stage.checkpoints, partition).read(state.load), state)
    return found


def settle(kafka: Settings, seconds: float = 120) -> None:
    """Until the checkpoints say that everything is processed."""

    async def done() -> bool:
        logs = await _logs(kafka, TRANSACTIONS, LABELS, PROFILED)
        for stage in (ProfileStage(default_spec(), b""), ScoreStage(default_spec(), None)):
            for partition, (checkpoint, _) in (await _restored(kafka, stage)).items():
                for topic in stage.topics:
                    records = logs[topic][partition]
                    end = records[-1].offset + 1 if records else 0
                    if end > (checkpoint.positions[topic] if checkpoint else 0):
                        return False
        return True

    deadline = time.monotonic() + seconds
    while not asyncio.run(done()):
        assert time.monotonic() < deadline, "the workers did not come to the end in time"
        time.sleep(0.5)


def check(kafka: Settings, bundle: Bundle) -> dict[str, int]:
    """
    Compare what the workers made with a single-threaded run of the same stages over the same logs.

    The first hop is run over the transactions of each partition, the second over what the first hop's topic holds: its order across
    cards is the merchant's order of events. Returns how many records came twice, by topic. All workers have stopped in order.
    """

    async def compare() -> dict[str, int]:
        logs = await _logs(kafka, TRANSACTIONS, LABELS, PROFILED, DECISIONS, ALERTS, DEAD_LETTERS)
        expected = defaultdict(list)
        stages = ProfileStage(bundle.spec, b""), ScoreStage(bundle.spec, bundle)
        for stage in stages:
            for topic in stage.topics:
                for partition, records in logs[topic].items():
                    for begin in range(0, len(records), 1000):
                        for output in await stage.process(topic, partition, records[begin : begin + 1000]):
                            expected[output.topic].append(output.value)
        twice = {}
        for topic, values in expected.items():
            made = [record.value for partition in logs[topic].values() for record in partition]
            lost, extra = set(values) - set(made), set(made) - set(values)
            assert not lost, f"{len(lost)} of {len(values)} {topic} are missing: {sorted(lost)[:2]}"
            assert not extra, f"{len(extra)} {topic} are there that should not be: {sorted(extra)[:2]}"
            assert len(set(values)) == len(values)
            twice[topic] = len(made) - len(values)
        ids = [decode_decision(value).transaction_id for value in expected[DECISIONS]]
        assert len(set(ids)) == len(ids) > 0
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
    print("came twice:", twice)
    assert twice[PROFILED] > 0, "no crash made anything come twice: the test proves nothing"
