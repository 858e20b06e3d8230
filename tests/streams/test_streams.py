import asyncio
import json
import random
import time
from types import SimpleNamespace
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiokafka.partitioner import DefaultPartitioner
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from cli.operations.worker import past_of
from core.clock import FixedClock
from core.event_time import AHEAD_MS
from core.messages import (
    Label,
    LabelSource,
    Outcome,
    decode_alert,
    decode_dead_letter,
    decode_decision,
    decode_transaction_struct,
    encode,
)  # fmt: skip
from core.privacy.masking import Privacy
from core.settings import Settings
from core.topics import ALERTS, DEAD_LETTERS, DECISIONS, LABELS, PROFILED, TRANSACTIONS
from models.bundles.bundle import load_bundle
from models.features.spec import default_spec
from models.scorer import Decider
from streams.history import HistoryChunk, key_hash, load_history
from streams.kafka.clients import Sender, create_topics
from streams.kafka.connection import Connection
from streams.kafka.embedded import API_VERSION, EmbeddedBroker
from streams.kafka.publishing import Outputs, Publisher, partition_of
from streams.kafka.transport import Consumer, ConsumerThread, OffsetRange, RecordChunk, driver
from streams.operator import Operator
from streams.partition import Partition
from streams.profiled import decode_profiled
from streams.recovery import MemoryLog, MemoryLogs
from streams.stages.decider_sources import SingleDecider
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage
from streams.stages.stage import Chunk
from streams.watchdog import Watchdog
from tests.conftest import DAY, transactions_file
from tests.strategies import examples, transactions
from tests.workers import Worker, collect
from training.data.dataset import columns_of
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile, read_labels
from training.replay import replay, transactions_of

N = 2_500
CREATED, LOG_APPENDED = 0, 1  # who set a record's timestamp: the producer or the broker


@pytest.fixture
def embedded():
    with EmbeddedBroker() as broker:
        yield Settings(kafka_bootstrap=broker.bootstrap, kafka_api_version=API_VERSION, checkpoints=False)


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.system)])
def kafka(request):
    """The embedded broker, and Apache Kafka if Java and Maven are installed."""
    settings = request.getfixturevalue(request.param)
    if request.param == "apache":
        create_topics(settings, partitions=4, replication=1)
    return settings


@pytest.fixture(scope="module")
def part(world, tmp_path_factory):
    """The first transactions of the world as a file."""
    path = tmp_path_factory.mktemp("part") / "transactions.parquet"
    pq.write_table(pq.read_table(world / "transactions.parquet").slice(0, N), path)
    return TransactionFile(path, load_mapping("whyflag"))


def _send(kafka, records, partition=None):
    """Write (topic, key, value) records in order."""
    sender = Sender(kafka, 0)
    for topic, key, value in records:
        sender.send(topic, key, value, partition)
    sender.close()


def _replay_finished(source, bundle, out, labels=None):
    replay(source, bundle, labels=labels, out=out, form="jsonl", privacy=Privacy(), progress=lambda n: None)
    decisions = {(d := decode_decision(line)).transaction_id: d for line in (out / "decisions.jsonl").read_bytes().splitlines()}
    alerts = {(a := decode_alert(line)).alert_id: a for line in (out / "alerts.jsonl").read_bytes().splitlines()}
    return decisions, alerts


