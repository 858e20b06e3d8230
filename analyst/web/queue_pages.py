"""The queue: filters, saved views, the next alert, verdicts on many alerts, and live updates."""

from typing import Annotated
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from analyst.access.sessions import Session
from analyst.bulk import MOST, Bulk, ItemResult
from analyst.listing import AlertFilter, Section, filter_of
from analyst.web.guard import Lead, Owner, Reader, Worker
from analyst.web.live import MOST_READERS, LiveUpdates
from analyst.web.queue_view import counted, queue_view, row_view
from analyst.web.rendering import LARGEST_NUMBER, Number, count, instant, page, text, words_of
from analyst.web.services import services
from analyst.web.verdict_view import UndoView, VerdictForm, closing_options, finding_buttons, typology_options, undo_view
from core.errors import InputError, ThrottledError
from core.messages import ClosingReason, Finding, Opinion
from explain.words import Writer

router = APIRouter()


def filter_in(query: str) -> AlertFilter:
    """
    Return the filter in a query text, as forms carry it.

    Raises:
        InputError: if it is invalid.
    """
    return filter_of(dict(parse_qsl(query[:4_000])))


@router.get("/", response_class=HTMLResponse)
def show_queue(request: Request, session: Reader) -> HTMLResponse:
    """Show a page of the queue."""
    own, words, reader = services(request), words_of(request), session.actor
    wanted = filter_of(request.query_params)
    found = own.listing.page(wanted, reader, _parameter(request, "after"), _parameter(request, "before"))
    view = queue_view(
        words, reader, wanted, found,
        total=own.listing.count(wanted, reader),
        sections=own.listing.section_counts(reader),
        breaches=own.listing.breaches(),
        views=own.views.all(reader),
        open_of_cards=own.listing.open_of_cards(list({row.card_id for row in found.rows})) if wanted.by_card and wanted.section is Section.OPEN else {},
        now=own.queue.clock.now_ms(),
        place=request.url.query,
    )  # fmt: skip
    undo = offered_undo(request, session)
    return page(request, "rows.html" if request.headers.get("hx-request") else "queue.html", session, queue=view, undo=undo)


def _parameter(request: Request, name: str) -> str:
    return request.query_params.get(name, "")


def offered_undo(request: Request, session: Session) -> UndoView | None:
    """Return the offer to undo the verdict that was just given, which the address names."""
    own, alert_id = services(request), _parameter(request, "given")
    if not alert_id:
        return None
    return undo_view(words_of(request), own.verdicts.of(alert_id), session.actor, own.queue.clock.now_ms())


@router.post("/next")
def open_next(request: Request, session: Worker, query: Annotated[str, Form(max_length=4_000)] = "") -> Response:
    """Claim the first free alert that the filter shows, and open it."""
    return go_to_next(request, session, query, "")


def go_to_next(request: Request, session: Session, query: str, given: str) -> Response:
    """Claim and open the next alert, or go back to the queue if there is none. ``given`` names the alert that was just judged."""
    wanted = filter_in(query)
    alert_id = services(request).assignments.claim_next(wanted, session.actor)
    parts = [wanted.query(), f"given={quote(given)}" if given else ""]
    rest = "&".join(part for part in parts if part)
    return RedirectResponse(f"{f'/alerts/{quote(alert_id)}' if alert_id else '/'}{'?' if rest else ''}{rest}", 303)


@router.get("/events")
async def events(request: Request, session: Reader) -> Response:
    """Stream an event for each change of the queue."""
    live: LiveUpdates = request.app.state.live
    if live.readers >= MOST_READERS:
        raise ThrottledError("too many pages are open: try again later")
    return StreamingResponse(live.events(), media_type="text/event-stream")


@router.post("/views")
def save_view(
    request: Request,
    session: Owner,
    name: Annotated[str, Form(max_length=64)],
    query: Annotated[str, Form(max_length=4_000)] = "",
    shared: Annotated[bool, Form()] = False,
) -> Response:
    """Save the filter of a page under a name."""
    wanted = filter_in(query)
    services(request).views.save(session.actor, name, wanted, shared)
    return RedirectResponse(f"/?{wanted.query()}", 303)


