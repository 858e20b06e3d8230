"""State as rows: what is written and read back is the same past, and its digest depends on the events alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import StateError
from core.messages import Transaction
from models.features.columns import label_columns
from models.features.engine import EntityEngine
from models.features.spec import FeatureSpec, default_spec
from tests.test_features import LARGE_STEPS, ROOMY_SPECS, SMALL_SPECS, lenient, random_stream, streams


def feed(engine: EntityEngine, stream, size: int = 1):
    """Features of a stream of transactions and labels, a label between two batches as it comes."""
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


def written(engine: EntityEngine) -> list[bytes]:
    rows, _ = engine.changed()
    return [rows.words[begin:end].tobytes() for begin, end in zip(rows.offsets, rows.offsets[1:], strict=False)]


def engines(spec: FeatureSpec) -> list[EntityEngine]:
    return [EntityEngine(spec, entity, slots=2) for entity in spec.entities]


def same(ours, theirs) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", SMALL_SPECS)
@lenient(80)
@given(stream=streams(), cuts=st.lists(st.integers(0, 40), max_size=3), size=st.sampled_from((1, 7, 100)))
def test_state_read_back_goes_on_as_if_nothing_had_happened(name, stream, cuts, size):
    for whole, first, second in zip(*(engines(SMALL_SPECS[name]) for _ in range(3)), strict=True):
        cuts = sorted(min(cut, len(stream)) for cut in cuts)
        log, begin = [], 0
        for cut in cuts:
            feed(first, stream[begin:cut], size)
            log += written(first)
            begin = cut
        second.load(log)
        assert second.keys == len({row[:8] for row in log})
        feed(whole, stream[:begin])
        whole.changed()
        assert second.digest == first.digest == whole.digest
        assert same(feed(second, stream[begin:], size), feed(whole, stream[begin:], size))
        assert sorted(written(second)) == sorted(written(whole))
        assert second.digest == whole.digest


def test_thousands_of_keys_are_read_back_into_little_room():
    spec = ROOMY_SPECS[next(iter(ROOMY_SPECS))]
    stream = random_stream(5, 3000, cards=700, merchants=90, hot=0.1)
    for first, second in zip(engines(spec), engines(spec), strict=True):
        feed(first, stream[:2000], 50)
        log = written(first)
        feed(first, stream[2000:], 50)
        log += written(first)
        second.load(log)
        assert (second.keys, second.digest) == (first.keys, first.digest)
        assert written(second) == []


@lenient(40)
@given(streams(LARGE_STEPS, max_size=20), st.data())
def test_a_damaged_row_is_refused_or_shows_in_the_digest(stream, data):
    spec = default_spec()
    for first, second in zip(engines(spec), engines(spec), strict=True):
        feed(first, stream)
        log = written(first)
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
