"""Feature engine: the same code computes the features for training, replay and the stream."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.messages import EARLIEST, Label, LabelSource, Transaction
from core.metrics import EVICTED
from models.features import rows
from models.features.bucketed import SUMS, update_bucketed
from models.features.columns import LabelColumns, TransactionColumns, label_columns, transaction_columns
from models.features.exact import new_work, update_exact
from models.features.labels import apply_labels
from models.features.plan import BucketedPlan, plan_of
from models.features.spec import Entity, FeatureSpec, check_spec
from models.features.state import N_SLOTS, SIZE, START, WANTED, WATERMARK, empty_state, grow, held, remove

logger = logging.getLogger(__name__)

COMPILING = "compiling features (first run)"
_ANNOUNCED_AFTER_SECONDS = 1.0
Matrix = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
RECENT = 8
UNBOUNDED = 2**62
_EVICTED_SHARE = 64  # at the ceiling, one key in 64 is evicted in a single pass, because each pass scans all keys


class Rows(NamedTuple):
    """Serialised state of n keys: row i, ``words[offsets[i] : offsets[i + 1]]`` (int64), is the state of ``keys[i]``."""

    keys: npt.NDArray[np.uint64]
    offsets: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]


class Changes(NamedTuple):
    """Changes of the state: rows of changed keys, and ``removed`` uint64 [m], keys that are no longer held."""

    rows: Rows
    removed: npt.NDArray[np.uint64]


class Update(NamedTuple):
    """
    Result of updating an engine with n transactions.

    ``X`` float32 [n, F] holds the features. ``duplicate`` bool [n] marks duplicates, whose rows are NaN; only exact state,
    such as the card's, finds duplicates. ``marks`` int64 [n] are bits of ``Mark``, which the first entity sets. ``recent``
    int64 [n, recent, 3] holds earlier transactions of the key, zero where there are fewer.
    """

    X: Matrix
    duplicate: Mask
    marks: npt.NDArray[np.int64]
    recent: npt.NDArray[np.int64]


class EntityEngine:
    """State and features of one entity. A stage of the stream has one engine per entity and partition."""

    def __init__(self, spec: FeatureSpec, entity: Entity, slots: int = 1024, ceiling: int = UNBOUNDED) -> None:
        """
        ``slots``, a power of two, is the initial capacity in keys. The state grows as needed, up to ``ceiling`` keys. At the
        ceiling, the least recently active keys are evicted to make room for new ones.
        """
        check_spec(spec)
        self.spec, self.entity = spec, entity
        for reason in ("stale", "ceiling"):
            EVICTED.labels(entity.name, reason)  # begins at 0
        self._plan = plan_of(spec, entity)
        self._kept = (
            np.ascontiguousarray(self._plan.levels["kept"]) if isinstance(self._plan, BucketedPlan) else np.zeros(0, np.int64)
        )
        self._ceiling = ceiling
        self._state = empty_state(slots, 4 * slots + 2 * self._plan.room, len(self._kept), ceiling)
        self._removed: list[npt.NDArray[np.uint64]] = []  # since the last ``changed``

    @property
    def keys(self) -> int:
        """Number of keys held."""
        return int(self._state.meta[N_SLOTS])

    @property
    def watermark(self) -> int:
        """Newest event time of any transaction, epoch ms; ``NEVER`` before the first."""
        return int(self._state.meta[WATERMARK])

    @property
    def nbytes(self) -> int:
        """Memory used by the state, in bytes."""
        return sum(array.nbytes for array in self._state)

    def columns(self, transactions: list[Transaction]) -> TransactionColumns:
        """Convert transaction messages to the columns that the kernels read, with the settings of this engine's spec."""
        spec = self.spec
        return transaction_columns(transactions, spec.currency, spec.rates, spec.low_amount, spec.night_until)

    def update(self, columns: TransactionColumns, recent: int = 0) -> Update:
        """Compute the features of n transactions, and add the transactions to the state."""
        n = len(columns.event_time)
        keys = columns.key(self.entity.key)
        update = Update(
            X=np.empty((n, len(self.entity.features)), np.float32),
            duplicate=np.zeros(n, np.bool_),
            marks=np.zeros(n, np.int64),
            recent=np.zeros((n, recent, 3), np.int64),
        )
        done = 0
        while True:
            if isinstance(self._plan, BucketedPlan):
                sums = np.zeros(len(self._plan.windows), SUMS)
                done = update_bucketed(self._state, columns, keys, done, self._plan, sums, update.X)
            else:
                done = update_exact(self._state, columns, keys, done, self._plan, new_work(self._plan), update)
            if done == n:
                return update
            self._make_room()

    def apply_labels(self, labels: LabelColumns) -> None:
        """Add labels to the state. A label affects transactions from its label time on, no matter when it is applied."""
        keys, done = labels.key(self.entity.key), 0
        while True:
            done = apply_labels(self._state, labels, keys, done, self._plan.retention, self.entity.history, self._plan.room)
            if done == len(keys):
                return
            self._make_room()

    def _make_room(self) -> None:
        """Make room for one more event. Which keys are evicted depends only on the events, not on batch boundaries."""
        if self._state.meta[WANTED]:
            self._state.meta[WANTED] = 0
            self._drop_stale()
            if self.keys >= self._ceiling:
                self._drop_stalest(self.keys - self._ceiling + max(1, self._ceiling // _EVICTED_SHARE))
        self._state = grow(self._state, self._plan.room)

    def _drop_stale(self) -> None:
        """Evict keys whose data has expired. No feature changes, because kernels drop expired data too."""
        stale = self._activity() < self._state.meta[WATERMARK] - self._plan.retention
        self._evict(np.flatnonzero(stale), "stale")

    def _drop_stalest(self, count: int) -> None:
        activity, keys = self._activity(), self._state.keys[: self.keys]
        last = np.partition(activity, count - 1)[count - 1]
        older, equal = np.flatnonzero(activity < last), np.flatnonzero(activity == last)
        equal = equal[np.argsort(keys[equal])][: count - len(older)]
        self._evict(np.concatenate((older, equal)), "ceiling")

    def _activity(self) -> npt.NDArray[np.int64]:
        """Return the time of each key's newest event or label, int64 [keys]."""
        state, n = self._state, self.keys
        activity = state.newest[:n].copy()
        begin, size = state.reports[:n, START].astype(np.int64), state.reports[:n, SIZE]
        reported = np.flatnonzero(size)
        activity[reported] = np.maximum(activity[reported], state.pool[begin[reported] + size[reported] - 1, 0])
        return activity

    def _evict(self, slots: npt.NDArray[np.int64], reason: str) -> None:
        if len(slots):
            keys = self._state.keys[slots]
            remove(self._state, keys)
            self._removed.append(keys)
            EVICTED.labels(self.entity.name, reason).inc(len(slots))

    @property
    def digest(self) -> int:
        """
        64-bit digest of all keys' rows as last written or loaded, independent of the order of the keys.

        Bellare and Micciancio, "A new paradigm for collision-free hashing" (1997): a set is hashed by the sum of its members' hashes.
        """
        return int(self._state.digests[: self.keys].sum(dtype=np.uint64))

    def changed(self) -> Changes:
        """
        Evict keys whose data has expired, and return the changes since the last call: the rows of changed keys, and the keys
        that are no longer held. The returned changes count as written from then on.
        """
        self._drop_stale()
        state = self._state
        slots = np.flatnonzero(state.dirty[: self.keys])
        offsets = rows.lengths(state, slots, self._plan.retention, self._kept)
        words = np.empty(offsets[-1], np.int64)
        rows.pack(
            state,
            state.place.view(np.int64),
            state.devices.view(np.int64),
            slots,
            self._plan.retention,
            self._kept,
            offsets,
            words,
        )
        removed = np.unique(np.concatenate([*self._removed, np.zeros(0, np.uint64)]))
        self._removed.clear()
        return Changes(Rows(state.keys[slots], offsets, words), removed[~held(state, removed)])

    def remove(self, keys: npt.NDArray[np.uint64]) -> None:
        """Remove keys that the checkpoint log records as removed. Keys that are not held are ignored."""
        remove(self._state, keys)

    def load(self, written: Sequence[bytes]) -> int:
        """
        Load rows in the order in which they were written: a later row of a key replaces an earlier one. Returns the number of
        unreadable rows, which are skipped; compare the digest to find out whether they mattered.
        """
        whole = [row for row in written if len(row) % 8 == 0]
        offsets = np.zeros(len(whole) + 1, np.int64)
        np.cumsum([len(row) // 8 for row in whole], out=offsets[1:])
        words = np.frombuffer(b"".join(whole), "<i8")
        done, damaged = 0, len(written) - len(whole)
        while done < len(whole):
            state = self._state
            done = rows.unpack(
                state, state.place.view(np.int64), state.devices.view(np.int64), words, offsets, done, self._plan.room, self.entity.history,
                self._kept,
            )  # fmt: skip
            if done < 0:
                done, damaged = -done, damaged + 1
            elif done < len(whole):
                self._state = grow(state, self._plan.room)
        return damaged


def compile_kernels(spec: FeatureSpec, announce: Callable[[], None] = lambda: logger.info(COMPILING)) -> None:
    """
    Compile the kernels of a spec, or load them from numba's cache, so that the first event does not wait for them.

    Only the first run of an installation compiles. If compiling or loading takes more than a second, ``announce`` is called from
    another thread.
    """
    timer = threading.Timer(_ANNOUNCED_AFTER_SECONDS, announce)
    timer.daemon = True
    timer.start()
    try:
        _run_kernels(spec)
    finally:
        timer.cancel()
        timer.join()


def _run_kernels(spec: FeatureSpec) -> None:
    """Call each kernel of a spec once."""
    one = Transaction(transaction_id="t", event_time=EARLIEST, card_id="c", merchant_id="m", amount=1, currency=spec.currency)
    label = Label(
        transaction_id="t",
        card_id="c",
        merchant_id="m",
        event_time=EARLIEST,
        label_time=EARLIEST,
        fraud=True,
        source=LabelSource.CUSTOMER,
    )
    for entity in spec.entities:
        engine = EntityEngine(spec, entity)
        engine.update(engine.columns([one]), RECENT)
        engine.apply_labels(label_columns([label]))
        rows, _ = engine.changed()
        engine.load([rows.words.tobytes()])
        engine.remove(rows.keys)


class FeatureEngine:
    """Engines of all entities of a spec in one process, for training and replay."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.entities = [EntityEngine(spec, entity) for entity in spec.entities]

    def columns(self, transactions: list[Transaction]) -> TransactionColumns:
        """Convert transaction messages to the columns that the kernels read, with the settings of this spec."""
        return self.entities[0].columns(transactions)

    def update(self, columns: TransactionColumns, recent: int = 0) -> Update:
        """
        Return the features of n transactions in order of arrival, and the card's earlier transactions.

        As in the stream, entities after the first do not receive duplicates.
        """
        first, duplicate, marks, earlier = self.entities[0].update(columns, recent)
        fresh = ~duplicate
        marked = columns.marked(marks)
        once = marked if fresh.all() else marked.rows(fresh)
        out = np.full((len(columns.event_time), len(self.spec.feature_names)), np.nan, np.float32)
        out[:, : first.shape[1]] = first
        begin = first.shape[1]
        for engine in self.entities[1:]:
            part = engine.update(once).X
            out[fresh, begin : begin + part.shape[1]] = part
            begin += part.shape[1]
        return Update(out, duplicate, marks, earlier)

    def apply_labels(self, labels: LabelColumns) -> None:
        """Apply labels to every entity that uses them."""
        for engine in self.entities:
            if engine.entity.labelled:
                engine.apply_labels(labels)
