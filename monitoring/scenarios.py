"""
Scenarios for ``promtool test rules``: each alert must stay quiet in normal operation, fire during a fault and recover after it.

A scenario has three phases – normal, fault, normal – and is checked at the end of each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from core.metrics import Program
from monitoring.objectives import OBJECTIVES, Objective
from monitoring.rules import RUNBOOK_URL, alerts

_MINUTES: Final = {"1m": 1, "2m": 2, "5m": 5, "30m": 30, "6h": 360}
Phases = tuple[float, float, float]


class Gauge(Struct, frozen=True, tag=True):
    """A gauge's value in each phase; None if the series is absent."""

    values: tuple[float | None, float | None, float | None]

    def notation(self, lengths: Sequence[int]) -> str:
        """Return the samples in promtool's notation."""
        return " ".join(
            f"_x{length}" if value is None else f"{value:g}x{length - 1}"
            for value, length in zip(self.values, lengths, strict=True)
        )


class Counter(Struct, frozen=True, tag=True):
    """A counter's increase per step in each phase."""

    increases: Phases

    def notation(self, lengths: Sequence[int]) -> str:
        """Return the samples in promtool's notation."""
        value, parts = 0.0, []
        for increase, length in zip(self.increases, lengths, strict=True):
            parts.append(f"{value + increase:.12g}+{increase:.12g}x{length - 1}")
            value += increase * length
        return " ".join(parts)


Series = Mapping[str, Gauge | Counter]


class Scenario(Struct, frozen=True):
    """
    A fault that makes an alert fire.

    ``labels`` and ``description`` are those of the firing alert. ``lengths`` are the steps in each phase; a fault lasts longer than
    the alert's window, so that its values do not depend on the window's edges. ``quiet`` names alerts that must not fire.
    """

    alert: str
    series: Series
    labels: dict[str, str]
    description: str
    lengths: tuple[int, int, int] = (12, 18, 18)
    step: str = "5m"
    quiet: tuple[str, ...] = ()


def _steady(value: float) -> Gauge:
    return Gauge((value, value, value))


_RUNNING: Final = {
    f'whyflag_build_info{{program="{program}",version="1",python="3.11",instance="{program}:9464",job="whyflag"}}': _steady(1)
    for program in Program
}

