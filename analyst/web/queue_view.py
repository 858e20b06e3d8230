"""What the queue's page shows, written in the reader's language."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct

from analyst.access.roles import Actor, Permission
from analyst.listing import MOST_COUNTED, AlertFilter, AlertRow, Order, Page, Section, plain_number
from analyst.policy import Severity
from analyst.queue import AlertState
from analyst.saved_views import SavedView
from analyst.web.rendering import console_writer, count, duration, instant, money, share, text
from core.display import quoted
from core.messages import TYPOLOGIES, Fact, Finding, Outcome
from explain.words import Writer
from models.features.ops import Theme


class Option(Struct, frozen=True):
    """A choice in a form."""

    value: str
    words: str
    selected: bool


class Tab(Struct, frozen=True):
    """A section of the queue with its number of alerts."""

    address: str
    words: str
    count: str
    current: bool


class RowView(Struct, frozen=True):
    """An alert in the queue's table."""

    alert_id: str
    address: str
    severity: str
    severity_words: str
    due: str
    due_title: str
    late: bool
    loss: str
    calculation: str
    outcome: str
    outcome_words: str
    amount: str
    reason: str
    tags: list[str]
    merchant: str
    card: str
    card_address: str
    time: str
    state: str


class GroupView(Struct, frozen=True):
    """Alerts under one heading: those of a card, or all of a page without a heading."""

    title: str
    more: str
    more_address: str
    rows: list[RowView]


class ViewLink(Struct, frozen=True):
    """A saved view."""

    number: int
    name: str
    address: str
    own: bool


class QueueView(Struct, frozen=True):
    """The queue's page."""

    title: str
    summary: str
    tabs: list[Tab]
    groups: list[GroupView]
    empty: bool
    next: str | None
    previous: str | None
    query: str
    order_words: str
    filtered: bool
    by_card: bool
    choices: dict[str, list[Option]]
    values: dict[str, str]
    views: list[ViewLink]
    may_work: bool
    may_bulk: bool
    bulk_address: str
    refresh_address: str


_TEXTS: Final = ("search", "card", "merchant", "device", "rule", "bundle", "assignee")
_NUMBERS: Final = ("amount_from", "amount_to", "age_from", "age_to")


def queue_view(
    words: Writer,
    reader: Actor,
    wanted: AlertFilter,
    found: Page,
    total: int,
    sections: dict[Section, int],
    breaches: int,
    views: Sequence[SavedView],
    open_of_cards: dict[str, int],
    now: int,
    place: str,
) -> QueueView:
    """Return the page. ``place`` is the position in the queue, as the query part of the page's address."""
    rows = [(row, row_view(words, row, reader, wanted, now)) for row in found.rows]
    query = wanted.query()
    return QueueView(
        title=words.words(f"ui-section-{wanted.section}"),
        summary=words.words("ui-queue-summary", shown=text(counted(words, total)), breaches=text(counted(words, breaches))),
        tabs=[
            Tab(
                f"/?{AlertFilter(section).query()}",
                words.words(f"ui-section-{section}"),
                counted(words, number),
                section is wanted.section,
            )
            for section, number in sections.items()
        ],
        groups=_groups(words, rows, open_of_cards) if wanted.by_card else [GroupView("", "", "", [view for _, view in rows])],
        empty=not rows,
        next=found.after and f"/?{_joined(query, after=found.after)}",
        # a page whose alerts have all gone leads back to the first one
        previous=f"/?{query}" if not rows and place != query else found.before and f"/?{_joined(query, before=found.before)}",
        query=query,
        order_words=words.words(f"ui-order-hint-{wanted.order}"),
        filtered=wanted != AlertFilter(wanted.section, wanted.order),
        by_card=wanted.by_card,
        choices=_choices(words, wanted),
        values={name: getattr(wanted, name) for name in _TEXTS}
        | {name: plain_number(value) if (value := getattr(wanted, name)) is not None else "" for name in _NUMBERS},
        views=[ViewLink(view.number, view.name, f"/?{view.query}", view.owner == reader.name) for view in views],
        may_work=reader.may(Permission.WORK),
        may_bulk=reader.may(Permission.LEAD) and wanted.section is not Section.CLOSED,
        bulk_address=f"/bulk?{query}",
        refresh_address=f"/?{place or query}",
    )


def counted(words: Writer, number: int) -> str:
    """Write a number of alerts; a number that was not counted to its end as more than 10,000."""
    if number > MOST_COUNTED:
        return words.words("ui-more-than", n=text(count(words, MOST_COUNTED)))
    return count(words, number)


