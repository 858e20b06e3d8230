"""Facts of the alert itself: the payment, its score, doubts about its data, matching rules and missing fields."""

import math
from typing import Final

from core.clock import MS_PER_HOUR
from core.messages import Alert, Fact, Side, Subject, Value
from explain.facts.values import code, count, country, instant, money, share, text
from models.bundles.bundle import Bundle
from models.calibration import Calibration
from models.scorer import CURRENCY_UNKNOWN, EVENT_LATE, ID_REUSED, NO_BUNDLE, NOVEL

_FEW: Final = 30  # if the probability's bin has fewer calibration transactions, the score fact includes an interval
_Z: Final = 1.96  # standard normal quantile of the 95 % interval
_OPTIONAL: Final = ("mcc", "country", "channel", "device_id")
_DOUBTS: Final = {EVENT_LATE: "doubt-late", ID_REUSED: "doubt-reused"}


def alert_facts(alert: Alert, bundle: Bundle) -> tuple[Fact, ...]:
    """
    Return the facts that need no archive: the payment (``T1``), the card's last payments (``T2``), the score (``S1``), doubts
    about the data, a score by another bundle, novelty, matching rules and missing fields.
    """
    decision = alert.decision
    facts = [_payment(alert), _recent(alert), _score(alert, bundle)]
    doubts = [kind for reason, kind in _DOUBTS.items() if reason in decision.reason_codes]
    facts += [_plain(f"D{number}", kind, Subject.TRANSACTION) for number, kind in enumerate(doubts, start=1)]
    if CURRENCY_UNKNOWN in decision.reason_codes:
        facts.append(Fact("D8", "doubt-currency", Subject.TRANSACTION, {"currency": text(decision.currency)}))
    if decision.bundle not in (bundle.version, NO_BUNDLE):
        facts.append(Fact("D9", "other-bundle", Subject.SCORE, {"raised": text(decision.bundle), "here": text(bundle.version)}))
    if NOVEL in decision.reason_codes:
        facts.append(_plain("U1", "novel", Subject.TRANSACTION))
    facts += [
        Fact(f"V{number}", "rule", Subject.RULE, {"rule": text(rule)}, Side.FRAUD)
        for number, rule in enumerate(decision.rule_hits, start=1)
    ]
    facts += [
        Fact(f"Q{number}", "missing", Subject.TRANSACTION, {"field": code(f"field-{name.removesuffix('_id')}")})
        for number, name in enumerate(_missing(alert), start=1)
    ]
    return tuple(facts)


def _plain(fact_id: str, kind: str, subject: Subject) -> Fact:
    return Fact(fact_id, kind, subject, {})


def _payment(alert: Alert) -> Fact:
    transaction = alert.transaction
    values = {
        "amount": money(transaction.amount, transaction.currency),
        "when": instant(transaction.event_time),
        "channel": code(transaction.channel or "unknown"),
        "country": country(transaction.country) if transaction.country else code("no-country"),
    }
    return Fact("T1", "payment", Subject.TRANSACTION, values)


def _recent(alert: Alert) -> Fact:
    """Return the fact that counts the card's last payments within the hour before this one."""
    if not alert.recent:
        return _plain("T2", "payment-first", Subject.CARD)
    hour = sum(alert.transaction.event_time - past.event_time < MS_PER_HOUR for past in alert.recent)
    return Fact("T2", "payment-recent", Subject.CARD, {"hour": count(hour), "recent": count(len(alert.recent))})


def _score(alert: Alert, bundle: Bundle) -> Fact:
    probability = alert.decision.probability
    if probability is None:
        return _plain("S1", "unscored", Subject.SCORE)
    if alert.decision.bundle != bundle.version:
        return Fact("S1", "score-elsewhere", Subject.SCORE, {"probability": share(probability)})
    values = {
        "probability": share(probability),
        "hundred": count(round(100 * probability)),
        "review": share(bundle.policy.review),
    }
    interval = _interval(bundle.calibration, probability)
    if interval is None:
        return Fact("S1", "score", Subject.SCORE, values)
    low, high = interval
    values |= {"low": count(math.floor(100 * low)), "high": count(math.ceil(100 * high))}
    return Fact("S1", "score-few", Subject.SCORE, values)


def _interval(calibration: Calibration, probability: float) -> tuple[float, float] | None:
    """
    Return the 95 % interval of a probability. Return None if the probability's bin has enough calibration transactions, or if the
    calibration has no bins.

    This is Wilson's score interval (1927). n is the number of calibration transactions in the bin, or 1 if there are none. The
    calibrated probability takes the place of the observed fraud share, so that the interval always contains the probability.
    """
    seen = calibration.bin_of(probability)
    if not calibration.bins or (seen is not None and seen.count >= _FEW):
        return None
    n = seen.count if seen else 1
    centre = (probability + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(probability * (1 - probability) / n + _Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _missing(alert: Alert) -> list[str]:
    transaction = alert.transaction
    return [
        name
        for name in _OPTIONAL
        if getattr(transaction, name) is None and not (name == "device_id" and transaction.channel != "online")
    ]


def balance(contributions: list[float]) -> Fact:
    """Return the fact that counts the themes for and against fraud (``B1``)."""
    fraud, against = (sum(sign * one > 0 for one in contributions) for sign in (1, -1))
    values: dict[str, Value] = {"fraud": count(fraud), "against": count(against)}
    return Fact("B1", "balance" if against else "balance-one-sided", Subject.SCORE, values)
