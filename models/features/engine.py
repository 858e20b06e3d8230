"""The feature engine: the same code computes features for training, replay and the stream."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.clock import duration_ms
from core.errors import StateError
from core.messages import Transaction
from models.features import kernels, rows
from models.features.columns import LabelColumns, TransactionColumns, transaction_columns
from models.features.spec import NORMAL_OPS, Entity, FeatureSpec, StateKind, check_spec, op_of
from models.features.state import N_SLOTS, empty_state, grow

Matrix = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
RECENT = 8


class Rows(NamedTuple):
    """Rows of n keys: row i is ``words[offsets[i] : offsets[i + 1]]``, int64, and its key ``keys[i]``."""

    keys: npt.NDArray[np.uint64]
    offsets: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]


class Update(NamedTuple):
    """
    What n transactions gave: X float32 [n, F]; a bool [n] mask of duplicates, whose rows are NaN (exact state only: duplicates are found
    where the card is); a bool [n] mask of amounts unusual for the card (the first entity finds it); and each one's ``recent``
    earlier transactions of the key, int64 [n, recent, 3], zero where there are fewer.
    """

    X: Matrix
    duplicate: Mask
    unusual: Mask
    recent: npt.NDArray[np.int64]


class EntityEngine:
    """State and features of one entity: what one hop of the stream owns for one partition."""

    def __init__(self, spec: FeatureSpec, entity: Entity, slots: int = 1024) -> None:
        """``slots`` is the number of keys to make room for at first, a power of two; the state grows as needed."""
        check_spec(spec)
        self.spec, self.entity = spec, entity
        lengths = [window.length for window in entity.windows]
        self._windows = np.array([duration_ms(length) for length in lengths], np.int64)
        self._ops = np.array([op_of(feature) for feature in entity.features], np.int64)
        self._op_windows = np.array([lengths.index(f.window) if f.window else 0 for f in entity.features], np.int64)
        self._delay = duration_ms(entity.delay)
        self._retention = int(self._windows[-1]) + self._delay + duration_ms(entity.lateness)
        ops = {op_of(feature) for feature in entity.features}
        asks_normal = not ops.isdisjoint(NORMAL_OPS)
        self._normal = (
            asks_normal and entity.name == spec.entities[0].name, asks_normal, entity.labelled,
            spec.normal_amount, spec.normal_weight, spec.unusual_ratio,
        )  # fmt: skip
        buckets = 0
        if entity.state is StateKind.BUCKETED:
            resolutions = [duration_ms(window.resolution) for window in entity.windows]
            levels = sorted(set(resolutions))
            self._level_of = np.array([levels.index(resolution) for resolution in resolutions], np.int64)
            self._resolutions = np.array(levels, np.int64)
            lengths_of = [
                1 + max(int(w) // r for w, r in zip(self._windows, resolutions, strict=True) if r == level) for level in levels
            ]
            self._level_begin = np.concatenate(([0], np.cumsum(lengths_of))).astype(np.int64)
            buckets = int(self._level_begin[-1])
        self._state = empty_state(slots, max(8 * slots, 8 * entity.history), buckets)

    @property
    def keys(self) -> int:
        """Number of keys held."""
        return int(self._state.meta[N_SLOTS])

    @property
    def nbytes(self) -> int:
        """Memory the state holds, bytes."""
        return sum(array.nbytes for array in self._state)

    def columns(self, transactions: list[Transaction]) -> TransactionColumns:
        """Columns of messages as this engine's spec wants them."""
        spec = self.spec
        return transaction_columns(transactions, spec.currency, spec.rates, spec.low_amount, spec.night_until)

    def update(self, columns: TransactionColumns, recent: int = 0) -> Update:
        """Features of n transactions, which are then remembered."""
        n = len(columns.event_time)
        keys = columns.key(self.entity.key)
        out = np.empty((n, len(self._ops)), np.float32)
        duplicate, unusual = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        earlier = np.zeros((n, recent, 3), np.int64)
        done = 0
        while True:
            if self.entity.state is StateKind.EXACT:
                done = kernels.update_exact(
                    self._state, columns, keys, done, self._windows, self._retention, self._delay, self.entity.history,
                    self._normal, self._ops, self._op_windows, out, duplicate, unusual, earlier,
                )  # fmt: skip
            else:
                done = kernels.update_bucketed(
                    self._state, columns, keys, done, self._windows, self._level_of, self._resolutions, self._level_begin,
                    self.entity.history, self.spec.fraud_prior, self.spec.prior_weight, self._ops, self._op_windows, out,
                )  # fmt: skip
            if done == n:
                return Update(out, duplicate, unusual, earlier)
            self._state = grow(self._state, 4 * self.entity.history)

    def apply_labels(self, labels: LabelColumns) -> None:
        """Remember labels. Each takes effect for transactions from its label time on, whenever it is applied."""
        keys, done = labels.key(self.entity.key), 0
        while (done := kernels.apply_labels(self._state, labels, keys, done, self.entity.history)) < len(keys):
            self._state = grow(self._state, 4 * self.entity.history)

    @property
    def digest(self) -> int:
        """
        A 64-bit digest of all keys' rows as they were written or loaded last, the same in whatever order keys came.

        Bellare and Micciancio, "A new paradigm for collision-free hashing" (1997): a set is hashed by the sum of its members' hashes.
        """
        return int(self._state.digests[: self.keys].sum(dtype=np.uint64))

    def changed(self) -> Rows:
        """The rows of all keys that changed since the last call; these count as written from here on."""
        state = self._state
        slots = np.flatnonzero(state.dirty[: self.keys])
        offsets = rows.lengths(state, slots, self._retention)
        words = np.empty(offsets[-1], np.int64)
        rows.pack(state, state.place.view(np.int64), state.devices.view(np.int64), slots, self._retention, offsets, words)
        return Rows(state.keys[slots], offsets, words)

    def load(self, written: Sequence[bytes]) -> None:
        """
        Read rows back, in the order in which they were written: a later row of a key replaces an earlier one.

        Raises:
            StateError: if one is damaged.
        """
        offsets = np.zeros(len(written) + 1, np.int64)
        np.cumsum([len(row) for row in written], out=offsets[1:])
        if (offsets & 7).any():
            raise StateError("a row of the state's log has an odd length: the log is damaged")
        words = np.frombuffer(b"".join(written), "<i8")
        offsets >>= 3
        done = 0
        while done < len(written):
            state = self._state
            done = rows.unpack(
                state, state.place.view(np.int64), state.devices.view(np.int64), words, offsets, done, self.entity.history
            )
            if done < 0:
                raise StateError("a row of the state's log is damaged")
            if done < len(written):
                self._state = grow(state, 4 * self.entity.history)


