"""
The likely typology of an alert, assuming that the alert is fraud: a hint with its supporting evidence.

Once enough closed frauds have a typology, a logistic regression on their case vectors predicts the typology (ADR 21). Until then,
the likely typology is one that at least two of the nearest cases share.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from core.messages import TYPOLOGIES, Finding, LikelyTypology, SimilarCase
from explain.casebook import Case, Casebook

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

logger = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

_TYPICAL: Final = 2  # minimum number of nearest fraud cases with the same typology
_MOST_CASES: Final = 2_000  # the classifier is fitted on at most this many frauds with a typology, the newest
_FEWEST_CASES, _FEWEST_OF_A_TYPE = 100, 10
_CHECKED_EVERY: Final = 100  # number of alerts between two checks for new frauds with a typology
_GROWTH: Final = 0.2  # the classifier is fitted again if more than this share of the frauds with a typology is new
_LIKELY: Final = 0.5  # lowest probability of a typology that is reported
_FOLDS: Final = 5


class TypologyClassifier(Struct, frozen=True):
    """
    A classifier of typologies.

    ``cases`` is the number of frauds that it is fitted on, and ``right`` is its accuracy in 5-fold cross-validation.
    """

    model: "LogisticRegression"
    cases: int
    right: float

    def likely(self, vector: Vectors) -> LikelyTypology | None:
        """Return the typology of a case vector, float32 [2 F]; None if no typology has a probability of at least 0.5."""
        probabilities = self.model.predict_proba(vector[None, :])[0]
        best = int(np.argmax(probabilities))
        if probabilities[best] < _LIKELY:
            return None
        name = str(self.model.classes_[best])
        return LikelyTypology(name=name, cases=self.cases, probability=float(probabilities[best]), right=self.right)


def fit_typologies(vectors: Vectors, names: Sequence[str]) -> TypologyClassifier | None:
    """
    Fit a classifier on case vectors, float32 [N, 2 F], and their typologies.

    Typologies with fewer than ten cases are left out. Return None if fewer than 100 cases or fewer than two typologies remain.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    counts = Counter(names)
    kept = np.array([counts[name] >= _FEWEST_OF_A_TYPE for name in names], bool)
    types = np.array(names)[kept] if len(names) else np.array([])
    if len(types) < _FEWEST_CASES or len(set(types.tolist())) < 2:
        return None
    model = LogisticRegression(C=30.0, max_iter=1_000)
    held_out = cross_val_predict(model, vectors[kept], types, cv=_FOLDS)
    return TypologyClassifier(model.fit(vectors[kept], types), len(types), float((held_out == types).mean()))


class Typologies:
    """Predictor of the likely typology of alerts, from the frauds of a casebook."""

    def __init__(self, casebook: Casebook) -> None:
        self._casebook = casebook
        self._classifier: TypologyClassifier | None = None
        self._newest = self._alerts = 0

    def likely(self, vector: Vectors, similar: Sequence[SimilarCase]) -> LikelyTypology | None:
        """
        Return an alert's likely typology from its case vector, float32 [2 F], and its nearest cases.

        Return None if no typology is likely enough.
        """
        if self._alerts % _CHECKED_EVERY == 0:
            self._refresh(self._casebook.typed_frauds(_MOST_CASES))
        self._alerts += 1
        return self._classifier.likely(vector) if self._classifier else nearest_typology(similar)

    def _refresh(self, cases: list[Case]) -> None:
        known = [case for case in cases if case.typology in TYPOLOGIES]
        new = sum(case.closed_time > self._newest for case in known)
        if new <= _GROWTH * len(known):
            return
        self._newest = max(case.closed_time for case in known)
        vectors = self._casebook.vectors(
            np.stack([case.features for case in known]), np.stack([case.contributions for case in known])
        )
        self._classifier = fit_typologies(vectors, [case.typology or "" for case in known])
        if self._classifier:
            logger.info("typologies: %d cases, held-out accuracy %.1f %%", self._classifier.cases, 100 * self._classifier.right)


def nearest_typology(similar: Sequence[SimilarCase]) -> LikelyTypology | None:
    """Return the most frequent typology of the frauds among the nearest cases; None if fewer than two share one."""
    typed = Counter(case.typology for case in similar if case.outcome is Finding.FRAUD and case.typology in TYPOLOGIES)
    if not typed:
        return None
    name, support = min(typed.items(), key=lambda one: (-one[1], TYPOLOGIES.index(one[0] or "")))
    return LikelyTypology(name=name or "", support=support, cases=len(similar)) if support >= _TYPICAL else None
