"""Themes: groups of features by subject, so that a score can be explained without a list of fifty numbers."""

from enum import StrEnum
from typing import Final

from models.features.spec import Entity, Feature, FeatureSpec, Op, op_of


class Theme(StrEnum):
    """Subject of a feature."""

    AMOUNT = "amount"  # the amount against the card's habit
    PACE = "pace"  # how much and how often the card pays
    SMALL_AMOUNTS = "small amounts"  # test payments
    PLACE = "place"  # place and travel
    DEVICE = "device"  # device and channel
    TIME = "time"  # time of day and week
    MERCHANT_KIND = "merchant kind"  # merchants and categories that are new to the card
    REPORTED_FRAUD = "reported fraud"  # at the merchant, or on the card before
    MERCHANT_ACTIVITY = "merchant activity"  # the merchant's traffic and prices


# Every operation has a theme; a test fails if a new operation has none.
_THEMES: Final[dict[Theme, tuple[Op, ...]]] = {
    Theme.AMOUNT: (
        Op.AMOUNT, Op.AMOUNT_MEAN, Op.AMOUNT_MAX, Op.AMOUNT_RATIO, Op.AMOUNT_ZSCORE, Op.AMOUNT_TO_MAX, Op.AMOUNT_TO_NORMAL,
        Op.RECENT_TO_NORMAL, Op.MAX_TO_NORMAL, Op.UNUSUAL_COUNT, Op.FIRST_UNUSUAL, Op.LAST_UNUSUAL,
    ),
    Theme.PACE: (Op.COUNT, Op.AMOUNT_SUM, Op.DISTINCT_MERCHANTS, Op.BURST, Op.SECONDS_SINCE_LAST),
    Theme.SMALL_AMOUNTS: (Op.LOW_COUNT, Op.LOW_SHARE),
    Theme.PLACE: (Op.DISTINCT_COUNTRIES, Op.NEW_COUNTRY, Op.DISTANCE, Op.SPEED),
    Theme.DEVICE: (Op.ONLINE, Op.ONLINE_SHARE, Op.NEW_DEVICE),
    Theme.TIME: (Op.HOUR, Op.WEEKDAY, Op.WEEKEND, Op.NIGHT, Op.NIGHT_SHARE),
    Theme.MERCHANT_KIND: (Op.NEW_MERCHANT, Op.CATEGORY_SHARE),
    Theme.REPORTED_FRAUD: (
        Op.FRAUD_COUNT, Op.FRAUD_SHARE, Op.FIRST_FRAUD, Op.LAST_FRAUD, Op.FRAUD_REPORTS, Op.FRAUD_REPORT_SHARE,
        Op.USUAL_FRAUD_COUNT, Op.USUAL_FRAUD_SHARE, Op.FIRST_USUAL_FRAUD, Op.LAST_USUAL_FRAUD, Op.LAST_LEGITIMATE,
    ),
}  # fmt: skip
OF_OP: Final = {op: theme for theme, ops in _THEMES.items() for op in ops}
_OF_THE_CARD: Final = (Theme.AMOUNT, Theme.PACE)
_OF_THE_TRANSACTION: Final = (Op.AMOUNT,)


def theme_of(entity: Entity, feature: Feature) -> Theme:
    """Return the theme of a feature. Amount and pace features of a merchant belong to its activity."""
    op = op_of(feature)
    theme = OF_OP[op]
    if entity.key == "merchant_id" and theme in _OF_THE_CARD and op not in _OF_THE_TRANSACTION:
        return Theme.MERCHANT_ACTIVITY
    return theme


def themes_of(spec: FeatureSpec) -> tuple[Theme, ...]:
    """Return the theme of each column of X, in order."""
    return tuple(theme_of(entity, feature) for entity in spec.entities for feature in entity.features)
