"""
Draft narrative of a suspicious-activity report: who, what, when, where, why and how, with events in chronological order.

The six elements are those of FinCEN's guidance on preparing a complete and sufficient narrative. Where the
draft needs information that only the bank has, it leaves a gap that names this information. A person fills in the gaps, checks
the rest and signs.
"""

import re
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from core.display import quoted
from core.messages import Alert, Explanation, Finding, Side, Verdict
from core.money import money
from explain.words import ENGLISH, writer

_GAP = "[to be filled in: {}]"


def markdown_quoted(text: str, longest: int = 60) -> str:
    """Return third-party text for Markdown: cleaned, shortened, and with all markup escaped."""
    return re.sub(r"([\\`*_\[\]<>&!#|~])", r"\\\1", quoted(text, longest))


class Draft(Struct, frozen=True):
    """The draft as Markdown, and the list of what it still lacks."""

    text: str
    missing: tuple[str, ...]


def draft(alert: Alert, explanation: Explanation | None, verdicts: list[Verdict], others: list[Any], made_at: int) -> Draft:
    """
    Draft a report about an alert.

    ``others`` are the card's other alerts with their findings, in any order; ``made_at`` is in epoch ms. ``missing`` in the
    result lists the gaps of each element, and the prerequisites that are not met, such as a verdict of fraud.
    """
    missing: list[str] = []

    def gap(element: str, what: str) -> str:
        missing.append(f"{element}: {what}")
        return _GAP.format(what)

    transaction, decision = alert.transaction, alert.decision
    final = verdicts[-1] if verdicts else None
    if final is None or final.finding is not Finding.FRAUD:
        missing.append("a verdict: no analyst has found this alert to be fraud")
    facts = explanation.facts if explanation else ()
    english = writer(ENGLISH)
    if not facts:
        missing.append("why: the alert has no explanation yet")
    events = sorted(_events(alert, verdicts, others), key=lambda event: event[0])
    reasons = [fact for fact in facts if fact.feature and fact.side is Side.FRAUD][:5]
    reasons += [
        fact
        for fact in facts
        if fact.kind in ("novel", "rule", "merchant-history", "device-shared") and fact.side is not Side.LEGITIMATE
    ]
    against = [fact for fact in facts if fact.feature and fact.side is Side.LEGITIMATE][:3]
    typology = markdown_quoted(final.typology) if final and final.typology else gap("how", "typology of the scheme")
    lines = [
        f"# DRAFT: suspicious activity narrative, alert {alert.alert_id}",
        "",
        "**This is a draft made by a program. A person must complete, check and sign it before it is filed.**",
        "",
        f"Prepared {_when(made_at)} UTC from alert {alert.alert_id}, scored by bundle {decision.bundle}.",
        "",
        "## Who",
        f"- Subject: card {_ending(transaction.card_id)}; {gap('who', 'name, address, date of birth and account of the cardholder')}",
        f"- Merchant: “{markdown_quoted(transaction.merchant_name or transaction.merchant_id)}”"
        + (f", category {transaction.mcc}" if transaction.mcc else ", category not given"),
        f"- Suspect, if known: {gap('who', 'who used the card, or that this is not known')}",
        "",
        "## What",
        f"- {_sum(alert)} by card was flagged; the decision was {decision.outcome}.",
        *(f"- {english.sentence(fact)}" for fact in facts if fact.fact_id == "S1"),
        f"- Amount at risk across the related alerts of this card: {_at_risk(alert, others)}.",
        "",
        "## When",
        f"- From {_when(events[0][0])} to {_when(events[-1][0])} UTC. In chronological order:",
        "",
        *(f"  {number}. {_when(at)} UTC: {what}" for number, (at, what) in enumerate(events, start=1)),
        "",
        "## Where",
        f"- {_where(alert, gap)}",
        "",
        "## Why it is suspicious",
        *(
            [f"- {english.sentence(fact)} [{fact.fact_id}]" for fact in reasons]
            or [f"- {gap('why', 'the reasons for suspicion')}"]
        ),
        *(f"- {english.sentence(fact)} [{fact.fact_id}]" for fact in facts if fact.kind in ("cases", "cases-none", "typology")),
        *([f"- Evidence against fraud: {' '.join(english.sentence(fact) for fact in against)}"] if against else []),
        "",
        "## How",
        f"- Typology: {typology}.",
        f"- Method: {gap('how', 'how the card or credentials were obtained, and how the money was moved')}",
    ]
    if final and final.note:
        lines.append(f"- The analyst's note, as written: “{markdown_quoted(final.note, 1000)}”")
    lines += [
        "",
        "## Completeness",
        *(f"- Missing: {one}" for one in missing),
        *([] if missing else ["- All six elements are present."]),
        "",
        f"Signed: {_GAP.format('name of the person who checked this draft, and date')}",
        "",
    ]
    return Draft("\n".join(lines), tuple(missing))


def _events(alert: Alert, verdicts: list[Verdict], others: list[Any]) -> list[tuple[int, str]]:
    currency = alert.currency or alert.transaction.currency
    entries = [(alert.transaction.event_time, f"{_sum(alert)}: the transaction of this alert.")]
    for past in alert.recent:
        amount = "an unknown amount" if past.amount is None else money(past.amount, currency)
        place = "" if past.channel is None else ", online" if past.channel == "online" else ", card present"
        entries.append((past.event_time, f"the card paid {amount}{place}{f', in {past.country}' if past.country else ''}."))
    for other in others:
        found = f", found to be {other.finding}" if other.finding else ", not reviewed yet"
        entries.append((other.alert.transaction.event_time, f"{_sum(other.alert)}: alert {other.alert.alert_id}{found}."))
    entries += [(verdict.verdict_time, f"an analyst found the alert to be {verdict.finding}.") for verdict in verdicts]
    return entries


def _sum(alert: Alert) -> str:
    return f"a payment of {money(alert.transaction.amount, alert.transaction.currency)}"


def _at_risk(alert: Alert, others: list[Any]) -> str:
    sums: dict[str, int] = {}
    for one in (alert, *(other.alert for other in others if other.finding is not Finding.LEGITIMATE)):
        sums[one.transaction.currency] = sums.get(one.transaction.currency, 0) + one.transaction.amount
    return ", ".join(money(amount, currency) for currency, amount in sorted(sums.items()))


def _where(alert: Alert, gap: Any) -> str:
    transaction = alert.transaction
    place = "Online" if transaction.channel == "online" else "Card present" if transaction.channel else "Channel not given"
    country = f"in {transaction.country}" if transaction.country else gap("where", "country of the transaction")
    return f"{place}, {country}."


def _ending(card_id: str) -> str:
    return f"ending {card_id[-4:]}" if card_id.startswith("pan_") else f"“{markdown_quoted(card_id, 40)}”"


def _when(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d %H:%M")
