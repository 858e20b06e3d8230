"""
State of an entity: flat NumPy arrays and a hash table from key to slot.

Every array can be copied, written to a log and read back unchanged, because it contains no pointers or strings. Kernels
change the arrays in place and never allocate. A kernel that runs out of room stops before the event, and the engine grows the
arrays.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from models.features.columns import Floats, Int64s, UInt64s
from models.features.compiled import allocating, inlined, kernel

Int32s = npt.NDArray[np.int32]

NEVER = np.int64(-(2**62))
FOREVER = np.int64(2**62)
DEVICES = 4
# Indices into ``meta``: number of keys held, rows of the pool in use, newest event time, maximum number of keys, whether a
# key was refused at that maximum. From ``FREE_BLOCKS`` on: the lists of free blocks, one for each power of two.
N_SLOTS, POOL_USED, WATERMARK, CEILING, WANTED, FREE_BLOCKS = 0, 1, 2, 3, 4, 5
_META = 40


class State(NamedTuple):
    """
    State of S keys.

    ``pool`` [P, 4] holds blocks of rows. A key has these blocks:

    - The *ring* holds its transactions, sorted by event time. A row is (event time, identity, amount, attributes). The upper half
      of the identity is the upper half of the hash of card and id; the lower half is the upper half of the content's hash.
    - The *reports* are its fraud labels, sorted by label time. A row is (label time, event time, transaction hash,
      retraction time).
    - The *buckets* are one block for each level of resolution, sorted by bucket number. A row is (bucket number, counts, number
      of low amounts, sum of amounts). The counts are the number of transactions and the number of those with an amount, in
      one word.

    ``dirty`` [S] marks keys that changed since their row was last written; ``digests`` [S] are the hashes of those rows. Only
    exact entities have places, devices and rings; for others, these arrays are empty.
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


START, SIZE, CAPACITY = 0, 1, 2  # fields of a block: last axis of ``ring``, ``reports`` and ``buckets``


def empty_state(slots: int, pool: int, levels: int, ceiling: int) -> State:
    """
    Return an empty state with room for ``slots`` keys and ``pool`` rows.

    ``levels`` is the number of bucket levels, 0 for exact state. ``ceiling`` is the maximum number of keys.
    """
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
    """Return the state with more room: twice the slots if they are nearly used up, and at least ``pool_room`` free rows."""
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


# compiled at import, because the first call, which grows a table, happens under load; it calls no other kernel
@njit("Tuple((uint64[::1], int32[::1]))(uint64[::1], int32[::1], int64)", cache=True, nogil=True)
def _table(held_keys, held_slots, size):  # type: ignore[no-untyped-def]
    """Return an open-addressing hash table with linear probing: keys uint64 [size] and slots int32 [size], -1 where free."""
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


@inlined
def _power(rows: int) -> int:
    power = 0
    while (1 << power) < rows:
        power += 1
    return power


@kernel
def take_block(state: State, rows: int) -> Any:
    """Take a block from the pool, rounded up to a power of two rows, and return its start. The caller must ensure room."""
    power = _power(rows)
    start = state.meta[FREE_BLOCKS + power]
    if start >= 0:
        state.meta[FREE_BLOCKS + power] = state.pool[start, 0]
        return start
    start = state.meta[POOL_USED]
    state.meta[POOL_USED] = start + (1 << power)
    return start


@kernel
def free_block(state: State, block: Any) -> None:
    """Return a key's block to the list of free blocks, and mark it as empty."""
    if block[CAPACITY] > 0:
        power = _power(block[CAPACITY])
        state.pool[block[START], 0] = state.meta[FREE_BLOCKS + power]
        state.meta[FREE_BLOCKS + power] = block[START]
    block[START] = block[SIZE] = block[CAPACITY] = 0


@kernel
def forget_events(state: State, slot: int) -> None:
    """Delete all transactions of a key, as if it had had none."""
    for level in range(state.buckets.shape[1]):
        free_block(state, state.buckets[slot, level])
    state.newest[slot] = NEVER
    if len(state.ring) > 0:
        free_block(state, state.ring[slot])
        state.place_time[slot] = NEVER
        state.place[slot, :] = 0.0
        state.devices[slot, :] = 0


@inlined
def place_of(state: State, key: Any) -> Any:
    """Return the index of a key in the hash table, or the free index (``table_slots`` is -1) where it would be inserted."""
    mask = np.uint64(len(state.table_keys) - 1)
    at = key & mask
    while state.table_slots[at] >= 0 and state.table_keys[at] != key:
        at = (at + np.uint64(1)) & mask
    return at


@allocating
def held(state: State, keys: Any) -> Any:
    """Return which keys are held, bool [n]."""
    found = np.zeros(len(keys), np.bool_)
    for number in range(len(keys)):
        found[number] = state.table_slots[place_of(state, keys[number])] >= 0
    return found


@allocating
def remove(state: State, keys: Any) -> None:
    """Remove keys and ignore those that are not held. The last slot moves into each gap, so that slots stay contiguous."""
    mask = np.uint64(len(state.table_keys) - 1)
    one = np.uint64(1)
    for key in keys:
        at = place_of(state, key)
        slot = state.table_slots[at]
        if slot < 0:
            continue
        forget_events(state, slot)
        free_block(state, state.reports[slot])
        # linear probing: entries after the gap move into it where their hash allows (Knuth, TAOCP vol. 3, 6.4, algorithm R)
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
