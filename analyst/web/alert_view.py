"""What an alert's page shows, written in the reader's language."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from analyst.access.roles import Actor, Permission
from analyst.assistant import Question
from analyst.pictures import timeline, waterfall
from analyst.queue import AlertState, QueuedAlert
from analyst.verdicts import GivenVerdict
from analyst.web.queue_view import due_words
from analyst.web.rendering import count, duration, instant, money, share, text
from analyst.web.verdict_view import (
    UndoView,
    VerdictForm,
    VerdictView,
    may_judge,
    typology_words,
    undo_view,
    verdict_form,
    verdict_view,
)
from core.display import quoted
from core.messages import Alert, Claim, Explanation, Fact, Part, Side, SimilarCase, ThemeReason, Unit, Value
from explain.facts.categories import category_name
from explain.facts.history import CardHistory
from explain.words import Writer

_SIDES: Final = {Side.FRAUD: "for", Side.LEGITIMATE: "against", Side.NEITHER: ""}
_NEAR_KM: Final = 30  # the radius of a card's home area


class Sentence(Struct, frozen=True):
    """A sentence of a narrative with the facts that it mentions. ``author`` is template or model."""

    words: str
    author: str
    title: str
    facts: list[str]


class Paragraph(Struct, frozen=True):
    """A part of a narrative."""

    heading: str
    sentences: list[Sentence]


class Narrative(Struct, frozen=True):
    """The explanation in words; ``refusals`` say why sentences of a language model were refused."""

    paragraphs: list[Paragraph]
    written_by: str
    refusals: list[str]


class ThemeFact(Struct, frozen=True):
    """A fact in the table of themes, with how rare its value is."""

    fact_id: str
    words: str
    contrast: str
    honest: str
    fraud: str


class ThemeView(Struct, frozen=True):
    """A theme of reasons. ``side`` is for or against."""

    name: str
    without: str
    points: str
    side: str
    facts: list[ThemeFact]


class HabitRow(Struct, frozen=True):
    """A habit of the card beside this payment. ``marked`` payments depart from the habit."""

    heading: str
    usual: str
    this: str
    marked: bool = False
    title: str = ""


class HabitsView(Struct, frozen=True):
    """The card's habits; ``notes`` say what could not be seen."""

    title: str
    notes: list[str]
    rows: list[HabitRow]


class Table(Struct, frozen=True):
    """A table of texts."""

    headings: list[str]
    rows: list[list[str]]


class FactRow(Struct, frozen=True):
    """A fact in the list of all facts. ``anchor`` is empty if the table of themes shows the fact."""

    fact_id: str
    anchor: str
    words: str
    side: str
    points: str


class CaseView(Struct, frozen=True):
    """A similar closed case."""

    label: str
    outcome: str
    outcome_words: str
    similarity: str
    details: str
    note: str
    case_id: str
    closed: str


class OtherAlert(Struct, frozen=True):
    """Another alert that shares the card, device or merchant."""

    shared: str
    address: str
    amount: str
    time: str
    finding: str


class Answer(Struct, frozen=True):
    """A question to the assistant and its answer."""

    question: str
    asked: str
    failed: bool
    sentences: list[Sentence]
    facts: list[FactRow]
    figures: str
    transcript: list[tuple[str, str]]


class AssistantView(Struct, frozen=True):
    """The assistant on an alert's page."""

    offered: bool
    under_way: str
    answers: list[Answer]


class AlertView(Struct, frozen=True):
    """An alert's page."""

    alert_id: str
    query: str
    amount: str
    merchant: str
    merchant_address: str
    details: list[str]
    card: str
    card_address: str
    device_address: str
    transaction_id: str
    outcome: str
    outcome_words: str
    probability: str
    loss: str
    severity: str
    severity_words: str
    due: str
    late: bool
    state: str
    lists: list[str]
    undo: UndoView | None
    form: VerdictForm | None
    mine: bool
    may_work: bool
    snoozed: bool
    hint: str
    verdicts: list[VerdictView]
    explained: bool
    narrative: Narrative | None
    themes: list[ThemeView]
    habits: HabitsView
    timeline: str
    waterfall: str
    payments: Table
    facts: list[FactRow]
    cases: list[CaseView]
    assistant: AssistantView
    others: list[OtherAlert]
    versions: str


