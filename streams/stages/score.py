"""
The second stage: adds merchant features to each transaction, then scores it and decides. Owns the merchant state, one set of
engines per partition of ``profiled``.
"""

import asyncio
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from time import monotonic, time
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from core import metrics
from core.errors import InvalidEvent, Refusal
from core.messages import Decision, Disagreement, Label, encode
from core.topics import ALERTS, DECISIONS, DISAGREEMENTS, LABELS, PROFILED, SCORE_CHECKPOINTS, TRANSACTIONS
from models.features.columns import Mark, TransactionColumns, label_columns, recent_transactions
from models.features.engine import UNBOUNDED, EntityEngine, Matrix, compile_kernels
from models.features.spec import FeatureSpec
from models.policy import APPROVE
from models.scorer import DOUBT_CODES, OUTCOMES, Decider, Doubt, Payments, Scores, alert, decisions, score
from streams.kafka.publishing import Latency, Outputs, Publisher
from streams.profiled import REQUIRED, TEXTS, ForwardedLabel, ProfiledRows, decode_profiled, joined
from streams.stages.decider_sources import DeciderSource
from streams.stages.monitoring import DriftMonitor
from streams.stages.stage import Chunk, DecidingStage, SourceRecord, dead_letter
from streams.state import PartitionState
from streams.tracing import NO_TRACING, Tracing

logger = logging.getLogger(__name__)

_WARN_SECONDS = 60.0


class Undecided(NamedTuple):
    """Rows that one decider will decide together, and their features."""

    decider: Decider
    rows: list[ProfiledRows]
    features: list[Matrix]


