"""
Protocol of the Fraud Detection Handbook (Le Borgne et al., chapters 3 and 5), to compare models with published results.

Train on days [s, s + 7), wait 7 days for labels, test on days [s + 14, s + 21) without the cards already known to be compromised.
Chapter 3 uses one such split. The prequential evaluation uses four splits that begin one week apart. The measures are the
area under the ROC curve, average precision, and card precision at 100: the share of the 100 highest-scoring cards of a day that
have a fraud on that day. A detected card is left out on later days.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost as xgb
from msgspec import Struct
from sklearn.metrics import average_precision_score, roc_auc_score

from core.clock import MS_PER_DAY
from core.errors import InputError
from core.privacy.masking import WITHOUT_KEY
from models.features.engine import Matrix
from models.features.spec import FeatureSpec, compromise_spec, handbook_spec
from training.data.dataset import Dataset, features_of, load_dataset
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from training.progress import Progress
from training.train import BOOSTER, ROUNDS

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TRAIN_DAYS = DELAY_DAYS = TEST_DAYS = 7
CARDS_A_DAY = 100
MEASURES: Final = ("auc", "average_precision", "card_precision_100")
# Training begins on these days of 2018. All choices were made on validation folds, which end a week before the first test day.
CHAPTER_3: Final = ("07-25",)
TEST_FOLDS: Final = ("07-25", "08-01", "08-08", "08-15")
VALIDATION_FOLDS: Final = ("05-30", "06-06", "06-13", "06-20", "06-27", "07-04", "07-11")
PUBLISHED: Final[dict[str, tuple[float, float, float]]] = {
    "logistic regression": (0.868, 0.623, 0.297),
    "random forest": (0.870, 0.678, 0.299),
    "XGBoost, selected on validation": (0.869, 0.687, 0.303),
    "XGBoost, best on test": (0.871, 0.694, 0.304),
    "balanced bagging": (0.879, 0.680, 0.305),
    "multilayer perceptron": (0.876, 0.675, 0.303),
    "LSTM": (0.876, 0.665, 0.297),
}
PUBLISHED_CHAPTER_3: Final[dict[str, tuple[float, float, float]]] = {
    "random forest": (0.867, 0.658, 0.287),
    "XGBoost, defaults": (0.862, 0.639, 0.273),
}

# Chosen on the validation folds
WEEK = {**BOOSTER, "max_depth": 4, "min_child_weight": 5, "eta": 0.05}
WEEK_SEEDS = 3
ALL = {**BOOSTER, "max_depth": 6, "min_child_weight": 10, "eta": 0.05}
ALL_FROM_DAY = 35  # the windows of earlier rows are not yet full
ALL_SHARE = 0.5  # model B: weight of the margin of the model trained on all history; model A's margin has the remaining weight

ABLATIONS: Final[dict[str, tuple[str, ...]]] = {
    "amount relative to the card's normal amount": ("to_normal", "zscore"),
    "recent unusual amounts of the card": ("unusual", "max_to_normal", "recent_to_normal"),
    "frauds of a usual amount": ("usual_fraud",),
    "days since a merchant's first and last fraud": ("first_fraud", "last_fraud"),
    "days since the last legitimate transaction": ("last_legitimate",),
    "fraud share": ("merchant_fraud_share",),
    "counts and means": ("card_count", "card_amount_mean", "merchant_count"),
}


class Fold(Struct, frozen=True):
    """One split: indices of the training week's rows, and of the test rows without compromised cards."""

    begin: str
    train: Int64s
    test: Int64s


class Result(Struct, frozen=True):
    """The measures of one model: mean over folds, values by fold, and run time in seconds."""

    name: str
    mean: tuple[float, float, float]
    folds: tuple[tuple[float, float, float], ...]
    seconds: float


class Measured(NamedTuple):
    """The protocol's measures: area under the ROC curve, average precision, and card precision at 100."""

    auc: float
    average_precision: float
    card_precision: float


