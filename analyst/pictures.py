"""SVG charts of an alert: contributions to its score, and its amount beside the card's past amounts.

All numbers come from the alert and its explanation.
"""

import math
from datetime import UTC, datetime
from html import escape

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


def _svg(name: str, height: float, parts: list[str], title: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
