"""
Search for a training recipe: Optuna tunes the booster's settings on time-ordered folds with the label delay in between.

Only transactions of the training period are used, never those of the calibration and test periods.
"""

import time
import warnings
from typing import Any

import numpy as np
import optuna
from msgspec import Struct
from sklearn.metrics import average_precision_score

from core.clock import MS_PER_DAY
from core.errors import InputError
from models.features.spec import FeatureSpec
from models.trees import margins_by_xgboost
from training.progress import Progress
from training.train import BOOSTER, ROUNDS, History, Imbalance, OutOfTime, Recipe, fit_booster

FOLDS = 3
_VALIDATION_SHARE = 0.2  # of the training period, for each fold


_SPACE: dict[str, optuna.distributions.BaseDistribution] = {
    "eta": optuna.distributions.FloatDistribution(0.02, 0.3, log=True),
    "max_depth": optuna.distributions.IntDistribution(3, 9),
    "min_child_weight": optuna.distributions.FloatDistribution(1, 30, log=True),
    "subsample": optuna.distributions.FloatDistribution(0.5, 1.0),
    "colsample_bytree": optuna.distributions.FloatDistribution(0.3, 1.0),
    "reg_lambda": optuna.distributions.FloatDistribution(0.1, 30, log=True),
    "rounds": optuna.distributions.IntDistribution(80, 400, step=20),
    "imbalance": optuna.distributions.CategoricalDistribution([way.value for way in Imbalance]),
}
_DEFAULT = {
    **{name: BOOSTER[name] for name in ("eta", "max_depth", "min_child_weight", "subsample", "colsample_bytree")},
    "reg_lambda": 1.0,
    "rounds": ROUNDS,
    "imbalance": Imbalance.NONE.value,
}


class Fold(Struct, frozen=True):
    """One fold: training rows with the labels known when validation began, and validation rows with their outcomes."""

    train: Any
    known: Any
    validate: Any
    fraud: Any


class Tuned(Struct, frozen=True):
    """
    The best recipe and all trials.

    The average precisions are means over the folds. They are given for the best recipe, for the default recipe, and for the
    default recipe with each imbalance method.
    """

    recipe: Recipe
    average_precision: float
    default_average_precision: float
    imbalance: dict[Imbalance, float]
    trials: list[dict[str, Any]]


def folds_of(history: History, label_delay_ms: int) -> list[Fold]:
    """
    Return the folds of the training period.

    Each fold validates on one slice of the period, and trains on the rows that are at least a label delay older than the slice.

    Raises:
        InputError: if the period is too short, or a fold has too few frauds.
    """
    split, event_time = history.split, history.dataset.columns.event_time
    length = int((split.train_end - split.train_begin) * _VALIDATION_SHARE)
    folds = []
    for back in range(FOLDS, 0, -1):
        begin = split.train_end - back * length
        train = np.flatnonzero((event_time >= split.train_begin) & (event_time < begin - label_delay_ms) & history.usable)
        validate = np.flatnonzero((event_time >= begin) & (event_time < begin + length) & history.usable)
        known = history.dataset.known.fraud(begin)[train]
        # outcomes as known when calibration begins
        fraud = history.dataset.known.fraud(split.calibration_begin)[validate]
        if known.sum() < 10 or fraud.sum() < 5:
            raise InputError(
                f"too few frauds to tune on: a fold that validates on {length / MS_PER_DAY:.1f} days has {int(known.sum())} "
                f"known frauds to train on and {int(fraud.sum())} to validate on; give more history"
            )
        folds.append(Fold(train, known, validate, fraud))
    return folds


def average_precision(
    history: History, spec: FeatureSpec, folds: list[Fold], recipe: Recipe, seed: int, deadline: float, trial: Any = None
) -> float:
    """
    Return the mean average precision of a recipe over the folds. An Optuna trial that falls behind is pruned.

    Raises:
        OutOfTime: if ``time.monotonic()`` passes ``deadline`` before the last fold is measured.
    """
    found: list[float] = []
    for step, fold in enumerate(folds):
        booster = fit_booster(history.X[fold.train], fold.known, spec, recipe, seed, deadline=deadline)
        found.append(float(average_precision_score(fold.fraud, margins_by_xgboost(booster, history.X[fold.validate]))))
        if trial is not None:
            trial.report(float(np.mean(found)), step)
            if trial.should_prune():
                raise optuna.TrialPruned
    return float(np.mean(found))


def compare_imbalance(
    history: History, spec: FeatureSpec, folds: list[Fold], seed: int, deadline: float, progress: Progress
) -> dict[Imbalance, float]:
    """
    Return the mean average precision of the default recipe with each imbalance method. Leave out methods not measured in time.

    Raises:
        InputError: if there was no time for the default recipe itself.
    """
    progress.stage("imbalance", len(Imbalance))
    compared: dict[Imbalance, float] = {}
    for way in Imbalance:
        try:
            compared[way] = average_precision(history, spec, folds, Recipe(imbalance=way), seed, deadline)
        except OutOfTime:
            break
        progress.advance(1)
    if Imbalance.NONE not in compared:
        raise InputError("the time was up before the default recipe was measured: allow more --minutes, or give less history")
    return compared


def tune(
    history: History, spec: FeatureSpec, *, label_delay_ms: int, trials: int, seconds: float, seed: int, progress: Progress
) -> Tuned:
    """
    Search for the best recipe until the budget of trials or of seconds is spent. The first trial is the default recipe.

    A trial that is still running at the deadline is abandoned.

    Raises:
        InputError: if the history is too short, has too few frauds, or the time does not suffice for the default recipe.
    """
    deadline = time.monotonic() + seconds
    folds = folds_of(history, label_delay_ms)
    compared = compare_imbalance(history, spec, folds, seed, deadline, progress)
    study = _study(seed, compared[Imbalance.NONE])
    progress.stage("tuning", trials)
    progress.advance(1)
    while len(study.trials) < trials and time.monotonic() < deadline:
        trial = study.ask(_SPACE)
        try:
            study.tell(trial, average_precision(history, spec, folds, _recipe(trial.params), seed, deadline, trial))
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except OutOfTime:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        progress.advance(1)
    return Tuned(
        recipe=_recipe(study.best_params),
        average_precision=round(float(study.best_value), 4),
        default_average_precision=round(compared[Imbalance.NONE], 4),
        imbalance={way: round(value, 4) for way, value in compared.items()},
        trials=[
            {"state": trial.state.name.lower(), "average_precision": trial.value, **trial.params} for trial in study.get_trials()
        ],
    )


def _study(seed: int, default_value: float) -> optuna.Study:
    """Return a study whose first trial is the default recipe, measured already."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        )
        study.add_trial(optuna.trial.create_trial(params=_DEFAULT, distributions=_SPACE, value=default_value))
    return study


def _recipe(parameters: dict[str, Any]) -> Recipe:
    """Return the recipe of a trial's parameters."""
    booster = {name: value for name, value in parameters.items() if name not in ("rounds", "imbalance")}
    return Recipe(booster=booster, rounds=parameters["rounds"], imbalance=Imbalance(parameters["imbalance"]))
