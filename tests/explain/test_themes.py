"""Reasons by theme: their sum, the side of their facts, and how rare the values of those facts are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from core.messages import Contrast, Side, Unit
from explain.facts.attribution import attribute
from explain.facts.themes import contrast, reasons_by_theme
from models.bundles.bundle import load_bundle
from models.features.ops import Theme
from models.features.spec import SPECS
from models.features.themes import themes_of


@pytest.mark.parametrize("name", SPECS)
def test_every_feature_of_every_spec_has_a_theme(name):
    spec = SPECS[name]("EUR")
    assert len(themes_of(spec)) == len(spec.feature_names)
    assert len(set(themes_of(spec))) <= 9


def test_the_default_spec_has_all_nine_themes(bundle):
    assert set(themes_of(bundle.spec)) == set(Theme)


def test_themes_add_up_to_the_score(explained, bundle):
    for alert, explanation in explained:
        assert explanation.start == attribute(alert, bundle).bias
        margin = explanation.start + sum(reason.contribution for reason in explanation.themes)
        probability = bundle.calibration.probability(np.array([margin], np.float32))[0]
        assert probability == pytest.approx(alert.decision.probability, abs=1e-5)
        assert len(explanation.themes) == 9
        sizes = [abs(reason.contribution) for reason in explanation.themes]
        assert sizes == sorted(sizes, reverse=True)


def test_the_probability_without_a_theme_is_computed_from_the_other_themes(explained, bundle):
    for alert, explanation in explained[:50]:
        for reason in explanation.themes:
            rest = explanation.start + sum(other.contribution for other in explanation.themes if other is not reason)
            expected = bundle.calibration.probability(np.array([rest], np.float32))[0]
            assert reason.probability_without == pytest.approx(expected, abs=1e-6)
            assert (reason.probability_without < alert.decision.probability) == (reason.contribution > 0) or abs(
                reason.contribution
            ) < 1e-4


def test_facts_and_their_contrasts_are_on_the_side_of_their_theme(explained, bundle):
    told = 0
    for alert, explanation in explained:
        for reason in explanation.themes:
            assert len(reason.facts) <= 2
            for fact in map(explanation.fact, reason.facts):
                told += 1
                assert fact.contribution * reason.contribution > 0
                assert (fact.contrast.fraud_share > fact.contrast.honest_share) == (reason.contribution > 0)
                scale = 100 if fact.values["value"].unit is Unit.MONEY else 1
                assert fact.values["value"].number == pytest.approx(scale * alert.features[fact.feature])
                assert (fact.side is Side.FRAUD) == (reason.contribution > 0)
                theme = themes_of(bundle.spec)[bundle.spec.feature_names.index(fact.feature)]
                assert theme == reason.theme
    assert told > len(explained)


def test_no_themes_without_a_score(alerts, explainer):
    other = structs.replace(alerts[0], decision=structs.replace(alerts[0].decision, bundle="another"))
    assert explainer.explain(other).themes == ()


def test_an_unknown_value_is_not_a_reason(explained, bundle):
    alert, explanation = next((a, e) for a, e in explained if e.themes[0].facts)
    name = explanation.fact(explanation.themes[0].facts[0]).feature
    own = attribute(alert, bundle)
    unknown = structs.replace(alert, features=alert.features | {name: None})
    assert name not in [fact.feature for fact in reasons_by_theme(unknown, bundle, own.shap, own.bias).facts]


columns = st.lists(st.one_of(st.just(math.nan), st.integers(-5, 5).map(float)), min_size=1, max_size=30)


@given(columns, columns, st.integers(-6, 6).map(float))
def test_contrast_counts_values_that_are_at_least_as_extreme(honest, fraud, value):
    found = contrast(np.sort(np.array(honest, np.float32)), np.sort(np.array(fraud, np.float32)), value)
    high, honest_share, fraud_share = found.high, found.honest_share, found.fraud_share
    known = sorted(x for x in honest if not math.isnan(x))
    if known and value != known[len(known) // 2]:
        assert high == (value > known[len(known) // 2])
    for column, share in ((honest, honest_share), (fraud, fraud_share)):
        extreme = [x >= value if high else x <= value for x in column if not math.isnan(x)]
        assert share == sum(extreme) / len(column)


def test_a_flag_that_most_honest_payments_lack_has_a_contrast_for_both_values():
    honest, fraud = np.sort(np.array([0.0] * 98 + [1.0] * 2, np.float32)), np.sort(np.array([0.0] * 54 + [1.0] * 46, np.float32))
    assert contrast(honest, fraud, 0.0) == Contrast(False, 0.98, 0.54)
    assert contrast(honest, fraud, 1.0) == Contrast(True, 0.02, 0.46)


def test_the_reference_of_a_bundle_is_bounded_and_sorted(bundle):
    for sample, most in ((bundle.reference.honest, 5_000), (bundle.reference.fraud, 2_000)):
        assert 0 < len(sample) <= most
        assert sample.shape[1] == len(bundle.spec.feature_names)
        for column in sample.T:
            known = column[~np.isnan(column)]
            assert np.all(known[:-1] <= known[1:])
            assert np.isnan(column[len(known) :]).all()


def test_a_bundle_of_an_older_format_is_refused(bundle_dir, tmp_path):
    import json
    import shutil

    from core.errors import BundleError
    from models.bundles.bundle import MANIFEST

    shutil.copytree(bundle_dir, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / MANIFEST).read_text())
    (tmp_path / "old" / MANIFEST).write_text(json.dumps(manifest | {"format": 1}))
    with pytest.raises(BundleError, match="has format 1, this version of whyflag reads 2: train again"):
        load_bundle(tmp_path / "old")