SCENARIOS: Final = (
    Scenario(
        "WhyflagTargetDown",
        {'up{job="whyflag",instance="score:9464"}': Gauge((1, 0, 1))},
        {"job": "whyflag", "instance": "score:9464"},
        "Prometheus cannot scrape score:9464.",
    ),
    Scenario(
        "WhyflagProgramAbsent",
        {name: Gauge((1, None, 1)) if 'program="explain"' in name else gauge for name, gauge in _RUNNING.items()},
        {"program": "explain"},
        "No instance of the program explain serves metrics.",
    ),
    Scenario(
        "WhyflagRestarts",
        {'process_start_time_seconds{job="whyflag",instance="score:9464"}': Counter((0, 30, 0))},
        {"job": "whyflag", "instance": "score:9464"},
        "score:9464 was restarted 6 times in 30 minutes.",
    ),
    Scenario(
        "WhyflagDependencySilent",
        {'whyflag_silence_seconds{dependency="Kafka"}': Gauge((3, 90, 3))},
        {"dependency": "Kafka"},
        "Kafka has not answered a worker for 1m 30s.",
    ),
    Scenario(
        "WhyflagStandstill",
        {
            'whyflag_lag_records{stage="profile",topic="transactions",partition="0"}': Gauge((5, 100, 5)),
            'whyflag_records_total{stage="profile",topic="transactions"}': Counter((60, 0, 60)),
        },
        {"stage": "profile", "topic": "transactions"},
        "100 records of transactions wait for the stage profile, which processes none.",
        lengths=(20, 20, 20),
        step="1m",
    ),
    Scenario(  # a worker that has processed nothing since its start has no counter
        "WhyflagStandstill",
        {'whyflag_lag_records{stage="profile",topic="transactions",partition="0"}': Gauge((0, 100, 0))},
        {"stage": "profile", "topic": "transactions"},
        "100 records of transactions wait for the stage profile, which processes none.",
        lengths=(20, 20, 20),
        step="1m",
    ),
    Scenario(
        "WhyflagLagHigh",
        {'whyflag_lag_seconds{stage="score",topic="profiled",partition="1"}': Gauge((1, 120, 1))},
        {"stage": "score", "topic": "profiled"},
        "The next record of profiled has waited 2m 0s for the stage score.",
    ),
    Scenario(
        "WhyflagArchiveDelayed",
        {'whyflag_lag_seconds{stage="archive",topic="decisions",partition="1"}': Gauge((120, 600, 10))},
        {"topic": "decisions"},
        "The next record of decisions has waited 10m 0s for the archive.",
        quiet=("WhyflagLagHigh",),
    ),
    Scenario(
        "WhyflagCheckpointOld",
        {'whyflag_checkpoint_age_seconds{stage="score"}': Gauge((10, 90, 10))},
        {"stage": "score"},
        "The stage score processed a record 1m 30s ago that no checkpoint holds.",
    ),
    Scenario(
        "WhyflagRebalances",
        {'whyflag_rebalances_total{instance="score:9464",job="whyflag"}': Counter((0.25, 1, 0.25))},
        {"instance": "score:9464", "job": "whyflag"},
        "score:9464 was given partitions 12 times in an hour.",
    ),
    Scenario(
        "WhyflagDeadLetters",
        {'whyflag_dead_letters_total{stage="profile",reason="malformed"}': Counter((0.5, 5, 0.5))},
        {"stage": "profile", "reason": "malformed"},
        "60 dead letters of the stage profile in an hour, reason: malformed.",
    ),
    Scenario(
        "WhyflagScoringFailures",
        {"whyflag_scoring_failures_total": Counter((0, 10, 0))},
        {},
        "30 transactions went to review without a score in 15 minutes.",
    ),
    Scenario(
        "WhyflagStateCeiling",
        {
            'whyflag_state_evictions_total{entity="card",reason="ceiling"}': Counter((0, 50, 0)),
            'whyflag_state_evictions_total{entity="card",reason="stale"}': Counter((5, 5, 5)),
        },
        {"entity": "card"},
        "600 keys of the entity card were removed in an hour although their data had not expired.",
    ),
    Scenario(
        "WhyflagBundleRejected",
        {"whyflag_bundle_failures_total": Counter((0, 0.25, 0))},
        {},
        "Workers rejected a champion or challenger 3 times in an hour.",
    ),
    Scenario(  # the rules are reloaded at a restart of the worker
        "WhyflagRuleDisabled",
        {'whyflag_rule_failures_total{rule="night-gifts",instance="score:9464"}': Gauge((None, 1, None))},
        {"rule": "night-gifts"},
        "1 times, a worker disabled the rule night-gifts because it failed.",
    ),
    Scenario(
        "WhyflagScoreDrift",
        {"whyflag_score_stability_index": Gauge((0.2, 0.4, 0.05))},
        {},
        "The stability index of the score is 0.40; 0.25 is a shift.",
    ),
    Scenario(
        "WhyflagFeatureDrift",
        {
            'whyflag_feature_stability_index{feature="amount"}': Gauge((0.2, 0.4, 0.05)),
            'whyflag_feature_stability_index{feature="age"}': _steady(0.1),
        },
        {"feature": "amount"},
        "The stability index of the feature amount is 0.40; 0.25 is a shift.",
    ),
    Scenario(
        "WhyflagAlertRateHigh",
        {
            "whyflag_alert_budget": _steady(300),
            'whyflag_decisions_total{outcome="approve"}': Counter((9000, 9000, 9000)),
            'whyflag_decisions_total{outcome="review"}': Counter((8, 16, 8)),
            'whyflag_decisions_total{outcome="decline"}': Counter((4, 9, 4)),
        },
        {},
        "1200 alerts in a day are more than twice the budget of the bundle.",
        lengths=(60, 60, 60),
        step="30m",
    ),
    Scenario(
        "WhyflagPrecisionHalved",
        {
            'whyflag_matured_decisions{alert="true",fraud="true"}': Gauge((40, 10, 40)),
            'whyflag_matured_decisions{alert="true",fraud="false"}': Gauge((60, 90, 60)),
        },
        {},
        "10% of the last 7 days' alerts were fraud, less than half of the share in 28 days.",
        lengths=(120, 40, 60),
        step="6h",
    ),
    Scenario(  # the archive worker is replaced when the precision falls, and when it recovers
        "WhyflagPrecisionHalved",
        {
            f'whyflag_matured_decisions{{alert="true",fraud="{fraud}",instance="archive-{number}"}}': Gauge(
                tuple(value if phase == number else None for phase, value in enumerate(values))  # type: ignore[arg-type]
            )
            for fraud, values in (("true", (40, 10, 40)), ("false", (60, 90, 60)))
            for number in range(3)
        },
        {},
        "10% of the last 7 days' alerts were fraud, less than half of the share in 28 days.",
        lengths=(120, 40, 60),
        step="6h",
    ),
    Scenario(
        "WhyflagLanguageModelDown",
        {"whyflag_llm_breaker_open": Gauge((0, 1, 0))},
        {},
        "The circuit breaker was open for 100% of the last 15 minutes.",
    ),
    Scenario(
        "WhyflagOutboxDelayed",
        {'whyflag_outbox_seconds{state="waiting"}': Gauge((240, 600, 0))},
        {},
        "The first verdict has waited 10m 0s for Kafka.",
    ),
    Scenario(
        "WhyflagCriticalBreaches",
        {
            'whyflag_queue_breaches{severity="critical"}': Gauge((0, 3, 0)),
            'whyflag_queue_breaches{severity="normal"}': _steady(1),
        },
        {},
        "3 critical alerts wait for a verdict past their deadline.",
    ),
)