def row_view(words: Writer, row: AlertRow, reader: Actor, wanted: AlertFilter, now: int) -> RowView:
    """Return an alert as the table shows it."""
    paid, probability = money(words, row.amount, row.currency), share(words, row.probability)
    closed = row.state is AlertState.CLOSED
    late = row.deadline < now and not closed
    return RowView(
        alert_id=row.alert_id,
        address=f"/alerts/{quote(row.alert_id)}?{wanted.query()}",
        severity=row.severity.name.lower(),
        severity_words=words.words(f"ui-severity-{row.severity.name.lower()}"),
        due=due_words(words, row.deadline, closed, now),
        due_title=f"{instant(words, row.deadline)} UTC",
        late=late,
        loss=money(words, row.loss, row.loss_currency),
        calculation=words.words("ui-loss-calculation", probability=text(probability), amount=text(paid)),
        outcome=row.outcome.value,
        outcome_words=words.words(f"ui-{row.outcome}"),
        amount=paid,
        reason=_sentence(words.language, msgspec.json.encode(row.top_fact))
        if row.top_fact
        else words.words("ui-no-single-reason"),
        tags=_tags(words, row),
        merchant=quoted(row.merchant_name or row.merchant_id, 40),
        card=row.card_id,
        card_address=f"/cards/{quote(row.card_id, safe='')}",
        time=instant(words, row.event_time),
        state=_state(words, row, reader, now),
    )


def due_words(words: Writer, deadline: int, closed: bool, now: int) -> str:
    """Write how long an alert may still wait, or how long it is overdue; nothing for a closed alert."""
    if closed:
        return ""
    return words.words("ui-overdue" if deadline < now else "ui-due-in", time=text(duration(words, deadline - now)))


@lru_cache(maxsize=20_000)
def _sentence(language: str, fact: bytes) -> str:
    """Write a fact, given as JSON. The same alerts are shown again and again, and writing a sentence is the slowest part of a row."""
    return console_writer(language).sentence(msgspec.json.decode(fact, type=Fact))


def _tags(words: Writer, row: AlertRow) -> list[str]:
    """Write the leading theme of an alert and its likely typology."""
    theme = [words.code(f"theme-{row.theme}")] if row.theme else []
    return theme + ([words.code(row.typology)] if row.typology in TYPOLOGIES else [])


def _state(words: Writer, row: AlertRow, reader: Actor, now: int) -> str:
    """Write who works on an alert, until when it is snoozed, or how it was closed."""
    if row.finding is not None and row.closed_by:
        return words.words("ui-closed-by", finding=text(words.words(f"ui-finding-{row.finding}")), name=text(row.closed_by))
    if row.snoozed_until is not None and row.snoozed_until > now:
        return words.words("ui-snoozed-until", time=text(instant(words, row.snoozed_until)))
    if row.claimed_by and (row.claimed_until or 0) > now:
        return words.words("ui-yours" if row.claimed_by == reader.name else "ui-claimed-by", name=text(row.claimed_by))
    return words.words("ui-state-escalated") if row.state is AlertState.ESCALATED else ""


def _groups(words: Writer, rows: Iterable[tuple[AlertRow, RowView]], open_of_cards: dict[str, int]) -> list[GroupView]:
    """Group a page by card, in the order in which the cards first appear. A link leads to alerts on other pages."""
    cards: dict[str, list[RowView]] = {}
    for row, view in rows:
        cards.setdefault(row.card_id, []).append(view)
    return [
        GroupView(
            card,
            words.words("ui-more-of-card", n=text(count(words, more)))
            if (more := open_of_cards.get(card, 0) - len(views)) > 0
            else "",
            f"/?{AlertFilter(card=card).query()}",
            views,
        )
        for card, views in cards.items()
    ]


def _choices(words: Writer, wanted: AlertFilter) -> dict[str, list[Option]]:
    def options(name: str, values: Iterable[tuple[str, str]], chosen: object) -> list[Option]:
        everything = [] if name in ("order", "section") else [Option("", words.words("ui-any"), chosen in ("", None))]
        return everything + [Option(value, written, str(chosen) == value) for value, written in values]

    severity = None if wanted.severity is None else int(wanted.severity)
    return {
        "order": options("order", ((one.value, words.words(f"ui-order-{one}")) for one in Order), wanted.order.value),
        "section": options("section", ((one.value, words.words(f"ui-section-{one}")) for one in Section), wanted.section.value),
        "severity": options(
            "severity", ((str(int(one)), words.words(f"ui-severity-{one.name.lower()}")) for one in Severity), severity
        ),
        "outcome": options(
            "outcome", ((one.value, words.words(f"ui-{one}")) for one in Outcome if one is not Outcome.APPROVE), wanted.outcome
        ),
        "theme": options("theme", ((one.value, words.code(f"theme-{one.value}")) for one in Theme), wanted.theme),
        "typology": options("typology", ((one, words.code(one)) for one in TYPOLOGIES), wanted.typology),
        "finding": options("finding", ((one.value, words.words(f"ui-finding-{one}")) for one in Finding), wanted.finding),
    }


def _joined(query: str, **position: str) -> str:
    return "&".join([query] * bool(query) + [f"{name}={quote(value)}" for name, value in position.items()])
