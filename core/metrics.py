"""Prometheus metrics: prefix ``whyflag_``, base units, labels from small closed sets."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

RECORDS = Counter("whyflag_records", "Records read from Kafka.", ["stage", "topic"])
DEAD_LETTERS = Counter("whyflag_dead_letters", "Records sent to the dead letters.", ["stage", "error"])
DUPLICATES = Counter("whyflag_duplicates", "Transactions seen before and not decided again.", ["stage"])
BATCH_SECONDS = Histogram("whyflag_batch_seconds", "Time to process one batch.", ["stage"], buckets=_SECONDS)
ACK_SECONDS = Histogram("whyflag_ack_seconds", "Time until Kafka acknowledged a batch.", ["stage"], buckets=_SECONDS)
REPLAYED = Counter("whyflag_replayed", "Records of the second hop that came again after a restart and were dropped.")
CHECKPOINT_SECONDS = Histogram("whyflag_checkpoint_seconds", "Time to write a checkpoint.", ["stage"], buckets=_SECONDS)
CHECKPOINT_BYTES = Counter("whyflag_checkpoint_bytes", "State written to checkpoint logs.", ["stage"])
RESTORE_SECONDS = Histogram("whyflag_restore_seconds", "Time to restore a partition.", ["stage"], buckets=_SECONDS)
LAG = Gauge("whyflag_lag_records", "Records that wait to be processed, in the partitions of this worker.", ["stage"])
DECISIONS = Counter("whyflag_decisions", "Decisions by outcome.", ["outcome"])
LABELS = Counter("whyflag_labels", "Labels applied, by whether they say fraud.", ["fraud"])
DOUBTS = Counter("whyflag_doubtful_transactions", "Transactions that go to review whatever their score, by reason.", ["reason"])
SCORING_FAILURES = Counter("whyflag_scoring_failures", "Transactions sent to review because the model could not score.")
EVICTED = Counter(
    "whyflag_state_evictions",
    "Keys removed from state: stale ones, of which nothing could matter any more, or the stalest ones at the ceiling.",
    ["entity", "reason"],
)
KEYS = Gauge("whyflag_state_keys", "Keys held in state.", ["stage"])
STATE_BYTES = Gauge("whyflag_state_bytes", "Memory held by state.", ["stage"])
EXPLANATIONS = Counter("whyflag_explanations", "Explanations published, by narrator.", ["narrator"])
EXPLAIN_SECONDS = Histogram("whyflag_explain_seconds", "Time from alert to verified card.", buckets=_SECONDS)
SENTENCES = Counter("whyflag_narrative_sentences", "Sentences written by a language model, by result.", ["result"])
WORDS_MISSING = Counter("whyflag_words_missing", "Messages that a catalogue lacks, written in English instead.", ["language"])
LLM_REQUESTS = Counter("whyflag_llm_requests", "Requests to the language model, by how they ended.", ["result"])
LLM_SECONDS = Histogram("whyflag_llm_request_seconds", "Time of one request to the language model.", buckets=_SECONDS)
LLM_TOKENS = Counter("whyflag_llm_tokens", "Tokens, as the server counts them.", ["kind"])
LLM_COST = Counter("whyflag_llm_cost", "Price of those tokens by the settings, in their currency.")
LLM_BREAKER = Gauge("whyflag_llm_breaker_open", "1 while the language model is left alone after failures in a row.")
ARCHIVED = Counter(
    "whyflag_archived_records",
    "Records that the archive worker has handled, by topic: stored, stored before, or skipped.",
    ["topic"],
)
ARCHIVE_SECONDS = Histogram("whyflag_archive_seconds", "Time to store one chunk in the archive.", buckets=_SECONDS)
VERDICTS = Counter("whyflag_verdicts", "Verdicts by finding.", ["finding"])
BUNDLE_INFO = Gauge("whyflag_bundle_info", "A bundle that has decided in this worker; the value is always 1.", ["version"])
BUNDLE_FAILURES = Counter("whyflag_bundle_failures", "Champions and challengers that this worker refused.")
RULE_FAILURES = Counter("whyflag_rule_failures", "Rules that failed while they ran and were disabled.", ["rule"])
RULE_HITS = Counter("whyflag_rule_hits", "Transactions for which a rule held.", ["rule"])
SHADOW = Counter(
    "whyflag_shadow_decisions", "What the challenger would have decided, by the champion's outcome.", ["champion", "challenger"]
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
    "Decisions whose label delay is over, by whether they were alerts and turned out fraud.",
    ["alert", "fraud"],
)
MATURED_PROBABILITY = Counter("whyflag_matured_probability", "Sum of the probabilities of decisions whose label delay is over.")
