"""
Serialise the state of one key as a row of words, which is written to the checkpoint log and read back.

A row holds only data that can still affect a feature: the key's own fields, its live transactions, its fraud reports and its
filled buckets. Expired data that has not been dropped yet is left out, so that a row depends only on the key's events, not on
batch boundaries.

Words are int64, little-endian: key, newest event time, time and coordinates (two floats) of the last place, four devices, and
the numbers of transactions, reports and buckets. After this header, each transaction, report and bucket has four
words, which are its row of the pool. The first word of a bucket is its number, with the bucket's level in the upper bits.
"""

import numpy as np

from models.features.compiled import allocating, inlined, kernel
from models.features.state import CAPACITY, NEVER, SIZE, START, WATERMARK, forget_events, free_block, take_block
from models.features.storage import new_slot, no_room, slot_of

HEADER = 12
_LEVEL_SHIFT = 48
_RING, _REPORTS, _BUCKETS = 9, 10, 11
_ODD, _ODDER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


@inlined
def _first_live(state, slot, retention):
    """Return the first row of a key's ring that is within the retention."""
    start, size = state.ring[slot, START], state.ring[slot, SIZE]
    horizon, row = state.newest[slot] - retention, start
    while row < start + size and state.pool[row, 0] <= horizon:
        row += 1
    return row


@inlined
def _first_kept(state, slot, level, kept):
    """Return the first row of a level's block that holds one of the newest ``kept`` buckets. Older buckets affect no feature."""
    start, size = state.buckets[slot, level, START], state.buckets[slot, level, SIZE]
    row = start
    while row < start + size and state.pool[row, 0] <= state.pool[start + size - 1, 0] - kept:
        row += 1
    return row


@allocating
def lengths(state, slots, retention, kept):
    """Return the offsets of the rows of n slots in words, int64 [n + 1]. ``kept`` int64 [L]: buckets that each level keeps."""
    offsets = np.zeros(len(slots) + 1, np.int64)
    for i in range(len(slots)):
        slot = slots[i]
        rows = np.int64(state.reports[slot, SIZE])
        if len(state.ring) > 0:
            rows += state.ring[slot, START] + state.ring[slot, SIZE] - _first_live(state, slot, retention)
        for level in range(state.buckets.shape[1]):
            end = state.buckets[slot, level, START] + state.buckets[slot, level, SIZE]
            rows += end - _first_kept(state, slot, level, kept[level])
        offsets[i + 1] = offsets[i] + HEADER + 4 * rows
    return offsets


