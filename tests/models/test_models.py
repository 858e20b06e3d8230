import json
import shutil

import numpy as np
import pytest
from msgspec import structs
from sklearn.ensemble import IsolationForest

from core.errors import BundleError, InputError
from core.messages import Outcome
from core.privacy.masking import Privacy
from models.attribution import contributions
from models.bundles.bundle import MANIFEST, load_bundle
from models.features.ops import StateKind
from models.features.spec import Entity, Feature, FeatureSpec, Window, decode_spec, default_spec, encode_spec, handbook_spec
from models.novelty import fit_forest, novelty
from models.policy import APPROVE
from models.scorer import CURRENCY_UNKNOWN, MODEL_UNAVAILABLE, decisions, payments, reason_codes, score, unscored
from tests.conftest import transactions_file
from training.data.dataset import features_of, load_dataset


@pytest.fixture(scope="module")
def X(world, bundle):
    dataset = load_dataset(transactions_file(world), bundle.spec, world / "labels.parquet", Privacy(), lambda n: None)
    return features_of(dataset, bundle.spec, lambda n: None)[0]


@pytest.mark.parametrize("spec", [default_spec(), handbook_spec()])
def test_a_spec_round_trips_and_keeps_its_version(spec):
    again = decode_spec(encode_spec(spec))
    assert again == spec
    assert again.version == spec.version


def test_the_default_spec_is_about_forty_features():
    assert 40 <= len(default_spec().feature_names) <= 50


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (Feature("a", "fraud_reports", "1d"), "exact state has no operation"),
        (Feature("a", "no_such", "1d"), "has no operation"),
        (Feature("a", "count"), "takes a window"),
        (Feature("a", "amount", "1d"), "takes no window"),
        (Feature("a", "count", "9d"), "has no window"),
    ],
)
def test_a_spec_that_cannot_be_computed_is_refused(feature, message):
    spec = FeatureSpec("x", "EUR", (Entity("card", "card_id", StateKind.EXACT, (Window("1d"),), (feature,)),))
    with pytest.raises(InputError, match=message):
        decode_spec(encode_spec(spec))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lateness": "1h"}, "lateness must be longer"),
        ({"history": 0}, "history must be from 1"),
        ({"history": 8_193}, "history must be from 1"),
        ({"windows": (Window("0s"),)}, "windows must be longer than zero"),
        ({"windows": (Window("3661d"),)}, "at most 3660 days"),
    ],
)
def test_an_entity_out_of_bounds_is_refused(changes, message):
    entity = structs.replace(Entity("card", "card_id", StateKind.EXACT, (Window("1d"),), (Feature("a", "hour"),)), **changes)
    with pytest.raises(InputError, match=message):
        decode_spec(encode_spec(FeatureSpec("x", "EUR", (entity,))))


@pytest.mark.parametrize("name", ["normal_amount", "normal_weight", "prior_weight", "unusual_ratio"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_divisor_that_is_not_positive_is_refused(name, value):
    with pytest.raises(InputError, match=f"{name} must be above zero and finite, not {value}"):
        decode_spec(encode_spec(structs.replace(default_spec(), **{name: value})))


@pytest.mark.parametrize("rate", [0.0, -1.0, 1e-10, 1e10])
def test_an_exchange_rate_out_of_bounds_is_refused(rate):
    with pytest.raises(InputError, match="the exchange rate of USD must be from"):
        decode_spec(encode_spec(structs.replace(default_spec(), rates={"USD": rate})))


def test_scores_are_bit_identical_for_any_batch_size(bundle, X):
    X = X[:1500]
    priced = np.zeros(len(X), np.uint8)
    whole = score(bundle, X, priced)
    for size in (1, 7, 256):
        parts = [score(bundle, X[i : i + size], priced[i : i + size]) for i in range(0, len(X), size)]
        for name in ("probability", "novelty", "outcome", "novel"):
            np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_contributions_add_up_to_the_margin(bundle, X):
    shap, bias = contributions(bundle.booster, X[:200])
    margin = bundle.booster.inplace_predict(X[:200], predict_type="margin")
    np.testing.assert_allclose(shap.sum(axis=1) + bias, margin, atol=2e-4)


def test_novelty_equals_scikit_learns_isolation_forest():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6)).astype(np.float32)
    X[::7, 2] = np.nan
    forest = fit_forest(X, seed=4)
    filled = np.where(np.isnan(X), forest.median, X)
    theirs = IsolationForest(n_estimators=64, max_samples=256, random_state=4).fit(filled)
    np.testing.assert_allclose(novelty(forest, X), -theirs.score_samples(filled), rtol=1e-6)
    far = np.full((1, 6), 30, np.float32)
    assert novelty(forest, far)[0] > novelty(forest, X).max()


def test_without_a_model_everything_is_reviewed_with_a_reason_code(world, bundle):
    from training.replay import transactions_of

    scores = unscored(np.zeros(1, np.uint8))
    (decided,) = decisions(payments([next(transactions_of(transactions_file(world)))]), scores)
    assert decided.outcome is Outcome.REVIEW
    assert decided.reason_codes == (MODEL_UNAVAILABLE,)
    assert decided.probability is None
    assert decided.expected_loss == decided.amount


def test_an_unknown_currency_is_never_approved_silently(bundle, X):
    scores = score(bundle, X[:50], np.ones(50, np.uint8))
    assert (scores.outcome != APPROVE).all()
    assert reason_codes(scores, 0)[0] == CURRENCY_UNKNOWN


def test_a_bundle_is_named_by_its_content(bundle_dir, bundle):
    assert json.loads((bundle_dir / MANIFEST).read_text())["version"] == bundle.version


@pytest.mark.parametrize("name", ["model.ubj", "spec.json", "policy.json", "novelty.npz", "cases.parquet", MANIFEST])
def test_an_altered_bundle_is_refused(bundle_dir, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(bundle_dir, copy)
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(raw)
    with pytest.raises(BundleError, match=r"altered|cannot be"):
        load_bundle(copy)


def test_a_missing_bundle_or_file_raises_a_bundle_error(bundle_dir, tmp_path):
    with pytest.raises(BundleError, match="whyflag train"):
        load_bundle(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(bundle_dir, copy)
    (copy / "model.ubj").unlink()
    with pytest.raises(BundleError, match=r"model\.ubj is missing"):
        load_bundle(copy)
