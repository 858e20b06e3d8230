"""Replay of one decision as text: event, features, bundle, rules, facts, and who did what."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from analyst.audit import AuditEntry
from analyst.queue import QueuedAlert
from core.display import quoted
from core.errors import WhyflagError
from core.messages import Alert
from core.money import money
from explain.words import ENGLISH, writer
from models.bundles.bundle import Bundle
from models.bundles.store import BundleStore, open_bundle, rule_words
from models.scorer import score

_LONGEST_DETAIL = 300


def decision_text(queued: QueuedAlert, done: Sequence[AuditEntry], bundles: Path) -> str:
    """Return how an alert was decided and what became of it. ``bundles`` is the bundle or store to compute the score again with."""
    alert, explanation = queued.alert, queued.explanation
    decision = alert.decision
    lines = [f"alert {alert.alert_id}, {queued.state}, raised {_time(queued.raised_at)}, due {_time(queued.deadline)}"]
    lines += ["", "event"] + [f"  {name:<18}{quoted(str(value), 100)}" for name, value in _fields(alert)]
    lines += ["", f"features (spec {alert.spec})"]
    lines += [f"  {name:<34}{'unknown' if value is None else f'{value:g}'}" for name, value in alert.features.items()]
    probability = "none: the model could not score" if decision.probability is None else f"{decision.probability:.6f}"
    lines += [
        "", "decision",
        f"  bundle            {decision.bundle}",
        f"  probability       {probability}",
        f"  computed again    {_score_again(alert, bundles)}",
        f"  outcome           {decision.outcome}",
        f"  reasons           {', '.join(decision.reason_codes) or 'none'}",
        f"  expected loss     {money(queued.loss, queued.loss_currency)}",
    ]  # fmt: skip
    words = rule_words(bundles)
    lines += ["", "rules that held"] + ([f"  {words(rule) or rule}" for rule in decision.rule_hits] or ["  none"])
    english = writer(ENGLISH)
    facts = explanation.facts if explanation else ()
    lines += ["", "facts"] + ([f"  {fact.fact_id:<5} {english.sentence(fact)}" for fact in facts] or ["  no explanation yet"])
    lines += ["", "who did what"] + ([_entry(one) for one in done] or ["  nobody has done anything yet"])
    return "\n".join(lines)


def _fields(alert: Alert) -> Iterator[tuple[str, object]]:
    for name, value in msgspec.to_builtins(alert.transaction).items():
        if name not in ("v", "memo", "ip"):
            yield name, _time(value) if name == "event_time" else value


def _entry(one: AuditEntry) -> str:
    return f"  {_time(one.at)}  {one.actor}: {one.action}  {quoted(one.detail, _LONGEST_DETAIL)}".rstrip()


def _time(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _score_again(alert: Alert, bundles: Path) -> str:
    """Score the alert's features with the bundle that decided it, and say whether the probability is the same."""
    try:
        bundle = _bundle(bundles, alert.decision.bundle)
    except WhyflagError as error:
        return f"not possible: {error}"
    values = [alert.features.get(name) for name in bundle.spec.feature_names]
    X = np.array([[np.nan if value is None else value for value in values]], np.float32)
    probability = float(score(bundle, X, np.zeros(1, np.uint8)).probability[0])
    if alert.decision.probability is None:
        return f"{probability:.6f}"
    same = probability == alert.decision.probability
    return f"{probability:.6f}, {'the same' if same else 'DIFFERENT from the decision'}"


def _bundle(bundles: Path, version: str) -> Bundle:
    version = version.partition("+")[0]
    if BundleStore.at(bundles):
        return BundleStore(bundles).open(version)
    bundle = open_bundle(bundles)
    if bundle.version != version:
        raise WhyflagError(f"{bundles} holds bundle {bundle.version}: set WHYFLAG_BUNDLE to a store that holds {version}")
    return bundle
