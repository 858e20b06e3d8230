"""
Measurement of how much explanations help: a language model in the analyst's place judges alerts with and without them.

The judge reads a sheet about each alert, written by ``judge_sheet``. Every sheet shows the payment, its score and the
payment card's last payments. A sheet with the explanation also shows reasons by theme, habits, cases, the narrative and the
payment card's earlier alerts. The sheet contains no third-party text. The AUC and Brier score of the judgements show how much the
explanation helps.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from sklearn.metrics import brier_score_loss, roc_auc_score

from core.messages import Alert, Explanation, Subject
from explain.claims import json_object
from explain.facts.categories import category_name
from explain.facts.history import CardHistory, History, card_history
from explain.facts.values import code, country, money, seconds, share
from explain.narrators.prompting import JUDGE, prompt
from explain.words import ENGLISH, writer

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

_WORDS = writer(ENGLISH)


class Condition(StrEnum):
    """The information that a judge sees."""

    BARE = "transaction list only"
    EXPLAINED = "with the explanation"


class Judged(Struct, frozen=True):
    """
    A model's results under one condition.

    ``alerts`` is the number of alerts, and ``answered`` the number of those that received a judgement. The area under the ROC
    curve (``auc``) and the Brier score (``brier``) are computed from these judgements. ``median_seconds`` is the median
    time of one judgement.
    """

    model: str
    condition: Condition
    alerts: int
    answered: int
    auc: float
    brier: float
    median_seconds: float


class _Answer(Struct, frozen=True):
    probability: Annotated[float, Meta(ge=0, le=1)]


def judge_sheet(
    alert: Alert, explanation: Explanation | None, history: History | None = None, others: Sequence[Alert] = ()
) -> str:
    """
    Return the sheet that a judge reads about an alert, with the explanation if one is given.

    ``history`` and ``others``, the card's other alerts, are shown only together with an explanation.
    """
    lines = [_payment(alert)]
    if alert.decision.probability is not None:
        lines.append(f"The model's probability of fraud is {_WORDS.value(share(alert.decision.probability))}.")
    past = card_history(alert.transaction, history) if explanation and history else None
    lines += ["", "Last payments of this card, newest first:"]
    lines += _last_with_archive(alert, past) if past and past.last else _last(alert)
    if explanation:
        lines += ["", *_explained(explanation), "", "Earlier alerts of this card:", *(_other(alert, one) for one in others)]
    return "\n".join(lines)


def _payment(alert: Alert) -> str:
    paid = alert.transaction
    parts = [_WORDS.value(money(paid.amount, paid.currency)), category_name(paid.mcc)]
    parts += [_WORDS.value(code(paid.channel))] if paid.channel else []
    parts += [_WORDS.value(country(paid.country))] if paid.country else []
    weekday = time.strftime("%A %Y-%m-%d %H:%M", time.gmtime(paid.event_time / 1000))
    return f"The payment: {', '.join(parts)}, {weekday} UTC."


def _last(alert: Alert) -> list[str]:
    currency = alert.currency or alert.transaction.currency
    lines = []
    for one in reversed(alert.recent):
        parts = [
            _WORDS.value(money(one.amount, currency)) if one.amount is not None else "unknown amount",
            category_name(one.mcc),
        ]
        parts += [_WORDS.value(code(one.channel))] if one.channel else []
        parts += [_WORDS.value(country(one.country))] if one.country else []
        parts += ["this merchant" if one.same_merchant else "another merchant"]
        lines.append(f"- {_before(alert, one.event_time)}: {', '.join(parts)}")
    return lines or ["- none known"]


def _last_with_archive(alert: Alert, past: CardHistory) -> list[str]:
    lines = []
    for one in past.last:
        paid = one.payment
        parts = [_WORDS.value(money(paid.amount, paid.currency)), one.category]
        parts += [_WORDS.value(code(paid.channel))] if paid.channel else []
        parts += [_WORDS.value(country(paid.country))] if paid.country else []
        parts += [f"{one.distance:.0f} km from home"] if one.distance is not None else []
        same = paid.merchant_id == alert.transaction.merchant_id
        parts += ["this merchant" if same else "merchant known to the card" if one.known_merchant else "merchant new to the card"]
        parts += (
            [] if one.known_device is None else ["device known to the card" if one.known_device else "device new to the card"]
        )
        lines.append(f"- {_before(alert, paid.event_time)}: {', '.join(parts)}")
    return lines


def _other(alert: Alert, other: Alert) -> str:
    paid, probability = other.transaction, other.decision.probability
    parts = [_WORDS.value(money(paid.amount, paid.currency)), category_name(paid.mcc)]
    parts += [] if probability is None else [f"probability {_WORDS.value(share(probability))}"]
    return f"- {_before(alert, paid.event_time)}: {', '.join(parts)}"


def _before(alert: Alert, event_time: int) -> str:
    return f"{_WORDS.value(seconds((alert.transaction.event_time - event_time) / 1000))} before"


def _explained(explanation: Explanation) -> list[str]:
    facts = {fact.fact_id: fact for fact in explanation.facts}
    lines = [
        "Why the model gave this score (log-odds, above zero for fraud; all points and the starting point sum to the score):"
    ]
    for reason in explanation.themes:
        without = _WORDS.value(share(reason.probability_without))
        lines.append(f"- {reason.contribution:+.2f} {_WORDS.theme(reason)} (without it the probability would be {without})")
        lines += [f"    {_WORDS.sentence(facts[one])} {_WORDS.contrast(facts[one])}" for one in reason.facts]
    habits = [fact for fact in explanation.facts if fact.fact_id.startswith("H")]
    lines += ["", "Habits and history:", *(f"- {_WORDS.sentence(fact)}" for fact in habits)]
    cases = [fact for fact in explanation.facts if fact.subject is Subject.CASES]
    lines += ["", "Similar closed cases:", *(f"- {_WORDS.sentence(fact)}" for fact in cases)]
    other = [
        fact
        for fact in explanation.facts
        if fact.kind in ("novel", "rule", "missing", "payment-recent") or fact.kind.startswith("doubt-")
    ]
    lines += [f"- {_WORDS.sentence(fact)}" for fact in other]
    return [*lines, "", "In words:", " ".join(_WORDS.claim(claim, facts) for claim in explanation.narrative)]


class Case(Struct, frozen=True):
    """An alert to judge, with its explanation and whether the alert is fraud."""

    alert: Alert
    explanation: Explanation
    fraud: bool


def judge(
    llm: "LLM",
    cases: Sequence[Case],
    history: History | None = None,
    concurrency: int = 4,
    progress: Callable[[str, int], None] = lambda name, done: None,
) -> list[Judged]:
    """
    Let a model judge cases under each condition, with ``concurrency`` requests at once.

    ``progress`` is called with the name of the current run and the number of cases done.
    """
    return [asyncio.run(_judged(llm, cases, condition, history, concurrency, progress)) for condition in Condition]


async def _judged(
    llm: "LLM",
    cases: Sequence[Case],
    condition: Condition,
    history: History | None,
    concurrency: int,
    progress: Callable[[str, int], None],
) -> Judged:
    name = f"{llm.metadata.model_name} · {condition}"
    places = asyncio.Semaphore(concurrency)
    done = 0
    progress(name, 0)

    async def one(case: Case) -> _Judgement:
        nonlocal done
        others = [other.alert for other in cases if _is_before(other.alert, case.alert)]
        explanation = case.explanation if condition is Condition.EXPLAINED else None
        text = judge_sheet(case.alert, explanation, history, others)
        async with places:
            begin = time.perf_counter()
            probability = await _probability(llm, text)
            taken = time.perf_counter() - begin
        done += 1
        progress(name, done)
        return _Judgement(probability, case.fraud, taken)

    judgements = await asyncio.gather(*(one(case) for case in cases))
    given = [(one.probability, one.fraud) for one in judgements if one.probability is not None]
    auc = brier = math.nan
    if len({fraud for _, fraud in given}) == 2:
        probabilities, frauds = zip(*given, strict=True)
        auc, brier = float(roc_auc_score(frauds, probabilities)), float(brier_score_loss(frauds, probabilities))
    seconds = float(np.median([one.seconds for one in judgements] or [0.0]))
    return Judged(llm.metadata.model_name, condition, len(cases), len(given), auc, brier, seconds)


class _Judgement(Struct, frozen=True):
    probability: float | None
    fraud: bool
    seconds: float


def _is_before(other: Alert, alert: Alert) -> bool:
    """Return whether ``other`` is an earlier alert of the same card."""
    one, this = other.transaction, alert.transaction
    return one.card_id == this.card_id and one.event_time < this.event_time


async def _probability(llm: "LLM", text: str) -> float | None:
    """Return a model's fraud probability for a sheet, or None if the request fails or the answer is unreadable."""
    try:
        answer = (await llm.acomplete(prompt(JUDGE).filled(text))).text
        return msgspec.json.decode(json_object(answer), type=_Answer).probability
    except Exception:  # after any failure of the server, this alert has no judgement
        return None
