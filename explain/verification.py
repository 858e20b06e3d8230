"""
Every sentence of a narrative is checked against the evidence it names; what fails is replaced by the template's words.

The check is a closed world: a sentence may say only what its evidence says. Its words must be general ones or the evidence's own
(``explain.vocabulary``); each clause's quantities must stand in one item of evidence, with their units, roles and roundings
(``explain.language``); its entities, negations, sides, ranks and comparisons must be those of that item. What cannot be read is
refused, so a refusal costs wording and never truth.
"""

import logging
import re
from functools import lru_cache

from msgspec import Struct, structs

from core.messages import EvidenceItem, Sentence, Verification
from explain.language import Clause, Quantity, clauses, plain, roles, stem, words
from explain.narrator import BUDGET, PARTS, Claim, Facts, Narrative, budgeted, of_kind, required, template_claims
from explain.overreach import overreach
from explain.vocabulary import about as words_about
from explain.vocabulary import is_empty, licensed_by, unlicensed

logger = logging.getLogger(__name__)

_LONGEST = 400  # characters of a sentence
_MARKUP = re.compile(r"[<>{}\[\]`|\\]|https?:|www\.")
_TYPOGRAPHY = "–—’‘“”€£×≈−…"
_CODE = re.compile(r"\b[A-Z]{2,}\b")
_CARD = frozenset(stem(word) for word in ("card", "cardholder", "customer"))
_MERCHANT = frozenset(stem(word) for word in ("merchant", "shop", "store", "retailer", "seller", "vendor", "outlet", "payee"))
_FRAUD = re.compile(r"\bfraud(?:s|ulent|ulently)?\b", re.I)
_HONEST = re.compile(r"\b(?:legitimate(?:ly)?|genuine|honest|innocent)\b", re.I)
_RISK_TALK = re.compile(  # fraud as what a score is about, not as a finding
    r"\b(?:probability|likelihood|chance|odds|risk|score|case|signs?|signals?|indicators?|reasons?|factors?|arguments?|evidence|favou?r|suspicion|estimate|points?|hints?|considerations?)(?: \w+)? (?:of|for|at|against|towards?|about) (?:being |a |the |it being )*(?:fraud\w*|legitimate|genuine)|"
    r"\bfraud(?:ulent)? (?:probability|risk|score|likelihood|chance|odds|estimate|model|alert|review|signal|suspicion|level|assessment|indicators?|factors?|reasons?)\w*|"
    r"\b(?:probability|likelihood|chance|odds|suspicion|estimate)(?: \w+)? that (?:\w+ ){1,3}(?:is|was|be) (?:a )?fraud\w*|\bassess\w* (?:as|at)\b",
    re.I,
)
_REPORT_TALK = re.compile(  # fraud as it was reported or found before
    r"\b(?:rate|share|proportion|percentage|frequency|reports?|number|count|fraction) of (?:known |reported |confirmed |being |a |past |the |recorded )*fraud\w*|"
    r"\bfraud(?:ulent)? (?:reports?|rate|share|cases?|report rate|transactions?|history|count|payments?|activity)\w*|"
    r"\b(?:known|reported|confirmed|past|previous|earlier|labelled|recorded|first|last|latest|earliest|recent|\d+)(?: [\w-]+){0,2}? frauds?\b|\bknown (?:to be|as) (?:\w+ )?fraud\w*|"
    r"\bfrauds?(?: \w+){0,5} (?:was|were|been|have been|had been|are|is) (?:\w+ )?(?:reported|known|recorded|identified|confirmed)|\breported (?:\w+ )?(?:as )?fraud\w*",
    re.I,
)
_ASSERTED = re.compile(
    r"\b(?:is|was|are|were|be|being|as|looks?|seems?|appears?|means?|a|this)\s+(?:\w+\s+){0,2}?(?:fraud\w*|legitimate|genuine|honest|innocent)\b",
    re.I,
)
_JUDGED = re.compile(r"\b(?:approve|decline|block|release|certain|definite|guilty|reject|refund)\w*\b", re.I)
_NOT_SO = re.compile(r"\b(?:not|never|no)\b(?: \w+){0,2} (?:fraud\w*|legitimate|genuine|honest)", re.I)
_LACKING = re.compile(
    r"\b(?:unknown|unavailable|incomplete|omitted|blank|left out|namely)\b|^\s*(?:(?:mcc|country|channel|device|and|,)\s*)+\.?$",
    re.I,
)
_FUTURE = re.compile(r"\b(?:will|shall|going to|(?:coming|next|following) (?:days?|hours?|weeks?))\b", re.I)
_ALL = re.compile(r"\b(?:all|every|each)\b", re.I)
_MOST = re.compile(
    r"\b(?:most(?! (?:similar|recent|important|significant|influential|alike|like|closely|comparable))|majority|mainly|mostly)\b",
    re.I,
)
_NONE = re.compile(r"\b(?:none|no)\b", re.I)
_BOTH_HALF = re.compile(r"\b(?:half|both|few|minority|several|many|some)\b", re.I)
_EARLIER = r"(?:\w+ ){0,3}?"
_VAGUE = re.compile(r"\b(?:elevated|high|low|large|big|quiet(?:er)?|busy|busier|burst|heavy|intense|modest|calmer?)\b", re.I)
_NEW = re.compile(
    r"\b(?:new|unfamiliar|unknown|unseen|unrecogni[sz]ed|strange|newly|first[- ]time|for the first time|first (?:\w+ )?(?:use|payment|purchase|transaction|visit|seen|time|appearance)|(?:is|was) the first)\b",
    re.I,
)
_SEEN = re.compile(
    r"\b(?:used|use|paid|seen|known|familiar|recogni[sz]ed|appeared|visited|made|bought|shopped|spent|transacted|dealt|had|record\w*|history|earlier|previous|prior|payments?|purchases?|transactions?|existing|returning)\b",
    re.I,
)
_OPPOSITES = {
    "CHANNEL": (re.compile(r"\b(?:online|internet|web|e-?commerce|remote(?:ly)?|digital(?:ly)?|card[- ]not[- ]present)\b", re.I), re.compile(r"\b(?:presen(?:t|ce|ted)|in[- ]person|in[- ]store|face[- ]to[- ]face|physical(?:ly)?|terminal|chip|at the (?:shop|store))\b", re.I)),
    "NIGHT": (re.compile(r"\b(?:night|overnight|night-?time|nocturnal)\b", re.I), re.compile(r"\b(?:day-?time|daylight|by day|during the day)\b", re.I)),
    "WEEKEND": (re.compile(r"\b(?:weekend|saturday|sunday)s?\b", re.I), re.compile(r"\b(?:working days?|working week|work-?days?|weekdays?|business days?)\b", re.I)),
}  # fmt: skip
_UNLIKE = re.compile(
    r"\b(?:unlike|differs?|different\w*|dissimilar|new|novel\w*|unusual|unprecedented|unfamiliar|unknown|unseen|nowhere)\b",
    re.I,
)
_LIKE = re.compile(r"\b(?:like|resembl\w+|similar|match\w*|known|familiar|seen|counterparts?|comparable)\b", re.I)
_FLAGS = ("NEW_MERCHANT", "NEW_COUNTRY", "NEW_DEVICE", *_OPPOSITES)


