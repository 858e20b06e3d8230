"""
Drift: how far current features and scores differ from the calibration data.

The population stability index of a feature compares the shares of ten bins, plus one bin for missing values:
PSI = sum (p - q) ln(p / q). By convention (Siddiqi, "Credit Risk Scorecards", 2006), an index below 0.1 is stable
and an index of 0.25 or more is a shift.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

BINS = 10
STABLE, SHIFTED = 0.1, 0.25
_FLOOR = 1e-4  # a share of zero would make the index infinite

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class Distributions(NamedTuple):
    """Bins of F features: their deciles, float32 [F, BINS - 1], and shares, float32 [F, BINS + 1], the last for NaN."""

    edges: Matrix
    shares: Matrix


def distributions(values: Matrix) -> Distributions:
    """Return the distributions of values float32 [n, F]."""
    n, width = values.shape
    if n == 0:
        return Distributions(np.zeros((width, BINS - 1), np.float32), np.full((width, BINS + 1), 1 / (BINS + 1), np.float32))
    at = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = np.zeros((width, BINS - 1), np.float32)
    for f in range(width):
        known = values[:, f][~np.isnan(values[:, f])]
        if len(known):
            edges[f] = np.quantile(known, at, method="lower")
    return Distributions(edges, (counted(values, edges) / n).astype(np.float32))


def counted(values: Matrix, edges: Matrix) -> Int64s:
    """Return the number of values, float32 [n, F], in each bin, int64 [F, BINS + 1]."""
    out = np.zeros((values.shape[1], BINS + 1), np.int64)
    _count(np.ascontiguousarray(values, np.float32), edges, out)
    return out


@njit(cache=True, nogil=True)
def _count(values: Matrix, edges: Matrix, out: Int64s) -> None:
    for i in range(values.shape[0]):
        for f in range(values.shape[1]):
            value = values[i, f]
            if np.isnan(value):
                out[f, BINS] += 1
                continue
            place = 0
            while place < BINS - 1 and value > edges[f, place]:
                place += 1
            out[f, place] += 1


def stability(shares: Matrix, counts: npt.NDArray[np.float64] | Int64s) -> Floats:
    """Return the population stability index, float64 [F], of counts [F, BINS + 1] against shares of the same shape."""
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    now, then = np.maximum(counts / total, _FLOOR), np.maximum(shares.astype(np.float64), _FLOOR)
    index: Floats = ((now - then) * np.log(now / then)).sum(axis=1)
    return index


def counted_with_score(X: Matrix, probability: Floats, edges: Matrix) -> Int64s:
    """
    Return the bin counts of X, float32 [n, F], and of the probability, int64 [F + 1, BINS + 1]. The last row is that of the
    probability, as in a bundle's reference.
    """
    return counted(np.column_stack([X, probability.astype(np.float32)]), edges)


class DriftWindow:
    """Bin counts of recent transactions. ``close``, called when a window is full, halves the counts."""

    def __init__(self, edges: Matrix, shares: Matrix, size: int = 20_000) -> None:
        """``edges`` and ``shares`` come from a bundle's reference; ``size`` is the number of transactions in a window."""
        self._edges, self._shares, self._size = edges, shares, size
        self._counts = np.zeros(shares.shape)
        self._seen = 0.0

    def add(self, X: Matrix, probability: Floats) -> bool:
        """Count transactions, X float32 [n, F] with their probabilities; return whether the window is full."""
        self._counts += counted_with_score(X, probability, self._edges)
        self._seen += len(X)
        return self._seen >= self._size

    def close(self) -> Floats:
        """Return the stability indexes of the features, with that of the score last, float64 [F + 1]. Then halve the counts."""
        index = stability(self._shares, self._counts)
        self._counts *= 0.5
        self._seen *= 0.5
        return index
