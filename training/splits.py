"""
Splits in time order, with the label delay between the periods.

    warm-up │ training │ delay │ calibration │ delay │ test

A model is trained on the labels known when calibration begins, calibrated on the labels known when the test begins, and
tested on the final labels of the test period. The warm-up only fills the feature windows.
"""

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from core.clock import MS_PER_DAY
from core.errors import InputError
from models.features.columns import Int64s

Mask = npt.NDArray[np.bool_]
TEST_SHARE, CALIBRATION_SHARE, WARM_UP_SHARE = 0.2, 0.2, 0.08


class Split(Struct, frozen=True):
    """Boundaries of the periods, epoch milliseconds. Each period is [begin, end)."""

    train_begin: int
    train_end: int
    calibration_begin: int
    calibration_end: int
    test_begin: int
    test_end: int

    def train(self, time: Int64s) -> Mask:
        """Return which rows are in the training period, bool [n]."""
        return (time >= self.train_begin) & (time < self.train_end)

    def calibration(self, time: Int64s) -> Mask:
        """Return which rows are in the calibration period, bool [n]."""
        return (time >= self.calibration_begin) & (time < self.calibration_end)

    def test(self, time: Int64s) -> Mask:
        """Return which rows are in the test period, bool [n]."""
        return (time >= self.test_begin) & (time < self.test_end)

    @property
    def calibration_days(self) -> float:
        """Return the length of the calibration period in days."""
        return (self.calibration_end - self.calibration_begin) / MS_PER_DAY

    @property
    def test_days(self) -> float:
        """Return the length of the test period in days."""
        return (self.test_end - self.test_begin) / MS_PER_DAY


def split_by_time(time: Int64s, delay_ms: int) -> Split:
    """
    Split a history by its event times, int64 [n].

    Raises:
        InputError: if the history is too short for two delays and three periods.
    """
    begin, end = int(time.min()), int(time.max()) + 1
    span = end - begin
    if span < 4 * delay_ms or span < 2 * MS_PER_DAY:
        raise InputError(
            f"the history spans {span / MS_PER_DAY:.1f} days; a label delay of {delay_ms / MS_PER_DAY:.1f} days needs at "
            f"least {max(4 * delay_ms / MS_PER_DAY, 2):.1f}: give more history or a shorter --label-delay"
        )
    usable = span - 2 * delay_ms
    test_begin = end - round(TEST_SHARE * usable)
    calibration_end = test_begin - delay_ms
    calibration_begin = calibration_end - round(CALIBRATION_SHARE * usable)
    train_end = calibration_begin - delay_ms
    return Split(
        train_begin=begin + round(WARM_UP_SHARE * usable),
        train_end=train_end,
        calibration_begin=calibration_begin,
        calibration_end=calibration_end,
        test_begin=test_begin,
        test_end=end,
    )
