"""Training of a bundle from a history: features, booster, calibration, thresholds, novelty, and evaluation on later data."""

import io
import math
import os
import platform
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, NamedTuple

import msgspec
import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import sklearn
import xgboost as xgb
from msgspec import Meta, Struct, structs

from core.clock import MS_PER_DAY
from core.errors import InputError
from core.messages import Finding, alert_id
from core.privacy.masking import Privacy
from models.attribution import contributions
from models.bundles.bundle import Reference, check_empty, save_bundle
from models.bundles.metrics import BundleMetrics, CalibrationRecord, DataRecord, PeriodRecord, TrainingRecord
from models.calibration import (
    Calibration,
    CalibrationMethod,
    best_calibration,
    calibration_error,
    compare_calibrations,
    fit_calibration,
    reliability,
)
from models.drift import distributions
from models.features.columns import UNKNOWN_AMOUNT
from models.features.engine import Matrix
from models.features.ops import Op
from models.features.spec import FeatureSpec, op_of
from models.features.state import FOREVER
from models.novelty import Forest, fit_forest, novelty
from models.policy import APPROVE, REVIEW, Policy, cheapest_budget, fit_policy
from models.trees import margins_by_xgboost
from training.data.dataset import Dataset, compile_with_progress, features_of, load_dataset
from training.data.readers import TransactionFile, files_digest, messages_of
from training.evaluation.measures import evaluate, threshold_measures
from training.maturity import reported_share
from training.progress import NoProgress, Progress
from training.splits import Split, split_by_time

Mask = npt.NDArray[np.bool_]
NOVELTY_SAMPLE = 20_000
_LARGEST_BUDGET = 0.1  # of the transactions
_FEWEST_OF_A_KIND = 10  # known frauds, and legitimate transactions, to train on
HONEST_SAMPLE, FRAUD_SAMPLE = 5_000, 2_000  # rows kept in the bundle, to tell how unusual a value is: 1.4 MB at 50 features
CASES_AT_MOST = 4_000
NOVEL_SHARE = 0.05
# XGBoost's defaults lose 0.07 to 0.10 average precision on fraud data: 256 bins blur rare amounts, and a base score estimated
# from one fraud in two hundred transactions wastes the first trees. See docs/decisions/0004-xgboost-settings.md.
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
_LEGITIMATE_FOR_A_FRAUD = 20  # legitimate transactions that undersampling keeps for each fraud
# Features that ``monotone`` constrains: more known fraud at a merchant or card never lowers the score
_RISING = frozenset(
    {Op.FRAUD_COUNT, Op.FRAUD_SHARE, Op.USUAL_FRAUD_COUNT, Op.USUAL_FRAUD_SHARE, Op.FRAUD_REPORTS, Op.FRAUD_REPORT_SHARE}
)


class Imbalance(StrEnum):
    """Method of handling class imbalance in training."""

    NONE = "none"
    WEIGHTED = "weighted"
    ROOT_WEIGHTED = "root-weighted"
    UNDERSAMPLED = "undersampled"


class CalibrationChoice(StrEnum):
    """A calibration method, or the one with the best Brier score."""

    AUTO = "auto"
    SIGMOID = "sigmoid"
    ISOTONIC = "isotonic"
    NONE = "none"


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """
    Settings chosen before a model sees data. They are recorded in the model's metrics.

    ``booster`` overrides ``BOOSTER``. ``monotone`` guarantees that more known frauds never lower a score, for users who must give
    that guarantee. It is off by default, because it lowers average precision (docs/how-to/models.md). ``review_cost`` is the cost
    of one review, minor units. If it is given, the alert budget is the one that minimises total cost, not the team's capacity.
    """

    booster: dict[str, float] = {}
    rounds: Annotated[int, Meta(ge=1, le=10_000)] = ROUNDS
    imbalance: Imbalance = Imbalance.NONE
    monotone: bool = False
    calibration: CalibrationChoice = CalibrationChoice.AUTO
    novel_share: Annotated[float, Meta(ge=0, le=1)] = NOVEL_SHARE
    review_cost: Annotated[float, Meta(gt=0)] | None = None