class _Reading(Struct, frozen=True):
    """An item of evidence as a checker sees it."""

    item: EvidenceItem
    sentences: tuple[tuple[frozenset[str], tuple[Clause, ...], bool], ...]  # stems, clauses, whether negated
    quantities: tuple[Quantity, ...]
    stems: frozenset[str]
    roles: frozenset[str]
    pairs: tuple[tuple[float, float], ...]  # "38 of 61"


@lru_cache(maxsize=2048)
def _read(item: EvidenceItem) -> _Reading:
    parts, said = [], []
    for text in re.split(r"(?<=[.;])\s+", item.text):
        found = clauses(text)
        negated = any(clause.negated for clause in found)
        parts.append((licensed_by(text)[0], found, negated))
        said += [one for clause in found for one in clause.quantities]
    stems = licensed_by(item.text)[0]
    return _Reading(item, tuple(parts), tuple(said), stems, frozenset(one.role for one in said), _pairs(item.text))


_OF = re.compile(
    r"(?<![\d.,:])(?P<part>\d[\d,]*)(?![.:]\d)(?: (?:were |was |being |are )?(?:legitimate|genuine|frauds?|fraudulent|transactions?|cases?|ones?))?,? (?:out of|of|per|among|in(?= (?:every )?\d))(?: only| just)? (?:the |its |every |all |these |those |a total of |[\w']+'s )*(?:[a-z-]+ ){0,3}?(?P<whole>\d[\d,]*)\b",
    re.I,
)
_OF_FIRST = re.compile(
    r"\b(?:of|out of|among|in|from)(?: the| these| all| every| its| only)* (?:[a-z-]+ ){0,3}?(?P<whole>\d[\d,]*)\b(?P<rest>[^.;]*?),?(?P<parts>(?: (?:about|around|roughly|approximately))? \d[\d,]* (?:\w+ ){0,2}?(?:frauds?|fraudulent|legitimate|genuine|honest)\b[^.;]*)",
    re.I,
)


def _pairs(text: str) -> tuple[tuple[float, float], ...]:
    """Parts of wholes as a text has them: "3 of 5", "of 5 ..., 3 were fraud and 2 legitimate"."""
    found = [(_plain_number(m["part"]), _plain_number(m["whole"])) for m in _OF.finditer(text)]
    for match in _OF_FIRST.finditer(text):
        parts = re.sub(r"\([^)]*\)", " ", match["parts"])
        found += [(_plain_number(part), _plain_number(match["whole"])) for part in re.findall(r"\d[\d,]*", parts)]
    return tuple(found)


def _plain_number(text: str) -> float:
    return float(text.replace(",", ""))


