"""
Novelty detection: an isolation forest (Liu, Ting and Zhou, 2008), fitted by scikit-learn and scored by a compiled kernel.

scikit-learn takes tens of microseconds per row to score small batches, so the fitted trees are stored as flat arrays for the
kernel.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from core.errors import BundleError

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
_TREES, _SAMPLES = 64, 256
_BLOCK = 64  # rows that go through the trees together: their features fit into the L1 cache


class Forest(NamedTuple):
    """
    Trees as flat arrays. The next node after k is ``left[k]``, or ``left[k] + 1`` if the feature is above the threshold, so
    that a step needs no branch. A leaf points to itself, and ``length`` is its path length. Tree t starts at node
    ``roots[t]`` and reaches a leaf within ``depths[t]`` steps.
    """

    roots: npt.NDArray[np.int32]
    depths: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    threshold: Floats
    left: npt.NDArray[np.int32]
    length: Floats
    median: Matrix
    usual_length: Floats


def _average_path(n: npt.NDArray[Any]) -> Floats:
    """Return the mean path length of an unsuccessful search in a binary tree of n points, c(n) in the paper."""
    n = np.asarray(n, np.float64)
    harmonic = np.log(np.maximum(n - 1, 1)) + np.euler_gamma
    return np.where(n > 2, 2 * harmonic - 2 * (n - 1) / np.maximum(n, 1), np.where(n == 2, 1.0, 0.0))


def fit_forest(X: Matrix, seed: int) -> Forest:
    """Fit a forest to X, float32 [n, F]. NaN is replaced with the feature's median."""
    from sklearn.ensemble import IsolationForest  # only training needs scikit-learn

    with np.errstate(all="ignore"):
        median = np.nan_to_num(np.nanmedian(np.where(np.isnan(X).all(axis=0), 0, X), axis=0)).astype(np.float32)
    filled = np.where(np.isnan(X), median, X)
    fitted = IsolationForest(n_estimators=_TREES, max_samples=min(_SAMPLES, len(X)), random_state=seed).fit(filled)
    trees = [_flat(estimator.tree_) for estimator in fitted.estimators_]
    sizes = [len(tree["feature"]) for tree in trees]
    roots = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int32)
    for tree, root in zip(trees, roots, strict=True):
        tree["left"] += root
    joined = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
    return Forest(
        roots=roots,
        depths=np.array([estimator.tree_.max_depth for estimator in fitted.estimators_], np.int32),
        median=median,
        usual_length=_average_path(np.array([min(_SAMPLES, len(X))])),
        **joined,
    )


def _flat(tree: Any) -> dict[str, npt.NDArray[Any]]:
    """Return a fitted tree as arrays, in breadth-first order with siblings next to each other."""
    order, place = [0], {0: 0}
    for node in order:  # the list grows during iteration
        if tree.children_left[node] >= 0:
            for child in (tree.children_left[node], tree.children_right[node]):
                place[child] = len(order)
                order.append(child)
    nodes = np.array(order)
    depth = np.zeros(len(nodes))
    left = np.arange(len(nodes))
    leaf = tree.children_left[nodes] < 0
    for at in np.flatnonzero(~leaf):
        left[at] = place[tree.children_left[nodes[at]]]
        depth[left[at]] = depth[left[at] + 1] = depth[at] + 1
    return {
        "feature": np.where(leaf, 0, tree.feature[nodes]).astype(np.int32),
        "threshold": np.where(leaf, np.inf, tree.threshold[nodes]),
        "left": left.astype(np.int32),
        "length": np.where(leaf, depth + _average_path(tree.n_node_samples[nodes]), 0.0),
    }


def check_forest(forest: Forest, features: int) -> None:
    """
    Check that the compiled kernel can walk a forest without leaving its arrays or looping forever.

    Raises:
        BundleError: if the forest is damaged.
    """
    n, trees = len(forest.left), len(forest.roots)
    node = np.arange(n)
    kinds = {
        "roots": np.int32,
        "depths": np.int32,
        "feature": np.int32,
        "threshold": np.float64,
        "left": np.int32,
        "length": np.float64,
    }
    fits = (
        all(getattr(forest, name).dtype == kind and getattr(forest, name).ndim == 1 for name, kind in kinds.items())
        and trees > 0
        and len(forest.depths) == trees
        and len(forest.feature) == len(forest.threshold) == len(forest.length) == n > 0
        and forest.median.shape == (features,)
        and forest.usual_length.shape == (1,)
        and bool(np.isfinite(forest.usual_length[0]) and forest.usual_length[0] > 0)
        and bool(((forest.roots >= 0) & (forest.roots < n)).all())
        and bool((forest.depths >= 0).all() and forest.depths.sum(dtype=np.int64) <= n)
        and bool(((forest.feature >= 0) & (forest.feature < features)).all())
        # an inner node points forward to two children; a leaf points to itself, because no value is above its threshold
        and bool((((forest.left > node) & (forest.left < n - 1)) | ((forest.left == node) & (forest.threshold == np.inf))).all())
        and bool(np.isfinite(forest.length).all())
    )
    if not fits:
        raise BundleError("the isolation forest is damaged: restore the bundle or train again")


@njit(cache=True, nogil=True, error_model="numpy")
def _mean_lengths(
    X: Matrix,
    roots: npt.NDArray[np.int32],
    depths: npt.NDArray[np.int32],
    feature: npt.NDArray[np.int32],
    threshold: Floats,
    left: npt.NDArray[np.int32],
    length: Floats,
    out: Floats,
) -> None:
    """
    Write the mean path length of each row to ``out``, float64 [n].

    The rows of a block descend one tree together, level by level, so that consecutive steps are independent. Unsigned indices spare numba
    the test for negative ones.
    """
    at = np.empty(_BLOCK, np.uint32)
    for begin in range(0, len(X), _BLOCK):
        rows, sums = X[begin : begin + _BLOCK], out[begin : begin + _BLOCK]
        sums[:] = 0.0
        for tree in range(len(roots)):
            at[:] = np.uint32(roots[tree])
            for _ in range(depths[tree]):
                for i in range(len(rows)):
                    node = at[i]
                    above = rows[i, np.uint32(feature[node])] > threshold[node]
                    at[i] = np.uint32(left[node]) + np.uint32(above)
            for i in range(len(rows)):
                sums[i] += length[at[i]]
        sums /= len(roots)


def novelty(forest: Forest, X: Matrix) -> Floats:
    """Return anomaly scores in (0, 1), float64 [n]: about 0.5 is normal, near 1 is unlike anything in training."""
    out = np.empty(len(X))
    filled = np.where(np.isnan(X), forest.median, X)
    _mean_lengths(filled, forest.roots, forest.depths, forest.feature, forest.threshold, forest.left, forest.length, out)
    scores: Floats = 2.0 ** (-out / forest.usual_length[0])
    return scores
