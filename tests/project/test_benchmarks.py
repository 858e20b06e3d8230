"""The benchmark baseline must do the same work as the engine."""

from itertools import islice

import numpy as np
import pytest

from benchmarks import baseline
from core.messages import decode_decision
from models.features.engine import FeatureEngine
from tests.conftest import transactions_file
from training.replay import transactions_of


def test_the_baseline_computes_the_features_and_probabilities_of_the_engine(world, bundle):
    some = list(islice(transactions_of(transactions_file(world)), 3_000))
    engine = FeatureEngine(bundle.spec)
    X, duplicate, *_ = engine.update(engine.columns(some))
    assert not duplicate.any()
    cards, merchants = {}, {}
    for row, now in zip(X, some, strict=True):
        past = [
            p for p in baseline.decode_past(cards.get(now.card_id, "[]")) if p.event_time > now.event_time - 31 * baseline.DAY
        ]
        own = baseline.card_features(bundle.spec, past, now) + baseline.merchant_features(
            bundle.spec, merchants.get(now.merchant_id, {}), now
        )
        np.testing.assert_allclose(np.array(own, np.float32), row, rtol=1e-4, atol=1e-4)
        probability = decode_decision(baseline.decide(bundle, cards, merchants, now)).probability
        assert probability == pytest.approx(bundle_probability(bundle, own), abs=1e-9)


def bundle_probability(bundle, x):
    margin = bundle.booster.inplace_predict(np.array([x], np.float32), predict_type="margin", validate_features=False)
    return float(bundle.calibration.probability(np.atleast_1d(margin))[0])
