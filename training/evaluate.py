"""How good decisions were, once it is known what was fraud."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def evaluate(probability: Floats, flagged: Mask, fraud: Mask, amount: npt.NDArray[np.int64], days: float) -> dict[str, Any]:
    """
    Measures of n scored transactions: counts, alerts a day, precision, recall and amount caught of the flagged ones; area
    under ROC, average precision, Brier score and log loss of the probabilities. What is undefined is None.
    """
    caught = int((flagged & fraud).sum())
    lost = int(amount[fraud].sum())
    both = bool(fraud.any() and not fraud.all())
    return {
        "transactions": len(fraud),
        "frauds": int(fraud.sum()),
        "alerts": int(flagged.sum()),
        "alerts_per_day": round(float(flagged.sum()) / days, 2) if days > 0 else None,
        "precision": round(caught / int(flagged.sum()), 4) if flagged.any() else None,
        "recall": round(caught / int(fraud.sum()), 4) if fraud.any() else None,
        "amount_caught": round(int(amount[flagged & fraud].sum()) / lost, 4) if lost else None,
        "auc": round(float(roc_auc_score(fraud, probability)), 4) if both else None,
        "average_precision": round(float(average_precision_score(fraud, probability)), 4) if both else None,
        "brier": round(float(brier_score_loss(fraud, np.clip(probability, 0, 1))), 6) if both else None,
        "log_loss": round(float(log_loss(fraud, np.clip(probability, 1e-12, 1 - 1e-12))), 6) if both else None,
    }
