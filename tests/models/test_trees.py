"""The kernel gives the margins of XGBoost bit for bit, for any booster that it accepts and any batch."""

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st

from models import trees as module
from models.trees import trees_of
from tests.strategies import examples

F = 6


def booster(seed: int, rounds: int = 20, **parameters) -> xgb.Booster:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(400, F)).astype(np.float32)
    X[rng.random(X.shape) < 0.3] = np.nan
    X[:, 0] = np.round(X[:, 0])
    y = (np.nansum(X[:, :3], axis=1) + rng.normal(size=400) > 0).astype(np.float32)
    settings = {"objective": "binary:logistic", "nthread": 1, "seed": seed, **parameters}
    return xgb.train(settings, xgb.DMatrix(X, y), rounds)


def by_xgboost(model: xgb.Booster, X) -> np.ndarray:
    return np.atleast_1d(model.inplace_predict(X, predict_type="margin", validate_features=False))


def rows(rng, n: int):
    """Values on and beside thresholds, infinities, zeros of both signs, denormals and missing values."""
    kinds = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-42, 3e38, -3e38, 1.0, -1.0], np.float32)
    X = rng.normal(size=(n, F)).astype(np.float32)
    return np.where(rng.random(X.shape) < 0.3, rng.choice(kinds, X.shape), X)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from([0.02, 0.5]))
@examples(25)
def test_margins_are_those_of_xgboost(seed, depth, gamma, base):
    model = booster(seed, max_depth=depth, gamma=gamma, base_score=base, subsample=0.8)
    found = trees_of(model)
    assert found is not None
    X = rows(np.random.default_rng(seed), 300)
    assert found.margins(X).tobytes() == by_xgboost(model, X).tobytes()


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match="6 features"):
        trees_of(booster(1)).margins(np.zeros((3, F + 1), np.float32))


def test_a_margin_does_not_depend_on_the_batch():
    model = booster(1, max_depth=6)
    found, X = trees_of(model), rows(np.random.default_rng(1), 200)
    whole = found.margins(X)
    for size in (1, 7, 63, 64, 65):
        assert np.concatenate([found.margins(X[at : at + size]) for at in range(0, 200, size)]).tobytes() == whole.tobytes()
    assert found.margins(X[:0]).shape == (0,)
    assert found.margins(np.asfortranarray(X)).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    "parameters",
    [{"booster": "dart", "rate_drop": 0.5}, {"booster": "gblinear"}, {"objective": "multi:softprob", "num_class": 2}],
    ids=lambda given: next(iter(given.values())),
)
def test_other_boosters_are_left_to_xgboost(parameters):
    assert trees_of(booster(2, **parameters)) is None


@pytest.mark.parametrize("objective", ["reg:squarederror", "reg:logistic", "binary:logitraw"])
def test_other_objectives_give_the_same_margins_too(objective):
    model, X = booster(3, objective=objective), rows(np.random.default_rng(3), 100)
    assert trees_of(model).margins(X).tobytes() == by_xgboost(model, X).tobytes()


def test_a_kernel_that_differs_in_one_bit_is_not_used(monkeypatch, caplog):
    model = booster(4)
    assert trees_of(model) is not None
    flattened = module._flattened

    def wrong(learner):
        found = flattened(learner)
        return found._replace(base=np.nextafter(found.base, np.float32(1)))

    monkeypatch.setattr(module, "_flattened", wrong)
    assert trees_of(model) is None
    assert "XGBoost scores it" in caplog.text


@pytest.mark.parametrize("flaw", ["side", "threshold", "leaf"])
def test_the_probes_find_a_flaw_in_any_one_node(flaw, monkeypatch):
    """The comparison when a bundle is loaded visits every part of the trees."""
    model = booster(5, rounds=5, max_depth=4)
    flattened, missed = module._flattened, 0
    count = len(trees_of(model).leaves)
    for at in range(count):

        def wrong(learner, at=at):
            found = flattened(learner)
            inner = np.isfinite(found.nodes["threshold"][at])
            if flaw == "leaf" and not inner:
                found.leaves[at] = np.nextafter(found.leaves[at], np.float32(9))
            elif flaw == "side" and inner:
                found.nodes["packed"][at] ^= np.uint32(1 << module._SIDE_SHIFT)
            elif flaw == "threshold" and inner:
                found.nodes["threshold"][at] = np.nextafter(found.nodes["threshold"][at], np.float32(np.inf))
            else:
                found = found._replace(base=np.float32(9))  # nothing to damage here: the flaw is elsewhere
            return found

        monkeypatch.setattr(module, "_flattened", wrong)
        missed += trees_of(model) is not None
    assert missed <= count * 0.1, f"{missed} of {count} flaws were missed"
