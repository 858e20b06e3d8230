"""
Margins of a booster by a compiled kernel, equal to XGBoost's bit for bit.

A call of XGBoost takes half a millisecond however few rows it scores. The kernel adds the same float32 leaves in the same order, so that
both give the same margins. A booster of another kind than the kernel knows is scored by XGBoost: ``trees_of`` compares both on rows that
visit all parts of the trees, and returns None if they differ. ADR 34 gives the measurements.
"""

import json
import logging
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xgboost as xgb
from numba import njit

logger = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float32]
# The lowest 16 bits hold the left child's place in the tree; then follow 14 bits for the feature, and one for the side of a missing value.
_PLACE_BITS, _FEATURE_BITS = 16, 14
_FEATURE_SHIFT, _SIDE_SHIFT = _PLACE_BITS, _PLACE_BITS + _FEATURE_BITS
_NODE: Final = np.dtype([("threshold", np.float32), ("packed", np.uint32)])
_BLOCK: Final = 64  # rows that go through the trees together: their features fit into the L1 cache
_PROBES: Final = 2_048


class Trees(NamedTuple):
    """
    Trees as flat arrays. Tree t has the nodes ``starts[t]`` to ``starts[t + 1]`` and reaches a leaf within ``depths[t]`` steps. The next
    node is the left child, or the one after it if the feature is not below the threshold. A leaf is its own left child, and its threshold
    is NaN, which no value reaches. ``leaves`` float32 holds the value of each leaf; ``base`` is the margin before the first tree.
    """

    starts: npt.NDArray[np.int64]
    depths: npt.NDArray[np.int32]
    nodes: npt.NDArray[np.void]
    leaves: Matrix
    base: np.float32
    features: int

    def margins(self, X: Matrix) -> Matrix:
        """
        Return the margins of X, float32 [n, F]; float32 [n].

        Raises:
            ValueError: if X has another number of columns than the booster has features.
        """
        if X.ndim != 2 or X.shape[1] != self.features:
            raise ValueError(f"the booster has {self.features} features, but the rows have the shape {X.shape}")
        out = np.empty(len(X), np.float32)
        _add_leaves(np.ascontiguousarray(X), self.starts, self.depths, self.nodes, self.leaves, self.base, out)
        return out


@njit(cache=True, nogil=True, error_model="numpy")
def _add_leaves(
    X: Matrix,
    starts: npt.NDArray[np.int64],
    depths: npt.NDArray[np.int32],
    nodes: Any,
    leaves: Matrix,
    base: np.float32,
    out: Matrix,
) -> None:
    """
    Write the margin of each row to ``out``, float32 [n].

    The rows of a block descend one tree together, level by level, so that consecutive steps are independent. Unsigned indices spare numba
    the test for negative ones.
    """
    place_mask, feature_mask = np.uint32((1 << _PLACE_BITS) - 1), np.uint32((1 << _FEATURE_BITS) - 1)
    at = np.empty(_BLOCK, np.uint32)
    for begin in range(0, len(X), _BLOCK):
        rows = X[begin : begin + _BLOCK]
        sums = out[begin : begin + _BLOCK]
        sums[:] = base
        for tree in range(len(depths)):
            own, values = nodes[starts[tree] : starts[tree + 1]], leaves[starts[tree] : starts[tree + 1]]
            at[:] = np.uint32(0)
            for _ in range(depths[tree]):
                for i in range(len(rows)):
                    node = own[at[i]]
                    value = rows[i, (node.packed >> np.uint32(_FEATURE_SHIFT)) & feature_mask]
                    missing_right = (node.packed >> np.uint32(_SIDE_SHIFT)) != np.uint32(0)
                    right = (value >= node.threshold) | ((value != value) & missing_right)
                    at[i] = (node.packed & place_mask) + np.uint32(right)
            for i in range(len(rows)):
                sums[i] += values[at[i]]


def margins_by_xgboost(booster: xgb.Booster, X: Matrix) -> Matrix:
    """Return XGBoost's margins (log-odds) of X, float32 [n, F]; float32 [n]."""
    return np.atleast_1d(booster.inplace_predict(X, predict_type="margin", validate_features=False))


