"""The pages of cards, merchants and devices, with the graph of their links."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from analyst.access.sessions import Session
from analyst.graph import Node, link_graph
from analyst.listing import AlertFilter, Order, Section
from analyst.proposals import ListKey
from analyst.web.entity_view import entity_view
from analyst.web.guard import Reader
from analyst.web.rendering import page, words_of
from analyst.web.services import services

router = APIRouter()
_Hops = Annotated[int, Query(ge=1, le=2)]
_SHOWN = 20  # alerts on the page


@router.get("/cards/{value:path}", response_class=HTMLResponse)
def show_card(request: Request, session: Reader, value: str, hops: _Hops = 1) -> HTMLResponse:
    """Show a card."""
    return _show(request, session, Node(ListKey.CARD, value), hops)


@router.get("/merchants/{value:path}", response_class=HTMLResponse)
def show_merchant(request: Request, session: Reader, value: str, hops: _Hops = 1) -> HTMLResponse:
    """Show a merchant."""
    return _show(request, session, Node(ListKey.MERCHANT, value), hops)


@router.get("/devices/{value:path}", response_class=HTMLResponse)
def show_device(request: Request, session: Reader, value: str, hops: _Hops = 1) -> HTMLResponse:
    """Show a device."""
    return _show(request, session, Node(ListKey.DEVICE, value), hops)


def _show(request: Request, session: Session, node: Node, hops: int) -> HTMLResponse:
    own, words = services(request), words_of(request)
    wanted = filter_about(node)
    view = entity_view(
        words, session.actor, node,
        found=own.listing.page(wanted, session.actor, size=_SHOWN),
        outcomes=own.listing.outcomes(wanted, session.actor),
        history=own.history,
        entries=own.proposals.entries_about(node.kind, node.value),
        graph=link_graph(own.queue, node, hops),
        hops=hops,
        now=own.queue.clock.now_ms(),
    )  # fmt: skip
    return page(request, "entity.html", session, entity=view)


def filter_about(node: Node) -> AlertFilter:
    """Return the filter that shows all alerts of a card, merchant or device."""
    everything = AlertFilter(section=Section.ALL, order=Order.TIME)
    return msgspec.structs.replace(everything, **{node.kind.value: node.value})
