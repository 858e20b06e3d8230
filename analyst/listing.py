"""
The queue's pages: filters, orders, and rows without messages.

Pages are found by key, not by offset, so a deep page costs as much as the first one. The order of a page and the position in it
are in its address, so an address can be shared.
"""

import re
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, get_type_hints
from urllib.parse import urlencode

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, RowMapping, and_, case, func, literal, or_, select, tuple_

from analyst.access.roles import Actor
from analyst.policy import Severity
from analyst.queue import AlertState, Queue
from analyst.tables import alert_rules, alert_search, alerts, audit
from core.clock import MS_PER_HOUR, Clock
from core.errors import InputError
from core.messages import Fact, Finding, Outcome
from core.money import CURRENCIES_BY_DECIMALS, minor_per_major

PAGE: Final = 50
MOST_COUNTED: Final = 10_000  # a longer list is shown as "more than 10,000"
_COUNTS_SECONDS: Final = 2.0  # counts are at most this old
_MOST_COUNTS: Final = 1_000  # filters whose counts are kept
_LONGEST: Final = 128


class Section(StrEnum):
    """A part of the queue."""

    OPEN = "open"  # without a verdict, and not snoozed
    MINE = "mine"  # claimed by the reader
    SNOOZED = "snoozed"
    ESCALATED = "escalated"
    CLOSED = "closed"
    ALL = "all"


class Order(StrEnum):
    """Order of the queue."""

    PRIORITY = "priority"  # severity, then deadline
    LOSS = "loss"  # highest expected loss first
    DEADLINE = "deadline"  # first deadline first
    TIME = "time"  # newest first


_KEYS: Final = {
    Order.PRIORITY: (alerts.c.severity, alerts.c.deadline, alerts.c.alert_id),
    Order.LOSS: (alerts.c.loss, alerts.c.alert_id),
    Order.DEADLINE: (alerts.c.deadline, alerts.c.alert_id),
    Order.TIME: (alerts.c.event_time, alerts.c.alert_id),
}
_DESCENDING: Final = frozenset({Order.LOSS, Order.TIME})


