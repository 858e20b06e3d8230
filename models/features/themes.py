"""Themes: groups of features by subject, so that a score can be explained without a list of fifty numbers."""

from typing import Final

from models.features.ops import OPERATIONS, Op, Theme
from models.features.spec import Entity, Feature, FeatureSpec, op_of

_OF_THE_CARD: Final = (Theme.AMOUNT, Theme.PACE)
_OF_THE_TRANSACTION: Final = (Op.AMOUNT,)


def theme_of(entity: Entity, feature: Feature) -> Theme:
    """
    Return the theme of a feature.

    A merchant's features with the theme ``AMOUNT`` or ``PACE`` get the theme ``MERCHANT_ACTIVITY`` instead, except the amount of
    the transaction itself.
    """
    op = op_of(feature)
    theme = OPERATIONS[op].theme
    if entity.key == "merchant_id" and theme in _OF_THE_CARD and op not in _OF_THE_TRANSACTION:
        return Theme.MERCHANT_ACTIVITY
    return theme


def themes_of(spec: FeatureSpec) -> tuple[Theme, ...]:
    """Return the theme of each column of X, in order."""
    return tuple(theme_of(entity, feature) for entity in spec.entities for feature in entity.features)