@kernel
def _hash(words, begin, end):
    """Return a 64-bit hash of a row: multiply, rotate, and a final mix as in splitmix64 (Steele, Lea and Flood 2014)."""
    h = _ODD
    for at in range(begin, end):
        h = (h ^ np.uint64(words[at])) * _ODDER
        h = h << np.uint64(29) | h >> np.uint64(35)
    h = (h ^ h >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ h >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return h ^ h >> np.uint64(31)


@kernel
def _copy_rows(state, begin, end, words, put):
    for row in range(begin, end):
        for column in range(4):
            words[put + column] = state.pool[row, column]
        put += 4
    return put


@kernel
def pack(state, place_bits, devices, slots, retention, kept, offsets, words):
    """Write the rows of ``slots`` to ``words``, mark the slots as clean, and store the digests of the rows."""
    for i in range(len(slots)):
        slot, at = slots[i], offsets[i]
        put = at + HEADER
        words[at : at + HEADER] = 0
        words[at] = np.int64(state.keys[slot])
        words[at + 1] = state.newest[slot]
        words[at + 2] = NEVER
        if len(state.ring) > 0:
            words[at + 2] = state.place_time[slot]
            words[at + 3], words[at + 4] = place_bits[slot, 0], place_bits[slot, 1]
            for d in range(4):
                words[at + 5 + d] = devices[slot, d]
            first, end = _first_live(state, slot, retention), state.ring[slot, START] + state.ring[slot, SIZE]
            words[at + _RING] = end - first
            put = _copy_rows(state, first, end, words, put)
        first = state.reports[slot, START]
        words[at + _REPORTS] = state.reports[slot, SIZE]
        put = _copy_rows(state, first, first + state.reports[slot, SIZE], words, put)
        for level in range(state.buckets.shape[1]):
            first = _first_kept(state, slot, level, kept[level])
            end = state.buckets[slot, level, START] + state.buckets[slot, level, SIZE]
            begin, put = put, _copy_rows(state, first, end, words, put)
            words[at + _BUCKETS] += end - first
            for number in range(begin, put, 4):
                words[number] |= np.int64(level) << _LEVEL_SHIFT
        state.dirty[slot] = 0
        state.digests[slot] = _hash(words, at, offsets[i + 1])


@kernel
def _load_block(state, block, words, at, count, most):
    if count == 0:
        return
    wanted = 1
    while wanted < count:
        wanted *= 2
    wanted = min(wanted, most)
    block[START], block[CAPACITY], block[SIZE] = take_block(state, wanted), wanted, count
    for row in range(count):
        for column in range(4):
            state.pool[block[START] + row, column] = words[at + 4 * row + column]


@kernel
def unpack(state, place_bits, devices, words, offsets, begin, room, history, kept):
    """
    Load the rows from ``begin`` on. A later row of a key replaces an earlier one.

    Returns the index of the first row that was not read: the number of rows, or less if the state needs room. Returns -1 - i
    if row i is damaged.
    """
    for i in range(begin, len(offsets) - 1):
        if no_room(state, room):
            return i
        at, end = offsets[i], offsets[i + 1]
        if end - at < HEADER:
            return -1 - i
        n_ring, n_reports, n_buckets = words[at + _RING], words[at + _REPORTS], words[at + _BUCKETS]
        if min(n_ring, n_reports, n_buckets) < 0 or n_ring > history or n_reports > 2 * history or n_buckets > kept.sum():
            return -1 - i
        if end - at != HEADER + 4 * (n_ring + n_reports + n_buckets) or (n_ring > 0 and len(state.ring) == 0):
            return -1 - i
        key = np.uint64(words[at])
        slot = slot_of(state, key)
        if slot < 0:
            slot = new_slot(state, key)
        forget_events(state, slot)
        free_block(state, state.reports[slot])
        state.newest[slot] = words[at + 1]
        state.meta[WATERMARK] = max(state.meta[WATERMARK], words[at + 1])
        put = at + HEADER
        if len(state.ring) > 0:
            state.place_time[slot] = words[at + 2]
            place_bits[slot, 0], place_bits[slot, 1] = words[at + 3], words[at + 4]
            for d in range(4):
                devices[slot, d] = words[at + 5 + d]
            _load_block(state, state.ring[slot], words, put, n_ring, history)
            put += 4 * n_ring
        _load_block(state, state.reports[slot], words, put, n_reports, 2 * history)
        put += 4 * n_reports
        while put < end:
            level, first = words[put] >> _LEVEL_SHIFT, put
            if level < 0 or level >= state.buckets.shape[1] or state.buckets[slot, level, SIZE] > 0:
                return -1 - i
            while put < end and words[put] >> _LEVEL_SHIFT == level:
                put += 4
            if (put - first) // 4 > kept[level]:
                return -1 - i
            _load_block(state, state.buckets[slot, level], words, first, (put - first) // 4, kept[level])
            start, size = state.buckets[slot, level, START], state.buckets[slot, level, SIZE]
            for row in range(start, start + size):
                state.pool[row, 0] &= (np.int64(1) << _LEVEL_SHIFT) - 1
        state.dirty[slot] = 0
        state.digests[slot] = _hash(words, at, end)
    return len(offsets) - 1
