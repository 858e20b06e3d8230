"""
Faithful sentences in varied wording about made-up evidence of every kind, and known corruptions of them.

The corpora were written one after the other by writers who knew the evidence and not the checker. Each was first read when the
checker had been developed on those before it; docs/explanations.md has the figures of those first readings.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.messages import EvidenceItem, Finding, SimilarCase
from core.money import money
from explain.casebook import case_items
from explain.narrator import Claim, Facts
from explain.reasons import REASONS, entity_of, sentence, shown, window_words
from models.features.spec import SPECS, FeatureSpec, op_of

_HERE = Path(__file__).parent
CORPORA = [
    (json.loads((_HERE / f"paraphrases_{n}.json").read_text()), json.loads((_HERE / f"false_claims_{n}.json").read_text()))
    for n in (1, 2, 3, 4, 5, 6)
]
HARMLESS = [name for n in (1, 2) for name in json.loads((_HERE / f"harmless_names_{n}.json").read_text())]
INJECTIONS = [
    one if isinstance(one, str) else one["repeat"][0] * one["repeat"][1]
    for n in (1, 2)
    for one in json.loads((_HERE / f"injections_{n}.json").read_text())
]


@dataclass(frozen=True)
class Told:
    """A sentence, the item it is about, and the facts it belongs to."""

    claim: Claim
    item: EvidenceItem
    facts: Facts
    template: dict
    slots: dict


# -- evidence of all kinds ---------------------------------------------------------------------------------------------------------


def made_up(seed: int) -> tuple[Facts, dict[str, dict]]:
    """Facts about an alert nobody raised, of any spec's features, and the slots of each item's paraphrases."""
    rng = random.Random(seed)
    spec = SPECS[rng.choice(sorted(SPECS))]("EUR")
    slots: dict[str, dict] = {}
    items = []
    columns = rng.sample(spec.feature_names, 7)
    signed = sorted((rng.choice((-1, 1)) * rng.uniform(0.1, 3) for _ in columns), key=abs, reverse=True)
    for rank, (name, contribution) in enumerate(zip(columns, signed, strict=True), start=1):
        items.append(_contribution(spec, name, rank, round(contribution, 3), rng, slots))
    items += _others(rng, slots)
    return Facts(tuple(items), "Ask the customer to confirm the transaction."), slots


def _value(unit: str, rng: random.Random) -> float:
    return {
        "money": lambda: round(rng.choice((rng.uniform(1, 90), rng.uniform(90, 5000))), 2),
        "count": lambda: float(rng.choice((0, 1, 2, 3, 5, 8, 13, 40, 210, 1204))),
        "share": lambda: round(rng.random(), 3),
        "times": lambda: round(rng.choice((rng.uniform(0.1, 0.9), rng.uniform(1.5, 40))), 1),
        "days": lambda: round(rng.uniform(0.2, 29), 1),
        "km": lambda: float(rng.randrange(3, 9000)),
        "km/h": lambda: float(rng.randrange(3, 4000)),
        "clock": lambda: rng.randrange(24 * 4) / 4,
        "weekday": lambda: float(rng.randrange(7)),
        "duration": lambda: float(rng.choice((rng.randrange(5, 100), rng.randrange(200, 7000), rng.randrange(9000, 900_000)))),
        "flag": lambda: float(rng.randrange(2)),
        "number": lambda: round(rng.uniform(-3, 9), 1),
    }[unit]()


def _contribution(spec: FeatureSpec, name: str, rank: int, contribution: float, rng: random.Random, slots: dict) -> EvidenceItem:
    entity, feature = entity_of(spec, name)
    reason, op = REASONS[op_of(feature)], op_of(feature)
    value = _value(reason.unit, rng)
    normal = None
    if op.name in ("AMOUNT", "COUNT", "AMOUNT_SUM", "AMOUNT_MEAN") and rng.random() < 0.7:
        normal = round(value * rng.choice((0.1, 0.3, 0.6, 1.7, 4)), 2)
    text = sentence(entity, feature, value, spec.currency)
    if normal is not None:
        text += f" Usual for it: {shown(normal, reason.unit, spec.currency)}."
    evidence_id = f"E{rank}"
    slots[evidence_id] = {
        "op": op.name,
        "value": shown(value, reason.unit, spec.currency),
        "normal": None if normal is None else shown(normal, reason.unit, spec.currency),
        "window": window_words(feature.window) if feature.window else None,
        "entity": entity.name,
        "number": value,
        "usual": normal if normal is not None else (1.0 if reason.unit == "times" else 0.0 if reason.unit == "number" else None),
        "flag": reason.unit == "flag",
    }
    return EvidenceItem(
        evidence_id=evidence_id, kind="contribution", code=f"{entity.name.upper()}_{reason.code}", text=text, feature=name,
        value=value, normal=normal, contribution=contribution,
    )  # fmt: skip


def _others(rng: random.Random, slots: dict) -> list[EvidenceItem]:
    when = datetime(2026, rng.randrange(1, 13), rng.randrange(1, 29), rng.randrange(24), rng.randrange(60), tzinfo=UTC)
    amount, country, online = money(rng.randrange(100, 500_000), "EUR"), rng.choice(("FR", "DE", "US", "GB")), rng.random() < 0.5
    recent = rng.randrange(3, 16)
    recent_hour = rng.randrange(recent + 1)
    text = f"{amount} on {when:%Y-%m-%d} at {when:%H:%M} UTC, {'online' if online else 'card present'}, in {country}. "
    text += f"{recent_hour} of the card's last {recent} transactions were in the hour before."
    slots["T1"] = {
        "op": "T1", "amount": amount, "date": f"{when:%Y-%m-%d}", "time": f"{when:%H:%M}", "country": country, "online": online,
        "channel": "online" if online else "card present", "recent": recent, "recent_hour": recent_hour,
    }  # fmt: skip
    items = [EvidenceItem(evidence_id="T1", kind="timeline", code="TIMELINE", text=text)]
    p, threshold, count = round(rng.uniform(5, 95), 1), round(rng.uniform(1, 40), 1), rng.randrange(40, 900)
    frauds = rng.randrange(2, count)
    of100 = round(100 * frauds / count)
    text = f"The calibrated probability of fraud is {p:.1f} %; review starts at {threshold:.1f} %. "
    text += f"Of 100 transactions scored like this in calibration, about {of100} were fraud ({frauds} of {count})."
    slots["S1"] = {
        "op": "S1",
        "p": f"{p:.1f} %",
        "threshold": f"{threshold:.1f} %",
        "of100": of100,
        "frauds": frauds,
        "count": count,
        "number": p,
        "usual": threshold,
    }
    items.append(EvidenceItem(evidence_id="S1", kind="score", code="SCORE_REVIEW", text=text, value=p / 100))
    n, mean, most, share = (
        rng.randrange(3, 90),
        money(rng.randrange(500, 9000), "EUR"),
        money(rng.randrange(9001, 90_000), "EUR"),
        f"{rng.uniform(1, 99):.1f} %",
    )
    slots["B1"] = {"op": "B1", "n": n, "mean": mean, "max": most, "online": share}
    items.append(
        EvidenceItem(
            evidence_id="B1",
            kind="baseline",
            code="CARD_NORMAL",
            text=f"In 30 days this card made {n} transactions, this one included, of {mean} on average and at most {most}. {share} of those before were online.",
        )
    )
    slots["B2"] = {"op": "B2", "n": f"{n * 31:,}", "mean": mean}
    items.append(
        EvidenceItem(
            evidence_id="B2",
            kind="baseline",
            code="MERCHANT_NORMAL",
            text=f"In 30 days this merchant had {n * 31:,} transactions, this one included, of {mean} on average.",
        )
    )
    slots["N1"] = {"op": "N1"}
    items.append(
        EvidenceItem(
            evidence_id="N1", kind="novelty", code="NOVEL", text="The whole of this transaction is unlike anything in training."
        )
    )
    slots["V1"] = {"op": "V1", "rule": "large_foreign"}
    items.append(EvidenceItem(evidence_id="V1", kind="rule", code="RULE", text="Rule large_foreign holds for this transaction."))
    fields = ", ".join(rng.sample(("mcc", "country", "channel", "device"), 2))
    slots["Q1"] = {"op": "Q1", "fields": fields}
    items.append(
        EvidenceItem(evidence_id="Q1", kind="quality", code="MISSING_FIELDS", text=f"Not given with this transaction: {fields}.")
    )
    outcomes = rng.choice(([1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]))
    cases = [
        SimilarCase(
            case_id=f"al_{rng.getrandbits(64):016x}", outcome=Finding.FRAUD if one else Finding.LEGITIMATE,
            closed_time=1_790_000_000_000 + rng.randrange(10**10), similarity=round(rng.uniform(0.5, 0.99), 4),
        )
        for one in outcomes
    ]  # fmt: skip
    made = case_items(cases)
    slots["C1"] = {"op": "C1", "cases": len(cases), "frauds": sum(outcomes), "legit": len(cases) - sum(outcomes)}
    for number, case in enumerate(cases, 1):
        slots[f"K{number}"] = {
            "op": "K1", "case": case.case_id, "outcome": case.outcome.value, "similarity": f"{case.similarity:.2f}",
            "date": f"{datetime.fromtimestamp(case.closed_time / 1000, UTC):%Y-%m-%d}",
        }  # fmt: skip
    return items + made[:2]


# -- faithful sentences ------------------------------------------------------------------------------------------------------------


def _so(condition: str, item: EvidenceItem, slots: dict, facts: Facts) -> bool:
    contribution = item.contribution or 0
    ranked = [one for one in facts.evidence if one.kind == "contribution"]
    number, usual = slots.get("number"), slots.get("usual")
    return {
        "normal": lambda: slots.get("normal") is not None,
        "above": lambda: usual is not None and number is not None and number > 1.3 * usual and number > usual,
        "below": lambda: usual is not None and number is not None and number < 0.7 * usual and number < usual,
        "for": lambda: contribution > 0,
        "against": lambda: contribution < 0,
        "true": lambda: number == 1,
        "false": lambda: number == 0,
        "value1": lambda: slots.get("value") == "1",
        "valuemany": lambda: slots.get("value") != "1",
        "rank1": lambda: (
            item.evidence_id == next((o.evidence_id for o in ranked if (o.contribution or 0) * contribution > 0), "")
        ),
        "all_fraud": lambda: slots["legit"] == 0,
        "none_fraud": lambda: slots["frauds"] == 0,
        "majority_fraud": lambda: slots["frauds"] > slots["legit"],
        "fraud": lambda: slots["outcome"] == "fraud",
        "legit": lambda: slots["outcome"] == "legitimate",
        "online": lambda: slots["online"] is True,
        "present": lambda: slots["online"] is False,
    }[condition]()


def conditions(template: dict) -> list[str]:
    return [one for one in template["when"].split(",") if one]


def filled(template: dict, item: EvidenceItem, slots: dict, facts: Facts) -> Told | None:
    """The template's sentence about an item; None if it lacks something the template needs."""
    try:
        text = template["text"].format(**{name: value for name, value in slots.items() if value is not None})
    except KeyError:
        return None
    part = template["part"]
    if (
        item.kind == "contribution"
        and not {"for", "against"} & set(conditions(template))
        and part in ("why_unusual", "speaks_against")
    ):
        part = "why_unusual" if (item.contribution or 0) > 0 else "speaks_against"
    return Told(Claim(part, text, (item.evidence_id,)), item, facts, template, slots)


