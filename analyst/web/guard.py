"""
What stands before every route: host names, size limits, response headers, log-in, permissions and protection against requests from
other sites.

A route without ``Allowed`` is public. A test checks that only the log-in pages are.
"""

import hashlib
import hmac
import logging
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from analyst.access.accounts import NAME_FORM
from analyst.access.roles import Actor, Permission
from analyst.access.sessions import Session
from analyst.web.services import Services, services
from core.errors import AccessError, SettingsError, SignInError, SignInNeeded
from core.settings import Settings

logger = logging.getLogger(__name__)

LARGEST_BODY: Final = 128 << 10
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "referrer-policy": "same-origin",  # with no-referrer, browsers would hide the Origin of our own forms
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_PROXY_SHARES: Final = "x-proxy-secret"


def check_exposure(settings: Settings) -> None:
    """
    Check that the settings do not expose the console.

    Raises:
        SettingsError: if the console would listen off loopback without a host name, or trust a header from anybody.
    """
    if settings.console_host not in LOOPBACK and not settings.console_url:
        raise SettingsError(
            f"WHYFLAG_CONSOLE_HOST={settings.console_host} is reachable from other machines: set WHYFLAG_CONSOLE_URL to the console's "
            "address in browsers"
        )
    if settings.proxy_header and not (settings.proxy_secret or settings.console_client_ca):
        raise SettingsError(
            "WHYFLAG_PROXY_HEADER needs WHYFLAG_PROXY_SECRET or WHYFLAG_CONSOLE_CLIENT_CA: otherwise any client can impersonate any user"
        )
    if settings.oidc_issuer and not (settings.console_url and settings.oidc_client_id and settings.oidc_roles):
        raise SettingsError(
            "WHYFLAG_OIDC_ISSUER needs WHYFLAG_CONSOLE_URL, WHYFLAG_OIDC_CLIENT_ID, WHYFLAG_OIDC_CLIENT_SECRET and WHYFLAG_OIDC_ROLES"
        )


def cookie_name(settings: Settings) -> str:
    """Return the name of the session's cookie. With the prefix __Host-, browsers accept it only from HTTPS pages of this host."""
    return "__Host-whyflag" if is_https(settings) else "whyflag_session"


def is_https(settings: Settings) -> bool:
    """Return whether browsers reach the console by HTTPS."""
    return settings.console_url.startswith("https://") or bool(settings.console_certificate)


def set_session_cookie(response: Response, settings: Settings, secret: str) -> None:
    """Give the browser the session's secret, which scripts cannot read."""
    # Lax: with Strict, a link to the console from a mail or chat would show the log-in page
    response.set_cookie(cookie_name(settings), secret, httponly=True, samesite="lax", secure=is_https(settings), path="/")


class Allowed:
    """Dependency that returns the session of a signed-in user who has a permission, and raises an error otherwise."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request) -> Session:
        """
        Return the session.

        Raises:
            SignInError: if nobody is signed in.
            AccessError: if the user lacks the permission, or the request may come from another site.
        """
        own = services(request)
        bearer = request.headers.get("authorization")
        if bearer is not None:
            scheme, _, secret = bearer.partition(" ")
            if scheme.lower() != "bearer" or not request.url.path.startswith("/api/"):
                raise SignInError("tokens are accepted as `Authorization: Bearer TOKEN`, and only by the API")
            session = Session(await run_in_threadpool(own.tokens.find, secret.strip()), "")
        else:
            session = await self._signed_in(request, own)
            if request.method not in _SAFE:
                await _check_csrf(request, session)
        session.actor.require(self.permission)
        request.state.session = session
        return session

    async def _signed_in(self, request: Request, own: Services) -> Session:
        if own.settings.proxy_header:
            session = await run_in_threadpool(_proxied, request, own)
        else:
            secret = request.cookies.get(cookie_name(own.settings), "")
            by_hand = request.url.path != "/events" and "hx-request" not in request.headers
            session = await run_in_threadpool(own.sessions.find, secret, by_hand) if secret else None
        if session is None:
            raise SignInNeeded("nobody is signed in")
        return session


Reader = Annotated[Session, Depends(Allowed(Permission.READ))]
Owner = Annotated[Session, Depends(Allowed(Permission.OWN))]
Worker = Annotated[Session, Depends(Allowed(Permission.WORK))]
Proposer = Annotated[Session, Depends(Allowed(Permission.PROPOSE))]
Lead = Annotated[Session, Depends(Allowed(Permission.LEAD))]
Approver = Annotated[Session, Depends(Allowed(Permission.APPROVE))]
Auditor = Annotated[Session, Depends(Allowed(Permission.AUDIT))]
Administrator = Annotated[Session, Depends(Allowed(Permission.ADMINISTER))]


def _proxied(request: Request, own: Services) -> Session | None:
    """
    Return the session of the user whom the proxy names; None if it names nobody. The proxy keeps the session, not the console.

    Raises:
        SignInError: if the secret is wrong, or the header is not exactly one name of a known user.
    """
    settings = own.settings
    names = request.headers.getlist(settings.proxy_header)
    if not names:
        return None
    given = request.headers.getlist(_PROXY_SHARES)
    if settings.proxy_secret and not (len(given) == 1 and hmac.compare_digest(given[0].encode(), settings.proxy_secret.encode())):
        raise SignInError(f"the proxy's secret in the header {_PROXY_SHARES} is missing or wrong")
    if len(names) != 1 or not NAME_FORM.fullmatch(names[0]):
        raise SignInError(f"the header {settings.proxy_header} must be sent once and hold one name of at most 64 characters")
    user = own.accounts.get(names[0])
    if user is None or user.disabled:
        raise SignInError(f"there is no active user {names[0]}: an administrator can add one")
    csrf = hmac.new(_proxy_key(settings), user.name.encode(), hashlib.sha256).hexdigest()
    return Session(Actor(user.name, user.role), csrf)


def _proxy_key(settings: Settings) -> bytes:
    """Return the key of the forms' secrets behind a proxy; it is the same in all consoles."""
    if settings.proxy_secret:
        return settings.proxy_secret.encode()
    return Path(settings.console_certificate_key or settings.console_certificate).read_bytes()


