"""State as rows: rows that are written and read back restore the same state, and its digest depends on the events alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import StateError
from core.messages import Transaction
from models.features.columns import label_columns
from models.features.engine import EntityEngine
from models.features.spec import FeatureSpec, default_spec
from models.features.state import WATERMARK
from tests.models.test_features import (
    DAY,
    FRIDAY_MIDNIGHT,
    LARGE_STEPS,
    ROOMY_SPECS,
    SECOND,
    SMALL_SPECS,
    SMALL_STEPS,
    lenient,
    random_stream,
    streams,
    transaction,
)


def feed(engine: EntityEngine, stream, size: int = 1):
    """Feed a stream to an engine in batches, with labels applied between batches, and return the engine's outputs."""
    batches, batch = [], []
    for message in [*stream, None]:
        if isinstance(message, Transaction):
            batch.append(message)
        if batch and (len(batch) == size or not isinstance(message, Transaction)):
            batches.append(engine.update(engine.columns(batch), 4))
            batch = []
        if message is not None and not isinstance(message, Transaction):
            engine.apply_labels(label_columns([message]))
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)] if batches else []


def written(engine: EntityEngine) -> dict[int, bytes | None]:
    """Return what changed, by key: a row, or None for a key that is no longer held."""
    rows, removed = engine.changed()
    cuts = zip(rows.keys.tolist(), rows.offsets, rows.offsets[1:], strict=False)
    return dict.fromkeys(removed.tolist()) | {key: rows.words[begin:end].tobytes() for key, begin, end in cuts}


def read_back(engine: EntityEngine, log: dict[int, bytes | None]) -> None:
    engine.load([row for row in log.values() if row is not None])
    engine.remove(np.array([key for key, row in log.items() if row is None], np.uint64))


def engines(spec: FeatureSpec) -> list[EntityEngine]:
    return [EntityEngine(spec, entity, slots=2) for entity in spec.entities]


def same(ours, theirs) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", SMALL_SPECS)
@lenient(80)
@given(
    stream=streams(SMALL_STEPS * 3 + LARGE_STEPS),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    size=st.sampled_from((1, 7, 100)),
)
def test_state_that_is_read_back_continues_like_the_original(name, stream, cuts, size):
    """Nor does removing keys when rows are written change a feature: the engine ``untouched`` never removes one."""
    entities = zip(*(engines(SMALL_SPECS[name]) for _ in range(4)), strict=True)
    for whole, first, second, untouched in entities:
        cuts = sorted(min(cut, len(stream)) for cut in cuts)
        log, begin = {}, 0
        for cut in cuts:
            feed(first, stream[begin:cut], size)
            log |= written(first)
            begin = cut
        read_back(second, log)
        assert second.keys == sum(row is not None for row in log.values())
        feed(whole, stream[:begin])
        whole.changed()
        assert second.digest == first.digest == whole.digest
        rest = feed(second, stream[begin:], size)
        assert same(rest, feed(whole, stream[begin:], size))
        feed(untouched, stream[:begin], size)
        assert same(rest, feed(untouched, stream[begin:], size))
        assert written(second) == written(whole)
        assert second.digest == whole.digest


def test_thousands_of_keys_are_read_back_into_an_engine_with_few_slots():
    spec = ROOMY_SPECS[next(iter(ROOMY_SPECS))]
    stream = random_stream(5, 3000, cards=700, merchants=90, hot=0.1)
    for first, second in zip(engines(spec), engines(spec), strict=True):
        feed(first, stream[:2000], 50)
        log = written(first)
        feed(first, stream[2000:], 50)
        log |= written(first)
        read_back(second, log)
        assert (second.keys, second.digest) == (first.keys, first.digest)
        assert written(second) == {}


def invented(n: int, begin: int, step: int, number: int = 0) -> list[Transaction]:
    """Return n transactions, each of a new merchant and a new card."""
    return [transaction(number + i, begin + i * step, f"c{number + i}", f"m{number + i}") for i in range(n)]


def held_keys(engine: EntityEngine) -> set[int]:
    return set(engine._state.keys[: engine.keys].tolist())


