"""
Link graph: which cards, merchants and devices are connected by alerts, over one or two hops.

The graph is built from the queue's alerts. It shows at most 200 nodes and says how many it leaves out.
"""

from collections import Counter
from typing import Any, Final, NamedTuple

from msgspec import Struct
from sqlalchemy import case, func, or_, select

from analyst.proposals import ListKey
from analyst.queue import Queue
from analyst.tables import alerts
from core.messages import Finding

MOST_NODES: Final = 200
_MOST_ALERTS: Final = 3_000  # read per hop
_COLUMNS: Final = {ListKey.CARD: alerts.c.card_id, ListKey.MERCHANT: alerts.c.merchant_id, ListKey.DEVICE: alerts.c.device_id}


class Node(NamedTuple):
    """A card, merchant or device."""

    kind: ListKey
    value: str


class Link(Struct, frozen=True):
    """A connection between a card and a merchant or device: the number of alerts with both, and of frauds among them."""

    card: Node
    other: Node
    alerts: int
    frauds: int


class LinkGraph(Struct, frozen=True):
    """
    The nodes around a centre, and their links. ``hops`` gives each node's distance from the centre; ``frauds`` counts its alerts
    that were judged as fraud. ``hidden`` nodes were left out.
    """

    centre: Node
    hops: dict[Node, int]
    links: list[Link]
    frauds: dict[Node, int]
    hidden: int


def link_graph(queue: Queue, centre: Node, hops: int) -> LinkGraph:
    """Return the graph around a node, with the nodes that at most ``hops`` links lead to. Nodes with many alerts come first."""
    distances = {centre: 0}
    links: dict[tuple[Node, Node], tuple[int, int]] = {}
    frontier, hidden = [centre], 0
    for hop in range(1, hops + 1):
        found = _links_of(queue, frontier)
        weights: Counter[Node] = Counter()
        for (card, other), (count, _) in found.items():
            for node in (card, other):
                if node not in distances:
                    weights[node] += count
        room = MOST_NODES - len(distances)
        chosen = [node for node, _ in sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:room]]
        hidden += len(weights) - len(chosen)
        distances |= dict.fromkeys(chosen, hop)
        links |= {ends: counts for ends, counts in found.items() if ends[0] in distances and ends[1] in distances}
        frontier = chosen
        if not frontier:
            break
    frauds = _frauds_of(queue, list(distances))
    ordered = [Link(card, other, *links[card, other]) for card, other in sorted(links)]
    return LinkGraph(centre, distances, ordered, frauds, hidden)


def _links_of(queue: Queue, nodes: list[Node]) -> dict[tuple[Node, Node], tuple[int, int]]:
    """Return the links of some nodes, with the numbers of alerts and frauds."""
    values: dict[ListKey, list[str]] = {kind: [node.value for node in nodes if node.kind is kind] for kind in ListKey}
    conditions = [column.in_(values[kind]) for kind, column in _COLUMNS.items() if values[kind]]
    frauds = func.sum(_one_if_fraud())
    wanted = (
        select(alerts.c.card_id, alerts.c.merchant_id, alerts.c.device_id, func.count(), frauds)
        .where(or_(*conditions))
        .group_by(alerts.c.card_id, alerts.c.merchant_id, alerts.c.device_id)
        .order_by(func.count().desc(), alerts.c.card_id)
        .limit(_MOST_ALERTS)
    )
    links: dict[tuple[Node, Node], tuple[int, int]] = {}
    asked = set(nodes)
    with queue.reading() as connection:
        for card_id, merchant_id, device_id, count, bad in connection.execute(wanted):
            card = Node(ListKey.CARD, card_id)
            others = [Node(ListKey.MERCHANT, merchant_id)] + ([Node(ListKey.DEVICE, device_id)] if device_id else [])
            for other in others:
                if card not in asked and other not in asked:
                    continue  # a link of the next hop
                before = links.get((card, other), (0, 0))
                links[card, other] = (before[0] + count, before[1] + int(bad))
    return links


def _frauds_of(queue: Queue, nodes: list[Node]) -> dict[Node, int]:
    """Return the number of alerts of each node that were judged as fraud, for nodes with any."""
    found: dict[Node, int] = {}
    with queue.reading() as connection:
        for kind, column in _COLUMNS.items():
            values = [node.value for node in nodes if node.kind is kind]
            bad = alerts.c.finding == Finding.FRAUD.value
            wanted = select(column, func.count()).where(column.in_(values), bad).group_by(column)
            found |= {Node(kind, value): int(count) for value, count in connection.execute(wanted)}
    return found


def _one_if_fraud() -> Any:
    return case((alerts.c.finding == Finding.FRAUD.value, 1), else_=0)
