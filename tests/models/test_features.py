import random
import subprocess
import sys
from itertools import groupby

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import NumbaError

from core.messages import Channel, Label, LabelSource, Transaction
from core.privacy.masking import Privacy
from models.features.bucketed import update_bucketed
from models.features.columns import (
    LabelColumns,
    Mark,
    TransactionColumns,
    hash_arrow,
    hash_strings,
    label_columns,
    recent_transactions,
    table_columns,
    transaction_columns,
)
from models.features.compiled import kernel
from models.features.engine import RECENT, EntityEngine, FeatureEngine
from models.features.exact import update_exact
from models.features.labels import apply_labels
from models.features.ops import ALLOWED_OPS, EVENT_OPS, WINDOWLESS_OPS, StateKind
from models.features.spec import Entity, Feature, FeatureSpec, Window, default_spec, handbook_spec
from tests.conftest import GIVEN, ROOT
from tests.features_oracle import EntityOracle, Row, rows_of
from tests.strategies import scaled
from training.data.conform import SCHEMA
from training.data.dataset import LabelledReplay, features_of, load_dataset
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile

HANDBOOK = ROOT.parent / "shared/data/handbook"

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
FRIDAY_MIDNIGHT = 1_577_404_800_000 - 5 * SECOND  # five seconds before Friday 2019-12-27
STARTS = (
    FRIDAY_MIDNIGHT,
    FRIDAY_MIDNIGHT + DAY,  # before a Saturday
    FRIDAY_MIDNIGHT + 3 * DAY,  # before a Monday
    FRIDAY_MIDNIGHT + 6 * HOUR,  # before the end of the night
    FRIDAY_MIDNIGHT + 7 * HOUR,
    946_684_800_000,
    4_000_000_000_000,
)

# Only these have inherent floating-point error; all others are ratios of integers and must match to the last bit.
TOLERANCE = {"amount_zscore": (1e-4, 1e-4), "distance": (1e-6, 1e-6), "speed": (1e-6, 1e-4)}


# --- specs ------------------------------------------------------------------------------------------------------------


def all_features(entity: str, kind: StateKind, windows: tuple[Window, ...], without: frozenset[str] = frozenset()):
    features = []
    for op in sorted(ALLOWED_OPS[kind] | EVENT_OPS):
        name = op.name.lower()
        if name in without:
            continue
        if op in WINDOWLESS_OPS:
            features.append(Feature(f"{entity}_{name}", name))
        else:
            features += [Feature(f"{entity}_{name}_{window.length}", name, window.length) for window in windows]
    return tuple(features)


def exact_entity(name="card", delay="0s", lateness="30s", history=8, windows=("10s", "1m", "5m"), without=frozenset()) -> Entity:
    made = tuple(Window(window) for window in windows)
    features = all_features(name, StateKind.EXACT, made, without)
    return Entity(name, f"{name}_id", StateKind.EXACT, made, features, delay, lateness, history)


def bucketed_entity(name="merchant", history=8) -> Entity:
    windows = (Window("1m", "10s"), Window("75s", "10s"), Window("2m", "1m"), Window("5m", "1m"), Window("10m", "5m"))
    return Entity(
        name, f"{name}_id", StateKind.BUCKETED, windows, all_features(name, StateKind.BUCKETED, windows), history=history
    )


def small_spec(*entities: Entity) -> FeatureSpec:
    return FeatureSpec("small", "EUR", entities, rates={"USD": 0.9, "JPY": 0.0061}, fraud_prior=0.01, prior_weight=10.0)


SMALL_SPECS = {
    "exact card, bucketed merchant": small_spec(exact_entity(), bucketed_entity()),
    "exact card that forgets soon": small_spec(exact_entity(history=4, lateness="0s"), bucketed_entity(history=4)),
    "exact merchant with a delay": small_spec(
        exact_entity(history=64), exact_entity("merchant", delay="20s", lateness="1m", history=8)
    ),
    "one window": small_spec(exact_entity(delay="1s", windows=("1m",), history=16)),
}
ROOMY_SPECS = {
    "bucketed merchant": small_spec(exact_entity(history=64), bucketed_entity(history=64)),
    "exact merchant": small_spec(exact_entity(history=64), exact_entity("merchant", delay="20s", history=64)),
}
SMALL_STEPS = tuple(
    sign * (length + off)
    for length in (SECOND, 10 * SECOND, 20 * SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, 5 * MINUTE + 30 * SECOND, 10 * MINUTE)
    for off in (-1, 0, 1)
    for sign in (1, 1, -1)
) + (0,) * 20  # fmt: skip
LARGE_STEPS = tuple(
    sign * (length + off)
    for length in (MINUTE, 5 * MINUTE, HOUR, DAY, 7 * DAY, 8 * DAY, 30 * DAY, 31 * DAY)
    for off in (-1, 0, 1)
    for sign in (1, 1, -1)
) + (0,) * 20  # fmt: skip


