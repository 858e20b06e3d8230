"""
Vector stores for past cases: a Faiss index in a folder, or PostgreSQL with pgvector, behind one LlamaIndex interface.

Both are derived from the cases in SQL, which remain the source of truth. A store records the number of the last change that it
includes and applies later changes; a Faiss index with damaged files is rebuilt. A node's id is the number of its case.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import faiss
import msgspec
import numpy as np
import numpy.typing as npt
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from msgspec import Struct

from core.errors import CasebookError

logger = logging.getLogger(__name__)

Vector = npt.NDArray[np.float32]
CLOSED: Final = "closed_time"
CHANGED: Final = "changed"

EXACT: Final = 50_000  # maximum number of cases for which every vector is compared; measured in docs/reference/performance.md
_PROBED = 128  # lists of an inverted index that a query searches
_SEED = 7
_FORMAT = 1
_NEVER = np.iinfo(np.int64).max


class Nearest(NamedTuple):
    """Numbers of the nearest cases, and the inner product of each with the vector, largest first."""

    numbers: list[int]
    scores: list[float]


class VectorStore(Protocol):
    """The methods that the casebook needs from a store, in addition to LlamaIndex's interface."""

    @property
    def known(self) -> int:
        """The number of the last change that the store includes."""

    def put(self, numbers: list[int], closed: list[int], vectors: Vector, changed: int) -> None:
        """Add or replace cases by number. ``vectors`` are float32 [n, d] of unit length."""

    def drop(self, numbers: list[int], changed: int) -> None:
        """Remove cases by number."""

    def llama(self) -> BasePydanticVectorStore:
        """Return the store as a LlamaIndex vector store."""

    def save(self) -> None:
        """Save the store, unless it persists every change by itself."""

    def forget(self) -> None:
        """Remove all cases."""

    def close(self) -> None:
        """Release the store's resources."""

    def __len__(self) -> int:
        """Return the number of cases."""


class _Manifest(Struct, frozen=True):
    bundle: str
    changed: int
    count: int
    width: int
    sha256: dict[str, str]
    format: int = _FORMAT


