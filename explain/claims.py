"""
Claims: the sentences that a narrator may write about an alert, and the check that accepts or refuses them.

A narrator arranges facts and writes none itself. Each sentence lists facts, each in one of its forms, with an opening and a
joiner from closed lists. The JSON Schema for an alert admits only the alert's own facts, in the parts where they belong.
``check`` validates every answer again, whatever its source.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from core.messages import Claim, Fact, Form, Joiner, Mention, Opening, Part, Side, ThemeReason
from explain.words import ENGLISH, RANKED, writer

TEMPLATE: Final = "template-3"
BUDGET: Final = 120  # maximum number of words of a narrative in English
_FACTS_OF_A_SENTENCE: Final = 3
_SENTENCES: Final = 20  # maximum number of sentences read from an answer
_LONGEST_ANSWER: Final = 20_000  # maximum characters; a narrative has a few hundred
_REASONS: Final = 3  # maximum number of themes that the template names on each side

_PAYMENT_KINDS: Final = frozenset(
    {
        "payment",
        "payment-first",
        "payment-recent",
        "score",
        "score-few",
        "score-elsewhere",
        "unscored",
        "doubt-late",
        "doubt-reused",
        "doubt-currency",
        "other-bundle",
        "missing",
    }
)
_CASE_KINDS: Final = frozenset(
    {"cases", "cases-none", "cases-not-searched", "cases-contradict", "case", "case-shared", "typology", "typology-fitted"}
)
_BALANCE_KINDS: Final = frozenset({"balance", "balance-one-sided"})
# a fact of these kinds may describe the card's usual behaviour (``is_usual``); if it supports fraud, it describes a deviation
_HABITS: Final = frozenset(
    {
        "habit-amount",
        "habit-hours",
        "habit-channel",
        "habit-category",
        "habit-place",
        "habit-merchant",
        "habit-merchant-largest",
        "device-known",
    }
)
_OPENINGS: Final = {
    Part.WHAT_HAPPENED: (Opening.NONE, Opening.ALSO, Opening.USUAL),
    Part.WHY_UNUSUAL: (
        Opening.NONE,
        Opening.ALSO,
        Opening.FOR_FRAUD,
        Opening.STRONGEST_FOR_FRAUD,
        Opening.USUAL,
    ),
    Part.SIMILAR_CASES: (Opening.NONE, Opening.ALSO, Opening.FOR_FRAUD, Opening.AGAINST_FRAUD),
    Part.SPEAKS_AGAINST: (
        Opening.NONE,
        Opening.ALSO,
        Opening.AGAINST_FRAUD,
        Opening.STRONGEST_AGAINST_FRAUD,
        Opening.USUAL,
    ),
    Part.NEXT_STEP: (Opening.NONE,),
}


class Fault(StrEnum):
    """The reason why a sentence was refused."""

    UNREADABLE = "malformed sentence"
    UNKNOWN_PART = "unknown part"
    UNKNOWN_FACT = "unknown fact"
    UNKNOWN_FORM = "form not available for the fact"
    UNKNOWN_WORD = "opening or joiner not in the list"
    MIXED_FORMS = "clauses mixed with noun phrases"
    NO_CLAUSE = "noun phrase without a suitable opening"
    LOST_CONTRAST = "contrast not directly after its fact"
    WRONG_PART = "fact in the wrong part"
    WRONG_SIDE = "opening that does not match its facts"
    WRONG_RANK = "“strongest” repeated or unjustified"
    NO_OPPOSITION = "“but” without facts of opposite sides"
    TOO_MANY = "too many facts in a sentence"
    REPEATED = "repeated fact"
    TOO_LATE = "too many sentences"


class NarrativeSubject(Struct, frozen=True):
    """The subject of a narrative: the facts of an alert, and the alert's themes, strongest first."""

    facts: tuple[Fact, ...]
    themes: tuple[ThemeReason, ...] = ()

    def strongest(self, side: Side) -> str | None:
        """Return the strongest theme that supports a side, or None."""
        return next((reason.theme for reason in self.supporting(side)), None)

    def supporting(self, side: Side) -> list[ThemeReason]:
        """Return the themes that support a side, strongest first."""
        sign = 1 if side is Side.FRAUD else -1
        return [reason for reason in self.themes if sign * reason.contribution > 0]

    def leading(self, side: Side) -> set[str]:
        """Return the ids of the facts that may represent a side's strongest theme: its theme fact and its most telling value."""
        theme = self.strongest(side)
        values = next((reason.facts[:1] for reason in self.themes if reason.theme == theme), ())
        return {*values, *(fact.fact_id for fact in self.facts if fact.kind == "theme" and fact.theme == theme)}