class Handbook:
    """The handbook's transactions, with the folds, models and measures of its protocol."""

    def __init__(self, dataset: Dataset) -> None:
        """
        Check that the transactions fit the protocol.

        Raises:
            InputError: if they do not cover all folds, or a label is known before the protocol's delay.
        """
        self.dataset = dataset
        self.fraud = dataset.known.final
        time = dataset.columns.event_time
        self.day = time // MS_PER_DAY
        if self.day.max() < _day(TEST_FOLDS[-1]) + 20 or self.day.min() > _day(VALIDATION_FOLDS[0]) - ALL_FROM_DAY:
            raise InputError("these are not the handbook's transactions: the protocol needs at least 2018-04-01 to 2018-09-04")
        reported = dataset.known.reported
        if (reported[self.fraud] < time[self.fraud] + DELAY_DAYS * MS_PER_DAY).any():
            raise InputError("a label is known before the protocol's delay of 7 days: use the mapping `handbook`")
        self.card = np.unique(dataset.columns.card, return_inverse=True)[1].astype(np.int64)

    def fold(self, begin: str) -> Fold:
        """Return the split whose training week begins on a day of 2018, such as ``07-25``."""
        first = _day(begin)
        week = np.flatnonzero((self.day >= first) & (self.day < first + TRAIN_DAYS))
        compromised = np.zeros(self.card.max() + 1, np.bool_)
        compromised[self.card[week[self.fraud[week]]]] = True
        test = []
        for day in range(first + TRAIN_DAYS + DELAY_DAYS, first + TRAIN_DAYS + DELAY_DAYS + TEST_DAYS):
            # labels come 7 days late: the frauds of day - 8 are known when this day begins
            reported = np.flatnonzero((self.day == day - DELAY_DAYS - 1) & self.fraud)
            compromised[self.card[reported]] = True
            rows = np.flatnonzero(self.day == day)
            test.append(rows[~compromised[self.card[rows]]])
        return Fold(begin, week, np.concatenate(test))

    def measures(self, test: Int64s, score: npt.NDArray[Any]) -> Measured:
        """Return the measures of the scores of the rows ``test``."""
        fraud = self.fraud[test]
        return Measured(
            float(roc_auc_score(fraud, score)),
            float(average_precision_score(fraud, score)),
            card_precision(self.day[test], self.card[test], score, fraud),
        )

    def fit(self, X: Matrix, rows: Int64s, test: Int64s, settings: dict[str, Any], seed: int) -> npt.NDArray[np.float32]:
        """Train a model on ``rows`` and return its margins for the rows ``test``."""
        matrix = xgb.DMatrix(X[rows], self.fraud[rows])
        booster = xgb.train({**settings, "seed": seed}, matrix, ROUNDS)
        margins: npt.NDArray[np.float32] = booster.inplace_predict(X[test], predict_type="margin")
        return margins

    def week(self, X: Matrix, fold: Fold, settings: dict[str, Any], seeds: Sequence[int]) -> Floats:
        """Return the mean margin of models trained on the training week, one model per seed."""
        margins = [self.fit(X, fold.train, fold.test, settings, seed) for seed in seeds]
        mean: Floats = np.mean(np.array(margins, np.float64), axis=0)
        return mean

    def history(self, X: Matrix, fold: Fold, seed: int) -> Floats:
        """Return the margin of a model trained on all labelled history up to the end of the training week."""
        first = int(self.day.min()) + ALL_FROM_DAY
        rows = np.flatnonzero((self.day >= first) & (self.day < _day(fold.begin) + TRAIN_DAYS))
        return self.fit(X, rows, fold.test, ALL, seed).astype(np.float64)


