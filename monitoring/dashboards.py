"""The Grafana dashboards, as one table of panels each. ``panels`` returns their queries as data."""

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from msgspec import Struct

from monitoring.objectives import OBJECTIVES
from monitoring.rules import selecting

INTERVAL: Final = "$__rate_interval"  # Grafana replaces it by four scrape intervals or more
_SOURCE: Final = DataSourceRef("prometheus", "${datasource}")


class Kind(Enum):
    """How a panel shows its series."""

    LINES = "lines"
    STACK = "stack"
    NUMBER = "number"


class Unit(Enum):
    """A unit, by Grafana's name."""

    NONE = "short"
    SECONDS = "s"
    BYTES = "bytes"
    SHARE = "percentunit"
    PER_SECOND = "cps"
    BYTES_PER_SECOND = "Bps"


class Query(NamedTuple):
    """PromQL and the legend of its series, which may name labels: ``{{stage}}``."""

    expression: str
    legend: str


class Panel(Struct, frozen=True):
    """A panel of a dashboard."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Kind = Kind.LINES


class Dashboard(Struct, frozen=True):
    """A dashboard; ``name`` is that of its file."""

    name: str
    title: str
    panels: tuple[Panel, ...]


class PanelQuery(NamedTuple):
    """An expression, and the dashboard and panel that it belongs to."""

    dashboard: str
    panel: str
    expression: str


def _rate(metric: str, *labels: str) -> Query:
    """Return the query for a counter's rate per second, by labels."""
    return Query(f"sum by ({', '.join(labels)}) (rate({metric}[{INTERVAL}]))", " ".join(f"{{{{{label}}}}}" for label in labels))


def _total_rate(selector: str, legend: str) -> Query:
    return Query(f"sum(rate({selector}[{INTERVAL}]))", legend)


def _largest(metric: str, *labels: str) -> Query:
    """Return the query for the largest value of a gauge, by labels."""
    return Query(f"max by ({', '.join(labels)}) ({metric})", " ".join(f"{{{{{label}}}}}" for label in labels))


def _sum(metric: str, *labels: str) -> Query:
    """Return the query for the sum of a gauge, by labels."""
    return Query(f"sum by ({', '.join(labels)}) ({metric})", " ".join(f"{{{{{label}}}}}" for label in labels))


def _quantiles(metric: str) -> tuple[Query, ...]:
    """Return the queries for the median and the 99th percentile of a histogram."""
    return tuple(
        Query(f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket[{INTERVAL}])))", legend)
        for share, legend in ((0.5, "median"), (0.99, "99 %"))
    )


def _p99(metric: str, label: str) -> Query:
    """Return the query for the 99th percentile of a histogram, by a label."""
    rates = f"sum by (le, {label}) (rate({metric}_bucket[{INTERVAL}]))"
    return Query(f"histogram_quantile(0.99, {rates})", f"{{{{{label}}}}}")


def _burn_rates() -> tuple[Query, ...]:
    return tuple(Query(f"({one.indicator.error_ratio('1h')}) / {one.budget:g}", one.name) for one in OBJECTIVES)


def _matured(alert: str, fraud: str) -> str:
    return f'max(whyflag_matured_decisions{{alert="{alert}",fraud="{fraud}"}})'


NONE, SECONDS, BYTES, SHARE, PER_SECOND, BYTES_PER_SECOND = Unit
LINES, STACK, NUMBER = Kind
_CAUGHT, _FALSE_ALERTS, _MISSED = _matured("true", "true"), _matured("true", "false"), _matured("false", "true")

