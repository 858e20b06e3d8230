"""
Every sentence of a narrative is checked against the evidence it names; what fails is replaced by the template's words.

A sentence passes if it names evidence that exists; if each number, date and case id in it stands in that evidence; if it does
not say the opposite of its evidence's direction; and if it is short, plain text.
"""

import re

from core.messages import EvidenceItem, Sentence, Verification
from explain.narrator import PARTS, Claim, Facts, Narrative, template_claims

_LONGEST = 400  # characters of a sentence
_NUMBER = re.compile(r"\d+(?:[.,:\-]\d+)*")
_CASE = re.compile(r"\bal_[0-9a-f]+\b")
_MARKUP = re.compile(r"[<>{}\[\]`]|https?:|www\.")
_WORD_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
        ]
    )
} | {"twice": "2", "double": "2", "triple": "3", "half": "0.5", "dozen": "12", "hundred": "100", "thousand": "1000"}
_FOR = re.compile(
    r"\b(?:speaks? for|points? to|suggests?|raises?|increases?|supports?|adds? to)\b.{0,40}\b(?:fraud|risk|score|suspicion)", re.I
)
_AGAINST = re.compile(
    r"\bagainst fraud\b|\b(?:lowers?|reduces?|decreases?)\b.{0,40}\b(?:fraud|risk|score|suspicion)|\bspeaks? against\b|\breassuring\b",
    re.I,
)
_SCORE_WORDS = re.compile(r"\b(?:approve|decline|block|release|certain(?:ly)?|definitely|guilty|proven?)\w*\b", re.I)


def _numbers(text: str) -> set[str]:
    """Numbers in a text, without thousands separators and trailing zeros; number words count."""
    found = set()
    for number in _NUMBER.findall(text):
        plain = number.replace(",", "")
        try:
            found.add(f"{float(plain):.6g}")
        except ValueError:
            found.add(plain)  # a date or a time
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _WORD_NUMBERS and word != "one":  # "this one" is no number
            found.add(f"{float(_WORD_NUMBERS[word]):.6g}")
    return found


def fault(claim: Claim, facts: Facts) -> str | None:
    """What is wrong with a sentence, None if nothing is."""
    by_id = {item.evidence_id: item for item in facts.evidence}
    if claim.part not in PARTS:
        return "unknown part"
    if not claim.text.strip() or len(claim.text) > _LONGEST or not claim.text.isprintable() or _MARKUP.search(claim.text):
        return "not short plain text"
    if not claim.evidence_ids or not set(claim.evidence_ids) <= by_id.keys():
        return "names no evidence, or evidence that does not exist"
    cited = [by_id[evidence_id] for evidence_id in claim.evidence_ids]
    allowed = " ".join(item.text for item in cited)
    if claim.part == "next_step":
        return None if claim.text.strip() == facts.suggestion else "not the suggested next step"
    text = _CASE.sub(" ", claim.text)
    if not set(_CASE.findall(claim.text)) <= set(_CASE.findall(allowed)):
        return "a case that is not in its evidence"
    if not _numbers(text) <= _numbers(allowed):
        return "a number that is not in its evidence"
    if _SCORE_WORDS.search(text) and not _SCORE_WORDS.search(allowed):
        return "a judgement that is not in its evidence"
    return _direction_fault(claim, cited)


def _direction_fault(claim: Claim, cited: list[EvidenceItem]) -> str | None:
    signs = {(item.contribution or 0) > 0 for item in cited if item.kind == "contribution"}
    says_for = bool(_FOR.search(claim.text)) or claim.part == "why_unusual"
    says_against = bool(_AGAINST.search(claim.text)) or claim.part == "speaks_against"
    if _AGAINST.search(claim.text) and claim.part == "why_unusual":
        says_for = False
    if says_for and not says_against and signs == {False}:
        return "a reason against fraud told as one for it"
    if says_against and signs == {True} and "None of" not in claim.text:
        return "a reason for fraud told as one against it"
    return None


def verified(narrative: Narrative, facts: Facts, writer: str, template: str) -> tuple[tuple[Sentence, ...], Verification]:
    """The narrative that may be shown: each part in the writer's words if all of its sentences pass, else in the template's."""
    fallback = template_claims(facts).sentences
    shown: list[Sentence] = []
    reasons: list[str] = []
    for part in PARTS:
        claims = [claim for claim in narrative.sentences if claim.part == part]
        faults = [found for claim in claims if (found := fault(claim, facts))]
        if claims and not faults:
            shown += [Sentence(text=claim.text.strip(), evidence_ids=claim.evidence_ids, written_by=writer) for claim in claims]
            continue
        usual = [claim for claim in fallback if claim.part == part]
        shown += [Sentence(text=claim.text, evidence_ids=claim.evidence_ids, written_by=template) for claim in usual]
        if usual or faults:
            reasons.append(f"{part}: {'; '.join(faults) if faults else 'missing'}")
    unknown = [claim for claim in narrative.sentences if claim.part not in PARTS]
    reasons += [f"{claim.part[:40]}: unknown part" for claim in unknown]
    return tuple(shown), Verification(checked=len(narrative.sentences), replaced=len(reasons), reasons=tuple(reasons))
