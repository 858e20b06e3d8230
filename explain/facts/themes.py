"""
Reasons by theme: the score's contributions summed by theme.

Each theme comes with its most telling values, compared with honest and fraudulent transactions.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from core.messages import Alert, Contrast, Fact, Side, Subject, ThemeReason
from explain.facts.kinds import entity_of, kind_of, known, usual_of, value_of, window_of
from explain.facts.values import code, share
from models.bundles.bundle import Bundle
from models.features.ops import EVENT_OPS, Theme
from models.features.spec import op_of
from models.features.themes import themes_of

Floats = npt.NDArray[np.float32]

FACTS_OF_A_THEME: Final = 2
# a value for fraud is shown if its share among frauds is at least this many times its share among honest payments; a value
# against fraud is shown if the reverse holds
_SEPARATES: Final = 1.2
_SUBJECTS: Final = {"card_id": Subject.CARD, "merchant_id": Subject.MERCHANT, "device_id": Subject.DEVICE}


class Reasons(Struct, frozen=True):
    """
    The themes of a score, strongest first, and their facts.

    ``facts`` holds one fact about each theme (``M1`` …), followed by the most telling values (``F1`` …).
    """

    themes: tuple[ThemeReason, ...] = ()
    facts: tuple[Fact, ...] = ()


def reasons_by_theme(alert: Alert, bundle: Bundle, shap: Floats, bias: float) -> Reasons:
    """
    Return the themes of an alert's score and their facts.

    ``shap`` (float32 [F]) and ``bias`` are TreeSHAP values in log-odds (Lundberg, Erion and Lee, 2018). The contributions of all
    themes and the bias add up to the margin.

    The values shown for a theme support the same side as the theme, in two respects. Their contributions have the theme's sign.
    In the bundle's reference sample, values for fraud are more frequent among frauds than among honest transactions, and values
    against fraud are less frequent.
    """
    themes = np.array(themes_of(bundle.spec))
    margin = float(shap.sum(dtype=np.float64)) + bias
    sums = {theme: float(shap[themes == theme].sum(dtype=np.float64)) for theme in Theme if (themes == theme).any()}
    ranked = sorted(sums, key=lambda theme: (-abs(sums[theme]), theme))
    without = bundle.calibration.probability(np.array([margin - sums[theme] for theme in ranked], np.float32))
    reasons: list[ThemeReason] = []
    about: list[Fact] = []
    values: list[Fact] = []
    for rank, (theme, probability) in enumerate(zip(ranked, without.tolist(), strict=True), start=1):
        about.append(_about(rank, theme, sums[theme], probability))
        telling = _telling(alert, bundle, shap, np.flatnonzero(themes == theme), theme, sums[theme], len(values))
        values += telling
        reasons.append(ThemeReason(theme.value, sums[theme], probability, tuple(fact.fact_id for fact in telling)))
    return Reasons(tuple(reasons), (*about, *values))


def _about(rank: int, theme: Theme, contribution: float, without: float) -> Fact:
    return Fact(
        fact_id=f"M{rank}",
        kind="theme",
        subject=Subject.SCORE,
        values={"theme": code(f"theme-{theme.value}"), "without": share(without)},
        side=side_of(contribution),
        contribution=contribution,
        theme=theme.value,
    )


def side_of(contribution: float) -> Side:
    """Return the side that a contribution in log-odds supports."""
    return Side.FRAUD if contribution > 0 else Side.LEGITIMATE if contribution < 0 else Side.NEITHER


def _telling(
    alert: Alert, bundle: Bundle, shap: Floats, columns: npt.NDArray[np.int64], theme: Theme, total: float, before: int
) -> list[Fact]:
    """
    Return the most telling facts about a theme's features on the theme's side, numbered from ``before`` + 1.

    Facts are ranked by contribution times separation (the log of the frequency ratio), because a large contribution alone may
    come from a value that many honest payments share.
    """
    own = [column for column in columns.tolist() if float(shap[column]) * total > 0]
    found = [fact for column in own if (fact := _fact(alert, bundle, column, float(shap[column]), theme)) is not None]
    found.sort(key=lambda fact: -abs((fact.contribution or 0) * math.log(_ratio(bundle, fact.contrast))) if fact.contrast else 0)
    return [structs.replace(fact, fact_id=f"F{before + n}") for n, fact in enumerate(found[:FACTS_OF_A_THEME], start=1)]


def _ratio(bundle: Bundle, found: Contrast) -> float:
    """Return how many times more frequent a value is among frauds than among honest transactions, smoothed for sample size."""
    unseen = 0.5 / min(len(bundle.reference.fraud), len(bundle.reference.honest))  # half a transaction of the smaller sample
    return (found.fraud_share + unseen) / (found.honest_share + unseen)


def _fact(alert: Alert, bundle: Bundle, column: int, contribution: float, theme: Theme) -> Fact | None:
    """Return a feature's value with its contrast; None if unknown or if it does not separate frauds from honest transactions."""
    name, currency = bundle.spec.feature_names[column], bundle.spec.currency
    value = known(alert.features[name])
    if value is None:
        return None
    reference = bundle.reference
    compared = contrast(reference.honest[:, column], reference.fraud[:, column], value)
    ratio = _ratio(bundle, compared)
    if (contribution > 0 and ratio < _SEPARATES) or (contribution < 0 and ratio > 1 / _SEPARATES):
        return None
    entity, feature = entity_of(bundle.spec, name)
    usual = usual_of(feature, entity, alert.features)
    return Fact(
        fact_id="F0",
        kind=kind_of(op_of(feature)),
        subject=Subject.TRANSACTION if op_of(feature) in EVENT_OPS else _SUBJECTS[entity.key],
        values={"value": value_of(feature, value, currency), **window_of(feature, entity)},
        side=side_of(contribution),
        usual=None if usual is None else value_of(feature, usual, currency),
        contrast=compared,
        contribution=contribution,
        feature=name,
        theme=theme.value,
    )


def contrast(honest: Floats, fraud: Floats, value: float) -> Contrast:
    """
    Compare a value with samples of honest and fraudulent transactions.

    The contrast says whether the value is high or low, compared with the median of the honest sample. It also gives the share of
    each sample that is at least as high, or at least as low. A value that equals the median, as a flag or a count of zero often
    does, counts as high or as low, whichever makes the two shares differ more.

    The columns are sorted, with NaN (unknown) last. Unknown values count as neither high nor low.
    """
    value = float(np.float32(value))
    known_honest = honest[: int(np.searchsorted(honest, np.inf, side="right"))]
    median = float(known_honest[len(known_honest) // 2]) if len(known_honest) else value
    sides = [high for high in (True, False) if (high and value >= median) or (not high and value <= median)]
    found = [Contrast(high, _share(honest, value, high), _share(fraud, value, high)) for high in sides]
    return max(found, key=lambda one: _difference(one.honest_share, one.fraud_share))


def _difference(honest: float, fraud: float) -> float:
    """Return the ratio of the larger share to the smaller one, at least 1."""
    low, high = sorted((honest + 1e-6, fraud + 1e-6))
    return high / low


def _share(column: Floats, value: float, high: bool) -> float:
    known_values = int(np.searchsorted(column, np.inf, side="right"))
    if high:
        return float((known_values - np.searchsorted(column[:known_values], value, side="left")) / len(column))
    return float(np.searchsorted(column[:known_values], value, side="right") / len(column))
