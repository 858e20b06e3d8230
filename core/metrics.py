"""
Prometheus metrics. Names start with ``whyflag_`` and use base units; label values come from small closed sets.

``CATALOGUE`` says which programs serve which metric. A program serves its own metrics only, so that a metric it never changes
does not look like a measurement of 0.
"""

import importlib.metadata
import platform
from collections.abc import Sequence
from enum import StrEnum
from itertools import product
from typing import Final, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector
from prometheus_client.registry import Collector

from core.collectors import ArrayHistogram, LateGauge
from core.errors import Refusal

VERSION: Final = importlib.metadata.version("whyflag")
_M = TypeVar("_M", bound=Collector)


class Program(StrEnum):
    """A long-running program that serves metrics."""

    SCORE = "score"
    EXPLAIN = "explain"
    ARCHIVE = "archive"
    CONSOLE = "console"


class Entry(NamedTuple):
    """A metric of the catalogue: its collector, its labels, and the programs that serve it."""

    collector: Collector
    labels: tuple[str, ...]
    programs: tuple[Program, ...]


CATALOGUE: Final[list[Entry]] = []
SCORE, EXPLAIN, ARCHIVE, CONSOLE = Program
WORKERS: Final = (SCORE, EXPLAIN, ARCHIVE)
_STAGES: Final = {SCORE: ("profile", "score"), EXPLAIN: ("explain",), ARCHIVE: ("archive",)}
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


def _counter(name: str, meaning: str, programs: Sequence[Program], labels: Sequence[str] = ()) -> Counter:
    return _listed(Counter(f"whyflag_{name}", meaning, labels, registry=None), programs, labels)


def _gauge(name: str, meaning: str, programs: Sequence[Program], labels: Sequence[str]) -> Gauge:
    """Return a gauge with labels: it has no sample until a value is set. ``_late_gauge`` is for gauges without labels."""
    return _listed(Gauge(f"whyflag_{name}", meaning, labels, registry=None), programs, labels)


def _late_gauge(name: str, meaning: str, programs: Sequence[Program]) -> LateGauge:
    return _listed(LateGauge(f"whyflag_{name}", meaning), programs)


def _duration(name: str, meaning: str, programs: Sequence[Program], labels: Sequence[str] = ()) -> Histogram:
    return _listed(Histogram(f"whyflag_{name}", meaning, labels, buckets=_SECONDS, registry=None), programs, labels)


def _latency(name: str, meaning: str, programs: Sequence[Program]) -> ArrayHistogram:
    return _listed(ArrayHistogram(f"whyflag_{name}", meaning, _LATENCIES), programs)


def _listed(metric: _M, programs: Sequence[Program], labels: Sequence[str] = ()) -> _M:
    CATALOGUE.append(Entry(metric, tuple(labels), tuple(programs)))
    return metric


