"""Pages for administrators and auditors: users, webhooks and the audit trail."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from analyst.access.accounts import User
from analyst.access.roles import Role
from analyst.access.sessions import Session
from analyst.audit import entries
from analyst.web.guard import Administrator, Auditor
from analyst.web.queue_view import Option
from analyst.web.rendering import LARGEST_NUMBER, Number, count, instant, page, words_of
from analyst.web.services import services
from analyst.webhooks import EVENTS
from core.display import quoted
from explain.words import Writer

router = APIRouter()
_ENTRIES = 100


@router.get("/users", response_class=HTMLResponse)
def show_users(request: Request, session: Administrator) -> HTMLResponse:
    """Show all users."""
    return _users_page(request, session, "", "")


def _users_page(request: Request, session: Session, invited: str, link: str) -> HTMLResponse:
    words = words_of(request)
    users = [
        (one.name, _roles(words, one), _how(words, one), one.disabled, one.name == session.actor.name)
        for one in services(request).accounts.all()
    ]
    roles = [Option(role.value, words.words(f"ui-role-{role}"), role is Role.ANALYST) for role in Role]
    return page(request, "users.html", session, users=users, roles=roles, invited=invited, link=link)


def _roles(words: Writer, user: User) -> list[Option]:
    return [Option(role.value, words.words(f"ui-role-{role}"), role is user.role) for role in Role]


def _how(words: Writer, user: User) -> str:
    return words.words("ui-with-password" if user.has_password else "ui-without-password")


@router.post("/users/invite", response_class=HTMLResponse)
def invite(
    request: Request, session: Administrator, name: Annotated[str, Form(max_length=64)], role: Annotated[Role, Form()]
) -> HTMLResponse:
    """Invite a user and show the one-time link."""
    secret = services(request).accounts.invite(session.actor, name, role)
    base = services(request).settings.console_url or str(request.base_url).rstrip("/")
    return _users_page(request, session, name, f"{base}/invitation/{secret}")


@router.post("/users/add")
def add_user(
    request: Request, session: Administrator, name: Annotated[str, Form(max_length=64)], role: Annotated[Role, Form()]
) -> Response:
    """Add a user whom a proxy signs in."""
    services(request).accounts.add(session.actor, name, role)
    return RedirectResponse("/users", 303)


@router.post("/users/{name}/change")
def change_user(
    request: Request, session: Administrator, name: str, role: Annotated[Role, Form()], disabled: Annotated[bool, Form()] = False
) -> Response:
    """Change a user's role, disable or enable a user."""
    services(request).accounts.change(session.actor, name, role, disabled)
    return RedirectResponse("/users", 303)


@router.get("/webhooks", response_class=HTMLResponse)
def show_webhooks(request: Request, session: Administrator) -> HTMLResponse:
    """Show the webhooks and the failed deliveries."""
    return _webhooks_page(request, session, "")


def _webhooks_page(request: Request, session: Session, secret: str) -> HTMLResponse:
    own, words = services(request).webhooks, words_of(request)
    hooks = [(one.number, one.url, ", ".join(words.words(f"ui-event-{event}") for event in one.events)) for one in own.all()]
    failed = [
        (one.number, one.url, words.words(f"ui-event-{one.event}"), words.words(f"ui-delivery-{one.state}"), count(words, one.attempts),
         one.error or "", instant(words, one.next_at), one.state == "failed")
        for one in own.deliveries()
    ]  # fmt: skip
    events = [Option(event, words.words(f"ui-event-{event}"), True) for event in EVENTS]
    return page(request, "webhooks.html", session, hooks=hooks, failed=failed, events=events, secret=secret)


@router.post("/webhooks", response_class=HTMLResponse)
def add_webhook(
    request: Request, session: Administrator, url: Annotated[str, Form(max_length=2_000)], events: Annotated[list[str], Form()]
) -> HTMLResponse:
    """Add a webhook and show its secret once."""
    return _webhooks_page(request, session, services(request).webhooks.add(session.actor, url, tuple(events)))


@router.post("/webhooks/{number}/remove")
def remove_webhook(request: Request, session: Administrator, number: Number) -> Response:
    """Remove a webhook."""
    services(request).webhooks.remove(session.actor, number)
    return RedirectResponse("/webhooks", 303)


@router.post("/deliveries/{number}/repeat")
def repeat_delivery(request: Request, session: Administrator, number: Number) -> Response:
    """Try a failed delivery again."""
    services(request).webhooks.repeat(session.actor, number)
    return RedirectResponse("/webhooks", 303)


@router.get("/audit", response_class=HTMLResponse)
def show_audit(
    request: Request, session: Auditor, subject: str = "", before: Annotated[int | None, Query(ge=0, le=LARGEST_NUMBER)] = None
) -> HTMLResponse:
    """Show the audit trail, newest entries first."""
    own, words = services(request), words_of(request)
    with own.queue.reading() as connection:
        found = entries(connection, subject.strip()[:128] or None, before, _ENTRIES)
    rows = [(one.number, instant(words, one.at), one.actor, one.action, one.subject, quoted(one.detail, 200)) for one in found]
    return page(
        request, "audit.html", session, rows=rows, subject=subject, next=found[-1].number if len(found) == _ENTRIES else None
    )
