"""The share of a period's frauds that has been reported so far: labels come late, so the newest frauds still count as honest."""

from typing import Final

import numpy as np
import numpy.typing as npt

from models.features.columns import Int64s

_FEWEST: Final = 20  # reported frauds below which delays cannot be estimated
_LOWEST: Final = 0.1  # share below which an estimate would multiply noise


def reported_share(event_time: Int64s, fraud_time: Int64s, reported: Int64s, as_of: int) -> float:
    """
    Estimate which share of the frauds among transactions (``event_time`` int64 [n], ms) has been reported at a time, in [0.1, 1].

    Delays are taken from frauds that happened at ``fraud_time`` and were reported at ``reported`` (int64 [m], ms), both before ``as_of``. Only delays shorter than
    a fraud's age can be seen, so their distribution is estimated by the reverse-time product limit for right-truncated data (Lagakos, Barraj and De
    Gruttola, 1988). 1 if fewer than 20 frauds are known.
    """
    seen = (fraud_time <= reported) & (reported <= as_of)
    delay, age = (reported - fraud_time)[seen], (as_of - fraud_time)[seen]
    if len(delay) < _FEWEST or not len(event_time):
        return 1.0
    delays, events = np.unique(delay, return_counts=True)
    at_risk = np.searchsorted(np.sort(delay), delays, side="right") - np.searchsorted(np.sort(age), delays, side="left")
    survived = np.cumprod((1 - events / at_risk)[::-1])[::-1]  # at place k: the product over delays of place k and later
    shares = np.append(survived, 1.0)
    own: npt.NDArray[np.float64] = shares[np.searchsorted(delays, as_of - event_time, side="right")]
    return float(np.clip(own.mean(), _LOWEST, 1.0))
