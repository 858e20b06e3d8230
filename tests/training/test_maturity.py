"""The estimated share of frauds that are reported already, and calibration that corrects for unreported ones."""

import numpy as np
import pytest

from training.maturity import reported_share

DAY = 86_400_000


def _reports(rng, n, days, median):
    """Return the times of frauds over some days and of their reports, with lognormal delays."""
    time = (rng.uniform(0, days, n) * DAY).astype(np.int64)
    return time, time + (rng.lognormal(np.log(median), 0.6, n) * DAY).astype(np.int64)


@pytest.mark.parametrize(("median", "age"), [(14, 10), (14, 20), (3, 10), (1, 30)])
def test_the_share_of_reported_frauds_is_estimated_from_the_reported_ones(median, age):
    rng = np.random.default_rng(5)
    time, reported = _reports(rng, 4_000, 60, median)
    as_of = 60 * DAY
    newest = (time >= as_of - age * DAY) & (time < as_of - (age - 5) * DAY)
    actual = (reported[newest] <= as_of).mean()
    estimated = reported_share(time[newest], time, reported, as_of)
    assert estimated == pytest.approx(actual, abs=0.05)


def test_reports_after_the_time_of_estimation_are_not_used():
    rng = np.random.default_rng(6)
    time, reported = _reports(rng, 1_000, 60, 10)
    as_of, rows = 50 * DAY, np.arange(40, 45) * DAY
    known = reported <= as_of
    assert reported_share(rows, time, reported, as_of) == reported_share(rows, time[known], reported[known], as_of)


def test_a_fixed_delay_that_has_passed_means_that_all_are_reported():
    time = np.arange(100) * DAY // 4
    assert reported_share(time[:50], time, time + 7 * DAY, 40 * DAY) == 1.0


def test_too_few_frauds_to_estimate_delays_count_as_fully_reported():
    time = np.arange(19) * DAY
    assert reported_share(time, time, time + DAY, 100 * DAY) == 1.0
    assert reported_share(time[:0], np.arange(50) * DAY, np.arange(50) * DAY + DAY, 100 * DAY) == 1.0