PIPELINE: Final = Dashboard(
    "pipeline",
    "whyflag: pipeline",
    (
        Panel("Decisions", "Decisions per second.", PER_SECOND, (_total_rate("whyflag_decisions_total", "decisions"),), NUMBER),
        Panel("Records waiting", "Unprocessed transactions, alerts and decisions.", NONE, (Query('sum(whyflag_lag_records{topic!="profiled"})', "records"),), NUMBER),
        Panel("Dead letters", "In the last hour.", NONE, (Query("sum(increase(whyflag_dead_letters_total[1h]))", "records"),), NUMBER),
        Panel("Instances", "Running instances of each program and version.", NONE,
              (Query("count by (program, version) (whyflag_build_info)", "{{program}} {{version}}"),), NUMBER),
        Panel("Decision latency", "From a transaction's arrival in Kafka to Kafka's acknowledgement of its decision. Objective: 99 % within 0.1 s.",
              SECONDS, _quantiles("whyflag_decision_latency_seconds")),
        Panel("Error budgets", "Errors of the last hour as a multiple of what each objective allows. At 1, the budget lasts for its 30 days.",
              NONE, _burn_rates()),
        Panel("Silence", "Time since Kafka or the database last answered a worker.", SECONDS, (_largest("whyflag_silence_seconds", "dependency"),)),
        Panel("Records read", "Records per second, by stage and topic.", PER_SECOND, (_rate("whyflag_records_total", "stage", "topic"),)),
        Panel("Lag", "How long the next record has been waiting, by stage and topic.", SECONDS, (_largest("whyflag_lag_seconds", "stage", "topic"),)),
        Panel("Unprocessed records", "By stage and topic.", NONE, (_sum("whyflag_lag_records", "stage", "topic"),)),
        Panel("Watermark delay", "How far the newest event time is behind the clock, for the slowest partition.", SECONDS,
              (_largest("whyflag_watermark_delay_seconds", "stage"),)),
        Panel("Batch time", "99th percentile, by stage.", SECONDS, (_p99("whyflag_batch_seconds", "stage"),)),
        Panel("Acknowledgement time", "99th percentile of the time until Kafka acknowledged a batch's outputs.", SECONDS,
              (_p99("whyflag_ack_seconds", "stage"),)),
        Panel("Dead letters by reason", "Records per second that could not be processed.", PER_SECOND,
              (_rate("whyflag_dead_letters_total", "reason"),)),
        Panel("Repeated records", "Duplicate transactions, and records read again after a restart.", PER_SECOND,
              (_total_rate("whyflag_duplicates_total", "duplicates"), _total_rate("whyflag_replayed_total", "replayed"))),
        Panel("Partitions and rebalances", "Partitions in work by stage, and times that workers were given partitions in an hour.", NONE,
              (_sum("whyflag_partitions", "stage"), Query("sum(increase(whyflag_rebalances_total[1h]))", "rebalances"))),
        Panel("Checkpoint age", "Age of the oldest processed record that no checkpoint holds.", SECONDS,
              (_largest("whyflag_checkpoint_age_seconds", "stage"),)),
        Panel("Checkpoint and restore time", "99th percentile of a checkpoint, and of the restore of a partition.", SECONDS,
              (_p99("whyflag_checkpoint_seconds", "stage"), _p99("whyflag_restore_seconds", "stage")._replace(legend="restore {{stage}}"))),
        Panel("Checkpoint volume", "State written to checkpoint logs.", BYTES_PER_SECOND, (_rate("whyflag_checkpoint_bytes_total", "stage"),)),
        Panel("State memory", "Memory held by state.", BYTES, (_sum("whyflag_state_bytes", "stage"),), STACK),
        Panel("State keys", "Keys held in state.", NONE, (_sum("whyflag_state_keys", "stage"),), STACK),
        Panel("Evictions", "Keys removed from state. Reason ceiling: state is full.", PER_SECOND,
              (_rate("whyflag_state_evictions_total", "entity", "reason"),)),
        Panel("Archive latency", "From a record's arrival in Kafka to its row in the archive.", SECONDS,
              _quantiles("whyflag_archive_latency_seconds")),
        Panel("Archived records", "Records per second, by topic.", PER_SECOND, (_rate("whyflag_archived_records_total", "topic"),)),
        Panel("Archive chunk time", "Time to store one chunk.", SECONDS, _quantiles("whyflag_archive_seconds")),
    ),
)  # fmt: skip

