"""The service-level objectives. Recording rules, burn-rate alerts and a dashboard panel are derived from them."""

from enum import StrEnum
from typing import Final

from msgspec import Struct


class Severity(StrEnum):
    """Whom an alert reaches: a page wakes the engineer on call, a ticket waits for working hours."""

    PAGE = "page"
    TICKET = "ticket"


class EventRatio(Struct, frozen=True, tag=True):
    """Bad events divided by all events. Both are PromQL with the placeholder ``{window}`` for a range such as 5m."""

    bad: str
    total: str

    def error_ratio(self, window: str) -> str:
        """Return PromQL for the share of bad events in a window; NaN without events."""
        return f"({self.bad}) / ({self.total})".replace("{window}", window)


class LatencyLimit(Struct, frozen=True, tag=True):
    """
    Events that take longer than a limit are bad. ``seconds`` must be the upper bound of a bucket of the histogram.

    ``lost`` is PromQL with the placeholder ``{window}`` for the rate of events that never end, which are bad, too.
    """

    histogram: str
    seconds: float
    lost: str = ""

    def error_ratio(self, window: str) -> str:
        """Return PromQL for the share of slow events in a window; NaN without events."""
        bound = f"{self.seconds:g}"
        # Prometheus 2 stores the label as we write it, 30; Prometheus 3 stores 30.0
        within = f'le="{bound}"' if "." in bound else f'le=~"{bound}(.0)?"'
        fast = f"sum(rate({self.histogram}_bucket{{{within}}}[{window}]))"
        all_events = f"sum(rate({self.histogram}_count[{window}]))"
        if self.lost:
            all_events = f"({all_events} + {self.lost})".replace("{window}", window)
        return f"1 - {fast} / {all_events}"


class Objective(Struct, frozen=True):
    """
    A share of good events to reach over ``window``.

    ``title`` is CamelCase and part of the alerts' names. ``failure`` continues the sentence "3 % …". ``severity`` is that of a fast
    burn; a slow burn is always a ticket.
    """

    name: str
    title: str
    description: str
    failure: str
    target: float
    indicator: EventRatio | LatencyLimit
    severity: Severity
    window: str = "30d"

    @property
    def budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.target, 6)

    @property
    def runbook(self) -> str:
        """The name of the runbook that the objective's alerts share."""
        return f"Whyflag{self.title}Burn"


def _rate(selector: str) -> str:
    """Return PromQL for a counter's rate; 0 if no series exists, because a label value appears with its first event."""
    return f"(sum(rate({selector}[{{window}}])) or vector(0))"


_LOST: Final = _rate('whyflag_dead_letters_total{stage="score"}')

OBJECTIVES: Final = (
    Objective(
        name="decision-latency",
        title="DecisionLatency",
        description="99 % of decisions are in Kafka within 0.1 s of their transaction's arrival.",
        failure="of decisions took longer than 0.1 s",
        target=0.99,
        indicator=LatencyLimit("whyflag_decision_latency_seconds", 0.1),
        severity=Severity.PAGE,
    ),
    Objective(
        name="decision-completeness",
        title="DecisionCompleteness",
        description="99.9 % of transactions are decided by the model.",
        failure="of transactions were not decided by the model",
        target=0.999,
        indicator=EventRatio(
            bad=f"{_rate('whyflag_scoring_failures_total')} + {_LOST}", total=f"{_rate('whyflag_decisions_total')} + {_LOST}"
        ),
        severity=Severity.PAGE,
    ),
    Objective(
        name="explanation-timeliness",
        title="ExplanationTimeliness",
        description="99 % of alerts are in the queue, explained, within 30 s of their arrival in Kafka.",
        failure="of alerts reached the queue later than 30 s after they were raised, or never",
        target=0.99,
        indicator=LatencyLimit(
            "whyflag_explanation_latency_seconds",
            30,
            _rate('whyflag_dead_letters_total{stage="explain",reason="not_explainable"}'),
        ),
        severity=Severity.PAGE,
    ),
    Objective(
        name="queue-age",
        title="QueueAge",
        description="95 % of the alerts that wait for a verdict are within their deadline.",
        failure="of the alerts that waited for a verdict were past their deadline",
        target=0.95,
        # gauges: each scrape counts as many events as alerts are waiting
        indicator=EventRatio(
            bad="sum(sum_over_time(whyflag_queue_breaches[{window}]))", total="sum(sum_over_time(whyflag_queue_alerts[{window}]))"
        ),
        severity=Severity.TICKET,
    ),
    Objective(
        name="console-availability",
        title="ConsoleAvailability",
        description="99.5 % of requests to the console are answered without a server error.",
        failure="of requests to the console ended in a server error",
        target=0.995,
        indicator=EventRatio(bad=_rate('whyflag_http_requests_total{status=~"5.."}'), total=_rate("whyflag_http_requests_total")),
        severity=Severity.PAGE,
    ),
)