# --- streams ----------------------------------------------------------------------------------------------------------

AMOUNTS = (0, 1, 2, 33, 499, 500, 501, 999, 1000, 4_999, 12_345, 99_999, 200_000)
HUGE_AMOUNTS = (*AMOUNTS, 2**31 - 1, 2**31, 10**10 + 7, 10**13 - 1, 10**13)
CURRENCIES = ("EUR", "EUR", "EUR", "USD", "JPY", "XXX")
MCCS = (None, "0000", "0001", "5411", "9999")
COUNTRIES = (None, "AA", "BE", "FR", "ZZ")
CHANNELS = (None, Channel.CARD_PRESENT, Channel.CARD_PRESENT, Channel.ONLINE)
DEVICES = (None, None, "d1", "d2", "d3", "d4", "d5", "d6")
PLACES = (
    (None, None), (50.8503, 4.3517), (50.8503, 4.3518), (50.8503, None), (None, 4.3517),
    (-33.8688, 151.2093), (0.0, 0.0), (90.0, 0.0), (-90.0, 12.0), (0.0, 180.0), (0.0, -180.0),
)  # fmt: skip


def transaction(number: int | str, event_time: int, card="a", merchant="m", amount=1000, currency="EUR", **fields) -> Transaction:
    return Transaction(
        transaction_id=f"t{number}", event_time=event_time, card_id=card, merchant_id=merchant, amount=amount, currency=currency,
        **fields,
    )  # fmt: skip


def label(of: Transaction, label_time: int, fraud: bool = True) -> Label:
    return Label(
        transaction_id=of.transaction_id, card_id=of.card_id, merchant_id=of.merchant_id, event_time=of.event_time,
        label_time=label_time, fraud=fraud, source=LabelSource.CHARGEBACK,
    )  # fmt: skip


