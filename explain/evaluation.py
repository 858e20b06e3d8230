"""
Comparison of language models and prompts: several of them explain the same alerts, and their claims are measured.

Most measurements cover only the model's own sentences, before the template replaces refused ones: the share of accepted
sentences, the faults of refused sentences, the share of the score that accepted sentences cover, length, readability, time and
cost. The share of the final narrative that comes from the template is measured too.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from string import Template
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct, structs

from core.errors import LanguageModelError
from core.messages import Claim
from core.settings import Settings
from explain.claims import BUDGET, TEMPLATE, Checked, NarrativeSubject, Proposed, check, completed, template_claims
from explain.explainer import Explainer
from explain.narrators.client import language_model
from explain.narrators.service import NarratorService, Usage
from explain.words import ENGLISH, writer

if TYPE_CHECKING:
    from core.messages import Alert, Explanation


class Result(Struct, frozen=True):
    """
    The measurements of one model with one prompt.

    Shares are in [0, 1], times in seconds and lengths in words. ``faults`` counts refused sentences by kind; ``examples`` shows
    some of them. ``coverage`` is the share of the score that the accepted sentences cover: the absolute contributions of
    the themes that they mention, divided by the absolute contributions of all themes.
    """

    model: str
    prompt: str
    alerts: int
    answered: int
    sentences: int
    accepted: float
    faults: dict[str, int]
    coverage: float
    words: float
    over_budget: float
    reading_ease: float
    median_seconds: float
    p95_seconds: float
    prompt_tokens: int
    answer_tokens: int
    cost: float
    fallback_alerts: float
    fallback_sentences: float
    examples: tuple[tuple[str, str], ...] = ()


class _Answer(Struct, frozen=True):
    """A narrator's checked sentences about one alert (None without an answer), and the time that the answer took."""

    checked: list[Checked] | None
    seconds: float


def evaluate(
    explainer: Explainer,
    alerts: "Sequence[Alert]",
    models: Sequence[Settings],
    prompts: Sequence[str],
    progress: Callable[[str, int], None] = lambda name, done: None,
) -> list[Result]:
    """
    Explain the alerts with the template and with each model and prompt, and return the measurements.

    ``progress`` is called with the name of the current run and the number of alerts done.

    Raises:
        SettingsError: if a model or a prompt cannot be used.
    """
    explanations = [explainer.explain(alert) for alert in alerts]
    results = [_template(explanations)]
    results += [
        asyncio.run(_measured(structs.replace(settings, llm_prompt=version), explanations, progress))
        for settings in models
        for version in prompts
    ]
    return results


async def _measured(settings: Settings, explanations: "list[Explanation]", progress: Callable[[str, int], None]) -> Result:
    llm = language_model(settings)
    assert llm is not None
    narrators = NarratorService(llm, settings)
    name = f"{narrators.name} · {narrators.prompt.version}"
    places = asyncio.Semaphore(settings.llm_concurrency)  # waiting for a free place here is not measured as latency
    done = 0
    progress(name, 0)

    async def one(explanation: "Explanation") -> _Answer:
        nonlocal done
        subject = _subject(explanation)
        async with places:
            begin = time.perf_counter()
            try:
                proposed: list[Proposed | None] | None = await narrators.narrative(subject)
            except LanguageModelError:
                proposed = None
            seconds = time.perf_counter() - begin
        done += 1
        progress(name, done)
        return _Answer(None if proposed is None else check(proposed, subject, narrators.name), seconds)

    answers = await asyncio.gather(*(one(explanation) for explanation in explanations))
    return _result(narrators.name, narrators.prompt.version, explanations, answers, narrators.usage)


def _subject(explanation: "Explanation") -> NarrativeSubject:
    return NarrativeSubject(explanation.facts, explanation.themes)


def _template(explanations: "list[Explanation]") -> Result:
    answers = []
    for explanation in explanations:
        begin = time.perf_counter()
        claims = template_claims(_subject(explanation))
        taken = time.perf_counter() - begin
        answers.append(_Answer([Checked(Proposed(claim.part, ()), claim) for claim in claims], taken))
    return _result(TEMPLATE, "none", explanations, answers, Usage())


def _result(model: str, version: str, explanations: "list[Explanation]", answers: Sequence[_Answer], usage: Usage) -> Result:
    faults: Counter[str] = Counter()
    examples: list[tuple[str, str]] = []
    sentences = accepted = shown = own = with_own = 0
    covered, lengths, eases = [], [], []
    for explanation, answer in zip(explanations, answers, strict=True):
        checked = answer.checked or []
        claims = [one.claim for one in checked if one.claim]
        for one in checked:
            if one.fault is not None:
                faults[one.fault] += 1
                examples.append((json.dumps(structs.asdict(one.proposed))[:300], one.fault))
        sentences, accepted = sentences + len(checked), accepted + len(claims)
        covered.append(coverage(explanation, claims))
        if answer.checked is not None:
            rendered = _words(explanation, claims)
            lengths.append(sum(len(sentence.split()) for sentence in rendered))
            eases.append(reading_ease(rendered))
        whole = claims if model == TEMPLATE else completed(claims, _subject(explanation))
        kept = sum(claim.written_by == model for claim in whole)
        shown, own, with_own = shown + len(whole), own + kept, with_own + (kept > 0)
    seconds = np.array([answer.seconds for answer in answers] or [0.0])
    return Result(
        model=model,
        prompt=version,
        alerts=len(explanations),
        answered=sum(answer.checked is not None for answer in answers),
        sentences=sentences,
        accepted=accepted / max(sentences, 1),
        faults=dict(faults.most_common()),
        coverage=float(np.mean(covered or [0])),
        words=float(np.mean(lengths or [0])),
        over_budget=float(np.mean([length > BUDGET for length in lengths] or [False])),
        reading_ease=float(np.mean(eases or [0])),
        median_seconds=float(np.median(seconds)),
        p95_seconds=float(np.quantile(seconds, 0.95)),
        prompt_tokens=usage.prompt_tokens,
        answer_tokens=usage.answer_tokens,
        cost=usage.cost,
        fallback_alerts=1 - with_own / max(len(explanations), 1),
        fallback_sentences=1 - own / max(shown, 1),
        examples=tuple(examples[:12]),
    )


