"""
Webhooks: signed notifications of new alerts and verdicts.

A delivery is stored in the transaction of the change that it announces, so none is lost. The console sends deliveries in the
background and repeats failed ones with growing pauses. Requests are signed as the Standard Webhooks specification says.
"""

import asyncio
import hashlib
import ipaddress
import json
import secrets
import socket
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct
from sqlalchemy import Connection, delete, insert, select, update

from analyst.access.roles import Actor, Permission
from analyst.audit import Event
from analyst.database import Database
from analyst.tables import deliveries, webhooks
from core.clock import MS_PER_DAY, MS_PER_MINUTE, Clock
from core.errors import InputError, NotFoundError

EVENTS: Final = ("alert", "verdict")
_PAUSES_MS: Final = tuple(MS_PER_MINUTE * minutes for minutes in (0.1, 0.5, 2, 10, 60, 360))  # before each new attempt
_KEPT_MS: Final = 7 * MS_PER_DAY  # how long a delivered notification is shown
_TIMEOUT_SECONDS: Final = 10.0  # shorter than the lease, so that another console does not send the same delivery
_LONGEST_URL: Final = 2_000
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Webhook(Struct, frozen=True):
    """An address that is notified of events."""

    number: int
    url: str
    events: tuple[str, ...]
    created_by: str


class Delivery(Struct, frozen=True):
    """A notification: its state is waiting, delivered or failed; ``error`` is the last error."""

    number: int
    webhook: int
    url: str
    event: str
    state: str
    attempts: int
    next_at: int
    error: str | None


def announce(connection: Connection, now: int, event: str, *facts: dict[str, Any]) -> None:
    """Store one delivery per webhook of this event and dictionary of facts, in the caller's transaction."""
    wanted = [hook.number for hook in connection.execute(select(webhooks)) if event in hook.events.split()]
    rows = [
        {
            "webhook": number, "event": event, "state": "waiting", "attempts": 0, "next_at": now,
            "body": json.dumps({"type": event, "timestamp": now, "data": one}),
        }
        for number in wanted
        for one in facts
    ]  # fmt: skip
    if rows:
        connection.execute(insert(deliveries), rows)


class Webhooks:
    """The webhooks of one database."""

    def __init__(self, database: Database, clock: Clock, on_loopback: bool = False) -> None:
        """``on_loopback`` allows plain HTTP to this machine, for development."""
        self._database, self._clock, self._on_loopback = database, clock, on_loopback

    def add(self, actor: Actor, url: str, events: tuple[str, ...]) -> str:
        """
        Add a webhook and return its secret, which is shown only once.

        Raises:
            AccessError: if the actor may not manage webhooks.
            InputError: if the address is not one that a webhook may have, or an event is unknown.
        """
        actor.require(Permission.ADMINISTER)
        _check_url(url, self._on_loopback)
        if not events or not set(events) <= set(EVENTS):
            raise InputError(f"choose the webhook's events among {' and '.join(EVENTS)}")
        secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
        row = {
            "url": url,
            "secret": secret,
            "events": " ".join(events),
            "created_by": actor.name,
            "created_at": self._clock.now_ms(),
        }
        with self._database.changing() as connection:
            connection.execute(insert(webhooks).values(row))
            self._database.audit.record(connection, Event(actor.name, "webhook added", url[:128], " ".join(events)))
        return secret

    def remove(self, actor: Actor, number: int) -> None:
        """
        Remove a webhook and its deliveries.

        Raises:
            AccessError: if the actor may not manage webhooks.
            NotFoundError: if there is no such webhook.
        """
        actor.require(Permission.ADMINISTER)
        with self._database.changing() as connection:
            found = connection.execute(select(webhooks.c.url).where(webhooks.c.number == number)).first()
            if found is None:
                raise NotFoundError(f"no webhook {number}")
            connection.execute(delete(deliveries).where(deliveries.c.webhook == number))
            connection.execute(delete(webhooks).where(webhooks.c.number == number))
            self._database.audit.record(connection, Event(actor.name, "webhook removed", found.url[:128], ""))

    def all(self) -> list[Webhook]:
        """Return all webhooks."""
        with self._database.reading() as connection:
            rows = connection.execute(select(webhooks).order_by(webhooks.c.number)).all()
        return [Webhook(row.number, row.url, tuple(row.events.split()), row.created_by) for row in rows]

    def deliveries(self, failed: bool = True, limit: int = 100) -> list[Delivery]:
        """Return the newest deliveries: those that failed at least once, or all."""
        wanted = select(deliveries, webhooks.c.url).join(webhooks, webhooks.c.number == deliveries.c.webhook)
        if failed:
            wanted = wanted.where(deliveries.c.error.is_not(None))
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(deliveries.c.number.desc()).limit(limit)).all()
        return [
            Delivery(row.number, row.webhook, row.url, row.event, row.state, row.attempts, row.next_at, row.error) for row in rows
        ]

    def repeat(self, actor: Actor, number: int) -> None:
        """
        Try a failed delivery again.

        Raises:
            AccessError: if the actor may not manage webhooks.
            NotFoundError: if there is no such failed delivery.
        """
        actor.require(Permission.ADMINISTER)
        which = (deliveries.c.number == number) & (deliveries.c.state == "failed")
        with self._database.changing() as connection:
            changed = connection.execute(
                update(deliveries).where(which).values(state="waiting", attempts=0, next_at=self._clock.now_ms())
            )
            if not changed.rowcount:
                raise NotFoundError(f"no failed delivery {number}")

    def send_due(self, send: Callable[[str, bytes, dict[str, str], bool], None]) -> bool:
        """
        Send the next delivery that is due; return whether there was one.

        ``send`` posts a body with headers to a URL (``post``) and raises ``OSError`` or ``ValueError`` if that fails.
        """
        from standardwebhooks import Webhook as Signer

        now = self._clock.now_ms()
        due = (
            select(deliveries, webhooks.c.url, webhooks.c.secret)
            .join(webhooks, webhooks.c.number == deliveries.c.webhook)
            .where(deliveries.c.state == "waiting", deliveries.c.next_at <= now)
            .order_by(deliveries.c.number)
        )
        with self._database.reading() as connection:
            row = connection.execute(due.limit(1)).first()
        if row is not None:
            identity, at = _identity(row), datetime.fromtimestamp(now / 1000, UTC)
            headers = {
                "content-type": "application/json",
                "webhook-id": identity,
                "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": Signer(row.secret).sign(identity, at, row.body),
            }
            try:
                send(row.url, row.body.encode(), headers, self._on_loopback)
                values = {"state": "delivered", "attempts": row.attempts + 1}
            except Exception as error:  # whatever fails, the others must not wait for it
                values = _after_failure(row.attempts + 1, now, f"{type(error).__name__}: {error}"[:256])
            waiting = deliveries.c.state == "waiting"
            with self._database.engine.begin() as connection:
                connection.execute(update(deliveries).where(deliveries.c.number == row.number, waiting).values(values))
                if "error" in values:  # a receiver that fails must not hold up the others: all its deliveries wait
                    same = waiting & (deliveries.c.webhook == row.webhook) & (deliveries.c.next_at <= now)
                    connection.execute(update(deliveries).where(same).values(next_at=now + round(_PAUSES_MS[0])))
        else:
            with self._database.engine.begin() as connection:
                old = (deliveries.c.state == "delivered") & (deliveries.c.next_at < now - _KEPT_MS)
                connection.execute(delete(deliveries).where(old))
        return row is not None