def test_the_stream_decides_as_the_replay_does_bit_for_bit(kafka, part, bundle, bundle_dir, world, tmp_path):
    """The stream also holds labels, duplicates and records that cannot be decoded."""
    labels = read_labels(world / "labels.parquet")
    wanted, raised = _replay_finished(part, bundle, tmp_path, world / "labels.parquet")
    every = list(transactions_of(part))
    with Worker("score", kafka, bundle=bundle_dir):
        # the score stage gets all labels first: each counts only from its label time on, so sending it early changes nothing
        _send(kafka, [(LABELS, label.card_id.encode(), encode(label)) for label in labels], 0)
        collect(kafka, {PROFILED: len(labels)})
        records = []
        for i, transaction in enumerate(every):
            records.append((TRANSACTIONS, transaction.card_id.encode(), encode(transaction)))
            if i % 97 == 0:
                records.append((TRANSACTIONS, b"poison", b'{"transaction_id": ' + str(i).encode()))
            if i % 101 == 0:
                records.append(records[-1] if records[-1][1] != b"poison" else records[-2])
        poison = sum(key == b"poison" for _, key, _ in records)
        _send(kafka, records, 0)
        got = collect(kafka, {DECISIONS: len(wanted), ALERTS: len(raised), DEAD_LETTERS: poison})
    decided = [decode_decision(record.value) for record in got[DECISIONS]]
    assert len(decided) == len(wanted) == N, "a duplicate was decided twice, or a transaction not at all"
    assert {d.transaction_id: d for d in decided} == wanted
    assert {(a := decode_alert(record.value)).alert_id: a for record in got[ALERTS]} == raised
    assert len(raised) > 5
    letters = [decode_dead_letter(record.value) for record in got[DEAD_LETTERS]]
    assert len(letters) == poison
    sent = {offset: value for offset, (_, key, value) in enumerate(records) if key == b"poison"}
    assert {letter.offset: letter.raw for letter in letters} == sent
    assert all(letter.topic == TRANSACTIONS and letter.stage == "profile" and letter.message for letter in letters)


def test_a_worker_says_that_its_state_is_in_memory_and_serves_health_and_metrics(embedded, bundle_dir):
    with Worker("score", embedded, bundle=bundle_dir) as worker:
        assert worker.get("live") == "live\n"
        assert worker.get("ready") == "ready\n"
        assert f'whyflag_bundle_info{{version="{load_bundle(bundle_dir).version}"}} 1.0' in worker.get("metrics")
        assert "state is held in memory only" in worker.stop()


@pytest.mark.slow
def test_a_worker_continues_where_it_stopped(kafka, part, bundle_dir):
    """After SIGTERM in the middle, unacknowledged records are read again, and nothing is lost."""
    some = list(transactions_of(part))[:1200]
    with Worker("score", kafka, bundle=bundle_dir):
        _send(kafka, [(TRANSACTIONS, t.card_id.encode(), encode(t)) for t in some[:800]])
        collect(kafka, {DECISIONS: 1})
    with Worker("score", kafka, bundle=bundle_dir):
        _send(kafka, [(TRANSACTIONS, t.card_id.encode(), encode(t)) for t in some[800:]])
        got = collect(kafka, {DECISIONS: 1200})
    assert {decode_decision(r.value).transaction_id for r in got[DECISIONS]} == {t.transaction_id for t in some}


def test_a_history_warms_state_up_by_partition(part, bundle, world, tmp_path):
    """After a history, the stages decide the rest like a replay of everything, each card and merchant in its own partition."""
    every, labels = list(transactions_of(part)), read_labels(world / "labels.parquet")
    pq.write_table(pq.read_table(world / "transactions.parquet").slice(0, 2000), tmp_path / "history.parquet")
    wanted, _ = _replay_finished(part, bundle, tmp_path / "out", world / "labels.parquet")
    profile, scored = ProfileStage(bundle.spec, Privacy()), ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
    partitions = {TRANSACTIONS: 4, PROFILED: 3}

    async def count(topic):
        return partitions[topic]

    source = TransactionFile(tmp_path / "history.parquet", load_mapping("whyflag"))
    past = (
        HistoryChunk(
            c.table["card_id"].combine_chunks(), c.table["merchant_id"].combine_chunks(), columns_of(c.table, bundle.spec)
        )
        for c in source.chunks(300)
    )
    assert asyncio.run(load_history(past, labels, profile, scored, SimpleNamespace(partitions=count))) == 2000
    kafkas = DefaultPartitioner()
    for offset, transaction in enumerate(every[2000:]):
        own = kafkas(transaction.card_id.encode(), range(4), range(4))
        (profiled,) = _process(profile, TRANSACTIONS, [_record(encode(transaction), offset)], own)
        own = partition_of(transaction.merchant_id.encode(), 3)
        outputs = _process(scored, PROFILED, [_record(profiled.value, topic=PROFILED)], own)
        assert decode_decision(_by_topic(outputs)[DECISIONS][0].value) == wanted[transaction.transaction_id]


