"""Decision policy: thresholds on the probability, fitted to the team's daily alert budget or to the cost of reviews."""

import re

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from core.errors import InputError

Floats = npt.NDArray[np.float64]
APPROVE, REVIEW, DECLINE = 0, 1, 2
DECLINE_AT = 0.8  # at or above this probability of fraud, waiting for a review costs more than it saves


class Policy(Struct, frozen=True):
    """
    Thresholds of a bundle. A transaction is reviewed if its probability is at least ``review``, and declined if it is at least
    ``decline``.

    A transaction whose novelty score is at least ``novel`` is flagged as unlike anything in training. It is also reviewed if
    ``novel_share``, the share of the alert budget reserved for novelty, is above zero. ``alerts_per_day`` is the budget that
    the thresholds were fitted to.
    """

    review: float
    decline: float
    novel: float
    alerts_per_day: float
    novel_share: float = 0.0

    def outcomes(self, probability: Floats, novelty: Floats) -> npt.NDArray[np.int8]:
        """Return outcomes by probability and novelty, int8 [n]: ``APPROVE``, ``REVIEW`` or ``DECLINE``."""
        codes = self.by_score(probability)
        if self.novel_share > 0:
            codes = np.where((codes == APPROVE) & (novelty >= self.novel), REVIEW, codes).astype(np.int8)
        return codes

    def by_score(self, probability: Floats) -> npt.NDArray[np.int8]:
        """Return outcomes by probability alone, int8 [n]. NaN gives a review."""
        codes = np.where(probability >= self.decline, DECLINE, np.where(probability >= self.review, REVIEW, APPROVE))
        return np.where(np.isnan(probability), REVIEW, codes).astype(np.int8)


def parse_budget(text: str) -> float:
    """
    Return the alerts per day of a budget such as ``300/day`` or ``2000/week``.

    Raises:
        InputError: if the text is not a budget.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)/(day|week)", text.strip(), re.ASCII)
    if match is None or float(match[1]) <= 0:
        raise InputError(f"{text!r} is not a review budget: write a number per day or week, such as 300/day or 2000/week")
    return float(match[1]) / (7 if match[2] == "week" else 1)


def fit_policy(
    probability: Floats,
    novelty: Floats,
    days: float,
    alerts_per_day: float,
    novel_share: float = 0.0,
    decline_at: float = DECLINE_AT,
) -> Policy:
    """
    Return the thresholds that would have produced ``alerts_per_day`` alerts per day on ``days`` days of calibration transactions.

    Declines, which start at probability ``decline_at``, count as alerts. The share ``novel_share`` of the alerts goes to the
    most novel transactions that the score alone would have approved. If the share is zero, one in a thousand transactions is
    flagged as novel, which does not change its outcome.
    """
    wanted = round(alerts_per_day * days)
    for_novel = round(novel_share * wanted)
    review = _threshold(probability, wanted - for_novel)
    if novel_share > 0:
        novel = _threshold(novelty[probability < review], for_novel)
    else:
        novel = float(np.quantile(novelty, 0.999)) if len(novelty) else 1.0
    return Policy(
        review=review, decline=max(decline_at, review), novel=novel, alerts_per_day=alerts_per_day, novel_share=novel_share
    )


def cheapest_budget(
    probability: Floats, amount: npt.NDArray[np.int64], fraud: npt.NDArray[np.bool_], days: float, review_cost: float
) -> float:
    """
    Return the alerts per day that minimise the cost of reviews and missed fraud over ``days`` days of calibration transactions.

    A review costs ``review_cost`` (minor units) and stops the fraud it finds. A fraud that is not reviewed costs its amount.
    """
    order = np.argsort(-probability, kind="stable")
    saved = np.concatenate(([0.0], np.cumsum(np.where(fraud, amount, 0)[order])))
    cost = review_cost * np.arange(len(saved)) - saved
    return float(np.argmin(cost)) / days


def _threshold(values: Floats, wanted: int) -> float:
    """Return the lowest threshold that at most ``wanted`` values reach. Equal values at the limit are all left out."""
    if wanted >= len(values):
        return 0.0
    return float(np.nextafter(np.partition(values, len(values) - 1 - wanted)[len(values) - 1 - wanted], 2.0))
