"""Users: their roles, passwords and invitations."""

import re
import threading
from functools import cache
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, delete, func, insert, select, update

from analyst.access.roles import PERMISSIONS, Actor, Permission, Role
from analyst.access.secrets import hash_of, new_secret
from analyst.access.throttle import Throttle
from analyst.audit import Event
from analyst.database import Database
from analyst.tables import invitations, sessions, tokens, users
from core.clock import MS_PER_DAY, Clock
from core.errors import ConflictError, InputError, NotFoundError, SignInError

NAME_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
SHORTEST_PASSWORD: Final = 12
_LONGEST_PASSWORD: Final = 256
_INVITATION_MS: Final = MS_PER_DAY
_VERIFYING = threading.BoundedSemaphore(2)  # a verification needs 64 MiB of memory


class User(Struct, frozen=True):
    """A user. ``has_password`` is false for users of OpenID Connect and of a proxy, and until an invitation is accepted."""

    name: str
    role: Role
    disabled: bool
    has_password: bool
    created_at: int


class Invitation(Struct, frozen=True):
    """A one-time link with which somebody chooses a password."""

    name: str
    role: Role
    expires_at: int


class Accounts:
    """The users of a database."""

    def __init__(self, database: Database, clock: Clock, throttle: Throttle) -> None:
        self._database, self._clock, self._throttle = database, clock, throttle

    def all(self) -> list[User]:
        """Return all users by name."""
        with self._database.reading() as connection:
            return [_user(row) for row in connection.execute(select(users).order_by(users.c.name))]

    def get(self, name: str) -> User | None:
        """Return the user with this name, or None."""
        with self._database.reading() as connection:
            row = connection.execute(select(users).where(users.c.name == name)).first()
            return _user(row) if row else None

    # -- passwords --------------------------------------------------------------------------------------------------------------

    def log_in(self, name: str, password: str, address: str) -> User:
        """
        Return the user with this name and password.

        Raises:
            SignInError: if there is no such user, the password is wrong or the user is disabled.
            ThrottledError: if there were too many failed log-ins with this name or from this address.
        """
        self._throttle.attempt(name, address)
        with self._database.reading() as connection:
            row = connection.execute(select(users).where(users.c.name == name)).first()
        known = row is not None and row.password is not None and not row.disabled
        if not _matches(row.password if row is not None and known else _dummy_hash(), password) or not known:
            raise SignInError("the name or the password is wrong")
        self._throttle.succeeded(name, address)
        return _user(row)

    def invite(self, actor: Actor, name: str, role: Role) -> str:
        """
        Invite somebody as a new user, or an existing user to choose a new password, and return the secret of the one-time link.

        Raises:
            AccessError: if the actor may not manage users.
            InputError: if the name is not one that a user may have.
        """
        _require_grant(actor, role)
        _check_name(name)
        with self._database.changing() as connection:
            connection.execute(delete(invitations).where(invitations.c.name == name))
            secret = self._invited(connection, name, role)
            self._database.audit.record(connection, Event(actor.name, "user invited", name, role.value))
        return secret

    def first_invitation(self) -> str | None:
        """Return the secret of a link for the first administrator; None if somebody can already sign in as an administrator."""
        with self._database.changing() as connection:
            able = (users.c.role == Role.ADMIN.value) & users.c.disabled.is_(False)
            if connection.execute(select(func.count()).select_from(users).where(able)).scalar_one():
                return None
            return self._invited(connection, "admin", Role.ADMIN)

    def _invited(self, connection: Connection, name: str, role: Role) -> str:
        secret = new_secret()
        row = {"secret_hash": hash_of(secret), "name": name, "role": role.value}
        connection.execute(insert(invitations).values(row | {"expires_at": self._clock.now_ms() + _INVITATION_MS}))
        return secret

    def invitation(self, secret: str) -> Invitation:
        """
        Return the invitation with this secret.

        Raises:
            SignInError: if there is none, or it has been used or has expired.
        """
        with self._database.reading() as connection:
            return self._open_invitation(connection, secret)

    def accept(self, secret: str, password: str) -> User:
        """
        Accept an invitation: create the user if needed and set the password. The user's other sessions and tokens end.

        Raises:
            SignInError: if there is no such invitation, or it has been used or has expired.
            InputError: if the password is too short or too long.
        """
        if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
            raise InputError(f"choose a password of {SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} characters")
        self.invitation(secret)  # hashing takes memory and time: only for those who have an invitation
        with _VERIFYING:
            hashed = _hasher().hash(password)
        with self._database.changing() as connection:
            invitation = self._open_invitation(connection, secret)
            connection.execute(delete(invitations).where(invitations.c.name == invitation.name))
            values = {"role": invitation.role.value, "password": hashed, "subject": None, "disabled": False}
            if not connection.execute(update(users).where(users.c.name == invitation.name).values(values)).rowcount:
                connection.execute(insert(users).values(name=invitation.name, created_at=self._clock.now_ms(), **values))
            _end_access(connection, invitation.name)
            self._database.audit.record(
                connection, Event(invitation.name, "invitation accepted", invitation.name, invitation.role.value)
            )
            return _user(connection.execute(select(users).where(users.c.name == invitation.name)).one())

    def _open_invitation(self, connection: Connection, secret: str) -> Invitation:
        row = connection.execute(select(invitations).where(invitations.c.secret_hash == hash_of(secret))).first()
        if row is None or row.expires_at <= self._clock.now_ms():
            raise SignInError("this link has been used or has expired: ask an administrator for a new one")
        return Invitation(row.name, Role(row.role), row.expires_at)

    # -- users without passwords ------------------------------------------------------------------------------------------------

    def add(self, actor: Actor, name: str, role: Role) -> None:
        """
        Add a user whom a proxy signs in.

        Raises:
            AccessError: if the actor may not manage users.
            InputError: if the name is not one that a user may have.
            ConflictError: if there is a user with this name.
        """
        _require_grant(actor, role)
        _check_name(name)
        with self._database.changing() as connection:
            if connection.execute(select(users.c.name).where(users.c.name == name)).first():
                raise ConflictError(f"there is a user {name} already")
            row = {"name": name, "role": role.value, "created_at": self._clock.now_ms(), "disabled": False}
            connection.execute(insert(users).values(row))
            self._database.audit.record(connection, Event(actor.name, "user added", name, role.value))

    def from_provider(self, issuer: str, subject: str, name: str, role: Role) -> User:
        """
        Return the user of an OpenID Connect provider. The user is created at the first log-in; each log-in sets the role.

        Raises:
            SignInError: if the name is unusable or taken by another user, or the user is disabled.
        """
        key = f"{issuer} {subject}"[:512]
        with self._database.changing() as connection:
            row = connection.execute(select(users).where(users.c.subject == key)).first()
            if row is None:
                taken = [
                    connection.execute(select(table.c.name).where(table.c.name == name)).first() for table in (users, invitations)
                ]
                if not NAME_FORM.fullmatch(name) or any(taken):
                    raise SignInError(
                        f"the provider's name {name[:64]!r} cannot be used: it is taken, or not a name of at most 64 characters"
                    )
                new = {"name": name, "role": role.value, "subject": key, "created_at": self._clock.now_ms(), "disabled": False}
                connection.execute(insert(users).values(new))
                self._database.audit.record(connection, Event(name, "user added", name, f"{role.value}, by {issuer}"[:512]))
            elif row.disabled:
                raise SignInError(f"the user {row.name} is disabled: ask an administrator")
            elif row.role != role.value:
                connection.execute(update(users).where(users.c.subject == key).values(role=role.value))
                self._database.audit.record(
                    connection, Event(row.name, "role changed", row.name, f"{role.value}, by {issuer}"[:512])
                )
            return _user(connection.execute(select(users).where(users.c.subject == key)).one())

    def lost_role(self, issuer: str, subject: str) -> None:
        """End the sessions and tokens of an OpenID Connect user whose groups give no role any more."""
        with self._database.changing() as connection:
            row = connection.execute(select(users).where(users.c.subject == f"{issuer} {subject}"[:512])).first()
            if row is not None:
                _end_access(connection, row.name)
                self._database.audit.record(connection, Event(row.name, "access ended", row.name, f"no role, by {issuer}"[:512]))

    # -- changes ----------------------------------------------------------------------------------------------------------------

    def change(self, actor: Actor, name: str, role: Role, disabled: bool) -> None:
        """
        Change a user's role, disable or enable a user. The user's sessions and tokens end.

        Raises:
            AccessError: if the actor may not manage users.
            NotFoundError: if there is no such user.
            ConflictError: if the actor would change their own role or disable themselves.
        """
        _require_grant(actor, role)
        if name == actor.name:
            raise ConflictError("you cannot change your own role or disable yourself: ask another administrator")
        with self._database.changing() as connection:
            values = {"role": role.value, "disabled": disabled}
            if not connection.execute(update(users).where(users.c.name == name).values(values)).rowcount:
                raise NotFoundError(f"no user {name}")
            _end_access(connection, name)
            change = f"{role.value}, {'disabled' if disabled else 'enabled'}"
            self._database.audit.record(connection, Event(actor.name, "user changed", name, change))


