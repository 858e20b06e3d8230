"""Prometheus metrics. Names start with ``whyflag_`` and use base units; label values come from small closed sets."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

RECORDS = Counter("whyflag_records", "Records read from Kafka.", ["stage", "topic"])
DEAD_LETTERS = Counter("whyflag_dead_letters", "Records sent to the dead-letter topic.", ["stage", "error"])
DUPLICATES = Counter("whyflag_duplicates", "Duplicate transactions, which are not decided again.", ["stage"])
BATCH_SECONDS = Histogram("whyflag_batch_seconds", "Time to process one batch.", ["stage"], buckets=_SECONDS)
ACK_SECONDS = Histogram("whyflag_ack_seconds", "Time until Kafka acknowledged a batch.", ["stage"], buckets=_SECONDS)
REPLAYED = Counter("whyflag_replayed", "Records that the score stage received again after a restart and dropped.")
CHECKPOINT_SECONDS = Histogram("whyflag_checkpoint_seconds", "Time to write a checkpoint.", ["stage"], buckets=_SECONDS)
CHECKPOINT_BYTES = Counter("whyflag_checkpoint_bytes", "State written to checkpoint logs.", ["stage"])
RESTORE_SECONDS = Histogram("whyflag_restore_seconds", "Time to restore a partition.", ["stage"], buckets=_SECONDS)
LAG = Gauge("whyflag_lag_records", "Unprocessed records in this worker's partitions.", ["stage"])
DECISIONS = Counter("whyflag_decisions", "Decisions by outcome.", ["outcome"])
LABELS = Counter("whyflag_labels", "Labels applied, by whether they report fraud.", ["fraud"])
DOUBTS = Counter("whyflag_doubtful_transactions", "Transactions that need at least a review, by reason.", ["reason"])
SCORING_FAILURES = Counter("whyflag_scoring_failures", "Transactions sent to review because the model could not score them.")
EVICTED = Counter(
    "whyflag_state_evictions",
    "Keys removed from state, by reason: stale (the data had expired) or ceiling (least recently active, when state was full).",
    ["entity", "reason"],
)
KEYS = Gauge("whyflag_state_keys", "Keys held in state.", ["stage"])
STATE_BYTES = Gauge("whyflag_state_bytes", "Memory held by state.", ["stage"])
EXPLANATIONS = Counter("whyflag_explanations", "Explanations published, by narrator.", ["narrator"])
EXPLAIN_SECONDS = Histogram("whyflag_explain_seconds", "Time to explain an alert and add it to the queue.", buckets=_SECONDS)
SENTENCES = Counter("whyflag_narrative_sentences", "Sentences written by a language model, by result.", ["result"])
WORDS_MISSING = Counter("whyflag_words_missing", "Messages missing from a catalogue, shown in English instead.", ["language"])
LLM_REQUESTS = Counter("whyflag_llm_requests", "Requests to the language model, by result.", ["result"])
LLM_SECONDS = Histogram("whyflag_llm_request_seconds", "Time of one request to the language model.", buckets=_SECONDS)
LLM_TOKENS = Counter("whyflag_llm_tokens", "Tokens used, as counted by the language model's server.", ["kind"])
LLM_COST = Counter("whyflag_llm_cost", "Cost of the tokens at the configured prices, in the currency of those prices.")
LLM_BREAKER = Gauge("whyflag_llm_breaker_open", "1 while the language model's circuit breaker is open.")
ARCHIVED = Counter(
    "whyflag_archived_records",
    "Records that the archive worker processed without a dead letter, by topic. Duplicates and skipped records are included.",
    ["topic"],
)
ARCHIVE_SECONDS = Histogram("whyflag_archive_seconds", "Time to store one chunk in the archive.", buckets=_SECONDS)
OUTBOX_VERDICTS = Gauge(
    "whyflag_outbox_verdicts", "Verdicts that Kafka has not acknowledged although their grace period is over.", ["state"]
)
OUTBOX_SECONDS = Gauge("whyflag_outbox_seconds", "How long the first of these verdicts has been waiting.", ["state"])
QUEUE_ALERTS = Gauge("whyflag_queue_alerts", "Alerts that wait for a verdict.", ["state", "severity"])
QUEUE_BREACHES = Gauge("whyflag_queue_breaches", "Alerts that wait for a verdict past their deadline.", ["severity"])
QUEUE_OLDEST_SECONDS = Gauge("whyflag_queue_oldest_seconds", "Age of the oldest alert that waits for a verdict.", ["severity"])
VERDICTS = Counter("whyflag_verdicts", "Verdicts by finding.", ["finding"])
BUNDLE_INFO = Gauge(
    "whyflag_bundle_info", "Always 1; one series for each bundle version that this worker has used for decisions.", ["version"]
)
BUNDLE_FAILURES = Counter("whyflag_bundle_failures", "Champions and challengers that this worker rejected.")
RULE_FAILURES = Counter("whyflag_rule_failures", "Rules that failed at run time and were disabled.", ["rule"])
RULE_HITS = Counter("whyflag_rule_hits", "Transactions that matched a rule.", ["rule"])
SHADOW = Counter(
    "whyflag_shadow_decisions", "Shadow decisions, by the outcomes of champion and challenger.", ["champion", "challenger"]
)
SHADOW_FAILURES = Counter("whyflag_shadow_failures", "Transactions that the challenger could not score.")
SCORE_PSI = Gauge(
    "whyflag_score_stability_index", "Population stability index of the probability against the bundle's calibration."
)
FEATURE_PSI = Gauge(
    "whyflag_feature_stability_index", "Population stability index of a feature against the bundle's calibration.", ["feature"]
)
MATURED = Counter(
    "whyflag_matured_decisions",
    "Decisions whose label delay has passed, by whether they raised an alert and whether they were fraud.",
    ["alert", "fraud"],
)
MATURED_PROBABILITY = Counter("whyflag_matured_probability", "Sum of the probabilities of decisions past their label delay.")