class ScoreStage(DecidingStage):
    """Adds merchant features to each transaction, scores and decides it, and raises alerts."""

    name = "score"
    topics = (PROFILED,)
    checkpoints = SCORE_CHECKPOINTS

    def __init__(self, spec: FeatureSpec, source: DeciderSource, ceiling: int = UNBOUNDED, tracing: Tracing = NO_TRACING) -> None:
        """
        A decider without a bundle sends every transaction to review, so that none is approved without a score. ``ceiling`` is
        the maximum number of merchants per partition.
        """
        super().__init__()
        self.spec, self.version, self._source, self._ceiling = spec, spec.version, source, ceiling
        self._names, self._tracing = spec.feature_names, tracing
        self._card_features = len(spec.entities[0].features)
        self._columns = EntityEngine(spec, spec.entities[0]).columns
        self._deciders: dict[int, Decider] = {}
        self._monitor: DriftMonitor | None = None
        self._warned = -_WARN_SECONDS

    # -- deciders by partition ------------------------------------------------------------------------------------------------

    def decider_version(self, partition: int) -> str:
        """Return the version of the partition's current decider."""
        return self._decider_of(partition).version

    def has_newer_decider(self, partition: int) -> bool:
        """Return whether a newer decider waits for the end of the epoch."""
        return self._decider_of(partition).version != self._source.newest().version

    def use_newest_decider(self, partition: int) -> None:
        """Switch a partition to the newest decider."""
        self._deciders[partition] = self._source.newest()

    def restore_decider(self, partition: int, version: str, clean: bool) -> bool:
        """Switch to the newest decider after a clean stop, else to the checkpoint's, so that replays are decided as before."""
        found = self._source.newest() if clean else self._source.find(version)
        if found is None:
            return False
        self._deciders[partition] = found
        return True

    def _decider_of(self, partition: int) -> Decider:
        if partition not in self._deciders:
            self.use_newest_decider(partition)
        return self._deciders[partition]

    # -- chunks ---------------------------------------------------------------------------------------------------------------

    async def start(self, publisher: Publisher) -> None:
        """Compile the kernels, so that the first chunk does not wait for them."""
        await asyncio.to_thread(compile_kernels, self.spec)

    def new_state(self) -> PartitionState:
        """Return an empty state with the engines of the merchant and of any further entities of the spec."""
        return PartitionState(self.spec, self.spec.entities[1:], self._ceiling)

    async def process(self, chunks: Sequence[Chunk]) -> list[Outputs]:
        """
        Decide transactions, and apply labels.

        A chunk is split at each label, so that a label affects exactly the rows after it in the log. Scores do not depend on the state:
        the rows of all chunks are scored together.
        """
        outputs: list[Outputs] = []
        undecided: dict[str, Undecided] = {}  # by the version of the decider
        for chunk in chunks:
            state, decider = self.state(chunk.partition), self._decider_of(chunk.partition)
            own = undecided.setdefault(decider.version, Undecided(decider, [], []))
            for rows, label in self._runs(state, chunk.records, outputs, self.version):
                if rows is not None:
                    columns = rows.columns
                    X = np.hstack([rows.features, *(engine.update(columns)[0] for engine in state.engines)])
                    own.rows.append(rows)
                    own.features.append(X)
                if label:
                    self._apply(state, label)
        for own in undecided.values():
            if own.rows:
                outputs += self._decide(own.decider, joined(own.rows), np.concatenate(own.features))
        return outputs

    def remember(self, topic: str, partition: int, records: list[Any]) -> None:
        """
        Update the state without deciding.

        A transaction whose marks were computed with another spec gets ``Mark.UNUSUAL`` instead. If it is fraud, it then does not
        count as a fraud with a usual amount.
        """
        state = self.state(partition)
        if old := sum((record.value or b"").startswith(b"{") for record in records):
            logger.warning(
                "%d records of whyflag 0.1 in %s are left out: features of merchants are too low unless the history covers them",
                old,
                topic,
            )
        for rows, label in self._runs(state, records, [], None):
            if rows is not None:
                columns = rows.columns if rows.spec == self.version else self._columns_of_another_spec(rows)
                for engine in state.engines:
                    engine.update(columns)
            if label:
                self._apply(state, label)

    def _runs(
        self, state: PartitionState, records: list[Any], letters: list[Outputs], spec: str | None
    ) -> Iterator[tuple[ProfiledRows | None, Label | None]]:
        """Yield the new transactions of one spec as runs, each with the label that ends it. Unusable records go to ``letters``."""
        run: list[ProfiledRows] = []
        for record in records:
            try:
                found = decode_profiled(record.value)
            except InvalidEvent as error:
                letters.append(dead_letter(self.name, record, error))
                continue
            if isinstance(found, ProfiledRows) and spec is not None and (refusal := self._refusal(found, spec)):
                letters += [dead_letter(self.name, source, refusal) for source in _sources(found)]
                continue
            if isinstance(found, ForwardedLabel):
                if self._new(state, LABELS, found.partition, np.array([found.offset])):
                    yield joined(run) if run else None, found.label
                    run = []
                continue
            new = self._new_rows(state, found)
            if run and run[0].spec != found.spec:  # only while the state is rebuilt
                yield joined(run), None
                run = []
            if len(new):
                run.append(found.rows(new))
        yield joined(run) if run else None, None

    def _new_rows(self, state: PartitionState, rows: ProfiledRows) -> npt.NDArray[np.int64]:
        """Return the places of the rows that are no replays."""
        places = []
        for begin, end in pairwise(rows.bounds()):
            new = self._new(state, TRANSACTIONS, int(rows.partitions[begin]), rows.offsets[begin:end])
            places.append(np.arange(end - new, end))
        return np.concatenate(places)

    @staticmethod
    def _new(state: PartitionState, topic: str, partition: int, offsets: npt.NDArray[np.int64]) -> int:
        """Return how many of the offsets are new, the last ones; the others are replays."""
        new = state.new(topic, partition, offsets)
        metrics.REPLAYED.inc(len(offsets) - new)
        return new

    def _refusal(self, rows: ProfiledRows, spec: str) -> InvalidEvent | None:
        if rows.spec != spec:
            return InvalidEvent(
                f"profiled with feature spec {rows.spec!r}, this worker scores with {spec!r}: run one spec at a time",
                Refusal.OTHER_SPEC,
            )
        if rows.features.shape[1] != self._card_features:
            return InvalidEvent("the rows have another number of features than the spec")
        return None

    def _columns_of_another_spec(self, rows: ProfiledRows) -> TransactionColumns:
        columns = self._columns([rows.transaction(i) for i in range(rows.count)])
        return columns.marked(np.full(rows.count, int(Mark.UNUSUAL), np.int64))

    def _apply(self, state: PartitionState, label: Label) -> None:
        columns_of_label = label_columns([label])
        for engine in state.engines:
            engine.apply_labels(columns_of_label)
        metrics.LABELS.labels(str(label.fraud).lower()).inc()

    def _decide(self, decider: Decider, rows: ProfiledRows, X: Matrix) -> list[Outputs]:
        began, columns = time(), rows.columns
        scores = decider.decide(X, columns, self._names, rows.text, self._failed)
        decided = decisions(_payments(rows), scores)
        self._count(scores)
        shadow = self._shadow(rows, columns, X, scores)
        self._observe(decider, columns, X, scores)
        traces = self._traces(rows, decided, began)
        made = Outputs(
            DECISIONS,
            [one.transaction_id.encode() for one in decided],
            [encode(one) for one in decided],
            traces=traces,
            latency=Latency(metrics.DECISION_LATENCY, rows.written[rows.written > 0]),
        )
        alerts = self._alerts(rows, columns, X, scores, decided, traces)
        return [outputs for outputs in (made, alerts, shadow) if outputs.keys]

    def _count(self, scores: Scores) -> None:
        for code, outcome in OUTCOMES.items():
            metrics.DECISIONS.labels(outcome.value).inc(int((scores.outcome == code).sum()))
        for doubt, reason in DOUBT_CODES.items():
            metrics.DOUBTS.labels(reason).inc(int(np.count_nonzero(scores.doubts & doubt)))
        if np.count_nonzero(scores.doubts & Doubt.UNPRICED) > len(scores.doubts) / 2:
            self._warn_of_currency()
        for rule, hits in zip(scores.rules, scores.held.sum(axis=0).tolist(), strict=True):
            metrics.RULE_HITS.labels(rule).inc(hits)

    def _alerts(
        self,
        rows: ProfiledRows,
        columns: TransactionColumns,
        X: Matrix,
        scores: Scores,
        decided: list[Decision],
        traces: list[str],
    ) -> Outputs:
        raised = np.flatnonzero(scores.outcome != APPROVE).tolist()
        alerts = []
        for i in raised:
            recent = recent_transactions(rows.recent[i].reshape(-1, 3).tolist(), int(columns.merchant[i]))
            alerts.append(alert(rows.transaction(i), decided[i], self._names, X[i], self.spec, recent))
        own = [traces[i] for i in raised] if traces else []
        return Outputs(ALERTS, [one.alert_id.encode() for one in alerts], [encode(one) for one in alerts], traces=own)

    def _traces(self, rows: ProfiledRows, decided: list[Decision], began: float) -> list[str]:
        """Record the spans of the traced transactions; return the traceparent of every transaction, or nothing if none is traced."""
        return [
            self._tracing.span("score", parent, began, {"transaction_id": one.transaction_id, "outcome": one.outcome.value})
            if parent
            else ""
            for parent, one in zip(rows.traces or (), decided, strict=bool(rows.traces))
        ]

    def _warn_of_currency(self) -> None:
        if monotonic() - self._warned >= _WARN_SECONDS:
            self._warned = monotonic()
            logger.warning(
                "the bundle's spec has no exchange rate to %s for the currency of most transactions: "
                "these transactions go to review",
                self.spec.currency,
            )

    @staticmethod
    def _failed(n: int) -> None:
        if sys.exception() is not None:
            logger.exception("the model could not score a batch of %d transactions; all of them go to review", n)
        metrics.SCORING_FAILURES.inc(n)

    def _shadow(self, rows: ProfiledRows, columns: TransactionColumns, X: Matrix, scores: Scores) -> Outputs:
        """Return the transactions that the challenger would have decided differently. Its failures do not affect decisions."""
        found = Outputs(DISAGREEMENTS, [], [])
        challenger = self._source.challenger()
        if challenger is None:
            return found
        try:
            other = score(challenger, X, scores.doubts)
        except Exception:
            logger.exception("the challenger could not score a batch of %d transactions", len(X))
            metrics.SHADOW_FAILURES.inc(len(X))
            return found
        for ours, outcome in OUTCOMES.items():
            for theirs, otherwise in OUTCOMES.items():
                metrics.SHADOW.labels(outcome.value, otherwise.value).inc(
                    int(((scores.outcome == ours) & (other.outcome == theirs)).sum())
                )
        for i in np.flatnonzero(scores.outcome != other.outcome).tolist():
            transaction, probability = rows.transaction(i), float(scores.probability[i])
            disagreement = Disagreement(
                transaction_id=transaction.transaction_id,
                card_id=transaction.card_id,
                event_time=transaction.event_time,
                amount=transaction.amount,
                currency=transaction.currency,
                champion=scores.bundle,
                champion_outcome=OUTCOMES[int(scores.outcome[i])],
                champion_probability=None if math.isnan(probability) else probability,
                challenger=challenger.version,
                challenger_outcome=OUTCOMES[int(other.outcome[i])],
                challenger_probability=float(other.probability[i]),
            )
            found.keys.append(transaction.transaction_id.encode())
            found.values.append(encode(disagreement))
        return found

    def _observe(self, decider: Decider, columns: TransactionColumns, X: Matrix, scores: Scores) -> None:
        """Update the drift metrics. They serve monitoring only and never influence a decision."""
        if decider.bundle is None:
            return
        try:
            if self._monitor is None or self._monitor.bundle.version != decider.bundle.version:
                self._monitor = DriftMonitor(decider.bundle)
            self._monitor.observe(columns, X, scores)
        except Exception:
            logger.exception("the drift of a batch of %d transactions could not be measured", len(X))


def _sources(rows: ProfiledRows) -> list[SourceRecord]:
    """Return the records of ``transactions`` from which some rows come, as far as they are known."""
    transactions = [rows.transaction(i) for i in range(rows.count)]
    places = zip(rows.partitions.tolist(), rows.offsets.tolist(), strict=True)
    return [
        SourceRecord(TRANSACTIONS, partition, offset, one.card_id.encode(), encode(one))
        for one, (partition, offset) in zip(transactions, places, strict=True)
    ]


def _payments(rows: ProfiledRows) -> Payments:
    transaction_id, card_id, merchant_id, currency = (cast("list[str]", rows.text(name)) for name in TEXTS[:REQUIRED])
    return Payments(transaction_id, card_id, merchant_id, currency, rows.event_time.tolist(), rows.amount.tolist())