def test_a_history_with_card_numbers_is_placed_by_the_numbers_that_producers_use_as_keys(bundle, world, tmp_path):
    privacy, number = Privacy(b"a key of sixteen bytes"), "4111111111111111"
    table = pq.read_table(world / "transactions.parquet").slice(0, 3)
    table = table.set_column(table.schema.get_field_index("card_id"), "card_id", [[number, "c1", number]])
    pq.write_table(table, tmp_path / "history.parquet")
    profile, scored = ProfileStage(bundle.spec, privacy), ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))

    async def count(topic):
        return 4096

    def loaded(token_keys):
        profile.states.clear()
        hashed = None if token_keys else key_hash
        source = TransactionFile(tmp_path / "history.parquet", load_mapping("whyflag"), privacy, key_hash=hashed)
        past = past_of(source, bundle.spec)
        assert asyncio.run(load_history(past, [], profile, scored, SimpleNamespace(partitions=count))) == 3
        return set(profile.states)

    def placed(*keys):
        everywhere = range(4096)
        return {DefaultPartitioner()(key.encode(), everywhere, everywhere) for key in keys}

    assert loaded(token_keys=False) == placed(number, "c1")
    assert loaded(token_keys=True) == placed(privacy.private("card_id", number), "c1")
    numbers = table.set_column(table.schema.get_field_index("card_id"), "card_id", [pa.array([1.23456789013e11] * 3)])
    pq.write_table(numbers, tmp_path / "history.parquet")
    assert loaded(token_keys=False) == placed("123456789013")


# -- stages alone: every kind of bad input, without a broker ----------------------------------------------------------------------


def _record(value, offset=0, key=b"k", topic=TRANSACTIONS, timestamp=-1, timestamp_type=0):
    return SimpleNamespace(
        topic=topic, partition=0, offset=offset, key=key, value=value, timestamp=timestamp, timestamp_type=timestamp_type
    )


class Output(NamedTuple):
    topic: str
    key: bytes
    value: bytes


def _process(stage, topic, records, partition=0):
    """Return the messages that a stage makes of some records."""
    return [
        Output(made.topic, key, value)
        for made in asyncio.run(stage.process([Chunk(topic, partition, records)]))
        for key, value in zip(made.keys, made.values, strict=True)
    ]


def _by_topic(outputs):
    return {topic: [o for o in outputs if o.topic == topic] for topic in (PROFILED, DECISIONS, ALERTS, DEAD_LETTERS)}


@given(st.lists(st.one_of(st.binary(max_size=60), transactions.map(encode), st.none()), max_size=12), st.randoms())
@examples(150)
def test_every_record_is_profiled_or_a_dead_letter_or_a_duplicate(values, rng: random.Random):
    damaged = []
    for value in values:
        if value and rng.random() < 0.3:
            at = rng.randrange(len(value))
            value = value[:at] + bytes([rng.randrange(256)]) + value[at + 1 :]
        damaged.append(value)
    stage = ProfileStage(default_spec(), Privacy(b"a key of enough length"))
    outputs = _by_topic(_process(stage, TRANSACTIONS, [_record(value, i) for i, value in enumerate(damaged)]))
    offsets = [offset for o in outputs[PROFILED] for offset in decode_profiled(o.value).offsets.tolist()]
    letters = [decode_dead_letter(o.value) for o in outputs[DEAD_LETTERS]]
    dead = [letter.offset for letter in letters]
    assert len(set(offsets + dead)) == len(offsets + dead)
    ids = [decode_transaction_struct(damaged[i]).transaction_id for i in offsets]
    missing = set(range(len(damaged))) - set(offsets) - set(dead)
    assert all(decode_transaction_struct(damaged[i]).transaction_id in ids for i in missing), (
        "a record that is not a duplicate vanished"
    )
    assert all(letter.message and letter.error for letter in letters)


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=8))
@examples(100)
def test_the_score_stage_turns_any_bytes_into_dead_letters(values):
    stage = ScoreStage(default_spec(), SingleDecider(Decider(None)))
    outputs = _by_topic(_process(stage, PROFILED, [_record(v, i, topic=PROFILED) for i, v in enumerate(values)]))
    assert len(outputs[DEAD_LETTERS]) == len(values)


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 1_000_000,
        b'{"a":' * 5_000,
        b"\x00" * 100,
        json.dumps({"transaction_id": "t", "event_time": 1e999, "amount": float("nan")}).encode(),
        b'{"transaction_id":"t1","event_time":1700000000000,"card_id":"4111111111111111","merchant_id":"m","amount":1}',
        b"x" * 65_530 + b" 4111111111111111",
        b"1 " * 400_000,  # every group may begin a card number
        b"4111111111111111 " * 30_000,
        b'{"transaction_id":"t","channel":"' + b"4111111111111111 " * 60_000 + b'"}',  # the error quotes the value
    ],
)
def test_huge_deep_and_strange_records_are_dead_letters_of_bounded_size_without_card_numbers(value):
    outputs = _process(
        ProfileStage(default_spec(), Privacy(b"k" * 16)),
        TRANSACTIONS,
        [_record(value, key=b"4111111111111111 " + b"k" * 900_000)],
    )
    (letter,) = outputs
    assert letter.topic == DEAD_LETTERS
    assert len(letter.value) < 200_000
    assert b"4111111111111111" not in letter.value + letter.key
    assert b"4111111111111111" not in decode_dead_letter(letter.value).raw


