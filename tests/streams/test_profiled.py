"""Records between the stages: every row comes back bit for bit, however rows are grouped, and damaged records are refused."""

import asyncio
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from core.clock import FixedClock
from core.decoding import decode_transactions
from core.errors import InvalidEvent, Refusal, StateError
from core.messages import LATEST, Label, Transaction, decode_dead_letter, decode_decision, encode
from core.privacy.masking import Privacy
from core.topics import DEAD_LETTERS, DECISIONS, LABELS, PROFILED, TRANSACTIONS
from models.features.columns import CATEGORY_SHIFT, CHANNEL_SHIFT, COUNTRY_SHIFT, Mark
from models.features.engine import RECENT, EntityEngine
from models.features.spec import default_spec
from models.scorer import Decider
from streams.kafka.transport import RecordChunk, group_chunks
from streams.profiled import (
    FORMAT,
    LARGEST,
    TEXTS,
    ForwardedLabel,
    ProfiledRows,
    decode_profiled,
    encode_label,
    encode_rows,
    joined,
    profiled_rows,
)  # fmt: skip
from streams.stages.decider_sources import SingleDecider
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage
from streams.stages.stage import Chunk
from tests.conftest import transactions_file
from tests.strategies import examples, labels, transactions
from tests.streams.rows import single_rows
from tests.streams.scripted import Kafka, Process
from training.replay import transactions_of

SPEC = default_spec()


def made(messages: list[Transaction], first: int = 0, traces=()) -> ProfiledRows:
    engine = EntityEngine(SPEC, SPEC.entities[0])
    columns = engine.columns(messages)
    update = engine.update(columns, RECENT)
    n = len(messages)
    partitions = [3] * (n // 2) + [5] * (n - n // 2)
    offsets = list(range(first, first + n))
    return profiled_rows(SPEC.version, messages, partitions, offsets, [1_000 + one for one in offsets], columns, update, traces)


def same(one: ProfiledRows, other: ProfiledRows) -> None:
    assert (one.spec, list(one.traces)) == (other.spec, list(other.traces))
    assert [one.transaction(i) for i in range(one.count)] == [other.transaction(i) for i in range(other.count)]
    for field in ("numbers", "features", "recent"):
        assert getattr(one, field).tobytes() == getattr(other, field).tobytes(), field


@given(st.lists(transactions, min_size=1, max_size=12), st.randoms())
@examples(80)
def test_rows_come_back_bit_for_bit_however_they_are_grouped(messages, rng):
    rows = made(messages, traces=[f"00-{i}" for i in range(len(messages))] if rng.random() < 0.5 else ())
    (record,) = encode_rows(rows)
    found = decode_profiled(record)
    same(found, rows)
    assert [found.transaction(i) for i in range(found.count)] == messages
    for own, column in zip(found.columns, rows.columns, strict=True):
        assert own.dtype == column.dtype
        assert own.tobytes() == column.tobytes()
    cut = rng.randrange(len(messages) + 1)
    every = np.arange(len(messages))
    parts = [
        decode_profiled(record)
        for places in (every[:cut], every[cut:])
        if len(places)
        for record in encode_rows(rows.rows(places))
    ]
    same(joined(parts), rows)


@given(labels, st.integers(0, 99), st.integers(0, 2**53))
@examples(30)
def test_a_label_comes_back(label, partition, offset):
    forwarded = ForwardedLabel(partition, offset, label)
    assert decode_profiled(encode_label(forwarded)) == forwarded


def test_the_marks_of_the_first_stage_reach_the_second(world):
    some = list(transactions_of(transactions_file(world)))[:2]
    again = msgspec.structs.replace(some[0], amount=some[0].amount + 1)  # the same id for another payment
    (record,) = encode_rows(made([*some, again]))
    assert decode_profiled(record).columns.has(Mark.REUSED).tolist() == [False, False, True]


def test_large_records_are_split(world):
    one = next(transactions_of(transactions_file(world)))
    long = [msgspec.structs.replace(one, transaction_id=f"t{i}", memo="ж" * 400) for i in range(1_000)]
    records = list(encode_rows(made(long)))
    assert len(records) > 3
    assert max(map(len, records)) <= LARGEST
    assert [row for record in records for row in decode_profiled(record).offsets.tolist()] == list(range(1_000))


@given(st.data())
@examples(150)
def test_damaged_records_are_refused_or_hold_whole_rows(data):
    """No damage makes the second stage fail in another way than by refusing the record."""
    rows = made([Transaction(transaction_id=f"t{i}", event_time=1_700_000_000_000 + i, card_id="c", merchant_id="m", amount=1, currency="EUR") for i in range(3)])  # fmt: skip
    (record,) = encode_rows(rows)
    at = data.draw(st.integers(0, len(record) - 1))
    damaged = record[:at] + data.draw(st.binary(max_size=3)) + record[at + data.draw(st.integers(0, 40)) :]
    stage = ScoreStage(SPEC, SingleDecider(Decider(None)))
    try:
        outputs = asyncio.run(stage.process([Chunk(PROFILED, 0, records(PROFILED, [damaged]))]))
    except StateError:
        return  # the damage is in the format's number
    decided = sum(len(output.keys) for output in outputs if output.topic == DECISIONS)
    assert decided in (1, 2, 3) or {output.topic for output in outputs} == {DEAD_LETTERS}


@pytest.mark.parametrize(("partitions", "offsets"), [([0, 1, 0], [1, 1, 2]), ([0, 0, 1], [2, 1, 3]), ([0, 0, 1], [1, 1, 3])])
def test_rows_out_of_order_are_refused(partitions, offsets, world):
    rows = made(list(transactions_of(transactions_file(world)))[:3])
    rows.numbers[0], rows.numbers[1] = partitions, offsets
    with pytest.raises(InvalidEvent, match="not in order"):
        decode_profiled(next(encode_rows(rows)))


@pytest.mark.parametrize("flaw", ["country", "category", "channel", "recent", "text", "time", "amount", "offset"])
def test_values_that_no_worker_writes_are_refused(flaw, world):
    rows = made(list(transactions_of(transactions_file(world)))[:3])
    columns = rows.columns
    changes = {
        "country": lambda: columns.attributes.__setitem__(1, columns.attributes[1] | 0x3FF << COUNTRY_SHIFT),
        "category": lambda: columns.attributes.__setitem__(1, columns.attributes[1] | 0x3FFF << CATEGORY_SHIFT),
        "channel": lambda: columns.attributes.__setitem__(1, columns.attributes[1] | 3 << CHANNEL_SHIFT),
        "recent": lambda: rows.recent.__setitem__((1, 2), 3 << CHANNEL_SHIFT),
        "text": lambda: rows.texts[TEXTS.index("channel")].__setitem__(1, "pigeon"),
        "time": lambda: columns.event_time.__setitem__(1, 2**61),
        "amount": lambda: rows.amount.__setitem__(1, -5),
        "offset": lambda: rows.offsets.__setitem__(0, -1),
    }
    changes[flaw]()
    with pytest.raises(InvalidEvent, match="impossible"):
        decode_profiled(next(encode_rows(rows)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b'{"origin":{"partition":0,"offset":1}}', "format 1, of whyflag 0.1"),
        (msgspec.msgpack.encode(["label", FORMAT + 1, 0, 0, None, "new"]), "Expected"),
        (msgspec.msgpack.encode(["rows", FORMAT, "s", [[]] * 11, b"", b"", b"", []]), "different lengths"),
        (msgspec.msgpack.encode(["other", FORMAT]), "other"),
        (b"", "truncated"),
    ],
)
def test_another_format_is_refused_with_a_reason(record, message):
    with pytest.raises(InvalidEvent, match=message) as caught:
        decode_profiled(record)
    assert (caught.value.reason is Refusal.OTHER_FORMAT) == ("format" in message)


