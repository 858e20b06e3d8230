"""Calibration: probabilities that mean what they say, methods compared on later data, and unreported frauds."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from models.calibration import (
    Calibration,
    CalibrationMethod,
    CalibrationQuality,
    ReliabilityBin,
    best_calibration,
    calibration_error,
    compare_calibrations,
    fit_calibration,
    reliability,
)


def test_calibration_recovers_known_probabilities_and_keeps_the_order():
    rng = np.random.default_rng(1)
    margin = rng.normal(-3, 2, 60_000).astype(np.float32)
    true = 1 / (1 + np.exp(-(0.7 * margin - 0.5)))
    fraud = rng.random(len(margin)) < true
    calibration = fit_calibration(margin, fraud)
    assert abs(calibration.slope - 0.7) < 0.05
    assert abs(calibration.intercept + 0.5) < 0.1
    p = calibration.probability(margin)
    assert (np.diff(p[np.argsort(margin)]) >= 0).all()
    assert sum(b.count for b in calibration.bins) == len(margin)
    for b in reliability(p, fraud):
        if b.count > 500:
            assert b.low - 0.03 < b.frauds / b.count < b.high + 0.03


def test_calibration_methods_are_compared_on_later_data():
    rng = np.random.default_rng(0)
    margin = rng.normal(-3, 2, 20_000).astype(np.float32)
    # a step that no sigmoid can fit
    truth = np.where(margin > 0, 0.9, 0.01)
    fraud = rng.random(20_000) < truth
    compared = compare_calibrations(margin, fraud)
    assert set(compared) == set(CalibrationMethod)
    assert best_calibration(compared) == "isotonic"
    assert compared["isotonic"].calibration_error < compared["none"].calibration_error
    for method in CalibrationMethod:
        fitted = fit_calibration(margin, fraud, method)
        p = fitted.probability(np.sort(margin))
        assert (np.diff(p) >= 0).all()
        if method != "none":
            assert brier_score_loss(fraud, fitted.probability(margin)) < brier_score_loss(fraud, np.full(20_000, fraud.mean()))
    smooth = rng.random(20_000) < 1 / (1 + np.exp(-margin.astype(float)))
    assert best_calibration(compare_calibrations(margin, smooth)) == "sigmoid"
    few = np.zeros(20_000, bool)
    few[:5] = True
    assert best_calibration(compare_calibrations(margin, few)) == "sigmoid"


@pytest.mark.parametrize("method", [method for method in CalibrationMethod if method != "none"])
@pytest.mark.parametrize("known", [0.4, 0.8])
def test_calibration_is_right_for_alerts_although_many_frauds_are_unreported(method, known):
    rng = np.random.default_rng(7)
    margin = rng.normal(-2.5, 1.5, 60_000).astype(np.float32)
    probability = 1 / (1 + np.exp(-(1.3 * margin + 0.4).astype(float)))
    fraud = rng.random(len(margin)) < probability
    seen = fraud & (rng.random(len(margin)) < known)
    fitted = fit_calibration(margin, seen, method, known).probability(margin)
    alerts = fitted > 0.2
    assert fitted[alerts].mean() == pytest.approx(fraud[alerts].mean(), rel=0.06)
    assert calibration_error(fitted[alerts], fraud[alerts]) < 0.04
    blind = fit_calibration(margin, seen, method).probability(margin)
    assert blind[alerts].mean() < 0.9 * fraud[alerts].mean(), "without the correction, unreported frauds count as honest"


def test_calibration_is_unchanged_if_every_fraud_is_reported():
    rng = np.random.default_rng(8)
    margin = rng.normal(-2, 1, 5_000).astype(np.float32)
    fraud = rng.random(5_000) < 1 / (1 + np.exp(-margin.astype(float)))
    assert fit_calibration(margin, fraud, known=1.0) == fit_calibration(margin, fraud)


def test_a_sigmoid_is_the_logistic_function_of_slope_and_intercept():
    calibration = Calibration(2.0, -1.0)
    margin = np.array([-3.0, 0.0, 0.5, 4.0], np.float32)
    assert calibration.probability(margin).tolist() == pytest.approx([1 / (1 + np.exp(-(2 * m - 1))) for m in margin.tolist()])
    assert calibration.probability(margin).dtype == np.float64
    assert calibration.method is CalibrationMethod.SIGMOID


def test_isotonic_steps_keep_a_thousandth_of_the_sigmoid():
    plain = Calibration(1.0, 0.0)
    steps = Calibration(1.0, 0.0, method=CalibrationMethod.ISOTONIC, knots=((0.0, 0.2), (2.0, 0.6)))
    margin = np.array([-5.0, 1.0, 9.0], np.float32)
    expected = 0.999 * np.array([0.2, 0.4, 0.6]) + 0.001 * plain.probability(margin)
    assert steps.probability(margin).tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_a_probability_falls_in_the_bin_that_begins_at_or_below_it():
    bins = (ReliabilityBin(0.0, 0.5, 10, 1), ReliabilityBin(0.5, 0.8, 0, 0), ReliabilityBin(0.8, 1.0, 4, 3))
    calibration = Calibration(1.0, 0.0, bins=bins)
    assert calibration.bin_of(0.0) is bins[0]
    assert calibration.bin_of(0.4999) is bins[0]
    assert calibration.bin_of(0.5) is None, "calibration saw nothing there"
    assert calibration.bin_of(0.8) is calibration.bin_of(1.0) is bins[2]
    assert calibration.bin_of(1.1) is None
    assert Calibration(1.0, 0.0, bins=bins[:1]).bin_of(1.0) is None


@pytest.mark.parametrize("fraud", [np.zeros(50, bool), np.ones(50, bool)])
@pytest.mark.parametrize("method", CalibrationMethod)
def test_one_outcome_alone_leaves_the_margin_as_it_is(fraud, method):
    fitted = fit_calibration(np.linspace(-3, 3, 50).astype(np.float32), fraud, method)
    assert fitted == Calibration(1.0, 0.0, method=CalibrationMethod.NONE)


def test_each_method_says_which_it_is():
    margin = np.linspace(-4, 4, 400).astype(np.float32)
    fraud = np.random.default_rng(3).random(400) < 1 / (1 + np.exp(-margin))
    fitted = {method: fit_calibration(margin, fraud, method) for method in CalibrationMethod}
    none, sigmoid, isotonic = (fitted[m] for m in (CalibrationMethod.NONE, CalibrationMethod.SIGMOID, CalibrationMethod.ISOTONIC))
    assert (none.method, none.slope, none.intercept, none.knots) == (CalibrationMethod.NONE, 1.0, 0.0, ())
    assert (sigmoid.method, sigmoid.knots) == (CalibrationMethod.SIGMOID, ())
    assert isotonic.method is CalibrationMethod.ISOTONIC
    assert (isotonic.slope, isotonic.intercept) == (sigmoid.slope, sigmoid.intercept)
    assert len(isotonic.knots) > 2
    assert all(0 <= height <= 1 for _, height in isotonic.knots)
    for one in fitted.values():
        assert list(one.bins) == reliability(one.probability(margin), fraud)


def test_an_inverted_score_gets_no_negative_slope():
    margin = np.linspace(-4, 4, 400).astype(np.float32)
    fraud = margin < 0
    assert fit_calibration(margin, fraud).slope == 1e-6


def test_heights_of_isotonic_steps_never_exceed_one_however_few_are_reported():
    margin = np.linspace(-4, 4, 400).astype(np.float32)
    fraud = margin > 1
    fitted = fit_calibration(margin, fraud, CalibrationMethod.ISOTONIC, known=0.5)
    assert max(height for _, height in fitted.knots) == 1.0
    half = fit_calibration(margin, np.arange(400) % 5 == 0, CalibrationMethod.ISOTONIC, known=0.5)
    assert half.knots[-1][1] == pytest.approx(0.4, abs=0.01)


def test_the_calibration_error_of_a_worked_example():
    p = np.array([0.1, 0.15, 0.85, 0.85])
    fraud = np.array([False, False, True, False])
    # bins [0.1, 0.2) and [0.8, 0.9): |0.25 - 0| and |1.7 - 1|, over four
    assert calibration_error(p, fraud) == pytest.approx((0.25 + 0.7) / 4)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0
    assert calibration_error(np.array([0.05]), np.array([True])) == pytest.approx(0.95)


def test_reliability_of_a_worked_example():
    p = np.array([0.0, 0.005, 0.01, 0.99, 1.0])
    fraud = np.array([False, True, False, True, True])
    bins = {(one.low, one.high): (one.count, one.frauds) for one in reliability(p, fraud)}
    assert len(bins) == 11
    assert bins[0.0, 0.01] == (2, 1)
    assert bins[0.01, 0.02] == (1, 0)
    assert bins[0.9, 1.0] == (2, 2)
    assert sum(count for count, _ in bins.values()) == 5
    assert [(one.low, one.count) for one in reliability(p, fraud, (0.0, 0.5, 1.0))] == [(0.0, 3), (0.5, 2)]


def test_methods_are_compared_on_the_second_half_only():
    rng = np.random.default_rng(11)
    margin = rng.normal(-1, 2, 4_000).astype(np.float32)
    fraud = rng.random(4_000) < 1 / (1 + np.exp(-margin))
    compared = compare_calibrations(margin, fraud)
    for method in CalibrationMethod:
        p = fit_calibration(margin[:2_000], fraud[:2_000], method).probability(margin[2_000:])
        found = compared[method]
        assert found.brier == pytest.approx(brier_score_loss(fraud[2_000:], p), abs=1e-6)
        assert found.calibration_error == pytest.approx(calibration_error(p, fraud[2_000:]), abs=1e-6)
        assert found.log_loss == pytest.approx(-np.mean(np.where(fraud[2_000:], np.log(p), np.log1p(-p))), abs=1e-5)
    halved = compare_calibrations(margin, fraud, known=0.5)
    p = 0.5 * fit_calibration(margin[:2_000], fraud[:2_000], CalibrationMethod.SIGMOID, 0.5).probability(margin[2_000:])
    assert halved[CalibrationMethod.SIGMOID].brier == pytest.approx(brier_score_loss(fraud[2_000:], p), abs=1e-6)


@pytest.mark.parametrize(("first", "second", "enough"), [(20, 20, True), (19, 21, False), (21, 19, False)])
def test_twenty_frauds_in_each_half_are_enough_to_compare(first, second, enough):
    fraud = np.zeros(2_000, bool)
    fraud[:first] = True
    fraud[1_000 : 1_000 + second] = True
    compared = compare_calibrations(np.linspace(-2, 2, 2_000).astype(np.float32), fraud)
    assert bool(compared) is enough


def test_another_method_must_be_one_percent_better_than_the_sigmoid():
    def compared(isotonic):
        values = {CalibrationMethod.SIGMOID: 0.1, CalibrationMethod.ISOTONIC: isotonic, CalibrationMethod.NONE: 0.2}
        return {method: CalibrationQuality(value, 1.0, 1.0) for method, value in values.items()}

    assert best_calibration(compared(0.0991)) is CalibrationMethod.SIGMOID
    assert best_calibration(compared(0.0989)) is CalibrationMethod.ISOTONIC
    assert best_calibration(compared(0.3)) is CalibrationMethod.SIGMOID
    assert best_calibration({}) is CalibrationMethod.SIGMOID


@pytest.mark.parametrize(
    ("p", "fraud", "error"),
    [
        ([0.01, 0.0099], [True, False], (0.99 + 0.0099) / 2),  # neighbouring bins: an edge belongs to the upper one
        ([1.0, 0.85], [False, True], (1.0 + 0.15) / 2),
        ([1.0, 0.95], [False, True], 0.95 / 2),  # one bin
        ([0.0, 0.005], [True, False], 0.995 / 2),
    ],
)
def test_gaps_cancel_out_within_a_bin_only(p, fraud, error):
    assert calibration_error(np.array(p), np.array(fraud)) == pytest.approx(error)


def test_the_best_method_is_the_one_with_the_lowest_brier_score():
    def best(sigmoid, isotonic, none):
        values = {CalibrationMethod.SIGMOID: sigmoid, CalibrationMethod.ISOTONIC: isotonic, CalibrationMethod.NONE: none}
        return best_calibration({method: CalibrationQuality(value, 1.0, 1.0) for method, value in values.items()})

    assert best(0.1, 0.09, 0.05) is CalibrationMethod.NONE
    assert best(0.1, 0.05, 0.09) is CalibrationMethod.ISOTONIC
    assert best(0.1, 0.99 * 0.1, 0.2) is CalibrationMethod.SIGMOID, "exactly one percent is not enough"


def test_the_sigmoid_is_the_unpenalised_logistic_regression():
    margin = np.random.default_rng(2).normal(-1, 2, 3_000).astype(np.float32)
    fraud = np.random.default_rng(3).random(3_000) < 1 / (1 + np.exp(-margin))
    fitted, model = fit_calibration(margin, fraud), LogisticRegression(C=1e6).fit(margin.astype(np.float64)[:, None], fraud)
    assert (fitted.slope, fitted.intercept) == (model.coef_[0, 0], model.intercept_[0])


def test_a_certain_mistake_costs_a_finite_log_loss():
    margin = np.where(np.arange(200) % 2 == 0, 800, -800).astype(np.float32)
    fraud = np.arange(200) % 2 == 1
    compared = compare_calibrations(margin, fraud)
    assert compared[CalibrationMethod.NONE].log_loss == pytest.approx(-np.log(1e-12), rel=1e-4)