def alert_view(
    words: Writer,
    reader: Actor,
    queued: QueuedAlert,
    given: list[GivenVerdict],
    history: CardHistory | None,
    others: Sequence[tuple[str, QueuedAlert]],
    questions: list[Question],
    assistant_offered: bool,
    lists: list[str],
    query: str,
    now: int,
) -> AlertView:
    """Return the page. ``query`` is the filter of the queue from which the reader came."""
    alert, explanation = queued.alert, queued.explanation
    transaction, decision = alert.transaction, alert.decision
    closed = queued.state is AlertState.CLOSED
    late = queued.deadline < now and not closed
    severity = queued.severity.name.lower()
    facts = {fact.fact_id: fact for fact in explanation.facts} if explanation else {}
    device = transaction.device_id
    return AlertView(
        alert_id=alert.alert_id,
        query=query,
        amount=money(words, transaction.amount, transaction.currency),
        merchant=quoted(transaction.merchant_name or transaction.merchant_id),
        merchant_address=f"/merchants/{quote(transaction.merchant_id, safe='')}",
        details=_details(words, alert),
        card=transaction.card_id,
        card_address=f"/cards/{quote(transaction.card_id, safe='')}",
        device_address=f"/devices/{quote(device, safe='')}" if device else "",
        transaction_id=transaction.transaction_id,
        outcome=decision.outcome.value,
        outcome_words=words.words(f"ui-{decision.outcome}"),
        probability=share(words, decision.probability),
        loss=money(words, queued.loss, queued.loss_currency),
        severity=severity,
        severity_words=words.words(f"ui-severity-{severity}"),
        due=due_words(words, queued.deadline, closed, now),
        late=late,
        state=_state(words, queued, reader, now),
        lists=lists,
        undo=undo_view(words, given, reader, now),
        form=verdict_form(words, queued, query) if may_judge(given, reader) else None,
        mine=queued.claimed_by == reader.name and (queued.claimed_until or 0) > now,
        may_work=reader.may(Permission.WORK) and queued.state is not AlertState.CLOSED,
        snoozed=(queued.snoozed_until or 0) > now,
        hint=words.sentence(facts["Y1"]) if "Y1" in facts else "",
        verdicts=[verdict_view(words, one.verdict, one.state) for one in reversed(given)],
        explained=explanation is not None,
        narrative=_narrative(words, explanation, facts) if explanation else None,
        themes=[_theme(words, reason, facts) for reason in explanation.themes] if explanation else [],
        habits=_habits(words, alert, history),
        timeline=timeline(alert, words),
        waterfall=waterfall(explanation, words) if explanation else "",
        payments=_payments(words, alert, history),
        facts=[_fact_row(words, fact) for fact in explanation.facts] if explanation else [],
        cases=[_case(words, number, case) for number, case in enumerate(explanation.similar_cases, 1)] if explanation else [],
        assistant=_assistant(words, questions, assistant_offered and explanation is not None and reader.may(Permission.WORK)),
        others=[_other(words, shared, one) for shared, one in others],
        versions=f"bundle {decision.bundle} · index {explanation.index} · prompt {explanation.prompt}" if explanation else "",
    )


def _details(words: Writer, alert: Alert) -> list[str]:
    transaction = alert.transaction
    return [
        *([category_name(transaction.mcc)] if transaction.mcc else []),
        *([words.value(Value(Unit.COUNTRY, text=transaction.country))] if transaction.country else []),
        *([words.code(transaction.channel)] if transaction.channel else []),
        f"{instant(words, transaction.event_time)} UTC",
    ]


def _state(words: Writer, queued: QueuedAlert, reader: Actor, now: int) -> str:
    if (queued.snoozed_until or 0) > now:
        return words.words("ui-snoozed-until", time=text(instant(words, queued.snoozed_until or 0)))
    if queued.claimed_by and (queued.claimed_until or 0) > now:
        return words.words("ui-yours" if queued.claimed_by == reader.name else "ui-claimed-by", name=text(queued.claimed_by))
    return words.words("ui-escalated-to-leads") if queued.state is AlertState.ESCALATED else ""


