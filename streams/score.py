"""
The second hop: what this merchant usually sees, the score and the outcome. Owns merchant state, one engine set a partition of
``profiled``.
"""

import logging
from typing import Any

import msgspec
import numpy as np

from core.errors import InvalidEvent
from core.messages import Label, Outcome, Profiled, decode_profiled, encode
from core.metrics import DECISIONS, KEYS, LABELS, SCORING_FAILURES, STATE_BYTES
from core.topics import ALERTS, PROFILED
from core.topics import DECISIONS as DECISION_TOPIC
from models.bundle import Bundle
from models.features.columns import UNKNOWN_AMOUNT, label_columns, recent_transactions
from models.features.engine import RECENT, EntityEngine, Matrix
from models.features.spec import FeatureSpec
from models.scorer import Scores, alert, decision, score, unscored
from streams.publishing import Output, Publisher
from streams.stage import dead_letter

logger = logging.getLogger(__name__)


class ScoreStage:
    """Adds the merchant's features, scores, decides, and raises alerts."""

    name = "score"
    topics = (PROFILED,)

    def __init__(self, spec: FeatureSpec, bundle: Bundle | None) -> None:
        """Without a bundle every transaction goes to review: never a silent approval."""
        self._spec, self._version, self._bundle = spec, spec.version, bundle
        self._names = spec.feature_names
        self._card_features = len(spec.entities[0].features)
        self._columns = EntityEngine(spec, spec.entities[0]).columns
        self._engines: dict[int, list[EntityEngine]] = {}

    async def start(self, publisher: Publisher) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    def assigned(self, partitions: dict[str, set[int]]) -> None:
        """Drop the merchants of partitions that belong to others now."""
        owned = partitions.get(PROFILED, set())
        self._engines = {partition: engines for partition, engines in self._engines.items() if partition in owned}

    def engines(self, partition: int) -> list[EntityEngine]:
        """The state of a partition's merchants."""
        if partition not in self._engines:
            self._engines[partition] = [EntityEngine(self._spec, entity) for entity in self._spec.entities[1:]]
        return self._engines[partition]

    async def process(self, topic: str, partition: int, records: list[Any]) -> list[Output]:
        """Decide a chunk, run by run: a label takes effect for what comes after it in the log, wherever chunks are cut."""
        outputs: list[Output] = []
        run: list[Profiled] = []
        for record in records:
            try:
                profiled = self._decoded(record.value)
            except InvalidEvent as error:
                outputs.append(dead_letter(self.name, record, error))
                continue
            if profiled.label is None:
                run.append(profiled)
                continue
            outputs += self._decided(partition, run)
            run = []
            self._apply(partition, profiled.label)
        outputs += self._decided(partition, run)
        for engines in zip(*self._engines.values(), strict=True):
            KEYS.labels(engines[0].entity.name).set(sum(engine.keys for engine in engines))
            STATE_BYTES.labels(engines[0].entity.name).set(sum(engine.nbytes for engine in engines))
        return outputs

    def _decoded(self, raw: bytes | None) -> Profiled:
        try:
            profiled = decode_profiled(raw or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidEvent(str(error)) from None
        if (profiled.transaction is None) == (profiled.label is None):
            raise InvalidEvent("a profiled record holds either a transaction or a label")
        if profiled.transaction is not None:
            if profiled.spec != self._version:
                raise InvalidEvent(
                    f"profiled by feature spec {profiled.spec!r}, but this worker scores by {self._version!r}: run one spec at a time"
                )
            if len(profiled.features) != 4 * self._card_features or len(profiled.recent) != 24 * RECENT:
                raise InvalidEvent("features or recent transactions have the wrong length")
        return profiled

    def _apply(self, partition: int, label: Label) -> None:
        for engine in self.engines(partition):
            engine.apply_labels(label_columns([label]))
        LABELS.labels(str(label.fraud).lower()).inc()

    def _decided(self, partition: int, run: list[Profiled]) -> list[Output]:
        if not run:
            return []
        engines = self.engines(partition)
        transactions = [profiled.transaction for profiled in run if profiled.transaction is not None]
        columns = self._columns(transactions)
        card = np.frombuffer(b"".join(profiled.features for profiled in run), "<f4").reshape(len(run), -1)
        X = np.hstack([card, *(engine.update(columns)[0] for engine in engines)])
        scores = self._scored(X, columns.amount == UNKNOWN_AMOUNT)
        outputs = []
        for i, transaction in enumerate(transactions):
            decided = decision(transaction, scores, i)
            DECISIONS.labels(decided.outcome.value).inc()
            outputs.append(Output(DECISION_TOPIC, transaction.transaction_id.encode(), encode(decided)))
            if decided.outcome is not Outcome.APPROVE:
                rows = np.frombuffer(run[i].recent, "<i8").reshape(-1, 3).tolist()
                recent = recent_transactions(rows, int(columns.merchant[i]))
                raised = alert(transaction, decided, self._names, X[i], self._version, recent)
                outputs.append(Output(ALERTS, raised.alert_id.encode(), encode(raised)))
        return outputs

    def _scored(self, X: Matrix, unpriced: Any) -> Scores:
        if self._bundle is not None:
            try:
                return score(self._bundle, X, unpriced)
            except Exception:  # whatever it is, the transactions must be decided: by a person
                logger.exception("the model could not score a batch of %d; all of it goes to review", len(X))
        SCORING_FAILURES.inc(len(X))
        return unscored(len(X))
