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
# Places in ``meta``: keys held, rows of the pool used, newest event time of all, most keys allowed, whether one more was wanted; from
# ``FREE_BLOCKS`` on the lists of free blocks, one for each power of two.
N_SLOTS, POOL_USED, WATERMARK, CEILING, WANTED, FREE_BLOCKS = 0, 1, 2, 3, 4, 5
_META = 40


class State(NamedTuple):
    """
    The past of S keys.

    ``pool`` [P, 4] holds blocks of rows. A key's *ring* is its block of transactions, sorted by event time: (event time, identity,
    amount, attributes), where the identity is the upper half of the hash of card and id and the lower half of the content's. Its
    *reports* are its block of fraud labels, sorted by label time: (label time, event time, transaction hash, retraction time). Its
    *buckets* are one block for each level of resolution, sorted by number: (number, transactions and how many of them have an amount
    in one word, low amounts, sum). ``dirty`` [S] marks keys that changed since their row was written last; ``digests`` [S] are the
    hashes of those rows. Places and devices are of exact entities only; elsewhere these arrays are empty.
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
    ring: Int32s
    reports: Int32s
    buckets: Int32s
    pool: Int64s


START, SIZE, CAPACITY = 0, 1, 2  # of a block: last axis of ``ring``, ``reports`` and ``buckets``


def empty_state(slots: int, pool: int, levels: int, ceiling: int) -> State:
    """State with room for ``slots`` keys and ``pool`` rows; ``levels`` of buckets (0 for exact state); at most ``ceiling`` keys."""
    meta = np.full(_META, -1, np.int64)
    meta[N_SLOTS] = meta[POOL_USED] = meta[WANTED] = 0
    meta[WATERMARK], meta[CEILING] = NEVER, ceiling
    exact = 0 if levels else slots
    return State(
        meta=meta,
        table_keys=np.zeros(2 * slots, np.uint64),
        table_slots=np.full(2 * slots, -1, np.int32),
        keys=np.zeros(slots, np.uint64),
        dirty=np.zeros(slots, np.uint8),
        digests=np.zeros(slots, np.uint64),
        newest=np.full(slots, NEVER, np.int64),
        place_time=np.full(exact, NEVER, np.int64),
        place=np.zeros((exact, 2)),
        devices=np.zeros((exact, DEVICES), np.uint64),
        ring=np.zeros((exact, 3), np.int32),
        reports=np.zeros((slots, 3), np.int32),
        buckets=np.zeros((slots, levels, 3), np.int32),
        pool=np.zeros((pool, 4), np.int64),
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
        keys, places = _table(*_entries(state), 2 * slots)
        fills = {"newest": int(NEVER), "place_time": int(NEVER)}
        shared = {"meta", "table_keys", "table_slots", "pool"}
        resized: dict[str, Any] = {
            name: _grown(getattr(state, name), slots, fills.get(name, 0))
            for name in State._fields
            if name not in shared and len(getattr(state, name))
        }
        state = state._replace(table_keys=keys, table_slots=places, **resized)
    used_rows = int(state.meta[POOL_USED])
    if len(state.pool) - used_rows < pool_room:
        state = state._replace(pool=_grown(state.pool, max(2 * len(state.pool), used_rows + 2 * pool_room), 0))
    return state


# compiled when the module is loaded, because a table first grows under load
@njit("Tuple((uint64[::1], int32[::1]))(uint64[::1], int32[::1], int64)", cache=True, nogil=True)
def _table(held_keys, held_slots, size):  # type: ignore[no-untyped-def]
    """The hash table of some keys, open addressing with linear probing: keys uint64 [size] and slots int32 [size], -1 where free."""
    keys, slots = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    mask = np.uint64(size - 1)
    for place in range(len(held_keys)):
        at = np.int64(held_keys[place] & mask)
        while slots[at] >= 0:
            at = (at + 1) & (size - 1)
        keys[at], slots[at] = held_keys[place], held_slots[place]
    return keys, slots


def _entries(state: State) -> tuple[UInt64s, Int32s]:
    held = state.table_slots >= 0
    return state.table_keys[held], state.table_slots[held]


@njit(cache=True, nogil=True, inline="always")
def _power(rows: int) -> int:
    power = 0
    while (1 << power) < rows:
        power += 1
    return power


@njit(cache=True, nogil=True)
def take_block(state: State, rows: int) -> Any:
    """The start of a free block of the pool, which takes the next power of two of rows. The caller has made sure of room."""
    power = _power(rows)
    start = state.meta[FREE_BLOCKS + power]
    if start >= 0:
        state.meta[FREE_BLOCKS + power] = state.pool[start, 0]
        return start
    start = state.meta[POOL_USED]
    state.meta[POOL_USED] = start + (1 << power)
    return start


@njit(cache=True, nogil=True)
def free_block(state: State, block: Any) -> None:
    """Give a key's block back; it holds nothing from here on."""
    if block[CAPACITY] > 0:
        power = _power(block[CAPACITY])
        state.pool[block[START], 0] = state.meta[FREE_BLOCKS + power]
        state.meta[FREE_BLOCKS + power] = block[START]
    block[START] = block[SIZE] = block[CAPACITY] = 0


