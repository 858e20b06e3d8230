"""
The operator in this process, on a scripted Kafka: it crashes at every step and resumes, and no decision is lost, changed or made twice.

``test_faults.py`` proves the same with real processes on Apache Kafka; these tests take seconds and enumerate the steps.
"""

import asyncio
from functools import partial
from itertools import islice

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, NodeNotReadyError, ProducerFenced
from hypothesis import given
from hypothesis import strategies as st

from core.errors import StateError
from core.messages import decode_alert, decode_decision, encode
from core.privacy.masking import Privacy
from core.topics import ALERTS, DEAD_LETTERS, DECISIONS, LABELS, PROFILED, TRANSACTIONS
from models.scorer import Decider
from streams.kafka.publishing import partition_of
from streams.operator import Operator
from streams.recovery import CheckpointLogs
from streams.stages.decider_sources import SingleDecider
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage
from streams.stages.stage import Chunk
from tests.conftest import transactions_file
from tests.strategies import examples
from tests.streams.rows import single_rows
from tests.streams.scripted import Crash, Kafka, Log, Process, Source
from training.data.readers import read_labels
from training.replay import transactions_of

PARTITIONS = 2


@pytest.fixture(scope="module")
def records(world):
    """Records for the input topics: transactions, one of them twice, some labels, and one that nobody can decode."""
    transactions = list(islice(transactions_of(transactions_file(world)), 40))
    made = [(TRANSACTIONS, one.card_id.encode(), encode(one)) for one in transactions]
    made.insert(12, made[3])
    made.insert(20, (TRANSACTIONS, b"poison", b"{"))
    labels = read_labels(world / "labels.parquet")[:4]
    return made[:25] + [(LABELS, one.card_id.encode(), encode(one)) for one in labels] + made[25:]


def kafka_with(records) -> Kafka:
    kafka = Kafka(PARTITIONS)
    for topic, key, value in records:
        kafka.append(topic, partition_of(key, PARTITIONS), key, value)
    return kafka


def operator_of(stage, process: Process) -> Operator:
    """Return an operator that ends an epoch after each batch."""
    return Operator(stage, process, CheckpointLogs(stage, process, partial(Log, process), 0.0), process.failed)


async def live(process: Process, bundle, size: int, stop: bool = True) -> None:
    """One life of a worker: both stages take turns until all is read, then stop in order. Raises Crash where the process dies."""
    stages = [
        ProfileStage(bundle.spec, Privacy()),
        ScoreStage(bundle.spec, SingleDecider(Decider(bundle))),
    ]
    operators = []
    for stage in stages:
        await stage.start(process)
        operator = operator_of(stage, process)
        source = Source(process.kafka, stage.topics, size)
        places = {(topic, partition) for topic in stage.topics for partition in range(PARTITIONS)}
        await operator.open(places, source)
        operators.append((operator, source))
    quiet = 0  # rounds in which there was nothing to read
    while quiet < 2:
        quiet += 1
        for operator, source in operators:
            if (chunk := source.next_chunk()) is None:
                continue
            await operator.handle(chunk)
            await asyncio.sleep(0)
            if process.errors:
                raise process.errors[0]
            quiet = 0
    if stop:
        for operator, _ in operators:
            await operator.stop()
    if process.errors:
        raise process.errors[0]


def run(kafka: Kafka, bundle, size: int, dies_at: int | None = None) -> None:
    try:
        asyncio.run(live(Process(kafka, dies_at), bundle, size))
    except BaseExceptionGroup as group:
        if not group.subgroup(Crash):
            raise
        raise Crash from None


def state_of(kafka: Kafka):
    """The digest and number of keys of each checkpoint log."""
    return {place: (checkpoint.digest, checkpoint.keys) for place, (_, checkpoint) in sorted(kafka.logs.items())}


def decided(kafka: Kafka):
    """Each decision by id; raises if two of a transaction differ."""
    found = {}
    for value in kafka.values(DECISIONS):
        one = decode_decision(value)
        assert found.setdefault(one.transaction_id, value) == value, "decided twice, differently"
    return found


def alerted(kafka: Kafka):
    return {decode_alert(value).alert_id: value for value in kafka.values(ALERTS)}


@pytest.fixture(scope="module")
def straight(records, bundle):
    """The run without a crash."""
    kafka = kafka_with(records)
    run(kafka, bundle, size=6)
    assert len(kafka.values(DECISIONS)) == len(decided(kafka)) == 40
    assert len(kafka.values(DEAD_LETTERS)) == 1
    assert all(checkpoint.clean for _, checkpoint in kafka.logs.values())
    return kafka


