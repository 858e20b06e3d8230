"""
Web console for analysts: the queue, a page for each alert, and verdicts.

All pages work without JavaScript. With JavaScript, htmx refreshes the queue, and keyboard shortcuts are available.
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
_OTHERS = 6  # alerts read per device and per merchant, including the alert shown
logger = logging.getLogger(__name__)
_PRIVACY = WITHOUT_KEY  # notes are free text: they are masked, which needs no key
_LOOPBACK = ("127.0.0.1", "localhost")
_OPEN = ("/live", "/ready", "/metrics")  # for probes and Prometheus, which do not sign in through the proxy
_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


def create_app(
    queue: Queue,
    settings: Settings,
    relaying: Callable[[], bool] = lambda: True,
    investigating: Callable[[QueuedAlert], Awaitable[str]] | None = None,
    history: History | None = None,
    publishing: Callable[[], bool] = lambda: True,
) -> FastAPI:
    """
    Return the console application for a queue.

    ``relaying`` returns whether the thread that publishes verdicts is running, ``publishing`` whether Kafka accepts them. ``investigating`` lets a language model investigate an
    alert and returns the result as JSON; without it, the console offers no investigations. ``history`` reads past payments from
    the archive.
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
        own = {"analyst": _signed_in_analyst(request, settings), "words": writer(language), "language": language}
        response = pages.TemplateResponse(request, name, own | values, status_code=status)
        if "language" in request.query_params:
            response.set_cookie("language", language, max_age=_YEAR_SECONDS, samesite="strict", httponly=True)
        return response

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        """Require an analyst, accept only GET and HEAD from other origins, and forbid external content and framing."""
        if not _signed_in_analyst(request, settings) and request.url.path not in _OPEN:
            return PlainTextResponse(f"no analyst is signed in: the proxy must set the header {settings.analyst_header}\n", 401)
        if request.method not in ("GET", "HEAD") and not _same_origin(request):
            return PlainTextResponse("verdicts and investigations are accepted only from the console's own pages\n", 403)
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        # with no-referrer, browsers would hide the Origin of our own forms too
        response.headers["Referrer-Policy"] = "same-origin"
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
        queued = _alert_or_404(queue, alert_id)
        explanation = queued.explanation
        past = _card_history(history, queued.alert.transaction)
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
        queued = await asyncio.to_thread(_alert_or_404, queue, alert_id)
        if investigating is None:
            raise HTTPException(409, "no language model is configured: set WHYFLAG_LLM_URL and WHYFLAG_LLM_MODEL")
        if queued.explanation is None:
            raise HTTPException(409, "this alert has no explanation yet: try again when it has one")
        number = await asyncio.to_thread(queue.begin_investigation, alert_id, _signed_in_analyst(request, settings))
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
            raise HTTPException(422, f"unknown typology {typology!r}: choose one from the list")
        queue.decide(
            alert_id, finding, _signed_in_analyst(request, settings), typology or None, _PRIVACY.text(note.strip()) or None
        )
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
        if not relaying():
            return PlainTextResponse("verdicts are not being published: restart the console\n", 503)
        # the queue works without Kafka, and verdicts wait in the database: the console stays in service
        return PlainTextResponse("ready\n" if publishing() else "ready; verdicts wait until Kafka answers\n")

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
        logger.exception("the investigation of alert %s failed", queued.alert.alert_id)
        message = None
    await asyncio.to_thread(queue.end_investigation, number, message)


def _investigations(queue: Queue, alert_id: str) -> dict[str, Any]:
    """Return an alert's finished investigations, newest first, and when the running one was started (None if none runs)."""
    rows = queue.investigations_of(alert_id)
    return {
        "investigations": [
            {"asked_by": row.asked_by, "asked_at": row.asked_at, "found": _investigation(row.message)}
            for row in rows
            if row.state == ENDED
        ],
        "under_way": next((row.asked_at for row in rows if row.state == UNDER_WAY), None),
    }


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


def _alert_or_404(queue: Queue, alert_id: str) -> QueuedAlert:
    queued = queue.get(alert_id)
    if queued is None:
        raise QueueError(f"no alert {alert_id} in the queue")
    return queued


def _same_origin(request: Request) -> bool:
    """Return whether a request comes from our own pages, by its headers. Browsers send ``Origin`` with every POST request."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return False
    return request.headers.get("sec-fetch-site", "same-origin") == "same-origin"


def _hosts(settings: Settings) -> list[str]:
    """Return the host names that the console accepts. Rejecting all others prevents DNS rebinding."""
    if settings.console_hosts:
        return settings.console_hosts.split(",")
    return ["127.0.0.1", "localhost"] if settings.console_host in _LOOPBACK else ["*"]


def _signed_in_analyst(request: Request, settings: Settings) -> str:
    """Return the signed-in analyst, from the trusted proxy's header or from the settings; empty if nobody is signed in."""
    return (request.headers.get(settings.analyst_header, "") if settings.analyst_header else settings.analyst)[:64]


def _language(request: Request) -> str:
    """Return the page language: from the query string, the cookie or the browser's preference, in this order, else English."""
    preferred = (one.split(";")[0].strip()[:2].lower() for one in request.headers.get("accept-language", "").split(","))
    asked = (request.query_params.get("language", ""), request.cookies.get("language", ""), *preferred)
    return next((one for one in asked if one in LANGUAGES), ENGLISH)


def _value(unit: str, number: float | None = None, text: str = "", currency: str = "") -> Value:
    """Return a ``Value`` for the templates, which give its unit by name."""
    return Value(Unit(unit), number, text, currency)


def _whole_share(share: float) -> Value:
    """Return a share rounded to whole percent."""
    return Value(Unit.SHARE, round(share, 2))


def _shared_themes(words: Writer, case: SimilarCase) -> str:
    """Return the names of the themes that a past case shares with the alert, separated by commas."""
    return ", ".join(words.code(f"theme-{theme}") for theme in case.shared)


def _investigation(message: str | None) -> Investigation | None:
    """Decode the result of an investigation; None if it failed or was written in an earlier, incompatible version."""
    try:
        return msgspec.json.decode(message, type=Investigation) if message else None
    except msgspec.MsgspecError:
        return None