async def _check_csrf(request: Request, session: Session) -> None:
    """
    Check that a request that changes something comes from our own pages.

    Raises:
        AccessError: if not.
    """
    given = request.headers.get("x-csrf-token")
    if given is None and request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "multipart/form-data")
    ):
        field = (await request.form()).get("csrf")
        given = field if isinstance(field, str) else None
    if (
        given is None
        or not session.csrf
        or not hmac.compare_digest(given.encode(), session.csrf.encode())
        or not same_origin(request)
    ):
        raise AccessError("this request does not come from a page of this session: load the page again and repeat it")


def same_origin(request: Request) -> bool:
    """Return whether a request comes from our own pages, by its headers. Browsers send ``Origin`` with every POST request."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return False
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def local_target(target: str) -> str:
    """Return a page of the console to go to, or the queue if the target is not a path of the console."""
    parts = urlsplit(target)
    safe = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return target if safe and target.isprintable() and "\\" not in target else "/"


def sign_in_path(request: Request) -> str:
    """Return the address of the log-in page that leads back to a request's page."""
    wanted = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    return f"/sign-in?target={quote(wanted if request.method == 'GET' else '/', safe='')}"


class Shield:
    """ASGI middleware: accepts only our host names, limits the size of bodies, and sets the security headers of every response."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        public = urlsplit(settings.console_url).netloc.lower()
        self._hosts = {public} if public else set()
        self._local = settings.console_host in LOOPBACK
        self._hsts = settings.console_url.startswith("https://")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        shielded = self._shielded(scope["path"], send)
        if len(hosts) != 1 or not self._own(hosts[0].decode("latin-1").lower()):
            await _refuse(
                shielded, scope["path"], 400, "this host name is not the console's: use the address in WHYFLAG_CONSOLE_URL"
            )
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            await _refuse(shielded, scope["path"], 400, "addresses cannot contain a NUL character")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            await _refuse(shielded, scope["path"], 413, f"the request is larger than {LARGEST_BODY >> 10} KiB")
            return
        try:
            await self._app(scope, _limited(receive), shielded)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if not shielded.begun:
                await _refuse(shielded, scope["path"], 500, "the console failed: its log says why")

    def _own(self, host: str) -> bool:
        if host in self._hosts:
            return True
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and ":" in host else host
        return self._local and name.strip("[]") in LOOPBACK

    def _shielded(self, path: str, send: Send) -> "_Shielded":
        added = dict(_HEADERS)
        added["cache-control"] = "public, max-age=3600" if path.startswith("/static/") else "no-store"
        if self._hsts:
            added["strict-transport-security"] = "max-age=31536000"
        return _Shielded(send, added)


class _Shielded:
    """A ``send`` that sets headers. ``begun`` says whether the response has begun."""

    def __init__(self, send: Send, added: dict[str, str]) -> None:
        self._send, self._added, self.begun = send, added, False

    async def __call__(self, message: Message) -> None:
        """Send a message."""
        if message["type"] == "http.response.start":
            self.begun = True
            kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in self._added]
            headers = [*kept, *((name.encode(), value.encode()) for name, value in self._added.items())]
            message = {**message, "headers": headers}
        await self._send(message)


def _limited(receive: Receive) -> Receive:
    """Return a ``receive`` that ends the connection once a body without a declared length is too large."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > LARGEST_BODY else message

    return limited


async def _refuse(send: Send, path: str, status: int, text: str) -> None:
    response: Response = PlainTextResponse(f"{text}\n", status)
    if path.startswith("/api/"):
        response = JSONResponse({"error": {"type": "RequestRefused", "message": text}}, status)
    await send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})