def test_keys_are_removed_when_they_can_no_longer_affect_features():
    """The retention is 5 or 10 minutes plus the lateness."""
    for engine in engines(SMALL_SPECS["exact card, bucketed merchant"]):
        feed(engine, invented(3000, FRIDAY_MIDNIGHT, SECOND), 500)
        assert engine.keys == 3000
        log = written(engine)
        assert engine.keys == min(3000, engine._plan.retention // SECOND + 1)
        feed(engine, invented(1, FRIDAY_MIDNIGHT + 3 * DAY, SECOND, 5000))
        log |= written(engine)
        assert engine.keys == sum(row is not None for row in log.values()) == 1


def test_memory_of_removed_keys_is_reused():
    engine = engines(default_spec())[1]
    sizes = []
    for day in range(1, 100, 3):
        feed(engine, invented(2000, FRIDAY_MIDNIGHT + day * DAY, 1, 2000 * day), 500)
        engine.changed()
        sizes.append(engine.nbytes)
    assert sizes[-1] == sizes[len(sizes) // 2]


def test_a_merchant_that_was_seen_once_costs_less_than_600_bytes():
    engine = engines(default_spec())[1]
    empty = engine.nbytes
    feed(engine, invented(100_000, FRIDAY_MIDNIGHT, 1), 5000)
    assert engine.keys == 100_000
    assert (engine.nbytes - empty) / engine.keys < 600


@pytest.mark.parametrize("number", [0, 1])
def test_at_the_ceiling_the_stalest_keys_are_evicted_for_any_batch_size(number):
    spec = SMALL_SPECS["exact card, bucketed merchant"]
    stream = random_stream(3, 1500, cards=400, merchants=400, hot=0.05)
    bounded = [EntityEngine(spec, spec.entities[number], slots=2, ceiling=64) for _ in range(3)]
    results = [feed(engine, stream, size) for engine, size in zip(bounded, (1, 7, 1500), strict=True)]
    assert same(results[0], results[1])
    assert same(results[0], results[2])
    assert all(engine.keys <= 64 for engine in bounded)
    assert len({engine.changed() and engine.digest for engine in bounded}) == 1
    newest = invented(10, int(bounded[0]._state.meta[WATERMARK]) + 1, 1, 9000)
    feed(bounded[0], newest)
    of_newest = bounded[0].columns(newest).key(spec.entities[number].key)
    assert set(of_newest.tolist()) <= held_keys(bounded[0])


def test_a_ceiling_changes_no_feature_while_all_live_keys_fit():
    spec = SMALL_SPECS["exact card, bucketed merchant"]
    for entity in spec.entities:
        free, bounded = EntityEngine(spec, entity), EntityEngine(spec, entity, slots=2, ceiling=700)
        stream = invented(5000, FRIDAY_MIDNIGHT, SECOND)
        assert same(feed(free, stream, 50), feed(bounded, stream, 50))
        assert bounded.keys <= 700 < free.keys == 5000


def test_a_lowered_ceiling_is_enforced_at_the_next_new_key():
    spec = SMALL_SPECS["exact card, bucketed merchant"]
    first, second = EntityEngine(spec, spec.entities[0]), EntityEngine(spec, spec.entities[0], ceiling=64)
    feed(first, invented(200, FRIDAY_MIDNIGHT, 1), 50)
    read_back(second, written(first))
    assert second.keys == 200
    feed(second, invented(1, FRIDAY_MIDNIGHT + SECOND, 1, 900))
    assert second.keys <= 64


@lenient(40)
@given(streams(LARGE_STEPS, max_size=20), st.data())
def test_a_damaged_row_is_refused_or_shows_in_the_digest(stream, data):
    spec = default_spec()
    for first, second in zip(engines(spec), engines(spec), strict=True):
        feed(first, stream)
        log = [row for row in written(first).values() if row is not None]
        if not log:
            continue
        which = data.draw(st.integers(0, len(log) - 1))
        row = log[which]
        kind = data.draw(st.sampled_from(("bit", "cut", "lost", "empty")))
        if kind == "bit":
            at = data.draw(st.integers(0, len(row) - 1))
            log[which] = row[:at] + bytes([row[at] ^ 1 << data.draw(st.integers(0, 7))]) + row[at + 1 :]
        elif kind == "cut":
            log[which] = row[: data.draw(st.integers(0, len(row) - 1))]
        elif kind == "lost":
            del log[which]
        else:
            log[which] = b""
        try:
            second.load(log)
        except StateError:
            continue
        assert second.digest != first.digest
