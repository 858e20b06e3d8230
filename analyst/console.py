"""
The analyst's console: the queue, an alert's page, and verdicts.

Pages are complete without JavaScript; htmx refreshes the queue, a few keys move through it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from fastapi import FastAPI, Form, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from analyst.pictures import timeline, waterfall
from analyst.queue import ENDED, UNDER_WAY, Queue, QueuedAlert
from core.display import quoted
from core.errors import QueueError, WhyflagError
from core.messages import TYPOLOGIES, Alert, Finding, Part, SimilarCase, Transaction, Unit, Value
from core.privacy.masking import WITHOUT_KEY
from core.settings import Settings
from explain.facts.categories import category_name
from explain.facts.history import CardHistory, History, card_history
from explain.investigation import Investigation
from explain.words import ENGLISH, LANGUAGES, Writer, writer

_HERE = Path(__file__).parent
PAGE = 50
_YEAR_SECONDS = 365 * 24 * 3600
_OTHERS = 6  # alerts of the same device or merchant that an alert shows, itself included
logger = logging.getLogger(__name__)
_PRIVACY = WITHOUT_KEY  # notes are free text: masking needs no key
_LOOPBACK = ("127.0.0.1", "localhost")
_OPEN = ("/live", "/ready", "/metrics")  # for probes and Prometheus, which no proxy signs in
_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


def create_app(
    queue: Queue,
    settings: Settings,
    publishing: Callable[[], bool] = lambda: True,
    investigating: Callable[[QueuedAlert], Awaitable[str]] | None = None,
    history: History | None = None,
) -> FastAPI:
    """
    Return the console over a queue.

    ``publishing`` tells whether verdicts are on their way to Kafka; ``investigating`` lets a language model look into an alert and returns
    what it found, as JSON; ``history`` knows past payments.
    """
    under_way: set[asyncio.Task[None]] = set()
    app = FastAPI(title="whyflag", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_hosts(settings))
    pages = Jinja2Templates(_HERE / "templates")
    pages.env.filters |= {"quoted": quoted, "capital": lambda words: words[:1].upper() + words[1:]}
    pages.env.globals |= {"value": _value, "whole_share": _whole_share, "languages": LANGUAGES}

    def page(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        language = _language(request)
        own = {"analyst": _named(request, settings), "words": writer(language), "language": language}
        response = pages.TemplateResponse(request, name, own | values, status_code=status)
        if "language" in request.query_params:
            response.set_cookie("language", language, max_age=_YEAR_SECONDS, samesite="strict", httponly=True)
        return response

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        """Changes only from pages of ours, nothing loaded from elsewhere, nothing framed, nobody unnamed."""
        if not _named(request, settings) and request.url.path not in _OPEN:
            return PlainTextResponse(f"the proxy named no analyst in the header {settings.analyst_header}\n", 401)
        if request.method not in ("GET", "HEAD") and not _same_origin(request):
            return PlainTextResponse("a verdict can only be given from the console's own pages\n", 403)
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["Referrer-Policy"] = "same-origin"  # with no-referrer a browser hides the origin of our own forms too
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.exception_handler(QueueError)
    async def unknown(request: Request, error: QueueError) -> HTMLResponse:
        return page(request, "error.html", 404, message=str(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> HTMLResponse:
        return page(request, "error.html", error.status_code, message=error.detail)

    @app.exception_handler(RequestValidationError)
    async def misspelt(request: Request, error: RequestValidationError) -> HTMLResponse:
        told = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return page(request, "error.html", 422, message=told)

    @app.get("/", response_class=HTMLResponse)
    def show_queue(request: Request, offset: Annotated[int, Query(ge=0, le=10**9)] = 0) -> HTMLResponse:
        rows = queue.open_alerts(PAGE + 1, offset)
        values: dict[str, Any] = {
            "rows": rows[:PAGE],
            "counts": queue.counts(),
            "offset": offset,
            "more": len(rows) > PAGE,
            "page": PAGE,
        }
        return page(request, "rows.html" if request.headers.get("hx-request") else "queue.html", **values)

    @app.get("/alerts/{alert_id}", response_class=HTMLResponse)
    def show_alert(request: Request, alert_id: str) -> HTMLResponse:
        queued = _found(queue, alert_id)
        explanation = queued.explanation
        past = _past(history, queued.alert.transaction)
        return page(
            request,
            "alert.html",
            queued=queued,
            alert=queued.alert,
            explanation=explanation,
            facts={fact.fact_id: fact for fact in explanation.facts} if explanation else {},
            paid=Value(Unit.MONEY, queued.alert.transaction.amount, currency=queued.alert.transaction.currency),
            waterfall=waterfall(explanation, writer(_language(request))) if explanation else "",
            timeline=timeline(queued.alert, writer(_language(request))),
            shared_themes=_shared_themes,
            history=past,
            category=category_name(queued.alert.transaction.mcc),
            others=_others(queue, queued.alert),
            verdicts=queue.verdicts_of(alert_id),
            typologies=TYPOLOGIES,
            findings=list(Finding),
            parts=list(Part),
            can_investigate=investigating is not None,
            **_investigations(queue, alert_id),
        )

    @app.post("/alerts/{alert_id}/investigate")
    async def start_investigation(request: Request, alert_id: str) -> RedirectResponse:
        queued = await asyncio.to_thread(_found, queue, alert_id)
        if investigating is None:
            raise HTTPException(409, "no language model is set: WHYFLAG_LLM_URL and WHYFLAG_LLM_MODEL name one")
        if queued.explanation is None:
            raise HTTPException(409, "this alert is not explained yet")
        number = await asyncio.to_thread(queue.begin_investigation, alert_id, _named(request, settings))
        task = asyncio.create_task(_look_into(queue, queued, number, investigating))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return RedirectResponse(f"/alerts/{alert_id}#investigation", status_code=303)

    @app.post("/alerts/{alert_id}/verdict")
    def give_verdict(
        request: Request,
        alert_id: str,
        finding: Annotated[Finding, Form()],
        typology: Annotated[str, Form(max_length=64)] = "",
        note: Annotated[str, Form(max_length=2000)] = "",
    ) -> RedirectResponse:
        if typology and typology not in TYPOLOGIES:
            raise HTTPException(422, f"no typology {typology!r}")
        queue.decide(alert_id, finding, _named(request, settings), typology or None, _PRIVACY.text(note.strip()) or None)
        waiting = queue.open_alerts(1)
        return RedirectResponse(f"/alerts/{waiting[0].alert.alert_id}" if waiting else "/", status_code=303)

    @app.get("/live", response_class=PlainTextResponse)
    async def live() -> str:
        return "live\n"

    @app.get("/ready", response_class=PlainTextResponse)
    def ready() -> PlainTextResponse:
        try:
            queue.counts()
        except SQLAlchemyError:
            return PlainTextResponse("the queue's database does not answer\n", 503)
        if not publishing():
            return PlainTextResponse("verdicts are not being published\n", 503)
        return PlainTextResponse("ready\n")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


async def _look_into(
    queue: Queue, queued: QueuedAlert, number: int, investigating: Callable[[QueuedAlert], Awaitable[str]]
) -> None:
    try:
        message = await investigating(queued)
    except Exception:
        logger.exception("the investigation of %s failed", queued.alert.alert_id)
        message = None
    await asyncio.to_thread(queue.end_investigation, number, message)


def _investigations(queue: Queue, alert_id: str) -> dict[str, Any]:
    """What was found, newest first, and since when one is under way."""
    rows = queue.investigations_of(alert_id)
    return {
        "investigations": [
            {"asked_by": row.asked_by, "asked_at": row.asked_at, "found": _investigation(row.message)}
            for row in rows
            if row.state == ENDED
        ],
        "under_way": next((row.asked_at for row in rows if row.state == UNDER_WAY), None),
    }


def _past(history: History | None, transaction: Transaction) -> CardHistory | None:
    """What the archive tells; None without an archive, or while it does not answer."""
    if history is None:
        return None
    try:
        return card_history(transaction, history)
    except WhyflagError as error:
        logger.warning("%s", error)
        return None


def _others(queue: Queue, alert: Alert) -> list[tuple[str, QueuedAlert]]:
    """Other alerts with what they share with this one: its card, its device or its merchant; newest first."""
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


def _found(queue: Queue, alert_id: str) -> QueuedAlert:
    queued = queue.get(alert_id)
    if queued is None:
        raise QueueError(f"no alert {alert_id} in the queue")
    return queued


def _same_origin(request: Request) -> bool:
    """Whether a change comes from a page of ours, by what the browser says of it. Browsers send ``Origin`` with every change."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return False
    return request.headers.get("sec-fetch-site", "same-origin") == "same-origin"


