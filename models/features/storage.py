"""
Kernels that find a key's slot and insert rows into its sorted blocks, for both kinds of state.

A kernel never allocates: it stops before the event that may need more room (``no_room``), and the engine grows the state.
"""

import numpy as np

from models.features.compiled import inlined, kernel
from models.features.prefetch import prefetch
from models.features.state import (
    CAPACITY,
    CEILING,
    N_SLOTS,
    POOL_USED,
    SIZE,
    START,
    WANTED,
    WATERMARK,
    forget_events,
    free_block,
    place_of,
    take_block,
)

# How many events ahead a kernel begins to fetch the memory of a key: its entry in the hash table, its fields, and its rows. Each
# step reads what an earlier step has fetched. The distances are the best of those tried (ADR 36).
_ENTRY_AHEAD, _FIELDS_AHEAD, _ROWS_AHEAD = 24, 12, 6
_ROWS_FETCHED = 64  # newest rows of a key to fetch; the processor's own prefetcher continues with older rows
_ROWS_PER_LINE = 2  # a cache line has 64 bytes, a row 32


@inlined
def slot_of(state, key):
    """Return the slot of a key, or -1 if it has none."""
    return np.int64(state.table_slots[place_of(state, key)])


@inlined
def fetch_ahead(state, keys, i):
    """Begin to fetch the memory of the keys of the events after event i, for exact state. This changes no result."""
    n = len(keys)
    if i + _ENTRY_AHEAD < n:
        home = np.int64(keys[i + _ENTRY_AHEAD] & np.uint64(len(state.table_keys) - 1))
        prefetch(state.table_keys, home)
        prefetch(state.table_slots, home)
    if i + _FIELDS_AHEAD < n:
        _fetch_fields(state, slot_of(state, keys[i + _FIELDS_AHEAD]))
    if i + _ROWS_AHEAD < n:
        _fetch_rows(state, slot_of(state, keys[i + _ROWS_AHEAD]))


@inlined
def _fetch_fields(state, slot):
    """Begin to fetch the fields of a slot. Do nothing if ``slot`` is -1, because the key is new."""
    if slot >= 0:
        prefetch(state.ring, slot)
        prefetch(state.newest, slot)
        prefetch(state.reports, slot)
        prefetch(state.place_time, slot)
        prefetch(state.place, slot)
        prefetch(state.devices, slot)


@inlined
def _fetch_rows(state, slot):
    """Begin to fetch the newest transactions of a slot. Do nothing if ``slot`` is -1, because the key is new."""
    if slot >= 0:
        start = np.int64(state.ring[slot, START])
        row = start + state.ring[slot, SIZE]
        first = max(start, row - _ROWS_FETCHED)
        while row >= first:
            prefetch(state.pool, row)
            row -= _ROWS_PER_LINE


@inlined
def new_slot(state, key):
    """Return a new slot for a key that has none. The caller must have checked that there is room."""
    at = place_of(state, key)
    slot = state.meta[N_SLOTS]
    state.meta[N_SLOTS] = slot + 1
    state.table_keys[at] = key
    state.table_slots[at] = slot
    state.keys[slot] = key
    return slot


@inlined
def _copy_rows(pool, source, target, count):
    """Copy rows within the pool. If both ranges overlap, the target must begin before the source."""
    for row in range(count):
        for column in range(4):
            pool[target + row, column] = pool[source + row, column]


@inlined
def _drop_first(pool, block, count):
    """Drop the first rows of a block."""
    _copy_rows(pool, block[START] + count, block[START], block[SIZE] - count)
    block[SIZE] -= count


@kernel
def _drop_reports(state, slot, oldest):
    """Drop a key's reports that are older than ``oldest``."""
    block = state.reports[slot]
    start, size, expired = block[START], block[SIZE], 0
    while expired < size and state.pool[start + expired, 0] < oldest:
        expired += 1
    if expired == size:
        free_block(state, block)
    elif expired > 0:
        _drop_first(state.pool, block, expired)


@inlined
def slot_for_update(state, key, retention):
    """
    Return the slot of a key for its next event or label, or -1 if the state is at its ceiling of keys.

    If the newest transaction is older than the retention, the key's transactions are forgotten. Reports older than the retention
    are dropped. The features are therefore the same whether or not the key's stale state has already been evicted.
    """
    slot = slot_of(state, key)
    if slot >= 0:
        oldest = state.meta[WATERMARK] - retention
        if state.newest[slot] < oldest:
            forget_events(state, slot)
        if state.reports[slot, SIZE] > 0:
            _drop_reports(state, slot, oldest)
        return slot
    if state.meta[N_SLOTS] >= state.meta[CEILING]:
        state.meta[WANTED] = 1
        return np.int64(-1)
    return new_slot(state, key)


@inlined
def slot_for_event(state, key, event_time, retention):
    """
    Return the slot for a transaction, as ``slot_for_update`` does, and the newest event time before it.

    The state's newest event time advances only if there is a slot.
    """
    before = state.meta[WATERMARK]
    state.meta[WATERMARK] = max(before, event_time)
    slot = slot_for_update(state, key, retention)
    if slot < 0:
        state.meta[WATERMARK] = before
    return slot, before


@kernel
def _make_room(state, block, expired, most):
    """
    Make room for one more row in a full block.

    If the first ``expired`` rows are at least a quarter of the block, drop them. Otherwise move the rows to a block of twice the
    size. A block that already has the maximum size ``most`` is not moved: its expired rows are dropped or, if there are none, its
    first row.
    """
    start, size, capacity = block[START], block[SIZE], block[CAPACITY]
    pool = state.pool
    if expired * 4 >= size > 0 or (expired > 0 and capacity >= most):
        _drop_first(pool, block, expired)
        return
    if capacity >= most:
        _drop_first(pool, block, 1)
        return
    wanted = min(max(1, 2 * capacity), most)
    fresh = take_block(state, wanted)
    _copy_rows(pool, start, fresh, size)
    free_block(state, block)
    block[START], block[SIZE], block[CAPACITY] = fresh, size, wanted


@inlined
def no_room(state, room):
    """Return whether the engine must grow the state before the next event, which takes at most ``room`` rows."""
    return state.meta[N_SLOTS] + 1 >= len(state.newest) or len(state.pool) - state.meta[POOL_USED] < room


@kernel
def insert(state, block, position, oldest, most, first, second, third, fourth):
    """
    Insert a row at ``position`` of a block of at most ``most`` rows, sorted by their first word.

    If the block is full, it grows, or rows whose first word is at most ``oldest`` are dropped. A full block of ``most`` rows without
    such rows loses its first row; a new row that would come first is not inserted.
    """
    if block[SIZE] == block[CAPACITY]:
        before, expired = block[SIZE], 0
        while expired < position and state.pool[block[START] + expired, 0] <= oldest:
            expired += 1
        if position == 0 and block[CAPACITY] >= most:
            return  # older than all rows that are kept
        _make_room(state, block, expired, most)
        position -= before - block[SIZE]
    start, size = block[START], block[SIZE]
    at = start + size
    while at > start + position:
        for column in range(4):
            state.pool[at, column] = state.pool[at - 1, column]
        at -= 1
    state.pool[at, 0] = first
    state.pool[at, 1] = second
    state.pool[at, 2] = third
    state.pool[at, 3] = fourth
    block[SIZE] = size + 1
