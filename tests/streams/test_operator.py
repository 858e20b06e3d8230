"""
The operator in this process, on a scripted Kafka: it crashes at every step and resumes, and no decision is lost, changed or made twice.

``test_faults.py`` proves the same with real processes on Apache Kafka; these tests take seconds and enumerate the steps.
"""

import asyncio
from functools import partial
from itertools import islice

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, ProducerFenced
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DeliveryError, StateError
from core.messages import decode_alert, decode_decision, encode
from core.privacy.masking import Privacy
from core.topics import ALERTS, DEAD_LETTERS, DECISIONS, LABELS, PROFILED, TRANSACTIONS
from models.scorer import Decider
from streams.kafka.publishing import Delivery, partition_of
from streams.operator import Operator
from streams.recovery import CheckpointLogs, MemoryLogs
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
        source = Source(process, stage.topics, size)
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
        source = Source(slow, stage.topics, 6)
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


@pytest.fixture
def at_once(monkeypatch):
    """Retries do not wait."""
    monkeypatch.setattr("streams.operator._RETRY_SECONDS", 0.0)


class Opened:
    """An operator of the first stage, with or without checkpoint logs, that has not been opened yet."""

    def __init__(self, kafka: Kafka, bundle, checkpoints: bool = True) -> None:
        self.process, self.stage, self.logs = Process(kafka), ProfileStage(bundle.spec, Privacy()), []
        kept = CheckpointLogs(self.stage, self.process, self._log, 1000.0) if checkpoints else MemoryLogs()
        self.operator = Operator(self.stage, self.process, kept, self.process.failed)
        self.source = Source(self.process, self.stage.topics, 6)

    def _log(self, topic: str, partition: int) -> Log:
        self.logs.append(Log(self.process, topic, partition))
        return self.logs[-1]

    async def open(self, *numbers: int) -> bool:
        numbers = numbers or tuple(range(PARTITIONS))
        return await self.operator.open({(topic, number) for topic in self.stage.topics for number in numbers}, self.source)

    async def drain(self) -> None:
        """Process all that can be read."""
        while (one := self.source.next_chunk()) is not None:
            await self.operator.handle(one)
            assert one.done


CALLS = {True: ["counts", "claim", "read", "bounds"], False: ["bounds", "committed"]}


@pytest.mark.parametrize(("checkpoints", "call"), [(kept, call) for kept, calls in CALLS.items() for call in calls])
def test_partitions_are_opened_when_kafka_answers_again(records, bundle, at_once, checkpoints, call):
    """A broker that went away while partitions were taken over once ended the worker."""

    async def test():
        one = Opened(kafka_with(records), bundle, checkpoints)
        one.process.outages += [
            (call, error) for error in (KafkaError("no metadata"), KafkaConnectionError("closed"), KafkaTimeoutError())
        ]
        if not checkpoints:
            preloaded = one.stage.state(0)
        assert await one.open()
        assert one.process.outages == []
        assert set(one.operator.positions) == {(topic, number) for topic in one.stage.topics for number in range(PARTITIONS)}
        if not checkpoints:
            assert one.stage.state(0) is preloaded
        assert sum(log.closed == 0 for log in one.logs) == (PARTITIONS if checkpoints else 0)
        await one.drain()
        assert sum(one.operator.positions.values()) == len(records)

    asyncio.run(test())


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_partition_that_stays_is_taken_over_again_when_kafka_answers_again(records, bundle, at_once, checkpoints):
    async def test():
        one = Opened(kafka_with(records), bundle, checkpoints)
        await one.open()
        await one.drain()
        before = one.operator.positions
        one.source.group |= before
        await one.operator.revoke()
        one.process.outages.append(("still_owned" if checkpoints else "committed", KafkaConnectionError("closed")))
        assert await one.open()
        assert one.operator.positions == before
        assert sorted(log.closed for log in one.logs) == ([0] * PARTITIONS + [1] if checkpoints else [])

    asyncio.run(test())