def _words(explanation: "Explanation", claims: Sequence[Claim]) -> list[str]:
    facts = {fact.fact_id: fact for fact in explanation.facts}
    return [writer(ENGLISH).claim(claim, facts) for claim in claims]


def coverage(explanation: "Explanation", claims: Sequence[Claim]) -> float:
    """
    Return the share of the score that claims cover.

    This is the sum of the absolute contributions of the themes that the claims mention, divided by the sum for all themes.
    """
    mentioned = {mention.fact_id for claim in claims for mention in claim.mentions}
    mentioned_themes = {fact.theme for fact in explanation.facts if fact.fact_id in mentioned and fact.theme}
    whole = sum(abs(reason.contribution) for reason in explanation.themes)
    return (
        sum(abs(reason.contribution) for reason in explanation.themes if reason.theme in mentioned_themes) / whole
        if whole
        else 1.0
    )


def reading_ease(sentences: Sequence[str]) -> float:
    """Return the Flesch reading ease of sentences; 60 to 70 is plain English. Pyphen's hyphenation counts the syllables."""
    import pyphen

    hyphens = pyphen.Pyphen(lang="en_US")
    words = [word for sentence in sentences for word in re.findall(r"[A-Za-z']+", sentence)]
    if not words:
        return 0.0
    count = sum(len(re.findall(r"[.!?](?:\s|$)", sentence)) or 1 for sentence in sentences)
    syllables = sum(len(hyphens.inserted(word).split("-")) for word in words)
    return 206.835 - 1.015 * len(words) / count - 84.6 * syllables / len(words)


_COLUMNS: Final = (
    ("model", lambda r: r.model), ("prompt", lambda r: r.prompt), ("answered", lambda r: f"{r.answered} of {r.alerts}"),
    ("accepted", lambda r: f"{100 * r.accepted:.1f} %"), ("coverage", lambda r: f"{100 * r.coverage:.1f} %"),
    ("words", lambda r: f"{r.words:.0f}"), ("over 120", lambda r: f"{100 * r.over_budget:.0f} %"), ("ease", lambda r: f"{r.reading_ease:.0f}"),
    ("median s", lambda r: f"{r.median_seconds:.2f}"), ("p95 s", lambda r: f"{r.p95_seconds:.2f}"),
    ("tokens", lambda r: f"{r.prompt_tokens + r.answer_tokens:,}"), ("cost", lambda r: f"{r.cost:.4f}"),
    ("template sentences", lambda r: f"{100 * r.fallback_sentences:.1f} %"),
    ("template-only alerts", lambda r: f"{100 * r.fallback_alerts:.1f} %"),
)  # fmt: skip


def table(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of the comparison."""
    return [name for name, _ in _COLUMNS], [[of(result) for _, of in _COLUMNS] for result in results]


def page(results: Sequence[Result], made: str) -> str:
    """Return a self-contained HTML page with the table, the faults by kind, and examples of refused sentences."""
    from importlib import resources

    headings, rows = table(results)
    head = "".join(f"<th>{escape(name)}</th>" for name in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    used = list(dict.fromkeys(kind for result in results for kind in result.faults))
    fault_head = "<th>model · prompt</th>" + "".join(f"<th>{escape(kind)}</th>" for kind in used)
    fault_body = "".join(
        f"<tr><td>{escape(f'{r.model} · {r.prompt}')}</td>{''.join(f'<td>{r.faults.get(kind, 0)}</td>' for kind in used)}</tr>"
        for r in results
    )
    refused = "".join(
        f"<h3>{escape(f'{r.model} · {r.prompt}')}</h3><ul>"
        + "".join(f"<li><code>{escape(text)}</code><br><small>{escape(fault)}</small></li>" for text, fault in r.examples)
        + "</ul>"
        for r in results
        if r.examples
    )
    text = resources.files("explain").joinpath("templates", "evaluation.html").read_text()
    return Template(text).substitute(
        made=escape(made), head=head, body=body, fault_head=fault_head, fault_body=fault_body, refused=refused or "<p>None.</p>"
    )


def as_json(results: Sequence[Result]) -> str:
    """Return the results as JSON."""
    return json.dumps([structs.asdict(result) for result in results], indent=2)
