"""
Gates that a challenger must pass to become champion: quality, calibration, drift, speed and conformance.

Challenger and champion are measured on the same transactions. None of these was used to train or calibrate the challenger.
"""

from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from sklearn.metrics import average_precision_score

from models.attribution import contributions
from models.bundles.bundle import Bundle, load_bundle
from models.calibration import calibration_error
from models.drift import SHIFTED, counted_with_score, stability
from models.features.engine import Matrix
from models.scorer import score
from models.trees import margins_by_xgboost
from training.evaluation.measures import ScoredTransactions

Floats = npt.NDArray[np.float64]
_WORSE = 0.01  # a loss of average precision up to this counts as noise
_RECALL_WORSE = 0.02
_CALIBRATION_WORSE, _CALIBRATION_FLOOR = 1.25, 0.005
_SLOWER = 1.5
_RESAMPLES = 200
_FEWEST_FRAUDS = 20


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Gate(Struct, frozen=True):
    """The result of one gate: whether it passed, and the measurement in words."""

    name: str
    passed: bool
    found: str


def gates(
    challenger: Bundle, seen: ScoredTransactions, champion: Bundle | None, before: ScoredTransactions | None, seed: int = 0
) -> list[Gate]:
    """
    Return the results of all gates, or of the first one alone if there is too little to measure.

    ``seen`` and ``before`` are the same transactions, scored by the challenger and by the champion. Without a champion,
    quality and calibration are compared with the fraud rate, and speed is not measured.
    """
    frauds, others = int(seen.fraud.sum()), int((~seen.fraud).sum())
    enough = Gate(
        "frauds",
        frauds >= _FEWEST_FRAUDS and others >= _FEWEST_FRAUDS,
        f"{frauds:,} frauds and {others:,} legitimate transactions; at least {_FEWEST_FRAUDS} of each are needed",
    )
    found = [enough]
    if not enough.passed:
        return found
    found += conformance(challenger, seen.X, champion)
    probability = seen.scores.probability
    error = calibration_error(probability, seen.fraud)
    index = stability(
        challenger.reference.shares,
        counted_with_score(seen.X, probability, challenger.reference.edges),
    )
    worst = int(np.argmax(index))
    names = (*challenger.spec.feature_names, "score")
    found.append(
        Gate(
            "drift",
            float(index[-1]) < SHIFTED,
            f"stability index of the score {index[-1]:.3f}, limit {SHIFTED}; largest: {names[worst]} {index[worst]:.3f}",
        )
    )
    precision = float(average_precision_score(seen.fraud, probability))
    if champion is None or before is None:
        share = float(seen.fraud.mean())
        found.append(
            Gate("quality", precision > 5 * share, f"average precision {precision:.4f}, by chance {share:.4f}; no champion yet")
        )
        found.append(Gate("calibration", error <= max(_CALIBRATION_FLOOR, 0.5 * share), f"error {error:.5f}; no champion yet"))
        return found
    old = before.scores.probability
    low, high = _difference(seen.fraud, probability, old, seed)
    old_precision = float(average_precision_score(seen.fraud, old))
    recalls = [float((t.flagged & t.fraud).sum() / max(t.fraud.sum(), 1)) for t in (seen, before)]
    quality = precision >= old_precision - _WORSE and recalls[0] >= recalls[1] - _RECALL_WORSE
    found.append(
        Gate(
            "quality",
            quality,
            f"average precision {precision:.4f} against {old_precision:.4f} (difference 95 %: {low:+.4f} to {high:+.4f}), recall "
            f"{recalls[0]:.3f} against {recalls[1]:.3f} at {seen.flagged.sum() / seen.days:.1f} and "
            f"{before.flagged.sum() / before.days:.1f} alerts per day",
        )
    )
    old_error = calibration_error(old, seen.fraud)
    limit = max(_CALIBRATION_FLOOR, _CALIBRATION_WORSE * old_error)
    found.append(Gate("calibration", error <= limit, f"error {error:.5f} against {old_error:.5f}, limit {limit:.5f}"))
    times = _seconds(challenger, seen.X, champion, before.X)
    found.append(
        Gate(
            "speed",
            times[0] <= _SLOWER * times[1],
            f"{times[0] / times[1]:.2f} times the champion's scoring time, limit {_SLOWER}",
        )
    )
    return found


def conformance(bundle: Bundle, X: Matrix, champion: Bundle | None) -> list[Gate]:
    """Check the properties that every bundle must have, on rows of X float32 [n, F] and rows of extreme or missing values."""
    same = champion is None or champion.spec.version == bundle.spec.version
    checks = {
        "features": (
            same,
            bundle.spec.version
            if same
            else f"needs spec {bundle.spec.version}, the champion needs {champion and champion.spec.version}",
        ),
        "manifest": (_loads(bundle.folder, bundle.version), "every file matches its SHA-256"),
    }
    some = X[:: max(1, len(X) // 500)][:500]
    rng = np.random.default_rng(0)
    hostile = np.vstack(
        [some, np.full_like(some[:3], np.nan), np.full_like(some[:3], 1e30), np.full_like(some[:3], -1e30), rng.permuted(some)]
    )
    hostile[-3:, ::2] = np.nan
    doubts = np.zeros(len(hostile), np.uint8)
    scores = score(bundle, hostile, doubts)
    p = scores.probability
    checks["probabilities"] = (
        bool(np.isfinite(p).all() and (p >= 0).all() and (p <= 1).all()),
        "finite and in [0, 1] for any input",
    )
    order = np.argsort(p, kind="stable")
    checks["monotone policy"] = (
        bool((np.diff(scores.by_score[order]) >= 0).all()),
        "a higher probability never gets a milder outcome",
    )
    single = np.concatenate([score(bundle, hostile[i : i + 1], doubts[:1]).probability for i in range(0, len(hostile), 7)])
    checks["batches"] = (bool((single == p[::7]).all()), "scores are bit-identical alone and in a batch")
    shap, bias = contributions(bundle.booster, some[:50])
    margin = margins_by_xgboost(bundle.booster, some[:50])
    checks["contributions"] = (
        bool(np.allclose(shap.sum(axis=1) + bias, margin, atol=1e-3)),
        "contributions and bias add up to the margin",
    )
    return [Gate(f"conformance: {name}", passed, words) for name, (passed, words) in checks.items()]


def _loads(folder: Path, version: str) -> bool:
    return load_bundle(folder).version == version


def _difference(fraud: npt.NDArray[np.bool_], new: Floats, old: Floats, seed: int) -> Interval:
    """Return the central 95 % interval of the difference in average precision, by a paired bootstrap."""
    rng = np.random.default_rng(seed)
    # Each resample draws a Poisson weight for every row instead of drawing rows. This is fast enough for a million rows.
    found = []
    for _ in range(_RESAMPLES):
        weight = rng.poisson(1.0, len(fraud))
        if (weight[fraud] > 0).any():
            found.append(
                average_precision_score(fraud, new, sample_weight=weight)
                - average_precision_score(fraud, old, sample_weight=weight)
            )
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(float(low), float(high))


def _seconds(one: Bundle, X: Matrix, other: Bundle, Y: Matrix) -> tuple[float, float]:
    """Return the fastest time of each bundle to score a batch of 256 rows, in seconds. The bundles take turns."""
    best = [float("inf"), float("inf")]
    for _ in range(15):
        for place, (bundle, rows) in enumerate(((one, X[:256]), (other, Y[:256]))):
            began = perf_counter()
            score(bundle, rows, np.zeros(len(rows), np.bool_))
            best[place] = min(best[place], perf_counter() - began)
    return best[0], best[1]