def _require_grant(actor: Actor, role: Role) -> None:
    """
    Check that the actor may manage users and has every permission that the role gives.

    Raises:
        AccessError: if not.
    """
    for permission in (Permission.ADMINISTER, *sorted(PERMISSIONS[role])):
        actor.require(permission)


def _end_access(connection: Connection, name: str) -> None:
    connection.execute(delete(invitations).where(invitations.c.name == name))
    connection.execute(delete(sessions).where(sessions.c.name == name))
    connection.execute(delete(tokens).where(tokens.c.owner == name))


def _check_name(name: str) -> None:
    if not NAME_FORM.fullmatch(name):
        raise InputError("a user's name has 1 to 64 letters, digits or . _ @ + -, and begins with a letter or digit")


def _user(row: Any) -> User:
    return User(row.name, Role(row.role), row.disabled, row.password is not None, row.created_at)


@cache
def _hasher() -> Any:
    from argon2 import PasswordHasher

    return PasswordHasher()  # argon2id with the parameters of RFC 9106 for little memory: 64 MiB, 3 passes


@cache
def _dummy_hash() -> str:
    """Return a hash against which the passwords of unknown users are checked, so that they take as long as others."""
    return str(_hasher().hash(new_secret()))


def _matches(hashed: str, password: str) -> bool:
    from argon2.exceptions import Argon2Error, InvalidHashError

    with _VERIFYING:
        try:
            return bool(_hasher().verify(hashed, password[: _LONGEST_PASSWORD + 1]))
        except (Argon2Error, InvalidHashError):
            return False
