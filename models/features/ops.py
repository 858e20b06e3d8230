"""
The operations that compute features. Each operation has one row, which holds its properties for all other modules.

To add an operation, add a member to ``Op``, a row to ``_ROWS``, a branch to the kernel that computes its features, and its words
to ``explain/words``. CONTRIBUTING.md describes the steps.
"""

from enum import IntEnum, StrEnum, auto
from typing import Final

from msgspec import Struct

from core.messages import Unit


class StateKind(StrEnum):
    """How an entity's past events are stored."""

    EXACT = "exact"
    BUCKETED = "bucketed"


class Op(IntEnum):
    """Operation that computes a feature. Kernels branch on the number; a spec uses the lower-case name."""

    # of the transaction itself
    AMOUNT = 0
    HOUR = 1
    WEEKDAY = 2
    WEEKEND = 3
    NIGHT = 4
    ONLINE = 5
    # of a window, both kinds of state
    COUNT = 10
    AMOUNT_SUM = 11
    AMOUNT_MEAN = 12
    AMOUNT_RATIO = 13  # amount over the mean of the window's earlier transactions
    LOW_COUNT = 14  # transactions of at most ``low_amount``
    LOW_SHARE = 15
    # of a window, exact state only
    AMOUNT_MAX = 20
    AMOUNT_TO_MAX = 21
    AMOUNT_ZSCORE = 22
    DISTINCT_MERCHANTS = 23
    DISTINCT_COUNTRIES = 24
    NEW_MERCHANT = 25
    NEW_COUNTRY = 26
    CATEGORY_SHARE = 27
    NIGHT_SHARE = 28
    ONLINE_SHARE = 29
    BURST = 30  # rate in the window over the rate in the entity's longest window
    FRAUD_COUNT = 31  # transactions of the window known to be fraud
    FRAUD_SHARE = 32
    MAX_TO_NORMAL = 33  # the highest earlier amount over the key's normal amount
    UNUSUAL_COUNT = 34  # earlier transactions whose amount was unusual when they arrived
    FIRST_UNUSUAL = 35  # days since the first of these in the window
    LAST_UNUSUAL = 36
    FIRST_FRAUD = 37  # days since the first transaction of the window known to be fraud
    LAST_FRAUD = 38
    # of the exact state, without a window
    SECONDS_SINCE_LAST = 40
    DISTANCE = 41  # km from the card's last known place (great circle)
    SPEED = 42  # km/h from the card's last known place
    NEW_DEVICE = 43
    AMOUNT_TO_NORMAL = 44  # the amount over the key's normal amount
    RECENT_TO_NORMAL = 45  # the mean of the key's last three amounts over its normal amount
    # of the bucketed state
    FRAUD_REPORTS = 50  # fraud labels that became known in the window
    FRAUD_REPORT_SHARE = 51  # fraud reports over the window's transactions, smoothed towards ``fraud_prior``
    # of a window, exact state only: "usual" frauds are known frauds with an amount that was usual for the card; such an amount
    # does not explain the fraud
    USUAL_FRAUD_COUNT = 60
    USUAL_FRAUD_SHARE = 61
    FIRST_USUAL_FRAUD = 62
    LAST_USUAL_FRAUD = 63
    LAST_LEGITIMATE = 64  # days since the last transaction of the window that is not known to be fraud


class Theme(StrEnum):
    """Subject of a feature."""

    AMOUNT = "amount"  # the amount against the card's habit
    PACE = "pace"  # how much and how often the card pays
    SMALL_AMOUNTS = "small amounts"  # test payments
    PLACE = "place"  # place and travel
    DEVICE = "device"  # device and channel
    TIME = "time"  # time of day and week
    MERCHANT_KIND = "merchant kind"  # merchants and categories that are new to the card
    REPORTED_FRAUD = "reported fraud"  # fraud reported earlier, at the merchant or on the card
    MERCHANT_ACTIVITY = "merchant activity"  # the merchant's traffic and prices


class Scope(StrEnum):
    """Data that an operation reads. The scope determines which kinds of state support it and whether it needs a window."""

    EVENT = auto()  # the transaction itself
    WINDOW = auto()  # a window of either kind of state
    EXACT_WINDOW = auto()
    EXACT = auto()  # exact state, without a window
    BUCKETED_WINDOW = auto()


class Source(IntEnum):
    """Data from which the kernels compute an operation. A kernel branches on the source first, then on the operation."""

    EVENT = 0  # the transaction itself
    WINDOW = 1  # aggregates over a window's transactions
    LABELS = 2  # a window's known frauds
    KEY = 3  # the key's last transaction, place and devices, and its normal amount


