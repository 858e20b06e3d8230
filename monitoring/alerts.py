"""Alerts on single symptoms, as one table. Alerts on objectives are derived in ``monitoring.rules``."""

from typing import Final

from msgspec import Struct

from core.metrics import Program
from monitoring.objectives import Severity

JOB: Final = "whyflag"  # the name of the job that scrapes whyflag's programs


class Alert(Struct, frozen=True):
    """
    A condition that a person must act on. It fires when ``expression`` has held for ``hold``.

    ``description`` may use Prometheus templates such as ``{{ $value }}``. ``runbook`` is a page's name in docs/runbooks, by default
    the alert's name.
    """

    name: str
    expression: str
    hold: str
    severity: Severity
    summary: str
    description: str
    runbook: str = ""

    @property
    def page(self) -> str:
        """Name of the alert's runbook, without suffix."""
        return self.runbook or self.name


PAGE, TICKET = Severity

ALERTS: Final = (
    Alert(
        "WhyflagTargetDown",
        f'up{{job="{JOB}"}} == 0',
        "5m",
        TICKET,
        "A program does not serve metrics.",
        "Prometheus cannot scrape {{ $labels.instance }}.",
    ),
    Alert(
        "WhyflagProgramAbsent",
        " or ".join(f'absent(whyflag_build_info{{program="{program}"}})' for program in Program),
        "5m",
        PAGE,
        "No instance of a program is running.",
        "No instance of the program {{ $labels.program }} serves metrics.",
    ),
    Alert(
        "WhyflagRestarts",
        f'changes(process_start_time_seconds{{job="{JOB}"}}[30m]) > 2',
        "0m",
        PAGE,
        "A program restarts again and again.",
        "{{ $labels.instance }} was restarted {{ $value }} times in 30 minutes.",
    ),
    Alert(
        "WhyflagDependencySilent",
        "max by (dependency) (whyflag_silence_seconds) > 60",
        "2m",
        PAGE,
        "Kafka or the database does not answer.",
        "{{ $labels.dependency }} has not answered a worker for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "WhyflagStandstill",
        # unless instead of a comparison with 0: the counter of a worker that has read nothing does not exist
        "sum by (stage, topic) (whyflag_lag_records) > 0 unless sum by (stage, topic) (rate(whyflag_records_total[5m])) > 0",
        "5m",
        PAGE,
        "Records wait and none is processed.",
        "{{ $value }} records of {{ $labels.topic }} wait for the stage {{ $labels.stage }}, which processes none.",
    ),
    Alert(
        "WhyflagLagHigh",
        'max by (stage, topic) (whyflag_lag_seconds{stage!="archive"}) > 60',
        "10m",
        PAGE,
        "A stage is behind.",
        "The next record of {{ $labels.topic }} has waited {{ $value | humanizeDuration }} for the stage {{ $labels.stage }}.",
    ),
    Alert(
        "WhyflagArchiveDelayed",
        'max by (topic) (whyflag_lag_seconds{stage="archive"}) > 300',
        "10m",
        TICKET,
        "The archive is behind.",
        "The next record of {{ $labels.topic }} has waited {{ $value | humanizeDuration }} for the archive.",
    ),
    Alert(
        "WhyflagCheckpointOld",
        "max by (stage) (whyflag_checkpoint_age_seconds) > 60",
        "5m",
        PAGE,
        "A stage writes no checkpoints.",
        "The stage {{ $labels.stage }} processed a record {{ $value | humanizeDuration }} ago that no checkpoint holds.",
    ),
    Alert(
        "WhyflagRebalances",
        "increase(whyflag_rebalances_total[1h]) > 6",
        "5m",
        TICKET,
        "Partitions move between workers too often.",
        '{{ $labels.instance }} was given partitions {{ $value | printf "%.0f" }} times in an hour.',
    ),
    Alert(
        "WhyflagDeadLetters",
        "sum by (stage, reason) (increase(whyflag_dead_letters_total[1h])) > 10",
        "5m",
        TICKET,
        "Many records cannot be processed.",
        '{{ $value | printf "%.0f" }} dead letters of the stage {{ $labels.stage }} in an hour, reason: {{ $labels.reason }}.',
    ),
    Alert(
        "WhyflagScoringFailures",
        "sum(increase(whyflag_scoring_failures_total[15m])) > 0",
        "0m",
        TICKET,
        "The model could not score some transactions.",
        '{{ $value | printf "%.0f" }} transactions went to review without a score in 15 minutes.',
    ),
    Alert(
        "WhyflagStateCeiling",
        'sum by (entity) (increase(whyflag_state_evictions_total{reason="ceiling"}[1h])) > 0',
        "0m",
        TICKET,
        "State is full, and live keys are removed.",
        '{{ $value | printf "%.0f" }} keys of the entity {{ $labels.entity }} were removed in an hour although their data had not expired.',
    ),
    Alert(
        "WhyflagBundleRejected",
        "sum(increase(whyflag_bundle_failures_total[1h])) > 0",
        "0m",
        TICKET,
        "A worker rejected a bundle.",
        'Workers rejected a champion or challenger {{ $value | printf "%.0f" }} times in an hour.',
    ),
    Alert(
        "WhyflagRuleDisabled",
        # not an increase: the counter of a rule appears with its first failure, and the rule stays disabled
        "sum by (rule) (whyflag_rule_failures_total) > 0",
        "0m",
        TICKET,
        "A rule failed and is disabled.",
        "{{ $value }} times, a worker disabled the rule {{ $labels.rule }} because it failed.",
    ),
    Alert(
        "WhyflagScoreDrift",
        "max(whyflag_score_stability_index) > 0.25",
        "30m",
        TICKET,
        "Scores have drifted from the calibration period.",
        'The stability index of the score is {{ $value | printf "%.2f" }}; 0.25 is a shift.',
    ),
    Alert(
        "WhyflagFeatureDrift",
        "max by (feature) (whyflag_feature_stability_index) > 0.25",
        "30m",
        TICKET,
        "A feature has drifted from the calibration period.",
        'The stability index of the feature {{ $labels.feature }} is {{ $value | printf "%.2f" }}; 0.25 is a shift.',
    ),
    Alert(
        "WhyflagAlertRateHigh",
        'sum(increase(whyflag_decisions_total{outcome=~"review|decline"}[1d])) > 2 * max(whyflag_alert_budget)',
        "30m",
        TICKET,
        "Far more alerts are raised than planned.",
        '{{ $value | printf "%.0f" }} alerts in a day are more than twice the budget of the bundle.',
    ),
    Alert(
        "WhyflagPrecisionHalved",
        "whyflag:precision:ratio_7d < 0.5 * whyflag:precision:ratio_28d",
        "1h",
        TICKET,
        "Alerts have become half as precise.",
        "{{ $value | humanizePercentage }} of the last 7 days' alerts were fraud, less than half of the share in 28 days.",
    ),
    Alert(
        "WhyflagLanguageModelDown",
        # an average, because the breaker closes for a moment whenever it tries the model again
        "max(avg_over_time(whyflag_llm_breaker_open[15m])) > 0.5",
        "5m",
        TICKET,
        "The language model does not answer.",
        "The circuit breaker was open for {{ $value | humanizePercentage }} of the last 15 minutes.",
    ),
    Alert(
        "WhyflagOutboxDelayed",
        "max(whyflag_outbox_seconds) > 300",
        "5m",
        TICKET,
        "Verdicts do not reach Kafka.",
        "The first verdict has waited {{ $value | humanizeDuration }} for Kafka.",
    ),
    Alert(
        "WhyflagCriticalBreaches",
        'max(whyflag_queue_breaches{severity="critical"}) > 0',
        "10m",
        PAGE,
        "Critical alerts are past their deadline.",
        "{{ $value }} critical alerts wait for a verdict past their deadline.",
    ),
)