@st.composite
def streams(draw, steps=SMALL_STEPS, amounts=AMOUNTS, cards="ab", labels=True, max_size=40):
    """
    Draw transactions and labels in order of arrival. The time of each differs from that of one of the last few by a step near a
    window length or by zero, so that window edges, ties and late arrivals are common.
    """
    pick = st.sampled_from
    event = st.tuples(
        st.integers(0, 3), pick(steps), pick(cards), pick("mnop"), pick(amounts), pick(CURRENCIES), pick(MCCS), pick(COUNTRIES),
        pick(CHANNELS), pick(DEVICES), pick(PLACES), pick((None, None, None, None, 0, 1, 2, 5)),
    )  # fmt: skip
    report = st.tuples(st.integers(0, 8), pick(steps), pick((True, True, False)))
    start = draw(pick(STARTS))
    arrived: list[Transaction] = []
    stream: list[Transaction | Label] = []
    for number in range(draw(st.one_of(st.integers(1, max_size), st.integers(max_size // 2, max_size)))):
        part = draw(report if labels and draw(st.integers(0, 5)) == 5 else event)
        if len(part) == 3:
            back, step, fraud = part
            of = arrived[-1 - back] if back < len(arrived) else transaction(f"never{back}", start, card="a", merchant="n")
            stream.append(label(of, of.event_time + step, fraud))
            continue
        back, step, card, merchant, amount, currency, mcc, country, channel, device, (lat, lon), again = part
        event_time = (arrived[max(-1 - back, -len(arrived))].event_time if arrived else start) + step
        known = None
        if again is not None and again < len(arrived):
            known, card = arrived[-1 - again].transaction_id, arrived[-1 - again].card_id if again < 5 else card
        made = Transaction(
            transaction_id=known or f"t{number}", event_time=event_time, card_id=card, merchant_id=merchant, amount=amount,
            currency=currency, mcc=mcc, country=country, channel=channel, device_id=device, lat=lat, lon=lon,
        )  # fmt: skip
        if again == 1 and len(arrived) > 1:
            made = arrived[-2]  # an exact copy
        arrived.append(made)
        stream.append(made)
    return stream


def random_stream(
    seed: int, n: int, cards: int, merchants: int, steps=SMALL_STEPS, hot: float = 0.0, start: int = FRIDAY_MIDNIGHT
) -> list[Transaction | Label]:
    """Return a long stream like those of ``streams``; a share ``hot`` of the transactions has one card and one merchant."""
    rng = random.Random(seed)
    arrived: list[Transaction] = []
    stream: list[Transaction | Label] = []
    now = start
    for number in range(n):
        if arrived and rng.random() < 0.15:
            of = rng.choice(arrived[-50:])
            stream.append(label(of, of.event_time + abs(rng.choice(steps)), rng.random() < 0.8))
        now += abs(rng.choice(steps)) // 20
        event_time = now + (-abs(rng.choice(steps)) if rng.random() < 0.2 else 0)
        busy = rng.random() < hot
        lat, lon = rng.choice(PLACES)
        repeated = arrived and rng.random() < 0.05
        earlier = rng.choice(arrived[-8:]) if repeated else None
        made = Transaction(
            transaction_id=earlier.transaction_id if earlier else f"t{number}",
            event_time=event_time,
            card_id=earlier.card_id if earlier else "hot" if busy else f"c{rng.randrange(cards)}",
            merchant_id="hot" if busy else f"m{rng.randrange(merchants)}",
            amount=rng.choice(AMOUNTS),
            currency=rng.choice(CURRENCIES),
            mcc=rng.choice(MCCS),
            country=rng.choice(COUNTRIES),
            channel=rng.choice(CHANNELS),
            device_id=rng.choice(DEVICES),
            lat=lat,
            lon=lon,
        )
        if earlier and rng.random() < 0.5:
            made = earlier  # an exact copy
        arrived.append(made)
        stream.append(made)
    return stream


def transactions_of(stream) -> list[Transaction]:
    return [message for message in stream if isinstance(message, Transaction)]


def labels_of(stream) -> list[Label]:
    return [message for message in stream if isinstance(message, Label)]


# --- running and comparing --------------------------------------------------------------------------------------------


def engine_rows(engine: FeatureEngine | EntityEngine, stream, recent: int = 0):
    """Feed a stream to an engine in runs between labels; return X, duplicates, recent rows, merchants and marks."""
    parts = []
    for is_label, run in groupby(stream, key=lambda message: isinstance(message, Label)):
        if is_label:
            engine.apply_labels(label_columns(list(run)))
        else:
            columns = engine.columns(list(run))
            X, duplicate, marks, past = engine.update(columns, recent)
            parts.append((X, duplicate, past, columns.merchant, marks))
    if not parts:
        return (
            np.empty((0, 0), np.float32),
            np.empty(0, bool),
            np.empty((0, recent, 3), np.int64),
            np.empty(0, np.uint64),
            np.empty(0, np.int64),
        )
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def assert_rows(features: list[Feature], X, duplicate, rows: list[Row]) -> None:
    assert duplicate.tolist() == [row.duplicate for row in rows]
    expected = np.array([row.features for row in rows], np.float64).reshape(len(rows), len(features)).astype(np.float32)
    assert X.dtype == np.float32
    assert X.shape == expected.shape
    for f, feature in enumerate(features):
        rtol, atol = TOLERANCE.get(feature.op, (0.0, 0.0))
        np.testing.assert_allclose(X[:, f], expected[:, f], rtol=rtol, atol=atol, equal_nan=True, err_msg=feature.name)


def features_in(spec: FeatureSpec) -> list[Feature]:
    return [feature for entity in spec.entities for feature in entity.features]


def check_against_oracle(spec: FeatureSpec, stream, recent: int = RECENT) -> None:
    rows = rows_of(spec, stream, recent)
    X, duplicate, earlier, merchant, marks = engine_rows(FeatureEngine(spec), stream, recent)
    if rows:
        assert_rows(features_in(spec), X, duplicate, rows)
        assert [int(mark) for mark, row in zip(marks, rows, strict=True) if not row.duplicate] == [
            row.marks for row in rows if not row.duplicate
        ]
    for row, past, own in zip(rows, earlier, merchant, strict=True):
        assert recent_transactions(past.tolist(), int(own)) == row.recent


def run_replay(spec: FeatureSpec, columns: TransactionColumns, labels: LabelColumns, batch: int):
    replay = LabelledReplay(FeatureEngine(spec), labels)
    n = len(columns.event_time)
    parts = [replay.update(columns.rows(slice(begin, begin + batch)), RECENT) for begin in range(0, n, batch)]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def by_label_time(stream) -> list[Label]:
    return sorted(labels_of(stream), key=lambda message: message.label_time)


# A failure is reported as it is found: shrinking it takes minutes, and the comparison names the feature that differs.
# WHYFLAG_TEST_SHRINK=1 shrinks it.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, *((Phase.shrink,) if GIVEN.get("WHYFLAG_TEST_SHRINK") else ()))


def lenient(max_examples: int):
    return settings(
        max_examples=scaled(max_examples),
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=PHASES,
    )


def column(spec: FeatureSpec, X, name: str) -> list[float]:
    return X[:, spec.feature_names.index(name)].tolist()


# --- each op alone ----------------------------------------------------------------------------------------------------


def ops_of(kind: StateKind):
    return [pytest.param(kind, op, id=f"{kind.value}-{op.name.lower()}") for op in sorted(ALLOWED_OPS[kind] | EVENT_OPS)]


@pytest.mark.parametrize(("kind", "op"), [*ops_of(StateKind.EXACT), *ops_of(StateKind.BUCKETED)])
def test_an_op_agrees_with_the_oracle(kind, op):
    """The first tests to fail when an op is wrong, each within a second and under the op's name."""
    entity = exact_entity(history=16) if kind is StateKind.EXACT else bucketed_entity(history=16)
    own = tuple(feature for feature in entity.features if feature.op == op.name.lower())
    spec = small_spec(msgspec.structs.replace(entity, features=own))
    for seed, start in enumerate(STARTS):
        check_against_oracle(spec, random_stream(seed, 60, cards=2, merchants=2, start=start))


# --- engine and oracle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL_SPECS)
@lenient(120)
@given(stream=streams())
def test_engine_agrees_with_the_oracle_on_small_specs(name, stream):
    check_against_oracle(SMALL_SPECS[name], stream)


@lenient(100)
@given(streams(LARGE_STEPS))
def test_engine_agrees_with_the_oracle_on_the_default_spec(stream):
    check_against_oracle(default_spec(), stream)


@lenient(100)
@given(streams(LARGE_STEPS))
def test_engine_agrees_with_the_oracle_on_the_handbook_spec(stream):
    check_against_oracle(handbook_spec(), stream)


@lenient(30)
@given(streams(amounts=HUGE_AMOUNTS))
def test_sums_of_the_largest_amounts_are_exact(stream):
    card = exact_entity(without=frozenset({"amount_zscore"}), history=64)
    check_against_oracle(small_spec(card, bucketed_entity()), stream)


@pytest.mark.parametrize("history", [4, 16, 64])
def test_a_busy_key_keeps_its_newest_transactions(history):
    spec = small_spec(exact_entity(history=history), bucketed_entity(history=history))
    check_against_oracle(spec, random_stream(history, 500, cards=2, merchants=2, hot=0.5))


@pytest.mark.parametrize("history", [1, 3, 5, 12])
def test_a_history_length_that_is_not_a_power_of_two_is_kept_exactly(history):
    spec = small_spec(exact_entity(history=history), bucketed_entity(history=history))
    check_against_oracle(spec, random_stream(history, 200, cards=2, merchants=2, hot=0.5))


@pytest.mark.parametrize("entity", [exact_entity(history=8), bucketed_entity(history=8)], ids=["exact", "bucketed"])
def test_state_grows_over_thousands_of_keys_without_changing_a_feature(entity):
    spec = small_spec(entity)
    stream = random_stream(5, 6000, cards=3000, merchants=3000, hot=0.02)
    engine, oracle, rows = EntityEngine(spec, entity, slots=2), EntityOracle(spec, entity), []
    before = engine.nbytes
    for message in stream:
        if isinstance(message, Label):
            oracle.label(message)
        else:
            rows.append(oracle.transaction(message))
    X, duplicate, *_ = engine_rows(engine, stream)
    assert_rows(list(entity.features), X, duplicate, rows)
    assert engine.keys == len(oracle.keys) > 1500
    assert engine.nbytes > 50 * before
    engine.changed()
    assert engine.keys == len(oracle.alive())


# --- batches ----------------------------------------------------------------------------------------------------------


def assert_batches_agree(spec: FeatureSpec, columns: TransactionColumns, labels: LabelColumns):
    """Assert that replays in batches of several sizes agree; return the result of batch size 1."""
    one = run_replay(spec, columns, labels, 1)
    for batch in (7, 256):
        for ours, theirs in zip(run_replay(spec, columns, labels, batch), one, strict=True):
            assert np.array_equal(ours, theirs, equal_nan=ours.dtype == np.float32)
    return one


@pytest.mark.parametrize("name", ROOMY_SPECS)
@lenient(30)
@given(stream=streams(max_size=60))
def test_batch_size_does_not_change_results(name, stream):
    spec, transactions, labels = ROOMY_SPECS[name], transactions_of(stream), by_label_time(stream)
    if transactions:
        X, duplicate, *_ = assert_batches_agree(spec, FeatureEngine(spec).columns(transactions), label_columns(labels))
        assert_rows(features_in(spec), X, duplicate, rows_of(spec, [*labels, *transactions]))


def test_batch_size_does_not_change_results_over_a_long_stream():
    spec = small_spec(exact_entity(history=8), bucketed_entity(history=512))
    stream = random_stream(11, 3000, cards=200, merchants=30, hot=0.05)
    X, duplicate, *_ = assert_batches_agree(
        spec, FeatureEngine(spec).columns(transactions_of(stream)), label_columns(by_label_time(stream))
    )
    assert 0 < duplicate.sum() < len(X) == 3000


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROOMY_SPECS)
@lenient(120)
@given(
    stream=streams(max_size=30),
    place=st.integers(0, 30),
    wait=st.sampled_from((0, 1, SECOND, 10 * SECOND, MINUTE)),
    fraud=st.booleans(),
)
def test_a_label_known_only_later_changes_no_feature_until_then(name, stream, place, wait, fraud):
    spec, transactions = ROOMY_SPECS[name], transactions_of(stream)
    if not transactions:
        return
    place %= len(transactions)
    planted = transactions[place]
    stream = [
        message for message in stream if isinstance(message, Transaction) or message.transaction_id != planted.transaction_id
    ]
    label_time = max(t.event_time for t in transactions[: place + 1]) + wait
    without = engine_rows(FeatureEngine(spec), stream)[0]
    planted_stream = [label(planted, label_time, fraud), *stream]
    with_label = engine_rows(FeatureEngine(spec), planted_stream)[0]
    unaware = np.array([t.event_time < label_time for t in transactions])
    assert np.array_equal(with_label[unaware], without[unaware], equal_nan=True)
    check_against_oracle(spec, planted_stream)


@pytest.mark.parametrize("name", ["card_fraud_count_5m", "card_fraud_share_5m"])
def test_a_label_known_only_later_does_not_displace_a_known_one(name):
    spec = small_spec(exact_entity(history=4))
    frauds = [transaction(number, FRIDAY_MIDNIGHT + number) for number in range(5)]
    known = [label(fraud, FRIDAY_MIDNIGHT + 10) for fraud in frauds[:4]]
    future = label(frauds[4], FRIDAY_MIDNIGHT + MINUTE)
    last = transaction("last", FRIDAY_MIDNIGHT + SECOND)
    without = engine_rows(FeatureEngine(spec), [*frauds, *known, last])[0]
    with_label = engine_rows(FeatureEngine(spec), [*frauds, *known, future, last])[0]
    assert column(spec, with_label, name)[-1] == column(spec, without, name)[-1]


def labelled(reports: list[tuple[int, bool]], times: list[int], name: str, merchant_entity: Entity) -> list[float]:
    """Return a feature at ``times``, after a transaction at 0 that has ``reports`` (label time, fraud); times in seconds."""
    spec = small_spec(merchant_entity)
    first = transaction("first", FRIDAY_MIDNIGHT)
    stream = [first, *(label(first, FRIDAY_MIDNIGHT + when * SECOND, fraud) for when, fraud in reports)]
    stream += [transaction(number, FRIDAY_MIDNIGHT + when * SECOND) for number, when in enumerate(times)]
    check_against_oracle(spec, stream)
    return column(spec, engine_rows(FeatureEngine(spec), stream)[0], name)[1:]


EXACT_MERCHANT = exact_entity("merchant", history=64)


def test_a_fraud_counts_from_its_label_time_on():
    assert labelled([(30, True)], [10, 29, 30, 31], "merchant_fraud_count_5m", EXACT_MERCHANT) == [0, 0, 1, 1]
    assert labelled([(30, True)], [10, 29, 30, 31], "merchant_fraud_reports_1m", bucketed_entity()) == [0, 0, 1, 1]


def test_fraud_counts_expire_by_event_time_and_fraud_reports_by_label_time():
    assert labelled([(30, True)], [59, 60, 61], "merchant_fraud_count_1m", EXACT_MERCHANT) == [1, 0, 0]
    assert labelled([(30, True)], [59, 89, 90, 91], "merchant_fraud_reports_1m", bucketed_entity()) == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("reports", "counted"),
    [
        ([(10, True), (20, False)], [0, 1, 1, 0, 0]),
        ([(10, True), (20, False), (25, True)], [0, 1, 1, 0, 1]),
        ([(10, True), (5, False)], [0, 1, 1, 1, 1]),  # the older label is already overruled
        ([(5, False), (10, True)], [0, 1, 1, 1, 1]),
    ],
)
def test_a_retraction_counts_from_its_label_time_until_a_newer_report(reports, counted):
    times = [5, 15, 19, 20, 30]
    assert labelled(reports, times, "merchant_fraud_count_5m", EXACT_MERCHANT) == counted
    assert labelled(reports, times, "merchant_fraud_reports_1m", bucketed_entity()) == counted


@pytest.mark.parametrize(
    ("entity", "name"), [(EXACT_MERCHANT, "merchant_fraud_count_5m"), (bucketed_entity(), "merchant_fraud_reports_1m")]
)
def test_a_label_known_at_once_does_not_count_for_its_own_transaction(entity, name):
    spec, own = small_spec(entity), transaction("own", FRIDAY_MIDNIGHT)
    stream = [label(own, own.event_time), own, transaction("next", own.event_time + 1)]
    check_against_oracle(spec, stream)
    assert column(spec, engine_rows(FeatureEngine(spec), stream)[0], name) == [0, 1]


def test_a_repeated_label_counts_once():
    assert labelled([(10, True), (10, True), (12, True)], [9, 10, 15], "merchant_fraud_count_5m", EXACT_MERCHANT) == [0, 1, 1]


# --- duplicates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL_SPECS)
@lenient(40)
@given(stream=streams(cards="a"), place=st.integers(0, 40), step=st.sampled_from(SMALL_STEPS))
def test_duplicates_are_nan_and_change_nothing(name, stream, place, step):
    spec, transactions = SMALL_SPECS[name], transactions_of(stream)
    if transactions:
        copied = transactions[place % len(transactions)]
        changed = transaction(copied.transaction_id[1:], copied.event_time + step, "a", "mnop"[place % 4], device_id="new")
        stream = [*stream[: place + 1], changed, *stream[place + 1 :]]
    X, duplicate, *_ = engine_rows(FeatureEngine(spec), stream)
    assert np.isnan(X[duplicate]).all()
    masked = iter(duplicate.tolist())
    once = [message for message in stream if isinstance(message, Label) or not next(masked)]
    fresh, none, *_ = engine_rows(FeatureEngine(spec), once)
    assert not none.any()
    assert np.array_equal(X[~duplicate], fresh, equal_nan=True)


def test_a_repeated_transaction_id_is_a_duplicate_within_the_retention_of_the_same_card():
    spec = small_spec(exact_entity(lateness="30s"))
    retention = 5 * MINUTE + 30 * SECOND
    start = FRIDAY_MIDNIGHT
    for wait, expected in ((0, True), (retention - 1, True), (retention, False), (retention + 1, False)):
        stream = [transaction(1, start), transaction(2, start + wait), transaction(1, start)]
        assert engine_rows(FeatureEngine(spec), stream)[1].tolist() == [False, False, expected]
        check_against_oracle(spec, stream)
    other_card = [transaction(1, start), transaction(1, start, card="b")]
    _, duplicate, _, _, marks = engine_rows(FeatureEngine(spec), other_card)
    assert duplicate.tolist() == [False, False]
    assert marks.tolist() == [0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 50_000_000}, {"merchant": "n"}, {"currency": "USD"}, {"mcc": "5411"}, {"country": "FR"}, {"channel": Channel.ONLINE},
        {"device_id": "d"}, {"lat": 1.0, "lon": 2.0}, {"event_time": FRIDAY_MIDNIGHT + 1},
    ],
)  # fmt: skip
def test_a_reused_id_with_other_content_is_a_new_transaction_and_marked(changes):
    spec = small_spec(exact_entity())
    first = {"event_time": FRIDAY_MIDNIGHT, "amount": 1000}
    stream = [transaction(1, **first), transaction(1, **(first | changes)), transaction(1, **first)]
    _, duplicate, _, _, marks = engine_rows(FeatureEngine(spec), stream)
    assert duplicate.tolist() == [False, False, True]
    assert (marks[:2] & Mark.REUSED).tolist() == [0, Mark.REUSED]
    check_against_oracle(spec, stream)


