"""
Decide whether an event time is acceptable: one rule for the stream and for files.

An event from the future is refused. If it were accepted, the events that arrive after it in its partition would count as late.
An event that is too old still gets a decision, which is at least a review. ``models.features`` marks an event as late by
comparing its time with that of the newest event that arrived earlier in the same partition.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from core.clock import MS_PER_HOUR

# Tolerance for a producer's clock. An hour equals Kafka's own limit (message.timestamp.after.max.ms). A time that is two or more hours
# ahead because of a wrong time zone is refused; an error of one hour is not. ``decode_spec`` requires
# every entity's lateness to be longer than this tolerance. Otherwise an accepted event from the future could make current events
# late.
AHEAD_MS = MS_PER_HOUR

_LOG_APPEND_TIME = 1  # Kafka's timestamp type for a time that the broker has set


def is_ahead(event_time: Any, written_at: Any) -> Any:
    """Return whether event times (ms, one or an array) are more than ``AHEAD_MS`` after the times at which they were written."""
    return event_time > written_at + AHEAD_MS


def written_at(timestamps: Sequence[int], timestamp_types: Sequence[int], now_ms: int) -> npt.NDArray[np.int64]:
    """
    Return when records were written, ms, int64 [n].

    The broker's time is used as it is; ``whyflag topics create`` makes the broker set it. A producer's time is capped at ``now_ms``,
    and a missing one is replaced by ``now_ms``.
    """
    given = np.array(timestamps, np.int64)
    capped = np.where(given > 0, np.minimum(given, now_ms), now_ms)
    times: npt.NDArray[np.int64] = np.where(np.array(timestamp_types) == _LOG_APPEND_TIME, given, capped)
    return times
