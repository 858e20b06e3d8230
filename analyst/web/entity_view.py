"""What the pages of cards, merchants and devices show."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from analyst.access.roles import Actor
from analyst.graph import LinkGraph, Node
from analyst.listing import AlertFilter, Page
from analyst.pictures import draw_links
from analyst.proposals import ListEntry, ListKey
from analyst.web.alert_view import Table
from analyst.web.queue_view import RowView, row_view
from analyst.web.rendering import count, duration, instant, money, share, text
from core.clock import MS_PER_DAY
from core.display import quoted
from core.errors import DatabaseError
from core.messages import Unit, Value
from explain.facts.categories import category_name
from explain.facts.history import History, Payment, habits_of
from explain.words import Writer

PATHS: Final = {ListKey.CARD: "cards", ListKey.MERCHANT: "merchants", ListKey.DEVICE: "devices"}
DAYS: Final = 90
_SHOWN: Final = 50  # payments of a card


class LinkRow(Struct, frozen=True):
    """A link of the graph as a row of the equivalent table."""

    card: str
    card_address: str
    kind: str
    other: str
    other_address: str
    alerts: str
    frauds: str


class EntityView(Struct, frozen=True):
    """The page of a card, merchant or device."""

    kind: str
    heading: str
    value: str
    address: str
    figures: list[tuple[str, str]]
    notes: list[str]
    lists: list[str]
    alerts: list[RowView]
    alerts_address: str
    payments: Table | None
    picture: str
    hops: int
    other_hops: int
    links: list[LinkRow]
    hidden: str


def address_of(node: Node) -> str:
    """Return the address of a node's page."""
    return f"/{PATHS[node.kind]}/{quote(node.value, safe='')}"


def entity_view(
    words: Writer,
    reader: Actor,
    node: Node,
    found: Page,
    outcomes: dict[str, int],
    history: History | None,
    entries: Sequence[ListEntry],
    graph: LinkGraph,
    hops: int,
    now: int,
) -> EntityView:
    """Return the page. ``outcomes`` counts the node's alerts by finding; ``graph`` has the links around the node."""
    figures = [
        (words.words(name), count(words, outcomes.get(key, 0)))
        for name, key in (
            ("ui-alerts-open", "open"), ("ui-finding-fraud", "fraud"), ("ui-finding-legitimate", "legitimate"),
            ("ui-state-escalated", "escalate"),
        )
    ]  # fmt: skip
    notes: list[str] = []
    payments = None
    try:
        more, payments = _archived(words, node, history, now)
        figures += more
    except DatabaseError:
        notes.append(words.words("ui-archive-missing"))
    if history is None:
        notes.append(words.words("ui-archive-missing"))
    return EntityView(
        kind=node.kind.value,
        heading=words.words(f"ui-{node.kind}-page"),
        value=node.value,
        address=address_of(node),
        figures=figures,
        notes=notes,
        lists=list_words(words, entries),
        alerts=[row_view(words, row, reader, AlertFilter(), now) for row in found.rows],
        alerts_address=f"/?{AlertFilter().query(section='all', order='time', **{node.kind.value: node.value})}",
        payments=payments,
        picture=draw_links(graph, {one: address_of(one) for one in graph.hops}, words),
        hops=hops,
        other_hops=3 - hops,
        links=[_link_row(words, graph, number) for number in range(len(graph.links))],
        hidden=words.words("ui-hidden-nodes", n=text(count(words, graph.hidden))) if graph.hidden else "",
    )


def list_words(words: Writer, entries: Sequence[ListEntry]) -> list[str]:
    """Write on which lists something stands."""
    return [words.words(f"ui-on-list-{entry.list}", until=text(entry.expires_on)) for entry in entries]


def _link_row(words: Writer, graph: LinkGraph, number: int) -> LinkRow:
    link = graph.links[number]
    return LinkRow(
        card=link.card.value,
        card_address=address_of(link.card),
        kind=words.words(f"ui-kind-{link.other.kind}"),
        other=link.other.value,
        other_address=address_of(link.other),
        alerts=count(words, link.alerts),
        frauds=count(words, link.frauds),
    )


def _archived(words: Writer, node: Node, history: History | None, now: int) -> tuple[list[tuple[str, str]], Table | None]:
    """Return figures from the archive, and a card's last payments."""
    if history is None:
        return [], None
    since = now - DAYS * MS_PER_DAY
    if node.kind is ListKey.CARD:
        payments = history.payments_of_card(node.value, since, now)
        return _card_figures(words, payments, now), _payment_table(words, payments, now)
    if node.kind is ListKey.MERCHANT:
        merchant = history.merchant(node.value, since, now)
        named = {"ui-payments": merchant.payments, "ui-cards": merchant.cards, "ui-reported-frauds": merchant.frauds}
    else:
        device = history.device(node.value, since, now)
        named = {"ui-payments": device.payments, "ui-cards": device.cards}
    return [(words.words(name), count(words, number)) for name, number in named.items()], None


def _card_figures(words: Writer, payments: list[Payment], now: int) -> list[tuple[str, str]]:
    if not payments:
        return [(words.words("ui-payments"), count(words, 0))]
    habits = habits_of(payments, payments[-1].currency, now)
    figures = [
        (words.words("ui-payments"), count(words, habits.payments)),
        (words.words("ui-online-share"), share(words, habits.online)),
    ]
    if habits.median is not None and habits.high is not None:
        median, high = (Value(Unit.MONEY, one, currency=habits.currency) for one in (habits.median, habits.high))
        figures.append((words.words("ui-amount"), words.words("ui-habit-amount", median=median, high=high)))
    if habits.categories:
        figures.append((words.words("ui-category"), ", ".join(one.name for one in habits.categories[:3])))
    if habits.devices:
        figures.append((words.words("ui-devices"), count(words, len(habits.devices))))
    return figures


def _payment_table(words: Writer, payments: list[Payment], now: int) -> Table:
    rows = [
        [
            instant(words, one.event_time),
            duration(words, now - one.event_time),
            money(words, one.amount, one.currency),
            quoted(one.merchant_name or one.merchant_id, 40),
            category_name(one.mcc) if one.mcc else "–",
            words.code(one.channel) if one.channel else "–",
            words.value(Value(Unit.COUNTRY, text=one.country)) if one.country else "–",
        ]
        for one in reversed(payments[-_SHOWN:])
    ]
    names = ("time", "ago", "amount", "merchant-column", "category", "channel", "place")
    return Table([words.words(f"ui-{name}") for name in names], rows)
