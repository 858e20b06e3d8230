"""Read explanations that were stored in an earlier version of the message format."""

from typing import Any

import msgspec
from msgspec import Struct

from core.messages import (
    Claim,
    Explanation,
    Fact,
    Form,
    LikelyTypology,
    Mention,
    Part,
    Side,
    SimilarCase,
    Subject,
    Verification,
    decode_explanation,
)
from explain.facts.values import text


class _Evidence(Struct):
    evidence_id: str
    text: str
    contribution: float | None = None


class _Sentence(Struct):
    text: str
    written_by: str
    part: str = ""


class _VersionOne(Struct):
    """Version 1 of the message, with English sentences instead of facts and claims."""

    alert_id: str
    transaction_id: str
    evidence: tuple[_Evidence, ...]
    reasons: tuple[str, ...]
    similar_cases: tuple[dict[str, Any], ...]
    narrative: tuple[_Sentence, ...]
    verification: Verification
    suggestion: str
    bundle: str
    narrator: str
    prompt: str
    index: str
    typology: LikelyTypology | None = None


class _Version(Struct):
    v: int = 1


def stored_explanation(raw: bytes) -> Explanation:
    """
    Decode a stored explanation of any version. Each sentence of version 1 becomes a fact that is shown unchanged, in English.

    Raises:
        msgspec.MsgspecError: if the version is unknown or the message is invalid.
    """
    if msgspec.json.decode(raw, type=_Version).v != 1:
        return decode_explanation(raw)
    old = msgspec.json.decode(raw, type=_VersionOne)
    sentences = [_fact(f"W{number}", sentence.text, None) for number, sentence in enumerate(old.narrative, start=1)]
    parts = [part.value for part in Part]
    return Explanation(
        alert_id=old.alert_id,
        transaction_id=old.transaction_id,
        facts=(
            *(_fact(item.evidence_id, item.text, item.contribution) for item in old.evidence),
            *sentences,
            Fact("N1", "step", Subject.TRANSACTION, {"text": text(old.suggestion)}),
        ),
        reasons=old.reasons,
        similar_cases=tuple(_case(case) for case in old.similar_cases),
        narrative=tuple(
            Claim(
                Part(sentence.part) if sentence.part in parts else Part.WHAT_HAPPENED,
                (Mention(fact.fact_id, Form.CLAUSE),),
                written_by=sentence.written_by,
            )
            for sentence, fact in zip(old.narrative, sentences, strict=True)
        ),
        verification=old.verification,
        bundle=old.bundle,
        narrator=old.narrator,
        prompt=old.prompt,
        index=old.index,
        typology=old.typology,
    )


def _fact(fact_id: str, words: str, contribution: float | None) -> Fact:
    side = Side.NEITHER if not contribution else Side.FRAUD if contribution > 0 else Side.LEGITIMATE
    return Fact(fact_id, "earlier", Subject.TRANSACTION, {"text": text(words)}, side, contribution=contribution)


def _case(case: dict[str, Any]) -> SimilarCase:
    """Convert a similar case without its differences, which were sentences in version 1."""
    return msgspec.convert({name: value for name, value in case.items() if name != "differences"}, SimilarCase)