def registry_of(*programs: Program) -> CollectorRegistry:
    """Return a registry with the metrics of some programs, and those of the process: memory, CPU time, garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    for entry in CATALOGUE:
        if set(programs).intersection(entry.programs):
            registry.register(entry.collector)
    for program in programs:
        # counters begin at 0: Prometheus cannot see an increase from nothing to 1
        for stage, reason in product(_STAGES.get(program, ()), Refusal):
            DEAD_LETTERS.labels(stage, reason.value)
        if program is SCORE:
            DUPLICATES.labels("profile")
        BUILD_INFO.labels(program.value, VERSION, platform.python_version()).set(1)
    return registry


# -- every program ----------------------------------------------------------------------------------------------------------------

BUILD_INFO = _gauge(
    "build_info", "Always 1; the labels name the program and its version.", tuple(Program), ["program", "version", "python"]
)

SILENCE = _gauge("silence_seconds", "Time since Kafka or the database last answered this worker.", WORKERS, ["dependency"])

# -- workers: records, lag, partitions --------------------------------------------------------------------------------------------

RECORDS = _counter(
    "records", "Records read from Kafka. A record of profiled holds up to some hundred transactions.", WORKERS, ["stage", "topic"]
)
BATCH_SECONDS = _duration("batch_seconds", "Time to process one batch.", WORKERS, ["stage"])
ACK_SECONDS = _duration("ack_seconds", "Time until Kafka acknowledged the outputs of a batch.", WORKERS, ["stage"])
DEAD_LETTERS = _counter("dead_letters", "Records sent to the dead-letter topic, by reason.", WORKERS, ["stage", "reason"])
LAG_RECORDS = _gauge(
    "lag_records",
    "Unprocessed records of a partition. A record of profiled holds up to some hundred transactions.",
    WORKERS,
    ["stage", "topic", "partition"],
)
LAG_SECONDS = _gauge(
    "lag_seconds", "Time for which the next record of a partition has been waiting; 0 if none waits.", WORKERS,
    ["stage", "topic", "partition"],
)  # fmt: skip
PARTITIONS = _gauge("partitions", "Partitions that this worker processes.", WORKERS, ["stage"])
REBALANCES = _counter("rebalances", "Times that this worker was given partitions.", WORKERS)

# -- score: latency, state, checkpoints -------------------------------------------------------------------------------------------

DECISION_LATENCY = _latency(
    "decision_latency_seconds", "Time from a transaction's arrival in Kafka to Kafka's acknowledgement of its decision.", [SCORE]
)
WATERMARK_DELAY = _gauge(
    "watermark_delay_seconds",
    "How far the newest event time of a partition is behind the clock.",
    [SCORE],
    ["stage", "partition"],
)
DUPLICATES = _counter("duplicates", "Duplicate transactions, which are not decided again.", [SCORE], ["stage"])
REPLAYED = _counter("replayed", "Records that the score stage received again after a restart and dropped.", [SCORE])
CHECKPOINT_SECONDS = _duration("checkpoint_seconds", "Time to write a checkpoint.", [SCORE], ["stage"])
CHECKPOINT_BYTES = _counter("checkpoint_bytes", "State written to checkpoint logs.", [SCORE], ["stage"])
CHECKPOINT_AGE = _gauge(
    "checkpoint_age_seconds",
    "Age of the oldest processed record that is in no checkpoint; 0 if every record is in a checkpoint.",
    [SCORE],
    ["stage"],
)
RESTORE_SECONDS = _duration("restore_seconds", "Time to restore a partition.", [SCORE], ["stage"])
KEYS = _gauge("state_keys", "Keys held in state.", [SCORE], ["stage"])
STATE_BYTES = _gauge("state_bytes", "Memory held by state.", [SCORE], ["stage"])
EVICTED = _counter(
    "state_evictions",
    "Keys removed from state, by reason: stale (the data had expired) or ceiling (least recently active, when state was full).",
    [SCORE],
    ["entity", "reason"],
)

# -- score: decisions and model ---------------------------------------------------------------------------------------------------

DECISIONS = _counter("decisions", "Decisions by outcome.", [SCORE], ["outcome"])
ALERT_BUDGET = _late_gauge("alert_budget", "Alerts per day that the bundle's policy was made for.", [SCORE])
LABELS = _counter("labels", "Labels applied, by whether they report fraud.", [SCORE], ["fraud"])
DOUBTS = _counter("doubtful_transactions", "Transactions that need at least a review, by reason.", [SCORE], ["reason"])
SCORING_FAILURES = _counter("scoring_failures", "Transactions sent to review because the model could not score them.", [SCORE])
BUNDLE_INFO = _gauge(
    "bundle_info", "Always 1; the label is the version of the bundle that this worker decides with.", [SCORE], ["version"]
)
BUNDLE_FAILURES = _counter("bundle_failures", "Champions and challengers that this worker rejected.", [SCORE])
RULE_FAILURES = _counter("rule_failures", "Rules that failed at run time and were disabled.", [SCORE], ["rule"])
RULE_HITS = _counter("rule_hits", "Transactions that matched a rule.", [SCORE], ["rule"])
SHADOW = _counter(
    "shadow_decisions", "Shadow decisions, by the outcomes of champion and challenger.", [SCORE], ["champion", "challenger"]
)
SHADOW_FAILURES = _counter("shadow_failures", "Transactions that the challenger could not score.", [SCORE])
SCORE_PSI = _late_gauge(
    "score_stability_index", "Population stability index of the probability against the bundle's calibration.", [SCORE]
)
FEATURE_PSI = _gauge(
    "feature_stability_index", "Population stability index of a feature against the bundle's calibration.", [SCORE], ["feature"]
)

# -- explain ----------------------------------------------------------------------------------------------------------------------

EXPLANATIONS = _counter("explanations", "Explanations published, by narrator.", [EXPLAIN], ["narrator"])
EXPLAIN_SECONDS = _duration("explain_seconds", "Time to explain an alert and add it to the queue.", [EXPLAIN])
EXPLANATION_LATENCY = _latency(
    "explanation_latency_seconds", "Time from an alert's arrival in Kafka to its explanation in the queue.", [EXPLAIN]
)
NARRATIVES = _counter(
    "narratives",
    "Narratives that a language model was asked for, by result: accepted, refused (no sentence passed the check) or failed (no answer).",
    [EXPLAIN],
    ["result"],
)
SENTENCES = _counter(
    "narrative_sentences", "Sentences written by a language model, by result: accepted or replaced.", [EXPLAIN], ["result"]
)
WORDS_MISSING = _counter(
    "words_missing", "Messages missing from a catalogue, shown in English instead.", [EXPLAIN, CONSOLE], ["language"]
)
LLM_REQUESTS = _counter("llm_requests", "Requests to the language model, by result.", [EXPLAIN], ["result"])
LLM_SECONDS = _duration("llm_request_seconds", "Time of one request to the language model.", [EXPLAIN])
LLM_TOKENS = _counter("llm_tokens", "Tokens used, as counted by the language model's server.", [EXPLAIN], ["kind"])
LLM_COST = _counter("llm_cost", "Cost of the tokens at the configured prices, in the currency of those prices.", [EXPLAIN])
LLM_BREAKER = _late_gauge(
    "llm_breaker_open",
    "1 while the language model's circuit breaker is open, else 0; absent without a language model.",
    [EXPLAIN],
)

# -- archive ----------------------------------------------------------------------------------------------------------------------

ARCHIVED = _counter(
    "archived_records",
    "Records that the archive worker processed without a dead letter, by topic. Duplicates and skipped records are included.",
    [ARCHIVE],
    ["topic"],
)
ARCHIVE_SECONDS = _duration("archive_seconds", "Time to store one chunk in the archive.", [ARCHIVE])
ARCHIVE_LATENCY = _latency(
    "archive_latency_seconds", "Time from a record's arrival in Kafka to its row in the archive.", [ARCHIVE]
)
MATURED = _gauge(
    "matured_decisions",
    "Decisions of the last day that is older than the label delay, by whether they raised an alert and whether they were fraud.",
    [ARCHIVE],
    ["alert", "fraud"],
)
MATURED_PROBABILITY = _late_gauge("matured_probability", "Sum of the probabilities of these decisions.", [ARCHIVE])

# -- console ----------------------------------------------------------------------------------------------------------------------

OUTBOX_VERDICTS = _gauge(
    "outbox_verdicts", "Verdicts that Kafka has not acknowledged although their grace period is over.", [CONSOLE], ["state"]
)
OUTBOX_SECONDS = _gauge("outbox_seconds", "How long the first of these verdicts has been waiting.", [CONSOLE], ["state"])
QUEUE_ALERTS = _gauge("queue_alerts", "Alerts that wait for a verdict.", [CONSOLE], ["state", "severity"])
QUEUE_BREACHES = _gauge("queue_breaches", "Alerts that wait for a verdict past their deadline.", [CONSOLE], ["severity"])
QUEUE_OLDEST_SECONDS = _gauge(
    "queue_oldest_seconds", "Age of the oldest alert that waits for a verdict; 0 if none waits.", [CONSOLE], ["severity"]
)
INVESTIGATIONS = _counter(
    "investigations", "Investigations and questions to the assistant, by how they ended.", [CONSOLE], ["ended"]
)
INVESTIGATION_SECONDS = _duration("investigation_seconds", "Time of an investigation or an answer.", [CONSOLE])
INVESTIGATION_TOKENS = _counter(
    "investigation_tokens", "Tokens of prompts and answers, as counted by the language model's server.", [CONSOLE]
)
VERDICTS = _counter("verdicts", "Verdicts by finding.", [CONSOLE], ["finding"])
HTTP_REQUESTS = _counter(
    "http_requests", "Requests to the console's pages and API, by route and status.", [CONSOLE], ["method", "route", "status"]
)
HTTP_SECONDS = _duration("http_request_seconds", "Time until the console's answer began.", [CONSOLE], ["method", "route"])