DEFAULT = Recipe()


class Trained(NamedTuple):
    """
    A bundle that was trained: its version and its metrics.

    ``unpriced`` is the number of transactions in a currency without an exchange rate: all of them go to review.
    """

    version: str
    metrics: BundleMetrics
    unpriced: int


def load_recipe(path: Path) -> Recipe:
    """
    Load a recipe from a JSON file, as written by ``whyflag tune``.

    Raises:
        InputError: if the file cannot be read or is not a valid recipe.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recipe, strict=True)
    except OSError as error:
        raise InputError(f"--recipe: {error}") from None
    except msgspec.MsgspecError as error:
        raise InputError(f"--recipe {path} is not a valid recipe: {error}; create one with `whyflag tune`") from None


class OutOfTime(Exception):
    """Training was stopped because its time is up."""


class _Rounds(xgb.callback.TrainingCallback):
    """Reports each round, and stops training at a deadline (``time.monotonic``)."""

    def __init__(self, progress: Progress, deadline: float) -> None:
        self._progress, self._deadline = progress, deadline

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self._progress.advance(1)
        if monotonic() > self._deadline:
            raise OutOfTime
        return False


class History(Struct, frozen=True):
    """
    A file read for training: transactions in order, features X float32 [n, F], the split, and the files' SHA-256 digests.

    ``usable`` bool [n] is False for duplicates.
    """

    dataset: Dataset
    X: Matrix
    usable: Mask
    split: Split
    digests: dict[str, str]


def load_history(
    source: TransactionFile, spec: FeatureSpec, labels: Path | None, label_delay_ms: int, privacy: Privacy, progress: Progress
) -> History:
    """
    Read a file and compute its features.

    Raises:
        InputError: if the file or the labels cannot be used, or the history is too short.
    """
    compile_with_progress(spec, progress)
    progress.stage("reading", 0)
    dataset = load_dataset(source, spec, labels, privacy, progress.advance)
    time = dataset.columns.event_time
    if (earlier := np.flatnonzero(np.diff(time) < 0)).size:
        at = int(earlier[0])
        several = "; its files are read in the order of their names" if len(source.files) > 1 else ""
        raise InputError(
            f"{source.path} is not sorted by event time: a transaction of {_day(time[at + 1])} comes after one of {_day(time[at])} (row "
            f"{at + 2:,} of the usable ones){several}. Sort it, so that no feature sees the future"
        )
    split = split_by_time(time, label_delay_ms)
    progress.stage("features", len(time))
    X, duplicate = features_of(dataset, spec, progress.advance, path=source.path)
    digests = {"transactions": source.digest, **({"labels": files_digest(labels)} if labels else {})}
    return History(dataset, X, ~duplicate, split, digests)


def train(
    source: TransactionFile, spec: FeatureSpec, *, labels: Path | None, alerts_per_day: float, label_delay_ms: int, out: Path,
    seed: int, privacy: Privacy, progress: Progress, recipe: Recipe = DEFAULT,
) -> Trained:  # fmt: skip
    """
    Train and evaluate a bundle and write it to ``out``. Return its version and metrics.

    Raises:
        InputError: if the file or the labels cannot be used, the history is too short, or it has too few known frauds.
    """
    check_empty(out)
    history = load_history(source, spec, labels, label_delay_ms, privacy, progress)
    dataset, X, split, usable = history.dataset, history.X, history.split, history.usable
    time = dataset.columns.event_time
    rows = np.flatnonzero(split.train(time) & usable)
    y = dataset.known.fraud(split.calibration_begin)[rows]
    if (~y).sum() < _FEWEST_OF_A_KIND:
        raise InputError(
            f"only {int((~y).sum())} of the {len(rows):,} training transactions are legitimate: are blank labels meant to be legitimate? Then "
            'set legitimate = [""] in the [label] section of the mapping'
        )
    if y.sum() < _FEWEST_OF_A_KIND:
        raise InputError(
            f"only {int(y.sum())} known frauds among the {len(rows):,} training transactions: at least {_FEWEST_OF_A_KIND} are needed"
        )
    progress.stage("boosting", recipe.rounds)
    booster = fit_booster(X[rows], y, spec, recipe, seed, progress)
    progress.stage("calibrating", 0)
    sample = np.random.default_rng(seed).choice(rows, min(NOVELTY_SAMPLE, len(rows)), replace=False)
    forest = fit_forest(X[sample], seed)
    later = split.calibration(time) & usable
    margin, known_then = margins_by_xgboost(booster, X[later]), dataset.known.fraud(split.test_begin)[later]
    reports = dataset.known.reported
    frauds = reports < FOREVER
    known = reported_share(time[later], time[frauds], reports[frauds], split.test_begin)
    compared = compare_calibrations(margin, known_then, known)
    chosen = recipe.calibration
    method = best_calibration(compared) if chosen is CalibrationChoice.AUTO else CalibrationMethod(chosen.value)
    calibration = fit_calibration(margin, known_then, method, known)
    unusual, probability = novelty(forest, X[later]), calibration.probability(margin)
    budget = float(alerts_per_day)
    if recipe.review_cost is not None:
        budget = cheapest_budget(probability, dataset.amounts[later], known_then, split.calibration_days, recipe.review_cost)
    policy = fit_policy(probability, unusual, split.calibration_days, budget, recipe.novel_share)
    progress.stage("testing", 0)
    test = split.test(time) & usable
    tested_probability = calibration.probability(margins_by_xgboost(booster, X[test]))
    tested_novelty = novelty(forest, X[test])
    unpriced = dataset.columns.amount[test] == UNKNOWN_AMOUNT
    outcome = policy.outcomes(tested_probability, tested_novelty)
    by_novelty = (outcome > 0) & (tested_probability < policy.review)
    outcome[unpriced & (outcome == APPROVE)] = REVIEW  # the scorer, too, sends transactions without an exchange rate to review
    final = dataset.known.final
    measured = evaluate(tested_probability, outcome > 0, final[test], dataset.amounts[test], split.test_days)
    metrics = BundleMetrics(
        test=structs.replace(
            measured,
            calibration_error=round(calibration_error(tested_probability, final[test]), 6),
            mean_probability_of_alerts=round(float(tested_probability[outcome > 0].mean()), 4) if (outcome > 0).any() else 0.0,
        ),
        novel=evaluate(tested_novelty, by_novelty, final[test], dataset.amounts[test], split.test_days),
        reliability=tuple((b.low, b.high, b.count, b.frauds) for b in reliability(tested_probability, final[test])),
        thresholds=threshold_measures(tested_probability, final[test], dataset.amounts[test], split.test_days, measured.alerts),
        calibration=CalibrationRecord(method, compared, round(known, 4)),
        training=TrainingRecord(transactions=len(rows), known_frauds=int(y.sum()), seed=seed, rounds=recipe.rounds),
        recipe=msgspec.to_builtins(recipe),
        budget=budget,
        split=PeriodRecord(*(_day(getattr(split, name)) for name in PeriodRecord.__struct_fields__)),
        label_delay_days=label_delay_ms / MS_PER_DAY,
        data=DataRecord(source.path.name, history.digests),
        environment=environment(),
        pan_key=privacy.fingerprint,
    )
    cases = _cases(dataset, X, booster, calibration, policy, forest, later | test, label_delay_ms)
    version = save_bundle(
        out,
        booster=booster,
        spec=spec,
        calibration=calibration,
        policy=policy,
        forest=forest,
        reference=build_reference(X[sample], X[later], probability, X[rows[~y]], X[rows[y]], seed),
        metrics=metrics,
        card=model_card(spec, policy, metrics),
        cases=cases,
    )
    return Trained(version, metrics, int((dataset.columns.amount == UNKNOWN_AMOUNT).sum()))


def budget_too_large(metrics: BundleMetrics) -> str | None:
    """Return a warning if the budget is more than a tenth of the test period's transactions, else None."""
    days = max(metrics.split.test_days, 1 / 24)
    daily = metrics.test.transactions / days
    if metrics.budget <= _LARGEST_BUDGET * daily:
        return None
    return (
        f"the budget is {metrics.budget:,.0f} alerts a day for about {daily:,.0f} transactions a day, of which {metrics.test.frauds / days:,.1f} are "
        "fraud: most alerts will be false. Give a smaller --review-budget"
    )


