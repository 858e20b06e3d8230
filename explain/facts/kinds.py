"""Reason codes, value units and usual values of feature operations."""

import math
from typing import Final

from msgspec import Struct

from core.clock import duration_ms
from core.messages import Unit, Value
from core.money import minor_per_major
from models.features.spec import Entity, Feature, FeatureSpec, Op, StateKind, op_of

_FEWEST: Final = 5  # payments needed to estimate a usual value


class Reason(Struct, frozen=True):
    """A reason code, as decisions and reports carry it, and the unit of its value."""

    code: str
    unit: Unit


REASONS: Final[dict[Op, Reason]] = {
    Op.AMOUNT: Reason("AMOUNT", Unit.MONEY),
    Op.HOUR: Reason("TIME_OF_DAY", Unit.CLOCK),
    Op.WEEKDAY: Reason("WEEKDAY", Unit.WEEKDAY),
    Op.WEEKEND: Reason("WEEKEND", Unit.FLAG),
    Op.NIGHT: Reason("NIGHT", Unit.FLAG),
    Op.ONLINE: Reason("CHANNEL", Unit.FLAG),
    Op.COUNT: Reason("VELOCITY", Unit.COUNT),
    Op.AMOUNT_SUM: Reason("SPEND", Unit.MONEY),
    Op.AMOUNT_MEAN: Reason("MEAN_AMOUNT", Unit.MONEY),
    Op.AMOUNT_MAX: Reason("HIGHEST_AMOUNT", Unit.MONEY),
    Op.AMOUNT_RATIO: Reason("AMOUNT_TO_MEAN", Unit.TIMES),
    Op.AMOUNT_TO_MAX: Reason("AMOUNT_TO_HIGHEST", Unit.TIMES),
    Op.AMOUNT_ZSCORE: Reason("AMOUNT_DEVIATION", Unit.NUMBER),
    Op.LOW_COUNT: Reason("SMALL_AMOUNTS", Unit.COUNT),
    Op.LOW_SHARE: Reason("SMALL_AMOUNT_SHARE", Unit.SHARE),
    Op.DISTINCT_MERCHANTS: Reason("MANY_MERCHANTS", Unit.COUNT),
    Op.DISTINCT_COUNTRIES: Reason("MANY_COUNTRIES", Unit.COUNT),
    Op.NEW_MERCHANT: Reason("NEW_MERCHANT", Unit.FLAG),
    Op.NEW_COUNTRY: Reason("NEW_COUNTRY", Unit.FLAG),
    Op.CATEGORY_SHARE: Reason("CATEGORY_HABIT", Unit.SHARE),
    Op.NIGHT_SHARE: Reason("NIGHT_HABIT", Unit.SHARE),
    Op.ONLINE_SHARE: Reason("ONLINE_HABIT", Unit.SHARE),
    Op.BURST: Reason("BURST", Unit.TIMES),
    Op.FRAUD_COUNT: Reason("PAST_FRAUD", Unit.COUNT),
    Op.FRAUD_SHARE: Reason("PAST_FRAUD_SHARE", Unit.SHARE),
    Op.FIRST_FRAUD: Reason("FRAUD_SINCE", Unit.DAYS),
    Op.LAST_FRAUD: Reason("LAST_FRAUD", Unit.DAYS),
    Op.USUAL_FRAUD_COUNT: Reason("UNEXPLAINED_FRAUD", Unit.COUNT),
    Op.USUAL_FRAUD_SHARE: Reason("UNEXPLAINED_FRAUD_SHARE", Unit.SHARE),
    Op.FIRST_USUAL_FRAUD: Reason("UNEXPLAINED_FRAUD_SINCE", Unit.DAYS),
    Op.LAST_USUAL_FRAUD: Reason("LAST_UNEXPLAINED_FRAUD", Unit.DAYS),
    Op.LAST_LEGITIMATE: Reason("LAST_LEGITIMATE", Unit.DAYS),
    Op.AMOUNT_TO_NORMAL: Reason("AMOUNT_TO_NORMAL", Unit.TIMES),
    Op.RECENT_TO_NORMAL: Reason("RECENT_TO_NORMAL", Unit.TIMES),
    Op.MAX_TO_NORMAL: Reason("HIGHEST_TO_NORMAL", Unit.TIMES),
    Op.UNUSUAL_COUNT: Reason("UNUSUAL_AMOUNTS", Unit.COUNT),
    Op.FIRST_UNUSUAL: Reason("UNUSUAL_SINCE", Unit.DAYS),
    Op.LAST_UNUSUAL: Reason("LAST_UNUSUAL", Unit.DAYS),
    Op.SECONDS_SINCE_LAST: Reason("SINCE_LAST", Unit.SECONDS),
    Op.DISTANCE: Reason("DISTANCE", Unit.KILOMETRES),
    Op.SPEED: Reason("TRAVEL_SPEED", Unit.SPEED),
    Op.NEW_DEVICE: Reason("NEW_DEVICE", Unit.FLAG),
    Op.FRAUD_REPORTS: Reason("REPORTS", Unit.COUNT),
    Op.FRAUD_REPORT_SHARE: Reason("REPORT_SHARE", Unit.SHARE),
}


