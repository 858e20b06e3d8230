"""Slow down password guessing: after some failures, log-ins with a name must wait, longer with each failure."""

from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from analyst.database import Database
from analyst.tables import log_in_failures
from core.clock import MS_PER_MINUTE, MS_PER_SECOND, Clock
from core.errors import ThrottledError

_FREE: Final = 5  # failures of one name from one address before the first pause
_FREE_FROM_ANYWHERE: Final = 100  # failures of one name from all addresses
_LONGEST_MS: Final = MS_PER_MINUTE  # short, so that nobody can lock a colleague out for long
_FORGOTTEN_MS: Final = 60 * MS_PER_MINUTE


class Throttle:
    """
    Counts failed log-ins by name and address, and by name.

    Failures are not counted by address alone: behind a proxy, all users share one address.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def attempt(self, name: str, address: str) -> None:
        """
        Count an attempt before its password is checked, so that many attempts at once are counted, too.

        Raises:
            ThrottledError: if there were too many failures before.
        """
        with self._database.changing() as connection:
            now = self._clock.now_ms()
            connection.execute(delete(log_in_failures).where(log_in_failures.c.blocked_until < now - _FORGOTTEN_MS))
            counted = ((_key(name, address), _FREE), (_key(name), _FREE_FROM_ANYWHERE))
            longest = max(self._blocked_until(connection, key) for key, _ in counted)
            if longest <= now:
                for key, free in counted:
                    self._count(connection, key, free, now)
                return
        raise ThrottledError(f"too many failed log-ins: try again in {(longest - now) // MS_PER_SECOND + 1} s")

    def succeeded(self, name: str, address: str) -> None:
        """Forget the failures of a name."""
        keys = (_key(name, address), _key(name))
        with self._database.engine.begin() as connection:
            connection.execute(delete(log_in_failures).where(log_in_failures.c.key.in_(keys)))

    @staticmethod
    def _blocked_until(connection: Connection, key: str) -> int:
        row = connection.execute(select(log_in_failures.c.blocked_until).where(log_in_failures.c.key == key)).first()
        return row.blocked_until if row else 0

    @staticmethod
    def _count(connection: Connection, key: str, free: int, now: int) -> None:
        table = log_in_failures
        row = connection.execute(select(table.c.failures).where(table.c.key == key)).first()
        failures = (row.failures if row else 0) + 1
        pause = min(MS_PER_SECOND * 2 ** min(failures - free, 10), _LONGEST_MS) if failures >= free else 0
        values = {"failures": failures, "blocked_until": now + int(pause)}
        if row:
            connection.execute(update(table).where(table.c.key == key).values(values))
        else:
            connection.execute(insert(table).values(key=key, **values))


def _key(name: str, address: str = "") -> str:
    return f"{name[:64]} {address[:60]}"
