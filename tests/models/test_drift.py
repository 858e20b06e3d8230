"""Drift: the stability index on a worked example, detection of simulated drift, and counts of maturing decisions."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from core.privacy.masking import Privacy
from models.drift import BINS, SHIFTED, STABLE, DriftWindow, counted, distributions, stability
from models.features.columns import LabelColumns, TransactionColumns
from models.features.spec import default_spec
from models.scorer import unscored
from streams.stages.monitoring import MaturingDecisions
from tests.conftest import DAY
from training.data.dataset import features_of, load_dataset
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from training.simulator import SimulationSpec, simulate


def test_the_stability_index_of_a_worked_example():
    shares = np.zeros((1, BINS + 1), np.float32)
    shares[0, :2] = 0.5
    counts = np.zeros((1, BINS + 1), np.int64)
    counts[0, :2] = 60, 40
    expected = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert stability(shares, counts)[0] == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200))
def test_every_value_falls_in_one_bin_and_a_distribution_is_stable_against_itself(values):
    column = np.array([[np.nan if value is None else value] for value in values], np.float32)
    edges, shares = distributions(column)
    counts = counted(column, edges)
    assert counts.sum() == len(values)
    assert counts[0, BINS] == values.count(None)
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert stability(shares, counts)[0] == pytest.approx(0, abs=1e-5)


def _features(drift: bool, tmp_path):
    made = simulate(SimulationSpec(transactions=60_000, days=120, fraud_share=0.01, seed=4, drift=drift))
    for name in ("transactions", "labels"):
        pq.write_table(getattr(made, name), tmp_path / f"{name}.parquet")
    spec = default_spec()
    source = TransactionFile(tmp_path / "transactions.parquet", load_mapping("whyflag"))
    dataset = load_dataset(source, spec, tmp_path / "labels.parquet", Privacy(), lambda n: None)
    X, _ = features_of(dataset, spec, lambda n: None)
    day = (dataset.columns.event_time - dataset.columns.event_time[0]) // DAY
    early, late = X[(day >= 35) & (day < 55)], X[day >= 100]
    edges, shares = distributions(early)
    return dict(zip(spec.feature_names, stability(shares, counted(late, edges)), strict=True))


def test_simulated_drift_is_detected_without_false_alarms(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    still, moved = _features(False, tmp_path / "a"), _features(True, tmp_path / "b")
    # amounts and the share of online purchases drift: visible in means and shares, hardly in single transactions
    drifting = ("card_amount_mean_30d", "card_online_share_30d", "merchant_amount_mean_30d")
    assert max(still[name] for name in drifting) < STABLE / 2, still
    assert max(moved[name] for name in drifting) > STABLE, moved


def test_a_full_window_turns_and_halves_the_weight_of_past_counts():
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(5000, 2)).astype(np.float32)
    window = DriftWindow(*distributions(usual), size=1000)
    assert not window.add(usual[:500, :1], usual[:500, 1].astype(float))
    assert window.add(usual[500:1000, :1], usual[500:1000, 1].astype(float))
    assert window.close().max() < 0.05
    indices = []
    for _ in range(6):
        while not window.add(usual[:100, :1] + 3, usual[:100, 1].astype(float)):
            pass
        indices.append(window.close())
    shift = [float(index[0]) for index in indices]
    assert shift == sorted(shift), "each turn must weigh past counts less"
    assert shift[-1] > SHIFTED > indices[-1][1]


def _columns(time, transaction):
    n = len(time)
    zero = np.zeros(n, np.int64)
    return TransactionColumns(
        transaction=np.array(transaction, np.uint64), content=zero.astype(np.uint64), event_time=np.array(time, np.int64), card=zero.astype(np.uint64),
        merchant=zero.astype(np.uint64), device=zero.astype(np.uint64), amount=zero, attributes=zero, lat=np.zeros(n), lon=np.zeros(n),
    )  # fmt: skip


def _label(transaction, label_time, fraud=True):
    one = np.zeros(1, np.uint64)
    return LabelColumns(
        np.array([transaction], np.uint64), one, one, np.zeros(1, np.int64), np.array([label_time]), np.array([fraud])
    )


def _scores(probability, outcome):
    from msgspec import structs

    return structs.replace(
        unscored(np.zeros(len(outcome), np.uint8)), probability=np.array(probability, float), outcome=np.array(outcome, np.int8)
    )


def _counts():
    def of(alert, fraud):
        return REGISTRY.get_sample_value("whyflag_matured_decisions_total", {"alert": alert, "fraud": fraud}) or 0.0

    found = {(a, f): of(a, f) for a in ("true", "false") for f in ("true", "false")}
    return found | {"p": REGISTRY.get_sample_value("whyflag_matured_probability_total") or 0.0}


def test_decisions_are_counted_when_their_labels_are_due():
    before = _counts()
    maturing = MaturingDecisions(delay_ms=100)
    maturing.observe(_columns([0, 10, 20, 30], [1, 2, 3, 4]), _scores([0.9, 0.2, 0.1, 0.05], [2, 1, 0, 0]))
    maturing.label(_label(1, 50))
    maturing.label(_label(3, 60))
    maturing.label(_label(2, 60))
    maturing.label(_label(2, 70, fraud=False))  # retracted
    assert _counts() == before, "nothing is due yet"
    maturing.observe(_columns([125], [5]), _scores([0.5], [1]))
    after = _counts()
    gained = {key: after[key] - before[key] for key in after}
    # alert 1 was fraud, alert 2 was not, 3 was fraud and missed; 4 is not due
    assert gained == {
        ("true", "true"): 1, ("true", "false"): 1, ("false", "true"): 1, ("false", "false"): 0, "p": pytest.approx(1.2),
    }  # fmt: skip


def test_when_too_many_decisions_wait_a_sample_keeps_the_counts_right():
    before = _counts()
    rng = np.random.default_rng(1)
    n = 40_000
    ids = rng.integers(0, 2**63, n)
    fraud = rng.random(n) < 0.05
    maturing = MaturingDecisions(delay_ms=1000, room=5_000)
    for begin in range(0, n, 1000):
        rows = slice(begin, begin + 1000)
        maturing.observe(_columns(np.zeros(1000), ids[rows]), _scores(np.full(1000, 0.05), np.zeros(1000)))
    for transaction in ids[fraud]:
        maturing.label(_label(transaction, 10))
    maturing.observe(_columns([5000], [1]), _scores([0.5], [1]))
    after = _counts()
    missed, fine = (after["false", key] - before["false", key] for key in ("true", "false"))
    assert missed + fine == pytest.approx(n, rel=0.1)
    assert missed / (missed + fine) == pytest.approx(0.05, rel=0.25)
    assert len(maturing) < 5_000


def test_the_number_of_waiting_alerts_stays_bounded():
    """A failing model sends every transaction to review; the waiting decisions stay bounded and nothing raises."""
    maturing = MaturingDecisions(delay_ms=10**9, room=1_000)
    rng = np.random.default_rng(2)
    for begin in range(0, 200_000, 500):
        maturing.observe(_columns(np.full(500, begin), rng.integers(0, 2**63, 500)), _scores(np.full(500, np.nan), np.ones(500)))
    assert 0 < len(maturing) <= 1_000
    maturing.observe(_columns(np.full(5_000, 10), rng.integers(0, 2**63, 5_000)), _scores(np.full(5_000, 0.1), np.zeros(5_000)))
    assert len(maturing) <= 1_000
