"""
Multiple-choice narratives for small models: a model picks one fact per slot from a few that are shown as sentences.

A model of a hundred million parameters cannot compose a narrative, but it can choose. Each slot belongs to one theme or subject,
and no fact appears in two slots, so that any choice gives a narrative without a fault.
"""

from typing import Any

import msgspec
from msgspec import Struct

from core.messages import Fact, Form, Opening, Part, Side
from explain.claims import NarrativeSubject, Proposed, json_object
from explain.words import ENGLISH, writer

_REASONS, _AGAINST = 3, 2  # maximum number of themes with a slot, for and against fraud
_OPTIONS = 3  # maximum number of facts to choose from in a slot


class Slot(Struct, frozen=True):
    """A place in a narrative: its part and opening, and the facts to choose from."""

    name: str
    part: Part
    opening: Opening
    facts: tuple[Fact, ...]


def slots(subject: NarrativeSubject) -> tuple[Slot, ...]:
    """Return the non-empty slots of an alert."""
    return (
        *_of_themes(subject, Side.FRAUD, Part.WHY_UNUSUAL, Opening.FOR_FRAUD, _REASONS),
        *_of_kinds(
            subject, "cases", Part.SIMILAR_CASES, ("cases", "cases-none", "cases-contradict", "typology", "typology-fitted")
        ),
        *_of_themes(subject, Side.LEGITIMATE, Part.SPEAKS_AGAINST, Opening.AGAINST_FRAUD, _AGAINST),
    )


def _of_themes(subject: NarrativeSubject, side: Side, part: Part, first: Opening, most: int) -> list[Slot]:
    """
    Return a slot for each of a side's strongest themes.

    A slot offers the theme's values, or the theme's own fact if there are no values.
    """
    found: list[Slot] = []
    for reason in subject.supporting(side)[:most]:
        own = [fact for fact in subject.facts if fact.theme == reason.theme]
        values = [fact for fact in own if fact.fact_id in reason.facts] or own[:1]
        opening = Opening.NONE if found else first
        found.append(Slot(f"{side.value}_{len(found) + 1}", part, opening, tuple(values[:_OPTIONS])))
    return found


def _of_kinds(subject: NarrativeSubject, name: str, part: Part, kinds: tuple[str, ...]) -> list[Slot]:
    own = tuple(fact for fact in subject.facts if fact.kind in kinds)[:_OPTIONS]
    return [Slot(name, part, Opening.NONE, own)] if own else []


def choice_schema(subject: NarrativeSubject) -> dict[str, Any]:
    """Return the JSON Schema of an answer: a fact's id for each slot."""
    properties = {slot.name: {"type": "string", "enum": [fact.fact_id for fact in slot.facts]} for slot in slots(subject)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def choices_in_words(subject: NarrativeSubject) -> dict[str, dict[str, str]]:
    """Return the choices as the prompt shows them: for each slot, the facts as sentences by id."""
    english = writer(ENGLISH)
    return {slot.name: {fact.fact_id: english.sentence(fact) for fact in slot.facts} for slot in slots(subject)}


def parse_choices(answer: str, subject: NarrativeSubject) -> list[Proposed | None]:
    """
    Return one sentence for each slot that has a choice in the answer. The sentence is None if the choice is invalid.

    Raises:
        ValueError: if the answer contains no JSON object.
    """
    found = json_object(answer)
    try:
        chosen = msgspec.json.decode(found, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"the answer contains no valid choices: {error}") from None
    return [_proposed(slot, chosen[slot.name]) for slot in slots(subject) if slot.name in chosen]


def _proposed(slot: Slot, chosen: Any) -> Proposed | None:
    fact = next((fact for fact in slot.facts if fact.fact_id == chosen), None)
    if fact is None:
        return None
    with_contrast = slot.opening is not Opening.NONE and fact.contrast is not None
    facts = (f"{fact.fact_id}.{Form.CLAUSE}", *((f"{fact.fact_id}.{Form.CONTRAST}",) if with_contrast else ()))
    return Proposed(slot.part.value, facts, slot.opening.value)
