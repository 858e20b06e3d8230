"""From a booster's margin to a probability that means what it says."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from sklearn.linear_model import LogisticRegression

Floats = npt.NDArray[np.float64]
_BIN_EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)


class ReliabilityBin(Struct, frozen=True):
    """Of ``count`` calibration transactions with a probability in [low, high), ``frauds`` were fraud."""

    low: float
    high: float
    count: int
    frauds: int


class Calibration(Struct, frozen=True):
    """Platt scaling, p = 1 / (1 + exp(-(slope * margin + intercept))) (Platt, 1999), with what it looked like on its data."""

    slope: float
    intercept: float
    bins: tuple[ReliabilityBin, ...] = ()

    def probability(self, margin: npt.NDArray[np.float32]) -> Floats:
        """Calibrated probabilities, float64 [n], of margins (log-odds) float32 [n]. Order is kept."""
        logit = self.slope * margin.astype(np.float64) + self.intercept
        result: Floats = 1.0 / (1.0 + np.exp(-logit))
        return result

    def bin_of(self, probability: float) -> ReliabilityBin | None:
        """The bin a probability falls in, None where calibration saw nothing there."""
        for part in self.bins:
            if part.low <= probability < part.high or (part.high == 1.0 and probability == 1.0):
                return part if part.count else None
        return None


def fit_calibration(margin: npt.NDArray[np.float32], fraud: npt.NDArray[np.bool_]) -> Calibration:
    """Fit to margins and outcomes of a slice later than training. Without both outcomes in it the margin is kept as it is."""
    if fraud.all() or not fraud.any():
        return Calibration(1.0, 0.0)
    # C is the inverse of the penalty: practically none for one coefficient
    fitted = LogisticRegression(C=1e6).fit(margin.astype(np.float64)[:, None], fraud)
    plain = Calibration(max(float(fitted.coef_[0, 0]), 1e-6), float(fitted.intercept_[0]))
    return Calibration(plain.slope, plain.intercept, tuple(reliability(plain.probability(margin), fraud)))


def reliability(probability: Floats, fraud: npt.NDArray[np.bool_], edges: Sequence[float] = _BIN_EDGES) -> list[ReliabilityBin]:
    """How often fraud happened, by predicted probability."""
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(place, minlength=len(edges) - 1)
    frauds = np.bincount(place, weights=fraud, minlength=len(edges) - 1).astype(int)
    return [
        ReliabilityBin(low, high, int(count), int(hits))
        for low, high, count, hits in zip(edges[:-1], edges[1:], counts, frauds, strict=True)
    ]