def faithful(facts: Facts, slots: dict[str, dict], templates: list[dict]) -> Iterator[Told]:
    """Every sentence that the templates make of these facts."""
    for item in facts.evidence:
        own = slots.get(item.evidence_id)
        for template in templates if own else ():
            if template["op"] != own["op"] or not all(_so(one, item, own, facts) for one in conditions(template)):
                continue
            if told := filled(template, item, own, facts):
                yield told


# -- corruptions -------------------------------------------------------------------------------------------------------------------

_SIDES = [
    ("speaks for fraud", "speaks against fraud"), ("points to fraud", "points away from fraud"), ("raises the risk", "lowers the risk"),
    ("raises the score", "lowers the score"), ("increases the risk", "reduces the risk"), ("lowers suspicion", "raises suspicion"),
    ("speaks against fraud", "speaks for fraud"), ("counts against fraud", "counts for fraud"), ("counts towards fraud", "counts against fraud"),
    ("lowers the risk", "raises the risk"), ("reduces the risk", "increases the risk"), ("against fraud", "for fraud"),
]  # fmt: skip


def _with(told: Told, text: str, part: str | None = None, ids: tuple[str, ...] | None = None) -> Claim | None:
    changed = Claim(part or told.claim.part, text, ids or told.claim.evidence_ids)
    return None if changed == told.claim else changed