def budget_missed(alerts_per_day: float | None, budget: float) -> str | None:
    """Return a warning if the test period has less than half or more than 1.5 times the budgeted alerts per day, else None."""
    if alerts_per_day is None or 0.5 * budget <= alerts_per_day <= 1.5 * budget:
        return None
    return (
        f"the test period has {alerts_per_day:,.0f} alerts a day, the budget is {budget:,.0f}: the transactions have changed since the "
        "calibration period. Train on newer data, or set thresholds with `whyflag backtest --review`"
    )


def build_reference(
    X: Matrix, later: Matrix, probability: npt.NDArray[np.float64], honest: Matrix, fraud: Matrix, seed: int
) -> Reference:
    """
    Return the reference of usual values.

    It holds statistics of the training rows X float32 [n, F], the distributions of the calibration rows ``later`` and their
    probabilities, and samples of the honest and the fraudulent training rows.
    """
    with np.errstate(all="ignore"):
        filled = np.where(np.isnan(X).all(axis=0), np.float32(0), X)
        edges, shares = distributions(np.column_stack([later, probability.astype(np.float32)]))
        return Reference(
            median=np.nan_to_num(np.nanmedian(filled, axis=0)).astype(np.float32),
            mean=np.nan_to_num(np.nanmean(filled, axis=0)).astype(np.float32),
            std=np.maximum(np.nan_to_num(np.nanstd(filled, axis=0)), 1e-6).astype(np.float32),
            edges=edges,
            shares=shares,
            honest=_sorted_sample(honest, HONEST_SAMPLE, seed),
            fraud=_sorted_sample(fraud, FRAUD_SAMPLE, seed),
        )


