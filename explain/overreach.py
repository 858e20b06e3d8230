"""
What careless narratives add to a fact without a number or a word of their own: "the only fraud" for the last one, a customer who
reports, a merchant who defrauds, a usual hour that nobody knows.

Each pattern here passed a check of words, numbers and sides, and is false of the evidence it was said of. It is refused unless the
evidence says it too.
"""

import re
from collections.abc import Sequence
from typing import Final

from core.messages import EvidenceItem

_PAID: Final = r"(?:transactions?|payments?|purchases?|charges?)"
_THIS: Final = rf"(?:this|the|the present|the current) (?:one|{_PAID})"
_PEOPLE: Final = r"(?:cardholder|customer|client|holder|somebody|someone|anyone|others?)"

_MOST_SIMILAR: Final = re.compile(r"\bthe (?:most similar|closest|nearest|most alike)\b(?! (?:\w+ )?cases)", re.I)
_IS_MOST_SIMILAR: Final = re.compile(r"\bal_\w+ (?:is|was) the (?:most similar|closest|nearest)\b", re.I)
_ALONE: Final = "says that there is nothing else"

# of which items by the end of their code ("" for all), what is refused, and how that is told
_ADDED: Final = [
    (re.compile(rf"(?:{codes})$"), re.compile(pattern, re.I), why)
    for codes, pattern, why in (
        ("", rf"\b(?:this|the) {_PAID} (?:was|is|has been|had been|were) (?:also |already |then )?(?:reported|known|confirmed|found|recogni[sz]ed|identified|flagged as)\b", "tells a finding about this transaction"),
        ("", rf"\b{_PEOPLE} (?:\w+ )?(?:report|found|find|question|notice|confirm|claim|regard|consider|recogni|expect|ask|want|need|is|was|has|had been|away)\w*|\bother than the (?:cardholder|customer)|\b(?:somebody|someone) else\b|\bby (?:this|the|a|its) (?:customer|cardholder|holder)", "tells something of the customer"),
        ("DISTANCE|TRAVEL_SPEED", rf"\b{_PEOPLE}\b|\b(?:usual|normal|typical|home) (?:place|location)|\bfrom the card\b(?!')", "tells where somebody is"),
        ("", r"\b(?:only|sole|solely|exclusively|nothing but|just)\b(?! (?:about |around |some |roughly |(?-i:[A-Z]{3} )|[€$£]|\d|the (?:time|hour|night|weekend)|in |within |over |at |by |slightly |below|above|under|over|part|half|after|before|moderately|marginally|little|few|once|twice|an?\b))", _ALONE),
        ("", r"\bonly (?:a |an |the |known |last |first |1 (?!of|very|hour|day|transaction|amount|merchant|different|countr|min|km|known|fraud|was|legit|\d))*(?:reason|factor|fraud|known fraud|device|merchant|country|rule)\b(?!s)", _ALONE),
        ("", r"\b(?:nothing|everything|all (?:the |of the )?(?:signs|signals|reasons|factors|evidence|indicators))\b[^.;,]*\b(?:speaks?|points?|counts?|argues?|weighs?|suggests?)\b", _ALONE),
        ("", r"\bno information\b(?! (?:was |is )?(?:\w+ )?(?:for|about|on)\b)|\bnothing was (?:given|supplied|provided)\b", "says that there is nothing"),
        ("", r"\bthan (?:all|the) (?:\w+ )*(?:together|combined)\b|\bmore than all\b", "adds up reasons"),
        ("", r"\b(?:risk|probability|likelihood|chance|odds|suspicion|score)\b[^.;,:]{0,40}? \d[\d.]* times\b", "multiplies a risk"),
        ("", r"\bby (?:about |around )?(?:[A-Z]{3} |[€$£])\d|\bby \d[\d.]* ?%|\d (?:\w+ )?(?:more|fewer|less) than\b", "tells a difference as a value"),
        ("", rf"\b(?:previous|last|earlier|preceding|\d+) (?:alerts?|attempts?)\b|\bflagged (?:transactions|payments|purchases|charges)|\b{_PAID}(?: \w+){{0,6}} were flagged", "tells of alerts"),
        ("VELOCITY|SPEND|BURST|PAST_FRAUD|SMALL_AMOUNTS|REPORTS|CARD_NORMAL|MERCHANT_NORMAL|UNUSUAL_AMOUNTS", rf"\b(?:(?:suspicious|rapid|equal|identical|risky|large|high-value|similar|normal|usual|unusual) {_PAID}\b|\d (?:small|online|international|foreign) {_PAID}\b)|\b(?:were|was) (?:suspicious|normal|rapid)|\bonly \d+ were\b", "gives what is counted a quality"),
        ("MANY_MERCHANTS|MANY_COUNTRIES", r"\b(?:new|risky|unusual|suspicious|unfamiliar|unknown|high-risk) (?:merchants?|countr)", "gives what is counted a quality"),
        ("FRAUD|REPORTS|REPORT_SHARE|FRAUD_SHARE|FRAUD_SINCE", r"\b(?:merchant|shop|store|retailer|it) (?:has |had |itself )?(?:carried out|made|committed|caused|reported|performed|executed|did|produced)\b|\b(?:is|was|stands) (?:behind|the cause|involved|responsible)", "makes the merchant the one who did it"),
        ("REPORTS|REPORT_SHARE|FRAUD|FRAUD_SHARE", rf"\b(?:including|this {_PAID} included|this one included|counting this|among them this)|\bon this card\b|\bof this card\b|\bcustomers?\b", "counts this transaction among the frauds"),
        ("(?<!FRAUD_SINCE)(?<!UNEXPLAINED_FRAUD)LAST_FRAUD|LAST_UNEXPLAINED_FRAUD", r"\b(?:began|begun|beginning|start(?:s|ed|ing)?|only|sole|for \d)\b", "says of the last what would be so of the first"),
        ("FRAUD_SINCE|UNUSUAL_SINCE", r"\b(?:end(?:s|ed)|stopp?(?:s|ed)|ceased|only|sole)\b", "says of the first what would be so of the last"),
        ("UNEXPLAINED_FRAUD|UNEXPLAINED_FRAUD_SHARE|UNEXPLAINED_FRAUD_SINCE|LAST_UNEXPLAINED_FRAUD", r"\b(?:usual|normal|typical|ordinary) (?:for|at) (?:this|the|its) (?:merchant|shop|store)|\bbecause (?:their|the) amounts|\blike this\b", "says for whom the amounts were usual otherwise than its evidence"),
        ("SPEND", rf"\b{_THIS} (?:of|was|is|at|for|comes|came|amounts)\b", "tells of this transaction what is so of a sum"),
        ("MEAN_AMOUNT|HIGHEST_AMOUNT|SPEND|NORMAL", rf"\b(?:this|the) (?:amount|{_PAID}) (?:equals|matches|corresponds|is the same|is equal|is like)", "compares with what its evidence does not have"),
        ("AMOUNT_TO_MEAN|AMOUNT_TO_NORMAL|AMOUNT_TO_HIGHEST|RECENT_TO_NORMAL|HIGHEST_TO_NORMAL", r"\btimes (?:the|this) (?:amount|payment|transaction|purchase)\b(?! (?:that|which|normal|usual|typical|of|it))", "turns a ratio round"),
        ("HABIT|SHARE", rf"\b(?:like|as|just as) \d[\d.]* ?%|, (?:and )?(?:so )?this (?:one|{_PAID})\b|\bmost of (?:the|its|them|these|those|this)\b|\bmajority\b", "tells more than the share"),
        ("TIME_OF_DAY|WEEKDAY|WEEKEND|NIGHT", r"\bfraud (?:is|was) (?:\w+ )?(?:more|less) (?:likely|common|frequent|probable)\b", "tells when frauds happen"),
        ("TIMELINE", r"(?-i:[A-Z]{3}) \d[\d,.]* (?:was |were )?(?:\w+ )?in the hour\b|\b(?:several|multiple|many|repeated|series)\b|\b(?:transactions|payments|purchases|charges) (?:of|totalling|totaling|worth|amounting to) [A-Z]{3}|\bfirst time\b", "makes one transaction several"),
        ("CARD_NORMAL", rf"\b(?:30 days|month) (?:before|earlier)|\b(?:previous|preceding|prior|earlier) (?:30 days|month)|\b\d[\d,]* (?:\w+ )?{_PAID} (?:\w+ )?online", "counts other transactions than its evidence"),
        ("MERCHANT_NORMAL", r"\b(?:with|by|from|of|using) (?:this|the) card\b|\bcard's\b", "tells of the card what is so of the merchant"),
        ("SCORE_REVIEW|SCORE_DECLINE", rf"\b(?:all|every(?! 100)|most|none|no|each)\b[^.;,]*\b{_PAID}\b|\b(?:raises?|raised|lowers|lowered|increase[sd]?|reduce[sd]?|due to)\b", "tells more of the score than its evidence"),
        ("RULE", r"\b(?:probability|score|likelihood)\b|\bno other\b", "tells what a rule does to the score"),
        ("SIMILAR_CASE", r"\b(?:as|so) (?:was|were|did|is)\b|\blikewise\b|\b(?:less|least|more) (?:similar|alike|like)\b|\bboth\b[^.;]*\d", "tells of one case what is so of another"),
        ("BALANCE", r"\b(?:stronger|weaker|outweigh\w*|heavier|more (?:weight|heavily)|strongest reason(?!s))\b", "weighs the reasons"),
    )
]  # fmt: skip
# what stands in relation to another item: a part of it, or one for each of it
_RELATED: Final = re.compile(
    r"(?:\b(?:\d[\d.,]*(?: ?%)?|each|all|none|some|most|both|many) of (?:them|these|those|which|whom)\b|\bof which\b)(?! (?:also |all |both )?(?:speak|count|point|argue|weigh|push|raise|lower|reduce|increase|add))|\beach\b|"
    r"\bof (?:the|its|this card's|these) (?:last )?(?!3 amounts)\d[\d,]* [^.;,]*, (?:only |about )?\d",
    re.I,
)
_BOTH: Final = re.compile(r"\bboth (?:within|in|over|for|during)(?: the)? (?P<window>\d+ \w+?)(?:s| before)?\b", re.I)
_KNOWS_USUAL: Final = re.compile(r"\b(?:usual\w*|normal|typical|unusual|mean|average|highest|unlike|ordinary)\b", re.I)
_USUAL: Final = re.compile(
    r"\b(?:usual|usually|normal|normally|typical|typically|unusual|regular|habitual|ordinary|customary|norm)\b", re.I
)
_OBJECT: Final = {  # what a flag is about must be said
    "NEW_MERCHANT": re.compile(r"\b(?:merchant|shop|store|retailer|seller|vendor|payee|outlet|business|here|there|it)\b", re.I),
    "NEW_COUNTRY": re.compile(r"\b(?:countr\w+|abroad|here|there|it)\b", re.I),
    "NEW_DEVICE": re.compile(r"\b(?:devices?|phone|it)\b", re.I),
    "LAST_LEGITIMATE": re.compile(rf"\b{_PAID}\b", re.I),
}
_SCORED: Final = re.compile(
    r"\b\d[\d,]* (?:(?:out )?of|in|per) (?:\w+ ){0,2}\d|\b\d[\d,]* (?:\w+ )?(?:were|frauds|transactions)\b", re.I
)
_TOP: Final = re.compile(
    r"\b(?P<n>\d) (?:main|strongest|top|biggest|leading|key|most important|heaviest) (?:reasons|factors|signals|points|signs)\b",
    re.I,
)


