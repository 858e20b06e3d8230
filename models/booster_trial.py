"""
Try a booster in a separate process: load it from standard input and predict a few rows, under resource limits.

Run this file as a script; it needs only Python's standard library. The arguments are the path of XGBoost's library, the number of
features, the CPU limit in seconds and the memory limit in bytes. The exit status is 0 if the booster passes.
"""

import ctypes
import json
import math
import os
import resource
import sys
from array import array
from collections.abc import Callable


def _dumped(xgboost: ctypes.CDLL, booster: ctypes.c_void_p, call: Callable[..., None]) -> list[dict[str, list[float]]]:
    """Return the trees of a loaded booster, in XGBoost's JSON format."""
    length, content = ctypes.c_uint64(), ctypes.POINTER(ctypes.c_char)()
    call("XGBoosterSaveModelToBuffer", booster, b'{"format": "json"}', ctypes.byref(length), ctypes.byref(content))
    model = json.loads(ctypes.string_at(content, length.value))
    trees: list[dict[str, list[float]]] = model["learner"]["gradient_booster"]["model"]["trees"]
    return trees


def _check_trees(trees: list[dict[str, list[float]]], features: int) -> None:
    """Exit unless every tree is valid. XGBoost does not check these indices: it could read out of bounds or loop forever."""
    for number, tree in enumerate(trees):
        left, right, split = tree["left_children"], tree["right_children"], tree["split_indices"]
        n = len(left)
        if not n or any(len(tree[name]) != n for name in ("right_children", "split_indices", "split_conditions", "base_weights")):
            sys.exit(f"tree {number} has no nodes, or node lists of different lengths")
        if any(tree.get("split_type") or ()):
            sys.exit(f"tree {number} has categorical splits")
        waiting, met = [0], {0}
        while waiting:
            node = waiting.pop()
            if not math.isfinite(tree["split_conditions"][node]):
                sys.exit(f"tree {number} has a threshold or leaf that is not a finite number")
            if left[node] == -1:
                continue
            if not 0 <= split[node] < features:
                sys.exit(f"tree {number} uses feature index {split[node]}, but there are {features} features")
            for child in (int(left[node]), int(right[node])):
                if not 0 <= child < n or child in met:
                    sys.exit(f"tree {number} is not a valid tree: node {node} points to {child}")
                met.add(child)
                waiting.append(child)


def main() -> int:
    """Run the trial and return the exit status."""
    library, features, seconds, memory = sys.argv[1], *map(int, sys.argv[2:])
    os.environ["OMP_NUM_THREADS"] = "1"
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raw = sys.stdin.buffer.read()
    xgboost = ctypes.CDLL(library)
    xgboost.XGBGetLastError.restype = ctypes.c_char_p
    booster = ctypes.c_void_p()

    def call(name: str, *arguments: object) -> None:
        if getattr(xgboost, name)(*arguments):
            said = (xgboost.XGBGetLastError() or b"an error").decode("utf-8", "replace")
            sys.exit(said.splitlines()[0])

    call("XGBoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(booster))
    call("XGBoosterSetParam", booster, b"nthread", b"1")
    call("XGBoosterLoadModelFromBuffer", booster, raw, ctypes.c_uint64(len(raw)))
    count = ctypes.c_uint64()
    call("XGBoosterGetNumFeature", booster, ctypes.byref(count))
    if count.value != features:
        sys.exit(f"the booster expects {count.value} features, but the spec has {features}")
    _check_trees(_dumped(xgboost, booster, call), features)
    kinds = (0.0, float("nan"), 1e30, -1e30, 1.0, -1.0, 1e3, 0.5)
    # vary the values by row and column, so that many paths through the trees are tested
    values = array(
        "f", [kinds[(row + column * (row // len(kinds))) % len(kinds)] for row in range(64) for column in range(features)]
    )
    address, _ = values.buffer_info()
    matrix = {"data": [address, True], "shape": [64, features], "typestr": "<f4", "version": 3}
    wanted = {"type": 1, "training": False, "iteration_begin": 0, "iteration_end": 0, "strict_shape": False, "missing": "@"}
    shape, dimensions, result = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64(), ctypes.POINTER(ctypes.c_float)()
    call(
        "XGBoosterPredictFromDense", booster, json.dumps(matrix).encode(), json.dumps(wanted).replace('"@"', "NaN").encode(), None,
        ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(result),
    )  # fmt: skip
    if dimensions.value < 1 or shape[0] != 64 or any(not abs(result[row]) < 1e6 for row in range(64)):
        sys.exit("its predictions are infinite, NaN or out of range")
    return 0


if __name__ == "__main__":
    sys.exit(main())