@pytest.mark.parametrize("error", [ProducerFenced(), StateError("damaged")], ids=repr)
def test_other_errors_end_the_worker_at_once(records, bundle, at_once, error):
    async def test():
        one = Opened(kafka_with(records), bundle)
        one.process.outages += [
            ("claim", KafkaConnectionError("closed")),
            ("claim", error),
            ("claim", KafkaConnectionError("never met")),
        ]
        with pytest.raises(type(error)):
            await one.open()
        assert len(one.process.outages) == 1
        assert all(log.closed == 1 for log in one.logs if log not in one.process.kafka.owners.values())

    asyncio.run(test())


def test_an_outage_of_two_minutes_ends_the_worker(records, bundle, at_once, monkeypatch):
    monkeypatch.setattr("streams.operator._AWAY_SECONDS", 0.0)

    async def test():
        one = Opened(kafka_with(records), bundle)
        one.process.outages.append(("counts", KafkaConnectionError("away")))
        await one.open()

    with pytest.raises(KafkaConnectionError):
        asyncio.run(test())


def test_what_one_attempt_has_taken_over_the_next_does_not_take_over_again(records, bundle, at_once):
    async def test():
        one = Opened(kafka_with(records), bundle)
        one.process.outages += [("bounds", KafkaConnectionError("closed"))]  # of the first of two partitions
        await one.open()
        assert sorted(log.closed for log in one.logs) == [0] * PARTITIONS + [1]

    asyncio.run(test())


@pytest.mark.parametrize("end", ["revoke", "stop"])
def test_a_partition_that_was_only_taken_over_is_released_as_clean(records, bundle, end):
    """The other one could not be taken over before the release: nothing has been decided since the last clean checkpoint."""

    async def test():
        kafka = kafka_with(records)
        one = Opened(kafka, bundle)
        await one.open()
        await one.drain()
        await one.operator.revoke()
        one.process.outages.append(("still_owned", KafkaConnectionError("closed")))
        one.process.outages += [("claim", KafkaConnectionError("closed"))] * 1000
        opening = asyncio.create_task(one.open())
        await asyncio.sleep(0.05)
        assert not all(checkpoint.clean for _, checkpoint in kafka.logs.values())
        await getattr(one.operator, end)()
        assert not await opening
        assert all(checkpoint.clean for _, checkpoint in kafka.logs.values())

    asyncio.run(test())


@pytest.mark.parametrize("end", ["revoke", "stop"])
def test_a_rebalance_or_a_stop_ends_the_wait_for_kafka(records, bundle, end):
    """The partitions may belong to another worker by then."""

    async def test():
        one = Opened(kafka_with(records), bundle)
        one.process.outages += [("counts", KafkaConnectionError("away"))] * 1000
        opening = asyncio.create_task(one.open())
        await asyncio.sleep(0.01)
        assert not opening.done()
        await asyncio.wait_for(getattr(one.operator, end)(), 0.5)  # it waits for the next attempt for a second otherwise
        assert not await opening
        assert one.operator.positions == {}
        one.process.outages.clear()
        assert await one.open() == (end == "revoke")

    asyncio.run(test())


def test_a_chunk_that_arrives_before_the_partitions_are_open_is_left_alone(records, bundle):
    async def test():
        one = Opened(kafka_with(records), bundle)
        for place in ((TRANSACTIONS, 0), (LABELS, 0)):
            one.source.read_from(place, 0)
        chunk = one.source.next_chunk()
        await one.operator.handle(chunk)
        assert not chunk.done

    asyncio.run(test())


def test_partitions_that_stay_leave_and_return(records, bundle):
    """One stays, one leaves and returns, and meanwhile another process has it."""

    async def test():
        kafka = kafka_with(records)
        one, other = Opened(kafka, bundle), Opened(kafka, bundle)
        await one.open()
        await one.drain()
        positions, stayed = one.operator.positions, one.stage.states[0]
        await one.operator.revoke()
        assert one.operator.positions == {}
        assert all(checkpoint.clean for _, checkpoint in kafka.logs.values())
        await one.open(0)
        assert one.stage.states == {0: stayed}
        assert one.operator.positions == {place: offset for place, offset in positions.items() if place[1] == 0}
        assert [log.closed for log in one.logs] == [0, 1]
        assert not kafka.logs[one.stage.checkpoints, 0][1].clean  # records may be decided after it from now on
        await other.open(1)
        assert other.operator.positions == {place: offset for place, offset in positions.items() if place[1] == 1}
        kafka.append(TRANSACTIONS, 1, b"late", b"{")
        await other.drain()
        await other.operator.stop()
        assert [log.closed for log in other.logs] == [1]
        await one.operator.revoke()
        await one.open()
        assert one.stage.states[0] is stayed
        assert one.operator.positions == positions | {(TRANSACTIONS, 1): positions[TRANSACTIONS, 1] + 1}
        await one.operator.stop()
        assert [log.closed for log in one.logs] == [1, 1, 1]

    asyncio.run(test())


