"""
Search for a training recipe: Optuna tunes the booster's settings on time-ordered folds with the label delay in between.

Only transactions of the training period are used, never those of the calibration and test periods.
"""

import time
import warnings
from typing import Any

import numpy as np
import optuna
from msgspec import Struct, structs
from sklearn.metrics import average_precision_score

from core.clock import MS_PER_DAY
from core.errors import InputError
from models.features.spec import FeatureSpec
from training.progress import Progress
from training.train import BOOSTER, IMBALANCE, ROUNDS, History, Recipe, fit_booster, margins

FOLDS = 3
_VALIDATION_SHARE = 0.2  # of the training period, for each fold


class Fold(Struct, frozen=True):
    """One fold: training rows with the labels known when validation began, and validation rows with their outcomes."""

    train: Any
    known: Any
    validate: Any
    fraud: Any


class Tuned(Struct, frozen=True):
    """The best recipe, its mean average precision and the default recipe's, that of each imbalance method, and all trials."""

    recipe: Recipe
    average_precision: float
    default_average_precision: float
    imbalance: dict[str, float]
    trials: list[dict[str, Any]]


def folds_of(history: History, label_delay_ms: int) -> list[Fold]:
    """
    Return the folds of the training period. Each validates on a slice and trains on everything up to a label delay before it.

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
                f"too few frauds to tune on: a fold that validates {length / MS_PER_DAY:.1f} days has {int(known.sum())} "
                f"known frauds to train on and {int(fraud.sum())} to validate on; give more history"
            )
        folds.append(Fold(train, known, validate, fraud))
    return folds


def average_precision(
    history: History, spec: FeatureSpec, folds: list[Fold], recipe: Recipe, seed: int, trial: Any = None
) -> float:
    """Return the mean average precision of a recipe over the folds. An Optuna trial that falls behind is pruned."""
    found: list[float] = []
    for step, fold in enumerate(folds):
        booster = fit_booster(history.X[fold.train], fold.known, spec, recipe, seed)
        found.append(float(average_precision_score(fold.fraud, margins(booster, history.X[fold.validate]))))
        if trial is not None:
            trial.report(float(np.mean(found)), step)
            if trial.should_prune():
                raise optuna.TrialPruned
    return float(np.mean(found))


def tune(
    history: History, spec: FeatureSpec, *, label_delay_ms: int, trials: int, seconds: float, seed: int, progress: Progress
) -> Tuned:
    """
    Search for the best recipe until the budget of trials or of seconds is spent. The first trial is the default recipe.

    Raises:
        InputError: if the history is too short or has too few frauds.
    """
    began = time.monotonic()
    folds = folds_of(history, label_delay_ms)
    progress.stage("imbalance", len(IMBALANCE))
    compared = {}
    for way in IMBALANCE:
        compared[way] = round(average_precision(history, spec, folds, Recipe(imbalance=way), seed), 4)
        progress.advance(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        )
    default = {name: BOOSTER[name] for name in ("eta", "max_depth", "min_child_weight", "subsample", "colsample_bytree")}
    study.enqueue_trial({**default, "reg_lambda": 1.0, "rounds": ROUNDS, "imbalance": "none"})

    def objective(trial: optuna.Trial) -> float:
        recipe = Recipe(
            booster={
                "eta": trial.suggest_float("eta", 0.02, 0.3, log=True),
                "max_depth": trial.suggest_int("max_depth", 3, 9),
                "min_child_weight": trial.suggest_float("min_child_weight", 1, 30, log=True),
                "subsample": trial.suggest_float("subsample", 0.5, 1.0),
                "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1.0),
                "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 30, log=True),
            },
            rounds=trial.suggest_int("rounds", 80, 400, step=20),
            imbalance=trial.suggest_categorical("imbalance", IMBALANCE),
        )
        return average_precision(history, spec, folds, recipe, seed, trial)

    progress.stage("tuning", trials)
    left = max(seconds - (time.monotonic() - began), 0.01)  # at least one trial runs: Optuna finishes a trial it has begun
    study.optimize(objective, n_trials=trials, timeout=left, callbacks=[lambda *_: progress.advance(1)])
    best = dict(study.best_params)
    rounds, imbalance = int(best.pop("rounds")), str(best.pop("imbalance"))
    return Tuned(
        recipe=structs.replace(Recipe(), booster=best, rounds=rounds, imbalance=imbalance),
        average_precision=round(float(study.best_value), 4),
        default_average_precision=compared["none"],
        imbalance=compared,
        trials=[
            {"state": trial.state.name.lower(), "average_precision": trial.value, **trial.params} for trial in study.get_trials()
        ],
    )
