"""The checkpoint log, on a partition in memory: what is read is the last whole checkpoint, whatever else was written. test_kafka.py has the broker's part."""

import asyncio
import inspect
import random
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, NodeNotReadyError, ProducerFenced
from aiokafka.producer.sender import Sender

from core.errors import DeliveryError, StateError
from streams import checkpoints
from streams.checkpoints import Checkpoint, CheckpointLog
from tests.streams.memory_client import CONNECTION, PRODUCER, Topic, clients

EMPTY = Checkpoint(spec="s", bundle="b", partitions=4, positions={"t": 7}, origins={"o/0": 3}, keys=2, digest="d")


@pytest.fixture
def topic(monkeypatch):
    made = Topic()
    producer, consumer = clients(made)
    monkeypatch.setattr(checkpoints, "AIOKafkaProducer", producer)
    monkeypatch.setattr(checkpoints, "AIOKafkaConsumer", consumer)
    return made


class NoConnection:
    aiokafka = CONNECTION

    def name(self, plain):
        return plain


def log():
    return CheckpointLog(NoConnection(), "log", 3)


def key(number):
    return bytes([0]) + number.to_bytes(8, "little")


async def read(one=None):
    rows = {}
    checkpoint = await (one or log()).read(lambda records: rows.update(records))
    return checkpoint, {name: row for name, row in rows.items() if row is not None}


async def written(topic, *checkpoints_of_rows, one=None):
    """Write checkpoints with growing positions; return the log and the last checkpoint."""
    one = one or log()
    await one.claim()
    last = None
    for number, rows in enumerate(checkpoints_of_rows):
        last = msgspec.structs.replace(EMPTY, positions={"t": number})
        await one.write(rows, last)
    return one, last


def test_an_empty_log_has_no_checkpoint(topic):
    assert asyncio.run(read()) == (None, {})


def test_the_last_checkpoint_and_the_newest_rows_are_read(topic):
    async def run():
        _, last = await written(topic, [(key(1), b"a"), (key(2), b"b")], [(key(2), b"c"), (key(3), b"d")], [(key(1), None)])
        assert await read() == (last, {key(2): b"c", key(3): b"d"})
        topic.compact()
        assert await read() == (last, {key(2): b"c", key(3): b"d"})

    asyncio.run(run())


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 300])
def test_a_large_checkpoint_takes_several_batches_and_is_read_whole(topic, count):
    async def run():
        rows = [(key(number), b"x" * 100) for number in range(count)]
        _, last = await written(topic, rows)
        assert await read() == (last, dict(rows))
        assert topic.batches >= max(count * 109 // 2_000, 1) + (count > 0)

    asyncio.run(run())


def test_a_row_larger_than_a_batch_is_written_in_a_batch_of_its_own(topic):
    async def run():
        rows = [(key(1), b"a"), (key(2), b"x" * 5_000), (key(3), b"c")]
        _, last = await written(topic, rows)
        assert await read() == (last, dict(rows))

    asyncio.run(run())


def test_a_checkpoint_that_was_not_committed_is_not_there(topic):
    async def run():
        one, last = await written(topic, [(key(1), b"a")])
        await one._producer.begin_transaction()
        await one._append([(b"\0" + key(1), b"torn"), (b"marker", msgspec.json.encode(EMPTY))])
        assert await read() == (last, {key(1): b"a"})

    asyncio.run(run())


@pytest.mark.parametrize("behind", [0, 1, 5, 60])
def test_records_behind_the_last_marker_are_skipped_with_a_warning(topic, caplog, behind):
    async def run():
        _, last = await written(topic, [(key(1), b"a")], [(key(1), b"b")])
        for number in range(behind):
            topic.append(b"\0" + key(1), b"garbage %d" % number)
        assert await read() == (last, {key(1): b"b"})

    asyncio.run(run())
    said = f"{behind} records after the last marker of log/3 belong to no checkpoint and are skipped: check who may write to it"
    assert caplog.messages == ([said] if behind else [])


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"v": 2}'])
def test_a_marker_that_cannot_be_read_hides_no_earlier_one(topic, raw):
    async def run():
        _, last = await written(topic, [(key(1), b"a")])
        topic.append(b"marker", raw)
        assert await read() == (last, {key(1): b"a"})

    asyncio.run(run())


@pytest.mark.parametrize("strange", [None, b"", b"\0", b"\0short", b"\0" + b"k" * 20, b"\1" + key(1)])
def test_keys_that_are_none_of_a_row_are_skipped(topic, strange):
    async def run():
        topic.append(strange, b"before")
        _, last = await written(topic, [(key(1), b"a")])
        assert await read() == (last, {key(1): b"a"})

    asyncio.run(run())


