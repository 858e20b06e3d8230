"""What the demo counts: records in and out, alerts, and the time from sending a transaction to its decision."""

from collections import deque
from typing import Any, NamedTuple

from msgspec import Struct

from core.messages import Decision, Explanation, Outcome, decode_alert, decode_decision, decode_explanation
from core.topics import ALERTS, DECISIONS, EXPLANATIONS

_ALERTS_SHOWN = 8


class Totals(Struct, frozen=True):
    """
    Totals of a demo run.

    ``p50_ms`` and ``p99_ms`` are quantiles of the time from sending a transaction to its decision; None without a decision.
    """

    produced: int
    decided: int
    dead_lettered: int
    approved: int
    reviewed: int
    declined: int
    alerts: int
    explained: int
    p50_ms: int | None
    p99_ms: int | None
    transactions_per_second: float


class ExplainedAlert(NamedTuple):
    """A flagged decision with its explanation."""

    decision: Decision
    explanation: Explanation


class Results:
    """Counts the records that come out of the pipeline; a transaction counts once, however often its decision is published."""

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.dead_lettered = 0
        self.flagged: dict[str, Decision] = {}
        self.explained: set[str] = set()
        self.latest: deque[ExplainedAlert] = deque(maxlen=_ALERTS_SHOWN)
        self._latencies: list[int] = []
        self._decided: set[str] = set()

    @property
    def decided(self) -> int:
        """Number of transactions that have a decision."""
        return len(self._decided)

    def complete(self, produced: int) -> bool:
        """Return whether every produced record has come out and every alert is explained."""
        return self.decided + self.dead_lettered >= produced and self.flagged.keys() <= self.explained

    def count(self, record: Any, sent_at: dict[str, int]) -> None:
        """Count one record. ``sent_at`` holds when each transaction was produced, epoch ms."""
        if record.topic == DECISIONS:
            decision = decode_decision(record.value)
            if decision.transaction_id in self._decided:
                return
            self._decided.add(decision.transaction_id)
            self.outcomes[decision.outcome] += 1
            if (sent := sent_at.pop(decision.transaction_id, None)) is not None:
                self._latencies.append(max(record.timestamp - sent, 0))
        elif record.topic == ALERTS:
            alert = decode_alert(record.value)
            self.flagged[alert.alert_id] = alert.decision
        elif record.topic == EXPLANATIONS:
            explanation = decode_explanation(record.value)
            self.explained.add(explanation.alert_id)
            if (flagged := self.flagged.get(explanation.alert_id)) is not None:
                self.latest.appendleft(ExplainedAlert(flagged, explanation))
        else:
            self.dead_lettered += 1

    def latency_quantile(self, share: float) -> int | None:
        """Return a quantile of the time from sending a transaction to its decision, ms; None before the first decision."""
        if not self._latencies:
            return None
        ordered = sorted(self._latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def totals(self, produced: int, seconds: float) -> Totals:
        """Return the totals after ``seconds`` of streaming."""
        return Totals(
            produced=produced,
            decided=self.decided,
            dead_lettered=self.dead_lettered,
            approved=self.outcomes[Outcome.APPROVE],
            reviewed=self.outcomes[Outcome.REVIEW],
            declined=self.outcomes[Outcome.DECLINE],
            alerts=len(self.flagged),
            explained=len(self.explained),
            p50_ms=self.latency_quantile(0.5),
            p99_ms=self.latency_quantile(0.99),
            transactions_per_second=round(produced / seconds, 1),
        )