def fault(claim: Claim, facts: Facts) -> str | None:
    """What is wrong with a sentence, None if nothing is."""
    by_id = {item.evidence_id: item for item in facts.evidence}
    text = claim.text.strip().replace("\u00a0", " ").replace("\u202f", " ")
    if claim.part not in PARTS:
        return "unknown part"
    if not text or len(text) > _LONGEST or not text.isprintable() or _MARKUP.search(text) or not _is_plain(text):
        return "not short plain text"
    if not claim.evidence_ids or not set(claim.evidence_ids) <= by_id.keys():
        return "names no evidence, or evidence that does not exist"
    if claim.part == "next_step":
        return None if text == facts.suggestion else "not the suggested next step"
    cited = [_read(by_id[evidence_id]) for evidence_id in dict.fromkeys(claim.evidence_ids)]
    texts = [reading.item.text for reading in cited]
    more_words = " ".join(words_about(reading.item.code) for reading in cited)
    if codes := [code for code in _CODE.findall(text) if code != "UTC" and not any(code in one for one in texts)]:
        return f"names {codes[0]}, which its evidence does not"
    if judged := _JUDGED.search(text):
        if not any(re.search(rf"\b{judged.group()}\b", one, re.I) for one in texts):
            return "a judgement that is not in its evidence"
    if (future := _FUTURE.search(text)) and not any(future.group().lower() in one.lower() for one in texts):
        return "tells of the future"
    if more := unlicensed(_PHRASES.sub(" ", plain(text)), texts, more_words):
        return f"says more than its evidence: {', '.join(more[:3])}"
    zero = any(one.kind == "count" and one.value == 0 for reading in cited for one in reading.quantities)
    read = re.sub(r"\b(?:no|none)\b(?! \w*(?:longer|more))", "0", text, flags=re.I) if zero else text
    if found := _others_fault(text, texts) or _pairs_fault(plain(text), cited) or _balance_fault(plain(text), cited, facts):
        return found
    if found := overreach(plain(text), [reading.item for reading in cited], of_kind(facts, "contribution")):
        return found
    for reading in cited:
        if (needed := _NEEDED.get(reading.item.code.partition("_")[2])) and len(cited) == 1 and not needed.search(text):
            return "leaves out what its value is of"
        if "UNEXPLAINED" in reading.item.code and re.search(_UNUSUAL_WORDS, text, re.I) and len(cited) == 1:
            return "the opposite of its evidence"
        if (
            "UNUSUAL" in reading.item.code
            and re.search(r"\b(?:usual|normal|typical|ordinary) (?:\w+ )?amounts?\b", text, re.I)
            and len(cited) == 1
        ):
            return "the opposite of its evidence"
    return _sentence_fault(claim, _uncounted(read, cited), cited, facts)


def _sentence_fault(claim: Claim, text: str, cited: list[_Reading], facts: Facts) -> str | None:
    """What is wrong with the clauses of a sentence; in one about several items, a time may be another item than its neighbour."""
    first = None
    for joined in (True, False) if len(cited) > 1 else (True,):
        about, sided, found = None, [], None
        for clause in clauses(text, joined):
            found, about = _clause_fault(clause, cited, facts, about)
            if found:
                break
            if clause.side:
                sided.append(about)
        found = found or _part_fault(claim, sided, cited)
        if not found:
            return None
        first = first or found
    return first


_COUNT_OF_ITEMS = re.compile(
    r"\b(?:(?:these|those|the|both) )?(?P<n>two|three|four|five)(?: (?:\w+ )?(?:points|reasons|factors|signals|signs|facts|features|circumstances|things|indicators|contributions))?"
    r"(?= (?:speak|count|argue|weigh|point|push|add|stand|raise|lower|reduce|increase|support|are)\b)",
    re.I,
)


def _uncounted(text: str, cited: list[_Reading]) -> str:
    """The text without the number of its own items: "two points speak for fraud: ..."."""
    own = sum(reading.item.kind == "contribution" for reading in cited)

    def without(found: re.Match[str]) -> str:
        return "these" if float(plain(found["n"])) == own else found.group()

    return _COUNT_OF_ITEMS.sub(without, text)


_PHRASES = re.compile(
    r"\b(?:(?:it )?should be noted|in the space of|tips? the (?:balance|scales)|serves? as a|relative to|works? out at|paid by|works? against|the case (?:for|against) fraud|in relation to|point of sale|in its favou?r|set of|sets? apart|amount(?:s|ed|ing)? to|(?:comes?|came) to|leading up to|made up|makes? up|account(?:s|ed|ing)? for|(?:as )?we know|how often|fuels?(?= (?:the )?suspicion))\b",
    re.I,
)
_PLURALS = ("cards", "customers", "cardholders", "merchants", "shops", "stores", "devices", "phones")
_OTHER = re.compile(
    r"\b(?:other|another|different|second|same|several|multiple|many)[ -](?:cards?|cardholders?|customers?|merchants?|shops?|stores?|devices?|phones?|countr(?:y|ies)|pattern|alerts?|accounts?)\b",
    re.I,
)


def _others_fault(text: str, texts: list[str]) -> str | None:
    """Cards, customers and merchants other than those of the alert."""
    whole = " ".join(texts).lower()
    for plural in _PLURALS:
        if re.search(rf"\b{plural}\b", text, re.I) and not re.search(rf"\b{plural}\b", whole):
            family = "merchants" if plural in ("shops", "stores") else plural
            if family not in whole:
                return f"says more than its evidence: {plural}"
    if (match := _OTHER.search(text)) and not re.search(r"\b(?:other|different|same|cards|merchants|countries)\b", whole):
        if not re.fullmatch(r"same (?:merchant|shop|store|country|device|phone)", match.group(), re.I):
            return f"says more than its evidence: {match.group()}"
    return None


def _pairs_fault(text: str, cited: list[_Reading]) -> str | None:
    """What is told as a part of a whole is so in the evidence."""
    known = [pair for reading in cited for pair in reading.pairs]
    if not known:
        return None
    for part, whole in _pairs(text):
        if not any(abs(part - a) <= 0.1 * a and whole == b for a, b in known):
            return f"{part:.0f} of {whole:.0f} is not what its evidence says"
    return None


_WHOLE = re.compile(
    r"\b(?:out )?of (?:the|these|all|its|our)?(?: \d+)?(?: (?:strongest|main|top|most important))? (?:reasons|factors|signals|points)\b,?",
    re.I,
)
_SHARE = re.compile(
    r"\b(?<![\d:.,])(?P<n>none|no|all|every|each|most|majority|\d+)\s+(?:(?:of|the|them|strong|strongest|main|top|one|more|only|just|is|are|(?:reason|factor|signal|point|speak|count|argue|weigh|pull|push|lean|tell)s?)\s+)*(?P<side>for|towards?|to|against|away from) (?:fraud|it)\b",
    re.I,
)