def test_in_memory_a_chunk_is_done_alone_and_only_when_its_outputs_are_acknowledged(records, bundle):
    async def test():
        one = Opened(kafka_with(records), bundle, checkpoints=False)
        await one.open()
        chunk, delivery = one.source.next_chunk(), Delivery()

        async def send(outputs):
            return delivery

        one.process.send = send
        handling = asyncio.create_task(one.operator.handle(chunk))
        await asyncio.sleep(0.01)
        assert len(chunk.group) > 1
        assert not any(other.done for other in chunk.group)
        delivery.arrived()
        await handling
        assert [other.done for other in chunk.group] == [other is chunk for other in chunk.group]
        failing, lost = one.source.next_chunk(), Delivery()
        lost.failed(DeliveryError("no broker"))
        delivery = lost
        with pytest.raises(DeliveryError, match="no broker"):
            await one.operator.handle(failing)
        assert not failing.done

    asyncio.run(test())


def test_topics_that_are_not_copartitioned_are_read_where_they_are_assigned(records, bundle):
    """As those of the archive and the explainer: this worker has one partition of one topic and another of the other."""

    async def test():
        one = Opened(kafka_with(records), bundle, checkpoints=False)
        await one.operator.open({(TRANSACTIONS, 0), (LABELS, 1)}, one.source)
        assert one.operator.positions == {(TRANSACTIONS, 0): 0, (LABELS, 1): 0}
        await one.drain()
        before = one.operator.positions
        one.source.group |= before
        await one.operator.revoke()
        await one.operator.open({(TRANSACTIONS, 0), (LABELS, 0)}, one.source)
        assert one.operator.positions == {(TRANSACTIONS, 0): before[TRANSACTIONS, 0], (LABELS, 0): 0}

    asyncio.run(test())


def test_an_idle_epoch_gets_its_checkpoint(records, bundle):
    async def test():
        process = Process(kafka_with(records))
        stage = ProfileStage(bundle.spec, Privacy())
        operator = Operator(stage, process, CheckpointLogs(stage, process, partial(Log, process), 0.15), process.failed)
        source = Source(process, stage.topics, 6)
        await operator.open({(topic, number) for topic in stage.topics for number in range(PARTITIONS)}, source)
        await operator.handle(source.next_chunk())
        assert process.kafka.logs == {}
        maintaining = asyncio.create_task(operator.run_maintenance())
        await asyncio.sleep(0.5)
        assert operator.positions == {
            (topic, number): checkpoint.positions[topic]
            for (_, number), (_, checkpoint) in process.kafka.logs.items()
            for topic in stage.topics
        }
        maintaining.cancel()

    asyncio.run(test())


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_partition_that_another_worker_has_gone_on_with_is_restored(records, bundle, checkpoints):
    """This worker was assigned the partition before and after, and did not see the assignment between."""

    async def test():
        kafka = kafka_with(records)
        one, other = Opened(kafka, bundle, checkpoints), Opened(kafka, bundle, checkpoints)
        await one.open()
        await one.drain()
        old = dict(one.stage.states)
        await one.operator.revoke()
        kafka.append(TRANSACTIONS, 1, b"late", b"{")
        await other.open()
        await other.drain()
        await other.operator.stop()
        one.source.group |= other.source.group | {(TRANSACTIONS, 1): len(kafka.topics[TRANSACTIONS, 1])}
        await one.open()
        assert one.operator.positions[TRANSACTIONS, 1] == len(kafka.topics[TRANSACTIONS, 1])
        assert one.stage.states.get(1) is not old[1]
        if checkpoints:
            assert one.stage.states[1].digest == old[1].digest

    asyncio.run(test())