class FeatureEngine:
    """All entities of a spec in one process, as training and replay use them."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.entities = [EntityEngine(spec, entity) for entity in spec.entities]

    def columns(self, transactions: list[Transaction]) -> TransactionColumns:
        """Columns of messages as this spec wants them."""
        return self.entities[0].columns(transactions)

    def update(self, columns: TransactionColumns, recent: int = 0) -> Update:
        """
        Features of n transactions in order of arrival, and the card's earlier transactions.

        Entities after the first do not see duplicates, as in the stream.
        """
        first, duplicate, unusual, earlier = self.entities[0].update(columns, recent)
        fresh = ~duplicate
        marked = columns.marked(unusual)
        once = marked if fresh.all() else marked.rows(fresh)
        out = np.full((len(columns.event_time), len(self.spec.feature_names)), np.nan, np.float32)
        out[:, : first.shape[1]] = first
        begin = first.shape[1]
        for engine in self.entities[1:]:
            part = engine.update(once).X
            out[fresh, begin : begin + part.shape[1]] = part
            begin += part.shape[1]
        return Update(out, duplicate, unusual, earlier)

    def apply_labels(self, labels: LabelColumns) -> None:
        """Hand labels to every entity that asks for them."""
        for engine in self.entities:
            if engine.entity.labelled:
                engine.apply_labels(labels)