def _sorted_sample(X: Matrix, most: int, seed: int) -> Matrix:
    """Return a sample of at most ``most`` rows, with each column sorted separately."""
    chosen = np.random.default_rng(seed).choice(len(X), min(most, len(X)), replace=False)
    return np.sort(X[np.sort(chosen)], axis=0)


def environment() -> dict[str, str]:
    """Return the versions of Python and of the packages that a model's numbers depend on."""
    # not the versions of distributions: the images install XGBoost as xgboost-cpu
    modules = {"xgboost": xgb, "numpy": np, "scikit-learn": sklearn, "numba": numba, "pyarrow": pa}
    return {"python": platform.python_version(), **{name: module.__version__ for name, module in modules.items()}}


def fit_booster(
    X: Matrix, y: Mask, spec: FeatureSpec, recipe: Recipe, seed: int, progress: Progress | None = None, deadline: float = math.inf
) -> xgb.Booster:
    """
    Train gradient-boosted trees on X float32 [n, F] and y bool [n].

    Raises:
        InputError: if XGBoost rejects the recipe's settings.
        OutOfTime: if ``time.monotonic()`` passes ``deadline`` before the last round.
    """
    parameters: dict[str, Any] = {**BOOSTER, **recipe.booster, "seed": seed, "nthread": os.cpu_count() or 1}
    if "max_depth" in parameters:
        parameters["max_depth"] = int(parameters["max_depth"])
    if recipe.monotone:
        features = [feature for entity in spec.entities for feature in entity.features]
        parameters["monotone_constraints"] = tuple(int(op_of(feature) in _RISING) for feature in features)
    legitimate = float((~y).sum()) / max(float(y.sum()), 1.0)
    if recipe.imbalance is Imbalance.WEIGHTED:
        parameters["scale_pos_weight"] = legitimate
    elif recipe.imbalance is Imbalance.ROOT_WEIGHTED:
        parameters["scale_pos_weight"] = legitimate**0.5
    elif recipe.imbalance is Imbalance.UNDERSAMPLED:
        others = np.flatnonzero(~y)
        kept = np.random.default_rng(seed).choice(others, min(len(others), _LEGITIMATE_FOR_A_FRAUD * int(y.sum())), replace=False)
        chosen = np.sort(np.concatenate([np.flatnonzero(y), kept]))
        X, y = X[chosen], y[chosen]
    data = xgb.DMatrix(X, label=y, feature_names=list(spec.feature_names))
    try:
        return xgb.train(parameters, data, recipe.rounds, callbacks=[_Rounds(progress or NoProgress(), deadline)])
    except xgb.core.XGBoostError as error:
        lines = str(error).splitlines()
        raise InputError(
            f"XGBoost rejects the recipe's booster settings {recipe.booster}: {lines[-1] if lines else error}"
        ) from None


