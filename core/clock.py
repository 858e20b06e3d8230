"""Injectable clocks: feature code never reads the time, only code at the edges of the system does."""

import time
from typing import Protocol

MS_PER_SECOND = 1_000
MS_PER_MINUTE = 60 * MS_PER_SECOND
MS_PER_HOUR = 60 * MS_PER_MINUTE
MS_PER_DAY = 24 * MS_PER_HOUR

_UNITS = {"s": MS_PER_SECOND, "m": MS_PER_MINUTE, "h": MS_PER_HOUR, "d": MS_PER_DAY}


class Clock(Protocol):
    """Source of the current time."""

    def now_ms(self) -> int:
        """Return the current time in epoch milliseconds, UTC."""


class SystemClock:
    """Clock that returns the system time."""

    def now_ms(self) -> int:
        """Return the current time in epoch milliseconds, UTC."""
        return time.time_ns() // 1_000_000


class FixedClock:
    """Clock that always returns the same time, for tests and replays."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Return the fixed time in epoch milliseconds, UTC."""
        return self._now_ms


def duration_ms(text: str) -> int:
    """
    Return the milliseconds in a duration such as ``"90s"``, ``"15m"``, ``"1h"`` or ``"30d"``.

    Raises:
        ValueError: if the text is not a whole number followed by s, m, h or d.
    """
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdigit():
        raise ValueError(f"{text!r} is not a duration: write a whole number and a unit, such as 90s, 15m, 1h or 30d")
    return int(number) * _UNITS[unit]