_SHARE_AFTER = re.compile(
    r"\b(?P<side>for|towards?|to|against|away from) (?:fraud|it)\s+(?:(?:speaks?|counts?|argues?|points?|are|is|stands?)\s+)?(?:only\s+)?(?P<n>none|\d+)(?![\d.,:%])(?! (?:EUR|%|transactions|different|very|known|h\b|min|days|km))",
    re.I,
)


def _balance_fault(text: str, cited: list[_Reading], facts: Facts) -> str | None:
    """How many of the strongest reasons take a side, told from the item that counts them."""
    if not any(reading.item.kind == "balance" for reading in cited):
        return None
    signs = [(item.contribution or 0) > 0 for item in of_kind(facts, "contribution")]
    text = _WHOLE.sub(" ", text)
    for match in (*_SHARE.finditer(text), *_SHARE_AFTER.finditer(text)):
        said, against = match["n"].lower(), match["side"].lower() in ("against", "away from")
        if said in ("most", "majority"):
            if 2 * signs.count(not against) <= len(signs):
                return "counts the reasons of a side wrongly"
            continue
        wanted = signs.count(not against)
        number = 0 if said in ("none", "no") else len(signs) if not said.isdigit() else int(said)
        if number != wanted:
            return "counts the reasons of a side wrongly"
    return None


def _is_plain(text: str) -> bool:
    return all(one.isascii() or one in _TYPOGRAPHY for one in text)


_NORM = re.compile(r"\b(?:its|the|their|what is) (?:usual|normal|typical|average|norm)\b", re.I)


def _clause_fault(
    clause: Clause, cited: list[_Reading], facts: Facts, before: _Reading | None
) -> tuple[str | None, _Reading | None]:
    """What is wrong with a clause, and the item it is about; ``before`` is that of the clause before, for one that names nothing."""
    holding, missing = _holders(clause, cited)
    if missing is not None:
        return f"{missing.text!r} is not what its evidence says", None
    stems = frozenset(stem(word) for word in words(clause.text))
    telling = [one for one in stems if any(one in reading.stems for reading in cited)]
    reading = _closest(stems, holding) if clause.quantities or telling or before is None else before
    if before is not None and not clause.quantities and (clause.above or clause.below) and _NORM.search(clause.text):
        reading = before  # "..., above its usual rate"
    if (
        before is not None
        and before.item.normal is not None
        and {(one.role, one.kind in ("money", "count")) for one in clause.quantities if one.kind != "duration"}
        == {("usual", True)}
    ):
        if before not in holding:
            return "what is usual is told of something else", before
        reading = before
    if clause.quantities and len(cited) > 1:
        said = _PHRASES.sub(" ", clause.text)
        if other := unlicensed(said, [reading.item.text], words_about(reading.item.code)):
            return f"{other[0]} is told of a value that another item has", reading
    if not _anchored(clause, reading):
        return "says more than its evidence", reading
    for check in (
        _entity_fault,
        _word_fault,
        _own_fault,
        _quantifier_fault,
        _judgement_fault,
        _flag_fault,
        _negation_fault,
        _comparison_fault,
    ):
        if found := check(clause, reading):
            return found, reading
    return _side_fault(clause, reading) or _rank_fault(clause, reading, cited, facts), reading


def _anchored(clause: Clause, reading: _Reading) -> bool:
    """
    Whether a clause is about its evidence: it has a value, a side, a rank or a comparison, which are checked by themselves, or
    else it consists of the evidence's words and of words that say nothing alone.
    """
    item = reading.item
    timed = item.kind not in ("contribution", "baseline") or re.search(
        r"\b(?:ago|earlier|happened at)\b", item.text
    )  # else a duration is a mere window
    if any(timed or one.kind not in ("duration", "date", "clock") for one in clause.quantities) or clause.side or clause.rank:
        return True
    if (clause.above or clause.below) and item.value is not None:
        return True
    said = [word for word in words(_PHRASES.sub(" ", clause.text)) if len(word) > 1 and not is_empty(word)]
    return not unlicensed(" ".join(said), [item.text], words_about(item.code), strict=True)


def _closest(stems: frozenset[str], readings: list[_Reading]) -> _Reading:
    return max(readings, key=lambda reading: len(stems & reading.stems))


def _holders(clause: Clause, cited: list[_Reading]) -> tuple[list[_Reading], Quantity | None]:
    """The items that hold all quantities of a clause; or the quantity that is missing."""
    if not clause.quantities:
        return cited, None
    worst: tuple[int, Quantity] | None = None
    holding = []
    for reading in cited:
        missing = [one for one in clause.quantities if not _held(one, reading, clause)]
        if not missing:
            holding.append(reading)
        elif worst is None or len(missing) < worst[0]:
            worst = (len(missing), missing[0])
    return holding, None if holding else worst[1] if worst else clause.quantities[0]