class Operation(Struct, frozen=True):
    """
    Properties of an operation.

    ``reason`` is the reason code without the entity's name, such as ``NEW_DEVICE`` for ``CARD_NEW_DEVICE``. ``labels`` is true if
    the value depends on labels, and ``normal`` if it needs the key's normal amount. ``calendar`` is true if the value depends
    only on the time of the transaction. The distribution of such a value depends on the hours or days that a period covers, not
    on how people pay.
    """

    op: Op
    scope: Scope
    theme: Theme
    reason: str
    unit: Unit
    labels: bool = False
    normal: bool = False
    calendar: bool = False

    @property
    def source(self) -> Source:
        """Data from which the kernels compute the operation."""
        if self.scope is Scope.EVENT:
            return Source.EVENT
        if self.scope is Scope.EXACT:
            return Source.KEY
        return Source.LABELS if self.labels else Source.WINDOW


_ROWS: Final = (
    Operation(Op.AMOUNT, Scope.EVENT, Theme.AMOUNT, "AMOUNT", Unit.MONEY),
    Operation(Op.HOUR, Scope.EVENT, Theme.TIME, "TIME_OF_DAY", Unit.CLOCK, calendar=True),
    Operation(Op.WEEKDAY, Scope.EVENT, Theme.TIME, "WEEKDAY", Unit.WEEKDAY, calendar=True),
    Operation(Op.WEEKEND, Scope.EVENT, Theme.TIME, "WEEKEND", Unit.FLAG, calendar=True),
    Operation(Op.NIGHT, Scope.EVENT, Theme.TIME, "NIGHT", Unit.FLAG, calendar=True),
    Operation(Op.ONLINE, Scope.EVENT, Theme.DEVICE, "CHANNEL", Unit.FLAG),
    Operation(Op.COUNT, Scope.WINDOW, Theme.PACE, "VELOCITY", Unit.COUNT),
    Operation(Op.AMOUNT_SUM, Scope.WINDOW, Theme.PACE, "SPEND", Unit.MONEY),
    Operation(Op.AMOUNT_MEAN, Scope.WINDOW, Theme.AMOUNT, "MEAN_AMOUNT", Unit.MONEY),
    Operation(Op.AMOUNT_RATIO, Scope.WINDOW, Theme.AMOUNT, "AMOUNT_TO_MEAN", Unit.TIMES),
    Operation(Op.LOW_COUNT, Scope.WINDOW, Theme.SMALL_AMOUNTS, "SMALL_AMOUNTS", Unit.COUNT),
    Operation(Op.LOW_SHARE, Scope.WINDOW, Theme.SMALL_AMOUNTS, "SMALL_AMOUNT_SHARE", Unit.SHARE),
    Operation(Op.AMOUNT_MAX, Scope.EXACT_WINDOW, Theme.AMOUNT, "HIGHEST_AMOUNT", Unit.MONEY),
    Operation(Op.AMOUNT_TO_MAX, Scope.EXACT_WINDOW, Theme.AMOUNT, "AMOUNT_TO_HIGHEST", Unit.TIMES),
    Operation(Op.AMOUNT_ZSCORE, Scope.EXACT_WINDOW, Theme.AMOUNT, "AMOUNT_DEVIATION", Unit.NUMBER),
    Operation(Op.DISTINCT_MERCHANTS, Scope.EXACT_WINDOW, Theme.PACE, "MANY_MERCHANTS", Unit.COUNT),
    Operation(Op.DISTINCT_COUNTRIES, Scope.EXACT_WINDOW, Theme.PLACE, "MANY_COUNTRIES", Unit.COUNT),
    Operation(Op.NEW_MERCHANT, Scope.EXACT_WINDOW, Theme.MERCHANT_KIND, "NEW_MERCHANT", Unit.FLAG),
    Operation(Op.NEW_COUNTRY, Scope.EXACT_WINDOW, Theme.PLACE, "NEW_COUNTRY", Unit.FLAG),
    Operation(Op.CATEGORY_SHARE, Scope.EXACT_WINDOW, Theme.MERCHANT_KIND, "CATEGORY_HABIT", Unit.SHARE),
    Operation(Op.NIGHT_SHARE, Scope.EXACT_WINDOW, Theme.TIME, "NIGHT_HABIT", Unit.SHARE),
    Operation(Op.ONLINE_SHARE, Scope.EXACT_WINDOW, Theme.DEVICE, "ONLINE_HABIT", Unit.SHARE),
    Operation(Op.BURST, Scope.EXACT_WINDOW, Theme.PACE, "BURST", Unit.TIMES),
    Operation(Op.FRAUD_COUNT, Scope.EXACT_WINDOW, Theme.REPORTED_FRAUD, "PAST_FRAUD", Unit.COUNT, labels=True),
    Operation(Op.FRAUD_SHARE, Scope.EXACT_WINDOW, Theme.REPORTED_FRAUD, "PAST_FRAUD_SHARE", Unit.SHARE, labels=True),
    Operation(Op.MAX_TO_NORMAL, Scope.EXACT_WINDOW, Theme.AMOUNT, "HIGHEST_TO_NORMAL", Unit.TIMES, normal=True),
    Operation(Op.UNUSUAL_COUNT, Scope.EXACT_WINDOW, Theme.AMOUNT, "UNUSUAL_AMOUNTS", Unit.COUNT),
    Operation(Op.FIRST_UNUSUAL, Scope.EXACT_WINDOW, Theme.AMOUNT, "UNUSUAL_SINCE", Unit.DAYS),
    Operation(Op.LAST_UNUSUAL, Scope.EXACT_WINDOW, Theme.AMOUNT, "LAST_UNUSUAL", Unit.DAYS),
    Operation(Op.FIRST_FRAUD, Scope.EXACT_WINDOW, Theme.REPORTED_FRAUD, "FRAUD_SINCE", Unit.DAYS, labels=True),
    Operation(Op.LAST_FRAUD, Scope.EXACT_WINDOW, Theme.REPORTED_FRAUD, "LAST_FRAUD", Unit.DAYS, labels=True),
    Operation(Op.SECONDS_SINCE_LAST, Scope.EXACT, Theme.PACE, "SINCE_LAST", Unit.SECONDS),
    Operation(Op.DISTANCE, Scope.EXACT, Theme.PLACE, "DISTANCE", Unit.KILOMETRES),
    Operation(Op.SPEED, Scope.EXACT, Theme.PLACE, "TRAVEL_SPEED", Unit.SPEED),
    Operation(Op.NEW_DEVICE, Scope.EXACT, Theme.DEVICE, "NEW_DEVICE", Unit.FLAG),
    Operation(Op.AMOUNT_TO_NORMAL, Scope.EXACT, Theme.AMOUNT, "AMOUNT_TO_NORMAL", Unit.TIMES, normal=True),
    Operation(Op.RECENT_TO_NORMAL, Scope.EXACT, Theme.AMOUNT, "RECENT_TO_NORMAL", Unit.TIMES, normal=True),
    Operation(Op.FRAUD_REPORTS, Scope.BUCKETED_WINDOW, Theme.REPORTED_FRAUD, "REPORTS", Unit.COUNT, labels=True),
    Operation(Op.FRAUD_REPORT_SHARE, Scope.BUCKETED_WINDOW, Theme.REPORTED_FRAUD, "REPORT_SHARE", Unit.SHARE, labels=True),
    Operation(Op.USUAL_FRAUD_COUNT, Scope.EXACT_WINDOW, Theme.REPORTED_FRAUD, "UNEXPLAINED_FRAUD", Unit.COUNT, labels=True),
    Operation(Op.USUAL_FRAUD_SHARE, Scope.EXACT_WINDOW, Theme.REPORTED_FRAUD, "UNEXPLAINED_FRAUD_SHARE", Unit.SHARE, labels=True),
    Operation(Op.FIRST_USUAL_FRAUD, Scope.EXACT_WINDOW, Theme.REPORTED_FRAUD, "UNEXPLAINED_FRAUD_SINCE", Unit.DAYS, labels=True),
    Operation(Op.LAST_USUAL_FRAUD, Scope.EXACT_WINDOW, Theme.REPORTED_FRAUD, "LAST_UNEXPLAINED_FRAUD", Unit.DAYS, labels=True),
    Operation(Op.LAST_LEGITIMATE, Scope.EXACT_WINDOW, Theme.REPORTED_FRAUD, "LAST_LEGITIMATE", Unit.DAYS, labels=True),
)  # fmt: skip
OPERATIONS: Final = {row.op: row for row in _ROWS}
if missing := set(Op) - OPERATIONS.keys():
    raise TypeError(f"models/features/ops.py has no row for {', '.join(sorted(op.name for op in missing))}")


def _with(*scopes: Scope) -> frozenset[Op]:
    return frozenset(row.op for row in _ROWS if row.scope in scopes)


EVENT_OPS: Final = _with(Scope.EVENT)
WINDOWLESS_OPS: Final = _with(Scope.EVENT, Scope.EXACT)
ALLOWED_OPS: Final = {
    StateKind.EXACT: _with(Scope.EVENT, Scope.WINDOW, Scope.EXACT_WINDOW, Scope.EXACT),
    StateKind.BUCKETED: _with(Scope.EVENT, Scope.WINDOW, Scope.BUCKETED_WINDOW),
}
NORMAL_OPS: Final = frozenset(row.op for row in _ROWS if row.normal)
CALENDAR_OPS: Final = frozenset(row.op for row in _ROWS if row.calendar)
LABEL_OPS: Final = frozenset(row.op for row in _ROWS if row.labels)