MODEL: Final = Dashboard(
    "model",
    "whyflag: model",
    (
        Panel("Alerts in a day", "Reviews and declines in the last day.", NONE,
              (Query('sum(increase(whyflag_decisions_total{outcome=~"review|decline"}[1d]))', "alerts"),), NUMBER),
        Panel("Alert budget", "Alerts per day that the policy was made for.", NONE, (Query("max(whyflag_alert_budget)", "budget"),), NUMBER),
        Panel("Score stability", "Population stability index of the score. From 0.25, retrain.", NONE,
              (Query("max(whyflag_score_stability_index)", "index"),), NUMBER),
        Panel("Bundles", "Workers that decide with a bundle version.", NONE,
              (Query("count by (version) (whyflag_bundle_info)", "{{version}}"),), NUMBER),
        Panel("Decisions by outcome", "Decisions per second.", PER_SECOND, (_rate("whyflag_decisions_total", "outcome"),), STACK),
        Panel("Doubtful transactions", "Transactions per second that need at least a review, by reason.", PER_SECOND,
              (_rate("whyflag_doubtful_transactions_total", "reason"),)),
        Panel("Failures", "Transactions that the model or the challenger could not score, rejected bundles and disabled rules, per second.",
              PER_SECOND,
              (_total_rate("whyflag_scoring_failures_total", "not scored"), _total_rate("whyflag_shadow_failures_total", "challenger"),
               _total_rate("whyflag_bundle_failures_total", "rejected bundles"), _total_rate("whyflag_rule_failures_total", "disabled rules"))),
        Panel("Feature stability", "The ten least stable features. From 0.25, the feature has shifted.", NONE,
              (Query("topk(10, max by (feature) (whyflag_feature_stability_index))", "{{feature}}"),)),
        Panel("Precision and recall", "Decisions of the last day that is older than the label delay.", SHARE,
              (Query(f"{_CAUGHT} / ({_CAUGHT} + {_FALSE_ALERTS})", "precision"), Query(f"{_CAUGHT} / ({_CAUGHT} + {_MISSED})", "recall"))),
        Panel("Calibration", "Frauds that the probabilities of these decisions predict, and frauds found.", NONE,
              (Query("max(whyflag_matured_probability)", "predicted"), Query(f"{_CAUGHT} + {_MISSED}", "found"))),
        Panel("Rule hits", "Transactions per second that match a rule.", PER_SECOND, (_rate("whyflag_rule_hits_total", "rule"),)),
        Panel("Champion and challenger", "Shadow decisions on which they differ, per second.", PER_SECOND,
              (Query(f"sum by (champion, challenger) (rate(whyflag_shadow_decisions_total[{INTERVAL}]))", "{{champion}} → {{challenger}}"),)),
        Panel("Labels", "Labels applied per second, by whether they report fraud.", PER_SECOND,
              (_rate("whyflag_labels_total", "fraud")._replace(legend="fraud: {{fraud}}"),)),
    ),
)  # fmt: skip

EXPLANATIONS: Final = Dashboard(
    "explanations",
    "whyflag: explanations",
    (
        Panel("Explanation latency", "From an alert's arrival in Kafka to its explanation in the queue. Objective: 99 % within 30 s.", SECONDS,
              _quantiles("whyflag_explanation_latency_seconds")),
        Panel("Explanations by narrator", "Explanations published per second.", PER_SECOND, (_rate("whyflag_explanations_total", "narrator"),), STACK),
        Panel("Time to explain", "Time to explain one alert and add it to the queue.", SECONDS, _quantiles("whyflag_explain_seconds")),
        Panel("Narratives of the language model", "Narratives asked for per second, by result.", PER_SECOND,
              (_rate("whyflag_narratives_total", "result"),), STACK),
        Panel("Sentences of the language model", "Sentences per second, by result of the check.", PER_SECOND,
              (_rate("whyflag_narrative_sentences_total", "result"),), STACK),
        Panel("Requests to the language model", "Requests per second, by result.", PER_SECOND, (_rate("whyflag_llm_requests_total", "result"),), STACK),
        Panel("Time of a request", "Time of one request to the language model.", SECONDS, _quantiles("whyflag_llm_request_seconds")),
        Panel("Circuit breaker", "1 while the language model is not asked.", NONE, (Query("max(whyflag_llm_breaker_open)", "open"),)),
        Panel("Tokens", "Tokens per second, by kind.", PER_SECOND, (_rate("whyflag_llm_tokens_total", "kind"),)),
        Panel("Cost", "Cost of the last hour's tokens, in the currency of the configured prices.", NONE,
              (Query("sum(increase(whyflag_llm_cost_total[1h]))", "cost"),)),
        Panel("Missing translations", "Messages shown in English instead, per second.", PER_SECOND,
              (_rate("whyflag_words_missing_total", "language"),)),
    ),
)  # fmt: skip

