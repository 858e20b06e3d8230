"""Monitoring of a scoring worker: drift from the bundle's calibration data."""

import numpy as np

from core.metrics import FEATURE_PSI, SCORE_PSI
from models.bundles.bundle import Bundle
from models.drift import DriftWindow
from models.features.columns import TransactionColumns
from models.features.engine import Matrix
from models.scorer import Scores

_ONE_IN = 8  # one transaction in this many is counted


class DriftMonitor:
    """Updates the stability indexes of one bundle's features and scores. They are absent until a window is full."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._calendar = bundle.spec.calendar_features
        self._drift = DriftWindow(bundle.reference.edges, bundle.reference.shares)
        SCORE_PSI.set(None)
        FEATURE_PSI.clear()

    def observe(self, columns: TransactionColumns, X: Matrix, scores: Scores) -> None:
        """Add decided transactions, X float32 [n, F]. One in ``_ONE_IN``, chosen by hash, is counted."""
        some = (columns.transaction % np.uint64(_ONE_IN) == 0) & ~np.isnan(scores.probability)
        if some.any() and self._drift.add(X[some], scores.probability[some]):
            index = self._drift.close().tolist()
            SCORE_PSI.set(index[-1])
            for name, value in zip(self.bundle.spec.feature_names, index, strict=False):
                if name not in self._calendar:
                    FEATURE_PSI.labels(name).set(value)
