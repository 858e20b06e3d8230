"""Slow down password guessing: after some failures, a name and an address must wait, longer with each failure."""

from typing import Final

from sqlalchemy import delete, insert, select, update

from analyst.database import Database
from analyst.tables import log_in_failures
from core.clock import MS_PER_MINUTE, MS_PER_SECOND, Clock
from core.errors import ThrottledError

_FREE: Final = 5  # failures before the first pause
_LONGEST_MS: Final = 5 * MS_PER_MINUTE  # short enough that nobody can lock a colleague out for long
_FORGOTTEN_MS: Final = 60 * MS_PER_MINUTE


class Throttle:
    """Counts failed log-ins by key, such as ``user:ann`` or ``address:192.0.2.7``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def check(self, *keys: str) -> None:
        """
        Check that no key must wait.

        Raises:
            ThrottledError: if one must.
        """
        now, table = self._clock.now_ms(), log_in_failures
        with self._database.reading() as connection:
            until = connection.execute(
                select(table.c.blocked_until).where(table.c.key.in_(_short(keys)), table.c.blocked_until > now)
            ).scalars()
            if longest := max(until, default=0):
                raise ThrottledError(f"too many failed log-ins: try again in {(longest - now) // MS_PER_SECOND + 1} s")

    def failed(self, *keys: str) -> None:
        """Record a failed log-in under each key."""
        now, table = self._clock.now_ms(), log_in_failures
        with self._database.changing() as connection:
            connection.execute(delete(table).where(table.c.blocked_until < now - _FORGOTTEN_MS))
            for key in _short(keys):
                row = connection.execute(select(table.c.failures).where(table.c.key == key)).first()
                failures = (row.failures if row else 0) + 1
                pause = min(MS_PER_SECOND * 2 ** (failures - _FREE), _LONGEST_MS) if failures >= _FREE else 0
                values = {"failures": failures, "blocked_until": now + int(pause)}
                if row:
                    connection.execute(update(table).where(table.c.key == key).values(values))
                else:
                    connection.execute(insert(table).values(key=key, **values))

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        with self._database.engine.begin() as connection:
            connection.execute(delete(log_in_failures).where(log_in_failures.c.key.in_(_short((key,)))))


def _short(keys: tuple[str, ...]) -> list[str]:
    return [key[:128] for key in keys]