def test_records_without_a_marker_are_an_error_that_says_what_to_do(topic):
    topic.append(b"\0" + key(1), b"foreign")
    with pytest.raises(StateError, match=r"log/3 holds no readable marker.*whyflag state rebuild --partition 3"):
        asyncio.run(read())


def test_another_format_is_an_error_that_says_what_to_do(topic):
    asyncio.run(written(topic, []))
    topic.append(b"marker", msgspec.json.encode(msgspec.structs.replace(EMPTY, v=1)))
    with pytest.raises(StateError, match="format 1, this version reads format 2: run `whyflag state rebuild` once"):
        asyncio.run(read())


def test_starting_over_forgets_all_rows_and_keeps_the_last_marker(topic):
    async def run():
        _, last = await written(topic, [(key(1), b"a"), (key(2), b"b")])
        topic.append(b"marker", msgspec.json.encode(msgspec.structs.replace(EMPTY, v=1)))  # of another format: skipped
        one = log()
        await one.claim()
        assert await one.start_over() == last
        newest = msgspec.structs.replace(EMPTY, positions={"t": 99})
        await one.write([(key(3), b"c")], newest)
        assert await read() == (msgspec.structs.replace(newest, lineage=1), {key(3): b"c"})
        # the old rows are removed, so that compaction frees them
        topic.compact()
        assert {record.key for record in topic.records if record and record.value} == {b"marker", b"\1" + key(3)}
        await one.write([(key(4), b"d")], newest)
        assert (await read())[1] == {key(3): b"c", key(4): b"d"}
        assert sum(record is not None and record.value is None for record in topic.records) == 2, "removed once"

    asyncio.run(run())


def test_starting_over_an_empty_log_begins_a_lineage(topic):
    async def run():
        one = log()
        await one.claim()
        assert await one.start_over() is None
        await one.write([(key(1), b"a")], EMPTY)
        assert await read() == (msgspec.structs.replace(EMPTY, lineage=1), {key(1): b"a"})

    asyncio.run(run())


def test_lineages_begin_again_after_the_last_number(topic):
    async def run():
        for _ in range(257):
            one = log()
            await one.claim()
            await one.start_over()
            await one.write([(key(1), b"a")], EMPTY)
            topic.compact()
        checkpoint, rows = await read()
        assert checkpoint.lineage < 256
        assert rows == {key(1): b"a"}

    asyncio.run(run())


def test_a_log_read_is_continued_in_its_lineage(topic):
    async def run():
        one = log()
        await one.claim()
        await one.start_over()
        await one.write([(key(1), b"a")], EMPTY)
        successor = log()
        await successor.claim()
        await read(successor)
        await successor.write([(key(2), b"b")], EMPTY)
        assert (await read())[1] == {key(1): b"a", key(2): b"b"}

    asyncio.run(run())


def test_an_owner_knows_whether_it_still_owns_the_log(topic):
    async def run():
        first, _ = await written(topic, [(key(1), b"a")])
        assert await first.still_owned()
        assert await first.still_owned()
        topic.append(b"\0" + key(1), b"foreign")
        assert not await first.still_owned()

    asyncio.run(run())


def test_an_owner_that_goes_on_after_a_clean_checkpoint_makes_it_unclean(topic):
    """It will decide records after that checkpoint: if it crashes, its successor must decide them with the same bundle."""

    async def run():
        one = log()
        await one.claim()
        await one.write([(key(1), b"a")], msgspec.structs.replace(EMPTY, clean=True))
        assert (await read())[0].clean
        assert await one.still_owned()
        assert await read() == (EMPTY, {key(1): b"a"})

    asyncio.run(run())


def test_after_an_error_the_log_must_be_claimed_again(topic):
    async def run():
        one, _ = await written(topic, [(key(1), b"a")])

        async def fail():
            raise KafkaError("gone")

        commit, one._producer.commit_transaction = one._producer.commit_transaction, fail
        with pytest.raises(KafkaError):
            await one.still_owned()
        one._producer.commit_transaction = commit
        assert not await one.still_owned()

    asyncio.run(run())