class Proposed(Struct, frozen=True):
    """A sentence that a narrator proposes. ``facts`` are references such as ``F1.clause``."""

    part: str
    facts: tuple[str, ...]
    opening: str = Opening.NONE.value
    joiner: str = Joiner.AND.value


class Checked(Struct, frozen=True):
    """A proposed sentence with its claim, or with the fault for which it was refused."""

    proposed: Proposed
    claim: Claim | None
    fault: Fault | None = None


class _Answer(Struct, frozen=True):
    sentences: tuple[Any, ...]


def part_of(fact: Fact) -> tuple[Part, ...]:
    """Return the parts of a narrative in which a fact may appear."""
    if fact.kind in _PAYMENT_KINDS:
        return (Part.WHAT_HAPPENED,)
    if fact.kind in _CASE_KINDS:
        return (Part.SIMILAR_CASES,)
    if fact.kind == "step":
        return (Part.NEXT_STEP,)
    if fact.kind in _BALANCE_KINDS:
        return (Part.SPEAKS_AGAINST,)
    if fact.side is Side.FRAUD or fact.kind == "novel":
        return (Part.WHY_UNUSUAL,)
    if fact.side is Side.LEGITIMATE:
        return (Part.SPEAKS_AGAINST,)
    return (Part.WHAT_HAPPENED,)


def is_usual(fact: Fact, form: Form) -> bool:
    """
    Return whether a fact, if written in the given form, describes only the card's usual behaviour.

    The clause of ``habit-amount`` also ranks this payment's amount, so only the short form of that fact counts as usual.
    """
    if fact.kind == "habit-amount":
        return form is Form.SHORT
    return fact.kind in _HABITS and fact.side is Side.LEGITIMATE


def forms_of(fact: Fact) -> tuple[Form, ...]:
    """Return the available forms of a fact. A theme has no short form, because its bare name could be mistaken for an event."""
    if fact.kind == "theme":
        return (Form.CLAUSE,)
    return (Form.CLAUSE, Form.SHORT, Form.CONTRAST) if fact.contrast else (Form.CLAUSE, Form.SHORT)


def schema(subject: NarrativeSubject) -> dict[str, Any]:
    """Return the JSON Schema of an answer about an alert. Each part admits only its own facts, in their available forms."""
    variants = []
    for part in Part:
        references = [f"{fact.fact_id}.{form}" for fact in subject.facts if part in part_of(fact) for form in forms_of(fact)]
        if references:
            variants.append(_sentence_schema(part, references))
    return {
        "type": "object",
        "properties": {"sentences": {"type": "array", "items": {"anyOf": variants}}},
        "required": ["sentences"],
        "additionalProperties": False,
    }


def _sentence_schema(part: Part, references: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "part": {"type": "string", "enum": [part.value]},
            "opening": {"type": "string", "enum": [one.value for one in _OPENINGS[part]]},
            "facts": {"type": "array", "items": {"type": "string", "enum": references}},
            "joiner": {"type": "string", "enum": [one.value for one in Joiner]},
        },
        "required": ["part", "opening", "facts", "joiner"],
        "additionalProperties": False,
    }


def json_object(answer: str) -> str:
    """
    Return the JSON object in an answer, without the text around it.

    Raises:
        ValueError: if the answer is too long or contains no JSON object.
    """
    if len(answer) > _LONGEST_ANSWER:
        raise ValueError("the answer is too long")
    begin, end = answer.find("{"), answer.rfind("}")
    if begin < 0 or end < begin:
        raise ValueError("the answer contains no JSON object")
    return answer[begin : end + 1]


