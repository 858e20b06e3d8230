"""Calibration: turn a booster's margins into probabilities of fraud."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs
from scipy.optimize import minimize
from scipy.special import expit, log_expit

Floats = npt.NDArray[np.float64]
_SMOOTH = 1e-3
_FRAUDS_TO_COMPARE = 20  # the methods are compared only if each half of the slice has this many frauds and honest payments
_BIN_EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)


class CalibrationMethod(StrEnum):
    """How margins become probabilities."""

    SIGMOID = "sigmoid"
    ISOTONIC = "isotonic"
    NONE = "none"


class ReliabilityBin(Struct, frozen=True):
    """One bin of probabilities, [low, high): it holds ``count`` calibration transactions, of which ``frauds`` were fraud."""

    low: float
    high: float
    count: int
    frauds: int


class CalibrationQuality(Struct, frozen=True):
    """How well a calibration method fits later data: Brier score, log loss and expected calibration error, lower is better."""

    brier: float
    log_loss: float
    calibration_error: float


class Calibration(Struct, frozen=True):
    """
    Mapping from margins to probabilities, with its reliability on the calibration data.

    ``sigmoid`` is Platt scaling, p = 1 / (1 + exp(-(slope * margin + intercept))) (Platt, 1999); ``none`` is the same with
    slope 1 and intercept 0. ``isotonic`` (Zadrozny and Elkan, 2002) interpolates between ``knots`` (margin, probability). It
    mixes in a thousandth of the sigmoid, so that different margins get different probabilities and their order is preserved.
    """

    slope: float
    intercept: float
    bins: tuple[ReliabilityBin, ...] = ()
    method: CalibrationMethod = CalibrationMethod.SIGMOID
    knots: tuple[tuple[float, float], ...] = ()

    def probability(self, margin: npt.NDArray[np.float32]) -> Floats:
        """Return calibrated probabilities, float64 [n], for margins (log-odds), float32 [n]. The order is preserved."""
        logit = self.slope * margin.astype(np.float64) + self.intercept
        with np.errstate(over="ignore"):  # exp overflows to infinity, which gives the right limit: probability 0
            result: Floats = 1.0 / (1.0 + np.exp(-logit))
        if self.knots:
            x, y = np.array(self.knots).T
            result = (1 - _SMOOTH) * np.interp(margin, x, y) + _SMOOTH * result
        return result

    def bin_of(self, probability: float) -> ReliabilityBin | None:
        """Return the bin that contains a probability, or None if that bin has no calibration transactions."""
        for part in self.bins:
            if part.low <= probability < part.high or (part.high == 1.0 and probability == 1.0):
                return part if part.count else None
        return None


def fit_calibration(
    margin: npt.NDArray[np.float32],
    fraud: npt.NDArray[np.bool_],
    method: CalibrationMethod = CalibrationMethod.SIGMOID,
    known: float = 1.0,
) -> Calibration:
    """
    Fit a calibration to margins and outcomes of a time slice after the training data. If all outcomes are the same, use
    method ``none``.

    ``known`` is the share of the slice's frauds that are already reported. Unreported
    frauds count as honest in ``fraud``, so the observed fraud rate is ``known`` times the probability (Elkan and Noto, 2008).
    """
    if fraud.all() or not fraud.any():
        return Calibration(1.0, 0.0, method=CalibrationMethod.NONE)
    if method is CalibrationMethod.NONE:
        plain = Calibration(1.0, 0.0, method=method)
    else:
        slope, intercept = _sigmoid(margin.astype(np.float64), fraud, known)
        plain = Calibration(max(slope, 1e-6), intercept, method=method)
    if method is CalibrationMethod.ISOTONIC:
        from sklearn.isotonic import IsotonicRegression  # only training needs scikit-learn

        steps = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(margin.astype(np.float64), fraud)
        heights = np.minimum(steps.y_thresholds_ / known, 1.0)
        plain = structs.replace(plain, knots=tuple(zip(steps.X_thresholds_.tolist(), heights.tolist(), strict=True)))
    return structs.replace(plain, bins=tuple(reliability(plain.probability(margin), fraud)))


def _sigmoid(margin: Floats, fraud: npt.NDArray[np.bool_], known: float) -> tuple[float, float]:
    """
    Return the maximum-likelihood slope and intercept of the sigmoid.

    The sigmoid is p, the probability of fraud. A transaction is known as fraud with probability ``known`` times p.
    """
    from sklearn.linear_model import LogisticRegression

    # C is the inverse of the penalty; this value practically disables the penalty for a single coefficient
    fitted = LogisticRegression(C=1e6).fit(margin[:, None], fraud)
    begin = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if known >= 1:
        return begin

    def loss(at: Floats) -> float:
        logit = at[0] * margin + at[1]
        return -float(log_expit(logit[fraud]).sum() + np.log1p(-known * expit(logit[~fraud])).sum())

    best = minimize(loss, np.array(begin), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-6, "maxiter": 2_000}).x
    return float(best[0]), float(best[1])


def compare_calibrations(
    margin: npt.NDArray[np.float32], fraud: npt.NDArray[np.bool_], known: float = 1.0
) -> dict[CalibrationMethod, CalibrationQuality]:
    """
    Fit each method on the first half of a slice in time order, and return its metrics on the second half.

    The metrics compare the probability, multiplied by ``known``, with the frauds reported so far (see ``fit_calibration``).
    They are the Brier score, the log loss and the expected calibration error (mean distance between predicted and observed
    share over the bins of ``reliability``). Without enough frauds in each half, the result is empty.
    """
    from sklearn.metrics import brier_score_loss, log_loss

    half = len(margin) // 2
    if min(*(one.sum() for part in (fraud[:half], fraud[half:]) for one in (part, ~part))) < _FRAUDS_TO_COMPARE:
        return {}
    measured = {}
    for method in CalibrationMethod:
        probability = known * fit_calibration(margin[:half], fraud[:half], method, known).probability(margin[half:])
        measured[method] = CalibrationQuality(
            brier=round(float(brier_score_loss(fraud[half:], probability)), 6),
            log_loss=round(float(log_loss(fraud[half:], np.clip(probability, 1e-12, 1 - 1e-12))), 6),
            calibration_error=round(calibration_error(probability, fraud[half:]), 6),
        )
    return measured


def best_calibration(compared: Mapping[CalibrationMethod, CalibrationQuality]) -> CalibrationMethod:
    """Return the method with the lowest Brier score if that is over 1 % below the sigmoid's; otherwise return the sigmoid."""
    if not compared:
        return CalibrationMethod.SIGMOID
    best = min(compared, key=lambda method: compared[method].brier)
    return best if compared[best].brier < 0.99 * compared[CalibrationMethod.SIGMOID].brier else CalibrationMethod.SIGMOID


def calibration_error(probability: Floats, fraud: npt.NDArray[np.bool_]) -> float:
    """
    Return the expected calibration error: the average, over the bins, of the absolute difference between mean probability and
    share of fraud. Each bin is weighted by its count.
    """
    place = np.clip(np.searchsorted(_BIN_EDGES, probability, side="right") - 1, 0, len(_BIN_EDGES) - 2)
    gap = np.bincount(place, weights=probability - fraud, minlength=len(_BIN_EDGES) - 1)
    return float(np.abs(gap).sum() / len(probability))


def reliability(probability: Floats, fraud: npt.NDArray[np.bool_], edges: Sequence[float] = _BIN_EDGES) -> list[ReliabilityBin]:
    """Return the numbers of transactions and frauds by bin of predicted probability."""
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(place, minlength=len(edges) - 1)
    frauds = np.bincount(place, weights=fraud, minlength=len(edges) - 1).astype(int)
    return [
        ReliabilityBin(low, high, int(count), int(hits))
        for low, high, count, hits in zip(edges[:-1], edges[1:], counts, frauds, strict=True)
    ]