def _sentence(words: Writer, claim: Claim, facts: dict[str, Fact]) -> Sentence:
    author = "template" if claim.written_by.startswith("template") else "model"
    ids = list(dict.fromkeys(mention.fact_id for mention in claim.mentions))
    return Sentence(words.claim(claim, facts), author, claim.written_by, ids)


def _narrative(words: Writer, explanation: Explanation, facts: dict[str, Fact]) -> Narrative:
    authors = ", ".join(dict.fromkeys(claim.written_by for claim in explanation.narrative))
    checked, refused = explanation.verification.checked, explanation.verification.replaced
    paragraphs = [
        Paragraph(words.words(f"part-{part}"), [_sentence(words, claim, facts) for claim in claims])
        for part in Part
        if (claims := [claim for claim in explanation.narrative if claim.part is part])
    ]
    figures = {"checked": Value(Unit.COUNT, checked), "replaced": Value(Unit.COUNT, refused)}
    return Narrative(
        paragraphs, words.words("ui-written-by", names=text(authors), **figures), list(explanation.verification.reasons)
    )


def _theme(words: Writer, reason: ThemeReason, facts: dict[str, Fact]) -> ThemeView:
    shown = []
    for fact_id in reason.facts:
        fact = facts[fact_id]
        honest = words.rarity(fact.contrast.honest_share) if fact.contrast else "–"
        fraud = words.rarity(fact.contrast.fraud_share) if fact.contrast else "–"
        shown.append(ThemeFact(fact_id, words.sentence(fact), words.contrast(fact), honest, fraud))
    return ThemeView(
        name=words.theme(reason),
        without=words.words("ui-without", share=Value(Unit.SHARE, reason.probability_without)),
        points=f"{reason.contribution:+.1f}",
        side="for" if reason.contribution > 0 else "against",
        facts=shown,
    )


def _fact_row(words: Writer, fact: Fact) -> FactRow:
    points = "" if fact.contribution is None else f"{fact.contribution:+.2f}"
    return FactRow(fact.fact_id, "" if fact.feature else fact.fact_id, words.sentence(fact), _SIDES[fact.side], points)


def _case(words: Writer, number: int, case: SimilarCase) -> CaseView:
    shared = ", ".join(words.code(f"theme-{theme}") for theme in case.shared)
    differences = "; ".join(words.difference(one) for one in case.differences)
    details = [
        *([typology_words(words, case.typology)] if case.typology else []),
        *([words.words("ui-shared", themes=text(shared))] if shared else []),
        differences or words.words("ui-no-difference"),
    ]
    return CaseView(
        label=f"K{number}",
        outcome=case.outcome.value,
        outcome_words=words.words(f"ui-finding-{case.outcome}"),
        similarity=share(words, max(case.similarity, 0.0)),
        details=" · ".join(details),
        note=quoted(case.note, 300),
        case_id=case.case_id,
        closed=words.words("ui-closed", when=Value(Unit.INSTANT, case.closed_time)),
    )


def _other(words: Writer, shared: str, other: QueuedAlert) -> OtherAlert:
    decision = other.alert.decision
    return OtherAlert(
        shared=words.words(f"ui-same-{shared}"),
        address=f"/alerts/{other.alert.alert_id}",
        amount=money(words, decision.amount, decision.currency),
        time=instant(words, decision.event_time),
        finding=words.words(f"ui-finding-{other.finding}") if other.finding else words.words("ui-open"),
    )


# -- habits and past payments --------------------------------------------------------------------------------------------------


def _habits(words: Writer, alert: Alert, history: CardHistory | None) -> HabitsView:
    title = words.words("ui-habits")
    if history is None:
        return HabitsView(title, [words.words("ui-archive-missing")], [])
    notes = [] if history.complete else [words.words("ui-archive-behind")]
    if not history.habits.payments:
        return HabitsView(title, [*notes, words.words("ui-no-payments")], [])
    counted = {"payments": Value(Unit.COUNT, history.habits.payments), "days": Value(Unit.COUNT, history.days)}
    rows = [_amounts(words, alert, history), _times(words, alert, history), _channels(words, alert, history)]
    rows.append(_categories(words, alert, history))
    rows += [_home(words, history)] if history.habits.home else []
    rows += [_devices(words, alert, history)] if history.habits.devices or alert.transaction.device_id else []
    rows.append(_merchant(words, alert, history))
    return HabitsView(f"{title} · {words.words('ui-payments-in-days', **counted)}", notes, rows)