def _latency(histogram: str, bound: str) -> Callable[[Phases], Series]:
    """Return a function from the share of slow events in each phase to the histogram's series."""

    def series(shares: Phases) -> Series:
        fast = Counter(_each(shares, lambda share: 1000 * (1 - share)))
        return {f'{histogram}_bucket{{le="{bound}"}}': fast, f"{histogram}_count": Counter((1000, 1000, 1000))}

    return series


def _each(shares: Phases, of: Callable[[float], float]) -> Phases:
    before, during, after = (round(of(share), 6) for share in shares)
    return before, during, after


# for each objective, its series as a function of the share of bad events in each phase
_FAILING: Final[dict[str, Callable[[Phases], Series]]] = {
    "decision-latency": _latency("whyflag_decision_latency_seconds", "0.1"),
    "decision-completeness": lambda shares: {
        "whyflag_scoring_failures_total": Counter(_each(shares, lambda share: 1000 * share)),
        'whyflag_decisions_total{outcome="approve"}': Counter((1000, 1000, 1000)),
    },
    "explanation-timeliness": _latency("whyflag_explanation_latency_seconds", "30"),
    "queue-age": lambda shares: {
        'whyflag_queue_breaches{severity="normal"}': Gauge(_each(shares, lambda share: 100 * share)),
        'whyflag_queue_alerts{severity="normal",state="open"}': _steady(100),
    },
    "console-availability": lambda shares: {
        'whyflag_http_requests_total{status="500"}': Counter(_each(shares, lambda share: 1000 * share)),
        'whyflag_http_requests_total{status="200"}': Counter(_each(shares, lambda share: 1000 * (1 - share))),
    },
}


def _burning(objective: Objective) -> Iterable[Scenario]:
    """Yield one scenario for each pair of windows that can fire alone: 14.4 in an hour, 6 in six hours, 1 in three days."""
    fast, slow = f"{objective.runbook}Fast", f"{objective.runbook}Slow"

    def scenario(alert: str, burn: float, lengths: tuple[int, int, int], step: str, quiet: tuple[str, ...] = ()) -> Scenario:
        share = f"{burn * objective.budget * 100:.4g}%"
        return Scenario(
            alert=alert,
            series=_FAILING[objective.name]((0, burn * objective.budget, 0)),
            labels={"objective": objective.name},
            description=f"{share} {objective.failure}; the objective allows {objective.budget * 100:g}% over {objective.window}.",
            lengths=lengths,
            step=step,
            quiet=quiet,
        )

    yield scenario(fast, 16, (60, 33, 30), "2m")
    yield scenario(fast, 8, (12, 80, 12), "5m")
    yield scenario(slow, 2, (10, 150, 20), "30m", (fast,))