def card_precision(day: Int64s, card: Int64s, score: npt.NDArray[Any], fraud: npt.NDArray[np.bool_]) -> float:
    """
    Return the card precision at 100, averaged over days.

    The card precision of a day is the share of the 100 cards with the highest maximum score that have a fraud on that day. A
    detected card is left out on later days.
    """
    table = pd.DataFrame({"day": day, "card": card, "score": score, "fraud": fraud})
    detected: set[int] = set()
    found = []
    for _, rows in table.groupby("day"):
        cards = rows[~rows["card"].isin(detected)].groupby("card")[["score", "fraud"]].max()
        top = cards.sort_values("score", ascending=False, kind="stable").head(CARDS_A_DAY)
        hits = [int(hit) for hit in top.index[top["fraud"]]]
        detected.update(hits)
        found.append(len(hits) / CARDS_A_DAY)
    return float(np.mean(found))


def load_handbook(folder: Path, progress: Progress) -> Handbook:
    """
    Read the handbook's data from ``transactions.parquet`` in a folder.

    Raises:
        InputError: if the file is missing or does not fit the protocol.
    """
    progress.stage("reading", 0)
    source = TransactionFile(folder / "transactions.parquet", load_mapping("handbook"))
    return Handbook(load_dataset(source, handbook_spec(), None, WITHOUT_KEY, progress.advance))


def features(book: Handbook, spec: FeatureSpec, progress: Progress) -> Matrix:
    """
    Return the features X float32 [n, F] of all transactions, after a check that none depends on the future.

    Raises:
        InputError: if a feature changes when later transactions and labels are removed.
    """
    progress.stage(f"{spec.name} features", len(book.day))
    X, _ = features_of(book.dataset, spec, progress.advance)
    progress.stage("leak check", 0)
    check_causal(book.dataset, spec, X, (_day(TEST_FOLDS[0]) + 14) * MS_PER_DAY)
    return X


def check_causal(dataset: Dataset, spec: FeatureSpec, X: Matrix, at: int, rows: int = 100_000) -> None:
    """
    Check that no feature depends on the future.

    The last ``rows`` transactions up to the time ``at`` are computed again by an engine that has seen no later transaction or
    label. Their features must equal X float32 [n, F] bit for bit.

    Raises:
        InputError: if a feature differs. The message names all such features.
    """
    end = int(np.searchsorted(dataset.columns.event_time, at, side="right"))
    if end == 0:
        raise InputError("the leak check found no transaction up to its cut-off time")
    known = dataset.labels.rows(dataset.labels.label_time <= at)
    past = Dataset(
        columns=dataset.columns.rows(slice(0, end)),
        identities=dataset.identities.slice(0, end),
        amounts=dataset.amounts[:end],
        known=dataset.known,
        labels=known,
    )
    again, _ = features_of(past, spec, lambda n: None)
    last = slice(max(0, end - rows), end)
    differ = ~((again[last] == X[last]) | (np.isnan(again[last]) & np.isnan(X[last]))).all(axis=0)
    if differ.any():
        names = [name for name, leaks in zip(spec.feature_names, differ, strict=True) if leaks]
        raise InputError(f"these features use data that was not yet known: {', '.join(names)}")