def _whole(number: float) -> Value:
    return Value(Unit.SHARE, round(number, 2))


def _amounts(words: Writer, alert: Alert, history: CardHistory) -> HabitRow:
    habits, paid = history.habits, Value(Unit.MONEY, alert.transaction.amount, currency=alert.transaction.currency)
    heading = words.words("ui-amount")
    if habits.median is None or habits.high is None or history.usual_rank is None:
        return HabitRow(heading, words.words("ui-no-amount"), words.value(paid))
    median, high = (Value(Unit.MONEY, one, currency=habits.currency) for one in (habits.median, habits.high))
    highest = history.usual_rank == 1
    this = (
        words.words("ui-higher-than-all", amount=paid)
        if highest
        else words.words("ui-higher-than", amount=paid, rank=_whole(history.usual_rank))
    )
    return HabitRow(heading, words.words("ui-habit-amount", median=median, high=high), this, highest)


def _times(words: Writer, alert: Alert, history: CardHistory) -> HabitRow:
    bands = dict(zip("abcd", map(_whole, history.habits.hours), strict=True))
    clock = Value(Unit.CLOCK, alert.transaction.event_time / 3_600_000 % 24)
    return HabitRow(words.words("ui-time"), words.words("ui-habit-hours", **bands), words.value(clock))


def _channels(words: Writer, alert: Alert, history: CardHistory) -> HabitRow:
    channel = alert.transaction.channel
    usual = words.words("ui-habit-online", share=_whole(history.habits.online))
    return HabitRow(words.words("ui-channel"), usual, words.code(channel) if channel else "–")


def _categories(words: Writer, alert: Alert, history: CardHistory) -> HabitRow:
    usual = ", ".join(f"{one.name} {words.value(_whole(one.share))}" for one in history.habits.categories[:4])
    return HabitRow(words.words("ui-category"), usual or "–", category_name(alert.transaction.mcc))


def _home(words: Writer, history: CardHistory) -> HabitRow:
    home = history.habits.home
    assert home is not None
    usual = words.words("ui-habit-home", share=_whole(home.share), near=Value(Unit.KILOMETRES, _NEAR_KM))
    distance = history.distance
    this = "–" if distance is None else words.words("ui-from-home", distance=Value(Unit.KILOMETRES, distance))
    return HabitRow(words.words("ui-place"), usual, this, title=f"{home.lat:.2f}, {home.lon:.2f}")


def _devices(words: Writer, alert: Alert, history: CardHistory) -> HabitRow:
    def used(one: object) -> str:
        payments, first, last = (getattr(one, name) for name in ("payments", "first", "last"))
        return words.words(
            "ui-device-used", payments=Value(Unit.COUNT, payments), first=Value(Unit.DATE, first), last=Value(Unit.DATE, last)
        )

    devices = history.habits.devices
    usual = [used(one) for one in devices[:2]]
    usual += [words.words("ui-more-devices", n=Value(Unit.COUNT, len(devices) - 2))] if len(devices) > 2 else []
    this, marked = "–", False
    if alert.transaction.device_id:
        this = used(history.device) if history.device else words.words("ui-device-new")
        others = (history.device_at_large.cards if history.device_at_large else 0) - (1 if history.device else 0)
        marked = history.device is None or others > 0
        this += f"; {words.words('ui-device-shared', cards=Value(Unit.COUNT, others))}" if others > 0 else ""
    return HabitRow(words.words("ui-device"), "; ".join(usual) or "–", this, marked)


