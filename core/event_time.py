"""
When an event may have happened: the one rule for the stream and for files.

An event from the future would make everything that its card does from then on look long past, so it is refused. An event that is too
old is decided, but a person looks at it: ``models.features`` marks it late by the newest event before it.
"""

from typing import Any

from core.clock import MS_PER_HOUR

# Producers' clocks err by less. A record a whole time zone ahead is a mistake to be seen at once; Kafka's own limit for record
# timestamps (message.timestamp.after.max.ms) is an hour too. It must be shorter than the lateness that a feature spec allows: an
# event that is accepted from the future must not make the present late.
AHEAD_MS = MS_PER_HOUR

_LOG_APPEND_TIME = 1  # Kafka's timestamp type for a time that the broker has set


def is_ahead(event_time: Any, written_at: int) -> Any:
    """Whether event times (ms, one or an array) lie in the future of the time at which they were written."""
    return event_time > written_at + AHEAD_MS


def written_at(timestamp: int, timestamp_type: int, now_ms: int) -> int:
    """
    When a record was written, ms: the broker's time where the broker has set it, as ``whyflag topics create`` asks for.

    A time that the producer has set is believed only as far as it is past, and a missing one not at all.
    """
    if timestamp_type == _LOG_APPEND_TIME:
        return timestamp
    return min(timestamp, now_ms) if timestamp > 0 else now_ms