def test_a_later_format_stops_the_worker_because_its_rows_cannot_be_named():
    later = msgspec.msgpack.encode(["rows", FORMAT + 1, "s", [[]] * 11, b"", b"", b"", [], "new"])
    with pytest.raises(StateError, match=f"format {FORMAT + 1}"):
        decode_profiled(later)


def test_each_row_of_another_spec_has_a_dead_letter_of_its_own(bundle, world):
    some = list(transactions_of(transactions_file(world)))[:5]
    (record,) = encode_rows(msgspec.structs.replace(made(some, first=40), spec="another"))
    outputs = asyncio.run(
        ScoreStage(bundle.spec, SingleDecider(Decider(bundle))).process([Chunk(PROFILED, 0, records(PROFILED, [record]))])
    )
    letters = [decode_dead_letter(value) for output in outputs for value in output.values]
    assert [(one.topic, one.offset) for one in letters] == [(TRANSACTIONS, offset) for offset in range(40, 45)]
    assert all("run one spec at a time" in one.message for one in letters)
    assert [msgspec.json.decode(one.raw)["transaction_id"] for one in letters] == [one.transaction_id for one in some]


def records(topic, values, first=0):
    return [
        SimpleNamespace(topic=topic, partition=0, offset=first + i, key=b"", value=value, timestamp=LATEST, timestamp_type=1)
        for i, value in enumerate(values)
    ]


def run(bundle, log, destinations: int, size: int, together: bool = False) -> dict[str, bytes]:
    """
    Both stages, in chunks of ``size`` transactions, with so many partitions between them. Return the decisions by id.

    If ``together``, the second stage gets the chunks of all partitions in one batch.
    """
    profile = ProfileStage(bundle.spec, Privacy(), FixedClock(LATEST))
    asyncio.run(profile.start(Process(Kafka(destinations))))
    score = ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
    found: dict[str, bytes] = {}
    for begin in range(0, len(log), size):
        made = asyncio.run(profile.process([Chunk(TRANSACTIONS, 0, records(TRANSACTIONS, log[begin : begin + size], begin))]))
        assert {output.topic for output in made} == {PROFILED}
        chunks = [Chunk(PROFILED, output.partition, records(PROFILED, output.values)) for output in made]
        for batch in [chunks] if together else [[chunk] for chunk in chunks]:
            for decided in asyncio.run(score.process(batch)):
                if decided.topic == DECISIONS:
                    found |= {decode_decision(value).transaction_id: value for value in decided.values}
    return found