def parse(answer: str) -> list[Proposed | None]:
    """
    Return the sentences in an answer's JSON object, with None for each malformed sentence.

    Raises:
        ValueError: if the answer contains no such object.
    """
    found = json_object(answer)
    try:
        sentences = msgspec.json.decode(found, type=_Answer).sentences
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"the answer is not a valid narrative: {error}") from None
    return [_proposed(sentence) for sentence in sentences]


def _proposed(sentence: Any) -> Proposed | None:
    try:
        return msgspec.convert(sentence, Proposed)
    except (msgspec.ValidationError, RecursionError):
        return None


def check(proposed: Sequence[Proposed | None], subject: NarrativeSubject, written_by: str) -> list[Checked]:
    """Check the proposed sentences in order, and return each with its claim or its fault."""
    facts = {fact.fact_id: fact for fact in subject.facts}
    mentioned_before: set[str] = set()
    checked = []
    for number, sentence in enumerate(proposed):
        if sentence is None:
            found: Claim | Fault = Fault.UNREADABLE
        elif number >= _SENTENCES:
            found = Fault.TOO_LATE
        else:
            found = _claim(sentence, facts, subject, mentioned_before, written_by)
        shown = sentence or Proposed("", ())
        if isinstance(found, Fault):
            checked.append(Checked(shown, None, found))
        else:
            mentioned_before |= {mention.fact_id for mention in found.mentions} | (
                {found.opening} if found.opening in RANKED else set()
            )
            checked.append(Checked(shown, found))
    return checked


def _claim(
    sentence: Proposed, facts: dict[str, Fact], subject: NarrativeSubject, mentioned_before: set[str], written_by: str
) -> Claim | Fault:
    try:
        part = Part(sentence.part)
    except ValueError:
        return Fault.UNKNOWN_PART
    try:
        opening, joiner = Opening(sentence.opening), Joiner(sentence.joiner)
    except ValueError:
        return Fault.UNKNOWN_WORD
    mentions = _mentions(sentence.facts, facts)
    if isinstance(mentions, Fault):
        return mentions
    claim = Claim(part, mentions, opening, joiner, written_by)
    return _shape_fault(claim) or _meaning_fault(claim, facts, subject, mentioned_before) or claim


def _mentions(references: Iterable[str], facts: dict[str, Fact]) -> tuple[Mention, ...] | Fault:
    mentions = []
    for reference in references:
        fact_id, _, form = reference.partition(".")
        if fact_id not in facts:
            return Fault.UNKNOWN_FACT
        if form not in forms_of(facts[fact_id]):
            return Fault.UNKNOWN_FORM
        mentions.append(Mention(fact_id, Form(form)))
    return tuple(mentions)


def _shape_fault(claim: Claim) -> Fault | None:
    """Return the fault in the structure of a sentence, or None."""
    mentioned = [mention for mention in claim.mentions if mention.form is not Form.CONTRAST]
    if not mentioned:
        return Fault.LOST_CONTRAST if claim.mentions else Fault.UNREADABLE
    if len(mentioned) > _FACTS_OF_A_SENTENCE:
        return Fault.TOO_MANY
    forms = {mention.form for mention in mentioned}
    if len(forms) > 1:
        return Fault.MIXED_FORMS
    if forms == {Form.SHORT} and claim.opening in (Opening.NONE, Opening.ALSO):
        return Fault.NO_CLAUSE
    before = None
    for mention in claim.mentions:
        if mention.form is Form.CONTRAST and (
            before is None or before.form is Form.CONTRAST or before.fact_id != mention.fact_id
        ):
            return Fault.LOST_CONTRAST
        before = mention
    if len({mention.fact_id for mention in mentioned}) < len(mentioned):
        return Fault.REPEATED
    return None


_SIDES: Final = {
    Opening.FOR_FRAUD: Side.FRAUD,
    Opening.STRONGEST_FOR_FRAUD: Side.FRAUD,
    Opening.AGAINST_FRAUD: Side.LEGITIMATE,
    Opening.STRONGEST_AGAINST_FRAUD: Side.LEGITIMATE,
}


