"""SVG pictures: contributions to a score, a card's past amounts, links between cards, merchants and devices, and work per day."""

import math
from datetime import UTC, datetime
from html import escape

from analyst.graph import LinkGraph, Node
from analyst.statistics import DayOfWork
from core.messages import Alert, Explanation
from core.money import minor_per_major
from explain.facts.values import code, country, money, seconds, text
from explain.words import Writer

_WIDTH = 640
_ROW = 26
_LABELS = 250


def waterfall(explanation: Explanation, words: Writer) -> str:
    """
    Draw one bar per theme. The bars lead from the model's base value to the score, both in log-odds.

    Red bars speak for fraud, blue bars against it. Return an empty string if the explanation has no contributions.
    """
    steps = explanation.themes
    if explanation.start is None or not steps:
        return ""
    edges = [explanation.start]
    for reason in steps:
        edges.append(edges[-1] + reason.contribution)
    low, high = min(edges), max(edges)
    span = max(high - low, 1e-6)
    plot = _WIDTH - _LABELS - 70

    def x(value: float) -> float:
        return _LABELS + 10 + (value - low) / span * plot

    parts = []
    for row, reason in enumerate(steps):
        begin, end = edges[row], edges[row + 1]
        left, width, top = min(x(begin), x(end)), max(abs(x(end) - x(begin)), 1.5), row * _ROW + 6
        kind = "for" if end >= begin else "against"
        name = words.theme(reason)
        parts.append(
            f'<g><text x="{_LABELS}" y="{top + 13}" class="label">{escape(name)}</text>'
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="17" rx="2" class="{kind}"/>'
            f'<text x="{left + width + 5:.1f}" y="{top + 13}" class="value">{reason.contribution:+.2f}</text></g>'
        )
    bottom = len(steps) * _ROW + 10
    parts.append(
        f'<line x1="{x(edges[0]):.1f}" x2="{x(edges[0]):.1f}" y1="0" y2="{bottom}" class="axis"/>'
        f'<line x1="{x(edges[-1]):.1f}" x2="{x(edges[-1]):.1f}" y1="0" y2="{bottom}" class="axis end"/>'
        f'<text x="{x(edges[0]):.1f}" y="{bottom + 14}" class="tick">{edges[0]:+.2f}</text>'
        f'<text x="{x(edges[-1]):.1f}" y="{bottom + 14}" class="tick strong">{edges[-1]:+.2f}</text>'
    )
    return _svg("waterfall", bottom + 20, parts, words.words("ui-score-picture"))


def timeline(alert: Alert, words: Writer) -> str:
    """Draw the amounts of the card's last transactions and of this one against time; both axes are logarithmic.

    Return an empty string if the card has no past transaction with an amount.
    """
    now, currency = alert.transaction.event_time, alert.currency or alert.transaction.currency
    price = alert.features.get("amount")
    own = round(price * minor_per_major(currency)) if price is not None else None  # in the currency of the past amounts
    past = [one for one in alert.recent if one.amount is not None and one.event_time <= now]
    if not past:
        return ""
    amounts = [max(one.amount or 0, 1) for one in past] + ([max(own, 1)] if own is not None else [])
    low, high = math.log(min(amounts)), math.log(max(amounts))
    span = max(high - low, 0.5)
    oldest = math.log1p((now - min(one.event_time for one in past)) / 60_000)
    height, left, right = 190, 70, _WIDTH - 30

    def x(event_time: int) -> float:
        return right - math.log1p((now - event_time) / 60_000) / max(oldest, 1e-6) * (right - left - 20)

    def y(amount: int) -> float:
        return 150 - (math.log(max(amount, 1)) - low) / span * 120

    parts = [
        f'<line x1="{left - 5}" x2="{right + 10}" y1="{y(amount):.1f}" y2="{y(amount):.1f}" class="grid"/>'
        f'<text x="{left - 9}" y="{y(amount) + 4:.1f}" class="label">{escape(words.value(money(amount, currency)))}</text>'
        for amount in sorted({min(amounts), max(amounts)})
    ]
    ticks: list[float] = []
    for one in past:
        ago = (now - one.event_time) / 1000
        place = x(one.event_time)
        kind = "online" if one.channel == "online" else "present"
        told = [
            words.value(money(one.amount or 0, currency)),
            words.words("ui-before-this", ago=seconds(ago)),
            *([words.value(country(one.country))] if one.country else []),
            *([words.value(code(one.channel))] if one.channel else []),
            *([words.words("ui-merchant")] if one.same_merchant else []),
        ]
        parts.append(
            f"<g><title>{escape(', '.join(told))}</title>"
            f'<circle cx="{place:.1f}" cy="{y(one.amount or 0):.1f}" r="6" class="{kind}{" same" if one.same_merchant else ""}"/></g>'
        )
        if all(abs(place - other) > 62 for other in (*ticks, right)):
            ticks.append(place)
            parts.append(f'<text x="{place:.1f}" y="{height - 14}" class="tick">{words.value(seconds(ago))}</text>')
    when = datetime.fromtimestamp(now / 1000, UTC)
    if own is not None:
        parts.append(
            f"<g><title>{escape(words.value(money(own, currency)))}, {words.words('ui-this')}</title>"
            f'<circle cx="{right}" cy="{y(own):.1f}" r="8" class="this"/></g>'
        )
    parts.append(f'<text x="{right - 12}" y="{height - 14}" class="tick strong">{when:%H:%M}</text>')
    return _svg("timeline", height, parts, words.words("ui-amounts-picture", currency=text(currency)))