def _held(said: Quantity, reading: _Reading, clause: Clause) -> bool:
    item = reading.item
    if item.kind == "case" and said.kind == "count" and said.value == 1:
        return True  # "one of the similar cases"
    counted = bool(re.search(r"\btransactions\b", clause.text, re.I)) and not re.search(
        r"\b(?:probability|likelihood|chance|risk)\b", clause.text, re.I
    )
    counted = counted and not said.role
    if (
        item.kind == "score"
        and said.kind == "percent"
        and not said.role
        and (said.hedge in ("over", "under") or clause.above or clause.below)
    ):
        if any(one.role == "threshold" and _rounds(structs.replace(said, hedge=""), one.value) for one in reading.quantities):
            return True  # "higher than 12.3 %" has only one thing to be compared with
    if not (item.kind == "score" and said.kind == "percent" and counted) and any(
        _same(said, one, reading, clause) for one in reading.quantities
    ):
        return True
    if (
        said.kind == "percent"
        and not said.role
        and (item.kind != "score" or counted)
        and any(_rounds(said, 100 * part / whole) for part, whole in reading.pairs if whole)
    ):
        return True
    if said.kind == "times" and item.value is not None and item.normal:
        return _rounds(said, item.value / item.normal)  # against what is usual: the item has both
    return False


def _same(said: Quantity, shown: Quantity, reading: _Reading, clause: Clause) -> bool:
    if said.kind != shown.kind:
        return False
    if said.role != shown.role and not (said.kind in ("times", "deviations") and shown.role in roles(clause.text)):
        alike = {said.role, shown.role} == {"mean", "usual"} and not {"mean", "usual"} <= reading.roles
        only = not said.role and said.kind in ("times", "deviations")  # of these an item has one
        plainly = reading.item.kind == "baseline" and said.role == "usual" and shown.role in ("", "mean")
        unexplained = "UNEXPLAINED" in reading.item.code and "usual" in (said.role, shown.role)  # of frauds of a usual amount
        if not (alike or only or plainly or unexplained):
            return False
    if said.kind == "case":
        return said.unit == shown.unit
    if said.kind == "date":
        return said.value == shown.value and said.unit in ("", shown.unit)
    if said.kind == "clock":
        return abs(said.value - shown.value) <= (30 if said.hedge == "about" else 0)
    if said.kind == "money" and said.unit != shown.unit:
        return False
    if said.kind == "count" and said.unit and shown.unit and said.unit != shown.unit:
        if {said.unit, shown.unit} != {"transactions", "frauds"} or "known to be fraud" not in reading.item.text:
            return False
    if shown.hedge == "about" and said.hedge not in ("about", "nearly"):
        return False
    return _rounds(said, shown.value)


def _rounds(said: Quantity, true: float) -> bool:
    """Whether what was said is a fair rounding of what is so, by its digits and its hedge."""
    gap = abs(said.value - true)
    if said.hedge == "about":
        return gap <= max(0.1 * abs(true), 1e-9)
    if said.hedge == "nearly":
        return true <= said.value + 1e-9 and gap <= 0.1 * abs(true) + 1e-9
    if said.hedge == "over":
        return true > said.value + (1e-9 if said.kind == "times" else -1e-9) and gap <= 0.2 * abs(true)
    if said.hedge == "under":
        return true < said.value + (-1e-9 if said.kind == "times" else 1e-9) and gap <= 0.2 * abs(said.value)
    return gap <= 0.5000001 * said.step and (gap <= 0.05 * abs(true) or gap < 1e-9)


def _entity_fault(clause: Clause, reading: _Reading) -> str | None:
    """Card and merchant are not to be taken for each other."""
    said = [stem(word) for word in words(clause.text)]
    card, merchant = (any(one in names for one in said) for names in (_CARD, _MERCHANT))
    has_card, has_merchant = bool(reading.stems & _CARD), bool(reading.stems & _MERCHANT)
    if (card or merchant) and reading.item.kind in ("score", "cases", "case") and not (has_card or has_merchant):
        return "tells of this card or merchant what is so of others"
    if card and not has_card and has_merchant and not merchant:
        return "tells of the card what is so of the merchant"
    if merchant and not has_merchant and (has_card or reading.item.kind != "contribution"):
        return "tells of the merchant what is so of the card"
    if card and merchant and has_card != has_merchant:
        first = next(one for one in said if one in _CARD or one in _MERCHANT)
        if (first in _CARD) != has_card:
            return "takes card and merchant for each other"
    if has_card and has_merchant and reading.item.code.startswith("CARD_"):
        if re.search(
            r"\b(?:merchant|shop|store|retailer)\b(?: \w+)? (?:had|has) (?:(?!been)\w+ ){0,2}(?:paid|used|bought|visited)|"
            r"\b(?:merchant|shop|store|retailer) (?:paid|used|bought|visited|dealt|pays)\b(?! by)",
            clause.text,
            re.I,
        ):
            return "takes card and merchant for each other"
    return None


_EXCLUSIVE = (  # a word of one side where the evidence has one of the other
    (re.compile(r"\b(?:first|earliest)\b(?! (?:time|reason|factor))", re.I), re.compile(r"\b(?:last|latest|most recent)\b(?! (?:\d|three|hour|day|week|month))", re.I)),
    (re.compile(r"\b(?:before|earlier|prior|previous|preceding)\b", re.I), re.compile(r"\b(?:after(?:wards)?|following|next|subsequent\w*)\b(?! (?:calibrat|data|fields|the following))", re.I)),
)  # fmt: skip
_UNUSUAL_WORDS = r"\b(?:unusual\w*|atypical\w*|abnormal\w*|uncharacteristic\w*|out of the ordinary|odd)\b"
_NEEDED = {  # what a value is of must be said with it, somewhere in the sentence
    "RECENT_TO_NORMAL": re.compile(r"\b(?:mean|averag\w*)\b", re.I),
    "HIGHEST_TO_NORMAL": re.compile(r"\b(?:high\w*|max\w*|peak\w*|larg\w*|top|bigg\w*|great\w*|earlier|up to|amounts)\b", re.I),
    "UNUSUAL_AMOUNTS": re.compile(_UNUSUAL_WORDS, re.I),
    "UNUSUAL_SINCE": re.compile(_UNUSUAL_WORDS, re.I),
    "LAST_UNUSUAL": re.compile(_UNUSUAL_WORDS, re.I),
}