@njit(cache=True, nogil=True)
def forget_events(state: State, slot: int) -> None:
    """Forget all transactions of a key, as if there had been none."""
    for level in range(state.buckets.shape[1]):
        free_block(state, state.buckets[slot, level])
    state.newest[slot] = NEVER
    if len(state.ring) > 0:
        free_block(state, state.ring[slot])
        state.place_time[slot] = NEVER
        state.place[slot, :] = 0.0
        state.devices[slot, :] = 0


@njit(cache=True, nogil=True, inline="always")
def place_of(state: State, key: Any) -> Any:
    """Return the place of a key in the hash table, or the free place where it would go: its ``table_slots`` is -1."""
    mask = np.uint64(len(state.table_keys) - 1)
    at = key & mask
    while state.table_slots[at] >= 0 and state.table_keys[at] != key:
        at = (at + np.uint64(1)) & mask
    return at


@njit(cache=True, nogil=True)
def held(state: State, keys: Any) -> Any:
    """Return which keys are held, bool [n]."""
    found = np.zeros(len(keys), np.bool_)
    for number in range(len(keys)):
        found[number] = state.table_slots[place_of(state, keys[number])] >= 0
    return found


@njit(cache=True, nogil=True)
def remove(state: State, keys: Any) -> None:
    """Remove keys; those that are not held are passed over. The last slot moves into each gap, so that slots stay without holes."""
    mask = np.uint64(len(state.table_keys) - 1)
    one = np.uint64(1)
    for key in keys:
        at = place_of(state, key)
        slot = state.table_slots[at]
        if slot < 0:
            continue
        forget_events(state, slot)
        free_block(state, state.reports[slot])
        # linear probing: whatever comes behind the gap moves into it if it may (Knuth, TAOCP vol. 3, 6.4, algorithm R)
        state.table_slots[at] = -1
        gap, behind = at, (at + one) & mask
        while state.table_slots[behind] >= 0:
            home = state.table_keys[behind] & mask
            if ((behind - home) & mask) >= ((behind - gap) & mask):
                state.table_keys[gap], state.table_slots[gap] = state.table_keys[behind], state.table_slots[behind]
                state.table_slots[behind] = -1
                gap = behind
            behind = (behind + one) & mask
        last = state.meta[N_SLOTS] - 1
        state.meta[N_SLOTS] = last
        if slot != last:
            moved = state.keys[last]
            state.table_slots[place_of(state, moved)] = slot
            state.keys[slot], state.dirty[slot], state.digests[slot] = moved, state.dirty[last], state.digests[last]
            state.newest[slot] = state.newest[last]
            state.reports[slot], state.buckets[slot] = state.reports[last], state.buckets[last]
            if len(state.ring) > 0:
                state.place_time[slot], state.place[slot] = state.place_time[last], state.place[last]
                state.devices[slot], state.ring[slot] = state.devices[last], state.ring[last]
        state.dirty[last], state.digests[last], state.newest[last] = 0, 0, NEVER
        state.reports[last, :] = 0
        state.buckets[last, :, :] = 0
        if len(state.ring) > 0:
            state.place_time[last] = NEVER
            state.place[last, :] = 0.0
            state.devices[last, :] = 0
            state.ring[last, :] = 0
