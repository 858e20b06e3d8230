"""From a history to a bundle: features, booster, calibration, thresholds, novelty, and how good it is on what came later."""

import io
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import xgboost as xgb
from msgspec import Struct

from core.clock import MS_PER_DAY
from core.errors import InputError
from core.messages import Finding, alert_id
from models.attribution import contributions
from models.bundle import Reference, save_bundle
from models.calibration import Calibration, fit_calibration, reliability
from models.features.engine import Matrix
from models.features.spec import FeatureSpec
from models.novelty import fit_forest, novelty
from models.policy import Policy, fit_policy
from training.dataset import Dataset, features_of, load_dataset
from training.evaluate import evaluate
from training.readers import TransactionFile
from training.splits import Split, split_by_time

Mask = npt.NDArray[np.bool_]
NOVELTY_SAMPLE = 20_000
CASES_AT_MOST = 4_000
# XGBoost's defaults lose 0.07 to 0.10 average precision on fraud data: 256 bins blur the rare amounts, and a base score
# estimated from one in two hundred wastes the first trees. See docs/adr/0004-xgboost-settings.md.
BOOSTER = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_bin": 4096,
    "base_score": 0.5,
    "eta": 0.1,
    "max_depth": 6,
    "min_child_weight": 2,
    "subsample": 0.8,
    "colsample_bytree": 0.6,
}
ROUNDS = 200


class Progress(Struct, frozen=True):
    """How a long run tells where it is: a new stage with its number of steps, and steps done."""

    stage: Callable[[str, int], None]
    advance: Callable[[int], None]


class _Rounds(xgb.callback.TrainingCallback):
    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self._progress.advance(1)
        return False