def _word_fault(clause: Clause, reading: _Reading) -> str | None:
    """First for last, before for after: the one where the evidence has the other."""
    text = reading.item.text
    for one, other in _EXCLUSIVE:
        for said, shown in ((one, other), (other, one)):
            if said.search(clause.text) and shown.search(text) and not said.search(text) and not shown.search(clause.text):
                if said is _EXCLUSIVE[1][0] or (said is _EXCLUSIVE[0][1] and not re.search(r"SINCE|FIRST", reading.item.code)):
                    continue  # "earlier" and "last" are said of much that comes after nothing
                return f"says {said.search(clause.text)[0]!r} of what its evidence has the other way round"  # type: ignore[index]
    return None


def _own_fault(clause: Clause, reading: _Reading) -> str | None:
    """What only certain items need: whose value it is, and what goes with what."""
    item, text = reading.item, clause.text
    counts = [one for one in clause.quantities if one.kind == "count"]
    if re.search(r"% of (?:the |its |all )?(?:cards|customers|cardholders|merchants|shops)\b", text, re.I):
        return "a share of something else than its evidence's"
    if item.kind == "timeline":
        hour = any(one.kind == "duration" for one in clause.quantities) or re.search(r"\bhour", text, re.I)
        money = any(one.kind == "money" for one in clause.quantities)
        wholes = {whole for _, whole in reading.pairs} - {part for part, _ in reading.pairs}
        opening = len(counts) == 1 and re.match(r"\s*(?:out )?of\b", text, re.I)  # "of the last 8, 3 were ..."
        placed = re.search(r"\bin [A-Z]{2}\b", text) or any(cue.search(text) for cue in _OPPOSITES["CHANNEL"])
        if counts and not opening and (not hour or money or placed):
            return "tells of the card's last transactions what is so of this one"
        if money and not counts and re.search(r"\b(?:last|previous|earlier|latest)\b(?! (?:one|hour))", text, re.I):
            return "tells of the card's last transactions what is so of this one"
        if len(counts) == 1 and counts[0].value in wholes and not opening:
            return "tells of all of the card's last transactions what is so of some"
    plainly = re.sub(r"\bpresent (?:one|transaction|payment|purchase)", "", text, flags=re.I)
    if item.kind == "baseline" and (
        _OPPOSITES["CHANNEL"][1].search(plainly) or (_ALL.search(text) and _OPPOSITES["CHANNEL"][0].search(text))
    ):
        return "tells more of the card's transactions than its evidence"
    if item.kind == "score" and _HONEST.search(text):
        return "a probability of something else than fraud"
    if item.kind == "case":
        if any(one.step < 1 for one in counts) and not re.search(
            r"\b(?:similar\w*|resembl\w*|match\w*|alike|close\w*)\b", text, re.I
        ):
            return "a number that is not the similarity"
        if any(one.kind == "date" for one in clause.quantities) and re.search(
            r"\b(?:happened|occurred|took place|made|paid)\b", text, re.I
        ):
            return "a date that is not that of its closing"
        if re.search(r"\b(?:least|less|probability)\b", text, re.I):
            return "says more than its evidence"
    return None


def _quantifier_fault(clause: Clause, reading: _Reading) -> str | None:
    """What is said of all, most or none of the similar cases."""
    if reading.item.kind != "cases":
        return None
    found = {one.unit: one.value for one in reading.quantities if one.kind == "count"}
    if re.search(r"\bmixed\b", clause.text, re.I) and not (found.get("frauds") and found.get("legitimate")):
        return "not both among the cases"
    fraud, honest = bool(_FRAUD.search(clause.text)), bool(_HONEST.search(clause.text))
    if fraud == honest:
        return None
    count = {one.unit: one.value for one in reading.quantities if one.kind == "count"}
    own, other = (
        (count.get("frauds", 0.0), count.get("legitimate", 0.0))
        if fraud
        else (count.get("legitimate", 0.0), count.get("frauds", 0.0))
    )
    if clause.negated and not _NONE.search(clause.text):
        own, other = other, own
    counted = any(one.unit in ("frauds", "legitimate") for one in clause.quantities)
    if not own and not counted and not clause.negated and not any(not one.value for one in clause.quantities):
        return "none of the cases"
    if _ALL.search(clause.text) and not (own and not other):
        return "not all of the cases"
    if _MOST.search(clause.text) and own <= other:
        return "not most of the cases"
    if _NONE.search(clause.text) and own:
        return "some of the cases were"
    return None