def _meaning_fault(claim: Claim, facts: dict[str, Fact], subject: NarrativeSubject, mentioned_before: set[str]) -> Fault | None:
    """Return the fault in what a sentence says, such as facts of the wrong side, or None."""
    mentions = [mention for mention in claim.mentions if mention.form is not Form.CONTRAST]
    used = [facts[mention.fact_id] for mention in mentions]
    if any(fact.fact_id in mentioned_before for fact in used):
        return Fault.REPEATED
    if any(claim.part not in part_of(fact) for fact in used):
        return Fault.WRONG_PART
    if claim.opening in _SIDES and any(fact.side is not _SIDES[claim.opening] for fact in used):
        return Fault.WRONG_SIDE
    if claim.opening is Opening.USUAL and not all(is_usual(facts[one.fact_id], one.form) for one in mentions):
        return Fault.WRONG_SIDE
    if claim.opening in RANKED:
        if claim.opening in mentioned_before or len(used) > 1 or used[0].fact_id not in subject.leading(_SIDES[claim.opening]):
            return Fault.WRONG_RANK
    if claim.joiner is Joiner.BUT and sorted(fact.side for fact in used) != [Side.FRAUD, Side.LEGITIMATE]:
        return Fault.NO_OPPOSITION
    if claim.part is Part.NEXT_STEP and (len(used) > 1 or claim.opening is not Opening.NONE):
        return Fault.WRONG_PART
    return None


def template_claims(subject: NarrativeSubject) -> tuple[Claim, ...]:
    """Return the template's claims for the five parts, within the word budget."""
    claims = [
        *_each(Part.WHAT_HAPPENED, _of(subject, "payment")),
        *_each(Part.WHAT_HAPPENED, [fact for fact in subject.facts if fact.kind in _PAYMENT_KINDS - {"payment"}]),
        *_reasons(subject, Side.FRAUD, Part.WHY_UNUSUAL, Opening.STRONGEST_FOR_FRAUD),
        *_each(Part.WHY_UNUSUAL, _of(subject, "rule", "novel")),
        *_each(
            Part.SIMILAR_CASES,
            _of(subject, "cases", "cases-none", "cases-not-searched", "cases-contradict", "typology", "typology-fitted"),
        ),
        *_reasons(subject, Side.LEGITIMATE, Part.SPEAKS_AGAINST, Opening.STRONGEST_AGAINST_FRAUD),
    ]
    if not any(claim.part is Part.SPEAKS_AGAINST for claim in claims):
        claims += _each(Part.SPEAKS_AGAINST, _of(subject, *_BALANCE_KINDS))
    claims += _each(Part.NEXT_STEP, _of(subject, "step"))
    return budgeted(claims, subject)


def _of(subject: NarrativeSubject, *kinds: str) -> list[Fact]:
    return [fact for fact in subject.facts if fact.kind in kinds]


def _each(part: Part, facts: Iterable[Fact]) -> list[Claim]:
    return [Claim(part, (Mention(fact.fact_id, Form.CLAUSE),), written_by=TEMPLATE) for fact in facts]


def _reasons(subject: NarrativeSubject, side: Side, part: Part, opening: Opening) -> list[Claim]:
    """
    Return claims for the strongest themes of a side, the first with its contrast.

    Each theme is represented by its most telling value, or by the theme's own fact if it has no value.
    """
    leading = [_leading(subject, reason) for reason in subject.supporting(side)[:_REASONS]]
    claims = []
    for rank, fact in enumerate(leading):
        mentions = [Mention(fact.fact_id, Form.CLAUSE)]
        if rank == 0 and fact.contrast:
            mentions.append(Mention(fact.fact_id, Form.CONTRAST))
        claims.append(Claim(part, tuple(mentions), opening if rank == 0 else Opening.NONE, written_by=TEMPLATE))
    return claims


def _leading(subject: NarrativeSubject, reason: ThemeReason) -> Fact:
    own = [fact for fact in subject.facts if fact.theme == reason.theme]
    return next((fact for fact in own if fact.fact_id in reason.facts), own[0])