class AlertFilter(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    Which alerts to show and in which order. An empty string or None does not filter.

    ``search`` is the beginning of a transaction's, card's or merchant's ID, or of a merchant's name. Amounts are in major units of the
    transaction's currency, ages in hours since the alert was raised.
    """

    section: Section = Section.OPEN
    order: Order = Order.PRIORITY
    search: str = ""
    outcome: Outcome | None = None
    severity: int | None = None
    theme: str = ""
    typology: str = ""
    rule: str = ""
    bundle: str = ""
    card: str = ""
    merchant: str = ""
    device: str = ""
    finding: Finding | None = None
    assignee: str = ""
    amount_from: float | None = None
    amount_to: float | None = None
    age_from: float | None = None
    age_to: float | None = None
    by_card: bool = False

    def query(self, **changes: Any) -> str:
        """Return the filter as the query part of an address, with some fields changed."""
        fields = msgspec.to_builtins(msgspec.structs.replace(self, **changes))
        return urlencode({name: _written(value) for name, value in fields.items()})


def _written(value: Any) -> str:
    """Write a field of a filter, numbers without an exponent."""
    if isinstance(value, bool):
        return str(value).lower()
    return plain_number(value) if isinstance(value, float) else str(value)


def plain_number(value: float) -> str:
    """Write a number with as many decimals as it needs, at most six."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


_NAMES: Final = frozenset(AlertFilter.__struct_fields__)
_NUMBERS: Final = frozenset(name for name, kind in get_type_hints(AlertFilter).items() if kind in (float | None, int | None))


def filter_of(query: Mapping[str, str]) -> AlertFilter:
    """
    Return the filter in the query part of an address. Other parameters are ignored, and so are empty ones.

    Raises:
        InputError: if a value is invalid.
    """
    given: dict[str, Any] = {name: value.strip() for name, value in query.items() if name in _NAMES and value.strip()}
    for name, value in given.items():
        if len(value) > _LONGEST or "\0" in value:
            raise InputError(f"{name}: give at most {_LONGEST} characters")
        if name in _NUMBERS and not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", value):
            raise InputError(f"{name}={value[:40]} is not a number such as 12.5")
    if "severity" in given and given["severity"] not in ("0", "1", "2"):
        raise InputError("severity is 0 (critical), 1 (high) or 2 (normal)")
    try:
        return msgspec.convert(given, AlertFilter, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"the filter cannot be used: {error}") from None


class AlertRow(Struct, frozen=True):
    """An alert as the queue's pages show it. Money is in minor units, times in epoch ms."""

    alert_id: str
    transaction_id: str
    card_id: str
    merchant_id: str
    merchant_name: str | None
    device_id: str | None
    event_time: int
    amount: int
    currency: str
    outcome: Outcome
    probability: float | None
    loss: int
    loss_currency: str
    bundle: str
    theme: str | None
    typology: str | None
    top_fact: Fact | None
    raised_at: int
    severity: Severity
    deadline: int
    state: AlertState
    finding: Finding | None
    version: int
    claimed_by: str | None
    claimed_until: int | None
    snoozed_until: int | None
    closed_by: str | None
    changed_at: int


_COLUMNS: Final = tuple(alerts.c[name] for name in AlertRow.__struct_fields__)


class Page(NamedTuple):
    """A page of alerts, and the positions of the next and the previous page; None if there is none."""

    rows: list[AlertRow]
    after: str | None
    before: str | None


class Listing:
    """The pages of the queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._clock = queue, queue.clock
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}

    def page(self, wanted: AlertFilter, reader: Actor, after: str = "", before: str = "", size: int = PAGE) -> Page:
        """
        Return the page of alerts that follows or precedes a position; the first page without one.

        Raises:
            InputError: if the position is invalid.
        """
        order, keys = wanted.order, _KEYS[wanted.order]
        position = _position(after or before, order)
        backward = bool(before)
        descending = (order in _DESCENDING) != backward
        query = select(*_COLUMNS).where(condition(wanted, reader, self._clock))
        if position is not None:
            here, there = tuple_(*keys), tuple_(*(literal(value) for value in position))
            query = query.where(here < there if descending else here > there)
        ordered = query.order_by(*sort_keys(order, backward)).limit(size + 1)
        with self._queue.reading() as connection:
            found = [alert_row(row) for row in connection.execute(ordered).mappings()]
        more, rows = len(found) > size, found[:size]
        if backward:
            rows.reverse()
        first, last = (_encoded(rows[0], order), _encoded(rows[-1], order)) if rows else (None, None)
        follows, precedes = more or backward, more if backward else position is not None
        return Page(rows, last if follows else None, first if precedes else None)

    def rows(self, ids: list[str]) -> list[AlertRow]:
        """Return the alerts with these IDs, in the same order; unknown ones are left out."""
        with self._queue.reading() as connection:
            found = {
                row["alert_id"]: alert_row(row)
                for row in connection.execute(select(*_COLUMNS).where(alerts.c.alert_id.in_(ids))).mappings()
            }
        return [found[alert_id] for alert_id in ids if alert_id in found]

    def count(self, wanted: AlertFilter, reader: Actor) -> int:
        """Return the number of alerts that a filter shows, at most ``MOST_COUNTED`` + 1. It may be two seconds old."""
        owner = reader.name if wanted.section is Section.MINE or wanted.assignee else ""
        key = (wanted.query(order=Order.PRIORITY, by_card=False), owner)
        return self._counted(key, condition(wanted, reader, self._clock))

    def _counted(self, key: tuple[str, str], which: ColumnElement[bool]) -> int:
        """Count alerts up to a limit, or return a count that is at most two seconds old."""
        now = time.monotonic()
        if (known := self._counts.get(key)) and now - known[0] < _COUNTS_SECONDS:
            return known[1]
        some = select(literal(1)).select_from(alerts).where(which).limit(MOST_COUNTED + 1)
        with self._queue.reading() as connection:
            count = int(connection.execute(select(func.count()).select_from(some.subquery())).scalar_one())
        if len(self._counts) >= _MOST_COUNTS:
            self._counts.clear()
        self._counts[key] = (now, count)
        return count

    def section_counts(self, reader: Actor) -> dict[Section, int]:
        """Return the number of alerts in each section."""
        return {section: self.count(AlertFilter(section), reader) for section in Section if section is not Section.ALL}

    def breaches(self) -> int:
        """Return the number of open and escalated alerts past their deadline, at most ``MOST_COUNTED`` + 1."""
        waiting = alerts.c.state.in_((AlertState.OPEN.value, AlertState.ESCALATED.value))
        return self._counted(("breaches", ""), waiting & (alerts.c.deadline < self._clock.now_ms()))

    def open_of_cards(self, cards: list[str]) -> dict[str, int]:
        """Return the number of open alerts of each card that are not snoozed."""
        wanted = (
            select(alerts.c.card_id, func.count())
            .where(alerts.c.card_id.in_(cards), alerts.c.state == AlertState.OPEN.value, awake(self._clock.now_ms()))
            .group_by(alerts.c.card_id)
        )
        with self._queue.reading() as connection:
            return {row.card_id: int(row[1]) for row in connection.execute(wanted)}

    def outcomes(self, wanted: AlertFilter, reader: Actor) -> dict[str, int]:
        """Return the number of alerts that a filter shows by finding; ``open`` counts those without one."""
        query = select(alerts.c.finding, func.count()).where(condition(wanted, reader, self._clock)).group_by(alerts.c.finding)
        with self._queue.reading() as connection:
            return {row.finding or "open": int(row[1]) for row in connection.execute(query)}

    def state(self) -> tuple[int, int]:
        """Return two numbers that change whenever the queue does: the last change (epoch ms) and the last audit entry."""
        changed, audited = func.coalesce(func.max(alerts.c.changed_at), 0), func.coalesce(func.max(audit.c.number), 0)
        with self._queue.reading() as connection:
            return int(connection.execute(select(changed)).scalar_one()), int(connection.execute(select(audited)).scalar_one())


def sort_keys(order: Order, backward: bool = False) -> list[ColumnElement[Any]]:
    """Return the columns by which an order sorts, in this order or backward."""
    descending = (order in _DESCENDING) != backward
    return [key.desc() if descending else key.asc() for key in _KEYS[order]]


def condition(wanted: AlertFilter, reader: Actor, clock: Clock) -> ColumnElement[bool]:
    """Return a filter as an SQL condition."""
    now = clock.now_ms()
    # For a selective filter, hide the state from the query planner, so that it uses the filter's index and not one by state.
    few = any((wanted.card, wanted.merchant, wanted.device, wanted.search, wanted.rule))
    state = func.coalesce(alerts.c.state, "") if few else alerts.c.state
    parts: list[ColumnElement[bool]] = [*_section(wanted.section, reader, now, state)]
    equal = {
        "outcome": alerts.c.outcome, "severity": alerts.c.severity, "theme": alerts.c.theme, "typology": alerts.c.typology,
        "bundle": alerts.c.bundle, "card": alerts.c.card_id, "merchant": alerts.c.merchant_id, "device": alerts.c.device_id,
        "finding": alerts.c.finding,
    }  # fmt: skip
    for name, column in equal.items():
        if (value := getattr(wanted, name)) not in ("", None):
            parts.append(column == value)
    if wanted.rule:
        parts.append(alerts.c.alert_id.in_(select(alert_rules.c.alert_id).where(alert_rules.c.rule == wanted.rule)))
    if wanted.assignee:
        parts.append(_claimed(now) & (alerts.c.claimed_by == wanted.assignee))
    if wanted.search:
        parts.append(_found(wanted.search))
    # amounts are compared in major units, by the number of decimals of each currency
    if wanted.amount_from is not None:
        parts.append(_amount_in_major() >= wanted.amount_from)
    if wanted.amount_to is not None:
        parts.append(_amount_in_major() <= wanted.amount_to)
    if wanted.age_from is not None:
        parts.append(alerts.c.raised_at <= now - round(wanted.age_from * MS_PER_HOUR))
    if wanted.age_to is not None:
        parts.append(alerts.c.raised_at >= now - round(wanted.age_to * MS_PER_HOUR))
    return and_(*parts) if parts else literal(True)


def _section(section: Section, reader: Actor, now: int, state: ColumnElement[str]) -> list[ColumnElement[bool]]:
    opened = state == AlertState.OPEN.value
    match section:
        case Section.OPEN:
            return [opened, awake(now)]
        case Section.SNOOZED:
            waiting = (AlertState.OPEN.value, AlertState.ESCALATED.value)
            return [state.in_(waiting), alerts.c.snoozed_until > now]
        case Section.MINE:
            return [_claimed(now), alerts.c.claimed_by == reader.name]
        case Section.ESCALATED:
            return [state == AlertState.ESCALATED.value, awake(now)]
        case Section.CLOSED:
            return [state == AlertState.CLOSED.value]
        case _:
            return [state.in_([one.value for one in AlertState])]


def awake(now: int) -> ColumnElement[bool]:
    """Return the condition that an alert is not snoozed."""
    return or_(alerts.c.snoozed_until.is_(None), alerts.c.snoozed_until <= now)


def _claimed(now: int) -> ColumnElement[bool]:
    return (alerts.c.claimed_until > now) & alerts.c.claimed_by.is_not(None)


def _found(text: str) -> ColumnElement[bool]:
    """Return the condition that an ID begins with a text, or a merchant's name does, in upper or lower case."""
    term = alert_search.c.term
    begins = [and_(term >= one, term < one + "\U0010ffff") for one in dict.fromkeys((text, text.lower()))]
    return alerts.c.alert_id.in_(select(alert_search.c.alert_id).where(or_(*begins)))


def _amount_in_major() -> ColumnElement[Any]:
    units = case(
        *((alerts.c.currency.in_(sorted(names)), float(10**decimals)) for decimals, names in CURRENCIES_BY_DECIMALS.items()),
        else_=float(minor_per_major("EUR")),
    )
    return alerts.c.amount / units


def _encoded(row: AlertRow, order: Order) -> str:
    return "~".join(str(int(getattr(row, key.name))) if key.name != "alert_id" else row.alert_id for key in _KEYS[order])


def _position(text: str, order: Order) -> tuple[Any, ...] | None:
    if not text:
        return None
    *numbers, alert_id = text.split("~")
    if (
        len(numbers) != len(_KEYS[order]) - 1
        or not all(re.fullmatch(r"\d{1,18}", number) for number in numbers)
        or len(alert_id) > 64
    ):
        raise InputError("this position in the queue is invalid: go to the first page")
    return (*map(int, numbers), alert_id)


def alert_row(row: RowMapping) -> AlertRow:
    """Return a row of the database as an ``AlertRow``."""
    fields = {str(name): value for name, value in row.items() if name != "top_fact"}
    converted = msgspec.convert(fields | {"top_fact": None}, AlertRow)
    if not row["top_fact"]:
        return converted
    return msgspec.structs.replace(converted, top_fact=msgspec.json.decode(row["top_fact"], type=Fact))
