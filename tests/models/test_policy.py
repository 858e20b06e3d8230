"""Policy: thresholds from a budget or from costs, and the outcomes that follow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from models.policy import APPROVE, DECLINE, REVIEW, Policy, cheapest_budget, fit_policy, parse_budget


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_a_budget_is_never_exceeded_on_its_own_data(wanted, seed):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(1000) ** 4, 2)  # many ties
    unusual = np.round(rng.random(1000), 2)
    for share in (0.0, 0.1, 0.5):
        policy = fit_policy(p, unusual, days=2.0, alerts_per_day=wanted / 2, novel_share=share)
        assert (policy.outcomes(p, unusual) != APPROVE).sum() <= wanted
    assert policy.decline >= policy.review


def test_outcomes_are_ordered_and_a_missing_probability_means_review():
    policy = fit_policy(np.linspace(0, 1, 1001), np.zeros(1001), days=1, alerts_per_day=400)
    assert policy.outcomes(np.array([0.0, 0.7, 0.95, np.nan]), np.zeros(4)).tolist() == [APPROVE, REVIEW, DECLINE, REVIEW]


@pytest.mark.parametrize(("text", "a_day"), [("300/day", 300), ("700/week", 100), ("0.5/day", 0.5)])
def test_budgets_are_parsed(text, a_day):
    assert parse_budget(text) == a_day


@pytest.mark.parametrize("text", ["300", "300 a day", "-1/day", "0/day", "x/day", "300/month"])
def test_an_invalid_budget_raises_an_input_error(text):
    with pytest.raises(InputError, match="is not a review budget"):
        parse_budget(text)


def test_the_cheapest_budget_of_a_worked_example():
    p, amount = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1000, 50, 800, 100])
    fraud = np.array([True, False, True, False])
    # reviewing three costs 3 x 300 and saves 1800; a fourth saves nothing
    assert cheapest_budget(p, amount, fraud, days=1, review_cost=300) == 3
    assert cheapest_budget(p, amount, fraud, days=2, review_cost=450) == 0.5
    assert cheapest_budget(p, amount, fraud, days=1, review_cost=5000) == 0


def test_thresholds_begin_at_their_own_value():
    policy = Policy(review=0.5, decline=0.8, novel=0.7, alerts_per_day=10.0, novel_share=0.1)
    p = np.array([0.4999, 0.5, 0.7999, 0.8])
    assert policy.by_score(p).tolist() == [APPROVE, REVIEW, REVIEW, DECLINE]
    assert policy.outcomes(p, np.array([0.6999, 0.0, 0.0, 0.9])).tolist() == [APPROVE, REVIEW, REVIEW, DECLINE]
    assert policy.outcomes(p, np.array([0.7, 1.0, 1.0, 1.0])).tolist() == [REVIEW, REVIEW, REVIEW, DECLINE]
    assert policy.by_score(p).dtype == policy.outcomes(p, p).dtype == np.int8


def test_novelty_decides_nothing_without_a_share():
    policy = Policy(review=0.5, decline=0.8, novel=0.7, alerts_per_day=10.0)
    assert policy.outcomes(np.array([0.1]), np.array([0.99])).tolist() == [APPROVE]


def test_thresholds_of_a_worked_example():
    p = np.arange(10) / 10
    unusual = np.arange(10)[::-1] / 10
    policy = fit_policy(p, unusual, days=2.0, alerts_per_day=2.0, novel_share=0.25)
    # four alerts in two days: three by score (0.7, 0.8, 0.9) and the most novel of the others (0.9)
    assert (policy.outcomes(p, unusual) != APPROVE).tolist() == [True] + [False] * 6 + [True] * 3
    assert 0.6 < policy.review <= 0.7
    assert 0.8 < policy.novel <= 0.9
    assert policy.decline == 0.8
    assert (policy.alerts_per_day, policy.novel_share) == (2.0, 0.25)
    assert policy.outcomes(p, unusual).tolist() == [REVIEW] + [APPROVE] * 6 + [REVIEW, DECLINE, DECLINE]


def test_a_tie_at_the_threshold_stays_below_the_budget():
    p = np.array([0.1, 0.5, 0.5, 0.9])
    policy = fit_policy(p, np.zeros(4), days=1.0, alerts_per_day=2.0)
    assert policy.outcomes(p, np.zeros(4)).tolist() == [APPROVE, APPROVE, APPROVE, DECLINE]
    assert policy.review > 0.5


def test_a_budget_for_everything_reviews_everything():
    p = np.array([0.0, 0.2, 0.4])
    assert fit_policy(p, p, days=1.0, alerts_per_day=3.0).review == 0.0
    assert fit_policy(p, p, days=1.0, alerts_per_day=2.0).review > 0.0
    assert fit_policy(p, p, days=1.0, alerts_per_day=7.0).outcomes(p, p).tolist() == [REVIEW] * 3


def test_decline_never_starts_below_review():
    p = np.linspace(0, 1, 101)
    policy = fit_policy(p, p, days=1.0, alerts_per_day=10.0)
    assert policy.decline == policy.review > 0.89
    assert fit_policy(p, p, days=1.0, alerts_per_day=90.0, decline_at=0.5).decline == 0.5


def test_without_a_share_the_most_unusual_thousandth_is_marked():
    unusual = np.linspace(0, 1, 10_001)
    policy = fit_policy(np.zeros(10_001), unusual, days=1.0, alerts_per_day=5.0)
    assert policy.novel == pytest.approx(0.999)
    assert policy.novel_share == 0.0
    assert fit_policy(np.array([]), np.array([]), days=1.0, alerts_per_day=5.0).novel == 1.0


def test_only_amounts_of_fraud_are_saved_and_ties_keep_their_order():
    p, amount = np.array([0.5, 0.5, 0.5]), np.array([100, 10_000, 300])
    fraud = np.array([True, False, True])
    # in the order of the file: 100 saved, nothing, 300; at 150 a review, none pays for itself
    assert cheapest_budget(p, amount, fraud, days=1, review_cost=150) == 0
    assert cheapest_budget(p, amount, fraud, days=1, review_cost=90) == 3


@pytest.mark.parametrize("text", ["1234567890/day", "1.1234567890/day", "1/days", "1/day/week", "0.0/week", "１/day", ""])
def test_a_budget_of_another_form_is_refused(text):
    with pytest.raises(InputError, match="such as 300/day or 2000/week"):
        parse_budget(text)


def test_spaces_around_a_budget_are_ignored():
    assert parse_budget(" 999999999/week\n") == 999_999_999 / 7
    assert parse_budget("0.000000001/day") == 1e-9


def test_the_cheapest_budget_follows_the_probability_and_counts_no_honest_amount():
    fraud = np.array([True, True])
    # the likelier fraud is small: reviewing it alone does not pay, and both cost 1200 to save 1003
    assert cheapest_budget(np.array([0.2, 0.9]), np.array([1_000, 3]), fraud, days=1, review_cost=600) == 0
    assert cheapest_budget(np.array([0.9]), np.array([3]), np.array([True]), days=1, review_cost=2.5) == 1
    assert cheapest_budget(np.array([0.9]), np.array([3]), np.array([False]), days=1, review_cost=0.5) == 0


def test_equal_probabilities_are_reviewed_in_the_order_of_the_file():
    fraud = np.arange(200) < 20
    assert cheapest_budget(np.full(200, 0.5), np.full(200, 100), fraud, days=1, review_cost=50) == 20


def test_the_threshold_is_that_of_a_sorted_list():
    rng = np.random.default_rng(9)
    for wanted in (1, 2, 10, 99, 500, 998):
        p = rng.random(1_000)
        policy = fit_policy(p, p, days=1.0, alerts_per_day=float(wanted))
        assert policy.review == np.nextafter(np.sort(p)[999 - wanted], 2.0)
        assert (policy.by_score(p) != APPROVE).sum() == wanted
