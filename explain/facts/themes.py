"""Reasons by theme: the score's contributions summed by subject, each with the values that tell most, compared with honest and fraudulent transactions."""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from core.messages import Alert, ThemeFact, ThemeReason
from explain.reasons import entity_of, sentence, usual
from models.bundle import Bundle
from models.features.themes import Theme, themes_of

Floats = npt.NDArray[np.float32]

FACTS_OF_A_THEME: Final = 2
_SEPARATES: Final = 1.5  # a value is shown if its share among frauds is at least this many times its share among honest transactions, or the reverse


def reasons_by_theme(alert: Alert, bundle: Bundle, shap: Floats, bias: float) -> tuple[ThemeReason, ...]:
    """
    Return the themes of an alert's score, strongest first.

    ``shap`` (float32 [F]) and ``bias`` are TreeSHAP values in log-odds (Lundberg, Erion and Lee, 2018). The contributions of all themes
    and the bias add up to the margin. A theme's facts are on its own side: their contribution has its sign, and the value is
    correspondingly more frequent, or rarer, among frauds than among honest transactions of the bundle's reference.
    """
    themes = themes_of(bundle.spec)
    margin = float(shap.sum(dtype=np.float64)) + bias
    reasons = []
    for theme in Theme:
        columns = [column for column, one in enumerate(themes) if one is theme]
        if not columns:
            continue
        contribution = float(shap[columns].sum(dtype=np.float64))
        without = bundle.calibration.probability(np.array([margin - contribution], np.float32))[0]
        strongest = sorted(columns, key=lambda column: (-abs(float(shap[column])), column))
        facts = [
            fact
            for column in strongest
            if float(shap[column]) * contribution > 0 and (fact := _fact(alert, bundle, column, float(shap[column]))) is not None
        ]
        reasons.append(
            ThemeReason(
                theme=theme.value,
                contribution=contribution,
                probability_without=float(without),
                facts=tuple(facts[:FACTS_OF_A_THEME]),
            )
        )
    return tuple(sorted(reasons, key=lambda reason: (-abs(reason.contribution), reason.theme)))


def _fact(alert: Alert, bundle: Bundle, column: int, contribution: float) -> ThemeFact | None:
    """A feature's value with its contrast; None if it is unknown or does not separate fraud from honest transactions."""
    name = bundle.spec.feature_names[column]
    value = alert.features[name]
    if value is None or math.isnan(value):
        return None
    reference = bundle.reference
    high, honest, fraud = contrast(reference.honest[:, column], reference.fraud[:, column], value)
    unseen = 0.5 / min(len(reference.fraud), len(reference.honest))  # what the smaller sample cannot tell from zero
    ratio = (fraud + unseen) / (honest + unseen)
    if (contribution > 0 and ratio < _SEPARATES) or (contribution < 0 and ratio > 1 / _SEPARATES):
        return None
    entity, feature = entity_of(bundle.spec, name)
    return ThemeFact(
        feature=name,
        text=sentence(entity, feature, value, bundle.spec.currency),
        value=value,
        usual=usual(feature, entity, alert.features),
        contribution=contribution,
        high=high,
        honest_share=honest,
        fraud_share=fraud,
    )


def contrast(honest: Floats, fraud: Floats, value: float) -> tuple[bool, float, float]:
    """
    Return on which side of the honest median a value lies (true: high), and the shares of honest and of fraudulent transactions, in [0, 1],
    that are at least as extreme on that side.

    A value that equals the median, as a flag or a count of zero often does, gets the side on which the two shares differ more. The columns are
    sorted, with NaN (unknown) last; unknown values count as not extreme.
    """
    value = float(np.float32(value))
    known = honest[: int(np.searchsorted(honest, np.inf, side="right"))]
    median = float(known[len(known) // 2]) if len(known) else value
    sides = [high for high in (True, False) if (high and value >= median) or (not high and value <= median)]
    found = [(high, _share(honest, value, high), _share(fraud, value, high)) for high in sides]
    return max(found, key=lambda one: _difference(one[1], one[2]))


def _difference(honest: float, fraud: float) -> float:
    """How many times one share is the other, at least 1."""
    low, high = sorted((honest + 1e-6, fraud + 1e-6))
    return high / low


def _share(column: Floats, value: float, high: bool) -> float:
    known = int(np.searchsorted(column, np.inf, side="right"))
    if high:
        return float((known - np.searchsorted(column[:known], value, side="left")) / len(column))
    return float(np.searchsorted(column[:known], value, side="right") / len(column))