def _hosts(settings: Settings) -> list[str]:
    """Names the console answers to, so that no other site's name can be made to point here (DNS rebinding)."""
    if settings.console_hosts:
        return settings.console_hosts.split(",")
    return ["127.0.0.1", "localhost"] if settings.console_host in _LOOPBACK else ["*"]


def _named(request: Request, settings: Settings) -> str:
    """Who is signed in: named by a trusted proxy's header, or by the settings; empty for nobody."""
    return (request.headers.get(settings.analyst_header, "") if settings.analyst_header else settings.analyst)[:64]


def _language(request: Request) -> str:
    """The reader's language: as chosen now, as chosen before, as the browser prefers, or English."""
    preferred = (one.split(";")[0].strip()[:2].lower() for one in request.headers.get("accept-language", "").split(","))
    asked = (request.query_params.get("language", ""), request.cookies.get("language", ""), *preferred)
    return next((one for one in asked if one in LANGUAGES), ENGLISH)


def _value(unit: str, number: float | None = None, text: str = "", currency: str = "") -> Value:
    """A value for the pages, by the name of its unit."""
    return Value(Unit(unit), number, text, currency)


def _whole_share(share: float) -> Value:
    """A share in whole percent."""
    return Value(Unit.SHARE, round(share, 2))


def _shared_themes(words: Writer, case: SimilarCase) -> str:
    """The themes that a past case shares with an alert."""
    return ", ".join(words.code(f"theme-{theme}") for theme in case.shared)


def _investigation(message: str | None) -> Investigation | None:
    """What an investigation found; None if it broke down or an earlier version wrote it."""
    try:
        return msgspec.json.decode(message, type=Investigation) if message else None
    except msgspec.MsgspecError:
        return None
