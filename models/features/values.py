"""Kernels for the values of features that both kinds of state compute."""

import math

from core.clock import MS_PER_DAY, MS_PER_HOUR
from models.features.columns import CHANNEL_ONLINE, CHANNEL_SHIFT, NIGHT_BIT
from models.features.compiled import inlined, kernel
from models.features.ops import Op


@inlined
def share(part, whole):
    """Return ``part / whole``, NaN if the whole is zero."""
    return part / whole if whole > 0 else math.nan


@inlined
def days(now, then):
    """Return the days from ``then`` to ``now``, both epoch ms."""
    return (now - then) / MS_PER_DAY


@kernel
def event_feature(op, event_time, amount, attributes, major):
    """
    Return a feature of the transaction itself. ``major`` is the number of minor units in a major unit.

    The epoch began on a Thursday, which is weekday 3.
    """
    if op == Op.AMOUNT:
        return amount / major if amount >= 0 else math.nan
    if op == Op.HOUR:
        return event_time % MS_PER_DAY / MS_PER_HOUR
    if op == Op.WEEKDAY:
        return float((event_time // MS_PER_DAY + 3) % 7)
    if op == Op.WEEKEND:
        return 1.0 if (event_time // MS_PER_DAY + 3) % 7 >= 5 else 0.0
    if op == Op.NIGHT:
        return 1.0 if attributes & NIGHT_BIT else 0.0
    if op == Op.ONLINE:
        channel = attributes >> CHANNEL_SHIFT & 3
        return math.nan if channel == 0 else 1.0 if channel == CHANNEL_ONLINE else 0.0
    return math.nan
