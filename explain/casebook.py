"""
Similar past cases: a LlamaIndex retriever over the vectors of investigated alerts.

A case's vector concatenates its standardised features and its TreeSHAP contributions, each scaled to the same length. The cases
themselves are in SQL (``analyst.cases``). The vectors (``explain.vectors``) are derived from the cases and follow every change.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.parquet
from msgspec import Struct

from core.messages import Alert, Difference, Finding, SimilarCase, Verdict
from explain.facts.attribution import attribute
from explain.facts.kinds import entity_of, kind_of, value_of, window_of
from models.bundles.bundle import CASES, Bundle
from models.features.ops import Theme
from models.features.spec import op_of
from models.features.themes import themes_of

if TYPE_CHECKING:
    from explain.vectors import VectorStore

Vector = npt.NDArray[np.float32]
SIMILAR = 5
_CLIP = 4.0  # standard deviations at which features are clipped
_DIFFERENCES = 2
_NOTABLE = 0.5  # smallest difference shown, in standard deviations
_SHARED = 3  # strongest themes of each score that are compared
_AT_ONCE = 5000


class Case(Struct, frozen=True):
    """
    An investigated alert.

    ``features`` and ``contributions`` are float32 [F] in the order of the bundle's spec. ``note`` is an analyst's text and
    untrusted.
    """

    case_id: str
    outcome: Finding
    closed_time: int
    features: Vector
    contributions: Vector
    typology: str | None = None
    note: str | None = None


class Change(Struct, frozen=True):
    """
    The last change of a case.

    ``number`` is the case's number, and ``changed`` the number of the change. ``case`` is None if the change removed the case.
    """

    number: int
    changed: int
    case: Case | None


class CaseSource(Protocol):
    """A source of cases by bundle. ``number`` identifies a case permanently; ``changed`` is the running number of a change."""

    def changes(self, bundle: str, after: int, limit: int) -> list[Change]:
        """Return the changes after change number ``after``, oldest first."""

    def cases(self, bundle: str, numbers: list[int]) -> dict[int, Case]:
        """Return cases by number. Removed cases are left out."""

    def typed_frauds(self, bundle: str, limit: int) -> list[Case]:
        """Return the newest frauds with a typology."""


class CasesInMemory:
    """A source that holds the cases of a single bundle in memory, for measurements."""

    def __init__(self, cases: Iterable[Case] = ()) -> None:
        self._changes: dict[str, Change] = {}
        self._count = 0
        for case in cases:
            self.put(case)

    def put(self, case: Case) -> None:
        """Add or correct a case."""
        self._set(case.case_id, case)

    def remove(self, case_id: str) -> None:
        """Remove a case."""
        self._set(case_id, None)

    def _set(self, case_id: str, case: Case | None) -> None:
        self._count += 1
        known = self._changes.get(case_id)
        self._changes[case_id] = Change(known.number if known else len(self._changes) + 1, self._count, case)

    def changes(self, bundle: str, after: int, limit: int) -> list[Change]:
        """Return the changes after change number ``after``, oldest first."""
        found = (change for change in self._changes.values() if change.changed > after)
        return sorted(found, key=lambda change: change.changed)[:limit]

    def typed_frauds(self, bundle: str, limit: int) -> list[Case]:
        """Return the newest frauds with a typology."""
        found = [
            one.case for one in self._changes.values() if one.case and one.case.outcome is Finding.FRAUD and one.case.typology
        ]
        return sorted(found, key=lambda case: -case.closed_time)[:limit]

    def cases(self, bundle: str, numbers: list[int]) -> dict[int, Case]:
        """Return cases by number. Removed cases are left out."""
        wanted = set(numbers)
        return {change.number: change.case for change in self._changes.values() if change.case and change.number in wanted}


def case_from(alert: Alert, verdict: Verdict, bundle: Bundle) -> Case | None:
    """
    Return the case for an alert and its verdict, with this bundle's contributions.

    None for an escalation, or if the alert's features differ from the bundle's.
    """
    if verdict.finding is Finding.ESCALATE or alert.features.keys() != set(bundle.spec.feature_names):
        return None
    found = attribute(alert, bundle)
    return Case(alert.alert_id, verdict.finding, verdict.verdict_time, found.x, found.shap, verdict.typology, verdict.note)


def bundle_cases(bundle: Bundle) -> list[Case]:
    """Return the cases that come with a bundle: the alerts that the bundle would have raised before it went live."""
    rows = pyarrow.parquet.read_table(io.BytesIO(Path(bundle.folder / CASES).read_bytes())).to_pylist()
    return [
        Case(
            row["case_id"],
            Finding(row["outcome"]),
            row["closed_time"],
            np.array(row["features"], np.float32),
            np.array(row["contributions"], np.float32),
        )
        for row in rows
    ]


class Casebook:
    """The cases of a bundle, and the vectors for finding the nearest cases."""

    def __init__(self, bundle: Bundle, source: CaseSource, store: "VectorStore | None" = None) -> None:
        """Create a casebook over a source of cases. Without a ``store``, the vectors are kept in memory."""
        from explain.vectors import FaissCases

        self._bundle, self._source = bundle, source
        # an empty store is falsy, hence the comparison with None
        self._store = FaissCases(bundle.version, 2 * len(bundle.spec.feature_names)) if store is None else store
        self._known = self._store.known
        self._themes = np.array(themes_of(bundle.spec))
        self.refresh()

    @property
    def version(self) -> str:
        """The bundle's version, and the number of the last change that the vectors include."""
        return f"{self._bundle.version}-{self._known}"

    def __len__(self) -> int:
        return len(self._store)

    def vector(self, features: Vector, contributions: Vector) -> Vector:
        """Return the unit vector, float32 [2 F], of features and contributions, each float32 [F]."""
        own: Vector = self.vectors(features[None, :], contributions[None, :])[0]
        return own

    def vectors(self, features: Vector, contributions: Vector) -> Vector:
        """Return the unit vectors, float32 [N, 2 F], of features and contributions, each float32 [N, F]."""
        reference = self._bundle.reference
        z = np.clip(np.nan_to_num((features - reference.mean) / reference.std), -_CLIP, _CLIP)
        parts = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9) for part in (z, contributions)]
        both: Vector = np.concatenate(parts, axis=1).astype(np.float32) / np.float32(np.sqrt(2))
        return both

    def refresh(self) -> None:
        """Apply all changes of the cases since the last refresh to the vectors."""
        while changes := self._source.changes(self._bundle.version, self._known, _AT_ONCE):
            last = changes[-1].changed
            kept = [(change.number, change.case) for change in changes if change.case is not None]
            self._store.drop([change.number for change in changes if change.case is None], last)
            if kept:
                vectors = self.vectors(np.stack([c.features for _, c in kept]), np.stack([c.contributions for _, c in kept]))
                self._store.put([number for number, _ in kept], [case.closed_time for _, case in kept], vectors, last)
            self._known = last

    def typed_frauds(self, limit: int) -> list[Case]:
        """Return the newest closed frauds with a typology."""
        return self._source.typed_frauds(self._bundle.version, limit)

    def save(self) -> None:
        """Save the vectors."""
        self._store.save()

    def close(self) -> None:
        """Save the vectors and close the store."""
        self._store.save()
        self._store.close()

    def similar(self, features: Vector, contributions: Vector, before: int, own_id: str) -> list[SimilarCase]:
        """Return the nearest cases closed before a time (epoch ms), nearest first, without the alert's own case (``own_id``)."""
        from llama_index.core import QueryBundle

        from explain.vectors import CaseRetriever

        self.refresh()
        wanted = QueryBundle(query_str="", embedding=self.vector(features, contributions).tolist())
        found = CaseRetriever(self._store.llama(), SIMILAR + 1, before).retrieve(wanted)
        cases = self._source.cases(self._bundle.version, [int(node.node_id) for node in found])
        near = [(cases[int(node.node_id)], node.score or 0.0) for node in found if int(node.node_id) in cases]
        return [
            SimilarCase(
                case_id=case.case_id,
                outcome=case.outcome,
                closed_time=case.closed_time,
                similarity=round(float(score), 4),
                shared=self._shared(contributions, case.contributions, case.outcome is Finding.FRAUD),
                differences=self._differences(features, case.features),
                typology=case.typology,
                note=case.note,
            )
            for case, score in near
            if case.case_id != own_id and case.closed_time < before
        ][:SIMILAR]

    def _differences(self, features: Vector, other: Vector) -> tuple[Difference, ...]:
        """Return the features in which a case differs most from this alert, in standard deviations."""
        spec, reference = self._bundle.spec, self._bundle.reference
        gap = np.nan_to_num(np.abs(features - other) / reference.std)
        found = []
        for column in np.argsort(-gap, kind="stable")[:_DIFFERENCES]:
            if gap[column] < _NOTABLE:
                break
            name = spec.feature_names[column]
            entity, feature = entity_of(spec, name)
            there, here = (value_of(feature, float(values[column]), spec.currency) for values in (other, features))
            found.append(Difference(name, kind_of(op_of(feature)), there, here, window_of(feature, entity).get("window")))
        return tuple(found)

    def _shared(self, contributions: Vector, other: Vector, fraud: bool) -> tuple[str, ...]:
        """Return the themes that are among the strongest of both scores and support the case's outcome in both."""
        own, there = (self._strongest(values) for values in (contributions, other))
        return tuple(theme for theme, side in own.items() if side == fraud == there.get(theme))

    def _strongest(self, contributions: Vector) -> dict[str, bool]:
        """Return the strongest themes of a score, strongest first, and whether each supports fraud."""
        sums = {theme: float(contributions[self._themes == theme].sum()) for theme in Theme if (self._themes == theme).any()}
        ranked = sorted((theme for theme in sums if sums[theme]), key=lambda theme: (-abs(sums[theme]), theme))
        return {theme.value: sums[theme] > 0 for theme in ranked[:_SHARED]}
