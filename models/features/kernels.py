"""
Feature kernels, compiled by numba: they process one event at a time, in order, over flat arrays.

A kernel looks up an event's key, computes the features from earlier events and then adds the event to the state. All sums of
money are integers, so that neither the order of addition nor the batch size can change a bit of a result.
"""

import math

import numpy as np
from numba import njit

from models.features.columns import (
    CATEGORY_SHIFT,
    CHANNEL_ONLINE,
    CHANNEL_SHIFT,
    COUNTRIES,
    COUNTRY_SHIFT,
    LOW_BIT,
    MARK_SHIFT,
    MERCHANT_SHIFT,
    NIGHT_BIT,
    UNUSUAL_BIT,
    Mark,
)  # fmt: skip
from models.features.ops import Op
from models.features.state import (
    CAPACITY,
    CEILING,
    DEVICES,
    FOREVER,
    N_SLOTS,
    NEVER,
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

_MS_PER_HOUR = 3_600_000
_MS_PER_DAY = 24 * _MS_PER_HOUR
_EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
_STAMPS = 1 << 14  # twice the longest history, so that probing stays short
_MERCHANT_BITS = 0xFFFFFFFF
_NORMAL_OF = 51  # number of recent amounts whose median gives the normal amount
_JUST_NOW_HOURS = 1 / 60  # shortest time used to compute a speed; a shorter time between two places counts as one minute

_OWN_BITS = (1 << MARK_SHIFT) - 1  # attribute bits of the transaction itself, without marks
_ID_SHIFT = np.uint64(32)  # the upper half of an identity is the upper half of the hash of card and id
_UNUSUAL, _LATE, _REUSED = int(Mark.UNUSUAL), int(Mark.LATE), int(Mark.REUSED)

# columns of a window's aggregates over earlier transactions
W_COUNT, W_PRICED, W_SUM, W_MAX, W_LOW, W_NIGHT = 0, 1, 2, 3, 4, 5
W_ONLINE, W_CHANNELS, W_SAME_CATEGORY, W_CATEGORIES, W_SAME_MERCHANT, W_SAME_COUNTRY = 6, 7, 8, 9, 10, 11
W_COUNTRIES_KNOWN, W_MERCHANTS, W_COUNTRIES, W_UNUSUAL, W_FIRST_UNUSUAL, W_LAST_UNUSUAL = 12, 13, 14, 15, 16, 17
_WINDOW_FIELDS = W_LAST_UNUSUAL + 1  # number of these columns
# columns of a window's aggregates over known frauds
F_COUNT, F_FIRST, F_LAST, F_USUAL, F_FIRST_USUAL, F_LAST_USUAL = 0, 1, 2, 3, 4, 5


@njit(cache=True, nogil=True, inline="always")
def slot_of(state, key):
    """Return the slot of a key, or -1 if it has none."""
    return np.int64(state.table_slots[place_of(state, key)])


@njit(cache=True, nogil=True, inline="always")
def new_slot(state, key):
    """Return a new slot for a key that has none. The caller must have checked that there is room."""
    at = place_of(state, key)
    slot = state.meta[N_SLOTS]
    state.meta[N_SLOTS] = slot + 1
    state.table_keys[at] = key
    state.table_slots[at] = slot
    state.keys[slot] = key
    return slot


@njit(cache=True, nogil=True)
def _drop_reports(state, slot, oldest):
    """Drop a key's reports that are older than ``oldest``."""
    block = state.reports[slot]
    start, size, expired = block[START], block[SIZE], 0
    while expired < size and state.pool[start + expired, 0] < oldest:
        expired += 1
    if expired == size:
        free_block(state, block)
    elif expired > 0:
        state.pool[start : start + size - expired] = state.pool[start + expired : start + size].copy()
        block[SIZE] = size - expired


@njit(cache=True, nogil=True, inline="always")
def slot_for_update(state, key, retention):
    """
    Return the slot of a key for its next event or label, or -1 if the state is at its ceiling of keys.

    Transactions and reports older than the retention are dropped here. The features are therefore the same whether or not the
    key's stale state has already been evicted.
    """
    slot = slot_of(state, key)
    if slot >= 0:
        oldest = state.meta[WATERMARK] - retention
        if state.newest[slot] < oldest:
            forget_events(state, slot)
        _drop_reports(state, slot, oldest)
        return slot
    if state.meta[N_SLOTS] >= state.meta[CEILING]:
        state.meta[WANTED] = 1
        return np.int64(-1)
    return new_slot(state, key)


@njit(cache=True, nogil=True)
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
        pool[start : start + size - expired] = pool[start + expired : start + size].copy()
        block[SIZE] = size - expired
        return
    if capacity >= most:
        pool[start : start + size - 1] = pool[start + 1 : start + size].copy()
        block[SIZE] = size - 1
        return
    wanted = min(max(1, 2 * capacity), most)
    fresh = take_block(state, wanted)
    pool[fresh : fresh + size] = pool[start : start + size]
    free_block(state, block)
    block[START], block[SIZE], block[CAPACITY] = fresh, size, wanted


@njit(cache=True, nogil=True, inline="always")
def no_room(state, room):
    """Return whether the engine must grow the state before the next event, which takes at most ``room`` rows."""
    return state.meta[N_SLOTS] + 1 >= len(state.newest) or len(state.pool) - state.meta[POOL_USED] < room


@njit(cache=True, nogil=True)
def _insert(state, block, position, expired, most, first, second, third, fourth):
    """Insert a row at ``position`` of a sorted block of at most ``most`` rows, whose first ``expired`` rows may be dropped."""
    if block[SIZE] == block[CAPACITY]:
        if position == 0 and expired == 0 and block[CAPACITY] >= most:
            return  # older than all rows that are kept
        before = block[SIZE]
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


@njit(cache=True, nogil=True, inline="always")
def _event_feature(op, event_time, amount, attributes, major):
    """
    Return a feature of the transaction itself. ``major`` is the number of minor units in a major unit.

    The epoch began on a Thursday, which is weekday 3.
    """
    if op == Op.AMOUNT:
        return amount / major if amount >= 0 else math.nan
    if op == Op.HOUR:
        return event_time % _MS_PER_DAY / _MS_PER_HOUR
    if op == Op.WEEKDAY:
        return float((event_time // _MS_PER_DAY + 3) % 7)
    if op == Op.WEEKEND:
        return 1.0 if (event_time // _MS_PER_DAY + 3) % 7 >= 5 else 0.0
    if op == Op.NIGHT:
        return 1.0 if attributes & NIGHT_BIT else 0.0
    channel = attributes >> CHANNEL_SHIFT & 3
    if channel == 0:
        return math.nan
    return 1.0 if channel == CHANNEL_ONLINE else 0.0


@njit(cache=True, nogil=True, inline="always")
def _share(part, whole):
    return part / whole if whole > 0 else math.nan


@njit(cache=True, nogil=True, inline="always")
def _known(state, slot, now, history):
    """Return the first and end row of a key's newest ``history`` reports that are known at ``now``."""
    start, end = state.reports[slot, START], state.reports[slot, START] + state.reports[slot, SIZE]
    while end > start and state.pool[end - 1, 0] > now:
        end -= 1
    return max(start, end - history), end


@njit(cache=True, nogil=True)
def _known_reports(state, slot, begin, now, own, history):
    """Count a key's fraud reports that became known after ``begin`` and hold at ``now``, except for the transaction ``own``."""
    first, end = _known(state, slot, now, history)
    found = 0
    for row in range(first, end):
        label_time, retracted = state.pool[row, 0], state.pool[row, 3]
        if begin < label_time and retracted > now and state.pool[row, 2] != own:
            found += 1
    return found


@njit(cache=True, nogil=True, inline="always")
def _same_id(identity, transaction):
    """Return whether a stored identity has the same card and transaction id as ``transaction``."""
    return (np.uint64(identity) ^ np.uint64(transaction)) >> _ID_SHIFT == np.uint64(0)


@njit(cache=True, nogil=True)
def _find_frauds(state, slot, end, horizon, now, own, history, windows, found):
    """
    Write aggregates over the frauds known at ``now`` to ``found``, int64 [W, 6], for windows that end at ``end``. First and
    last times are valid only where the count is above zero. A fraud is usual if its transaction is still stored and its
    amount was not unusual.
    """
    found[:] = 0
    first_known, end_known = _known(state, slot, now, history)
    for row in range(first_known, end_known):
        event_time, transaction = state.pool[row, 1], state.pool[row, 2]
        if state.pool[row, 3] <= now or transaction == own or not end - windows[len(windows) - 1] < event_time <= end:
            continue
        usual = False
        low, high = state.ring[slot, START], state.ring[slot, START] + state.ring[slot, SIZE]
        behind = high
        while low < high:
            middle = (low + high) // 2
            if state.pool[middle, 0] < event_time:
                low = middle + 1
            else:
                high = middle
        while low < behind and state.pool[low, 0] == event_time > horizon:
            if _same_id(state.pool[low, 1], transaction) and state.pool[low, 3] & UNUSUAL_BIT == 0:
                usual = True
            low += 1
        for w in range(len(windows)):
            if event_time <= end - windows[w]:
                continue
            for first in range(0, 6 if usual else 3, 3):
                if found[w, first] == 0 or event_time < found[w, first + 1]:
                    found[w, first + 1] = event_time
                if found[w, first] == 0 or event_time > found[w, first + 2]:
                    found[w, first + 2] = event_time
                found[w, first] += 1


@njit(cache=True, nogil=True)
def _last_legitimate(state, slot, begin, row, horizon, now, own, history):
    """
    Return the event time of the newest stored transaction after ``begin`` that is not known to be fraud, or ``NEVER``. The
    search goes backwards from ``row``.
    """
    start = state.ring[slot, START]
    first, end = _known(state, slot, now, history)
    while row >= start and state.pool[row, 0] > begin and state.pool[row, 0] > horizon:
        fraud = False
        for report in range(first, end):
            if (
                _same_id(state.pool[row, 1], state.pool[report, 2])
                and state.pool[report, 3] > now
                and state.pool[report, 2] != own
            ):
                fraud = True
                break
        if not fraud:
            return state.pool[row, 0]
        row -= 1
    return NEVER


@njit(cache=True, nogil=True)
def _median_low(values, n):
    """Return the lower median of the first ``n`` values, int64. Reorders the values (Hoare's selection)."""
    wanted, low, high = (n - 1) // 2, 0, n - 1
    while low < high:
        pivot, i, j = values[(low + high) // 2], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            high = j
        elif wanted >= i:
            low = i
        else:
            break
    return values[wanted]


@njit(cache=True, nogil=True, inline="always")
def _days(now, then):
    return (now - then) / _MS_PER_DAY


@njit(cache=True, nogil=True, inline="always")
def _kilometres(lat1, lon1, lat2, lon2):
    """Return the great-circle distance in km by the haversine formula."""
    p1, p2 = math.radians(lat1), math.radians(lat2)
    half_lat, half_lon = (p2 - p1) / 2.0, math.radians(lon2 - lon1) / 2.0
    a = math.sin(half_lat) ** 2 + math.cos(p1) * math.cos(p2) * math.sin(half_lon) ** 2
    return 2.0 * _EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(a)))


@njit(cache=True, nogil=True)
def update_exact(
    state, columns, keys, begin, windows, retention, lateness, delay, history, room, major, normal, ops, op_windows, out, duplicate,
    marks, recent,
):  # fmt: skip
    """
    Compute features from exact state for the events from index ``begin`` on, and add these events to the state.

    ``normal`` is a tuple: whether this entity marks unusual amounts, whether a feature uses the normal amount, whether a
    feature uses frauds, the prior of the normal amount, the prior's weight, and the ratio above which an amount is unusual.
    ``out`` float32 [n, F], ``duplicate`` bool [n], ``marks`` int64 [n] (bits of ``Mark``) and ``recent`` int64 [n, K, 3] are
    filled in place. A duplicate's row is all NaN, and a duplicate does not change the state. Returns the index of the first
    event that was not processed: n, or less if the state needs room.
    """
    n, n_ops, n_windows, n_recent = len(keys), len(ops), len(windows), recent.shape[1]
    seen = np.zeros((n_windows, _WINDOW_FIELDS), np.int64)
    squares = np.zeros(n_windows)
    running = np.zeros(_WINDOW_FIELDS, np.int64)
    merchant_stamp = np.full(_STAMPS, -1, np.int64)
    merchant_at = np.zeros(_STAMPS, np.int64)
    country_stamp = np.full(COUNTRIES, -1, np.int64)
    longest = windows[n_windows - 1]
    judges, asks_normal, asks_frauds, drawn_to, weight, unusual_ratio = normal
    amounts = np.zeros(_NORMAL_OF, np.int64)
    frauds = np.zeros((n_windows, 6), np.int64)
    for i in range(begin, n):
        if no_room(state, room):
            return i
        key, t, amount, attributes = keys[i], columns.event_time[i], columns.amount[i], columns.attributes[i]
        transaction = np.int64(columns.transaction[i])
        identity = np.int64(columns.transaction[i] >> _ID_SHIFT << _ID_SHIFT | columns.content[i] >> _ID_SHIFT)
        before = state.meta[WATERMARK]
        state.meta[WATERMARK] = max(before, t)
        slot = slot_for_update(state, key, retention)
        if slot < 0:
            state.meta[WATERMARK] = before
            return i
        block = state.ring[slot]
        start, size = block[START], block[SIZE]

        # 1. skip an identical transaction; mark a different transaction with the same id
        horizon = state.newest[slot] - retention
        again = reused = False
        for row in range(start + size - 1, start - 1, -1):
            if state.pool[row, 0] <= horizon:
                break
            if _same_id(state.pool[row, 1], transaction):
                reused = True
                if (
                    state.pool[row, 1] == identity and state.pool[row, 0] == t and state.pool[row, 2] == amount
                    and (state.pool[row, 3] ^ attributes) & _OWN_BITS == 0
                ):  # fmt: skip
                    again = True
                    break
        duplicate[i] = again
        if again:
            out[i, :] = math.nan
            continue
        marks[i] = (_REUSED if reused else 0) | (_LATE if t < before - lateness else 0)

        # 2. walk back over the windows, from the newest earlier transaction
        if t > state.newest[slot]:
            state.newest[slot] = t
        horizon = state.newest[slot] - retention
        position = size
        while position > 0 and state.pool[start + position - 1, 0] > t:
            position -= 1
        row = start + position - 1
        previous_time = FOREVER
        if row >= start and state.pool[row, 0] > horizon:
            previous_time = state.pool[row, 0]
        for k in range(n_recent):
            at = row - k
            if at >= start and state.pool[at, 0] > horizon:
                recent[i, n_recent - 1 - k, 0] = state.pool[at, 0]
                recent[i, n_recent - 1 - k, 1] = state.pool[at, 2]
                recent[i, n_recent - 1 - k, 2] = state.pool[at, 3]
        end = t - delay
        while row >= start and state.pool[row, 0] > end:
            row -= 1
        newest_row, n_amounts, n_last, last_amounts = row, 0, 0, 0
        merchant, category = attributes >> MERCHANT_SHIFT & _MERCHANT_BITS, attributes >> CATEGORY_SHIFT & 0x3FFF
        country = attributes >> COUNTRY_SHIFT & 0x3FF
        running[:] = 0
        running[W_MAX] = -1
        square = 0.0
        if delay == 0:
            at = np.int64(np.uint64(merchant) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(50))
            merchant_stamp[at] = i
            merchant_at[at] = merchant
            running[W_MERCHANTS] = 1
            if country > 0:
                country_stamp[country] = i
                running[W_COUNTRIES] = 1
        w = 0
        while row >= start and w < n_windows:
            past = state.pool[row, 0]
            if past <= horizon:
                break
            while w < n_windows and past <= end - windows[w]:
                seen[w] = running
                squares[w] = square
                w += 1
            if w == n_windows:
                break
            past_amount, past_attributes = state.pool[row, 2], state.pool[row, 3]
            running[W_COUNT] += 1
            if past_amount >= 0:
                running[W_PRICED] += 1
                running[W_SUM] += past_amount
                square += float(past_amount) * float(past_amount)
                if past_amount > running[W_MAX]:
                    running[W_MAX] = past_amount
                if n_amounts < _NORMAL_OF:
                    amounts[n_amounts] = past_amount
                    n_amounts += 1
                    if n_amounts <= 3:
                        n_last, last_amounts = n_amounts, last_amounts + past_amount
            if past_attributes & UNUSUAL_BIT:
                if running[W_UNUSUAL] == 0:
                    running[W_LAST_UNUSUAL] = past
                running[W_FIRST_UNUSUAL] = past
                running[W_UNUSUAL] += 1
            running[W_LOW] += past_attributes & LOW_BIT
            if past_attributes & NIGHT_BIT:
                running[W_NIGHT] += 1
            past_channel = past_attributes >> CHANNEL_SHIFT & 3
            if past_channel > 0:
                running[W_CHANNELS] += 1
                if past_channel == CHANNEL_ONLINE:
                    running[W_ONLINE] += 1
            past_category = past_attributes >> CATEGORY_SHIFT & 0x3FFF
            if past_category > 0:
                running[W_CATEGORIES] += 1
                if past_category == category:
                    running[W_SAME_CATEGORY] += 1
            past_country = past_attributes >> COUNTRY_SHIFT & 0x3FF
            if past_country > 0:
                running[W_COUNTRIES_KNOWN] += 1
                if past_country == country:
                    running[W_SAME_COUNTRY] += 1
                if country_stamp[past_country] != i:
                    country_stamp[past_country] = i
                    running[W_COUNTRIES] += 1
            past_merchant = past_attributes >> MERCHANT_SHIFT & _MERCHANT_BITS
            if past_merchant == merchant:
                running[W_SAME_MERCHANT] += 1
            at = np.int64(np.uint64(past_merchant) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(50))
            while merchant_stamp[at] == i and merchant_at[at] != past_merchant:
                at = (at + 1) & (_STAMPS - 1)
            if merchant_stamp[at] != i:
                merchant_stamp[at] = i
                merchant_at[at] = past_merchant
                running[W_MERCHANTS] += 1
            row -= 1
        while w < n_windows:
            seen[w] = running
            squares[w] = square
            w += 1

        # 3. compute the key's normal amount, and find its known frauds
        normal_amount = math.nan
        if asks_normal:
            median = _median_low(amounts, n_amounts) if n_amounts > 0 else 0
            normal_amount = (n_amounts * float(median) + weight * drawn_to) / (n_amounts + weight)
        if judges and amount > unusual_ratio * normal_amount:
            marks[i] |= _UNUSUAL
            attributes |= UNUSUAL_BIT
        if asks_frauds:
            _find_frauds(state, slot, end, horizon, t, transaction, history, windows, frauds)

        # 4. compute the features
        lat, lon = columns.lat[i], columns.lon[i]
        placed = not math.isnan(lat) and attributes >> CHANNEL_SHIFT & 3 != CHANNEL_ONLINE
        kilometres = math.nan
        if placed and state.place_time[slot] > -FOREVER:
            kilometres = _kilometres(state.place[slot, 0], state.place[slot, 1], lat, lon)
        self_counted = 1 if delay == 0 else 0
        self_priced = 1 if delay == 0 and amount >= 0 else 0
        for f in range(n_ops):
            op, w = ops[f], op_windows[f]
            value = math.nan
            if op < 10:
                value = _event_feature(op, t, amount, attributes, major)
            elif op == Op.COUNT:
                value = float(seen[w, W_COUNT] + self_counted)
            elif op == Op.AMOUNT_SUM:
                value = (seen[w, W_SUM] + self_priced * amount) / major
            elif op == Op.AMOUNT_MEAN:
                priced = seen[w, W_PRICED] + self_priced
                value = (seen[w, W_SUM] + self_priced * amount) / priced / major if priced > 0 else math.nan
            elif op == Op.AMOUNT_MAX:
                biggest = max(seen[w, W_MAX], amount) if delay == 0 else seen[w, W_MAX]
                value = biggest / major if biggest >= 0 else math.nan
            elif op == Op.AMOUNT_RATIO:
                if amount >= 0 and seen[w, W_SUM] > 0:
                    value = amount * float(seen[w, W_PRICED]) / seen[w, W_SUM]
            elif op == Op.AMOUNT_TO_MAX:
                if amount >= 0 and seen[w, W_MAX] > 0:
                    value = amount / float(seen[w, W_MAX])
            elif op == Op.AMOUNT_ZSCORE:
                priced = seen[w, W_PRICED]
                if amount >= 0 and priced >= 2:
                    mean = seen[w, W_SUM] / priced
                    variance = max(0.0, squares[w] / priced - mean * mean)
                    value = (amount - mean) / (math.sqrt(variance) + major)
            elif op == Op.LOW_COUNT:
                value = float(seen[w, W_LOW] + self_counted * (attributes & LOW_BIT))
            elif op == Op.LOW_SHARE:
                value = _share(seen[w, W_LOW] + self_counted * (attributes & LOW_BIT), seen[w, W_COUNT] + self_counted)
            elif op == Op.DISTINCT_MERCHANTS:
                value = float(seen[w, W_MERCHANTS])
            elif op == Op.DISTINCT_COUNTRIES:
                value = float(seen[w, W_COUNTRIES])
            elif op == Op.NEW_MERCHANT:
                if seen[w, W_COUNT] > 0:
                    value = 0.0 if seen[w, W_SAME_MERCHANT] > 0 else 1.0
            elif op == Op.NEW_COUNTRY:
                if country > 0 and seen[w, W_COUNTRIES_KNOWN] > 0:
                    value = 0.0 if seen[w, W_SAME_COUNTRY] > 0 else 1.0
            elif op == Op.CATEGORY_SHARE:
                if category > 0:
                    value = _share(seen[w, W_SAME_CATEGORY], seen[w, W_CATEGORIES])
            elif op == Op.NIGHT_SHARE:
                value = _share(seen[w, W_NIGHT], seen[w, W_COUNT])
            elif op == Op.ONLINE_SHARE:
                value = _share(seen[w, W_ONLINE], seen[w, W_CHANNELS])
            elif op == Op.BURST:
                whole = (seen[n_windows - 1, W_COUNT] + self_counted) * float(windows[w])
                value = (seen[w, W_COUNT] + self_counted) * float(longest) / whole if whole > 0 else math.nan
            elif op == Op.MAX_TO_NORMAL:
                value = max(seen[w, W_MAX], 0) / normal_amount
            elif op == Op.UNUSUAL_COUNT:
                value = float(seen[w, W_UNUSUAL])
            elif op == Op.FIRST_UNUSUAL:
                value = _days(t, seen[w, W_FIRST_UNUSUAL]) if seen[w, W_UNUSUAL] > 0 else math.nan
            elif op == Op.LAST_UNUSUAL:
                value = _days(t, seen[w, W_LAST_UNUSUAL]) if seen[w, W_UNUSUAL] > 0 else math.nan
            elif op == Op.AMOUNT_TO_NORMAL:
                value = amount / normal_amount if amount >= 0 else math.nan
            elif op == Op.RECENT_TO_NORMAL:
                value = last_amounts / n_last / normal_amount if n_last > 0 else math.nan
            elif op == Op.FRAUD_COUNT:
                value = float(frauds[w, F_COUNT])
            elif op == Op.USUAL_FRAUD_COUNT:
                value = float(frauds[w, F_USUAL])
            elif op == Op.FRAUD_SHARE or op == Op.USUAL_FRAUD_SHARE:
                count = seen[w, W_COUNT] + self_counted
                value = frauds[w, F_COUNT if op == Op.FRAUD_SHARE else F_USUAL] / count if count > 0 else 0.0
            elif op == Op.FIRST_FRAUD:
                value = _days(t, frauds[w, F_FIRST]) if frauds[w, F_COUNT] > 0 else math.nan
            elif op == Op.LAST_FRAUD:
                value = _days(t, frauds[w, F_LAST]) if frauds[w, F_COUNT] > 0 else math.nan
            elif op == Op.FIRST_USUAL_FRAUD:
                value = _days(t, frauds[w, F_FIRST_USUAL]) if frauds[w, F_USUAL] > 0 else math.nan
            elif op == Op.LAST_USUAL_FRAUD:
                value = _days(t, frauds[w, F_LAST_USUAL]) if frauds[w, F_USUAL] > 0 else math.nan
            elif op == Op.LAST_LEGITIMATE:
                last = _last_legitimate(state, slot, end - windows[w], newest_row, horizon, t, transaction, history)
                value = _days(t, last) if last > NEVER else math.nan
            elif op == Op.SECONDS_SINCE_LAST:
                value = (t - previous_time) / 1000.0 if previous_time != FOREVER else math.nan
            elif op == Op.DISTANCE:
                value = kilometres
            elif op == Op.SPEED:
                if not math.isnan(kilometres):
                    value = kilometres / max(abs(t - state.place_time[slot]) / _MS_PER_HOUR, _JUST_NOW_HOURS)
            elif op == Op.NEW_DEVICE and columns.device[i] != 0 and state.devices[slot, 0] != 0:
                value = 1.0
                for d in range(DEVICES):
                    if state.devices[slot, d] == columns.device[i]:
                        value = 0.0
            out[i, f] = value

        # 5. add the transaction to the state
        state.dirty[slot] = 1
        if t > horizon:
            expired = 0
            if block[SIZE] == block[CAPACITY]:
                while expired < size and state.pool[start + expired, 0] <= horizon:
                    expired += 1
            _insert(state, block, position, expired, history, t, identity, amount, attributes)
        if placed and t >= state.place_time[slot]:
            state.place_time[slot], state.place[slot, 0], state.place[slot, 1] = t, lat, lon
        device = columns.device[i]
        if device != 0:
            at = 0
            while at < DEVICES - 1 and state.devices[slot, at] != device:
                at += 1
            while at > 0:
                state.devices[slot, at] = state.devices[slot, at - 1]
                at -= 1
            state.devices[slot, 0] = device
    return n


@njit(cache=True, nogil=True)
def update_bucketed(
    state, columns, keys, begin, windows, retention, level_of, resolutions, kept, history, room, major, prior, prior_weight, ops,
    op_windows, out,
):  # fmt: skip
    """
    Compute features from bucketed state for the events from index ``begin`` on, and add these events to the state.

    Level l keeps the newest ``kept[l]`` buckets of ``resolutions[l]`` ms. Bucket b starts at b times the resolution. Fills
    ``out`` float32 [n, F]. Returns the index of the first event that was not processed, as ``update_exact`` does.
    """
    n, n_ops, n_windows = len(keys), len(ops), len(windows)
    count, priced = np.zeros(n_windows, np.int64), np.zeros(n_windows, np.int64)
    low, total = np.zeros(n_windows, np.int64), np.zeros(n_windows, np.int64)
    for i in range(begin, n):
        if no_room(state, room):
            return i
        key, t, amount, attributes = keys[i], columns.event_time[i], columns.amount[i], columns.attributes[i]
        transaction = np.int64(columns.transaction[i])
        before = state.meta[WATERMARK]
        state.meta[WATERMARK] = max(before, t)
        slot = slot_for_update(state, key, retention)
        if slot < 0:
            state.meta[WATERMARK] = before
            return i

        # 1. add up the complete buckets of each window: walk each level back once, from the bucket before the event's
        for level in range(len(resolutions)):
            bucket, start = t // resolutions[level], np.int64(state.buckets[slot, level, START])
            row = start + state.buckets[slot, level, SIZE] - 1
            oldest = state.pool[row, 0] - kept[level] if row >= start else np.int64(0)
            while row >= start and state.pool[row, 0] >= bucket:
                row -= 1
            n_seen, n_priced, n_low, sum_seen = 0, 0, 0, 0
            for w in range(n_windows):
                if level_of[w] != level:
                    continue
                first = max(bucket - windows[w] // resolutions[level], oldest + 1)
                while row >= start and state.pool[row, 0] >= first:
                    n_seen += state.pool[row, 1] >> 32
                    n_priced += state.pool[row, 1] & 0xFFFFFFFF
                    n_low += state.pool[row, 2]
                    sum_seen += state.pool[row, 3]
                    row -= 1
                count[w], priced[w], low[w], total[w] = n_seen, n_priced, n_low, sum_seen

        # 2. compute the features
        for f in range(n_ops):
            op, w = ops[f], op_windows[f]
            value = math.nan
            if op < 10:
                value = _event_feature(op, t, amount, attributes, major)
            elif op == Op.COUNT:
                value = float(count[w])
            elif op == Op.AMOUNT_SUM:
                value = total[w] / major
            elif op == Op.AMOUNT_MEAN:
                value = total[w] / priced[w] / major if priced[w] > 0 else math.nan
            elif op == Op.AMOUNT_RATIO:
                value = amount * float(priced[w]) / total[w] if amount >= 0 and total[w] > 0 else math.nan
            elif op == Op.LOW_COUNT:
                value = float(low[w])
            elif op == Op.LOW_SHARE:
                value = _share(low[w], count[w])
            elif op == Op.FRAUD_REPORTS:
                value = float(_known_reports(state, slot, t - windows[w], t, transaction, history))
            elif op == Op.FRAUD_REPORT_SHARE:
                reports = _known_reports(state, slot, t - windows[w], t, transaction, history)
                value = (reports + prior * prior_weight) / (count[w] + prior_weight)
            out[i, f] = value

        # 3. count the transaction, unless its bucket is no longer kept
        state.dirty[slot] = 1
        state.newest[slot] = max(state.newest[slot], t)
        one = np.int64(1) << 32 | (1 if amount >= 0 else 0)
        for level in range(len(resolutions)):
            block, bucket = state.buckets[slot, level], t // resolutions[level]
            start, size = np.int64(block[START]), np.int64(block[SIZE])
            position, newest = size, bucket
            if size > 0:
                newest = max(bucket, state.pool[start + size - 1, 0])
            if bucket <= newest - kept[level]:
                continue
            while position > 0 and state.pool[start + position - 1, 0] > bucket:
                position -= 1
            if position > 0 and state.pool[start + position - 1, 0] == bucket:
                row = start + position - 1
                state.pool[row, 1] += one
                state.pool[row, 2] += attributes & LOW_BIT
                state.pool[row, 3] += max(amount, 0)
                continue
            expired = 0
            if size == block[CAPACITY]:
                while expired < position and state.pool[start + expired, 0] <= newest - kept[level]:
                    expired += 1
            _insert(state, block, position, expired, kept[level], bucket, one, attributes & LOW_BIT, max(amount, 0))
    return n


@njit(cache=True, nogil=True)
def apply_labels(state, labels, keys, begin, retention, history, room):
    """
    Add the labels from ``begin`` on to the state. Returns the index of the first label that was not processed, as
    ``update_exact`` does.

    A key keeps at most ``2 * history`` reports, and features use at most ``history`` known reports. A key can therefore also keep
    up to ``history`` reports that are not known yet, without losing a known report that features use.

    A fraud label counts from its label time on. If a later label says that the transaction was not fraud, the fraud label stops
    counting at that later label's time. An even later fraud label counts again. An older label never overrides a newer one.
    Applying a label twice has the same effect as applying it once.
    """
    for i in range(begin, len(keys)):
        if no_room(state, room):
            return i
        if not labels.fraud[i] and slot_of(state, keys[i]) < 0:
            continue
        slot = slot_for_update(state, keys[i], retention)
        if slot < 0:
            return i
        state.dirty[slot] = 1
        block = state.reports[slot]
        start, size = block[START], block[SIZE]
        transaction, label_time = np.int64(labels.transaction[i]), labels.label_time[i]
        found = False
        for row in range(start, start + size):
            if state.pool[row, 2] == transaction:
                if labels.fraud[i]:  # a stored report older than this label by more than the retention counts as dropped
                    found = found or (state.pool[row, 3] > label_time and state.pool[row, 0] >= label_time - retention)
                elif state.pool[row, 0] < label_time:
                    state.pool[row, 3] = min(state.pool[row, 3], label_time)
        if found or not labels.fraud[i]:
            continue
        position = size
        while position > 0 and state.pool[start + position - 1, 0] > label_time:
            position -= 1
        _insert(state, block, position, 0, 2 * history, label_time, labels.event_time[i], transaction, FOREVER)
    return len(keys)
