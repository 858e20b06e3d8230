"""Evaluation of decisions against fraud labels."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from core.clock import MS_PER_DAY
from core.errors import InputError
from core.privacy.masking import Privacy
from models.bundles.bundle import Bundle
from models.bundles.metrics import Measures, ThresholdMeasures
from models.features.columns import UNKNOWN_AMOUNT
from models.scorer import Scores, score
from training.data.dataset import Dataset, compile_with_progress, features_of, load_dataset
from training.data.readers import TransactionFile
from training.progress import Progress

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float32]


class ScoredTransactions(Struct, frozen=True):
    """n transactions scored by a bundle, with their final labels."""

    dataset: Dataset
    rows: npt.NDArray[np.int64]
    X: Matrix
    scores: Scores
    fraud: Mask
    amount: npt.NDArray[np.int64]
    days: float

    @property
    def flagged(self) -> Mask:
        """Return which transactions became alerts, bool [n]."""
        return self.scores.outcome > 0


def score_file(
    source: TransactionFile,
    labels: Path | None,
    bundle: Bundle,
    privacy: Privacy,
    progress: Progress,
    after: Bundle | None = None,
) -> ScoredTransactions:
    """
    Score the transactions of a file from the start of the bundle's test period on.

    If another bundle is given as ``after``, the test period of that bundle counts instead.

    Raises:
        InputError: if the file cannot be used or has no transactions from then on.
    """
    compile_with_progress(bundle.spec, progress)
    progress.stage("reading", 0)
    dataset = load_dataset(source, bundle.spec, labels, privacy, progress.advance)
    time = dataset.columns.event_time
    progress.stage("features", len(time))
    X, duplicate = features_of(dataset, bundle.spec, progress.advance, path=source.path)
    periods = (after or bundle).metrics.split
    rows = np.flatnonzero((time >= periods.test_begin_ms) & ~duplicate)
    if len(rows) == 0:
        raise InputError(f"{source.path}: no transactions after {periods.test_begin}, the start of the bundle's test period")
    progress.stage("scoring", 0)
    return ScoredTransactions(
        dataset=dataset,
        rows=rows,
        X=X[rows],
        scores=score(bundle, X[rows], dataset.columns.amount[rows] == UNKNOWN_AMOUNT),
        fraud=dataset.known.final[rows],
        amount=dataset.amounts[rows],
        days=max((int(time[rows].max()) - int(time[rows].min()) + 1) / MS_PER_DAY, 1 / 24),
    )


_MULTIPLES: Final = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)  # of the number of alerts


def threshold_measures(
    probability: Floats, fraud: Mask, amount: npt.NDArray[np.int64], days: float, alerts: int
) -> tuple[ThresholdMeasures, ...]:
    """Return what thresholds would have flagged that raise a multiple of ``alerts`` (0.25 to 5), highest threshold first."""
    ordered = np.sort(probability)[::-1]
    counts = sorted({min(max(round(alerts * multiple), 1), len(ordered)) for multiple in _MULTIPLES}) if len(ordered) else []
    found = []
    for threshold in dict.fromkeys(float(ordered[count - 1]) for count in counts):
        measured = evaluate(probability, probability >= threshold, fraud, amount, days)
        found.append(
            ThresholdMeasures(threshold, measured.alerts_per_day, measured.precision, measured.recall, measured.amount_caught)
        )
    return tuple(found)


def evaluate(probability: Floats, flagged: Mask, fraud: Mask, amount: npt.NDArray[np.int64], days: float) -> Measures:
    """
    Return the measures of n scored transactions. An undefined measure is None.

    Alerts, alerts per day, precision, recall and the share of the amount caught are computed from the flags. The area under the
    ROC curve, average precision, Brier score and log loss are computed from the probabilities.
    """
    caught = int((flagged & fraud).sum())
    lost = int(amount[fraud].sum())
    both = bool(fraud.any() and not fraud.all())
    return Measures(
        transactions=len(fraud),
        frauds=int(fraud.sum()),
        alerts=int(flagged.sum()),
        alerts_per_day=round(float(flagged.sum()) / days, 2) if days > 0 else None,
        precision=round(caught / int(flagged.sum()), 4) if flagged.any() else None,
        recall=round(caught / int(fraud.sum()), 4) if fraud.any() else None,
        amount_caught=round(int(amount[flagged & fraud].sum()) / lost, 4) if lost else None,
        auc=round(float(roc_auc_score(fraud, probability)), 4) if both else None,
        average_precision=round(float(average_precision_score(fraud, probability)), 4) if both else None,
        brier=round(float(brier_score_loss(fraud, np.clip(probability, 0, 1))), 6) if both else None,
        log_loss=round(float(log_loss(fraud, np.clip(probability, 1e-12, 1 - 1e-12))), 6) if both else None,
    )