class Source:
    """Fake consumer whose partition ends at offset 100; ``asked`` collects the offsets it was told to read from."""

    def __init__(self, committed=None, begin=0):
        self._committed, self._begin, self.asked, self.fetched = committed, begin, [], 0

    async def bounds(self, places):
        return dict.fromkeys(places, OffsetRange(self._begin, 100))

    async def committed(self, places):
        assert places, "a consumer without partitions has nothing committed"
        return {} if self._committed is None else dict.fromkeys(places, self._committed)

    def read_from(self, place, offset):
        self.asked.append(offset)

    def reached(self, place):
        return self.fetched


def _opened(source, assigned):
    operator = Operator(SimpleNamespace(name="explain", topics=(ALERTS,)), None, MemoryLogs(), lambda error: None)
    asyncio.run(operator.open(assigned, source))
    return operator


@pytest.mark.parametrize(("committed", "begin", "position"), [(None, 0, 0), (None, 7, 7), (40, 0, 40), (40, 50, 50), (101, 5, 5)])
def test_without_a_checkpoint_log_a_partition_is_read_from_where_the_group_stopped(committed, begin, position):
    source = Source(committed, begin)
    assert _opened(source, {(ALERTS, 0)}).positions == {(ALERTS, 0): position}
    assert source.asked == [position]


def test_a_worker_without_partitions_starts_without_positions():
    assert _opened(Source(), set()).positions == {}


def test_fetched_records_that_do_not_arrive_are_read_again_after_two_seconds():
    source = Source()
    partition = Partition(SimpleNamespace(name="explain"), 0, MemoryLog(0), source, lambda error: None)
    partition.positions = {ALERTS: 10}
    partition.reread_lost(0.0)  # nothing fetched yet
    source.fetched = 20
    for now in (1.0, 2.0, 2.9):
        partition.reread_lost(now)
    assert source.asked == []
    partition.reread_lost(3.1)
    partition.reread_lost(3.2)
    assert source.asked == [10]


NOW = 1_750_000_000_000


