"""Monitoring of a scoring worker: drift from the bundle's calibration data, and the outcomes of its decisions."""

from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from core.clock import MS_PER_DAY
from core.metrics import FEATURE_PSI, MATURED, MATURED_PROBABILITY, SCORE_PSI
from models.bundles.bundle import Bundle
from models.drift import DriftWindow
from models.features.columns import LabelColumns, TransactionColumns
from models.features.engine import Matrix
from models.scorer import Scores

_ONE_IN = 8  # one transaction in this many is counted for drift
_KEPT = 200_000  # capacity for decisions waiting for labels; the buffer has twice as many rows of 33 bytes
_WAITING = np.dtype([("time", "i8"), ("id", "u8"), ("probability", "f8"), ("weight", "i8"), ("alert", "?")])
_FEWEST = 2**20  # lowest sampling rate: one approved decision in this many is kept
_KEPT_LABELS = 100_000


class MaturingDecisions:
    """
    Decisions that wait until their label delay has passed in event time. One that has no fraud label by then counts as
    legitimate.

    When too many decisions wait, half of the approved ones are dropped by hash, whether fraud or not. The weight of the other
    approved ones is doubled, so that the counts stay correct on average. The buffer is in memory: a restart forgets the waiting
    decisions.
    """

    def __init__(self, delay_ms: int, room: int = _KEPT) -> None:
        self._delay, self._room, self._one_in = delay_ms, room, 1
        self._rows = np.zeros(2 * room, _WAITING)
        self._begin = self._end = 0  # ``_rows[_begin:_end]`` are waiting
        self._frauds: OrderedDict[int, None] = OrderedDict()
        self._newest = 0

    def __len__(self) -> int:
        return self._end - self._begin

    def observe(self, columns: TransactionColumns, scores: Scores) -> None:
        """Add decisions, and count those whose label delay has passed."""
        if len(self) < self._room // 8:
            self._one_in = max(1, self._one_in // 2)
        alert = scores.outcome > 0
        kept = alert | (columns.transaction % np.uint64(self._one_in) == 0)
        rows = np.zeros(int(kept.sum()), _WAITING)
        for name, values in (
            ("time", columns.event_time), ("id", columns.transaction), ("probability", scores.probability), ("alert", alert),
        ):  # fmt: skip
            rows[name] = values[kept]
        rows["weight"] = np.where(rows["alert"], 1, self._one_in)
        if len(rows):
            self._newest = max(self._newest, int(rows["time"].max()))
        for part in np.array_split(rows, len(rows) // self._room + 1):
            self._append(part)
        self._count_due()

    def _append(self, rows: npt.NDArray[Any]) -> None:
        if len(self) + len(rows) > self._room:
            waiting = self._rows[self._begin : self._end].copy()
            twice = 2 * waiting["weight"].astype(np.uint64)
            stays = waiting["alert"] | (waiting["id"] % twice == 0)
            waiting["weight"] = np.where(waiting["alert"], 1, twice)
            self._one_in *= 2 if self._one_in < _FEWEST else 1
            # alerts are never sampled: if they alone are too many, the oldest rows are dropped
            self._keep(waiting[stays][-(self._room - len(rows)) :] if len(rows) < self._room else waiting[:0])
        if self._end + len(rows) > len(self._rows):
            self._keep(self._rows[self._begin : self._end])
        self._rows[self._end : self._end + len(rows)] = rows
        self._end += len(rows)

    def _keep(self, rows: npt.NDArray[Any]) -> None:
        self._rows[: len(rows)] = rows.copy()
        self._begin, self._end = 0, len(rows)

    def _count_due(self) -> None:
        if not len(self) or self._rows["time"][self._begin] + self._delay >= self._newest:
            return
        late = self._rows["time"][self._begin : self._end] + self._delay >= self._newest
        due = self._rows[self._begin : self._begin + (int(np.argmax(late)) if late.any() else len(late))]
        self._begin += len(due)
        weight = due["weight"]
        fraud = np.array([identity in self._frauds for identity in due["id"].tolist()], np.bool_)
        for identity in due["id"][fraud].tolist():
            self._frauds.pop(identity, None)
        for alert in (False, True):
            for ended in (False, True):
                counted = weight[(due["alert"] == alert) & (fraud == ended)].sum()
                MATURED.labels(str(alert).lower(), str(ended).lower()).inc(float(counted))
        MATURED_PROBABILITY.inc(float(np.nansum(weight * due["probability"])))

    def label(self, labels: LabelColumns) -> None:
        """Apply labels: remember reported frauds, and forget those that were retracted."""
        for transaction, fraud in zip(labels.transaction.tolist(), labels.fraud.tolist(), strict=True):
            if fraud:
                self._frauds[transaction] = None
            else:
                self._frauds.pop(transaction, None)
        while len(self._frauds) > _KEPT_LABELS:
            self._frauds.popitem(last=False)


class DecisionMonitor:
    """Updates the drift and outcome metrics of one bundle's decisions."""

    def __init__(self, bundle: Bundle, maturing: MaturingDecisions | None = None) -> None:
        self.bundle = bundle
        self.maturing = maturing or MaturingDecisions(int(bundle.metrics.label_delay_days * MS_PER_DAY))
        self._calendar = bundle.spec.calendar_features
        self._drift = DriftWindow(bundle.reference.edges, bundle.reference.shares)

    def observe(self, columns: TransactionColumns, X: Matrix, scores: Scores) -> None:
        """Add decided transactions, X float32 [n, F]. One in ``_ONE_IN``, chosen by hash, is counted for drift."""
        self.maturing.observe(columns, scores)
        some = (columns.transaction % np.uint64(_ONE_IN) == 0) & ~np.isnan(scores.probability)
        if some.any() and self._drift.add(X[some], scores.probability[some]):
            index = self._drift.close().tolist()
            SCORE_PSI.set(index[-1])
            for name, value in zip(self.bundle.spec.feature_names, index, strict=False):
                if name not in self._calendar:
                    FEATURE_PSI.labels(name).set(value)
