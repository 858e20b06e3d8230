"""
What a sentence says, as far as a checker must know it: quantities with units and roles, negations, ranks, the side it takes.

The same reading is applied to evidence and to what was written about it, so that the two can be compared item by item. It is
plain pattern matching over a controlled language: what it cannot read, ``explain.verification`` refuses.
"""

import re
from functools import lru_cache
from typing import Final

from msgspec import Struct, structs
from nltk.stem.snowball import EnglishStemmer

_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000}
_UNIT_OF: Final = {
    "s": "second", "sec": "second", "secs": "second", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour",
} | {form: unit for unit in _SECONDS for form in (unit, f"{unit}s")}  # fmt: skip
_MONTHS: Final = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_SYMBOLS: Final = {
    "€": "EUR",
    "$": "USD",
    "£": "GBP",
    "¥": "JPY",
    "euro": "EUR",
    "euros": "EUR",
    "dollars": "USD",
    "pounds": "GBP",
}
_WORDS: Final = [
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
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_TENS: Final = {
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
    "hundred": 100,
    "dozen": 12,
}
_COUNTED: Final = {
    "transactions": "transaction transactions purchase purchases payment payments charge charges use uses",
    "merchants": "merchant merchants shop shops store stores retailer retailers seller sellers",
    "countries": "country countries",
    "cases": "case cases match matches neighbour neighbours neighbor neighbors alert alerts example examples",
    "frauds": "fraud frauds fraudulent",
    "legitimate": "legitimate genuine honest innocent",
    "amounts": "amount amounts",
    "reasons": "reason reasons factor factors signal signals",
    "deviations": "sigma sigmas sd",
}  # fmt: skip
_CLASS: Final = {word: name for name, words in _COUNTED.items() for word in words.split()}
_HEDGES: Final = r"(?:about|around|roughly|approximately|nearly|almost)"
_NUMBER: Final = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_MONTH: Final = "|".join(f"{month[:3]}(?:{month[3:]})?" for month in _MONTHS)
_WITH_ROLE: Final = ("money", "count", "percent", "times", "deviations")
_NEAR: Final = 26  # characters between a count and the word that gives it a role
_WITHOUT_ROLE: Final = ("amounts", "cases", "frauds", "legitimate")
_COPULA: Final = re.compile(r"\b(?:was|were|is|are|being|turned out|proved|ended|closed as|confirmed)\b")

_FORMS: Final = [
    ("case", re.compile(r"\bal_[0-9a-z]+\b")),
    ("date", re.compile(r"\b(?P<y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})\b")),
    ("date", re.compile(rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<month>{_MONTH})\b\.?(?:,? (?P<y>\d{{4}}))?", re.I)),
    ("date", re.compile(rf"\b(?P<month>{_MONTH})\b\.? (?P<d>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,? (?P<y>\d{{4}}))?", re.I)),
    ("clock", re.compile(r"\b(?P<h>\d{1,2}):(?P<min>\d{2})(?: ?(?P<half>[ap])\.?m\b\.?)?", re.I)),
    ("clock", re.compile(r"\b(?P<h>\d{1,2}) ?(?P<half>[ap])\.?m\b\.?", re.I)),
    ("money", re.compile(rf"(?P<unit>\b[A-Z]{{3}}\b|[€$£¥]) ?(?P<n>{_NUMBER})")),
    ("money", re.compile(rf"(?P<n>{_NUMBER}) ?(?P<unit>€|\b[A-Z]{{3}}\b|\b(?:euros?|dollars|pounds)\b)")),
    ("percent", re.compile(rf"(?P<n>{_NUMBER})(?: ?%(?! points)| per ?cent\b(?! points))", re.I)),
    ("speed", re.compile(rf"(?P<n>{_NUMBER}) ?(?:km/h|kph|kilomet(?:re|er)s (?:per|an) hour)", re.I)),
    ("distance", re.compile(rf"(?P<n>{_NUMBER}) ?(?:km|kilomet(?:re|er)s)\b", re.I)),
    ("duration", re.compile(rf"(?P<n>{_NUMBER})[ -]?(?P<unit>{'|'.join(sorted(_UNIT_OF, key=len, reverse=True))})\b", re.I)),
    ("duration", re.compile(r"\b(?:an?|the|one|last|past|previous|preceding|per|same|single|that|this|each|every)(?: (?:last|past|previous|preceding|same|single))?[ -](?P<unit>minute|hour|day|week|month)\b(?!light|time| of the| at which| in which| when)", re.I)),
    ("count", re.compile(r"(?<=used )(?P<n>\d+) times\b", re.I)),
    ("times", re.compile(rf"\b(?:ratio|factor|multiple)\b[^.;,\d]{{0,60}}?(?: of| is| was| at|:) (?P<n>{_NUMBER})(?! ?%)", re.I)),
    ("times", re.compile(rf"(?P<n>{_NUMBER})(?:[ -]?(?:times|fold)\b| ?[x×](?![A-Za-z]))", re.I)),
    ("deviations", re.compile(rf"-?(?P<n>{_NUMBER})[ -]standard[ -]deviations?\b", re.I)),
    ("count", re.compile(rf"(?<![\w.])(?P<n>{_NUMBER})(?!\w)")),
]  # fmt: skip
_HEDGE: Final = re.compile(
    r"\b(?:(?P<about>about|around|roughly|approximately|some|circa|close to|approx\.?)|"
    r"(?P<nearly>nearly|almost|just under|just below|not quite)|"
    r"(?P<over>over|above|more than|at least|exceeds?|exceeding|just over|upwards of|greater than|higher than)|"
    r"(?P<under>under|below|less than|fewer than|lower than))"
    r"(?:\s+(?:the|a|an|its|their|this|that|of|every|each|card's|merchant's|usual|normal|typical|average|mean|highest|own|review|limit|threshold|start|mark|level|line)){0,6}\s*$",
    re.I,
)
_ROLES: Final = [
    ("threshold", re.compile(r"\b(?:(?:needed|required|set) (?:for|before) (?:a )?review|(?:mark|point|level|line) (?:where|at which|for|of) (?:a )?review|review (?:mark|point|bar)|review(?:ed|s)? (?:from|at|above|begins|beginning|starting|starts)|review (?:starts?|begins?|threshold|level|line|limit)|threshold|cut-?off|limit|starts? at|begins? at|starting (?:at|from|point))\b", re.I)),
    ("highest", re.compile(r"\b(?:highest|largest|biggest|maximum|max|at most|peak\w*|top amount|up to(?= (?-i:[A-Z]{3}|[€$£\d]))|no more than|never (?:more|above))\b", re.I)),
    ("mean", re.compile(r"\b(?:mean|averag\w*)\b", re.I)),
    ("usual", re.compile(r"\b(?:usual\w*|normal\w*|typical\w*|norm|habit\w*|ordinar\w+|customar\w+)\b", re.I)),
]  # fmt: skip
_NEGATIONS: Final = re.compile(
    r"\b(?:not|no|never|none|nor|neither|without|nothing|nobody|cannot|hardly|rarely|outside|lacks?|lacking|fails?|failed|absent|missing|unable)\b|n't\b",
    re.I,
)
_STANDARD: Final = (
    r"(?:\.(?=\s+(?-i:[A-Z0-9]))|:(?=\s+(?-i:[a-z]))|(?<=fraud):(?=\s)|,(?!\d)|[;()—–]| - |\b(?:and|but|while|whereas|although|though|yet|however|versus|vs\.?|compared (?:with|to)|"
    r"in contrast to|instead of|rather than|(?<!at )(?<!in )(?<!of )(?<!from )(?<!on )(?<!by )which|(?<!from )(?<!to )where|because|as opposed to|up from|down from|(?<!measured )against(?! (?:the )?(?:fraud|it\b|suspicion)))(?=\s))"
)
_CLAUSES: Final = re.compile(_STANDARD, re.I)
_OPENING: Final = re.compile(
    r"\s*(?:compared|relative|measured|since|in|within|over|at|for|with|based|because|according|looking|given|during|among|including|averaged|judging|"
    r"against|by|after|of|on|normally|usually|typically|as|across|from|taken|seen)\b",
    re.I,
)
_RELATIVE: Final = re.compile(r"\s*(?:relative|compared|measured|set) (?:to|with|against) what (?:is|was)\b[^,]*$", re.I)
_VERB: Final = re.compile(r"\b(?:took|was|were|is|are|had|has|have|happened|occurred|did|does|came|went|saw|fell)\b", re.I)
_PREDICATE: Final = re.compile(r"\s*(?:was|were|is|are|has|had)\b")
_AMOUNTS_TO: Final = re.compile(
    r"\s*(?:sits|stands|lies|comes|amounts) (?:at|to) \S*\d|\s*(?:sits|stands|comes) (?:at|to) [A-Z]{3}"
)
_CONTRAST: Final = re.compile(
    r"(?:versus|vs\.?|compared|in contrast|instead of|rather than|as opposed|up from|down from|against)", re.I
)

_RISK: Final = r"(?:risk|score|suspicion|probability|likelihood|chance|fraud|concern|alarm)(?: of (?:a )?fraud)?"
_UP: Final = r"(?:rais|increas|lift|driv|heighten|elevat|boost|strengthen)(?:ed|en)"
_DOWN: Final = r"(?:lower|reduc|decreas|eas|lessen|weaken|soften|temper|offset|mitigat|dampen|diminish)(?:ed|ened)"
_PRO: Final = re.compile(
    rf"\b(?:(?:speak|point|count|argue|weigh|tell|lean|pull|push|tip)(?:s|ed|ing)?(?: \w+){{0,2}} (?:for|to|towards?|in favou?r of) (?:fraud|it|suspicion|a fraud)\b|"
    rf"(?:rais|increas|lift|driv|heighten|elevat|boost|strengthen|push|add|contribut|support|feed|fuel|bolster|sharpen|tilt)\w*(?: \w+)? (?:\w+ ){{0,4}}?{_RISK}|"
    rf"(?:rais|increas|lift|driv|heighten|elevat|boost|strengthen|push)\w* (?:it|this) (?:up|higher)|"
    rf"(?:sign|signal|indicat\w*|hint|evidence|argument|reason|factor)s? (?:of|for|towards?|in favou?r of) fraud|suggest\w* fraud|"
    rf"{_RISK} (?:is|was|gets|becomes)(?: \w+)? {_UP}|{_RISK} (?:grows|rises|climbs|goes up)|concerning|risky|troubling|worr(?:y|ying|isome)|wary|cautio(?:n|us)|questionable|distrust|(?:attract|gain|warrant|invit|arous)\w* (?:\w+ ){{0,2}}suspicion|(?:grounds|cause|reason) for (?:suspicion|concern)|(?:intensif|fuel)\w* (?:\w+ ){{0,2}}{_RISK}|unfavourable|fraud(?: \w+){{0,2}} more (?:likely|probable|plausible)|more (?:likely|probable) to be fraud\w*|more suspicious|suspicious|in favou?r of fraud|towards? fraud|(?:higher|greater|more|added|extra|elevated) {_RISK})",
    re.I,
)
_CONTRA: Final = re.compile(
    rf"\b(?:(?:speak|point|count|argue|weigh|tell|lean|pull|push)(?:s|ed|ing)? (?:\w+ ){{0,2}}(?:against|away from) (?:fraud|it|suspicion|that)\b|against (?:fraud|suspicion)|"
    rf"away from fraud|(?:lower|reduc|decreas|eas|lessen|weaken|soften|temper|offset|mitigat|dampen|diminish|cut|pull)\w*(?: \w+)? (?:\w+ ){{0,4}}?{_RISK}(?: down)?(?! up| higher)|(?:tak|keep|bring)\w* (?:\w+ ){{0,4}}?{_RISK} (?:down|away)|"
    rf"{_RISK} (?:is|was|gets|becomes)(?: \w+)? {_DOWN}|fraud(?: \w+){{0,2}} less (?:likely|probable|plausible)|less (?:likely|probable) to be fraud\w*|works? against(?: the)? fraud(?: hypothesis)?|(?:weakens?|against) the case for fraud|(?:point|argument|factor) in (?:its|the \w+'s) favou?r|reassur\w*|less suspicious|{_RISK} (?:falls|declines|drops|shrinks|goes down|comes down)|mitigat\w*|exonerat\w*|comfort\w*|credib\w*|reliev\w*|attenuat\w*|detract\w* from (?:the |any )?{_RISK}|(?:sign|evidence|argument|indication|favou?r|towards?) (?:of |for )?(?:its )?legitimacy|(?<!un)favourable|(?:lower|smaller|less|reduced) {_RISK}|"
    rf"(?:speak|point|count|argue|weigh|lean)(?:s|ed|ing)? (?:for|to|towards?|in favou?r of) (?:a |the )?(?:legitima\w+|genuin\w+|honest\w*)(?: (?:use|purchase|transaction|payment|customer))?|"
    rf"(?:supports?|suggests?|consistent with|favou?rs?) (?:a )?(?:legitima\w+|genuine|honest)(?: (?:use|purchase|transaction|payment|customer))?)",
    re.I,
)
_REASONS: Final = r"(?:reasons?|factors?|signals?|drivers?|contributions?|contributors?|arguments?|indicators?|points?|signs?|evidence|pieces?|influence|features?|pointers?|considerations?|circumstances?|clues?|facts?|indications?|elements?|findings?)"
_RANK: Final = re.compile(
    r"\b(?:number (?:one|1)|(?P<ordinal>first|second|third|fourth|fifth|sixth|seventh)?[ -]?(?:most \w+|strongest|main|top|biggest|largest|leading|primary|heaviest|greatest|weightiest|chief|principal|dominant|best|clearest|foremost)|"
    r"(?P<only>first|second|third|fourth|fifth|sixth|seventh)|(?P<last>weakest|least(?: \w+)?|smallest|minor|slightest))[ -]"
    rf"(?:single )?(?:\w+[ -]){{0,2}}?{_REASONS}\b|"
    rf"\b(?:ranks?|ranked|ranking|comes?|came|placed?|standing|stands?) (?:as )?(?:number )?(?P<place>first|second|third|fourth|fifth|sixth|seventh|top|highest|last)\b|"
    rf"\btop(?:s|ping|ped) the (?:list|ranking|reasons)\b|\b(?:heads?|heading|leads?|leading) the (?:list|ranking|reasons)\b|"
    rf"\b(?:weigh|count|matter|contribut|speak|add|push|point|argue|stand)\w* (?:the )?most\b(?: heavily| strongly| clearly)?|\bmore (?:[\w']+ ){{0,5}}?than (?:any(?:thing)?|all|every(?:thing)?)\b|\babove all\b|\bmost of all\b|\b(?:chief|first|foremost|standing out|stands out)(?: (?:most|clearly))? among\b|\b(?:at|to) the (?:head|top|forefront) of\b|\b(?:strongest|weightiest|heaviest)\b|highest-ranked|\btop of the (?:list|ranking|reasons)\b|\bthe (?:greatest|biggest|largest|main|heaviest)(?= (?:is|being|comes|reduction|increase|effect|contribution)\b)|\bmost(?= is\b|\s*$)|\bmost (?:heavily|strongly|forcefully|decisive\w*|telling|striking|important|significant|notable|clearly|indicative|suspicious\w*|suggestive|compelling|convincing|persuasive|persuasively|weighty|serious|alarming|worrying|concerning|reassuring|damning|powerful\w*|relevant|prominent\w*|to (?:raise|lower|increase|reduce|the))\b|\bthe most\b(?! (?:recent|similar|alike|like|closely|comparable))|\bdoes (?:more|most)\b|\bdominat\w+|\b(?:greatest|most|heaviest) weight\b|\bkey (?:reason|factor|driver|signal)\b|\bdrivers? of (?:this|the) alert\b|\bis due to\b|\bfirst and foremost\b|\bchiefly\b|\bprimarily\b|\bforemost\b",
    re.I,
)
_TOGETHER: Final = re.compile(
    r"\b(?:speak|count|argue|weigh|point|push|raise|lower|reduce|increase|are|reasons|factors|signals|signs|points|these)\b", re.I
)
_ORDINALS: Final = {
    word: number for number, word in enumerate(("first", "second", "third", "fourth", "fifth", "sixth", "seventh"), 1)
}
_ABOVE: Final = re.compile(
    r"\b(?:above|exceed\w*|surpass\w*|higher|larger|bigger|greater|more|outpac\w*|rise|rose|risen|(?:does|do|did) reach|over(?= (?:that|its|the (?:usual|normal|mean|average|highest)))|elevated|faster|longer|(?:further|farther)(?= (?:than|away|from|apart))|beyond|steep\w*|jump\w*|surg\w*|spik\w*|dwarf\w*|high|large|big|busier|busy|burst|above-average|heavy|heavier|intense)\b",
    re.I,
)
_BELOW: Final = re.compile(
    r"\b(?:below|lower|smaller|less|fewer|beneath|short of|under(?= (?:that|this|its|the (?:card's |merchant's )?(?:\d+ \w+ )?(?:usual|norm\w*|mean|average|highest)))|slower|shorter|low|small|modest|quiet|quieter|calmer|below-average|little|light|lighter)\b",
    re.I,
)
# what is said in other words, as the words that are read; each applies to what those before it made
_PLAIN: Final = [
    (re.compile(pattern, re.I), to)
    for pattern, to in (
        (r"\b(?:(?:did|does|do) not|didn't|never) (?:exceed\w*|surpass\w*|(?:go(?:es)?|went|rose|rise) (?:above|over|beyond))|\b(?:no|not) more than\b", "at most"),
        (r"\b(?:none of|no)\b([^.;]{0,80}?)\b(?:was|were|is) (?:higher|larger|greater|more|bigger) than\b", r"\1 at most"),
        (r"\bno\b([^.;,]{0,40}?)\b(?:exceed(?:ed|s)|(?:went|is|was) above)\b", r"\1 at most"),
        (r"\b(?:(?:does|did|do) not|doesn't|didn't) (?:reach|attain|get to|come up to)\b", "is below"),
        (r"\b(?:nothing(?: else)?|no (?:other|single)? ?(?:\w+ )?(?:reason|factor|point|signal|feature|fact|element|circumstance|argument|consideration)s?) " r"([^.;,]{1,80}?) (?:more(?: (\w+))? than|(?:as|so) (?:much|(?:strong|heavi|clear|forceful)\w*) as)\b", r"most of all \1 \2"),
        (r"\bthe (?:hour|time),? (?:of )?(?=\d\d?:\d\d)", "the time at "),
        (r"\b(between [^.,;]{1,60}?) and ", r"\1 & "),
        (r"\bone of the (?=things|rules|reasons|factors|signals|signs|points|features|arguments|considerations|circumstances)", "among the "),
        (r"\b(?:looking at|among|within|of) the (?:card's )?last (\d+) transactions(?: of (?:the|this) card)?, (\d+)\b", r"\2 of the card's last \1 transactions"),
        (r"\b(?<!fraud )count of (?=\d)", ""),
        (rf"\breview (?:starts|begins): ({_NUMBER} ?%) (?:against|versus|vs\.?) ({_NUMBER} ?%)", r"review: \1, which starts at \2"),
        (r"\bmore than half of\b", "most of"),
        (r"\bwithout exception\b", "all"),
        (r"\bas (?:high|large|big|great|much|many|active|busy|long|far)\b(?: as\b)?", " "),
        (r"\b(?:twice|(?:is |was |are )?doubles?(?: that of)?|doubled)\b", "2 times"),
        (r"\b(?:thrice|triples?|tripled)\b", "3 times"),
        (r"\b(?:quadruples?|quadrupled)\b", "4 times"),
        (r"\bhalf(?: of)?(?= (?:its|the|this|that|what|as))", "0.5 times"),
        (r"\b(?:a |one )(?=hundred|dozen)", ""),
        (r"\bnot (?:a single|one)\b", "no"),
        (r"\b(?:a single|only one|just one|exactly one|a lone)\b", "1"),
        (r"(?<!every )(?<!each )(?<!any )(?<!no )(?<!highest )(?<!largest )(?<!last )(?<!latest )(?<!first )(?<!earlier )\bone(?= (?:of\b|transaction|purchase|payment|merchant|case|countr|fraud|legitimate|genuine|different|hour|day|week|minute|very|small|other))", "1"),
    )
]  # fmt: skip
_SPELT: Final = re.compile(rf"\b(?P<word>{'|'.join(word for word in (*_WORDS, *_TENS) if word != 'one')})(?P<fold>fold)?\b", re.I)


class Quantity(Struct, frozen=True):
    """
    A number as it was said: ``kind`` and ``unit`` (currency, or what is counted), ``value`` in base units (seconds for durations,
    minutes for clocks), ``step`` the value of its last digit in the same units, ``hedge`` and ``role`` (of what it is the value).
    """

    kind: str
    value: float
    step: float = 1.0
    unit: str = ""
    hedge: str = ""
    role: str = ""
    text: str = ""


class Clause(Struct, frozen=True):
    """A part of a sentence that makes one statement; ``side`` is +1 for fraud, -1 against, 0 where it takes none."""

    text: str
    quantities: tuple[Quantity, ...]
    negated: bool
    side: int
    rank: int
    above: bool
    below: bool
    contrast: bool
    plural: bool


_stemmer = EnglishStemmer()


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """The stem of a lower-case word, by Porter's second algorithm."""
    return str(_stemmer.stem(word))


def words(text: str) -> list[str]:
    """The words of a text in lower case; numbers, codes and identifiers are not words."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", re.sub(r"\bal_[0-9a-z]+\b", " ", text).lower().replace("’", "'"))


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """Number words as digits; "twice" as "2 times"."""
    text = text.replace("’", "'").replace("\u202f", " ").replace("\u00a0", " ").replace("−", "-")
    for pattern, to in _PLAIN:
        text = pattern.sub(to, text)
    return _SPELT.sub(_digits, text)


def _digits(found: re.Match[str]) -> str:
    word = found["word"].lower()
    number = _WORDS.index(word) if word in _WORDS else _TENS[word]
    return f"{number} fold" if found["fold"] else str(number)


def quantities(text: str, role: str = "") -> list[Quantity]:
    """The quantities of a clause in ``plain`` text, in order; ``role`` for those that no word gives another."""
    found: list[tuple[int, int, Quantity]] = []
    for kind, form in _FORMS:
        for match in form.finditer(text):
            if any(match.start() < end and begin < match.end() for begin, end, _ in found):
                continue
            one = _quantity(kind, match)
            if one is not None:
                hedge = _HEDGE.search(text[: match.start()])
                found.append((match.start(), match.end(), structs.replace(one, hedge=_named(hedge))))
    found.sort(key=lambda entry: entry[0])
    told = []
    for number, (begin, end, one) in enumerate(found):
        unit, own_role = one.unit, ""
        if one.kind == "count":
            unit = _counted(text, end, [later for later, _, _ in found[number + 1 :]], found, number)
        if one.kind in _WITH_ROLE and unit not in _WITHOUT_ROLE:
            reach = _NEAR if one.kind == "count" else len(text)
            others = [
                (b, e)
                for b, e, other in found
                if other.kind in _WITH_ROLE and (b, e) != (begin, end) and (one.kind == "count" or other.kind != "count")
            ]
            own_role = _role(text, begin, end, others, one.kind == "times", reach) or role
        told.append(structs.replace(one, unit=unit, role=own_role))
    return told


def roles(text: str) -> set[str]:
    """The roles that the words of a text name."""
    return {name for name, cue in _ROLES if cue.search(text)}


def _role(text: str, begin: int, end: int, others: list[tuple[int, int]], is_ratio: bool, reach: int) -> str:
    """
    What a quantity is the value of: by the nearest cue before it, else after it unless that is the next quantity's. A ratio is to
    what follows it.
    """
    left = max((e for _, e in others if e <= begin), default=0)
    right = min((b for b, _ in others if b >= end), default=len(text))
    left, right = max(left, begin - reach), min(right, end + reach)
    before = [(match.end(), name) for name, cue in _ROLES for match in cue.finditer(text, left, begin)]
    after = [(match.start(), match.end(), name) for name, cue in _ROLES for match in cue.finditer(text, end, right)]
    if is_ratio and after:
        return min(after)[2]
    if before:
        at, name = max(before)
        if left == 0 or begin - at <= at - left or right != len(text):
            return name
        return name if not any(b < at for b, _ in others) or begin - at <= 12 else ""
    if after:
        at, until, name = min(after)
        if not any(b >= end for b, _ in others) or at - end <= right - until:
            return name
    return ""


def _named(match: re.Match[str] | None) -> str:
    return next((name for name, value in match.groupdict().items() if value), "") if match else ""


def _quantity(kind: str, match: re.Match[str]) -> Quantity | None:
    said, groups = match.group(), match.groupdict()
    if kind == "case":
        return Quantity(kind, 0.0, unit=said, text=said)
    if kind == "date":
        month = int(groups["m"]) if groups.get("m") else 1 + [name[:3] for name in _MONTHS].index(groups["month"][:3].lower())
        return Quantity(kind, float(month * 100 + int(groups["d"])), unit=groups["y"] or "", text=said)
    if kind == "clock":
        hours = int(groups["h"])
        if half := groups.get("half"):
            hours = hours % 12 + (12 if half.lower() == "p" else 0)
        return Quantity(kind, float(hours * 60 + int(groups.get("min") or 0)), text=said)
    number = (groups.get("n") or "1").replace(",", "")
    decimals = len(number.partition(".")[2])
    value, step, unit = float(number), 10.0**-decimals, ""
    if kind == "duration":
        seconds = _SECONDS[_UNIT_OF[groups["unit"].lower()]]
        value, step = value * seconds, step * seconds
    elif kind == "money":
        unit = groups["unit"]
        unit = _SYMBOLS.get(unit.lower(), unit)
        if not unit.isupper():
            return None
    return Quantity(kind, value, step, unit, text=said)


def _counted(text: str, end: int, later: list[int], found: list[tuple[int, int, Quantity]], number: int) -> str:
    """What a count counts: the noun that follows it, or what its predicate says where "x of y" has one."""
    rest = text[end : later[0]] if later else text[end:]
    inner = number > 0 and bool(
        re.fullmatch(r"(?:\W*(?:out )?of\W*(?:\w+\W+){0,4}|\W*in\W*)", text[found[number - 1][1] : found[number][0]])
    )
    outer = bool(later) and bool(re.fullmatch(r"\W*(?:(?:out )?of|in(?! total))\W*(?:[\w']+\W+){0,4}", rest))
    if outer:
        rest = text[found[number + 1][1] :]
        if copula := _COPULA.search(rest):
            after = rest[copula.end() :]
            if name := _first_class(re.split(r"\d", after)[0]):
                return name
        name = _first_class(rest)
        told = re.findall(r"\b(?:frauds?|fraudulent|legitimate|genuine)\b", text[: found[number][0]], re.I)
        return _CLASS[told[-1].lower()] if told and name in ("cases", "") else name
    if inner and (copula := _COPULA.search(rest)):
        rest = rest[: copula.start()]
    if name := _first_class(rest):
        return name
    before = text[found[number - 1][1] if number else 0 : found[number][0]]
    told = re.findall(r"\b(?:frauds?|fraudulent|legitimate|genuine)\b", before, re.I)
    return _CLASS[told[-1].lower()] if told and not inner else ""


def _first_class(text: str) -> str:
    return next((_CLASS[word] for word in words(text)[:7] if word in _CLASS), "")


def side(text: str) -> tuple[int, str]:
    """Which side a clause takes, and the clause without the words that take it."""
    for pattern, sign in ((_CONTRA, -1), (_PRO, +1)):
        if match := pattern.search(text):
            before = text[: match.start()]
            near = before[-30:]
            negated = len(_NEGATIONS.findall(near)) % 2
            kept = before[:-30] + (_NEGATIONS.sub(" ", near) if negated else near)
            return (-sign if negated else sign), f"{kept} {pattern.sub(' ', text[match.end() :])}"
    return 0, text


@lru_cache(maxsize=4096)
def clauses(text: str, joined: bool = True) -> tuple[Clause, ...]:
    """
    The clauses of a sentence. A clause of nothing but a time belongs to its neighbour where they are ``joined``; one without a verb
    takes the side of those it is listed with.
    """
    pieces: list[tuple[str, str]] = []  # separator before it, text
    at, separator = 0, ""
    whole = re.sub(rf"\(((?:{_HEDGES} )?(?:[A-Z]{{3}} |[€$£])?{_NUMBER}(?: ?[%\w/]+){{0,2}}|\w+)\)", r" \1 ", plain(text))
    for match in _CLAUSES.finditer(whole):
        pieces.append((separator, whole[at : match.start()]))
        at, separator = match.end(), match.group()
    pieces.append((separator, whole[at:]))
    merged: list[tuple[str, str]] = []
    held = ""
    for number, (mark, piece) in enumerate(pieces):
        if not piece.strip():
            continue
        said = quantities(piece)
        opening = (
            not merged
            and (not _VERB.search(piece) or _RELATIVE.match(piece))
            and number + 1 < len(pieces)
            and pieces[number + 1][0] == ","
        )
        if opening and not side(piece)[0] and not any(one.kind not in ("duration",) for one in said):
            if len(piece.split()) <= 6 or _OPENING.match(piece) or _CONTRAST.match(mark.strip()):
                held = f"{held} {piece}" if held else piece
                continue
        if merged and _goes_on(mark.strip(), piece, said, merged[-1][1]):
            merged[-1] = (merged[-1][0], f"{merged[-1][1]} {piece}")
            continue
        if (
            joined
            and said
            and all(one.kind in ("duration", "date", "clock") for one in said)
            and len(words(piece)) <= 7
            and not _VERB.search(piece)
            and not side(piece)[0]
        ):
            if merged and mark.strip() in (",", "and", "(") and number == len(pieces) - 1:
                merged[-1] = (merged[-1][0], f"{merged[-1][1]} {piece}")
                continue
            if not merged and mark == "":
                held = piece
                continue
        merged.append((mark, f"{held} {piece}" if held else piece))
        held = ""
    if held:
        merged.append(("", held))
    return tuple(_listed([_clause(mark, piece) for mark, piece in merged], [mark for mark, _ in merged]))


def _goes_on(mark: str, piece: str, said: list[Quantity], before: str) -> bool:
    """Whether a piece of a sentence states the value of what stands before it, or is its predicate."""
    if len(said) == 1 and len(words(said[0].text)) >= len(words(piece)) - 1 and mark in (",", "(", "–", "-", "—"):
        return True
    if mark == "," and _PREDICATE.match(piece):
        return True
    apposed = said and not _VERB.search(piece) and piece.strip().startswith(said[0].text) and said[0].kind in _WITH_ROLE
    if (mark == "," and apposed) or (mark == "which" and _AMOUNTS_TO.match(piece)):
        return all(one.kind == "duration" for one in quantities(before))  # "the mean amount, EUR 5.00 within 1 day"
    return False


def _listed(found: list[Clause], marks: list[str]) -> list[Clause]:
    """Clauses with the side of a list given to each of its members: "A and B speak against fraud", "against fraud speak A and B"."""
    pairs = [(at, at - 1, at) for at in range(1, len(found))]
    pairs += [(at, at + 1, at + 1) for at in range(len(found) - 2, -1, -1)]
    for at, beside, mark in pairs:
        if found[beside].side and not found[at].side and marks[mark].strip().lower() in (",", "and", ""):
            if not _VERB.search(found[at].text):
                found[at] = structs.replace(found[at], side=found[beside].side)
    return found


def _clause(mark: str, text: str) -> Clause:
    taken, rest = side(text)
    contrast = bool(_CONTRAST.match(mark.strip()))
    rank = 0
    if match := _RANK.search(text):
        rank = (
            -1
            if match["last"] or match["place"] == "last"
            else _ORDINALS.get((match["ordinal"] or match["only"] or match["place"] or "first").lower(), 1)
        )
        rest = rest.replace(match.group(), " ")
    return Clause(
        text=rest,
        quantities=tuple(quantities(rest, "usual" if contrast else "")),
        negated=len(_NEGATIONS.findall(rest)) % 2 == 1,
        side=taken,
        rank=rank,
        above=bool(_ABOVE.search(rest)),
        below=bool(_BELOW.search(rest)),
        contrast=contrast,
        plural=bool(_TOGETHER.search(text)),
    )