def train(
    source: TransactionFile, spec: FeatureSpec, *, labels: Path | None, alerts_per_day: float, label_delay_ms: int, out: Path,
    seed: int, pan_key: bytes, progress: Progress,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """
    Train, evaluate and write a bundle to ``out``. Returns its version and its metrics.

    Raises:
        InputError: if the file, the labels or the history's length do not allow it.
    """
    progress.stage("reading", 0)
    dataset = load_dataset(source, spec, labels, pan_key, progress.advance)
    time = dataset.columns.event_time
    if (np.diff(time) < 0).any():
        raise InputError(f"{source.path} is not sorted by event time: sort it, so that no feature sees the future")
    split = split_by_time(time, label_delay_ms)
    progress.stage("features", len(time))
    X, duplicate = features_of(dataset, spec, progress.advance)
    usable = ~duplicate
    rows = split.train(time) & usable
    y = dataset.known.fraud(split.calibration_begin)[rows]
    if y.sum() < 10:
        raise InputError(
            f"only {int(y.sum())} known frauds among the {int(rows.sum()):,} transactions to train on: it takes at least 10"
        )
    progress.stage("boosting", ROUNDS)
    booster = fit_booster(X[rows], y, spec.feature_names, seed, progress)
    progress.stage("calibrating", 0)
    rng = np.random.default_rng(seed)
    sample = rng.choice(np.flatnonzero(rows), min(NOVELTY_SAMPLE, int(rows.sum())), replace=False)
    forest = fit_forest(X[sample], seed)
    later = split.calibration(time) & usable
    margin = _margins(booster, X[later])
    known_then = dataset.known.fraud(split.test_begin)[later]
    calibration = fit_calibration(margin, known_then)
    policy = fit_policy(calibration.probability(margin), novelty(forest, X[later]), split.calibration_days, alerts_per_day)
    progress.stage("testing", 0)
    test = split.test(time) & usable
    probability = calibration.probability(_margins(booster, X[test]))
    final = dataset.known.final
    tested = evaluate(probability, policy.outcomes(probability) > 0, final[test], dataset.amounts[test], split.test_days)
    metrics: dict[str, Any] = {
        "test": tested,
        "reliability": [[b.low, b.high, b.count, b.frauds] for b in reliability(probability, final[test])],
        "training": {"transactions": int(rows.sum()), "known_frauds": int(y.sum()), "seed": seed, "rounds": ROUNDS},
        "split": {name: _day(getattr(split, name)) for name in Split.__struct_fields__},
        "label_delay_days": label_delay_ms / MS_PER_DAY,
        "environment": {"python": platform.python_version(), "xgboost": xgb.__version__, "numpy": np.__version__},
    }
    cases = _cases(dataset, X, booster, calibration, policy, later | test, label_delay_ms)
    with np.errstate(all="ignore"):
        filled = np.where(np.isnan(X[sample]).all(axis=0), np.float32(0), X[sample])
        reference = Reference(
            median=np.nan_to_num(np.nanmedian(filled, axis=0)).astype(np.float32),
            mean=np.nan_to_num(np.nanmean(filled, axis=0)).astype(np.float32),
            std=np.maximum(np.nan_to_num(np.nanstd(filled, axis=0)), 1e-6).astype(np.float32),
        )
    version = save_bundle(
        out,
        booster=booster,
        spec=spec,
        calibration=calibration,
        policy=policy,
        forest=forest,
        reference=reference,
        metrics=metrics,
        card=model_card(spec, policy, metrics),
        cases=cases,
    )
    return version, metrics


def fit_booster(X: Matrix, y: Mask, names: tuple[str, ...], seed: int, progress: Progress) -> xgb.Booster:
    """Gradient-boosted trees on X float32 [n, F] and bool y [n]."""
    data = xgb.DMatrix(X, label=y, feature_names=list(names))
    parameters = {**BOOSTER, "seed": seed, "nthread": os.cpu_count() or 1}
    return xgb.train(parameters, data, ROUNDS, callbacks=[_Rounds(progress)])


def _margins(booster: xgb.Booster, X: Matrix) -> npt.NDArray[np.float32]:
    margins: npt.NDArray[np.float32] = booster.inplace_predict(X, predict_type="margin", validate_features=False)
    return margins


def _cases(
    dataset: Dataset, X: Matrix, booster: xgb.Booster, calibration: Calibration, policy: Policy, rows: Mask, delay_ms: int
) -> bytes:
    """
    The alerts this bundle would have raised after training, as investigated cases: the casebook it starts with.

    A fraud was closed when it was reported; what nobody reported within the label delay was closed as legitimate then.
    """
    candidates = np.flatnonzero(rows)
    probability = calibration.probability(_margins(booster, X[candidates]))
    flagged = candidates[policy.outcomes(probability) > 0]
    if len(flagged) > CASES_AT_MOST:
        flagged = flagged[:: len(flagged) // CASES_AT_MOST + 1]
    shap, _ = contributions(booster, X[flagged])
    fraud = dataset.known.final[flagged]
    time = dataset.columns.event_time[flagged]
    closed = np.where(fraud, dataset.known.reported[flagged], time + delay_ms)
    ids = dataset.transaction_ids.take(pa.array(flagged)).to_pylist()
    table = pa.table(
        {
            "case_id": [alert_id(transaction_id) for transaction_id in ids],
            "outcome": [str(Finding.FRAUD if f else Finding.LEGITIMATE) for f in fraud],
            "event_time": time,
            "closed_time": closed,
            "amount": dataset.amounts[flagged],
            "features": list(X[flagged]),
            "contributions": list(shap),
        },
        schema=pa.schema(
            [
                ("case_id", pa.string()), ("outcome", pa.string()), ("event_time", pa.int64()), ("closed_time", pa.int64()),
                ("amount", pa.int64()), ("features", pa.list_(pa.float32())), ("contributions", pa.list_(pa.float32())),
            ]
        ),
    )  # fmt: skip
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def _day(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def model_card(spec: FeatureSpec, policy: Policy, metrics: dict[str, Any]) -> str:
    """The model card (headings after Mitchell et al., 2019), in Markdown."""
    test, split, training = metrics["test"], metrics["split"], metrics["training"]
    measures = "\n".join(f"| {name.replace('_', ' ')} | {'n/a' if value is None else value} |" for name, value in test.items())
    return f"""# Model card

## Model details
XGBoost {metrics["environment"]["xgboost"]}, {training["rounds"]} rounds, histogram trees with {BOOSTER["max_bin"]} bins, base score
{BOOSTER["base_score"]}, seed {training["seed"]}. {len(spec.feature_names)} features of spec `{spec.version}`, amounts in {spec.currency}.
Platt calibration; isolation forest for novelty.

## Intended use
Ranking card transactions by the probability of fraud, for review by people. Not for decisions about a person's credit or account.

## Factors
Features describe the card's and the merchant's recent behaviour. No name, address, age or nationality is used; country and
place of purchase are, and may stand in for origin.

## Metrics
On the test period, {split["test_begin"]} to {split["test_end"]}, at the threshold for {policy.alerts_per_day:g} alerts a day:

| measure | value |
|---|---|
{measures}

## Training data
{training["transactions"]:,} transactions, {split["train_begin"]} to {split["train_end"]}, {training["known_frauds"]:,} of them known to be fraud
when training could have begun. What nobody had reported by then counts as legitimate.

## Evaluation data
Thresholds and calibration come from {split["calibration_begin"]} to {split["calibration_end"]}; the test period was used for nothing else than
this card. Labels are taken to be {metrics["label_delay_days"]:g} days late.

## Ethical considerations
A false alarm stops somebody's payment. The review outcome exists so that a person looks before that happens.

## Caveats and recommendations
Fraud that is never reported looks legitimate to the model. Behaviour drifts: retrain, and compare the live alert rate with
the budget of {policy.alerts_per_day:g} a day.
"""
