"""Pages to sign in and out, to accept an invitation, and to manage one's own account."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from analyst.access.accounts import SHORTEST_PASSWORD
from analyst.access.roles import Permission
from analyst.access.sessions import Session
from analyst.web.guard import Owner, cookie_name, is_https, local_target, same_origin, set_session_cookie
from analyst.web.rendering import Number, date, page, text, words_of
from analyst.web.services import CALLBACK, services
from core.errors import AccessError, InputError, SignInError

router = APIRouter()
_STATE = "whyflag_sign_in"


def _check_origin(request: Request) -> None:
    """
    Check that a form was sent by our own page; before the log-in, there is no session whose secret it could contain.

    Raises:
        AccessError: if not.
    """
    if not same_origin(request):
        raise AccessError("this request does not come from the console's own pages")


@router.get("/sign-in", response_class=HTMLResponse)
def show_sign_in(request: Request, target: str = "/") -> HTMLResponse:
    """Show the log-in page."""
    return _sign_in_page(request, target, "", 200)


def _sign_in_page(request: Request, target: str, message: str, status: int) -> HTMLResponse:
    own = services(request)
    provider = f"/sign-in/provider?target={quote(local_target(target), safe='')}" if own.provider else ""
    passwords = any(user.has_password for user in own.accounts.all()) or not provider
    return page(
        request,
        "sign_in.html",
        None,
        status,
        target=local_target(target),
        message=message,
        provider=provider,
        passwords=passwords,
    )


@router.post("/sign-in")
def sign_in(
    request: Request,
    name: Annotated[str, Form(max_length=64)],
    password: Annotated[str, Form(max_length=256)],
    target: Annotated[str, Form(max_length=4_000)] = "/",
) -> Response:
    """Sign in with a password. The session gets a new secret, whatever cookie the browser sent."""
    _check_origin(request)
    own = services(request)
    address = request.client.host if request.client else ""
    try:
        user = own.accounts.log_in(name, password, address)
    except SignInError as error:
        return _sign_in_page(request, target, str(error), 401)
    return _begin(request, user.name, "with a password", target)


def _begin(request: Request, name: str, how: str, target: str) -> Response:
    own = services(request)
    if old := request.cookies.get(cookie_name(own.settings)):
        own.sessions.end(old)
    response = RedirectResponse(local_target(target), 303)
    set_session_cookie(response, own.settings, own.sessions.begin(name, how))
    return response


@router.get("/sign-in/provider")
def go_to_provider(request: Request, target: str = "/") -> Response:
    """Send the browser to the OpenID Connect provider."""
    own = services(request)
    if own.provider is None:
        raise InputError("no OpenID Connect provider is configured: set WHYFLAG_OIDC_ISSUER")
    departure = own.provider.depart(local_target(target))
    response = RedirectResponse(departure.address, 303)
    # Lax: the provider sends the browser back by a link from another site
    response.set_cookie(
        _STATE, departure.state, max_age=600, httponly=True, samesite="lax", secure=is_https(own.settings), path=CALLBACK
    )
    return response


@router.get(CALLBACK)
def come_back(request: Request, state: str = "") -> Response:
    """Finish a log-in at the provider."""
    own = services(request)
    if own.provider is None:
        raise InputError("no OpenID Connect provider is configured: set WHYFLAG_OIDC_ISSUER")
    arrival = own.provider.arrive(request.url.query, state, request.cookies.get(_STATE, ""))
    response = _begin(request, arrival.user.name, "by OpenID Connect", arrival.target)
    response.delete_cookie(_STATE, path=CALLBACK)
    return response


@router.get("/invitation/{secret}", response_class=HTMLResponse)
def show_invitation(request: Request, secret: str) -> HTMLResponse:
    """Show the form with which an invited user chooses a password."""
    return _invitation_page(request, secret, "", 200)


def _invitation_page(request: Request, secret: str, message: str, status: int) -> HTMLResponse:
    invitation = services(request).accounts.invitation(secret)
    words = words_of(request)
    return page(
        request, "invitation.html", None, status, secret=secret, message=message, name=invitation.name,
        role=words.words(f"ui-role-{invitation.role}"), shortest=SHORTEST_PASSWORD,
    )  # fmt: skip


@router.post("/invitation/{secret}")
def accept_invitation(
    request: Request, secret: str, password: Annotated[str, Form(max_length=256)], again: Annotated[str, Form(max_length=256)]
) -> Response:
    """Set the password and sign in."""
    _check_origin(request)
    if password != again:
        return _invitation_page(request, secret, words_of(request).words("ui-passwords-differ"), 422)
    try:
        user = services(request).accounts.accept(secret, password)
    except InputError as error:
        return _invitation_page(request, secret, str(error), 422)
    return _begin(request, user.name, "with an invitation", "/")


@router.post("/sign-out")
async def sign_out(request: Request, session: Owner) -> Response:
    """End the session; with ``everywhere``, all sessions of the user."""
    own = services(request)
    everywhere = (await request.form()).get("everywhere")
    await run_in_threadpool(own.sessions.end, request.cookies.get(cookie_name(own.settings), ""))
    if everywhere:
        await run_in_threadpool(own.sessions.end_all, session.actor.name)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(cookie_name(own.settings), path="/", secure=is_https(own.settings))
    return response


@router.get("/account", response_class=HTMLResponse)
def show_account(request: Request, session: Owner) -> HTMLResponse:
    """Show the user's role and API tokens."""
    return _account_page(request, session, "")


def _account_page(request: Request, session: Session, new_token: str) -> HTMLResponse:
    words = words_of(request)
    tokens = [
        (
            one.number,
            one.label,
            ", ".join(one.scopes),
            words.words("ui-expires", when=text(date(words, one.expires_at))),
        )
        for one in services(request).tokens.of(session.actor.name)
    ]
    return page(
        request, "account.html", session, role=words.words(f"ui-role-{session.actor.role}"), tokens=tokens, new_token=new_token,
        scopes=[one.value for one in Permission if session.actor.may(one)],
    )  # fmt: skip


@router.post("/account/tokens", response_class=HTMLResponse)
def create_token(
    request: Request,
    session: Owner,
    label: Annotated[str, Form(max_length=64)],
    scopes: Annotated[list[Permission], Form()],
    days: Annotated[int, Form()] = 30,
) -> HTMLResponse:
    """Create an API token and show its secret once."""
    secret = services(request).tokens.create(session.actor, label, tuple(scopes), days)
    return _account_page(request, session, secret)


@router.post("/account/tokens/{number}/revoke")
def revoke_token(request: Request, session: Owner, number: Number) -> Response:
    """Revoke an API token."""
    services(request).tokens.revoke(session.actor, number)
    return RedirectResponse("/account", 303)