def sign(told: Told, rng: random.Random) -> Claim | None:
    if told.item.kind != "contribution":
        return None
    for one, other in _SIDES:
        if one in told.claim.text:
            return _with(told, told.claim.text.replace(one, other))
    if {"for", "against"} & set(conditions(told.template)):
        return None  # a wording that the table above does not turn round
    positive = (told.item.contribution or 0) > 0
    return _with(
        told, told.claim.text.rstrip(".") + (", which speaks against fraud." if positive else ", which speaks for fraud.")
    )


def heading(told: Told, rng: random.Random) -> Claim | None:
    """The sentence under the heading of the other side."""
    if told.item.kind != "contribution" or {"for", "against"} & set(conditions(told.template)):
        return None
    return _with(told, told.claim.text, "speaks_against" if (told.item.contribution or 0) > 0 else "why_unusual")


_DIGITS = re.compile(r"(?<![\w.,:-])\d[\d,]*(?:\.\d+)?(?![\w:-])")


def number(told: Told, rng: random.Random) -> Claim | None:
    if told.item.kind == "case":
        spots = []
    else:
        spots = [m for m in _DIGITS.finditer(told.claim.text) if not told.claim.text[: m.start()].endswith(("al_", ":", "-"))]
    if not spots:
        return None
    spot = rng.choice(spots)
    old = float(spot.group().replace(",", ""))
    decimals = len(spot.group().partition(".")[2])
    taken = {float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", told.item.text)}
    for _ in range(20):
        new = round(
            rng.choice((old * rng.uniform(1.5, 3), old * rng.uniform(0.2, 0.6), old + rng.randrange(1, 9) * max(1.0, abs(old)))),
            decimals,
        )
        if new not in taken and abs(new - old) > 0.4 * max(old, 0.1):
            return _with(told, told.claim.text[: spot.start()] + f"{new:,.{decimals}f}" + told.claim.text[spot.end() :])
    return None


def digit(told: Told, rng: random.Random) -> Claim | None:
    """One digit of an amount changed, as in 1,031.16 for 1,013.16."""
    found = re.search(r"\d[\d,]*\.\d\d\b", told.claim.text)
    if not found or re.search(
        r"about|around|roughly|approximately|nearly|almost|over|under|more than|less than", told.claim.text
    ):
        return None
    places = [i for i, one in enumerate(found.group()) if one.isdigit()]
    place = rng.choice(places)
    other = rng.choice([one for one in "123456789" if one != found.group()[place]])
    changed = found.group()[:place] + other + found.group()[place + 1 :]
    if changed in told.item.text:
        return None
    return _with(told, told.claim.text.replace(found.group(), changed))


def unit(told: Told, rng: random.Random) -> Claim | None:
    swaps = [
        ("EUR", "USD"),
        (" hour", " day"),
        (" days", " hours"),
        (" min", " h"),
        (" km/h", " km"),
        (" km", " miles"),
        (" s ", " min "),
        (" %", " times"),
    ]
    usable = [(one, other) for one, other in swaps if re.search(rf"\d{one}" if one[0] == " " else one, told.claim.text)]
    if not usable:
        return None
    one, other = rng.choice(usable)
    changed = re.sub(rf"(?<=\d){one}", other, told.claim.text) if one[0] == " " else told.claim.text.replace(one, other)
    return _with(told, changed) if changed.strip(". ") != told.item.text.strip(". ") else None


def entity(told: Told, rng: random.Random) -> Claim | None:
    text = told.claim.text
    if told.item.kind == "timeline":
        country = told.slots["country"]
        return _with(told, re.sub(rf"\b{country}\b", rng.choice([c for c in ("IT", "ES", "PL", "JP") if c != country]), text))
    card, merchant = re.search(r"\bcard\b", text), re.search(r"\bmerchant\b", text)
    if bool(card) == bool(merchant) or told.item.kind not in ("contribution", "baseline"):
        return None
    if told.slots.get("entity") is None and told.item.kind != "baseline":
        return None
    has = "card" in told.item.text.lower(), "merchant" in told.item.text.lower()
    if has[0] == has[1]:
        return None
    return _with(told, re.sub(r"\bcard\b", "merchant", text) if card else re.sub(r"\bmerchant\b", "card", text))


def thing(told: Told, rng: random.Random) -> Claim | None:
    """Another thing than the evidence is about: a device told as a country."""
    swaps = {
        "NEW_DEVICE": ("device", "country"),
        "NEW_COUNTRY": ("country", "device"),
        "DISTINCT_MERCHANTS": ("merchants", "countries"),
        "DISTINCT_COUNTRIES": ("countries", "devices"),
        "CATEGORY_SHARE": ("category", "country"),
        "DISTANCE": ("distance", "speed"),
        "COUNT": ("transactions", "countries"),
    }
    if told.slots["op"] not in swaps:
        return None
    return _with(told, told.claim.text.replace(*swaps[told.slots["op"]]))


def case(told: Told, rng: random.Random) -> Claim | None:
    invented = f"al_{rng.getrandbits(64):016x}"
    if told.item.kind == "case":
        return (
            _with(told, told.claim.text.replace(told.slots["case"], invented)) if told.slots["case"] in told.claim.text else None
        )
    return _with(told, told.claim.text.rstrip(".") + f", as in case {invented}.") if told.item.kind == "cases" else None


def outcome(told: Told, rng: random.Random) -> Claim | None:
    if told.item.kind == "cases" and told.slots["frauds"] == told.slots["legit"]:
        return None
    if told.item.kind not in ("cases", "case"):
        return None
    swap = {
        "fraud": "legitimate",
        "frauds": "legitimate ones",
        "fraudulent": "legitimate",
        "legitimate": "fraud",
        "genuine": "fraudulent",
    }
    return _with(told, re.sub(r"\b(?:frauds?|fraudulent|legitimate|genuine)\b", lambda m: swap[m.group()], told.claim.text))


_NOT = re.compile(r"\b(?:not|never|no)\b ?|n't\b", re.I)


def negation(told: Told, rng: random.Random) -> Claim | None:
    """A "not" taken away, or put in."""
    text = told.claim.text
    if found := _NOT.search(text):
        changed = (text[: found.start()] + text[found.end() :]).strip()
        return _with(told, changed[:1].upper() + changed[1:])
    if told.slots.get("flag") or told.item.kind in ("novelty", "rule", "case"):
        changed = re.sub(r"\b(had|was|is|has|were|does|did)\b", r"\1 not", text, count=1)
        return _with(told, changed)
    return None


def added(told: Told, rng: random.Random, claims: list[str] = CORPORA[0][1]) -> Claim | None:
    more = rng.choice(claims)
    joined = rng.choice((", and {}", "; {}", ". {}", ", while {}"))
    lowered = more if joined.startswith(". ") else more[0].lower() + more[1:]
    return _with(told, told.claim.text.rstrip(".") + joined.format(lowered))


def swapped(told: Told, rng: random.Random) -> Claim | None:
    """The value told as the usual one and the other way round."""
    value, normal = told.slots.get("value"), told.slots.get("normal")
    if not value or not normal or value == normal or value not in told.claim.text or normal not in told.claim.text:
        return None
    return _with(told, told.claim.text.replace(value, "\0").replace(normal, value).replace("\0", normal))


def moment(told: Told, rng: random.Random) -> Claim | None:
    if told.item.kind != "timeline":
        return None
    text = told.claim.text
    if told.slots["date"] in text and (told.slots["time"] not in text or rng.random() < 0.5):
        day = int(told.slots["date"][-2:])
        return _with(told, text.replace(told.slots["date"], f"{told.slots['date'][:-2]}{day % 28 + 1:02d}"))
    if told.slots["time"] in text and not re.search("about|around|roughly", text):
        hour = (int(told.slots["time"][:2]) + rng.randrange(1, 23)) % 24
        return _with(told, text.replace(told.slots["time"], f"{hour:02d}:{told.slots['time'][3:]}"))
    return None


def cited(told: Told, rng: random.Random) -> Claim | None:
    """Another item is named as evidence, which tells of something else."""
    others = [
        one for one in told.facts.evidence
        if one.kind != told.item.kind or (one.kind == "contribution" and one.code.partition("_")[2] != told.item.code.partition("_")[2])
    ]  # fmt: skip
    numbers = set(re.findall(r"\d[\d,.]*\d|\d", told.claim.text))
    others = [one for one in others if not numbers <= set(re.findall(r"\d[\d,.]*\d|\d", one.text))] if numbers else []
    return _with(told, told.claim.text, ids=(rng.choice(others).evidence_id,)) if others else None


_COMPARES = re.compile(
    r"\b(?:above|exceed\w*|higher|more than|larger|greater|elevated|high|burst|over|below|lower|less|fewer|under|quieter|low|short of|smaller|slower|faster|longer|shorter|jump\w*)\b"
)


def turned(facts: Facts, slots: dict[str, dict], templates: list[dict]) -> Iterator[tuple[str, Told]]:
    """Sentences of templates whose conditions do not hold: another rank, the other yes or no, the comparison turned round."""
    opposite = {
        "above": "below",
        "below": "above",
        "true": "false",
        "false": "true",
        "online": "present",
        "present": "online",
        "all_fraud": "majority_fraud",
        "none_fraud": "majority_fraud",
        "fraud": "legit",
        "legit": "fraud",
    }
    kinds = {
        "above": "comparison",
        "below": "comparison",
        "true": "negation",
        "false": "negation",
        "rank1": "rank",
        "online": "entity",
        "present": "entity",
        "all_fraud": "outcome",
        "none_fraud": "outcome",
        "fraud": "outcome",
        "legit": "outcome",
    }
    ranked = [one for one in facts.evidence if one.kind == "contribution"]
    for item in facts.evidence:
        own = slots.get(item.evidence_id)
        for template in templates if own else ():
            if template["op"] != own["op"]:
                continue
            wrong = [one for one in conditions(template) if not _so(one, item, own, facts)]
            if len(wrong) != 1 or wrong[0] not in kinds:
                continue
            if wrong[0] == "rank1" and item is ranked[0]:
                continue
            if wrong[0] in ("above", "below") and not (
                _so(opposite[wrong[0]], item, own, facts) and _COMPARES.search(template["text"])
            ):
                continue  # "compared with" alone is so in both directions
            if wrong[0] in ("all_fraud", "none_fraud") and not re.search(
                r"\b(?:all|every|each|only|none|no|any|not|without|both|exclusively)\b", template["text"], re.I
            ):
                continue  # "the cases point to fraud" may be so of a majority
            if (
                wrong[0] in ("all_fraud", "none_fraud")
                and own["frauds"] in (0, own["cases"])
                and wrong[0] != ("all_fraud" if own["frauds"] == 0 else "none_fraud")
            ):
                continue
            if told := filled(template, item, own, facts):
                yield kinds[wrong[0]], told


CORRUPTIONS = {
    "sign": sign, "heading": heading, "number": number, "digit": digit, "unit": unit, "entity": entity, "thing": thing, "case": case, "outcome": outcome,
    "negation": negation, "claim added": added, "value and usual swapped": swapped, "date or time": moment, "evidence": cited,
}  # fmt: skip