@router.post("/views/{number}/delete")
def delete_view(request: Request, session: Owner, number: Number) -> Response:
    """Delete one of the user's views."""
    services(request).views.delete(session.actor, number)
    return RedirectResponse("/", 303)


@router.get("/bulk", response_class=HTMLResponse)
def preview_bulk(request: Request, session: Lead) -> HTMLResponse:
    """Show what a verdict on all alerts of a filter would judge."""
    own, words = services(request), words_of(request)
    wanted = filter_of(request.query_params)
    preview, now = own.bulks.preview(wanted, session.actor), own.queue.clock.now_ms()
    return page(
        request, "bulk.html", session,
        count=counted(words, preview.alerts), too_many=preview.alerts > MOST, number=preview.number, rows=[row_view(words, row, session.actor, wanted, now) for row in preview.rows],
        recent=[_bulk_link(words, one) for one in own.bulks.recent()],
        form=VerdictForm("/bulk", 0, wanted.query(), finding_buttons(words), typology_options(words, ""), closing_options(words), []),
    )  # fmt: skip


@router.post("/bulk")
def give_bulk(
    request: Request,
    session: Lead,
    finding: Annotated[Finding, Form()],
    number: Annotated[int, Form(ge=0, le=LARGEST_NUMBER)],
    typology: Annotated[str, Form(max_length=64)] = "",
    closing_reason: Annotated[str, Form(max_length=32)] = "",
    note: Annotated[str, Form(max_length=2_000)] = "",
) -> Response:
    """Give the same verdict on all alerts of a preview."""
    services(request).bulks.give(number, opinion_of(finding, typology, closing_reason, note), session.actor)
    return RedirectResponse(f"/bulk/{number}", 303)


def opinion_of(finding: Finding, typology: str, closing_reason: str, note: str) -> Opinion:
    """
    Return the opinion in a form. The form preselects a typology, which says nothing about a legitimate payment.

    Raises:
        InputError: if the closing reason is unknown.
    """
    if closing_reason and closing_reason not in [reason.value for reason in ClosingReason]:
        raise InputError(f"unknown closing reason {closing_reason!r}: choose one from the list")
    reason = ClosingReason(closing_reason) if closing_reason else None
    return Opinion(finding, None if finding is Finding.LEGITIMATE else typology or None, reason, note)


def _bulk_link(words: Writer, bulk: Bulk) -> tuple[str, str]:
    """Return address and title of a bulk verdict."""
    finding = words.words(f"ui-finding-{bulk.opinion.finding}") if bulk.opinion else "–"
    title = words.words(
        "ui-bulk-title", number=text(str(bulk.number)), finding=text(finding), by=text(bulk.made_by),
        when=text(instant(words, bulk.given_at or bulk.made_at)),
    )  # fmt: skip
    return f"/bulk/{bulk.number}", title


@router.get("/bulk/{number}", response_class=HTMLResponse)
def show_bulk(
    request: Request, session: Lead, number: Number, after: Annotated[int, Query(ge=-1, le=LARGEST_NUMBER)] = -1
) -> HTMLResponse:
    """Show what became of each alert of a bulk verdict."""
    own, words = services(request), words_of(request)
    bulk = own.bulks.get(number)
    items = own.bulks.items(number, after)
    return page(
        request, "bulk_result.html", session,
        number=number, undone=bulk.undone_at is not None, next=items[-1].position if items else None,
        title=_bulk_link(words, bulk)[1],
        results=[(words.words(f"ui-bulk-{one}"), count(words, bulk.results[one])) for one in ItemResult if one in bulk.results],
        items=[(f"/alerts/{quote(one.alert_id)}", one.alert_id, words.words(f"ui-bulk-{one.result or 'waiting'}")) for one in items],
    )  # fmt: skip


@router.post("/bulk/{number}/undo")
def undo_bulk(request: Request, session: Lead, number: Number) -> Response:
    """Undo a bulk verdict as far as possible."""
    services(request).bulks.undo(number, session.actor)
    return RedirectResponse(f"/bulk/{number}", 303)