class FaissCases(BasePydanticVectorStore):
    """
    A Faiss store of unit vectors by case number.

    Up to ``EXACT`` cases, a query compares every vector; above that, an inverted index searches the lists nearest to the query.
    The inverted index is trained when the number of cases exceeds ``EXACT``, and again whenever that number has doubled. Between
    trainings, cases are added and removed without training.
    """

    stores_text: bool = False
    is_embedding_query: bool = True
    _index: Any = PrivateAttr()
    _closed: npt.NDArray[np.int64] = PrivateAttr()
    _changed: int = PrivateAttr()
    _trained: int = PrivateAttr()
    _width: int = PrivateAttr()
    _bundle: str = PrivateAttr()
    _folder: Path | None = PrivateAttr()

    def __init__(self, bundle: str, width: int, folder: Path | None = None) -> None:
        """Create an empty store for a bundle's version and a vector width. Without a ``folder``, it is kept in memory only."""
        super().__init__(stores_text=False)
        self._bundle, self._width, self._folder = bundle, width, folder
        self._empty()

    def _empty(self) -> None:
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(self._width))
        self._closed = np.full(1024, _NEVER, np.int64)
        self._changed = self._trained = 0

    # -- LlamaIndex's interface

    @property
    def client(self) -> Any:
        """The Faiss index."""
        return self._index

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add or replace nodes whose id is a number and whose metadata has ``closed_time`` (epoch ms) and ``changed``."""
        numbers = [int(node.node_id) for node in nodes]
        closed = [int(node.metadata[CLOSED]) for node in nodes]
        self.put(
            numbers,
            closed,
            np.array([node.get_embedding() for node in nodes], np.float32),
            max(n.metadata[CHANGED] for n in nodes),
        )
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove a case."""
        self.drop([int(ref_doc_id)], self._changed)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the nearest cases, nearest first. The only supported filter is ``closed_time`` less than a value."""
        before = _NEVER
        for one in query.filters.filters if query.filters else []:
            if not isinstance(one, MetadataFilter) or (one.key, one.operator) != (CLOSED, FilterOperator.LT):
                raise ValueError(f"a casebook supports only filters of the form {CLOSED} < value")
            before = int(one.value)  # type: ignore[arg-type]
        numbers, scores = self.nearest(np.array(query.query_embedding, np.float32), query.similarity_top_k, before)
        nodes = [TextNode(id_=str(number), text="") for number in numbers]
        return VectorStoreQueryResult(nodes=nodes, similarities=scores, ids=[str(number) for number in numbers])

    # -- the casebook's interface

    @property
    def known(self) -> int:
        """The number of the last change that the store includes."""
        return self._changed

    def llama(self) -> BasePydanticVectorStore:
        """Return the store itself, which is a LlamaIndex vector store."""
        return self

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def nearest(self, vector: Vector, count: int, before: int = _NEVER) -> Nearest:
        """Return numbers and inner products of the nearest cases that were closed before a time (epoch ms)."""
        total, reach = len(self), 4 * count
        while total:
            reach = min(reach, total)
            scores, numbers = self._index.search(vector[None, :], reach)
            found = numbers[0] >= 0
            found[found] = self._closed[numbers[0][found]] < before
            if found.sum() >= count or reach == total:
                return Nearest(numbers[0][found][:count].tolist(), scores[0][found][:count].tolist())
            reach *= 8  # most of the nearest cases were closed later: search further
        return Nearest([], [])

    def put(self, numbers: list[int], closed: list[int], vectors: Vector, changed: int) -> None:
        """Add or replace cases by number. ``vectors`` are float32 [n, d] of unit length."""
        if numbers:
            ids = np.array(numbers, np.int64)
            size = len(self._closed)
            while ids.max() >= size:
                size *= 2
            if size > len(self._closed):
                self._closed = np.concatenate([self._closed, np.full(size - len(self._closed), _NEVER, np.int64)])
            self._remove(ids[self._closed[ids] != _NEVER])
            self._closed[ids] = np.array(closed, np.int64)
            self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), ids)
            self._grown()
        self._changed = max(self._changed, changed)

    def drop(self, numbers: list[int], changed: int) -> None:
        """Remove cases by number."""
        ids = np.array([number for number in numbers if number < len(self._closed)], np.int64)
        self._remove(ids[self._closed[ids] != _NEVER])
        self._closed[ids] = _NEVER
        self._changed = max(self._changed, changed)

    def _remove(self, ids: npt.NDArray[np.int64]) -> None:
        if len(ids):
            self._index.remove_ids(ids)

    def _grown(self) -> None:
        """Train an inverted index when the cases exceed ``EXACT``, and again whenever their number has doubled."""
        total = len(self)
        if total <= EXACT or (self._trained and total < 2 * self._trained):
            return
        numbers = np.flatnonzero(self._closed != _NEVER)
        vectors = np.empty((len(numbers), self._width), np.float32)
        self._vectors(numbers, vectors)
        self._index, self._trained = inverted(vectors, numbers), total

    def _vectors(self, numbers: npt.NDArray[np.int64], into: Vector) -> None:
        if self._trained:
            for row, number in enumerate(numbers):
                into[row] = self._index.reconstruct(int(number))
            return
        ids = faiss.vector_to_array(self._index.id_map)
        rows = np.argsort(ids)[np.searchsorted(np.sort(ids), numbers)]
        flat = faiss.downcast_index(self._index.index)
        into[:] = flat.reconstruct_n(0, flat.ntotal)[rows]

    # -- on disk

    def save(self) -> None:
        """Write the index and the closing times to a temporary folder, then move that folder into the place of the old one."""
        if self._folder is None:
            return
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder.parent, prefix=".saving-") as made:
                folder = Path(made) / "index"
                folder.mkdir()
                faiss.write_index(self._index, str(folder / "index.faiss"))
                np.save(folder / "closed.npy", self._closed)
                sums = {name: _sha256(folder / name) for name in ("index.faiss", "closed.npy")}
                manifest = _Manifest(self._bundle, self._changed, len(self), self._width, sums)
                (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
                old = Path(made) / "old"
                if self._folder.exists():
                    os.replace(self._folder, old)
                os.replace(folder, self._folder)
        except OSError as error:
            logger.warning(
                "the casebook's index cannot be saved in %s (%s): it is rebuilt from SQL at the next start", self._folder, error
            )

    def load(self) -> bool:
        """Load the saved index. Return False, with an empty store, if the index is missing, damaged or of another bundle."""
        if self._folder is None or not self._folder.exists():
            return False
        try:
            manifest = msgspec.json.decode((self._folder / "manifest.json").read_bytes(), type=_Manifest)
            for name, expected in manifest.sha256.items():
                if _sha256(self._folder / name) != expected:
                    raise CasebookError(f"{name} does not match its checksum")
            if (manifest.format, manifest.bundle, manifest.width) != (_FORMAT, self._bundle, self._width):
                raise CasebookError("it belongs to another bundle or format")
            index = faiss.read_index(str(self._folder / "index.faiss"))
            closed = np.load(self._folder / "closed.npy")
            if index.ntotal != manifest.count or index.d != self._width or int((closed != _NEVER).sum()) != manifest.count:
                raise CasebookError("its files do not match each other")
        except (OSError, ValueError, RuntimeError, KeyError, msgspec.MsgspecError, CasebookError) as error:
            logger.warning("the casebook's index in %s is not used (%s): it is rebuilt from SQL", self._folder, error)
            self._empty()
            return False
        self._index, self._closed, self._changed = index, closed, manifest.changed
        self._trained = 0 if isinstance(index, faiss.IndexIDMap2) else manifest.count
        return True

    def close(self) -> None:
        """Do nothing: the store holds no open resources."""

    def forget(self) -> None:
        """Remove all cases, also on disk."""
        self._empty()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def inverted(vectors: Vector, numbers: npt.NDArray[np.int64]) -> Any:
    """
    Return an inverted index of unit vectors, float32 [n, d], with ``numbers`` as their ids.

    A query compares every vector in the 128 lists nearest to it, and no other vector.
    """
    lists = 4096 if len(vectors) > 300_000 else max(1, min(1024, len(vectors) // 40))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(vectors.shape[1]), vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.spherical, index.cp.seed = 10, True, _SEED
    sample = np.random.default_rng(_SEED).permutation(len(vectors))[: 40 * lists]
    index.train(np.ascontiguousarray(vectors[sample]))
    index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]  # so that cases can be removed
    index.nprobe = _PROBED
    index.add_with_ids(np.ascontiguousarray(vectors), numbers)
    return index


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class PostgresCases:
    """
    A vector store in PostgreSQL with pgvector (0.8 or later), shared by all explainers, with one table per bundle.

    Scores are cosine similarities, which equal the inner products of unit vectors. A query scans the index until enough cases
    pass the filter.
    """

    def __init__(self, url: str, bundle: str, width: int) -> None:
        """
        Open the store at a SQLAlchemy URL, and create its table and indexes.

        Raises:
            CasebookError: if the database cannot be used or the pgvector extra is not installed.
        """
        try:
            from llama_index.vector_stores.postgres import PGVectorStore
            from sqlalchemy import create_engine, text
            from sqlalchemy.exc import SQLAlchemyError
            from sqlalchemy.ext.asyncio import create_async_engine
        except ImportError:
            raise CasebookError("a casebook in PostgreSQL needs the pgvector extra: pip install 'whyflag[pgvector]'") from None
        options = {"options": "-c hnsw.iterative_scan=strict_order -c hnsw.ef_search=200"}
        self._text, self._table = text, f"data_cases_{bundle}"
        try:
            self._engine = create_engine(url, connect_args=options, pool_pre_ping=True, hide_parameters=True)
            with self._engine.begin() as connection:
                connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
            self._store = PGVectorStore(
                connection_string=url,
                async_connection_string=url,
                engine=self._engine,
                async_engine=create_async_engine(url, connect_args=options, hide_parameters=True),
                table_name=f"cases_{bundle}",
                embed_dim=width,
                use_jsonb=True,
                initialization_fail_on_error=True,
            )
            self._store.get_nodes(node_ids=["0"])  # creates the table
            with self._engine.begin() as connection:
                connection.execute(text(f"CREATE UNIQUE INDEX IF NOT EXISTS {self._table}_number ON {self._table} (node_id)"))
                connection.execute(
                    text(
                        f"CREATE INDEX IF NOT EXISTS {self._table}_near ON {self._table} USING hnsw (embedding vector_cosine_ops)"
                    )
                )
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise CasebookError(
                f"the casebook's database cannot be used ({type(error).__name__}): WHYFLAG_CASEBOOK must be the SQLAlchemy URL of a "
                "PostgreSQL database with pgvector 0.8 or later, such as postgresql+psycopg://user@host/db"
            ) from None

    @property
    def known(self) -> int:
        """The number of the last change that the store includes."""
        wanted = self._text(f"SELECT coalesce(max((metadata_->>'{CHANGED}')::bigint), 0) FROM {self._table}")
        with self._engine.connect() as connection:
            return int(connection.execute(wanted).scalar_one())

    def put(self, numbers: list[int], closed: list[int], vectors: Vector, changed: int) -> None:
        """Add or replace cases by number. ``vectors`` are float32 [n, d] of unit length."""
        if not numbers:
            return
        nodes: list[BaseNode] = [
            TextNode(id_=str(number), text=str(number), embedding=vector.tolist(), metadata={CLOSED: time, CHANGED: changed})
            for number, time, vector in zip(numbers, closed, vectors, strict=True)
        ]
        with self._alone():
            self._store.delete_nodes(node_ids=[node.node_id for node in nodes])
            self._store.add(nodes)

    def drop(self, numbers: list[int], changed: int) -> None:
        """Remove cases by number."""
        if numbers:
            with self._alone():
                self._store.delete_nodes(node_ids=[str(number) for number in numbers])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock out other explainers, because the store replaces cases in two steps: delete and add."""
        with self._engine.begin() as connection:
            connection.execute(self._text("SELECT pg_advisory_xact_lock(hashtext(:table))"), {"table": self._table})
            yield

    def llama(self) -> BasePydanticVectorStore:
        """Return LlamaIndex's own store over the table."""
        store: BasePydanticVectorStore = self._store
        return store

    def save(self) -> None:
        """Do nothing: the database persists every change."""

    def forget(self) -> None:
        """Remove all cases."""
        with self._engine.begin() as connection:
            connection.execute(self._text(f"DELETE FROM {self._table}"))

    def __len__(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(self._text(f"SELECT count(*) FROM {self._table}")).scalar_one())

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()


class CaseRetriever(BaseRetriever):
    """A retriever of the nearest cases that were closed before a time (epoch ms), for a precomputed query vector."""

    def __init__(self, store: BasePydanticVectorStore, count: int, before: int) -> None:
        super().__init__()
        self._store, self._count, self._before = store, count, before

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        closed = MetadataFilters(filters=[MetadataFilter(key=CLOSED, value=self._before, operator=FilterOperator.LT)])
        asked = VectorStoreQuery(query_embedding=query_bundle.embedding, similarity_top_k=self._count, filters=closed)
        found = self._store.query(asked)
        return [
            NodeWithScore(node=node, score=score) for node, score in zip(found.nodes or [], found.similarities or [], strict=True)
        ]
