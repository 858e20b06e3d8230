"""
Unlike anything in training: an isolation forest (Liu, Ting and Zhou, 2008), fitted by scikit-learn, scored by our kernel.

scikit-learn takes tens of microseconds a row to score small batches, so the fitted trees are kept as flat arrays.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from sklearn.ensemble import IsolationForest

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
_TREES, _SAMPLES = 64, 256


class Forest(NamedTuple):
    """Trees as arrays: for node k its feature (-1 at a leaf), threshold, children and, at a leaf, path length."""

    roots: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    threshold: Floats
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    length: Floats
    median: Matrix
    usual_length: Floats


def _average_path(n: npt.NDArray[Any]) -> Floats:
    """Mean path length of an unsuccessful search in a binary tree of n points: c(n) of the paper."""
    n = np.asarray(n, np.float64)
    harmonic = np.log(np.maximum(n - 1, 1)) + np.euler_gamma
    return np.where(n > 2, 2 * harmonic - 2 * (n - 1) / np.maximum(n, 1), np.where(n == 2, 1.0, 0.0))


def fit_forest(X: Matrix, seed: int) -> Forest:
    """Fit to X float32 [n, F]; NaN counts as the feature's median."""
    with np.errstate(all="ignore"):
        median = np.nan_to_num(np.nanmedian(np.where(np.isnan(X).all(axis=0), 0, X), axis=0)).astype(np.float32)
    filled = np.where(np.isnan(X), median, X)
    fitted = IsolationForest(n_estimators=_TREES, max_samples=min(_SAMPLES, len(X)), random_state=seed).fit(filled)
    parts: dict[str, list[npt.NDArray[Any]]] = {"feature": [], "threshold": [], "left": [], "right": [], "length": []}
    roots, base = [], 0
    for estimator in fitted.estimators_:
        tree = estimator.tree_
        depth = np.zeros(tree.node_count)
        for node in range(tree.node_count):  # a parent comes before its children
            if tree.children_left[node] >= 0:
                depth[tree.children_left[node]] = depth[tree.children_right[node]] = depth[node] + 1
        leaf = tree.children_left < 0
        roots.append(base)
        parts["feature"].append(np.where(leaf, -1, tree.feature))
        parts["threshold"].append(tree.threshold)
        parts["left"].append(tree.children_left + base)
        parts["right"].append(tree.children_right + base)
        parts["length"].append(np.where(leaf, depth + _average_path(tree.n_node_samples), 0.0))
        base += tree.node_count
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return Forest(
        roots=np.array(roots, np.int64),
        feature=joined["feature"].astype(np.int64),
        threshold=joined["threshold"].astype(np.float64),
        left=joined["left"].astype(np.int64),
        right=joined["right"].astype(np.int64),
        length=joined["length"].astype(np.float64),
        median=median,
        usual_length=_average_path(np.array([min(_SAMPLES, len(X))])),
    )


@njit(cache=True, nogil=True)
def _mean_lengths(X: Matrix, forest: Forest, out: Floats) -> None:
    for i in range(len(X)):
        total = 0.0
        for root in forest.roots:
            node = root
            while forest.feature[node] >= 0:
                value = X[i, forest.feature[node]]
                if np.isnan(value):
                    value = forest.median[forest.feature[node]]
                node = forest.left[node] if value <= forest.threshold[node] else forest.right[node]
            total += forest.length[node]
        out[i] = total / len(forest.roots)


def novelty(forest: Forest, X: Matrix) -> Floats:
    """Anomaly score in (0, 1), float64 [n]: about 0.5 is usual, towards 1 is unlike anything in training."""
    out = np.empty(len(X))
    _mean_lengths(X, forest, out)
    scores: Floats = 2.0 ** (-out / forest.usual_length[0])
    return scores