_HEALTHY: Final[Series] = {
    **_RUNNING,
    'up{job="whyflag",instance="score:9464"}': _steady(1),
    'process_start_time_seconds{job="whyflag",instance="score:9464"}': _steady(1),
    'whyflag_silence_seconds{dependency="Kafka"}': _steady(5),
    'whyflag_decision_latency_seconds_bucket{le="0.1"}': Counter((996, 996, 996)),
    "whyflag_decision_latency_seconds_count": Counter((1000, 1000, 1000)),
    'whyflag_explanation_latency_seconds_bucket{le="30.0"}': Counter((9.96, 9.96, 9.96)),
    "whyflag_explanation_latency_seconds_count": Counter((10, 10, 10)),
    'whyflag_decisions_total{outcome="approve"}': Counter((999, 999, 999)),
    'whyflag_decisions_total{outcome="review"}': Counter((0.2, 0.2, 0.2)),
    'whyflag_decisions_total{outcome="decline"}': Counter((0.1, 0.1, 0.1)),
    "whyflag_alert_budget": _steady(400),
    "whyflag_scoring_failures_total": Counter((0, 0, 0)),
    'whyflag_dead_letters_total{stage="profile",reason="malformed"}': Counter((0.1, 0.1, 0.1)),
    'whyflag_lag_records{stage="profile",topic="transactions",partition="0"}': _steady(20),
    'whyflag_lag_seconds{stage="profile",topic="transactions",partition="0"}': _steady(0.1),
    'whyflag_records_total{stage="profile",topic="transactions"}': Counter((1000, 1000, 1000)),
    'whyflag_lag_records{stage="score",topic="labels",partition="0"}': _steady(0),  # an idle topic
    'whyflag_lag_seconds{stage="score",topic="labels",partition="0"}': _steady(0),
    'whyflag_lag_seconds{stage="archive",topic="decisions",partition="0"}': _steady(2),
    'whyflag_checkpoint_age_seconds{stage="score"}': _steady(5),
    'whyflag_rebalances_total{instance="score:9464",job="whyflag"}': Counter((0.01, 0.01, 0.01)),
    'whyflag_state_evictions_total{entity="card",reason="stale"}': Counter((5, 5, 5)),
    "whyflag_bundle_failures_total": Counter((0, 0, 0)),
    "whyflag_score_stability_index": _steady(0.05),
    'whyflag_feature_stability_index{feature="amount"}': _steady(0.05),
    'whyflag_matured_decisions{alert="true",fraud="true"}': _steady(40),
    'whyflag_matured_decisions{alert="true",fraud="false"}': _steady(60),
    "whyflag_llm_breaker_open": _steady(0),
    'whyflag_outbox_seconds{state="waiting"}': _steady(2),
    'whyflag_queue_alerts{severity="critical",state="open"}': _steady(20),
    'whyflag_queue_breaches{severity="critical"}': _steady(0),
    'whyflag_http_requests_total{status="200"}': Counter((10, 10, 10)),
}


def promtool_tests(runbook_url: str = RUNBOOK_URL) -> dict[str, dict[str, Any]]:
    """
    Return the content of each test file by its scenarios' step, for the rule file that has the same ``runbook_url``.

    promtool evaluates all rules at one interval a file: a scenario of weeks would take many minutes at the step of the others.
    """
    scenarios = [*(scenario for objective in OBJECTIVES for scenario in _burning(objective)), *SCENARIOS]
    tests: dict[str, list[dict[str, Any]]] = {step: [] for step in _MINUTES}
    for scenario in scenarios:
        tests[scenario.step].append(_group(scenario, runbook_url))
    tests["1m"] += [
        _quiet_group("Nothing fires in normal operation", _HEALTHY),
        _quiet_group("Nothing fires when programs run but nothing has been measured", _RUNNING),
    ]
    return {step: {"rule_files": ["rules.yaml"], "evaluation_interval": step, "tests": groups} for step, groups in tests.items()}


def _group(scenario: Scenario, runbook_url: str) -> dict[str, Any]:
    minutes = _MINUTES[scenario.step]
    before, during, after = scenario.lengths
    normal, fault, recovered = (minutes * (end - 1) for end in (before, before + during, before + during + after))
    return _test(
        f"{scenario.alert} fires and recovers",
        scenario.step,
        scenario.series,
        scenario.lengths,
        [
            _assertion(scenario.alert, normal, []),
            _assertion(scenario.alert, fault, [_firing(scenario, runbook_url)]),
            _assertion(scenario.alert, recovered, []),
            *(_assertion(other, fault, []) for other in scenario.quiet),
        ],
    )


def _quiet_group(name: str, series: Series) -> dict[str, Any]:
    return _test(name, "1m", series, (20, 20, 20), [_assertion(alert.name, 59, []) for alert in alerts()])


def _test(name: str, step: str, series: Series, lengths: Sequence[int], assertions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    samples = [{"series": selector, "values": values.notation(lengths)} for selector, values in series.items()]
    return {"name": name, "interval": step, "input_series": samples, "alert_rule_test": assertions}


def _assertion(alert: str, minute: int, firing: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": firing}


def _firing(scenario: Scenario, runbook_url: str) -> dict[str, Any]:
    alert = next(one for one in alerts() if one.name == scenario.alert)
    return {
        "exp_labels": {"severity": alert.severity.value, **scenario.labels},
        "exp_annotations": {
            "summary": alert.summary,
            "description": scenario.description,
            "runbook_url": runbook_url.format(page=alert.page),
        },
    }