@pytest.mark.parametrize(
    ("ahead", "timestamp", "kind", "topic"),
    [
        (AHEAD_MS, NOW, LOG_APPENDED, PROFILED),
        (AHEAD_MS + 1, NOW, LOG_APPENDED, DEAD_LETTERS),
        (AHEAD_MS + 1, NOW, CREATED, DEAD_LETTERS),
        (AHEAD_MS, 0, CREATED, PROFILED),  # no timestamp: the worker's clock counts
        (AHEAD_MS + 1, 0, CREATED, DEAD_LETTERS),
        (AHEAD_MS + 1, -1, CREATED, DEAD_LETTERS),
        (AHEAD_MS + 1, 4_000_000_000_000, CREATED, DEAD_LETTERS),  # a producer may lie
        (2_000_000_000_000, 4_000_000_000_000, CREATED, DEAD_LETTERS),
        (-400 * DAY, NOW, LOG_APPENDED, PROFILED),
    ],
)
def test_an_event_from_the_future_is_a_dead_letter_for_any_record_timestamp(ahead, timestamp, kind, topic):
    """Otherwise everything that the card does from now on would look long past."""
    transaction = b'{"transaction_id":"t","event_time":%d,"card_id":"c","merchant_id":"m","amount":1,"currency":"EUR"}'
    stage = ProfileStage(default_spec(), Privacy(), FixedClock(NOW))
    (output,) = _process(stage, TRANSACTIONS, [_record(transaction % (NOW + ahead), timestamp=timestamp, timestamp_type=kind)])
    assert output.topic == topic
    if topic == DEAD_LETTERS:
        assert "hours after the record was written" in decode_dead_letter(output.value).message


def test_a_label_from_the_future_is_a_dead_letter():
    label = Label(
        transaction_id="t",
        card_id="c",
        merchant_id="m",
        event_time=NOW,
        label_time=NOW + DAY,
        fraud=True,
        source=LabelSource.CHARGEBACK,
    )
    stage = ProfileStage(default_spec(), Privacy(), FixedClock(NOW))
    outputs = _process(stage, LABELS, [_record(encode(label), topic=LABELS, timestamp=NOW, timestamp_type=LOG_APPENDED)])
    assert [output.topic for output in outputs] == [DEAD_LETTERS]


def test_the_score_stage_drops_records_that_it_has_processed(bundle, world):
    """If the profile stage repeats its output after a crash, no transaction or label counts twice."""
    profile, stage = ProfileStage(bundle.spec, Privacy()), ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
    some = list(transactions_of(transactions_file(world)))[:50]
    profiled = [_process(profile, TRANSACTIONS, [_record(encode(t), i)])[0].value for i, t in enumerate(some)]
    first = _process(stage, PROFILED, [_record(value, i, topic=PROFILED) for i, value in enumerate(profiled)])
    stage.states[0].changed()
    digest = stage.states[0].digest
    again = _process(stage, PROFILED, [_record(value, 50 + i, topic=PROFILED) for i, value in enumerate(profiled[20:])])
    stage.states[0].changed()
    assert len(first) >= 50
    assert again == []
    assert stage.states[0].digest == digest


def test_labels_apply_at_their_place_in_the_log_for_any_chunk_size(world, bundle):
    """The same log gives the same decisions in chunks of 1, of 7, and as a whole."""
    every = list(transactions_of(transactions_file(world)))[:600]
    profile = ProfileStage(bundle.spec, Privacy())
    log = []
    for i, transaction in enumerate(every):
        log += [o.value for o in _process(profile, TRANSACTIONS, [_record(encode(transaction), i)])]
        if i % 40 == 0:
            label = Label(
                transaction_id=transaction.transaction_id, card_id=transaction.card_id, merchant_id=every[i + 1].merchant_id,
                event_time=transaction.event_time, label_time=transaction.event_time, fraud=True, source=LabelSource.CUSTOMER,
            )  # fmt: skip
            log += [o.value for o in _process(profile, LABELS, [_record(encode(label), i, topic=LABELS)])]
    results = []
    for size in (1, 7, len(log)):
        stage = ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
        records = [_record(value, i, topic=PROFILED) for i, value in enumerate(log)]
        outputs = [o for i in range(0, len(log), size) for o in _process(stage, PROFILED, records[i : i + size])]
        results.append({topic: [o.value for o in found] for topic, found in _by_topic(outputs).items()})
    assert results[0] == results[1] == results[2]
    assert len(results[0][DECISIONS]) == len(every)


def test_a_record_of_another_spec_is_a_dead_letter(bundle, world):
    transaction = next(transactions_of(transactions_file(world)))
    other = ProfileStage(default_spec("USD"), Privacy())
    (output,) = _process(other, TRANSACTIONS, [_record(encode(transaction))])
    (letter,) = _process(
        ScoreStage(bundle.spec, SingleDecider(Decider(bundle))), PROFILED, [_record(output.value, topic=PROFILED)]
    )
    assert "run one spec at a time" in decode_dead_letter(letter.value).message