def _merchant(words: Writer, alert: Alert, history: CardHistory) -> HabitRow:
    merchant, here = history.merchant, history.here
    figures = {name: Value(Unit.COUNT, getattr(merchant, name)) for name in ("payments", "cards", "frauds", "cards_with_fraud")}
    payments = Value(Unit.COUNT, here.payments)
    if not here.payments:
        this = words.words("ui-here-new")
    elif here.largest is None:
        this = words.words("ui-here-before", payments=payments)
    else:
        largest = Value(Unit.MONEY, here.largest, currency=alert.transaction.currency)
        this = words.words("ui-here-largest", payments=payments, largest=largest)
    return HabitRow(words.words("ui-merchant"), words.words("ui-merchant-history", **figures), this, not here.payments)


def _payments(words: Writer, alert: Alert, history: CardHistory | None) -> Table:
    """Return the card's last payments: from the archive, or the few that the alert holds."""
    transaction = alert.transaction
    if history is not None and history.last:
        shown = ("before", "amount", "merchant-column", "category", "channel", "from-home-heading", "device")
        rows = []
        for one in history.last:
            paid = one.payment
            same = paid.merchant_id == transaction.merchant_id
            merchant = words.words("ui-merchant") if same else f"“{quoted(paid.merchant_name or paid.merchant_id)}”"
            channel = words.code(paid.channel) if paid.channel else "–"
            abroad = paid.country and paid.country != transaction.country
            known = "–" if one.known_device is None else words.words("ui-known" if one.known_device else "ui-new")
            rows.append(
                [
                    duration(words, transaction.event_time - paid.event_time),
                    money(words, paid.amount, paid.currency),
                    merchant if one.known_merchant else f"{merchant} · {words.words('ui-new')}",
                    one.category,
                    f"{channel} · {words.value(Value(Unit.COUNTRY, text=paid.country or ''))}" if abroad else channel,
                    "–" if one.distance is None else words.value(Value(Unit.KILOMETRES, one.distance)),
                    known,
                ]
            )
        return Table([words.words(f"ui-{name}") for name in shown], rows)
    names = ("before", "amount", "category", "place", "channel", "merchant-column")
    currency = alert.currency or transaction.currency
    rows = [
        [
            duration(words, transaction.event_time - one.event_time),
            "–" if one.amount is None else money(words, one.amount, currency),
            category_name(one.mcc) if one.mcc else "–",
            words.value(Value(Unit.COUNTRY, text=one.country)) if one.country else "–",
            words.code(one.channel) if one.channel else "–",
            words.words("ui-merchant" if one.same_merchant else "ui-another"),
        ]
        for one in reversed(alert.recent)
    ]
    return Table([words.words(f"ui-{name}") for name in names], rows)


# -- the assistant -------------------------------------------------------------------------------------------------------------


def _assistant(words: Writer, questions: list[Question], offered: bool) -> AssistantView:
    running = next((one for one in questions if one.under_way), None)
    return AssistantView(
        offered=offered and running is None,
        under_way=words.words("ui-under-way", when=Value(Unit.INSTANT, running.asked_at)) if running else "",
        answers=[_answer(words, one) for one in questions if not one.under_way],
    )


def _answer(words: Writer, asked: Question) -> Answer:
    question = quoted(asked.question, 500) if asked.question else words.words("ui-investigation")
    when = instant(words, asked.asked_at)
    found = asked.found
    if found is None:
        failed = words.words("ui-broken-down", by=text(asked.asked_by), when=text(when))
        return Answer(question, failed, True, [], [], "", [])
    facts = found.facts_by_id()
    figures = words.words(
        "ui-answer-figures",
        model=text(found.model),
        steps=Value(Unit.COUNT, found.steps),
        tokens=text(count(words, found.tokens)),
        time=text(duration(words, found.seconds * 1000)),
        checked=Value(Unit.COUNT, found.verification.checked),
        refused=Value(Unit.COUNT, found.verification.replaced),
    )
    return Answer(
        question=question,
        asked=f"{asked.asked_by} · {when} UTC · {found.ended}",
        failed=False,
        sentences=[_sentence(words, claim, facts) for claim in found.report],
        facts=[_fact_row(words, fact) for fact in found.facts if fact.fact_id.startswith("I")],
        figures=figures,
        transcript=[(entry.who, quoted(entry.what, 6_000)) for entry in found.transcript],
    )