@pytest.mark.parametrize("call", ["claim", "still_owned"])
def test_a_broker_that_never_answers_is_an_error_after_a_while(topic, monkeypatch, call):
    monkeypatch.setattr(checkpoints, "_CLOSE_SECONDS", 0.01)

    async def run():
        one, _ = await written(topic, [(key(1), b"a")])
        monkeypatch.setattr(checkpoints, "_WRITE_SECONDS", 0.01)
        monkeypatch.setitem(PRODUCER, "request_timeout_ms", 10)

        async def hang(*_):
            await asyncio.Event().wait()

        closed = []

        async def close():
            closed.append(True)

        monkeypatch.setattr(type(one._producer), "start", hang)
        one._producer.commit_transaction = one._producer.stop = hang
        one._producer.client.close = close
        with pytest.raises(KafkaTimeoutError, match="no answer within"):
            await getattr(one, call)()
        if call == "still_owned":
            await one.close()
            assert closed == [True]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("raised", "met"),
    [(KafkaConnectionError, NodeNotReadyError), (NodeNotReadyError, NodeNotReadyError), (ProducerFenced, ProducerFenced)],
)
def test_aiokafka_repeats_the_lookup_of_a_coordinator_whose_connection_closes(topic, monkeypatch, raised, met):
    """Its sender ends for good after any error of a lookup but those that it lists."""
    assert "Errors.NodeNotReadyError,\n" in inspect.getsource(Sender._find_coordinator)

    async def run():
        one, _ = await written(topic)

        async def lookup(*arguments):
            assert arguments == (1, "whyflag")
            raise raised("closed")

        await one.close()
        producer = checkpoints.AIOKafkaProducer

        class Failing(producer):
            def __init__(self, **options):
                super().__init__(**options)
                self.client = SimpleNamespace(coordinator_lookup=lookup)

        monkeypatch.setattr(checkpoints, "AIOKafkaProducer", Failing)
        await one.claim()
        with pytest.raises(met):
            await one._producer.client.coordinator_lookup(1, "whyflag")

    asyncio.run(run())


def test_an_owner_that_has_written_nothing_does_not_know(topic):
    async def run():
        one = log()
        await one.claim()
        await read(one)
        assert not await one.still_owned()

    asyncio.run(run())


def test_a_former_owner_is_refused(topic):
    async def run():
        first, last = await written(topic, [(key(1), b"a")])
        second = log()
        await second.claim()
        assert not await first.still_owned()
        with pytest.raises(DeliveryError, match="log/3 has a new owner"):
            await first.write([(key(1), b"zombie")], EMPTY)
        await first.close()
        await first.close()
        assert await read() == (last, {key(1): b"a"})

    asyncio.run(run())


@pytest.mark.parametrize("error", [KafkaError("gone"), TimeoutError()])
def test_a_broker_that_does_not_take_a_checkpoint_is_a_delivery_error(topic, error):
    async def run():
        one, _ = await written(topic)

        async def fail():
            raise error

        one._producer.commit_transaction = fail
        await one.write([(key(1), b"a")], EMPTY)

    with pytest.raises(DeliveryError, match="did not accept a checkpoint of log/3"):
        asyncio.run(run())


def test_any_sequence_of_checkpoints_reads_as_a_dictionary_would(topic):
    rng = random.Random(4)

    async def run():
        expected, one = {}, log()
        await one.claim()
        for number in range(60):
            rows = {key(rng.randrange(30)): rng.choice([None, b"x" * rng.randrange(400)]) for _ in range(rng.randrange(12))}
            await one.write(list(rows.items()), msgspec.structs.replace(EMPTY, positions={"t": number}))
            expected |= rows
            if rng.random() < 0.2:
                topic.compact()
            checkpoint, held = await read()
            assert checkpoint.positions == {"t": number}
            assert held == {name: row for name, row in expected.items() if row is not None}

    asyncio.run(run())


def test_each_start_over_begins_the_next_lineage(topic):
    async def run():
        for lineage, number in ((1, 300), (2, 7), (3, 70_000)):
            one = log()
            await one.claim()
            await one.start_over()
            await one.write([(key(number), b"a")], EMPTY)
            checkpoint, rows = await read()
            assert (checkpoint.lineage, rows) == (lineage, {key(number): b"a"})

    asyncio.run(run())


def test_a_broker_that_never_answers_is_given_up(topic, monkeypatch):
    monkeypatch.setattr(checkpoints, "_WRITE_SECONDS", 0.05)

    async def run():
        one = log()
        one._producer = SimpleNamespace(begin_transaction=lambda: asyncio.sleep(30))
        async with asyncio.timeout(10):
            await one.write([(key(1), b"a")], EMPTY)

    with pytest.raises(DeliveryError, match="did not accept a checkpoint of log/3"):
        asyncio.run(run())


def test_a_value_that_is_missing_is_no_marker(topic):
    async def run():
        _, last = await written(topic, [(key(1), b"a")])
        topic.append(b"marker", None)
        assert await read() == (last, {key(1): b"a"})

    asyncio.run(run())