def trees_of(booster: xgb.Booster) -> Trees | None:
    """Return the trees of a booster for the kernel, or None if only XGBoost can score it."""
    trees = _flattened(json.loads(booster.save_raw("json"))["learner"])
    if trees is None:
        return None
    probes = _probes(trees, booster.num_features())
    if not np.array_equal(trees.margins(probes), margins_by_xgboost(booster, probes)):
        logger.warning("the kernel does not reproduce the margins of this booster: XGBoost scores it, more slowly")
        return None
    return trees


def _flattened(learner: dict[str, Any]) -> Trees | None:
    model = learner["learner_model_param"]
    single = int(model["num_class"]) <= 1 and int(model["num_target"]) == 1
    features = int(model["num_feature"])
    if learner["gradient_booster"]["name"] != "gbtree" or not single or features >= 1 << _FEATURE_BITS:
        return None
    given = learner["gradient_booster"]["model"]["trees"]
    # siblings take two places beside each other, so a tree has at most as many places as nodes
    if any(len(tree["left_children"]) >= 1 << _PLACE_BITS or any(tree["split_type"]) for tree in given):
        return None
    if any(split >= features for tree in given for split in tree["split_indices"]):
        return None
    flat = [_flat(tree) for tree in given]
    starts = np.cumsum([0, *(len(nodes) for nodes, _, _ in flat)])
    return Trees(
        starts=starts.astype(np.int64),
        depths=np.array([depth for _, _, depth in flat], np.int32),
        nodes=np.concatenate([nodes for nodes, _, _ in flat]) if flat else np.zeros(0, _NODE),
        leaves=np.concatenate([leaves for _, leaves, _ in flat]) if flat else np.zeros(0, np.float32),
        base=_base_margin(learner),
        features=features,
    )


def compile_trees() -> None:
    """Compile the kernel, or load it from numba's cache."""
    nothing = Trees(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, _NODE), np.zeros(0, np.float32), np.float32(0), 1)
    nothing.margins(np.zeros((1, 1), np.float32))


def _flat(tree: dict[str, Any]) -> tuple[npt.NDArray[np.void], Matrix, int]:
    """Return the nodes, the leaves and the depth of a tree, in breadth-first order with siblings next to each other."""
    left, right = tree["left_children"], tree["right_children"]
    order, place, depth = [0], {0: 0}, {0: 0}
    for node in order:  # the list grows during iteration
        if left[node] >= 0:
            for child in (left[node], right[node]):
                place[child], depth[child] = len(order), depth[node] + 1
                order.append(child)
    nodes, leaves = np.zeros(len(order), _NODE), np.zeros(len(order), np.float32)
    for at, node in enumerate(order):
        value = tree["split_conditions"][node]
        if left[node] < 0:
            nodes[at], leaves[at] = (np.nan, at), value
        else:
            side = 0 if tree["default_left"][node] else 1
            nodes[at] = (value, place[left[node]] | tree["split_indices"][node] << _FEATURE_SHIFT | side << _SIDE_SHIFT)
    return nodes, leaves, max(depth.values())


def _base_margin(learner: dict[str, Any]) -> np.float32:
    """Return the margin that XGBoost starts from; for a logistic objective, it stores the probability."""
    stored = json.loads(learner["learner_model_param"]["base_score"])
    base = np.float32(stored[0] if isinstance(stored, list) else stored)
    if learner["objective"]["name"] in ("binary:logistic", "reg:logistic"):
        return np.float32(-np.log(np.float32(1) / base - np.float32(1)))
    return base


def _probes(trees: Trees, features: int) -> Matrix:
    """Return rows of thresholds, values beside them and missing values, float32 [n, F]."""
    rng = np.random.default_rng(0)
    inner = trees.nodes[np.isfinite(trees.nodes["threshold"])]
    used = (inner["packed"] >> _FEATURE_SHIFT) & ((1 << _FEATURE_BITS) - 1)
    X = np.full((_PROBES, features), np.nan, np.float32)
    for feature in range(features):
        thresholds = inner["threshold"][used == feature]
        if len(thresholds):
            beside = np.concatenate([thresholds, np.nextafter(thresholds, -np.inf), np.nextafter(thresholds, np.inf)])
            X[:, feature] = rng.choice(beside, _PROBES)
    X[rng.random(X.shape) < 0.2] = np.nan
    return X
