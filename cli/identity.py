"""Who runs a command: the owner of an API token, or the account of the operating system."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyst.access.roles import Actor
    from analyst.queue import Queue


def operator(queue: "Queue") -> "Actor":
    """
    Return who runs a command, for the audit trail.

    ``WHYFLAG_TOKEN`` identifies a user of the console, whose role and scopes then apply. Without it, the account of the operating
    system is recorded with its host, such as ``os:alice@host``: whoever can run commands with the database's password can do everything.

    Raises:
        SignInError: if the token is unknown or has expired.
    """
    from analyst.access.roles import Actor, Role
    from analyst.access.sessions import Tokens

    if token := os.environ.get("WHYFLAG_TOKEN"):
        return Tokens(queue.database, queue.clock).find(token)
    return Actor(account()[:64], Role.ADMIN)


class AuditedChange:
    """A change by a command, to be recorded in the audit trail of the console's database."""

    def __init__(self, queue: "Queue", actor: "Actor") -> None:
        self.queue, self.actor, self.name = queue, actor, actor.name

    def record(self, action: str, subject: str, detail: str) -> None:
        """Record that the change was made."""
        from analyst.audit import Event

        with self.queue.database.changing() as connection:
            self.queue.database.audit.record(connection, Event(self.name, action, subject[:128], detail))


@contextmanager
def audited_change() -> Iterator[AuditedChange]:
    """
    Open the console's database for a change by a command. Database and audit key are checked before the change, so that no change is
    made that cannot be recorded.

    Raises:
        DatabaseError: if the database cannot be opened, or its audit trail has another key.
        SignInError: if the token is unknown or has expired.
    """
    with opened_queue() as queue:
        with queue.reading() as connection:
            queue.database.audit.require_key(connection)
        yield AuditedChange(queue, operator(queue))


@contextmanager
def opened_queue() -> Iterator["Queue"]:
    """
    Open the console's database with the settings' audit keys.

    Raises:
        DatabaseError: if the database cannot be opened.
    """
    from analyst.policy import policy_of
    from analyst.queue import Queue
    from core.clock import SystemClock
    from core.settings import read_settings

    settings = read_settings()
    text = settings.audit_former_keys
    former = [key.strip().encode() for key in (text.splitlines() if "\n" in text else text.split(",")) if key.strip()]
    queue = Queue(settings.database, SystemClock(), policy_of(settings), settings.audit_key.encode(), former)
    try:
        yield queue
    finally:
        queue.close()


def account() -> str:
    """Return the account of the operating system and the host; the account is the process's own, not one that a variable claims."""
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, the user often has no entry
        name = str(os.getuid())
    return f"os:{name}@{socket.gethostname()}"