def test_amounts_without_an_exchange_rate_still_distinguish_transactions():
    """Features ignore an amount without an exchange rate, but it is part of the transaction's content."""
    spec = small_spec(exact_entity())
    stream = [transaction(1, FRIDAY_MIDNIGHT, amount=amount, currency="XXX") for amount in (1, 2)]
    assert engine_rows(FeatureEngine(spec), stream)[1].tolist() == [False, False]


def test_an_event_is_late_when_it_is_older_than_the_newest_by_more_than_the_lateness():
    """The newest event of any card counts, not only of the same card: a rarely used card can be backdated too."""
    spec = small_spec(exact_entity(lateness="30s"))
    times = [("a", 0), ("b", 60), ("a", 30), ("a", 29.999), ("c", 29.999), ("b", 60)]
    stream = [transaction(number, FRIDAY_MIDNIGHT + int(when * SECOND), card) for number, (card, when) in enumerate(times)]
    marks = engine_rows(FeatureEngine(spec), stream)[4]
    assert [bool(mark & Mark.LATE) for mark in marks] == [False, False, False, True, True, False]
    check_against_oracle(spec, stream)


# --- edges a reader can check by hand ---------------------------------------------------------------------------------


def test_a_window_is_open_at_its_beginning_and_closed_at_its_end():
    spec = small_spec(exact_entity(), exact_entity("merchant", delay="20s"))
    start = FRIDAY_MIDNIGHT
    times = [0, 9_999, 10_000, 10_001, 10_001]
    stream = [transaction(number, start + when) for number, when in enumerate(times)]
    X = engine_rows(FeatureEngine(spec), stream)[0]
    assert column(spec, X, "card_count_10s") == [1, 2, 2, 3, 4]
    for when, expected in (
        (start + 19_999, 0),
        (start + 20_000, 1),
        (start + 29_999, 2),
        (start + 30_001, 4),
        (start + 40_000, 2),
    ):
        X = engine_rows(FeatureEngine(spec), [*stream, transaction("last", when, card="b")])[0]
        assert column(spec, X, "merchant_count_10s")[-1] == expected