def test_decisions_do_not_depend_on_the_size_of_chunks_or_the_number_of_partitions(bundle, world):
    log = [encode(one) for one in list(transactions_of(transactions_file(world)))[:400]]
    whole = run(bundle, log, 1, 400)
    assert len(whole) == 400
    for destinations, size in ((1, 1), (1, 7), (3, 50), (12, 400)):
        for together in (False, True):
            assert run(bundle, log, destinations, size, together) == whole, (destinations, size, together)


def test_rows_that_were_decided_before_are_dropped_when_records_overlap(bundle, world):
    """After a crash, the first stage forms other records from the same rows."""
    log = [encode(one) for one in list(transactions_of(transactions_file(world)))[:60]]
    decoded = decode_transactions(log, Privacy())
    engine = EntityEngine(bundle.spec, bundle.spec.entities[0])
    columns = engine.columns(decoded)
    rows = profiled_rows(bundle.spec.version, decoded, [0] * 60, range(60), [1] * 60, columns, engine.update(columns, RECENT))
    every = np.arange(60)
    (first,), (second,), (whole,) = (list(encode_rows(rows.rows(places))) for places in (every[:40], every[20:50], every))
    score = ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
    counts = []
    for record in (first, second, whole, whole):
        outputs = asyncio.run(score.process([Chunk(PROFILED, 0, records(PROFILED, [record]))]))
        counts.append(sum(len(output.keys) for output in outputs if output.topic == DECISIONS))
    assert counts == [40, 10, 10, 0]
    assert score.states[0].origins == {f"{TRANSACTIONS}/0": 59}


def test_a_label_is_applied_once(bundle):
    label = ForwardedLabel(0, 5, msgspec.convert(
        {"transaction_id": "t", "card_id": "c", "merchant_id": "m", "event_time": 1_700_000_000_000, "label_time": 1_700_000_000_000, "fraud": True, "source": "customer"},
        type=Label,
    ))  # fmt: skip
    score = ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
    for _ in range(2):
        assert asyncio.run(score.process([Chunk(PROFILED, 0, records(PROFILED, [encode_label(label)]))])) == []
        score.states[0].changed()
    assert score.states[0].origins == {f"{LABELS}/0": 5}


def test_partitions_that_are_processed_together_give_what_each_gives_alone(bundle, world):
    """Transactions of three partitions, some twice, with a garbage record: rows, duplicates and dead letters are the same."""
    some = list(transactions_of(transactions_file(world)))[:90]
    logs: dict[int, list[bytes]] = {
        partition: [encode(one) for one in some if int.from_bytes(one.card_id.encode()) % 3 == partition]
        for partition in range(3)
    }
    logs[1].insert(2, b"garbage")
    logs[2] += logs[2][:4]
    chunks = [
        Chunk(
            TRANSACTIONS,
            partition,
            [SimpleNamespace(**vars(record) | {"partition": partition}) for record in records(TRANSACTIONS, log)],
        )
        for partition, log in logs.items()
    ]
    alone, together = (ProfileStage(bundle.spec, Privacy(), FixedClock(LATEST)) for _ in range(2))
    apart = [output for chunk in chunks for output in asyncio.run(alone.process([chunk]))]
    at_once = asyncio.run(together.process([chunks[2], chunks[0], chunks[1]]))
    score = ScoreStage(bundle.spec, SingleDecider(Decider(bundle)))
    decided = asyncio.run(
        score.process([Chunk(PROFILED, 0, records(PROFILED, [v for o in at_once if o.topic == PROFILED for v in o.values]))])
    )
    assert sum(len(output.keys) for output in decided if output.topic == DECISIONS) == 90

    def rows(outputs) -> set[bytes]:
        return {row for output in outputs if output.topic == PROFILED for value in output.values for row in single_rows(value)}

    def letters(outputs) -> list[bytes]:
        return [value for output in outputs if output.topic == DEAD_LETTERS for value in output.values]

    assert len(rows(apart)) == 90
    assert rows(at_once) == rows(apart)
    assert letters(at_once) == letters(apart)
    for partition, state in alone.states.items():
        state.changed()
        together.states[partition].changed()
        assert together.states[partition].digest == state.digest


def test_chunks_that_were_fetched_together_form_groups_of_bounded_size():
    def chunk(partition: int, size: int) -> RecordChunk:
        record = SimpleNamespace(offset=7, timestamp=1, timestamp_type=0, value=b"x" * size)
        return RecordChunk(TP(PROFILED, partition), [record, record], 7)

    chunks = [chunk(0, 10), chunk(1, 600_000), chunk(2, 10), chunk(3, 10)]
    group_chunks(chunks)
    assert [[one.partition for one in own.group] for own in chunks] == [[0, 1], [0, 1], [2, 3], [2, 3]]