def run(folder: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """
    Run the whole protocol: our models and the reference models, on chapter 3's split and on the prequential folds.

    Return a JSON-serialisable report. ``prequential`` and ``chapter_3`` are lists of results; ``published``,
    ``published_chapter_3``, ``features``, ``transactions``, ``frauds`` and ``seed`` describe the comparison and the data.

    Raises:
        InputError: if the data is not the handbook's, or a feature depends on the future.
    """
    book = load_handbook(folder, progress)
    plain, ours = features(book, handbook_spec(), progress), features(book, compromise_spec(), progress)
    folds = [book.fold(begin) for begin in TEST_FOLDS]
    seeds = range(seed, seed + WEEK_SEEDS)
    progress.stage("models", 4 * len(folds))
    scores: dict[str, list[Floats]] = {}
    seconds: dict[str, float] = {}
    for fold in folds:
        began = perf_counter()
        book_week = book.week(plain, fold, BOOSTER, [seed])
        progress.advance(1)
        middle = perf_counter()
        week = book.week(ours, fold, WEEK, seeds)
        progress.advance(1)
        late = perf_counter()
        history = book.history(ours, fold, seed)
        progress.advance(2)
        ended = perf_counter()
        for name, score, took in (
            ("7 days, the book's 15 features", book_week, middle - began),
            (f"A: 7 days, {ours.shape[1]} features", week, late - middle),
            ("B: all history and A, half the margin each", ALL_SHARE * history + (1 - ALL_SHARE) * week, ended - middle),
            ("all history alone", history, ended - late),
            ("perfect labels", book.fraud[fold.test].astype(np.float64), 0.0),
        ):
            scores.setdefault(name, []).append(score)
            seconds[name] = seconds.get(name, 0.0) + took
    results = [_result(book, folds, name, of, seconds[name]) for name, of in scores.items()]
    perfect = results[-1].mean[2]
    return {
        "prequential": [_as_json(result, perfect) for result in results],
        "chapter_3": [_as_json(_first(result), results[-1].folds[0][2]) for result in results],
        "published": {name: dict(zip(MEASURES, values, strict=True)) for name, values in PUBLISHED.items()},
        "published_chapter_3": {name: dict(zip(MEASURES, values, strict=True)) for name, values in PUBLISHED_CHAPTER_3.items()},
        "features": list(compromise_spec().feature_names),
        "transactions": len(book.day),
        "frauds": int(book.fraud.sum()),
        "seed": seed,
    }


def ablation(folder: Path, seed: int, progress: Progress) -> list[dict[str, Any]]:
    """
    Measure model A with one seed on the validation folds.

    It is measured with the book's features, with all features of the spec ``compromise``, and without each group of these.
    """
    book = load_handbook(folder, progress)
    folds = [book.fold(begin) for begin in VALIDATION_FOLDS]
    plain, ours = features(book, handbook_spec(), progress), features(book, compromise_spec(), progress)
    names = compromise_spec().feature_names
    variants = {"the book's 15 features": plain, f"all {len(names)}": ours}
    for group, words in ABLATIONS.items():
        kept = [i for i, name in enumerate(names) if not any(word in name for word in words)]
        variants[f"without {group} ({len(names) - len(kept)})"] = np.ascontiguousarray(ours[:, kept])
    progress.stage("ablation", len(variants) * len(folds))
    results = []
    for name, X in variants.items():
        began, scores = perf_counter(), []
        for fold in folds:
            scores.append(book.week(X, fold, WEEK, [seed]))
            progress.advance(1)
        results.append(_as_json(_result(book, folds, name, scores, perf_counter() - began), None))
    return results


def _result(book: Handbook, folds: Sequence[Fold], name: str, scores: Sequence[Floats], seconds: float) -> Result:
    measured = tuple(book.measures(fold.test, score) for fold, score in zip(folds, scores, strict=True))
    mean = tuple(float(value) for value in np.mean(measured, axis=0))
    return Result(name, (mean[0], mean[1], mean[2]), measured, seconds)


def _first(result: Result) -> Result:
    return Result(result.name, result.folds[0], result.folds[:1], result.seconds / len(result.folds))


def _as_json(result: Result, perfect: float | None) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": result.name,
        **dict(zip(MEASURES, (round(value, 4) for value in result.mean), strict=True)),
        "folds": [[round(value, 4) for value in fold] for fold in result.folds],
        "seconds": round(result.seconds, 1),
    }
    if perfect is not None:
        made["share_of_perfect_card_precision"] = round(result.mean[2] / perfect, 4)
    return made


def _day(begin: str) -> int:
    """Return a day of 2018, such as ``07-25``, as days since the epoch."""
    return int(np.datetime64(f"2018-{begin}", "D").astype(np.int64))