def test_a_bucketed_window_covers_the_complete_buckets_before_the_current_one():
    spec = small_spec(bucketed_entity())
    start = 1_577_404_800_000  # a multiple of every resolution
    stream = [transaction(number, start + when) for number, when in enumerate((0, 9_999, 10_000, 59_999, 60_000, 69_999, 70_000))]
    X = engine_rows(FeatureEngine(spec), stream)[0]
    assert column(spec, X, "merchant_count_1m") == [0, 0, 2, 3, 4, 4, 4]
    assert column(spec, X, "merchant_count_2m") == [0, 0, 0, 0, 4, 4, 4]


def test_a_late_transaction_is_not_counted_in_an_expired_bucket():
    spec = small_spec(bucketed_entity())
    start = 1_577_404_800_000
    ring = 8 * 10 * SECOND  # 1 + 75 s // 10 s buckets
    late = transaction("late", start + 1)
    for newer, expected in ((ring - 10 * SECOND, 1), (ring, 0)):
        stream = [transaction(1, start + newer), late, transaction(2, start + 10 * SECOND)]
        assert column(spec, engine_rows(FeatureEngine(spec), stream)[0], "merchant_count_1m")[-1] == expected
        check_against_oracle(spec, stream)


def test_the_last_four_devices_are_remembered():
    spec = small_spec(exact_entity())
    devices = ["d1", "d2", "d3", "d4", "d1", "d5", "d1", "d2", None, "d6", "d3", "d1"]
    stream = [transaction(number, FRIDAY_MIDNIGHT + number, device_id=device) for number, device in enumerate(devices)]
    X = engine_rows(FeatureEngine(spec), stream)[0]
    new = column(spec, X, "card_new_device")
    np.testing.assert_array_equal(new, [np.nan, 1, 1, 1, 0, 1, 0, 1, np.nan, 1, 1, 0])
    check_against_oracle(spec, stream)


