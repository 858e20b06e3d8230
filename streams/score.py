"""
The second hop: what this merchant usually sees, the score and the outcome. Owns merchant state, one engine set a partition of
``profiled``.
"""

import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from core.errors import InvalidEvent
from core.messages import Label, Profiled, decode_profiled, encode
from core.metrics import DECISIONS, REPLAYED, SCORING_FAILURES
from core.metrics import LABELS as LABELS_APPLIED
from core.topics import ALERTS, LABELS, PROFILED, SCORE_CHECKPOINTS, TRANSACTIONS
from core.topics import DECISIONS as DECISION_TOPIC
from models.bundle import Bundle
from models.features.columns import UNKNOWN_AMOUNT, TransactionColumns, label_columns, recent_transactions
from models.features.engine import RECENT, EntityEngine, Matrix
from models.features.spec import FeatureSpec
from models.policy import APPROVE
from models.scorer import OUTCOMES, Scores, alert, decisions, score, unscored
from streams.publishing import Outputs, Publisher
from streams.stage import dead_letter
from streams.state import PartitionState

logger = logging.getLogger(__name__)


class ScoreStage:
    """Adds the merchant's features, scores, decides, and raises alerts."""

    name = "score"
    topics = (PROFILED,)
    checkpoints = SCORE_CHECKPOINTS

    def __init__(self, spec: FeatureSpec, bundle: Bundle | None) -> None:
        """Without a bundle every transaction goes to review: never a silent approval."""
        self._spec, self.version, self._bundle = spec, spec.version, bundle
        self.bundle = bundle.version if bundle else ""
        self._names = spec.feature_names
        self._card_features = len(spec.entities[0].features)
        self._columns = EntityEngine(spec, spec.entities[0]).columns
        self.states: dict[int, PartitionState] = {}

    async def start(self, publisher: Publisher) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    def new_state(self) -> PartitionState:
        """The engines of the merchant and of whatever other entities the spec has."""
        return PartitionState(self._spec, self._spec.entities[1:])

    def state(self, partition: int) -> PartitionState:
        """What is known of a partition."""
        if partition not in self.states:
            self.states[partition] = self.new_state()
        return self.states[partition]

    async def process(self, topic: str, partition: int, records: list[Any]) -> list[Outputs]:
        """Decide a chunk, run by run: a label takes effect for what comes after it in the log, wherever chunks are cut."""
        outputs: list[Outputs] = []
        state = self.state(partition)
        for run, label in self._runs(state, records, outputs, self.version):
            outputs += self._decided(state, run)
            if label:
                self._apply(state, label)
        return outputs

    def remember(self, topic: str, partition: int, records: list[Any]) -> None:
        """Take records into the state and decide nothing: of a transaction profiled by any spec, the merchant's past is the same."""
        state = self.state(partition)
        for run, label in self._runs(state, records, [], None):
            if run:
                columns = self._columns_of(run)
                for engine in state.engines:
                    engine.update(columns)
            if label:
                self._apply(state, label)

    def _runs(
        self, state: PartitionState, records: list[Any], letters: list[Outputs], spec: str | None
    ) -> Iterator[tuple[list[Profiled], Label | None]]:
        """What is new among some records: runs of transactions, each up to a label. What cannot be used is a dead letter."""
        run: list[Profiled] = []
        for record in records:
            try:
                profiled = self._decoded(record.value, spec)
            except InvalidEvent as error:
                letters.append(dead_letter(self.name, record, error))
                continue
            if not state.is_new(LABELS if profiled.label else TRANSACTIONS, profiled.origin):
                REPLAYED.inc()
            elif profiled.label is None:
                run.append(profiled)
            else:
                yield run, profiled.label
                run = []
        yield run, None

    def _decoded(self, raw: bytes | None, spec: str | None) -> Profiled:
        try:
            profiled = decode_profiled(raw or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidEvent(str(error)) from None
        if (profiled.transaction is None) == (profiled.label is None):
            raise InvalidEvent("a profiled record holds either a transaction or a label")
        if profiled.transaction is not None and spec is not None:
            if profiled.spec != spec:
                raise InvalidEvent(
                    f"profiled by feature spec {profiled.spec!r}, but this worker scores by {spec!r}: run one spec at a time"
                )
            if len(profiled.features) != 4 * self._card_features or len(profiled.recent) != 24 * RECENT:
                raise InvalidEvent("features or recent transactions have the wrong length")
        return profiled

    def _columns_of(self, run: list[Profiled]) -> TransactionColumns:
        columns = self._columns([profiled.transaction for profiled in run if profiled.transaction is not None])
        return columns.marked(np.array([profiled.unusual for profiled in run]))

    def _apply(self, state: PartitionState, label: Label) -> None:
        for engine in state.engines:
            engine.apply_labels(label_columns([label]))
        LABELS_APPLIED.labels(str(label.fraud).lower()).inc()

    def _decided(self, state: PartitionState, run: list[Profiled]) -> list[Outputs]:
        if not run:
            return []
        transactions = [profiled.transaction for profiled in run if profiled.transaction is not None]
        columns = self._columns_of(run)
        card = np.frombuffer(b"".join(profiled.features for profiled in run), "<f4").reshape(len(run), -1)
        X = np.hstack([card, *(engine.update(columns)[0] for engine in state.engines)])
        scores = self._scored(X, columns.amount == UNKNOWN_AMOUNT)
        decided = decisions(transactions, scores)
        for code, outcome in OUTCOMES.items():
            DECISIONS.labels(outcome.value).inc(int((scores.outcome == code).sum()))
        made = Outputs(DECISION_TOPIC, [t.transaction_id.encode() for t in transactions], [encode(d) for d in decided])
        alerts = Outputs(ALERTS, [], [])
        for i in np.flatnonzero(scores.outcome != APPROVE).tolist():
            rows = np.frombuffer(run[i].recent, "<i8").reshape(-1, 3).tolist()
            recent = recent_transactions(rows, int(columns.merchant[i]))
            raised = alert(transactions[i], decided[i], self._names, X[i], self._spec, recent)
            alerts.keys.append(raised.alert_id.encode())
            alerts.values.append(encode(raised))
        return [made, alerts] if alerts.keys else [made]

    def _scored(self, X: Matrix, unpriced: Any) -> Scores:
        if self._bundle is not None:
            try:
                return score(self._bundle, X, unpriced)
            except Exception:  # whatever it is, the transactions must be decided: by a person
                logger.exception("the model could not score a batch of %d; all of it goes to review", len(X))
        SCORING_FAILURES.inc(len(X))
        return unscored(len(X))