def _judgement_fault(clause: Clause, reading: _Reading) -> str | None:
    """Fraud is found by people: a narrative may speak of its probability, of reports and of past cases."""
    rest = _RISK_TALK.sub(" ", clause.text)
    if _FRAUD.search(reading.item.text) and reading.item.kind != "case":
        rest = _REPORT_TALK.sub(" ", rest)
    if not (_FRAUD.search(rest) or _HONEST.search(rest)):
        return None
    if reading.item.kind == "case":
        if re.search(
            r"\b(?<!resembles this )(?<!matches this )(?<!like this )(?<!to this )(?:transaction|payment|purchase|customer|card|merchant)s?\b",
            clause.text,
            re.I,
        ):
            return "a judgement that is not in its evidence"
        told = bool(_FRAUD.search(clause.text)) != bool(_NOT_SO.search(clause.text))
        return None if told == bool(_FRAUD.search(reading.item.text)) else "another outcome than the case had"
    if reading.item.kind in ("cases", "score", "balance") or _FRAUD.search(reading.item.text):
        said = {one.unit for one in clause.quantities}
        counted = bool(
            any(one.kind in ("count", "percent") for one in clause.quantities)
            or any(cue.search(rest) for cue in (_ALL, _MOST, _NONE))
            or (reading.item.kind == "cases" and re.search(r"\bany\b", rest))
        )
        if counted or said & {"frauds", "legitimate"} or not _ASSERTED.search(rest):
            return None
    return "a judgement that is not in its evidence"


def _flag_fault(clause: Clause, reading: _Reading) -> str | None:
    """Yes and no: new or known, online or present, at night or by day."""
    item = reading.item
    if item.kind == "timeline":
        return _channel_fault(clause, reading)
    if item.kind == "novelty":
        unlike, like = bool(_UNLIKE.search(clause.text)), bool(_LIKE.search(clause.text))
        says = unlike != clause.negated if unlike else clause.negated
        return None if says or not (unlike or like) else "the opposite of its evidence"
    name = next((flag for flag in _FLAGS if item.code.endswith(flag)), None)
    if name is None or item.value is None:
        return None
    if name in _OPPOSITES:
        yes, no = _OPPOSITES[name]
        told = bool(yes.search(clause.text)), bool(no.search(clause.text))
        if told[0] == told[1]:
            return None
        says = (told[0] != clause.negated) != clause.contrast
    else:
        new, seen = bool(_NEW.search(clause.text)), bool(_SEEN.search(clause.text))
        if not (new or seen) or not (
            clause.negated
            or new
            or re.search(
                r"\b(?:before|already|previous\w*|earlier|known|familiar|past|history|had|has|been)\b", clause.text, re.I
            )
        ):
            return None
        says = new != clause.negated if new else clause.negated
    return None if says == bool(item.value) else "the opposite of its evidence"


def _channel_fault(clause: Clause, reading: _Reading) -> str | None:
    yes, no = _OPPOSITES["CHANNEL"]
    said, shown = (yes.search(clause.text), no.search(clause.text)), (yes.search(reading.item.text), no.search(reading.item.text))
    if bool(said[0]) == bool(said[1]) or bool(shown[0]) == bool(shown[1]):
        return None
    return None if (bool(said[0]) != clause.negated) == bool(shown[0]) else "the opposite of its evidence"


def _negation_fault(clause: Clause, reading: _Reading) -> str | None:
    """What is negated in the evidence is so in the sentence, and nothing else."""
    item = reading.item
    if item.kind == "case" and clause.negated and not _NOT_SO.search(clause.text):
        return "a negation that its evidence has not"
    if any(item.code.endswith(flag) for flag in _FLAGS) or item.kind in ("cases", "case", "balance", "novelty"):
        return None
    stems = frozenset(stem(word) for word in words(clause.text))
    overlap = [(len(stems & own), negated) for own, _, negated in reading.sentences]
    most = max(count for count, _ in overlap)
    if item.kind == "quality":
        return None if clause.negated or _LACKING.search(clause.text) else "leaves out a negation of its evidence"
    if most < 2 and not clause.negated:
        return None
    if not any(negated == clause.negated for count, negated in overlap if count == most):
        return "a negation that its evidence has not" if clause.negated else "leaves out a negation of its evidence"
    return None


def _comparison_fault(clause: Clause, reading: _Reading) -> str | None:
    """Above and below what is usual, by the item's own two values or by the ratio it states."""
    above = clause.above or any(one.hedge == "over" and (one.role or one.kind == "percent") for one in clause.quantities)
    below = clause.below or any(one.hedge == "under" and (one.role or one.kind == "percent") for one in clause.quantities)
    if above == below or "UNEXPLAINED" in reading.item.code:
        return None
    usual = (
        bool({one.role for one in clause.quantities} & {"usual", "mean", "highest"})
        or clause.contrast
        or bool(
            re.search(
                r"\b(?:usual\w*|normal\w*|typical\w*|average\w*|norm|than (?:for|its?|this)|unusual\w*|mean|highest|maximum|peak|largest)\b",
                clause.text,
                re.I,
            )
        )
        or (_VAGUE.search(clause.text) is not None and not _VAGUE.search(reading.item.text))
    )
    item = reading.item
    values = {one.role: one.value for one in reading.quantities if one.kind == "percent"}
    if item.kind == "score" and (
        re.search(r"\b(?:review|threshold|limit|mark|line|bar|point)", clause.text)
        or any(one.value == values.get("threshold") for one in clause.quantities)
    ):
        higher = values.get("", 0.0) >= values.get("threshold", 0.0)
        return None if higher == (above != clause.negated) else "compares the wrong way round"
    if any(one.hedge in ("over", "under") and one.role for one in clause.quantities) and not (usual and item.normal is not None):
        return None
    ratio = any(one.kind == "times" for one in reading.quantities)
    if re.match(r"\s*(?:normally|usually|typically)\b", clause.text, re.I) or (
        ratio and not usual and all(one.kind == "duration" for one in clause.quantities)
    ):
        return "a comparison that cannot be checked"  # of the usual with this, or of something else
    if not usual and (item.normal is None or any(one.hedge in ("over", "under") for one in clause.quantities)):
        return None
    higher_known: bool | None = None
    if item.normal is not None and item.value is not None:
        higher_known = item.value > item.normal
    elif item.value is not None and ratio:
        higher_known = item.value > 1
    elif item.value is not None and any(one.kind == "deviations" for one in reading.quantities):
        higher_known = item.value > 0
    if higher_known is None:
        return "a comparison that its evidence does not make"
    return None if higher_known == (above != clause.negated) else "compares the wrong way round"