def check(kafka: Kafka, straight: Kafka, bundle) -> None:
    """
    Compare with the run without a crash, and with the second stage over this run's own log between the stages.

    Two cards of different partitions have no order at their merchant but the one that this log gives them.
    """
    assert {row for value in kafka.values(PROFILED) for row in single_rows(value)} == {
        row for value in straight.values(PROFILED) for row in single_rows(value)
    }
    stage = ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
    alone = Kafka(PARTITIONS)
    for partition in range(PARTITIONS):
        for output in asyncio.run(stage.process([Chunk(PROFILED, partition, kafka.topics[PROFILED, partition])])):
            for key, value in zip(output.keys, output.values, strict=True):
                alone.append(output.topic, partition, key, value)
        stage.state(partition).changed()
    assert decided(kafka) == decided(alone)
    assert decided(kafka).keys() == decided(straight).keys()
    assert alerted(kafka) == alerted(alone)
    assert set(kafka.values(DEAD_LETTERS)) == set(straight.values(DEAD_LETTERS))
    for (topic, partition), state in state_of(kafka).items():
        own = (stage.state(partition).digest, stage.state(partition).keys)
        assert state == (own if topic == stage.checkpoints else state_of(straight)[topic, partition])


def test_a_crash_at_any_step_loses_nothing_and_changes_no_decision(records, bundle, straight):
    assert straight.steps > 40
    for step in range(1, straight.steps + 1):
        kafka = kafka_with(records)
        with pytest.raises(Crash):
            run(kafka, bundle, size=6, dies_at=step)
        run(kafka, bundle, size=6)
        check(kafka, straight, bundle)


@examples(12)
@given(st.lists(st.tuples(st.integers(1, 25), st.integers(1, 9)), min_size=2, max_size=6))
def test_many_crashes_and_other_chunks_change_nothing(records, bundle, straight, lives):
    """Each life ends some steps after it began, and cuts its chunks differently."""
    kafka = kafka_with(records)
    for steps, size in lives:
        try:
            run(kafka, bundle, size, dies_at=kafka.steps + steps)
        except Crash:
            continue
        break
    run(kafka, bundle, size=4)
    check(kafka, straight, bundle)


def test_a_process_that_lost_its_log_to_another_stops_and_its_successor_decides_the_same(records, bundle, straight):
    """The first process never stops in order: its log is claimed while it still runs."""
    kafka = kafka_with(records)

    async def both() -> None:
        slow = Process(kafka)
        stage = ProfileStage(bundle.spec, Privacy())
        operator = operator_of(stage, slow)
        source = Source(kafka, stage.topics, 6)
        await operator.open({(topic, partition) for topic in stage.topics for partition in range(PARTITIONS)}, source)
        await operator.handle(source.next_chunk())
        await live(Process(kafka), bundle, 6)
        before = len(kafka.values(DECISIONS))
        while not slow.errors and (chunk := source.next_chunk()):
            await operator.handle(chunk)
            await asyncio.sleep(0.01)
        assert "another process has claimed the log" in str(slow.errors[0])
        assert len(kafka.values(DECISIONS)) == before

    asyncio.run(both())
    run(kafka, bundle, size=6)
    check(kafka, straight, bundle)


def opened(kafka: Kafka, bundle, monkeypatch, errors) -> list:
    """Open an operator whose first attempts meet the errors; return those that are left."""

    async def opening() -> None:
        process, stage = Process(kafka), ProfileStage(bundle.spec, Privacy())
        counts = process.counts

        async def fails_first(topics):
            if errors:
                raise errors.pop(0)
            return await counts(topics)

        monkeypatch.setattr(process, "counts", fails_first)
        monkeypatch.setattr("streams.operator._RETRY_SECONDS", 0.0)
        operator = operator_of(stage, process)
        await operator.open(
            {(topic, partition) for topic in stage.topics for partition in range(PARTITIONS)}, Source(kafka, stage.topics, 6)
        )
        assert len(operator.positions) == 2 * PARTITIONS

    asyncio.run(opening())
    return errors


def test_partitions_are_opened_when_kafka_answers_again(records, bundle, monkeypatch):
    """A broker that goes away while partitions are taken over after its last absence once ended the worker."""
    away = [
        KafkaError("no metadata"),
        KafkaConnectionError("closed"),
        ExceptionGroup("both", [KafkaTimeoutError(), NodeNotReadyError()]),
    ]
    assert opened(kafka_with(records), bundle, monkeypatch, away) == []


@pytest.mark.parametrize(
    "error",
    [ProducerFenced(), StateError("damaged"), ExceptionGroup("both", [KafkaConnectionError(), StateError("damaged")])],
    ids=repr,
)
def test_other_errors_end_the_worker_at_once(records, bundle, monkeypatch, error):
    later = KafkaConnectionError("never met")
    with pytest.raises(type(error)):
        opened(kafka_with(records), bundle, monkeypatch, errors := [error, later])
    assert errors == [later]


def test_an_outage_of_two_minutes_ends_the_worker(records, bundle, monkeypatch):
    monkeypatch.setattr("streams.operator._AWAY_SECONDS", 0.0)
    with pytest.raises(KafkaConnectionError):
        opened(kafka_with(records), bundle, monkeypatch, [KafkaConnectionError("away")])
