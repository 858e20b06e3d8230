"""What people watch a scoring worker for: drift against the bundle's calibration, and what became of its decisions."""

from collections import OrderedDict, deque

import numpy as np

from core.clock import MS_PER_DAY
from core.metrics import FEATURE_PSI, MATURED, MATURED_PROBABILITY, SCORE_PSI
from models.bundle import Bundle
from models.drift import DriftWindow
from models.features.columns import LabelColumns, TransactionColumns
from models.features.engine import Matrix
from models.scorer import Scores

_ONE_IN = 8  # transactions that are counted for drift
_KEPT = 500_000  # decisions that wait for their labels; about 100 bytes each
_KEPT_LABELS = 100_000


class Matured:
    """
    Decisions until their label delay is over by event time: then what nobody has reported counts as legitimate.

    Where too many wait, half of the approved ones are let go, by their hash, and each that stays counts twice, fraud or not: the counts
    stay right on average. Kept in memory: a restart forgets what waits.
    """

    def __init__(self, delay_ms: int, room: int = _KEPT) -> None:
        self._delay, self._room, self._one_in = delay_ms, room, 1
        self._waiting: deque[tuple[int, int, float, bool]] = deque()
        self._frauds: OrderedDict[int, int] = OrderedDict()
        self._newest = 0

    def see(self, columns: TransactionColumns, scores: Scores) -> None:
        """Remember decisions, and count those whose delay is over."""
        alerts = scores.outcome > 0
        kept = np.flatnonzero(alerts | (columns.transaction % np.uint64(self._one_in) == 0))
        time, transaction = columns.event_time[kept].tolist(), columns.transaction[kept].tolist()
        self._waiting.extend(zip(time, transaction, scores.probability[kept].tolist(), alerts[kept].tolist(), strict=True))
        self._newest = max([self._newest, *time])
        while self._waiting and self._waiting[0][0] + self._delay < self._newest:
            _, identity, probability, alert = self._waiting.popleft()
            weight = 1 if alert else self._one_in
            fraud = self._frauds.pop(identity, None) is not None
            MATURED.labels(str(alert).lower(), str(fraud).lower()).inc(weight)
            if probability == probability:
                MATURED_PROBABILITY.inc(weight * probability)
        while len(self._waiting) > self._room and self._one_in < 2**32:
            self._one_in *= 2
            self._waiting = deque(entry for entry in self._waiting if entry[3] or entry[1] % self._one_in == 0)

    def label(self, labels: LabelColumns) -> None:
        """What turned out, and what was taken back."""
        for transaction, label_time, fraud in zip(
            labels.transaction.tolist(), labels.label_time.tolist(), labels.fraud.tolist(), strict=True
        ):
            if fraud:
                self._frauds[transaction] = label_time
            else:
                self._frauds.pop(transaction, None)
        while len(self._frauds) > _KEPT_LABELS:
            self._frauds.popitem(last=False)


class Watch:
    """Watches the decisions of one bundle."""

    def __init__(self, bundle: Bundle, matured: Matured | None = None) -> None:
        self.bundle = bundle
        self.matured = matured or Matured(int(bundle.metrics["label_delay_days"] * MS_PER_DAY))
        self._drift = DriftWindow(bundle.reference.edges, bundle.reference.shares)

    def see(self, columns: TransactionColumns, X: Matrix, scores: Scores) -> None:
        """Look at decided transactions, X float32 [n, F]. One in some is counted for drift, chosen by its hash."""
        self.matured.see(columns, scores)
        some = (columns.transaction % np.uint64(_ONE_IN) == 0) & ~np.isnan(scores.probability)
        if some.any() and self._drift.add(X[some], scores.probability[some]):
            index = self._drift.turn().tolist()
            SCORE_PSI.set(index[-1])
            for name, value in zip(self.bundle.spec.feature_names, index, strict=False):
                FEATURE_PSI.labels(name).set(value)
