"""
Where an entity's past lives: flat NumPy arrays behind a hash-to-slot table.

Every array may be copied, written to a log and read back as it is: it holds no pointer and no string. Kernels change the
arrays in place and never allocate; when one runs out of room it stops before the event, and the engine grows the arrays.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from models.features.columns import Floats, Int64s, UInt64s

Int32s = npt.NDArray[np.int32]

NEVER = np.int64(-(2**62))
FOREVER = np.int64(2**62)
DEVICES = 4
SMALLEST_BLOCK = 4
N_SLOTS, POOL_USED, FREE_BLOCKS = 0, 1, 2  # places in ``meta``; the free lists take one place per power of two
_META = 40


class State(NamedTuple):
    """
    The past of S keys.

    ``pool`` [P, 4] holds blocks of rows. A key's *ring* is its block of transactions, sorted by event time: (event time,
    transaction hash, amount, attributes). Its *reports* are its block of fraud labels, sorted by label time: (label time,
    event time, transaction hash, retraction time). ``buckets`` [S, B] count transactions of bucketed entities. ``dirty`` [S] marks
    keys that changed since their row was written last; ``digests`` [S] are the hashes of those rows.
    """

    meta: Int64s
    table_keys: UInt64s
    table_slots: Int32s
    keys: UInt64s
    dirty: npt.NDArray[np.uint8]
    digests: UInt64s
    newest: Int64s
    place_time: Int64s
    place: Floats
    devices: UInt64s
    ring: Int64s
    reports: Int64s
    pool: Int64s
    bucket_ids: Int32s
    bucket_counts: Int32s
    bucket_sums: Int64s


START, SIZE, CAPACITY = 0, 1, 2  # columns of ``ring`` and ``reports``


def empty_state(slots: int, pool: int, buckets: int) -> State:
    """State with room for ``slots`` keys and ``pool`` rows; ``buckets`` a key (0 for exact state)."""
    meta = np.full(_META, -1, np.int64)
    meta[N_SLOTS] = meta[POOL_USED] = 0
    return State(
        meta=meta,
        table_keys=np.zeros(2 * slots, np.uint64),
        table_slots=np.full(2 * slots, -1, np.int32),
        keys=np.zeros(slots, np.uint64),
        dirty=np.zeros(slots, np.uint8),
        digests=np.zeros(slots, np.uint64),
        newest=np.full(slots, NEVER, np.int64),
        place_time=np.full(slots, NEVER, np.int64),
        place=np.zeros((slots, 2)),
        devices=np.zeros((slots, DEVICES), np.uint64),
        ring=np.zeros((slots, 3), np.int64),
        reports=np.zeros((slots, 3), np.int64),
        pool=np.zeros((pool, 4), np.int64),
        bucket_ids=np.full((slots, buckets), -1, np.int32),
        bucket_counts=np.zeros((slots, buckets, 3), np.int32),
        bucket_sums=np.zeros((slots, buckets), np.int64),
    )


def _grown(array: npt.NDArray[Any], rows: int, fill: int) -> npt.NDArray[Any]:
    grown = np.full((rows, *array.shape[1:]), fill, array.dtype)
    grown[: len(array)] = array
    return grown


def grow(state: State, pool_room: int) -> State:
    """The same state with more room: twice the slots if these are nearly used up, and at least ``pool_room`` free rows."""
    slots, used = len(state.newest), int(state.meta[N_SLOTS])
    if used + 1 >= slots:
        slots *= 2
        keys, places = np.zeros(2 * slots, np.uint64), np.full(2 * slots, -1, np.int32)
        mask = np.uint64(2 * slots - 1)
        for key, slot in zip(*_entries(state), strict=True):
            at = int(key & mask)
            while places[at] >= 0:
                at = (at + 1) & int(mask)
            keys[at], places[at] = key, slot
        fills = {"newest": int(NEVER), "place_time": int(NEVER), "bucket_ids": -1}
        shared = {"meta", "table_keys", "table_slots", "pool"}
        resized: dict[str, Any] = {
            name: _grown(getattr(state, name), slots, fills.get(name, 0)) for name in State._fields if name not in shared
        }
        state = state._replace(table_keys=keys, table_slots=places, **resized)
    used_rows = int(state.meta[POOL_USED])
    if len(state.pool) - used_rows < pool_room:
        state = state._replace(pool=_grown(state.pool, max(2 * len(state.pool), used_rows + 2 * pool_room), 0))
    return state


def _entries(state: State) -> tuple[UInt64s, Int32s]:
    held = state.table_slots >= 0
    return state.table_keys[held], state.table_slots[held]


@njit(cache=True, nogil=True)
def take_block(state: State, rows: int) -> Any:
    """The start of a free block of the pool. The caller has made sure of room."""
    power = FREE_BLOCKS
    while (1 << (power - FREE_BLOCKS)) < rows:
        power += 1
    if state.meta[power] >= 0:
        start = state.meta[power]
        state.meta[power] = state.pool[start, 0]
    else:
        start = state.meta[POOL_USED]
        state.meta[POOL_USED] = start + rows
    return start


@njit(cache=True, nogil=True)
def free_block(state: State, start: int, rows: int) -> None:
    """Give a block back. Blocks of one power of two share a list."""
    power = FREE_BLOCKS
    while (1 << (power - FREE_BLOCKS)) < rows:
        power += 1
    state.pool[start, 0] = state.meta[power]
    state.meta[power] = start
