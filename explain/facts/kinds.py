"""Reason codes, value units and usual values of feature operations."""

import math
from typing import Final, NamedTuple

from core.clock import duration_ms
from core.messages import Unit, Value
from core.money import minor_per_major
from models.features.ops import OPERATIONS, Op, StateKind
from models.features.spec import Entity, Feature, FeatureSpec, op_of

_FEWEST: Final = 5  # payments needed to estimate a usual value


def kind_of(op: Op) -> str:
    """Return the kind of an operation's facts, such as ``feature-amount-mean``."""
    return f"feature-{op.name.lower().replace('_', '-')}"


def code_of(entity: Entity, feature: Feature) -> str:
    """Return the reason code of a feature, such as ``CARD_NEW_DEVICE``."""
    return f"{entity.name.upper()}_{OPERATIONS[op_of(feature)].reason}"


def value_of(feature: Feature, value: float, currency: str) -> Value:
    """Return a feature's value with its unit. Money features are in major units, facts in minor units."""
    unit = OPERATIONS[op_of(feature)].unit
    if unit is Unit.MONEY:
        return Value(unit, value * minor_per_major(currency), currency=currency)
    return Value(unit, value)


def window_of(feature: Feature, entity: Entity) -> dict[str, Value]:
    """
    Return the length of a feature's window. If the window ends before the payment, also return the delay from the window's end to
    the payment.

    Empty for a feature without a window.
    """
    if not feature.window:
        return {}
    window = {"window": Value(Unit.SECONDS, duration_ms(feature.window) / 1000)}
    delay = duration_ms(entity.delay) / 1000
    return window | {"delay": Value(Unit.SECONDS, delay)} if delay else window


class Column(NamedTuple):
    """A column of X: the feature and the entity that it belongs to."""

    entity: Entity
    feature: Feature


def entity_of(spec: FeatureSpec, name: str) -> Column:
    """
    Return the entity and the feature that a column belongs to.

    Raises:
        KeyError: if the spec has no such column.
    """
    for entity in spec.entities:
        for feature in entity.features:
            if feature.name == name:
                return Column(entity, feature)
    raise KeyError(name)


def usual_of(feature: Feature, entity: Entity, features: dict[str, float | None]) -> float | None:
    """
    Return a feature's usual value for this card or merchant, estimated from the entity's longest window.

    For an amount, the estimate is the mean amount of the other payments in the longest window. For a count or a sum, it is the
    value expected in a window of the feature's length. This value is estimated from the payments that are in the longest window
    but not in the feature's own window.

    None for other operations, for the longest window itself, and where fewer than five payments remain.
    """
    op, longest = op_of(feature), entity.windows[-1].length

    def own(wanted: Op, window: str) -> float | None:
        found = (f for f in entity.features if op_of(f) is wanted and f.window == window)
        return next((known(features.get(f.name)) for f in found), None)

    mean, payments, amount = own(Op.AMOUNT_MEAN, longest), own(Op.COUNT, longest), known(features.get("amount"))
    if payments is None:
        return None
    itself = 1 if entity.state is StateKind.EXACT else 0  # a bucketed window never includes the payment's own bucket
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