def kind_of(op: Op) -> str:
    """Return the kind of an operation's facts, such as ``feature-amount-mean``."""
    return f"feature-{op.name.lower().replace('_', '-')}"


def code_of(entity: Entity, feature: Feature) -> str:
    """Return the reason code of a feature, such as ``CARD_NEW_DEVICE``."""
    return f"{entity.name.upper()}_{REASONS[op_of(feature)].code}"


def value_of(feature: Feature, value: float, currency: str) -> Value:
    """Return a feature's value with its unit. Money features are in major units, facts in minor units."""
    unit = REASONS[op_of(feature)].unit
    if unit is Unit.MONEY:
        return Value(unit, value * minor_per_major(currency), currency=currency)
    return Value(unit, value)


def window_of(feature: Feature, entity: Entity) -> dict[str, Value]:
    """
    Return the length of a feature's window and, if the window ends before the payment, the delay between the two.

    Empty for a feature without a window.
    """
    if not feature.window:
        return {}
    window = {"window": Value(Unit.SECONDS, duration_ms(feature.window) / 1000)}
    delay = duration_ms(entity.delay) / 1000
    return window | {"delay": Value(Unit.SECONDS, delay)} if delay else window


def entity_of(spec: FeatureSpec, name: str) -> tuple[Entity, Feature]:
    """
    Return the entity and the feature that a column belongs to.

    Raises:
        KeyError: if the spec has no such column.
    """
    for entity in spec.entities:
        for feature in entity.features:
            if feature.name == name:
                return entity, feature
    raise KeyError(name)


def usual_of(feature: Feature, entity: Entity, features: dict[str, float | None]) -> float | None:
    """
    Return a feature's usual value for this card or merchant, estimated from the entity's longest window.

    The estimate leaves out the payment itself and the feature's own window. For an amount, it is the mean amount; for a count or
    a sum, it is the value expected in a window of the same length at the rate of the remaining time. None for other operations,
    for the longest window itself, and where fewer than five payments remain.
    """
    op, longest = op_of(feature), entity.windows[-1].length

    def own(wanted: Op, window: str) -> float | None:
        found = (f for f in entity.features if op_of(f) is wanted and f.window == window)
        return next((known(features.get(f.name)) for f in found), None)

    mean, payments, amount = own(Op.AMOUNT_MEAN, longest), own(Op.COUNT, longest), known(features.get("amount"))
    if payments is None:
        return None
    itself = 1 if entity.state is StateKind.EXACT else 0  # a bucketed window covers complete buckets only, so not the payment
    if op is Op.AMOUNT:
        rest = payments - itself
        return None if mean is None or amount is None or rest < _FEWEST else (mean * payments - itself * amount) / rest
    if op not in (Op.COUNT, Op.AMOUNT_SUM) or feature.window == longest:
        return None
    recent = own(Op.COUNT, feature.window)
    if recent is None or payments - recent < _FEWEST:
        return None
    share = duration_ms(feature.window) / (duration_ms(longest) - duration_ms(feature.window))
    if op is Op.COUNT:
        return (payments - recent) * share
    spent = own(Op.AMOUNT_SUM, feature.window)
    return None if mean is None or spent is None else max(mean * payments - spent, 0.0) * share


def known(value: float | None) -> float | None:
    """Return the value, or None if the value is None or NaN."""
    return None if value is None or math.isnan(value) else value