def test_a_scorer_that_fails_sends_the_batch_to_review(bundle, world, monkeypatch):
    import models.scorer as module

    def broken(*_):
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(module, "score", broken)
    transaction = next(transactions_of(transactions_file(world)))
    (profiled,) = _process(ProfileStage(bundle.spec, Privacy()), TRANSACTIONS, [_record(encode(transaction))])
    outputs = _by_topic(
        _process(ScoreStage(bundle.spec, SingleDecider(Decider(bundle))), PROFILED, [_record(profiled.value, topic=PROFILED)])
    )
    assert decode_decision(outputs[DECISIONS][0].value).outcome is Outcome.REVIEW
    assert len(outputs[ALERTS]) == 1


# -- the transport and the publisher ----------------------------------------------------------------------------------------------


def _chunk(first, last):
    records = [SimpleNamespace(offset=o, timestamp=1, timestamp_type=0) for o in range(first, last + 1)]
    return RecordChunk(TP("t", 0), records, first)


def _consumer(generation=1):
    """Return Faust's consumer without its threads, with only the attributes that acknowledging uses."""
    consumer = Consumer.__new__(Consumer)
    consumer.app = SimpleNamespace(consumer_generation_id=generation, topics=SimpleNamespace(acks_enabled_for=lambda topic: True))
    consumer._acked = {TP("t", 0): []}
    consumer._acked_index = {TP("t", 0): set()}
    consumer._committed_offset = {TP("t", 0): None}
    consumer._unacked_messages = set()
    consumer._waiting_for_ack = None
    consumer._n_acked = 0
    consumer._opening = None
    return consumer


class _Log:
    """A partition of records 0 to 9 that arrive when told, read through Faust's consumer thread."""

    def __init__(self, monkeypatch):
        self.position, self.arrived = 0, asyncio.Event()

        async def fetch(thread):
            await self.arrived.wait()
            first, self.position = self.position, 10
            return list(range(first, 10))

        async def seek(thread, consumer, partitions):
            (self.position,) = partitions.values()

        monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetch)
        monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_seek_wait", seek)


def test_a_fetch_whose_caller_was_cancelled_takes_no_records_after_a_seek(monkeypatch):
    """A rebalance cancels the caller in the event loop; the fetch in the consumer's thread goes on."""

    async def rebalanced():
        log, thread = _Log(monkeypatch), ConsumerThread.__new__(ConsumerThread)
        abandoned = asyncio.create_task(thread._fetch_records())
        await asyncio.sleep(0)
        seek = asyncio.create_task(thread._seek_wait(None, {TP("t", 0): 3}))
        await asyncio.sleep(0.01)
        log.arrived.set()
        await seek
        assert await thread._fetch_records() == [3, 4, 5, 6, 7, 8, 9]
        with pytest.raises(asyncio.CancelledError):
            await abandoned

    asyncio.run(rebalanced())


def test_a_cancelled_fetch_is_repeated_from_where_it_began(monkeypatch):
    async def hangs(self, active, timeout):
        await asyncio.sleep(60)

    monkeypatch.setattr(driver.Consumer, "_getmany", hangs)
    consumer = _consumer()
    consumer._next, consumer._sought = {TP("t", 0): 7, TP("t", 1): 9}, {}

    async def cancelled():
        fetching = asyncio.create_task(consumer._getmany(None, 1.0))
        await asyncio.sleep(0)
        consumer._sought[TP("t", 1)] = 4  # the operator asks for an older position meanwhile
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching

    asyncio.run(cancelled())
    assert consumer._sought == {TP("t", 0): 7, TP("t", 1): 4}


def _message(chunk, generation=1):
    class Message(SimpleNamespace):
        __hash__ = object.__hash__

    return Message(value=chunk, tp=TP("t", 0), topic="t", offset=chunk.offset, acked=False, generation_id=generation)


