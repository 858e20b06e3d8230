"""An alert's page, and what people do there: claim, snooze, judge, undo, ask the assistant."""

import logging
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from analyst.assistant import questions_about
from analyst.listing import filter_of
from analyst.proposals import ListKey
from analyst.queue import Queue, QueuedAlert
from analyst.web.alert_view import alert_view
from analyst.web.entity_view import list_words
from analyst.web.guard import Reader, Worker
from analyst.web.queue_pages import filter_in, go_to_next, offered_undo, opinion_of
from analyst.web.rendering import LARGEST_NUMBER, page, words_of
from analyst.web.services import services
from core.errors import ConflictError, WhyflagError
from core.messages import Alert, Finding, Transaction
from explain.facts.history import CardHistory, History, card_history

logger = logging.getLogger(__name__)
router = APIRouter()
_OTHERS = 6  # alerts read per device and per merchant, including the alert shown
_Query = Annotated[str, Form(max_length=4_000)]


@router.get("/alerts/{alert_id}", response_class=HTMLResponse)
def show_alert(request: Request, session: Reader, alert_id: str) -> HTMLResponse:
    """Show an alert."""
    own, words = services(request), words_of(request)
    queued = own.queue.required(alert_id)
    transaction = queued.alert.transaction
    about = [(ListKey.CARD, transaction.card_id), (ListKey.MERCHANT, transaction.merchant_id)]
    about += [(ListKey.DEVICE, transaction.device_id)] if transaction.device_id else []
    entries = [entry for entry in own.proposals.entries() if (entry.key, entry.value) in about]
    view = alert_view(
        words, session.actor, queued,
        given=own.verdicts.of(alert_id),
        history=_card_history(own.history, transaction),
        others=_others(own.queue, queued.alert),
        questions=questions_about(own.queue, alert_id),
        assistant_offered=own.assistant is not None,
        lists=list_words(words, entries),
        query=filter_of(request.query_params).query(),
        now=own.queue.clock.now_ms(),
    )  # fmt: skip
    return page(request, "alert.html", session, alert=view, undo=offered_undo(request, session) or view.undo)


def _card_history(history: History | None, transaction: Transaction) -> CardHistory | None:
    """Return the card's history from the archive; None if there is no archive or it does not answer."""
    if history is None:
        return None
    try:
        return card_history(transaction, history)
    except WhyflagError as error:
        logger.warning("%s", error)
        return None


def _others(queue: Queue, alert: Alert) -> list[tuple[str, QueuedAlert]]:
    """Return the alerts that share this alert's card, device or merchant, each with the name of what it shares, newest first."""
    transaction = alert.transaction
    found = [("card", one) for one in queue.of_card(transaction.card_id)]
    if transaction.device_id:
        found += [("device", one) for one in queue.of_device(transaction.device_id, _OTHERS)]
    found += [("merchant", one) for one in queue.of_merchant(transaction.merchant_id, _OTHERS)]
    shared: dict[str, tuple[str, QueuedAlert]] = {}
    for what, one in found:
        shared.setdefault(one.alert.alert_id, (what, one))
    shared.pop(alert.alert_id, None)
    return sorted(shared.values(), key=lambda other: -other[1].alert.decision.event_time)


@router.post("/alerts/{alert_id}/verdict")
def give_verdict(
    request: Request,
    session: Worker,
    alert_id: str,
    finding: Annotated[Finding, Form()],
    version: Annotated[int, Form(ge=0)],
    typology: Annotated[str, Form(max_length=64)] = "",
    closing_reason: Annotated[str, Form(max_length=32)] = "",
    note: Annotated[str, Form(max_length=2_000)] = "",
    query: _Query = "",
) -> Response:
    """Give a verdict and open the next alert."""
    opinion = opinion_of(finding, typology, closing_reason, note)
    services(request).verdicts.give(alert_id, opinion, session.actor, version)
    return go_to_next(request, session, query, alert_id)


@router.post("/alerts/{alert_id}/undo")
def undo_verdict(
    request: Request,
    session: Worker,
    alert_id: str,
    number: Annotated[int, Form(ge=0, le=LARGEST_NUMBER)],
    query: _Query = "",
) -> Response:
    """Undo the last verdict on an alert and show the alert again."""
    services(request).verdicts.undo(alert_id, number, session.actor)
    return _back(alert_id, query)


@router.post("/alerts/{alert_id}/claim")
def claim(request: Request, session: Worker, alert_id: str, query: _Query = "") -> Response:
    """Claim an alert."""
    services(request).assignments.claim(alert_id, session.actor)
    return _back(alert_id, query)


@router.post("/alerts/{alert_id}/release")
def release(request: Request, session: Worker, alert_id: str, query: _Query = "") -> Response:
    """Give a claimed alert back to the queue."""
    services(request).assignments.release(alert_id, session.actor)
    return _back(alert_id, query)


@router.post("/alerts/{alert_id}/snooze")
def snooze(
    request: Request, session: Worker, alert_id: str, minutes: Annotated[int, Form(ge=0, le=43_200)], query: _Query = ""
) -> Response:
    """Hide an alert for some minutes and open the next one; 0 minutes shows it again."""
    services(request).assignments.snooze(alert_id, minutes, session.actor)
    return go_to_next(request, session, query, "") if minutes else _back(alert_id, query)


@router.post("/alerts/{alert_id}/ask")
async def ask(
    request: Request, session: Worker, alert_id: str, question: Annotated[str, Form(max_length=1_000)] = "", query: _Query = ""
) -> Response:
    """Ask the assistant about an alert; without a question, have the alert investigated."""
    assistant = services(request).assistant
    if assistant is None:
        raise ConflictError("no language model is configured: set WHYFLAG_LLM_URL and WHYFLAG_LLM_MODEL")
    await assistant.ask(alert_id, session.actor, question.strip() or None)
    return _back(alert_id, query, "#assistant")


def _back(alert_id: str, query: str, anchor: str = "") -> Response:
    rest = filter_in(query).query()
    return RedirectResponse(f"/alerts/{quote(alert_id)}{'?' if rest else ''}{rest}{anchor}", 303)