def test_distance_and_speed_use_the_newest_location_that_is_not_online():
    spec = small_spec(exact_entity(windows=("1m", "1d")))
    start, brussels, sydney = FRIDAY_MIDNIGHT, {"lat": 50.8503, "lon": 4.3517}, {"lat": -33.8688, "lon": 151.2093}
    stream = [
        transaction(1, start, **brussels),
        transaction(2, start + HOUR, channel=Channel.ONLINE, **sydney),
        transaction(3, start - HOUR, **sydney),
        transaction(4, start + 2 * HOUR, **brussels),
        transaction(5, start + 2 * HOUR, **sydney),
    ]
    X = engine_rows(FeatureEngine(spec), stream)[0]
    far = 16_753.0
    np.testing.assert_allclose(column(spec, X, "card_distance"), [np.nan, np.nan, far, 0, far], rtol=1e-3)
    np.testing.assert_allclose(column(spec, X, "card_speed"), [np.nan, np.nan, far, 0, far * 60], rtol=1e-3)
    check_against_oracle(spec, stream)


# --- columns ----------------------------------------------------------------------------------------------------------


def table_of(transactions: list[Transaction]) -> pa.Table:
    rows = {field: [getattr(t, field) for t in transactions] for field in SCHEMA.names}
    rows["channel"] = [None if channel is None else channel.value for channel in rows["channel"]]
    return pa.table(rows, schema=SCHEMA)


