"""
What a language model and a prompt are worth: the same alerts explained by several of them, and their words measured.

Measured before any sentence is replaced: how many of the model's sentences are faithful and what is wrong with the others, whether
they tell the strongest contributions, how long and how readable they are, how long and how dear they were, and how much of what is
shown would be the template's.
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

from core.settings import Settings
from explain.explainer import Explainer
from explain.llm import LanguageModelError, Narrators, Usage, language_model
from explain.narrator import BUDGET, TEMPLATE, Claim, Facts, Narrative, template_claims
from explain.verification import check, verified

if TYPE_CHECKING:
    from core.messages import Alert, Explanation

# the words of a fault, grouped: what a team has to know of its model
KINDS: Final = (
    ("number, date or case", re.compile(r"is not what its evidence says")),
    ("added claim", re.compile(r"says more|which its evidence does not")),
    ("direction or rank", re.compile(r"told as one|another rank|rank that|takes a side|part$|unknown part")),
    ("comparison", re.compile(r"compar")),
    ("negation or outcome", re.compile(r"negation|opposite|outcome|of the cases")),
    ("card and merchant", re.compile(r"merchant|card")),
    ("judgement", re.compile(r"judgement")),
    ("evidence ids", re.compile(r"names no evidence")),
    ("next step", re.compile(r"next step")),
    ("form", re.compile(r"plain text")),
)


class Result(Struct, frozen=True):
    """What one model with one prompt did: shares in 0..1, seconds, words; ``faults`` by kind; ``examples`` of refused sentences."""

    model: str
    prompt: str
    alerts: int
    answered: int
    sentences: int
    faithful: float
    faults: dict[str, int]
    complete: float
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


def kind_of(fault: str) -> str:
    """The group of a fault."""
    return next((name for name, words in KINDS if words.search(fault)), "other")


def evaluate(
    explainer: Explainer,
    alerts: "Sequence[Alert]",
    models: Sequence[Settings],
    prompts: Sequence[str],
    told: Callable[[str, int], None] = lambda name, done: None,
) -> list[Result]:
    """
    Explain the alerts by the template, and by each model with each prompt. ``told`` hears what is under way and how far.

    Raises:
        SettingsError: if a model or a prompt cannot be used.
    """
    explanations = [explainer.explain(alert) for alert in alerts]
    results = [_template(explanations)]
    results += [
        asyncio.run(_measured(structs.replace(settings, llm_prompt=version), explanations, told))
        for settings in models
        for version in prompts
    ]
    return results


async def _measured(settings: Settings, explanations: "list[Explanation]", told: Callable[[str, int], None]) -> Result:
    llm = language_model(settings)
    assert llm is not None
    narrators = Narrators(llm, settings)
    name = f"{narrators.name} · {narrators.prompt.version}"
    places = asyncio.Semaphore(settings.llm_concurrency)  # what waits for a place here is not late
    done = 0
    told(name, 0)

    async def one(explanation: "Explanation") -> tuple[Narrative | None, float]:
        nonlocal done
        async with places:
            begin = time.perf_counter()
            try:
                narrative: Narrative | None = await narrators.narrative(Facts(explanation.evidence, explanation.suggestion))
            except LanguageModelError:
                narrative = None
            seconds = time.perf_counter() - begin
        done += 1
        told(name, done)
        return narrative, seconds

    answers = await asyncio.gather(*(one(explanation) for explanation in explanations))
    return _result(narrators.name, narrators.prompt.version, explanations, answers, narrators.usage)


def _template(explanations: "list[Explanation]") -> Result:
    answers: list[tuple[Narrative | None, float]] = []
    for explanation in explanations:
        begin = time.perf_counter()
        narrative = template_claims(Facts(explanation.evidence, explanation.suggestion))
        answers.append((narrative, time.perf_counter() - begin))
    return _result(TEMPLATE, "none", explanations, answers, Usage())


def _result(
    model: str, version: str, explanations: "list[Explanation]", answers: Sequence[tuple[Narrative | None, float]], usage: Usage
) -> Result:
    faults: Counter[str] = Counter()
    examples: list[tuple[str, str]] = []
    sentences = passed = told = wanted = shown = own = untouched = 0
    lengths, eases = [], []
    for explanation, (narrative, _) in zip(explanations, answers, strict=True):
        facts = Facts(explanation.evidence, explanation.suggestion)
        checked = check(narrative, facts) if narrative else []
        good = [claim for claim, fault in checked if fault is None]
        for claim, fault in checked:
            if fault is not None:
                faults[kind_of(fault)] += 1
                examples.append((claim.text[:200], fault))
        sentences, passed = sentences + len(checked), passed + len(good)
        top = _top(explanation)
        wanted, told = wanted + len(top), told + len(top & {i for claim in good for i in claim.evidence_ids})
        if narrative:
            lengths.append(sum(len(claim.text.split()) for claim in narrative.sentences))
            eases.append(reading_ease(narrative.sentences))
        words, _checked = verified(narrative or Narrative(()), facts, model, TEMPLATE + "*")
        kept = sum(sentence.written_by == model for sentence in words)
        shown, own, untouched = shown + len(words), own + kept, untouched + (kept > 0)
    seconds = np.array([taken for _, taken in answers] or [0.0])
    answered = sum(narrative is not None for narrative, _ in answers)
    return Result(
        model=model,
        prompt=version,
        alerts=len(explanations),
        answered=answered,
        sentences=sentences,
        faithful=passed / max(sentences, 1),
        faults=dict(faults.most_common()),
        complete=told / max(wanted, 1),
        words=float(np.mean(lengths or [0])),
        over_budget=float(np.mean([length > BUDGET for length in lengths] or [False])),
        reading_ease=float(np.mean(eases or [0])),
        median_seconds=float(np.median(seconds)),
        p95_seconds=float(np.quantile(seconds, 0.95)),
        prompt_tokens=usage.prompt_tokens,
        answer_tokens=usage.answer_tokens,
        cost=usage.cost,
        fallback_alerts=1 - untouched / max(len(explanations), 1),
        fallback_sentences=1 - own / max(shown, 1),
        examples=tuple(examples[:12]),
    )


def _top(explanation: "Explanation") -> set[str]:
    """The two strongest contributions for fraud and the strongest against: what a complete narrative tells."""
    signed = [item for item in explanation.evidence if item.kind == "contribution"]
    return {i.evidence_id for i in [i for i in signed if (i.contribution or 0) > 0][:2]} | {
        i.evidence_id for i in [i for i in signed if (i.contribution or 0) < 0][:1]
    }


def reading_ease(claims: Sequence[Claim]) -> float:
    """Flesch's reading ease of some sentences; 60 to 70 is plain English. Syllables by Pyphen's hyphenation."""
    import pyphen

    hyphens = pyphen.Pyphen(lang="en_US")
    words = [word for claim in claims for word in re.findall(r"[A-Za-z']+", claim.text)]
    if not words:
        return 0.0
    count = sum(len(re.findall(r"[.!?](?:\s|$)", claim.text)) or 1 for claim in claims)
    syllables = sum(len(hyphens.inserted(word).split("-")) for word in words)
    return 206.835 - 1.015 * len(words) / count - 84.6 * syllables / len(words)


_COLUMNS: Final = (
    ("model", lambda r: r.model), ("prompt", lambda r: r.prompt), ("answered", lambda r: f"{r.answered} of {r.alerts}"),
    ("faithful", lambda r: f"{100 * r.faithful:.1f} %"), ("complete", lambda r: f"{100 * r.complete:.1f} %"),
    ("words", lambda r: f"{r.words:.0f}"), ("over 120", lambda r: f"{100 * r.over_budget:.0f} %"), ("ease", lambda r: f"{r.reading_ease:.0f}"),
    ("median s", lambda r: f"{r.median_seconds:.2f}"), ("p95 s", lambda r: f"{r.p95_seconds:.2f}"),
    ("tokens", lambda r: f"{r.prompt_tokens + r.answer_tokens:,}"), ("cost", lambda r: f"{r.cost:.4f}"),
    ("template's sentences", lambda r: f"{100 * r.fallback_sentences:.1f} %"), ("template's alerts", lambda r: f"{100 * r.fallback_alerts:.1f} %"),
)  # fmt: skip


def table(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows."""
    return [name for name, _ in _COLUMNS], [[of(result) for _, of in _COLUMNS] for result in results]