def _side_fault(clause: Clause, reading: _Reading) -> str | None:
    contribution = reading.item.contribution
    if not clause.side:
        return None
    if reading.item.kind == "balance":
        return None
    if reading.item.kind in ("novelty", "rule", "hostile"):
        return None if clause.side > 0 else "a reason for fraud told as one against it"
    if reading.item.kind == "cases":
        count = {one.unit: one.value for one in reading.quantities}
        return (
            None
            if clause.side * (count.get("frauds", 0) - count.get("legitimate", 0)) > 0
            else "takes a side that its evidence does not"
        )
    if contribution is None:
        if reading.item.kind == "score" and clause.side > 0:
            return None
        return "takes a side that its evidence does not"
    if clause.side > 0 > contribution:
        return "a reason against fraud told as one for it"
    if clause.side < 0 < contribution:
        return "a reason for fraud told as one against it"
    return None


def _rank_fault(clause: Clause, reading: _Reading, cited: list[_Reading], facts: Facts) -> str | None:
    """The place among the contributions, overall or among those of its side."""
    if not clause.rank or reading.item.kind in ("balance", "cases", "case"):
        return None
    ranked = of_kind(facts, "contribution")
    if reading.item not in ranked:
        return "a rank that its evidence has not"
    positive = (reading.item.contribution or 0) > 0
    own = [item for item in ranked if ((item.contribution or 0) > 0) == positive]
    wanted = [order[clause.rank - 1 if clause.rank > 0 else -1] for order in (ranked, own) if len(order) >= abs(clause.rank)]
    together = [one.item for one in cited if one.item.kind == "contribution"]
    if clause.rank == 1 and len(together) > 1 and clause.plural and all(item in own[: len(together)] for item in together):
        return None  # "these two speak most for fraud"
    return None if reading.item in wanted else "another rank than its evidence has"


_PRONOUN = re.compile(
    r"\b(?:for|towards?|to|against|in favou?r of|away from) (?:it|that|this)\b(?! \w+(?:ly)? (?:card|merchant|transaction|payment))",
    re.I,
)


def _part_fault(claim: Claim, sided: list[_Reading | None], cited: list[_Reading]) -> str | None:
    """The parts that take a side by their heading: a reason of the other side must be told as one."""
    balanced = any(reading.item.kind == "balance" for reading in cited)
    if _PRONOUN.search(claim.text):
        sided = []  # "counts towards it" takes the side of what it stands under
    for reading in cited:
        if reading.item.kind != "contribution" or reading in sided:
            continue
        positive = (reading.item.contribution or 0) > 0
        if claim.part == "why_unusual" and not positive:
            return "a reason against fraud told as one for it"
        if claim.part == "speaks_against" and positive and not balanced:
            return "a reason for fraud told as one against it"
    return None


def check(narrative: Narrative, facts: Facts) -> list[tuple[Claim, str | None]]:
    """Each sentence with what is wrong with it. One that this program cannot read is refused like any other."""
    return [(claim, _read_or_refused(claim, facts)) for claim in narrative.sentences]


def _read_or_refused(claim: Claim, facts: Facts) -> str | None:
    try:
        return fault(claim, facts)
    except Exception:  # a narrative must never stop an explanation
        logger.exception("a sentence cannot be read")
        return "cannot be read"


def verified(narrative: Narrative, facts: Facts, writer: str, template: str) -> tuple[tuple[Sentence, ...], Verification]:
    """
    The narrative that may be shown: every sentence that passes, the template's in the place of those that do not.

    A part that lacks what the analyst must read there (``required``) gets the template's sentence for it; what goes beyond the
    budget of words is left out, the least important first.
    """
    usual = template_claims(facts).sentences
    needed = required(facts)
    shown: list[tuple[Claim, str]] = []
    checked = check(narrative, facts)
    reasons = [f"{claim.part[:40]}: {found}" for claim, found in checked if found]
    for part in PARTS:
        good = [claim for claim, found in checked if claim.part == part and not found]
        failed = [claim for claim, found in checked if claim.part == part and found]
        told = {evidence_id for claim in good for evidence_id in claim.evidence_ids}
        own = [claim for claim in usual if claim.part == part]
        in_place = {evidence_id for claim in failed for evidence_id in claim.evidence_ids}
        wanted = [claim for claim in own if claim.evidence_ids[0] not in told and claim.evidence_ids[0] in needed | in_place]
        if not good:
            wanted = own
            if own and not failed and narrative.sentences:
                reasons.append(f"{part}: missing")
        elif part == "next_step":
            wanted = []
        shown += [(claim, writer) for claim in good] + [(claim, template) for claim in wanted]
    kept = budgeted(shown, facts, BUDGET)
    return (
        tuple(
            Sentence(text=claim.text.strip(), evidence_ids=claim.evidence_ids, written_by=by, part=claim.part)
            for claim, by in kept
        ),
        Verification(checked=len(narrative.sentences), replaced=len(reasons), reasons=tuple(reasons)),
    )