@lenient(80)
@given(streams(amounts=HUGE_AMOUNTS, labels=False), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_table_columns_equal_the_columns_of_the_messages(stream, cut, begin, known):
    rates = {"USD": 0.9, "JPY": 0.0061} if known else {}
    table = pa.concat_tables([table_of(stream[:cut]), table_of(stream[cut:])])
    begin = min(begin, len(stream) - 1)
    sliced = table_of(stream).slice(begin)
    whole = transaction_columns(stream, "EUR", rates, 500, 5)
    for made, expected in (
        (table_columns(table, "EUR", rates, 500, 5), whole),
        (table_columns(sliced, "EUR", rates, 500, 5), whole.rows(slice(begin, None))),
    ):
        for name, ours, theirs in zip(TransactionColumns._fields, made, expected, strict=True):
            assert ours.dtype == theirs.dtype, name
            assert ours.tobytes() == theirs.tobytes(), name


def test_columns_of_no_transactions_are_empty():
    made, expected = table_columns(table_of([]), "EUR", {}, 500, 5), transaction_columns([], "EUR", {}, 500, 5)
    for ours, theirs in zip(made, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert len(ours) == len(theirs) == 0


@lenient(150)
@given(st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=20), st.integers(0, 20))
@example(["", None, "é", "日本語", "😀" * 9, "a" * 8, "a" * 9, "a" * 7 + "\0"], 1)
@example([None, None], 0)
@example([], 0)
def test_arrow_strings_hash_as_python_strings(texts, begin):
    expected = hash_strings(texts)
    whole = pa.array(texts, pa.string())
    assert hash_arrow(whole).tolist() == expected.tolist()
    assert hash_arrow(whole.slice(begin)).tolist() == expected[begin:].tolist()
    assert hash_arrow(whole.cast(pa.large_string())).tolist() == expected.tolist()
    assert [value == 0 for value in expected.tolist()] == [text is None for text in texts]
    assert len(set(expected.tolist())) == len(set(texts))


# --- the book's published features ------------------------------------------------------------------------------------


def published_differences() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return, for each published feature, which rows differ (bool [n]), and which rows share card and second with another."""
    spec = handbook_spec()
    source = TransactionFile(HANDBOOK / "transactions.parquet", load_mapping("handbook"))
    dataset = load_dataset(source, spec, None, Privacy(), lambda _: None)
    X, duplicate = features_of(dataset, spec, lambda _: None)
    assert not duplicate.any()
    ids = np.array(dataset.identities["transaction_id"].to_pylist(), np.int64)
    published = pq.read_table(HANDBOOK / "features_published.parquet")
    order = np.argsort(ids)
    wanted = published["TRANSACTION_ID"].to_numpy()
    rows = order[np.searchsorted(ids, wanted, sorter=order)]
    assert np.array_equal(ids[rows], wanted)
    differing = {}
    for f, name in enumerate(spec.feature_names):
        if name in published.column_names:
            theirs = published[name].to_numpy().astype(np.float32)
            # the published mean of zeros alone is the residue of a running sum, about 1e-14
            differing[name] = (X[rows, f] != theirs) & (np.abs(X[rows, f] - theirs) > 1e-9)
    seconds = dataset.columns.event_time // SECOND
    _, group, size = np.unique(
        np.stack([dataset.columns.card.view(np.int64), seconds]), axis=1, return_inverse=True, return_counts=True
    )
    return differing, (size[group.ravel()] > 1)[rows]


@pytest.mark.slow
@pytest.mark.skipif(not HANDBOOK.is_dir(), reason="the Fraud Detection Handbook's data is missing (shared/data/handbook)")
def test_handbook_published_features():
    differing, tied = published_differences()
    assert len(differing) == 14
    assert {len(rows) for rows in differing.values()} == {631_833}
    customer = {name for name in differing if name.startswith("CUSTOMER_ID")}
    assert [name for name in differing if name not in customer and differing[name].any()] == []
    odd = np.any([differing[name] for name in customer], axis=0)
    print(f"{odd.sum()} of {len(odd)} rows differ in a customer feature")
    assert odd.sum() <= 24
    assert tied[odd].all()


@pytest.mark.parametrize("compiled", [update_exact, update_bucketed, apply_labels])
def test_kernels_count_no_references(compiled):
    assert compiled.targetoptions["_nrt"] is False


def test_numba_refuses_a_kernel_that_allocates():
    def allocates():
        return np.zeros(1)

    assert njit(allocates)()[0] == 0
    with pytest.raises(NumbaError):
        kernel(allocates)()


_CALLER = """
import sys
sys.path.insert(0, {root!r})
from models.features.compiled import kernel
from callee import answer

@kernel
def asked():
    return answer()

print(asked())
"""


def test_a_cached_kernel_is_compiled_again_when_a_kernel_that_it_calls_has_changed(tmp_path):
    def printed(value):
        (tmp_path / "callee.py").write_text(
            f"from models.features.compiled import kernel\n@kernel\ndef answer():\n    return {value}\n"
        )
        return subprocess.run([sys.executable, tmp_path / "caller.py"], capture_output=True, text=True, check=True).stdout

    (tmp_path / "caller.py").write_text(_CALLER.format(root=str(ROOT)))
    assert [printed(1), printed(2), printed(2)] == ["1\n", "2\n", "2\n"]
    (index,) = tmp_path.glob("__pycache__/caller.asked*.nbi")
    written = index.stat().st_mtime_ns
    assert (printed(2), index.stat().st_mtime_ns) == ("2\n", written)  # read from the cache
