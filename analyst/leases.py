"""Leases: a task that only one of several consoles does at a time."""

import secrets

from sqlalchemy import insert, select, update

from analyst.database import Database
from analyst.tables import leases
from core.clock import Clock

_MS = 15_000  # after this time without renewal, another console takes over


class Lease:
    """One process's share in a task that only one process does at a time."""

    def __init__(self, database: Database, clock: Clock, task: str) -> None:
        self._database, self._clock, self._task = database, clock, task
        self._holder = secrets.token_hex(16)

    def acquire(self) -> bool:
        """Take or renew the lease; return whether this process holds it for the next seconds."""
        with self._database.changing() as connection:
            now = self._clock.now_ms()
            values = {"holder": self._holder, "until": now + _MS}
            row = connection.execute(select(leases).where(leases.c.task == self._task)).first()
            if row is None:
                connection.execute(insert(leases).values(task=self._task, **values))
            elif row.holder == self._holder or row.until <= now:
                connection.execute(update(leases).where(leases.c.task == self._task).values(values))
            else:
                return False
        return True

    def release(self) -> None:
        """Give the lease back, so that another process need not wait."""
        with self._database.changing() as connection:
            which = (leases.c.task == self._task) & (leases.c.holder == self._holder)
            connection.execute(update(leases).where(which).values(until=0))