def required(subject: NarrativeSubject) -> list[frozenset[str]]:
    """Return sets of fact ids. Every narrative must mention at least one fact of each set."""
    sets = [
        {fact.fact_id}
        for fact in subject.facts
        if fact.kind == "payment" or fact.kind in ("cases", "cases-none", "cases-not-searched", "step")
    ]
    sets += [{fact.fact_id} for fact in subject.facts if fact.subject.value == "score" and fact.kind in _PAYMENT_KINDS]
    sets += [{fact.fact_id} for fact in subject.facts if fact.kind.startswith("doubt-")]
    for side in (Side.FRAUD, Side.LEGITIMATE):
        theme = subject.strongest(side)
        if theme is not None:
            sets.append({fact.fact_id for fact in subject.facts if fact.theme == theme})
    if subject.strongest(Side.LEGITIMATE) is None:
        sets += [{fact.fact_id} for fact in subject.facts if fact.kind in _BALANCE_KINDS]
    return [frozenset(one) for one in sets]


def completed(claims: Iterable[Claim], subject: NarrativeSubject) -> tuple[Claim, ...]:
    """
    Return a narrative of accepted claims in the order of the parts, within the word budget.

    The template's claims supply required facts that are missing, and parts that have no claim.
    """
    kept = list(claims)
    for claim in template_claims(subject):
        mentioned = {mention.fact_id for one in kept for mention in one.mentions}
        own = {mention.fact_id for mention in claim.mentions}
        lacks = any(own & needed and not mentioned & needed for needed in required(subject))
        if not own & mentioned and (lacks or all(one.part is not claim.part for one in kept)):
            kept.append(claim)
    order = list(Part)
    return budgeted(sorted(kept, key=lambda claim: order.index(claim.part)), subject)


def budgeted(claims: Sequence[Claim], subject: NarrativeSubject) -> tuple[Claim, ...]:
    """
    Return the claims that fit into the word budget.

    Required claims stay. The others are dropped one by one, starting with the last claim of the part that has the most claims. If
    that does not suffice, contrasts and then optional facts are removed.
    """
    lengths = _lengths(claims, subject)
    kept, needed = list(range(len(claims))), required(subject)
    while sum(lengths[place] for place in kept) > BUDGET:
        spare = [place for place in kept if _is_spare(place, kept, claims, needed)]
        if not spare:
            return _shortened([claims[place] for place in kept], subject, needed)
        kept.remove(max(spare, key=lambda place: (sum(claims[one].part is claims[place].part for one in kept), place)))
    return tuple(claims[place] for place in kept)


def _lengths(claims: Sequence[Claim], subject: NarrativeSubject) -> list[int]:
    """Return the number of English words in each claim."""
    facts = {fact.fact_id: fact for fact in subject.facts}
    return [len(writer(ENGLISH).claim(claim, facts).split()) for claim in claims]


def _shortened(claims: Sequence[Claim], subject: NarrativeSubject, needed: list[frozenset[str]]) -> tuple[Claim, ...]:
    """Return claims without contrasts, and drop optional facts, last first, until the claims fit."""
    short = [
        structs.replace(claim, mentions=tuple(one for one in claim.mentions if one.form is not Form.CONTRAST)) for claim in claims
    ]
    for place in reversed(range(len(short))):
        for mention in reversed(short[place].mentions):
            if sum(_lengths(short, subject)) <= BUDGET:
                return tuple(short)
            rest = tuple(one for one in short[place].mentions if one != mention)
            mentioned = {one.fact_id for claim in short for one in claim.mentions} - {mention.fact_id}
            if rest and all(mentioned & one for one in needed if mention.fact_id in one):
                short[place] = structs.replace(short[place], mentions=rest)
    return tuple(short)


def _is_spare(place: int, kept: list[int], claims: Sequence[Claim], needed: list[frozenset[str]]) -> bool:
    """Return whether a claim can be dropped without emptying its part or losing a required fact."""
    rest = [claims[one] for one in kept if one != place]
    if all(claim.part is not claims[place].part for claim in rest):
        return False
    mentioned = {mention.fact_id for claim in rest for mention in claim.mentions}
    own = {mention.fact_id for mention in claims[place].mentions}
    return not any(own & one and not mentioned & one for one in needed)


def answer_of(claims: Iterable[Claim]) -> str:
    """Return claims in the JSON format of a narrator's answer."""
    sentences = [
        Proposed(
            claim.part.value, tuple(f"{m.fact_id}.{m.form}" for m in claim.mentions), claim.opening.value, claim.joiner.value
        )
        for claim in claims
    ]
    return msgspec.json.encode({"sentences": sentences}).decode()