QUEUE: Final = Dashboard(
    "queue",
    "whyflag: analyst queue",
    (
        # each console measures the whole queue: max counts it once
        Panel("Waiting", "Alerts that wait for a verdict.", NONE,
              (Query("sum(max by (state, severity) (whyflag_queue_alerts))", "alerts"),), NUMBER),
        Panel("Past their deadline", "Alerts that wait past their deadline.", NONE,
              (Query("sum(max by (severity) (whyflag_queue_breaches))", "alerts"),), NUMBER),
        Panel("Verdicts in a day", "Verdicts of the last day.", NONE, (Query("sum(increase(whyflag_verdicts_total[1d]))", "verdicts"),), NUMBER),
        Panel("Verdicts waiting for Kafka", "Verdicts that Kafka has not acknowledged.", NONE,
              (Query("sum(max by (state) (whyflag_outbox_verdicts))", "verdicts"),), NUMBER),
        Panel("Waiting alerts", "By severity and state.", NONE, (_largest("whyflag_queue_alerts", "severity", "state"),), STACK),
        Panel("Alerts past their deadline", "By severity.", NONE, (_largest("whyflag_queue_breaches", "severity"),), STACK),
        Panel("Oldest alert", "Age of the oldest alert that waits, by severity.", SECONDS, (_largest("whyflag_queue_oldest_seconds", "severity"),)),
        Panel("Verdicts by finding", "Verdicts per second.", PER_SECOND, (_rate("whyflag_verdicts_total", "finding"),), STACK),
        Panel("Outbox", "How long the first verdict has been waiting for Kafka.", SECONDS, (_largest("whyflag_outbox_seconds", "state"),)),
        Panel("Assistant", "Investigations and questions per second, by how they ended.", PER_SECOND,
              (_rate("whyflag_investigations_total", "ended"),), STACK),
        Panel("Time of the assistant", "Time of an investigation or an answer.", SECONDS, _quantiles("whyflag_investigation_seconds")),
        Panel("Tokens of the assistant", "Tokens per second.", PER_SECOND, (_total_rate("whyflag_investigation_tokens_total", "tokens"),)),
        Panel("Requests to the console", "Requests per second, by status.", PER_SECOND, (_rate("whyflag_http_requests_total", "status"),), STACK),
        Panel("Slowest pages", "99th percentile of the time until the answer began, for the ten slowest routes.", SECONDS,
              (Query(f"topk(10, {_p99('whyflag_http_request_seconds', 'route').expression})", "{{route}}"),)),
    ),
)  # fmt: skip

DASHBOARDS: Final = (PIPELINE, MODEL, EXPLANATIONS, QUEUE)


def panels(interval: str = "1m") -> Iterator[PanelQuery]:
    """Yield all expressions, with ``interval`` in place of Grafana's variable."""
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query in panel.queries:
                yield PanelQuery(dashboard.name, panel.title, query.expression.replace(INTERVAL, interval))


def dashboard_json(dashboard: Dashboard, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a dashboard as Grafana's JSON. With ``labels``, it shows only series with these labels."""
    made = (
        grafana.Dashboard(" ".join((dashboard.title, *(labels or {}).values())))
        .uid("-".join(("whyflag", dashboard.name, *(labels or {}).values())))
        .tags(["whyflag"])
        .refresh("30s")
        .time("now-1h", "now")
        .with_variable(grafana.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for number, panel in enumerate(dashboard.panels, start=1):
        made.with_panel(_panel(panel, labels or {}).id(number))
    content: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
    return content


def _panel(panel: Panel, labels: Mapping[str, str]) -> stat.Panel | timeseries.Panel:
    made = stat.Panel().span(6).height(4) if panel.kind is Kind.NUMBER else timeseries.Panel().span(8).height(8)
    made.title(panel.title).description(panel.description).unit(panel.unit.value).datasource(_SOURCE)
    if isinstance(made, timeseries.Panel):
        made.min(0)
        if panel.kind is Kind.STACK:
            made.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        made.with_target(
            prometheus.Dataquery().expr(selecting(query.expression, labels)).legend_format(query.legend).ref_id(letter)
        )
    return made