def page(results: Sequence[Result], made: str) -> str:
    """One self-contained page: the table, faults by kind, and refused sentences as they were."""
    from importlib import resources

    headings, rows = table(results)
    head = "".join(f"<th>{escape(name)}</th>" for name in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    kinds = [name for name, _ in KINDS] + ["other"]
    used = [kind for kind in kinds if any(kind in result.faults for result in results)]
    fault_head = "<th>model · prompt</th>" + "".join(f"<th>{escape(kind)}</th>" for kind in used)
    fault_body = "".join(
        f"<tr><td>{escape(f'{r.model} · {r.prompt}')}</td>{''.join(f'<td>{r.faults.get(kind, 0)}</td>' for kind in used)}</tr>"
        for r in results
    )
    refused = "".join(
        f"<h3>{escape(f'{r.model} · {r.prompt}')}</h3><ul>"
        + "".join(f"<li>“{escape(text)}”<br><small>{escape(fault)}</small></li>" for text, fault in r.examples)
        + "</ul>"
        for r in results
        if r.examples
    )
    text = resources.files("explain").joinpath("templates", "evaluation.html").read_text()
    return Template(text).substitute(
        made=escape(made), head=head, body=body, fault_head=fault_head, fault_body=fault_body, refused=refused or "<p>None.</p>"
    )


def as_json(results: Sequence[Result]) -> str:
    """The results, for a program."""
    return json.dumps([structs.asdict(result) for result in results], indent=2)
