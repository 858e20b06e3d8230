"""
What is said about an alert: five parts of claims, each naming its evidence, in 120 words.

The template words them by default and stands behind LlamaIndex's LLM interface like any other narrator. A narrator words facts;
it never chooses a score, an outcome, a reason or a case.
"""

from typing import Any, Final

import msgspec
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from msgspec import Struct

from core.messages import EvidenceItem

TEMPLATE: Final = "template-2"
PARTS: Final = ("what_happened", "why_unusual", "similar_cases", "speaks_against", "next_step")
BUDGET: Final = 120  # words
_LONGEST_ANSWER = 20_000  # characters; a narrative has 120 words


class Facts(Struct, frozen=True):
    """What a narrator is given: no field of the transaction, only evidence that was worded by us."""

    evidence: tuple[EvidenceItem, ...]
    suggestion: str


class Claim(Struct, frozen=True):
    """One sentence as a narrator proposes it."""

    part: str
    text: str
    evidence_ids: tuple[str, ...]


class Narrative(Struct, frozen=True):
    """A narrator's answer."""

    sentences: tuple[Claim, ...]


def parse(answer: str) -> Narrative:
    """
    A narrator's answer, from the JSON object in it.

    Raises:
        ValueError: if there is none of the right form.
    """
    if len(answer) > _LONGEST_ANSWER:
        raise ValueError("the answer is too long")
    begin, end = answer.find("{"), answer.rfind("}")
    if begin < 0 or end < begin:
        raise ValueError("the answer holds no JSON object")
    try:
        return msgspec.json.decode(answer[begin : end + 1], type=Narrative)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(f"the answer is not a narrative: {error}") from None


def of_kind(facts: Facts, *kinds: str) -> list[EvidenceItem]:
    """The items of some kinds, in their order; contributions have the strongest first."""
    return [item for item in facts.evidence if item.kind in kinds]


def _signed(facts: Facts, sign: int) -> list[EvidenceItem]:
    return [item for item in of_kind(facts, "contribution") if sign * (item.contribution or 0) > 0]


def required(facts: Facts) -> set[str]:
    """The ids of the evidence that every narrative tells: what, the score, the strongest on both sides, the similar cases."""
    ids = [item.evidence_id for item in of_kind(facts, "timeline", "score", "cases", "hostile")]
    ids += [item.evidence_id for item in (*_signed(facts, +1)[:1], *(_signed(facts, -1)[:1] or of_kind(facts, "balance")))]
    return set(ids)


def template_claims(facts: Facts) -> Narrative:
    """The five parts in fixed words, right by construction: each sentence is its evidence's own text."""
    claims = [
        Claim("what_happened", item.text, (item.evidence_id,)) for item in (*of_kind(facts, "timeline"), *of_kind(facts, "score"))
    ]
    unusual = (*_signed(facts, +1)[:3], *of_kind(facts, "hostile", "rule", "novelty"))
    claims += [Claim("why_unusual", item.text, (item.evidence_id,)) for item in unusual]
    claims += [Claim("similar_cases", item.text, (item.evidence_id,)) for item in of_kind(facts, "cases")]
    against = _signed(facts, -1)[:2]
    claims += [Claim("speaks_against", f"Against fraud: {item.text}", (item.evidence_id,)) for item in against]
    if not against:
        claims += [Claim("speaks_against", item.text, (item.evidence_id,)) for item in of_kind(facts, "balance")]
    claims.append(Claim("next_step", facts.suggestion, (facts.evidence[0].evidence_id,)))
    kept = budgeted([(claim, TEMPLATE) for claim in claims], facts, BUDGET)
    return Narrative(tuple(claim for claim, _ in kept))


def budgeted(claims: list[tuple[Claim, str]], facts: Facts, words: int) -> list[tuple[Claim, str]]:
    """
    As many of the claims as fit into a number of words, in their order.

    What every narrative tells stays; of the rest the last of the longest part goes first.
    """
    needed, kept = required(facts), list(claims)
    while sum(len(claim.text.split()) for claim, _ in kept) > words:
        spare: list[tuple[int, int]] = []
        for number, (claim, _) in enumerate(kept):
            others = {evidence_id for other, _ in kept if other is not claim for evidence_id in other.evidence_ids}
            alone = set(claim.evidence_ids) & needed - others
            if claim.part != "next_step" and not alone and sum(other.part == claim.part for other, _ in kept) > 1:
                spare.append((sum(other.part == claim.part for other, _ in kept[:number]), number))
        if not spare:
            break
        del kept[max(spare)[1]]
    return kept


class TemplateNarrator(CustomLLM):
    """A language model that is none: it reads the facts out of the prompt and words them by template."""

    @property
    def metadata(self) -> LLMMetadata:
        """Its name; it has no limits worth naming."""
        return LLMMetadata(model_name=TEMPLATE)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The template's narrative of the facts between the prompt's markers, as JSON."""
        lines = prompt.rstrip("\n").split("\n")
        facts = msgspec.json.decode("\n".join(lines[lines.index(lines[-1], len(lines) // 2) + 1 : -1]), type=Facts)
        return CompletionResponse(text=msgspec.json.encode(template_claims(facts)).decode())

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The same in one piece."""
        yield self.complete(prompt)