def draw_links(graph: LinkGraph, addresses: dict[Node, str], words: Writer) -> str:
    """
    Draw a link graph: the centre in the middle, and each hop on a ring. Nodes with frauds are red.

    Return an empty string if the centre has no links.
    """
    if not graph.links:
        return ""
    places = _places(graph)
    parts = []
    for link in graph.links:
        (x1, y1), (x2, y2) = places[link.card], places[link.other]
        kind = "link bad" if link.frauds else "link"
        parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')
    for node, (x, y) in places.items():
        name = f"{words.words(f'ui-kind-{node.kind}')}: {node.value}"
        bad = " bad" if graph.frauds.get(node) else ""
        centre = " centre" if node == graph.centre else ""
        parts.append(
            f'<a href="{escape(addresses[node])}"><title>{escape(name)}</title>{_shape(node, x, y, f"node {node.kind}{bad}{centre}")}</a>'
        )
    return _svg("links", _LINKS_HEIGHT, parts, words.words("ui-links-picture", value=text(graph.centre.value)), "group")


_LINKS_HEIGHT = 420
_RADII = (0.0, 95.0, 190.0)


def _places(graph: LinkGraph) -> dict[Node, tuple[float, float]]:
    """Return the place of each node: on the ring of its hop, near the nodes that it is linked to."""
    neighbours: dict[Node, list[Node]] = {}
    for link in graph.links:
        neighbours.setdefault(link.card, []).append(link.other)
        neighbours.setdefault(link.other, []).append(link.card)
    angles = {graph.centre: 0.0}
    for hop in range(1, max(graph.hops.values()) + 1):
        ring = [node for node, distance in graph.hops.items() if distance == hop]

        def wanted(node: Node, inner: int = hop - 1) -> float:
            known = [angles[one] for one in neighbours.get(node, ()) if graph.hops[one] == inner]
            return min(known, default=0.0)

        ring.sort(key=lambda node: (wanted(node), node))
        for number, node in enumerate(ring):
            angles[node] = 2 * math.pi * number / len(ring)
    return {
        node: (
            _WIDTH / 2 + _RADII[graph.hops[node]] * math.cos(angle) * 1.5,
            _LINKS_HEIGHT / 2 + _RADII[graph.hops[node]] * math.sin(angle),
        )
        for node, angle in angles.items()
    }


def _shape(node: Node, x: float, y: float, kind: str) -> str:
    """Return a circle for a card, a square for a merchant and a diamond for a device."""
    if node.kind == "card":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" class="{kind}"/>'
    if node.kind == "merchant":
        return f'<rect x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12" class="{kind}"/>'
    return f'<path d="M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z" class="{kind}"/>'


def draw_work(days: list[DayOfWork], words: Writer) -> str:
    """Draw the alerts raised and closed on each day as bars. Return an empty string if there are none."""
    highest = max((max(day.raised, day.closed) for day in days), default=0)
    if not highest:
        return ""
    height, left, bottom = 170, 44, 140
    step = (_WIDTH - left - 10) / len(days)
    parts = [
        f'<line x1="{left}" x2="{_WIDTH - 8}" y1="{bottom}" y2="{bottom}" class="grid"/>',
        f'<text x="{left - 6}" y="{bottom - 112}" class="label">{highest}</text><text x="{left - 6}" y="{bottom}" class="label">0</text>',
    ]
    for number, day in enumerate(days):
        x = left + number * step
        for offset, (value, kind) in enumerate(((day.raised, "raised"), (day.closed, "closed"))):
            tall = 120 * value / highest
            width = max(step * 0.38, 1.0)
            parts.append(
                f'<rect x="{x + offset * width:.1f}" y="{bottom - tall:.1f}" width="{width:.1f}" height="{tall:.1f}" class="{kind}"/>'
            )
        if number % max(len(days) // 10, 1) == 0:
            name = datetime.fromtimestamp(day.day / 1000, UTC).strftime("%d.%m.")
            parts.append(f'<text x="{x:.1f}" y="{height - 14}" class="tick">{name}</text>')
    return _svg("work", height, parts, words.words("ui-work-picture"))


def _svg(name: str, height: float, parts: list[str], title: str, role: str = "img") -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {_WIDTH} {height:.0f}" role="{role}" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
