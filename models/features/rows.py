"""
One key's past as a row of words, to be written to a log and read back.

A row holds what can still matter: the key's facts, its live transactions, its fraud reports and its filled buckets. What is
merely not forgotten yet is left out, so a row depends on the key's events alone, never on how they were cut into batches.

Words are int64, little-endian: key, newest event time, time and place (two floats) of the last place, four devices, the numbers
of transactions, reports and buckets; then four words for each of these: a row of the pool, or a bucket's place and id, its three
counts in two words, and its sum.
"""

import numpy as np
from numba import njit

from models.features.kernels import new_slot, no_room, slot_of
from models.features.state import CAPACITY, SIZE, START, free_block, take_block

HEADER = 12
_RING, _REPORTS, _BUCKETS = 9, 10, 11
_ODD, _ODDER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


@njit(cache=True, nogil=True, inline="always")
def _first_live(state, slot, retention):
    start, size = state.ring[slot, START], state.ring[slot, SIZE]
    horizon, row = state.newest[slot] - retention, start
    while row < start + size and state.pool[row, 0] <= horizon:
        row += 1
    return row


@njit(cache=True, nogil=True)
def lengths(state, slots, retention):
    """Offsets int64 [n + 1] of the rows of n slots, in words."""
    offsets = np.zeros(len(slots) + 1, np.int64)
    for i in range(len(slots)):
        slot = slots[i]
        live = state.ring[slot, START] + state.ring[slot, SIZE] - _first_live(state, slot, retention)
        filled = 0
        for place in range(state.bucket_ids.shape[1]):
            filled += state.bucket_ids[slot, place] >= 0
        offsets[i + 1] = offsets[i] + HEADER + 4 * (live + state.reports[slot, SIZE] + filled)
    return offsets


@njit(cache=True, nogil=True)
def _hash(words, begin, end):
    """A 64-bit hash of a row: multiply, rotate, and a last mix as in splitmix64 (Steele, Lea and Flood 2014)."""
    h = _ODD
    for at in range(begin, end):
        h = (h ^ np.uint64(words[at])) * _ODDER
        h = h << np.uint64(29) | h >> np.uint64(35)
    h = (h ^ h >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ h >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return h ^ h >> np.uint64(31)


@njit(cache=True, nogil=True)
def pack(state, place_bits, devices, slots, retention, offsets, words):
    """Write the rows of ``slots`` to ``words``; each slot is clean from here on, and its digest is its row's."""
    for i in range(len(slots)):
        slot, at = slots[i], offsets[i]
        first = _first_live(state, slot, retention)
        end = state.ring[slot, START] + state.ring[slot, SIZE]
        words[at] = np.int64(state.keys[slot])
        words[at + 1] = state.newest[slot]
        words[at + 2] = state.place_time[slot]
        words[at + 3], words[at + 4] = place_bits[slot, 0], place_bits[slot, 1]
        for d in range(4):
            words[at + 5 + d] = devices[slot, d]
        words[at + _RING], words[at + _REPORTS], words[at + _BUCKETS] = end - first, state.reports[slot, SIZE], 0
        put = at + HEADER
        for row in range(first, end):
            for column in range(4):
                words[put + column] = state.pool[row, column]
            put += 4
        first = state.reports[slot, START]
        for row in range(first, first + state.reports[slot, SIZE]):
            for column in range(4):
                words[put + column] = state.pool[row, column]
            put += 4
        for place in range(state.bucket_ids.shape[1]):
            if state.bucket_ids[slot, place] >= 0:
                words[put] = np.int64(place) << 32 | np.int64(state.bucket_ids[slot, place])
                words[put + 1] = np.int64(state.bucket_counts[slot, place, 0]) << 32 | np.int64(
                    state.bucket_counts[slot, place, 1]
                )
                words[put + 2] = state.bucket_counts[slot, place, 2]
                words[put + 3] = state.bucket_sums[slot, place]
                put += 4
                words[at + _BUCKETS] += 1
        state.dirty[slot] = 0
        state.digests[slot] = _hash(words, at, offsets[i + 1])


@njit(cache=True, nogil=True)
def _load_block(state, block, words, at, count, history):
    if block[CAPACITY] < count:
        if block[CAPACITY] > 0:
            free_block(state, block[START], block[CAPACITY])
        wanted = 4
        while wanted < count:
            wanted *= 2
        wanted = max(min(wanted, history), count)
        block[START], block[CAPACITY] = take_block(state, wanted), wanted
    block[SIZE] = count
    for row in range(count):
        for column in range(4):
            state.pool[block[START] + row, column] = words[at + 4 * row + column]


@njit(cache=True, nogil=True)
def unpack(state, place_bits, devices, words, offsets, begin, history):
    """
    Read rows ``begin..`` back; a later row of a key replaces an earlier one.

    Returns the index of the first row that was not read: all, fewer where the state needs room, or a negative number, minus one
    and minus the index, where a row is damaged.
    """
    for i in range(begin, len(offsets) - 1):
        if no_room(state, history):
            return i
        at, end = offsets[i], offsets[i + 1]
        if end - at < HEADER:
            return -1 - i
        n_ring, n_reports, n_buckets = words[at + _RING], words[at + _REPORTS], words[at + _BUCKETS]
        if min(n_ring, n_reports, n_buckets) < 0 or max(n_ring, n_reports) > history:
            return -1 - i
        if end - at != HEADER + 4 * (n_ring + n_reports + n_buckets) or n_buckets > state.bucket_ids.shape[1]:
            return -1 - i
        key = np.uint64(words[at])
        slot = slot_of(state, key)
        if slot < 0:
            slot = new_slot(state, key)
        state.newest[slot], state.place_time[slot] = words[at + 1], words[at + 2]
        place_bits[slot, 0], place_bits[slot, 1] = words[at + 3], words[at + 4]
        for d in range(4):
            devices[slot, d] = words[at + 5 + d]
        put = at + HEADER
        _load_block(state, state.ring[slot], words, put, n_ring, history)
        put += 4 * n_ring
        _load_block(state, state.reports[slot], words, put, n_reports, history)
        put += 4 * n_reports
        state.bucket_ids[slot, :] = -1
        for _ in range(n_buckets):
            place = words[put] >> 32
            if place < 0 or place >= state.bucket_ids.shape[1]:
                return -1 - i
            state.bucket_ids[slot, place] = words[put] & 0xFFFFFFFF
            state.bucket_counts[slot, place, 0] = words[put + 1] >> 32
            state.bucket_counts[slot, place, 1] = words[put + 1] & 0xFFFFFFFF
            state.bucket_counts[slot, place, 2] = words[put + 2]
            state.bucket_sums[slot, place] = words[put + 3]
            put += 4
        state.dirty[slot] = 0
        state.digests[slot] = _hash(words, at, end)
    return len(offsets) - 1
