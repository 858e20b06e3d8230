"""Sessions on the server, and API tokens."""

import re
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import delete, insert, select, update

from analyst.access.roles import Actor, Permission, Role
from analyst.access.secrets import hash_of, new_secret
from analyst.audit import Event
from analyst.database import Database
from analyst.tables import sessions, tokens, users
from core.clock import MS_PER_DAY, MS_PER_HOUR, MS_PER_MINUTE, Clock
from core.errors import AccessError, InputError, NotFoundError, SignInError
from core.settings import Settings

_USED_MS: Final = MS_PER_MINUTE  # the last use of a session is recorded this often
_LONGEST_TOKEN_DAYS: Final = 366
_TOKEN_FORM: Final = re.compile(r"whyflag_[A-Za-z0-9_-]{43}")


class Session(Struct, frozen=True):
    """A signed-in user; ``csrf`` is the secret that the user's forms must contain."""

    actor: Actor
    csrf: str


class Token(Struct, frozen=True):
    """An API token, without its secret."""

    number: int
    owner: str
    label: str
    scopes: tuple[Permission, ...]
    created_at: int
    expires_at: int


class Sessions:
    """The sessions of a database."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database, self._clock = database, clock
        self._longest_ms = round(settings.session_hours * MS_PER_HOUR)
        self._idle_ms = round(settings.session_idle_minutes * MS_PER_MINUTE)

    def begin(self, name: str, how: str) -> str:
        """Begin a session with a new secret and return the secret. ``how`` says how the user signed in, for the audit trail."""
        secret, now = new_secret(), self._clock.now_ms()
        row = {"secret_hash": hash_of(secret), "name": name, "csrf": new_secret(), "created_at": now, "used_at": now}
        with self._database.changing() as connection:
            connection.execute(delete(sessions).where(self._over(now)))
            connection.execute(insert(sessions).values(row))
            self._database.audit.record(connection, Event(name, "signed in", name, how))
        return secret

    def find(self, secret: str, by_hand: bool = True) -> Session | None:
        """
        Return the session with this secret; None if there is none, it is over, or its user is disabled.

        ``by_hand`` is false for requests that pages make by themselves: they do not keep the session alive.
        """
        now, key = self._clock.now_ms(), hash_of(secret)
        wanted = select(sessions, users.c.role).join(users, users.c.name == sessions.c.name)
        with self._database.reading() as connection:
            row = connection.execute(
                wanted.where(sessions.c.secret_hash == key, ~self._over(now), users.c.disabled.is_(False))
            ).first()
        if row is None:
            return None
        if by_hand and now - row.used_at > _USED_MS:
            with self._database.engine.begin() as connection:
                connection.execute(update(sessions).where(sessions.c.secret_hash == key).values(used_at=now))
        return Session(Actor(row.name, Role(row.role)), row.csrf)

    def end(self, secret: str) -> None:
        """End a session."""
        with self._database.engine.begin() as connection:
            connection.execute(delete(sessions).where(sessions.c.secret_hash == hash_of(secret)))

    def end_all(self, name: str) -> None:
        """End all sessions of a user."""
        with self._database.engine.begin() as connection:
            connection.execute(delete(sessions).where(sessions.c.name == name))

    def _over(self, now: int) -> Any:
        return (sessions.c.created_at <= now - self._longest_ms) | (sessions.c.used_at <= now - self._idle_ms)


class Tokens:
    """The API tokens of a database. A token can do what its owner may do, within its scopes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def create(self, actor: Actor, label: str, scopes: tuple[Permission, ...], days: int) -> str:
        """
        Create a token for the actor and return its secret, which is shown only once.

        Raises:
            AccessError: if the actor may not manage tokens, lacks one of the scopes, or acts by a token.
            InputError: if the label, the scopes or the lifetime are invalid.
        """
        actor.require(Permission.OWN)
        if actor.limited_to is not None:
            raise AccessError("a token cannot create tokens: sign in and create one on the page of your account")
        if not 1 <= len(label.strip()) <= 64:
            raise InputError("give the token a label of 1 to 64 characters")
        if not scopes:
            raise InputError("choose at least one scope")
        if not 1 <= days <= _LONGEST_TOKEN_DAYS:
            raise InputError(f"a token lives 1 to {_LONGEST_TOKEN_DAYS} days")
        for scope in scopes:
            actor.require(scope)
        secret, now = f"whyflag_{new_secret()}", self._clock.now_ms()
        row = {
            "secret_hash": hash_of(secret), "owner": actor.name, "label": label.strip(), "created_at": now,
            "scopes": " ".join(sorted(scopes)), "expires_at": now + days * MS_PER_DAY,
        }  # fmt: skip
        with self._database.changing() as connection:
            connection.execute(insert(tokens).values(row))
            self._database.audit.record(
                connection, Event(actor.name, "token created", actor.name, f"{label.strip()}: {row['scopes']}")
            )
        return secret

    def find(self, secret: str) -> Actor:
        """
        Return the actor that a token stands for.

        Raises:
            SignInError: if there is no such token, it has expired, or its owner is disabled.
        """
        wanted = select(tokens, users.c.role).join(users, users.c.name == tokens.c.owner)
        if _TOKEN_FORM.fullmatch(secret):
            with self._database.reading() as connection:
                row = connection.execute(
                    wanted.where(tokens.c.secret_hash == hash_of(secret), users.c.disabled.is_(False))
                ).first()
            if row is not None and row.expires_at > self._clock.now_ms():
                return Actor(row.owner, Role(row.role), frozenset(Permission(scope) for scope in row.scopes.split()))
        raise SignInError("the token is unknown or has expired: create one on the page of your account")

    def of(self, owner: str) -> list[Token]:
        """Return a user's tokens, newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(tokens).where(tokens.c.owner == owner).order_by(tokens.c.number.desc())).all()
        return [
            Token(row.number, row.owner, row.label, tuple(map(Permission, row.scopes.split())), row.created_at, row.expires_at)
            for row in rows
        ]

    def revoke(self, actor: Actor, number: int) -> None:
        """
        Revoke one of the actor's tokens.

        Raises:
            AccessError: if the actor may not manage tokens.
            NotFoundError: if the actor has no such token.
        """
        actor.require(Permission.OWN)
        with self._database.changing() as connection:
            which = (tokens.c.number == number) & (tokens.c.owner == actor.name)
            if not connection.execute(delete(tokens).where(which)).rowcount:
                raise NotFoundError(f"you have no token {number}")
            self._database.audit.record(connection, Event(actor.name, "token revoked", actor.name, str(number)))
