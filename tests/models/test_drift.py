"""Drift: the stability index on a worked example, and detection of simulated drift."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.privacy.masking import Privacy
from models.drift import BINS, SHIFTED, STABLE, DriftWindow, counted, distributions, stability
from models.features.spec import default_spec
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