def test_nothing_is_fetched_before_the_partitions_are_open(monkeypatch):
    """However long that takes: Faust's own wait for them ends after 90 s, and it would never fetch again."""
    fetched = []

    async def fetch(self, active, timeout):
        fetched.append(active)
        return {}

    monkeypatch.setattr(driver.Consumer, "_getmany", fetch)
    consumer = _consumer()
    consumer._next, consumer._sought = {}, {}

    async def opening():
        consumer._opening = asyncio.get_running_loop().create_future()
        assert await asyncio.wait_for(consumer.seek_to_committed(), 1) == {}
        assert await consumer._getmany(set(), 0.01) == {}
        assert fetched == []
        consumer._opening.set_result(None)
        await consumer._getmany(set(), 0.01)
        assert len(fetched) == 1

    asyncio.run(opening())


def test_only_a_finished_chunk_of_this_generation_is_acknowledged():
    consumer, chunk = _consumer(), _chunk(0, 9)
    assert not consumer.ack(_message(chunk))
    assert consumer._new_offset(TP("t", 0)) is None
    chunk.done = True
    assert not consumer.ack(_message(chunk, generation=0))
    assert consumer._new_offset(TP("t", 0)) is None
    assert consumer.ack(_message(chunk))
    assert consumer._new_offset(TP("t", 0)) == 10
    assert consumer._new_offset(TP("t", 0)) is None


def test_the_watchdog_reports_records_that_wait_without_progress():
    place, barked = (TRANSACTIONS, 0), []
    operator = SimpleNamespace(positions={place: 5}, stage=SimpleNamespace(name="profile"))
    watchdog = Watchdog(Connection("127.0.0.1:1"), [operator], 0.1, barked.append)

    def look(end, position):
        async def end_offsets(places):
            return dict.fromkeys(places, end)

        operator.positions[place] = position
        asyncio.run(watchdog._look(SimpleNamespace(end_offsets=end_offsets)))
        time.sleep(0.06)

    for end, position in ((5, 5), (5, 5), (9, 5), (9, 6), (9, 7), (9, 9), (9, 9)):  # idle, working, idle
        look(end, position)
    assert barked == []
    look(12, 9)
    look(12, 9)
    (error,) = barked
    assert "3 records wait in transactions/0" in str(error)


def test_the_publisher_keeps_order_and_waits_for_every_acknowledgement(kafka):
    async def publish():
        publisher = Publisher(Connection(kafka.kafka_bootstrap))
        await publisher.start()
        try:
            values = [str(i).encode() * 50 for i in range(6_000)]
            sent = [
                await publisher.send([Outputs(DECISIONS, [b"k"] * 7, values[begin : begin + 7], 1)])
                for begin in range(0, 5_000 - 5_000 % 7, 7)
            ]
            await publisher.publish([Outputs(DECISIONS, [b"k"] * (6_000 - 7 * len(sent)), values[7 * len(sent) :], 1)])
            assert all(delivery.done() for delivery in sent)
            await publisher.publish([])
        finally:
            await publisher.stop()

    asyncio.run(publish())
    records = collect(kafka, {DECISIONS: 6_000})[DECISIONS]
    assert [record.value for record in records] == [str(i).encode() * 50 for i in range(6_000)]
    assert {record.partition for record in records} == {1}


@pytest.mark.slow
def test_an_operator_error_ends_the_process_without_acknowledging(kafka, part, bundle_dir, tmp_path):
    """A worker whose score stage fails exits with an error, and its successor reads the same records again."""
    some = list(transactions_of(part))[:30]
    worker = Worker("score", kafka, bundle=bundle_dir)
    (tmp_path / "sitecustomize.py").write_text(
        "import streams.stages.score as s\n"
        "async def broken(self, topic, partition, records): raise RuntimeError('no more')\n"
        "s.ScoreStage.process = broken\n"
    )
    worker.environment["PYTHONPATH"] = f"{tmp_path}:."
    with worker:
        _send(kafka, [(TRANSACTIONS, t.card_id.encode(), encode(t)) for t in some])
        status, output = worker.ended()
        assert status == 70, output
        assert "stops without acknowledging" in output
    with Worker("score", kafka, bundle=bundle_dir):
        got = collect(kafka, {DECISIONS: 30})
    assert {decode_decision(r.value).transaction_id for r in got[DECISIONS]} == {t.transaction_id for t in some}
