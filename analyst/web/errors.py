"""From errors to HTTP: the only place where an error of the domain becomes a status."""

import logging
from typing import Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from analyst.web.guard import sign_in_path
from analyst.web.rendering import page, words_of
from analyst.web.verdict_view import conflict_view
from core.errors import (
    AccessError,
    AuditKeyError,
    ConflictError,
    DatabaseError,
    InputError,
    NotFoundError,
    QueueError,
    SettingsError,
    SignInError,
    SignInNeeded,
    ThrottledError,
    VerdictConflict,
    WhyflagError,
)

logger = logging.getLogger(__name__)

# the first class that an error belongs to gives its status
STATUSES: Final[dict[type[Exception], int]] = {
    SignInError: 401,
    ThrottledError: 429,
    AccessError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    InputError: 422,
    SettingsError: 422,
    QueueError: 409,
    DatabaseError: 503,
    SQLAlchemyError: 503,
    WhyflagError: 500,
}


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error."""
    return next(status for kind, status in STATUSES.items() if isinstance(error, kind))


def add_handlers(app: FastAPI) -> None:
    """Answer errors with a page, or with JSON under /api/."""
    app.add_exception_handler(SignInNeeded, _sign_in)
    app.add_exception_handler(VerdictConflict, _conflict)
    for kind in (WhyflagError, SQLAlchemyError):
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def _answer(request: Request, status: int, message: str, kind: str) -> Response:
    if request.url.path.startswith("/api/"):
        headers = {"www-authenticate": "Bearer"} if status == 401 else None
        return JSONResponse({"error": {"type": kind, "message": message}}, status, headers)
    return page(request, "error.html", getattr(request.state, "session", None), status, message=message)


async def _sign_in(request: Request, error: Exception) -> Response:
    if request.url.path.startswith("/api/") or request.headers.get("accept", "").startswith("text/event-stream"):
        return _answer(request, 401, str(error), "SignInError")
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"hx-redirect": sign_in_path(request)})
    return RedirectResponse(sign_in_path(request), 303)


async def _conflict(request: Request, error: Exception) -> Response:
    assert isinstance(error, VerdictConflict)
    if request.url.path.startswith("/api/"):
        body = {
            "error": {"type": "VerdictConflict", "message": str(error)},
            "version": error.version,
            "theirs": msgspec.to_builtins(error.theirs),
            "yours": msgspec.to_builtins(error.mine),
        }
        return JSONResponse(body, 409)
    view = conflict_view(error, words_of(request), str((await request.form()).get("query", "")))
    return page(request, "conflict.html", request.state.session, 409, conflict=view)


async def _known(request: Request, error: Exception) -> Response:
    status = status_of(error)
    # the text of a database error says nothing that helps a reader, and may say too much
    message = "the database does not answer: try again in a moment" if status == 503 else str(error)
    if isinstance(error, AuditKeyError):
        logger.error("%s", error)
        message = "this console cannot sign changes: its operator has to restart it with the present audit key"
    return _answer(request, status, message, type(error).__name__)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    told = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return _answer(request, 422, told, "InputError")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(request, error.status_code, error.detail, "HTTPError")
