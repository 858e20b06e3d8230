"""From a probability to an outcome: thresholds that come from how many alerts a day the team can work."""

import re

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from core.errors import InputError

Floats = npt.NDArray[np.float64]
APPROVE, REVIEW, DECLINE = 0, 1, 2


class Policy(Struct, frozen=True):
    """
    Review from ``review`` on, decline from ``decline`` on (probabilities); ``novel`` is the novelty score from which a
    transaction is flagged as unlike anything in training. ``alerts_per_day`` is the budget the thresholds were set for.
    """

    review: float
    decline: float
    novel: float
    alerts_per_day: float

    def outcomes(self, probability: Floats) -> npt.NDArray[np.int8]:
        """``APPROVE``, ``REVIEW`` or ``DECLINE``, int8 [n]. A probability that is not a number is a review."""
        codes = np.where(probability >= self.decline, DECLINE, np.where(probability >= self.review, REVIEW, APPROVE))
        return np.where(np.isnan(probability), REVIEW, codes).astype(np.int8)


def parse_budget(text: str) -> float:
    """
    Alerts a day in a budget such as ``300/day`` or ``2000/week``.

    Raises:
        InputError: if the text is no budget.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)/(day|week)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise InputError(f"{text!r} is not a review budget: write for example 300/day or 2000/week")
    return float(match[1]) / (7 if match[2] == "week" else 1)


def fit_policy(probability: Floats, novelty: Floats, days: float, alerts_per_day: float, decline_at: float = 0.8) -> Policy:
    """
    Thresholds that would have raised ``alerts_per_day`` over ``days`` of calibration transactions.

    Declines are alerts too: from a probability of ``decline_at`` on. One in a thousand transactions counts as novel.
    """
    wanted = round(alerts_per_day * days)
    ordered = np.sort(probability)[::-1]
    # strictly above the first one that is over budget, so that ties never exceed the budget
    review = 0.0 if wanted >= len(ordered) else float(np.nextafter(ordered[wanted], 2.0))
    return Policy(
        review=review,
        decline=max(decline_at, review),
        novel=float(np.quantile(novelty, 0.999)) if len(novelty) else 1.0,
        alerts_per_day=alerts_per_day,
    )