def _identity(row: Any) -> str:
    """Return the ID of a delivery, by which its receiver recognises repetitions; numbers alone are reused by SQLite."""
    return f"msg_{row.number}_{hashlib.sha256(row.body.encode()).hexdigest()[:12]}"


def _after_failure(attempts: int, now: int, error: str) -> dict[str, Any]:
    if attempts > len(_PAUSES_MS):
        return {"state": "failed", "attempts": attempts, "error": error}
    return {"attempts": attempts, "error": error, "next_at": now + round(_PAUSES_MS[attempts - 1])}


def _check_url(url: str, on_loopback: bool) -> str:
    """
    Check that a webhook may have this address, and return its host: HTTPS, or HTTP to this machine if that is allowed.

    Raises:
        InputError: if not.
    """
    try:
        parts = urlsplit(url) if len(url) <= _LONGEST_URL and url.isprintable() and " " not in url else urlsplit("")
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise InputError(f"{url[:200]!r} is not an address") from None
    local = on_loopback and parts.scheme == "http" and host in _LOOPBACK
    if not host or parts.username or not (local or (parts.scheme == "https" and not _internal(host))):
        raise InputError(
            f"{url[:200]!r} cannot be a webhook: give an https:// address of a public host, without user and password"
        )
    return host


def _internal(address: str) -> bool:
    """Return whether a text is an IP address that is not public."""
    try:
        return not ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def post(url: str, body: bytes, headers: dict[str, str], on_loopback: bool) -> None:
    """
    Post a notification within ten seconds, without following redirects or reading the answer.

    The host's name is resolved here, and the connection goes to the address that was checked, so that a name cannot lead to an
    internal address.

    Raises:
        OSError: if the host does not answer in time, or has an internal address.
        ValueError: if the answer is not a success.
    """
    asyncio.run(asyncio.wait_for(_post(url, body, headers, on_loopback), _TIMEOUT_SECONDS))


async def _post(url: str, body: bytes, headers: dict[str, str], on_loopback: bool) -> None:
    import httpx

    host = _check_url(url, on_loopback)
    parts = httpx.URL(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(one[4][0]) for one in found]
    if host not in _LOOPBACK and any(_internal(address) for address in addresses):
        raise OSError("the host name resolves to an internal address")
    checked = parts.copy_with(host=addresses[0])
    named = headers | {"host": parts.netloc.decode("ascii")}
    try:
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", checked, content=body, headers=named, extensions={"sni_hostname": host}) as answer,
        ):
            if not answer.is_success:
                raise ValueError(f"status {answer.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(str(error) or type(error).__name__) from None