def _cases(
    dataset: Dataset, X: Matrix, booster: xgb.Booster, calibration: Calibration, policy: Policy, forest: Forest, rows: Mask,
    delay_ms: int,
) -> bytes:  # fmt: skip
    """
    Return the bundle's initial casebook, Parquet: the alerts it would have raised after training, as investigated cases.

    The case of a fraud closes when the fraud is reported. Any other case closes after the label delay, as legitimate.
    """
    candidates = np.flatnonzero(rows)
    probability = calibration.probability(margins_by_xgboost(booster, X[candidates]))
    flagged = candidates[policy.outcomes(probability, novelty(forest, X[candidates])) > 0]
    if len(flagged) > CASES_AT_MOST:
        flagged = flagged[:: len(flagged) // CASES_AT_MOST + 1]
    shap, _ = contributions(booster, X[flagged])
    fraud = dataset.known.final[flagged]
    time = dataset.columns.event_time[flagged]
    closed = np.where(fraud, dataset.known.reported[flagged], time + delay_ms)
    transactions = messages_of(dataset.identities.take(pa.array(flagged)))
    table = pa.table(
        {
            "case_id": [alert_id(transaction) for transaction in transactions],
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


def model_card(spec: FeatureSpec, policy: Policy, metrics: BundleMetrics) -> str:
    """Return the model card in Markdown, with the headings of Mitchell et al. (2019)."""
    split, training = metrics.split, metrics.training
    measures = "\n".join(f"| {name} | {'n/a' if value is None else value} |" for name, value in metrics.test.shown().items())
    return f"""# Model card

## Model details
XGBoost {metrics.environment["xgboost"]}, {training.rounds} rounds, histogram trees with {BOOSTER["max_bin"]} bins, base score
{BOOSTER["base_score"]}, seed {training.seed}. {len(spec.feature_names)} features of spec `{spec.version}`, amounts in {spec.currency}.
Calibration: {metrics.calibration.method}. Novelty: isolation forest, with {policy.novel_share:.0%} of the alert budget.

## Intended use
Ranking card transactions by the probability of fraud, for review by people. Not for decisions about a person's credit or account.

## Factors
Features describe the card's and the merchant's recent behaviour. Names, addresses, ages and nationalities are not
used. The country and place of purchase are used, and may act as a proxy for origin.

## Metrics
On the test period, {split.test_begin} to {split.test_end}, at the threshold for {policy.alerts_per_day:g} alerts a day:

| measure | value |
|---|---|
{measures}

## Training data
File `{metrics.data.name}` (SHA-256 {metrics.data.sha256["transactions"][:16]}…): {training.transactions:,} transactions, {split.train_begin} to {split.train_end}, {training.known_frauds:,} of them known to be fraud
when the calibration period began. Transactions not reported by then count as legitimate.

## Evaluation data
Thresholds and calibration come from {split.calibration_begin} to {split.calibration_end}; the test period was used only for
this card. Labels are assumed to be {metrics.label_delay_days:g} days late.

## Ethical considerations
A false alarm stops somebody's payment. The review outcome exists so that a person can check before that happens.

## Caveats and recommendations
Fraud that is never reported looks legitimate to the model. Behaviour drifts: retrain, and compare the live alert rate with
the budget of {policy.alerts_per_day:g} a day.
"""
