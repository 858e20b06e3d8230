"""
Similar past cases: a LlamaIndex retriever over a Faiss index of investigated alerts.

A case's vector is its standardised features beside its TreeSHAP contributions, each of length one. The cases themselves are the
truth (the bundle's file and the verdicts in the queue); the index is derived from them whenever a process starts.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.parquet
from msgspec import Struct, structs

from core.messages import EvidenceItem, Finding, SimilarCase
from explain.reasons import REASONS, entity_of, label, shown
from models.bundle import CASES, Bundle
from models.features.spec import op_of

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex

Vector = npt.NDArray[np.float32]
SIMILAR = 5
_CLIP = 4.0  # standard deviations beyond which a feature is simply extreme
_DIFFERENCES = 2
_NEVER = 1 << 62


class Case(Struct, frozen=True):
    """An investigated alert: ``features`` and ``contributions`` float32 [F] in the order of the bundle's spec."""

    case_id: str
    outcome: Finding
    closed_time: int
    features: Vector
    contributions: Vector


def bundle_cases(bundle: Bundle) -> list[Case]:
    """The cases that come with a bundle: the alerts it would have raised before it went live."""
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
    """Cases, and the index that finds the nearest."""

    def __init__(self, bundle: Bundle, cases: Iterable[Case]) -> None:
        self._bundle = bundle
        self._cases: dict[str, Case] = {}
        self._index = self._empty()
        self.add_all(cases)

    @property
    def version(self) -> str:
        """Which bundle's vectors these are, and how many."""
        return f"{self._bundle.version}-{len(self._cases)}"

    def _empty(self) -> "VectorStoreIndex":
        import faiss
        from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
        from llama_index.vector_stores.faiss import FaissVectorStore

        width = 2 * len(self._bundle.spec.feature_names)
        store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(width))
        # vectors come ready-made: without a stand-in LlamaIndex would reach for a hosted embedding
        return VectorStoreIndex(
            nodes=[], storage_context=StorageContext.from_defaults(vector_store=store), embed_model=MockEmbedding(embed_dim=width)
        )

    def vector(self, features: Vector, contributions: Vector) -> Vector:
        """The unit vector, float32 [2 F], of features and contributions float32 [F]."""
        reference = self._bundle.reference
        z = np.clip(np.nan_to_num((features - reference.mean) / reference.std), -_CLIP, _CLIP)
        parts = [part / max(float(np.linalg.norm(part)), 1e-9) for part in (z, contributions)]
        return np.concatenate(parts).astype(np.float32) / np.float32(np.sqrt(2))

    def add_all(self, cases: Iterable[Case]) -> None:
        """Add cases; one whose id is there already takes the new outcome and time, its vector stays."""
        from llama_index.core.schema import TextNode

        nodes = []
        for case in cases:
            known = case.case_id in self._cases
            self._cases[case.case_id] = case
            if known:
                continue
            embedding = self.vector(case.features, case.contributions).tolist()
            nodes.append(TextNode(id_=case.case_id, text=case.outcome.value, embedding=embedding))
        if nodes:
            self._index.insert_nodes(nodes)

    def withdraw(self, case_id: str) -> None:
        """A case that is open again is nobody's example; its vector is passed over."""
        if case := self._cases.get(case_id):
            self._cases[case_id] = structs.replace(case, closed_time=_NEVER)

    def similar(self, features: Vector, contributions: Vector, before: int, own_id: str) -> list[SimilarCase]:
        """The nearest cases closed before a time (epoch ms), nearest first; never the alert itself."""
        from llama_index.core import QueryBundle

        if not self._cases:
            return []
        wanted = QueryBundle(query_str="", embedding=self.vector(features, contributions).tolist())
        reach = 4 * SIMILAR
        while True:
            found = self._index.as_retriever(similarity_top_k=min(reach, len(self._cases))).retrieve(wanted)
            near = [
                (self._cases[node.node_id], node.score or 0.0)
                for node in found
                if self._cases[node.node_id].closed_time < before and node.node_id != own_id
            ]
            if len(near) >= SIMILAR or reach >= len(self._cases):
                break
            reach *= 8  # most of the nearest were closed later: look further
        return [
            SimilarCase(
                case_id=case.case_id,
                outcome=case.outcome,
                closed_time=case.closed_time,
                similarity=round(float(score), 4),
                differences=self._differences(features, case.features),
            )
            for case, score in near[:SIMILAR]
        ]

    def _differences(self, features: Vector, other: Vector) -> tuple[str, ...]:
        """In what a case differs most from this alert."""
        spec, reference = self._bundle.spec, self._bundle.reference
        gap = np.nan_to_num(np.abs(features - other) / reference.std)
        words = []
        for column in np.argsort(-gap, kind="stable")[:_DIFFERENCES]:
            if gap[column] < 0.5:
                break
            _, feature = entity_of(spec, spec.feature_names[column])
            unit = REASONS[op_of(feature)].unit
            there, here = (shown(float(v[column]), unit, spec.currency) for v in (other, features))
            if there != here:
                words.append(f"{label(feature)} {there} there, {here} here")
        return tuple(words)


def outcome_mix(cases: list[SimilarCase]) -> EvidenceItem:
    """What similar cases turned out to be, as a fact."""
    frauds = sum(case.outcome is Finding.FRAUD for case in cases)
    if not cases:
        text = "No similar case was closed before this alert."
    else:
        text = f"Of the {len(cases)} most similar closed cases, {frauds} were fraud and {len(cases) - frauds} legitimate."
    return EvidenceItem(evidence_id="C1", kind="cases", code="SIMILAR_CASES", text=text)