def overreach(text: str, items: Sequence[EvidenceItem], ranked: Sequence[EvidenceItem]) -> str | None:
    """
    What a sentence adds to the items it names, None if it adds nothing of the kinds known here.

    ``text`` has its numbers as digits; ``ranked`` are all contributions, the strongest first.
    """
    shown = " ".join(item.text for item in items)
    reasons = [item for item in items if item.kind == "contribution"]
    signs = {(item.contribution or 0) > 0 for item in reasons}
    alone = len(signs) == 1 and len(reasons) == sum(((item.contribution or 0) > 0) in signs for item in ranked)
    for codes, pattern, why in _ADDED:
        if why == _ALONE and alone:
            continue
        if any(codes.search(item.code) for item in items) and pattern.search(text) and not pattern.search(shown):
            return why
    kinds = {item.kind for item in items}
    if len(items) > 1 and reasons and "balance" not in kinds and _RELATED.search(text):
        return "makes one fact a part of another"
    cases = [item.evidence_id for item in items if item.kind == "case"]
    if (cases and cases[0] != "K1" and _MOST_SIMILAR.search(text)) or (len(cases) > 1 and _IS_MOST_SIMILAR.search(text)):
        return "another rank than its evidence has"
    for both in _BOTH.finditer(text):
        if any(both["window"].lower() not in item.text.lower() for item in items):
            return "gives a window of one fact to another"
    if kinds & {"case", "cases"} and kinds - {"case", "cases"}:
        return "tells of past cases and of this transaction together"
    if reasons and len(items) == len(reasons) and not _KNOWS_USUAL.search(shown) and _USUAL.search(text):
        return "tells what is usual, which its evidence does not"
    if "score" in kinds and _SCORED.search(text) and not re.search(r"\bcalibrat|\bscore", text, re.I):
        return "leaves out that they were scored like this in calibration"
    for item in items:
        wanted = next((wanted for code, wanted in _OBJECT.items() if item.code.endswith(code)), None)
        if wanted and not wanted.search(text):
            return "leaves out what its value is of"
    if top := _TOP.search(text):
        own = [item for item in ranked if item in reasons]
        side = [item for item in ranked if ((item.contribution or 0) > 0) in signs]
        if own and len(own) == int(top["n"]) and own not in (list(ranked[: len(own)]), side[: len(own)]):
            return "another rank than its evidence has"
    return None
