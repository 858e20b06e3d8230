"""Estimate of the share of a period's frauds reported so far. Labels come late, so the newest frauds still count as honest."""

from typing import Final

import numpy as np
import numpy.typing as npt

from models.features.columns import Int64s

_FEWEST: Final = 20  # reported frauds needed to estimate delays
_LOWEST: Final = 0.1  # lower bound of the estimate: a smaller share would amplify noise


def reported_share(event_time: Int64s, fraud_time: Int64s, reported: Int64s, as_of: int) -> float:
    """
    Estimate how many of the frauds among some transactions have been reported by ``as_of``, as a share in [0.1, 1].

    ``event_time`` (int64 [n], ms) holds the times of these transactions.

    The delay of a report is measured on frauds that happened at ``fraud_time`` and were reported at ``reported`` (int64 [m], ms).
    Frauds reported after ``as_of`` are left out. Only delays shorter than a fraud's age can be observed, so their distribution is
    estimated by the reverse-time product limit for right-truncated data (Lagakos, Barraj and De Gruttola, 1988).

    Return 1 if fewer than 20 frauds are known.
    """
    seen = (fraud_time <= reported) & (reported <= as_of)
    delay, age = (reported - fraud_time)[seen], (as_of - fraud_time)[seen]
    if len(delay) < _FEWEST or not len(event_time):
        return 1.0
    delays, events = np.unique(delay, return_counts=True)
    at_risk = np.searchsorted(np.sort(delay), delays, side="right") - np.searchsorted(np.sort(age), delays, side="left")
    survived = np.cumprod((1 - events / at_risk)[::-1])[::-1]  # survived[k]: the product over delays k and later
    shares = np.append(survived, 1.0)
    own: npt.NDArray[np.float64] = shares[np.searchsorted(delays, as_of - event_time, side="right")]
    return float(np.clip(own.mean(), _LOWEST, 1.0))
