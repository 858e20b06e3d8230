"""
Recording rules and alerting rules for Prometheus, made from the objectives and the table of alerts.

If one Prometheus scrapes several installations, each needs rules of its own, with labels that select its series.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from monitoring.alerts import ALERTS, Alert
from monitoring.objectives import OBJECTIVES, Objective, Severity

RUNBOOK_URL: Final = (
    "https://whyflag.example.org/docs/runbooks/{page}.html"  # replace it with `python -m monitoring.generate --runbook-url`
)
_SELECTOR: Final = re.compile(r"(?<![\w:])(whyflag[:_][\w:]+|up|process_start_time_seconds)(?![\w:(])(?:\{([^}]*)\})?")
WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


class Recording(Struct, frozen=True):
    """A series that Prometheus computes at each evaluation."""

    name: str
    expression: str
    labels: dict[str, str] = {}


class Burn(Struct, frozen=True):
    """A burn rate, as a multiple of the rate that spends the whole budget in 30 days, to exceed in a long and a short window."""

    factor: float
    long: str
    short: str


class Speed(Struct, frozen=True):
    """The burn rates of one alert: exceeding one of them is enough. ``name`` ends the alert's name."""

    name: str
    summary: str
    burns: tuple[Burn, ...]


# the four pairs of the SRE workbook, chapter 5, table 5-8, which allot 2, 5, 10 and 10 % of the budget
FAST: Final = Speed("Fast", "The error budget of {} will be spent within days.", (Burn(14.4, "1h", "5m"), Burn(6, "6h", "30m")))
SLOW: Final = Speed("Slow", "The error budget of {} will not last.", (Burn(3, "1d", "2h"), Burn(1, "3d", "6h")))

_MATURED_ALERTS: Final = "whyflag:matured_alerts"


def recordings() -> list[Recording]:
    """Return the recording rules."""
    return [
        *(_errors(objective, window) for objective in OBJECTIVES for window in WINDOWS),
        # each archive worker measures the whole archive: max counts it once, and the series outlives the worker
        Recording(_MATURED_ALERTS, 'max by (fraud) (whyflag_matured_decisions{alert="true"})'),
        *(_precision(window) for window in ("7d", "28d")),
    ]


def alerts() -> list[Alert]:
    """Return all alerts: two for each objective, then the table."""
    return [
        *(
            alert
            for objective in OBJECTIVES
            for alert in (
                _burning(objective, FAST, objective.severity),
                _burning(objective, SLOW, Severity.TICKET),
            )
        ),
        *ALERTS,
    ]


def rule_file(runbook_url: str = RUNBOOK_URL, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """
    Return the content of the rule file.

    ``runbook_url`` is the address of a runbook, in which ``{page}`` stands for its name. With ``labels``, the rules read only series
    with these labels, and their alerts have them, too.
    """
    own = dict(labels or {})
    # one group, because Prometheus evaluates the rules of a group in order: alerts read the recordings of the same evaluation
    rules = [*map(_recording_rule, recordings()), *(_alerting_rule(alert, runbook_url) for alert in alerts())]
    if own:
        rules = [rule | {"expr": selecting(rule["expr"], own), "labels": rule.get("labels", {}) | own} for rule in rules]
    return {"groups": [{"name": "-".join(("whyflag", *own.values())), "rules": rules}]}


def selecting(expression: str, labels: Mapping[str, str]) -> str:
    """Return PromQL that reads only series with the given labels."""
    chosen = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return (
        _SELECTOR.sub(lambda found: f"{found[1]}{{{','.join(filter(None, (found[2], chosen)))}}}", expression)
        if chosen
        else expression
    )


def _errors(objective: Objective, window: str) -> Recording:
    name = f"whyflag:errors:ratio_rate{window}"
    return Recording(name, objective.indicator.error_ratio(window), {"objective": objective.name})


def _precision(window: str) -> Recording:
    fraud, other = (f'sum(avg_over_time({_MATURED_ALERTS}{{fraud="{fraud}"}}[{window}]))' for fraud in ("true", "false"))
    return Recording(f"whyflag:precision:ratio_{window}", f"{fraud} / ({fraud} + {other})")


def _burning(objective: Objective, speed: Speed, severity: Severity) -> Alert:
    return Alert(
        name=f"{objective.runbook}{speed.name}",
        expression=" or ".join(f"({_exceeds(objective, burn)})" for burn in speed.burns),
        hold="0m",
        severity=severity,
        summary=speed.summary.format(objective.name),
        description=f"{{{{ $value | humanizePercentage }}}} {objective.failure}; "
        f"the objective allows {objective.budget * 100:g}% over {objective.window}.",
        runbook=objective.runbook,
    )


def _exceeds(objective: Objective, burn: Burn) -> str:
    series = f'{{objective="{objective.name}"}} > {burn.factor:g} * {objective.budget:g}'
    return " and ".join(f"whyflag:errors:ratio_rate{window}{series}" for window in (burn.long, burn.short))


def _recording_rule(recording: Recording) -> dict[str, Any]:
    rule: dict[str, Any] = {"record": recording.name, "expr": recording.expression}
    return rule | ({"labels": recording.labels} if recording.labels else {})


def _alerting_rule(alert: Alert, runbook_url: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.hold,
        "labels": {"severity": alert.severity.value},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": runbook_url.format(page=alert.page),
        },
    }
