"""
A language model's answers to the prompts of 120 alerts of a simulated world, and corruptions of sentences about several items.

Each line of answers.jsonl is an alert's evidence, as far as a sentence names it or is ranked by it, and the sentences. A large
language model answered each prompt as it is sent (narrative-2, the last thirty narrative-2-brief).
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from explain.language import plain, quantities
from explain.narrator import Claim, Facts


class Answer(msgspec.Struct, frozen=True):
    """What a model wrote."""

    sentences: tuple[Claim, ...]


_FILE = Path(__file__).with_name("answers.jsonl")


def answers() -> list[tuple[Facts, tuple[Claim, ...]]]:
    """The facts of each alert and the sentences about them, without the next step."""
    return [
        (msgspec.json.decode(line, type=Facts), msgspec.json.decode(line, type=Answer).sentences)
        for line in _FILE.read_bytes().splitlines()
    ]


def slipped_through() -> list[tuple[Facts, Claim]]:
    """False sentences that passed an earlier checker, by a reviewer who had its code, each with its evidence."""
    lines = [msgspec.json.decode(line) for line in _FILE.with_name("slipped_through.jsonl").read_bytes().splitlines()]
    return [
        (
            msgspec.convert({"evidence": one["evidence"], "suggestion": ""}, Facts),
            msgspec.convert({k: one[k] for k in Claim.__struct_fields__}, Claim),
        )
        for one in lines
    ]


def _texts(claim: Claim, facts: Facts) -> list[str]:
    return [item.text for item in facts.evidence if item.evidence_id in claim.evidence_ids]


def _spots(claim: Claim) -> list[tuple[str, str, str]]:
    """Kind, unit and text of the quantities that stand in the sentence as digits."""
    return [
        (one.kind, one.unit if one.kind == "money" else "", one.text)
        for one in quantities(plain(claim.text))
        if one.text in claim.text
    ]


def exchanged(claim: Claim, facts: Facts, rng: random.Random) -> Claim | None:
    """Two numbers of one kind, of different items, each in the other's place."""
    own = [
        (kind, unit, text, frozenset(at for at, one in enumerate(_texts(claim, facts)) if text in one))
        for kind, unit, text in _spots(claim)
        if kind in ("money", "count", "percent", "times", "clock") and claim.text.count(text) == 1
    ]
    pairs = [
        (one[2], other[2]) for one in own for other in own
        if one[:2] == other[:2] and one[3] and other[3] and not one[3] & other[3] and one[2] != other[2]
    ]  # fmt: skip
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    return msgspec.structs.replace(claim, text=claim.text.replace(first, "\0").replace(second, first).replace("\0", second))


def altered(claim: Claim, facts: Facts, rng: random.Random) -> Claim | None:
    """A number that no item has."""
    spots = [
        text for kind, _, text in _spots(claim) if kind in ("money", "count", "percent", "times") and claim.text.count(text) == 1
    ]
    if not spots:
        return None
    old = rng.choice(spots)
    digits = re.search(r"\d[\d,]*(?:\.\d+)?", old)
    if digits is None:
        return None
    decimals = len(digits.group().partition(".")[2])
    value = float(digits.group().replace(",", ""))
    new = f"{value * rng.uniform(1.5, 3) + 1:,.{decimals}f}"
    if any(new in text for text in _texts(claim, facts)):
        return None
    return msgspec.structs.replace(claim, text=claim.text.replace(old, old.replace(digits.group(), new)))


def turned_round(claim: Claim, facts: Facts, rng: random.Random) -> Claim | None:
    """The side of a list of reasons turned round, or a side that is not theirs."""
    signs = {
        (item.contribution or 0) > 0
        for item in facts.evidence
        if item.evidence_id in claim.evidence_ids and item.kind == "contribution"
    }
    if len(signs) != 1:
        return None
    for one, other in (("against fraud", "for fraud"), ("for fraud", "against fraud"), ("Against fraud", "For fraud")):
        if one in claim.text:
            return msgspec.structs.replace(claim, text=claim.text.replace(one, other))
    return msgspec.structs.replace(
        claim, text=claim.text.rstrip(".") + (" speak against fraud." if signs == {True} else " speak for fraud.")
    )


def under_the_other_heading(claim: Claim, facts: Facts, rng: random.Random) -> Claim | None:
    """Reasons for fraud as what speaks against it, or the other way round."""
    cited = [item for item in facts.evidence if item.evidence_id in claim.evidence_ids]
    if claim.part not in ("why_unusual", "speaks_against") or re.search("fraud|risk|suspici", claim.text, re.I):
        return None
    if any(item.kind != "contribution" for item in cited):
        return None
    return msgspec.structs.replace(claim, part="speaks_against" if claim.part == "why_unusual" else "why_unusual")


def one_of_the_other_side(claim: Claim, facts: Facts, rng: random.Random) -> Claim | None:
    """A reason of the other side listed among those of one."""
    cited = [item for item in facts.evidence if item.evidence_id in claim.evidence_ids]
    if claim.part not in ("why_unusual", "speaks_against") or any(item.kind != "contribution" for item in cited):
        return None
    positive = claim.part == "why_unusual"
    others = [item for item in facts.evidence if item.kind == "contribution" and ((item.contribution or 0) > 0) != positive]
    if not others:
        return None
    other = rng.choice(others)
    said = other.text[0].lower() + other.text[1:].rstrip(".").partition(". ")[0]
    return Claim(claim.part, claim.text.rstrip(".") + f", and {said}.", (*claim.evidence_ids, other.evidence_id))


def not_named(claim: Claim, facts: Facts, rng: random.Random) -> Claim | None:
    """An item left out of those that the sentence names, though a number is its alone."""
    if len(claim.evidence_ids) < 2:
        return None
    left = rng.choice(claim.evidence_ids)
    kept = tuple(one for one in claim.evidence_ids if one != left)
    text = next(item.text for item in facts.evidence if item.evidence_id == left)
    rest = " ".join(item.text for item in facts.evidence if item.evidence_id in kept)
    own = [
        said
        for kind, _, said in _spots(claim)
        if kind in ("money", "percent", "times", "clock") and said in text and said not in rest
    ]
    return msgspec.structs.replace(claim, evidence_ids=kept) if own else None


def _entities(claim: Claim, facts: Facts, rng: random.Random) -> Claim | None:
    """Card and merchant in each other's place."""
    swap = {"card": "merchant", "merchant": "card"}
    cited = [item for item in facts.evidence if item.evidence_id in claim.evidence_ids]
    if any(item.code.endswith("NEW_MERCHANT") for item in cited):
        return None
    text = re.sub(r"\b(card|merchant)\b(?! present)", lambda found: swap[found.group()], claim.text)
    return None if text == claim.text else msgspec.structs.replace(claim, text=text)


CORRUPTIONS = {
    "numbers exchanged": exchanged, "number changed": altered, "side turned": turned_round, "other heading": under_the_other_heading,
    "one of the other side": one_of_the_other_side, "item not named": not_named, "card and merchant": _entities,
}  # fmt: skip


def corrupted(claim: Claim, facts: Facts, rng: random.Random) -> Iterator[tuple[str, Claim]]:
    """Every corruption of a sentence that there is, by kind."""
    for kind, corrupt in CORRUPTIONS.items():
        if (found := corrupt(claim, facts, rng)) is not None and found != claim:
            yield kind, found
