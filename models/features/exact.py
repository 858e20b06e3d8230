"""
Kernels of the exact state: a key's newest transactions, one row each.

They process events in order. For each event, they look up the key, aggregate its earlier transactions, and add the event to the
state. The features are then computed from the aggregates, for up to 64 events at a time. All sums of money are integers, so that
neither the order of addition nor the batch size can change a bit of a result.
"""

import math
from typing import NamedTuple

import numpy as np

from core.clock import MS_PER_HOUR
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
    Int64s,
    Mark,
)  # fmt: skip
from models.features.compiled import inlined, kernel
from models.features.labels import holds, known_reports
from models.features.ops import Op, Source
from models.features.plan import ExactPlan, Records
from models.features.state import DEVICES, FOREVER, NEVER, SIZE, START
from models.features.storage import fetch_ahead, insert, no_room, slot_for_event
from models.features.values import days, event_feature, share

_EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
_JUST_NOW_HOURS = 1 / 60  # shortest time used to compute a speed; a shorter time between two places counts as one minute
_NORMAL_OF = 51  # number of recent amounts whose median gives the normal amount
_LAST = 3  # number of last amounts that are compared with the normal amount
_MERCHANT_BITS, _CATEGORY_BITS, _COUNTRY_BITS, _CHANNEL_BITS = 0xFFFFFFFF, 0x3FFF, 0x3FF, 3
_OWN_BITS = (1 << MARK_SHIFT) - 1  # attribute bits of the transaction itself, without marks
_ID_SHIFT = np.uint64(32)  # the upper half of an identity is the upper half of the hash of card and id
_UNUSUAL, _LATE, _REUSED = int(Mark.UNUSUAL), int(Mark.LATE), int(Mark.REUSED)
_HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

# aggregates over a window's earlier transactions; first and last times are valid only where there is an unusual amount
_WINDOW = np.dtype(
    [
        *((name, np.int64) for name in ("count", "priced", "total", "highest", "low", "night", "online", "channels")),
        *((name, np.int64) for name in ("categories", "same_category", "countries_known", "same_country", "same_merchant")),
        *((name, np.int64) for name in ("merchants", "countries", "unusual", "first_unusual", "last_unusual")),
        ("squares", np.float64),
    ]
)
# aggregates over a window's known frauds; first and last times are valid only where the count is above zero
_FRAUDS = np.dtype(
    [(name, np.int64) for name in ("count", "first", "last", "usual", "first_usual", "last_usual", "last_legitimate")]
)
# inputs of the features without a window, and the normal amount; NaN where unknown
# ``hours`` is valid only if ``kilometres`` is known
_KEY = np.dtype([(name, np.float64) for name in ("normal_amount", "recent_mean", "seconds", "kilometres", "hours", "new_device")])
_BLOCK = 64  # events whose aggregates are kept; each feature is then computed for all of them in one loop


class Work(NamedTuple):
    """
    Working memory of the kernels: the aggregates of a block of events, the last amounts of a key, and two sets.

    ``merchants`` is a hash table; each word holds a stamp and a merchant. ``countries[c]`` is the last stamp that saw country c.
    A new stamp, the event's index, empties both sets.
    """

    windows: Records
    frauds: Records
    known: Records
    amounts: Int64s
    merchants: Int64s
    countries: Int64s


def new_work(plan: ExactPlan) -> Work:
    """Return working memory for one call of ``update_exact``. Another call would use the same stamps again."""
    windows = (_BLOCK, len(plan.windows))
    return Work(
        windows=np.zeros(windows, _WINDOW),
        frauds=np.zeros(windows, _FRAUDS),
        known=np.zeros(_BLOCK, _KEY),
        amounts=np.zeros(_NORMAL_OF, np.int64),
        # an event adds at most history + 1 merchants, so a free word remains whenever a new merchant is looked up
        merchants=np.full(1 << (2 * plan.history - 1).bit_length(), -1, np.int64),
        countries=np.full(COUNTRIES, -1, np.int64),
    )


@kernel
def update_exact(state, columns, keys, begin, plan, work, update):
    """
    Compute features for the events from index ``begin`` on, and add these events to the state.

    The arrays of ``update``, an ``Update``, are filled in place. A duplicate does not change the state. Returns the index of the
    first event that was not processed: n, or less if the state needs room.
    """
    n = len(keys)
    while begin < n:
        end = min(begin + _BLOCK, n)
        done = begin
        while done < end:
            fetch_ahead(state, keys, done)
            if not _update_one(state, columns, keys, done, plan, work, done - begin, update):
                break
            done += 1
        _features(columns, begin, done, plan, work, update)
        if done < end:
            return done
        begin = end
    return n


@inlined
def _update_one(state, columns, keys, i, plan, work, place, update):
    """
    Add event i to the state, and write the inputs of its features to row ``place`` of ``work``.

    Return False, with nothing changed, if the state needs room.
    """
    if no_room(state, plan.room):
        return False
    known = work.known[place]
    t, amount, attributes = columns.event_time[i], columns.amount[i], columns.attributes[i]
    transaction = np.int64(columns.transaction[i])
    identity = np.int64(columns.transaction[i] >> _ID_SHIFT << _ID_SHIFT | columns.content[i] >> _ID_SHIFT)
    slot, newest_before = slot_for_event(state, keys[i], t, plan.retention)
    if slot < 0:
        return False
    pool, start, size = state.pool, np.int64(state.ring[slot, START]), np.int64(state.ring[slot, SIZE])

    # 1. skip an identical transaction; mark a different transaction with the same id
    horizon = state.newest[slot] - plan.retention
    update.duplicate[i], reused = _repeats(pool, start, size, horizon, transaction, identity, t, amount, attributes)
    if update.duplicate[i]:
        return True
    update.marks[i] = (_REUSED if reused else 0) | (_LATE if t < newest_before - plan.lateness else 0)

    # 2. find the transaction's position among the earlier ones, and aggregate those of each window
    state.newest[slot] = max(state.newest[slot], t)
    horizon = state.newest[slot] - plan.retention
    position = size
    while position > 0 and pool[start + position - 1, 0] > t:
        position -= 1
    previous = start + position - 1
    known.seconds = (t - pool[previous, 0]) / 1000.0 if previous >= start and pool[previous, 0] > horizon else math.nan
    _copy_recent(pool, start, previous, horizon, update.recent[i])
    end, last = t - plan.delay, previous
    while last >= start and pool[last, 0] > end:
        last -= 1
    _aggregate(pool, start, last, end, horizon, attributes, plan, i, work.windows[place], work.merchants, work.countries)

    # 3. compute the key's normal amount, and find its known frauds
    if plan.uses_normal:
        oldest = max(end - plan.windows[len(plan.windows) - 1].length, horizon)
        count = _last_amounts(pool, start, last, oldest, work.amounts)
        known.recent_mean = _recent_mean(work.amounts, count)
        median = _median_low(work.amounts, count) if count > 0 else 0
        known.normal_amount = (count * float(median) + plan.normal_weight * plan.normal_amount) / (count + plan.normal_weight)
        if plan.marks_unusual and amount > plan.unusual_ratio * known.normal_amount:
            update.marks[i] |= _UNUSUAL
            attributes |= UNUSUAL_BIT
    if plan.uses_frauds:
        _find_frauds(state, slot, last, end, horizon, t, transaction, plan, work.frauds[place])

    # 4. compare place and device with the key's last ones
    lat, lon, device = columns.lat[i], columns.lon[i], columns.device[i]
    placed = not math.isnan(lat) and attributes >> CHANNEL_SHIFT & _CHANNEL_BITS != CHANNEL_ONLINE
    known.kilometres = math.nan
    if placed and state.place_time[slot] > -FOREVER:
        known.kilometres = _kilometres(state.place[slot, 0], state.place[slot, 1], lat, lon)
        known.hours = max(abs(t - state.place_time[slot]) / MS_PER_HOUR, _JUST_NOW_HOURS)
    known.new_device = _new_device(state.devices[slot], device)

    # 5. add the transaction to the state
    state.dirty[slot] = 1
    if t > horizon:
        insert(state, state.ring[slot], position, horizon, plan.history, t, identity, amount, attributes)
    if placed and t >= state.place_time[slot]:
        state.place_time[slot], state.place[slot, 0], state.place[slot, 1] = t, lat, lon
    if device != 0:
        _remember_device(state.devices[slot], device)
    return True


@kernel
def _features(columns, begin, end, plan, work, update):
    """Compute the features of the events from ``begin`` to ``end``, feature by feature, from what ``_update_one`` wrote."""
    own = 1 if plan.delay == 0 else 0  # whether the windows include the transaction itself
    windows, frauds, known, X = work.windows, work.frauds, work.known, update.X
    longest = len(plan.windows) - 1
    for f in range(len(plan.features)):
        op, source, w = plan.features[f].op, plan.features[f].source, plan.features[f].window
        for i in range(begin, end):
            at, t, amount, attributes = i - begin, columns.event_time[i], columns.amount[i], columns.attributes[i]
            if update.duplicate[i]:
                X[i, f] = math.nan
            elif source == Source.EVENT:
                X[i, f] = event_feature(op, t, amount, attributes, plan.major)
            elif source == Source.LABELS:
                X[i, f] = _fraud_feature(op, frauds[at, w], windows[at, w].count + own, t)
            elif source == Source.KEY:
                X[i, f] = _key_feature(op, known[at], amount)
            elif op == Op.BURST:
                X[i, f] = _burst(
                    windows[at, w].count + own, windows[at, longest].count + own, plan.windows[w], plan.windows[longest]
                )
            else:
                X[i, f] = _window_feature(op, windows[at, w], own, t, amount, attributes, known[at].normal_amount, plan.major)


@inlined
def _same_id(identity, transaction):
    """Return whether a stored identity and ``transaction`` share the upper 32 bits of their hash of card and transaction id."""
    return (np.uint64(identity) ^ np.uint64(transaction)) >> _ID_SHIFT == np.uint64(0)


@inlined
def _repeats(pool, start, size, horizon, transaction, identity, t, amount, attributes):
    """Return whether an identical transaction is stored, and whether any transaction with the same id is."""
    reused = False
    for row in range(start + size - 1, start - 1, -1):
        if pool[row, 0] <= horizon:
            break
        if _same_id(pool[row, 1], transaction):
            reused = True
            same = pool[row, 1] == identity and pool[row, 0] == t and pool[row, 2] == amount
            if same and (pool[row, 3] ^ attributes) & _OWN_BITS == 0:
                return True, True
    return False, reused


@inlined
def _copy_recent(pool, start, row, horizon, recent):
    """Fill ``recent``, int64 [K, 3], with time, amount and attributes of the last transactions up to ``row``, the newest last."""
    at = len(recent) - 1
    while at >= 0 and row >= start and pool[row, 0] > horizon:
        recent[at, 0] = pool[row, 0]
        recent[at, 1] = pool[row, 2]
        recent[at, 2] = pool[row, 3]
        at -= 1
        row -= 1


@inlined
def _aggregate(pool, start, row, end, horizon, attributes, plan, stamp, windows, merchants, countries):
    """
    Write the aggregates of each window that ends at ``end`` to ``windows``, walking back once from ``row``.

    ``merchants`` and ``countries`` are the sets of ``Work``; a new ``stamp`` empties them.
    """
    merchant = attributes >> MERCHANT_SHIFT & _MERCHANT_BITS
    category = attributes >> CATEGORY_SHIFT & _CATEGORY_BITS
    country = attributes >> COUNTRY_SHIFT & _COUNTRY_BITS
    count, priced, total, highest, squares = 0, 0, 0, -1, 0.0
    low, night, online, channels = 0, 0, 0, 0
    categories, same_category, countries_known, same_country, same_merchant = 0, 0, 0, 0, 0
    unusual, first_unusual, last_unusual = 0, 0, 0
    n_merchants, n_countries = 0, 0
    countries[0] = stamp  # an unknown country is never counted
    if plan.delay == 0:
        n_merchants += _seen_first(merchants, merchant, stamp)
        n_countries += 1 if countries[country] != stamp else 0
        countries[country] = stamp
    for w in range(len(plan.windows)):
        oldest, newest_row = max(end - plan.windows[w].length, horizon), row
        while row >= start and pool[row, 0] > oldest:
            amount, past = pool[row, 2], pool[row, 3]
            known, paid = 1 if amount >= 0 else 0, max(amount, 0)
            priced += known
            total += paid
            squares += float(paid) * float(paid)
            highest = max(highest, amount)
            low += past & LOW_BIT
            night += 1 if past & NIGHT_BIT else 0
            channel = past >> CHANNEL_SHIFT & _CHANNEL_BITS
            channels += 1 if channel > 0 else 0
            online += 1 if channel == CHANNEL_ONLINE else 0
            past_category = past >> CATEGORY_SHIFT & _CATEGORY_BITS
            categories += 1 if past_category > 0 else 0
            same_category += 1 if past_category == category else 0
            past_country = past >> COUNTRY_SHIFT & _COUNTRY_BITS
            countries_known += 1 if past_country > 0 else 0
            same_country += 1 if past_country == country else 0
            same_merchant += 1 if past >> MERCHANT_SHIFT & _MERCHANT_BITS == merchant else 0
            if past & UNUSUAL_BIT:
                last_unusual = last_unusual if unusual else pool[row, 0]
                first_unusual = pool[row, 0]
                unusual += 1
            row -= 1
        count += newest_row - row
        if plan.windows[w].merchants:
            n_merchants += _new_merchants(pool, row, newest_row, merchants, stamp)
        if plan.windows[w].countries:
            n_countries += _new_countries(pool, row, newest_row, countries, stamp)
        own = windows[w]
        own.count, own.priced, own.total, own.highest, own.squares = count, priced, total, highest, squares
        own.low, own.night, own.online, own.channels = low, night, online, channels
        own.categories, own.same_category = categories, same_category if category > 0 else 0
        own.countries_known, own.same_country = countries_known, same_country if country > 0 else 0
        own.same_merchant, own.merchants, own.countries = same_merchant, n_merchants, n_countries
        own.unusual, own.first_unusual, own.last_unusual = unusual, first_unusual, last_unusual


@inlined
def _seen_first(merchants, merchant, stamp):
    """Add a merchant to the set of this stamp. Return 1 if it is new, else 0. Words with an older stamp count as empty."""
    mask = len(merchants) - 1
    word = np.int64(stamp) << 32 | merchant
    at = np.int64(np.uint64(merchant) * _HASH_MULTIPLIER >> np.uint64(40)) & mask
    while merchants[at] != word:
        if merchants[at] >> 32 != stamp:
            merchants[at] = word
            return 1
        at = (at + 1) & mask
    return 0


@kernel
def _new_merchants(pool, before, last, merchants, stamp):
    """Add the merchants of the rows after ``before`` up to ``last`` to the set of this stamp, and return how many are new."""
    new = 0
    while last > before:
        new += _seen_first(merchants, pool[last, 3] >> MERCHANT_SHIFT & _MERCHANT_BITS, stamp)
        last -= 1
    return new


@kernel
def _new_countries(pool, before, last, countries, stamp):
    """Add the countries of the rows after ``before`` up to ``last`` to the set of this stamp, and return how many are new."""
    new = 0
    while last > before:
        country = pool[last, 3] >> COUNTRY_SHIFT & _COUNTRY_BITS
        new += 1 if countries[country] != stamp else 0
        countries[country] = stamp
        last -= 1
    return new


@inlined
def _last_amounts(pool, start, row, oldest, amounts):
    """Write the last known amounts up to ``row`` to ``amounts``, newest first, and return how many there are."""
    count = 0
    while count < len(amounts) and row >= start and pool[row, 0] > oldest:
        amounts[count] = pool[row, 2]
        count += 1 if pool[row, 2] >= 0 else 0
        row -= 1
    return count


@inlined
def _recent_mean(amounts, count):
    """Return the mean of the first three amounts, or of as many as there are; NaN if there is none."""
    total, n = 0, min(count, _LAST)
    for at in range(n):
        total += amounts[at]
    return total / n if n > 0 else math.nan


@kernel
def _median_low(values, n):
    """
    Return the lower median of the first ``n`` values, int64. Overwrites the values.

    Quickselect: each pass keeps the values on the wanted side of a pivot. The passes have no branches that depend on values,
    because a mispredicted branch costs more than moving a value.
    """
    wanted = (n - 1) // 2
    while True:
        pivot = values[n // 2]
        below = equal = 0
        for at in range(n):
            below += 1 if values[at] < pivot else 0
            equal += 1 if values[at] == pivot else 0
        kept = 0
        if wanted < below:
            for at in range(n):
                value = values[at]
                values[kept] = value
                kept += 1 if value < pivot else 0
        elif wanted >= below + equal:
            for at in range(n):
                value = values[at]
                values[kept] = value
                kept += 1 if value > pivot else 0
            wanted -= below + equal
        else:
            return pivot
        n = kept


@kernel
def _find_frauds(state, slot, last, end, horizon, now, own, plan, frauds):
    """
    Fill ``frauds`` for each window that ends at ``end``: aggregates of the frauds known at ``now``, and the time of the last legitimate
    transaction if a feature uses it. ``last`` is the newest row at or before ``end``.

    A fraud is usual if its transaction is still stored and its amount was not unusual.
    """
    pool, windows = state.pool, plan.windows
    legitimate = _last_legitimate(state, slot, last, end, horizon, now, own, plan) if plan.uses_legitimate else NEVER
    for w in range(len(windows)):
        frauds[w].count = frauds[w].usual = 0
        frauds[w].last_legitimate = legitimate if legitimate > end - windows[w].length else NEVER
    oldest = end - windows[len(windows) - 1].length
    first_known, end_known = known_reports(state, slot, now, plan.history)
    for report in range(first_known, end_known):
        event_time, transaction = pool[report, 1], pool[report, 2]
        if not oldest < event_time <= end or not holds(state, report, now, own):
            continue
        usual = event_time > horizon and _usual(pool, state.ring[slot, START], state.ring[slot, SIZE], event_time, transaction)
        for w in range(len(windows)):
            if event_time <= end - windows[w].length:
                continue
            found = frauds[w]
            found.first = event_time if found.count == 0 else min(found.first, event_time)
            found.last = event_time if found.count == 0 else max(found.last, event_time)
            found.count += 1
            if usual:
                found.first_usual = event_time if found.usual == 0 else min(found.first_usual, event_time)
                found.last_usual = event_time if found.usual == 0 else max(found.last_usual, event_time)
                found.usual += 1


@inlined
def _usual(pool, start, size, event_time, transaction):
    """Return whether a transaction is stored with an amount that was not unusual; binary search by its time."""
    low, high = np.int64(start), np.int64(start + size)
    while low < high:
        middle = (low + high) // 2
        if pool[middle, 0] < event_time:
            low = middle + 1
        else:
            high = middle
    while low < start + size and pool[low, 0] == event_time:
        if _same_id(pool[low, 1], transaction) and pool[low, 3] & UNUSUAL_BIT == 0:
            return True
        low += 1
    return False


@kernel
def _last_legitimate(state, slot, row, end, horizon, now, own, plan):
    """
    Return the event time of the newest stored transaction that is in the longest window and not known to be fraud, or ``NEVER``. The
    search goes backwards from ``row``.
    """
    pool, start = state.pool, state.ring[slot, START]
    oldest = max(end - plan.windows[len(plan.windows) - 1].length, horizon)
    first, behind = known_reports(state, slot, now, plan.history)
    while row >= start and pool[row, 0] > oldest:
        fraud = False
        for report in range(first, behind):
            if _same_id(pool[row, 1], pool[report, 2]) and holds(state, report, now, own):
                fraud = True
                break
        if not fraud:
            return pool[row, 0]
        row -= 1
    return NEVER


@inlined
def _window_feature(op, window, own, t, amount, attributes, normal_amount, major):
    """Return a feature of a window, except the burst. ``own`` is 1 if the window includes the transaction itself, else 0."""
    paid = own if amount >= 0 else 0
    count, priced, total = window.count + own, window.priced + paid, window.total + paid * amount
    if op == Op.COUNT:
        return float(count)
    if op == Op.AMOUNT_SUM:
        return total / major
    if op == Op.AMOUNT_MEAN:
        return total / priced / major if priced > 0 else math.nan
    if op == Op.AMOUNT_MAX:
        highest = max(window.highest, amount) if own else window.highest
        return highest / major if highest >= 0 else math.nan
    if op == Op.AMOUNT_RATIO:
        return amount * float(window.priced) / window.total if amount >= 0 and window.total > 0 else math.nan
    if op == Op.AMOUNT_TO_MAX:
        return amount / float(window.highest) if amount >= 0 and window.highest > 0 else math.nan
    if op == Op.AMOUNT_ZSCORE:
        return _deviation(window, amount, major)
    if op == Op.LOW_COUNT:
        return float(window.low + own * (attributes & LOW_BIT))
    if op == Op.LOW_SHARE:
        return share(window.low + own * (attributes & LOW_BIT), count)
    if op == Op.DISTINCT_MERCHANTS:
        return float(window.merchants)
    if op == Op.DISTINCT_COUNTRIES:
        return float(window.countries)
    if op == Op.NEW_MERCHANT:
        return _is_new(window.same_merchant) if window.count > 0 else math.nan
    if op == Op.NEW_COUNTRY:
        known = attributes >> COUNTRY_SHIFT & _COUNTRY_BITS > 0 and window.countries_known > 0
        return _is_new(window.same_country) if known else math.nan
    if op == Op.CATEGORY_SHARE:
        known = attributes >> CATEGORY_SHIFT & _CATEGORY_BITS > 0
        return share(window.same_category, window.categories) if known else math.nan
    if op == Op.NIGHT_SHARE:
        return share(window.night, window.count)
    if op == Op.ONLINE_SHARE:
        return share(window.online, window.channels)
    if op == Op.MAX_TO_NORMAL:
        return max(window.highest, 0) / normal_amount
    if op == Op.UNUSUAL_COUNT:
        return float(window.unusual)
    if op == Op.FIRST_UNUSUAL:
        return days(t, window.first_unusual) if window.unusual > 0 else math.nan
    if op == Op.LAST_UNUSUAL:
        return days(t, window.last_unusual) if window.unusual > 0 else math.nan
    return math.nan


@inlined
def _burst(count, longest_count, window, longest):
    """Return the rate of transactions in a window over the rate in the longest window; both are records of the plan."""
    whole = longest_count * float(window.length)
    return count * float(longest.length) / whole if whole > 0 else math.nan


@inlined
def _is_new(times_seen):
    return 0.0 if times_seen > 0 else 1.0


@inlined
def _deviation(window, amount, major):
    """Return an amount's distance from the window's mean, divided by the sum of the standard deviation and one major unit of money."""
    if amount < 0 or window.priced < 2:
        return math.nan
    mean = window.total / window.priced
    variance = max(0.0, window.squares / window.priced - mean * mean)
    return (amount - mean) / (math.sqrt(variance) + major)


@inlined
def _fraud_feature(op, frauds, count, t):
    """Return a feature of a window's known frauds; ``count`` is the number of the window's transactions."""
    if op == Op.FRAUD_COUNT:
        return float(frauds.count)
    if op == Op.USUAL_FRAUD_COUNT:
        return float(frauds.usual)
    if op == Op.FRAUD_SHARE:
        return frauds.count / count if count > 0 else 0.0
    if op == Op.USUAL_FRAUD_SHARE:
        return frauds.usual / count if count > 0 else 0.0
    if op == Op.FIRST_FRAUD:
        return days(t, frauds.first) if frauds.count > 0 else math.nan
    if op == Op.LAST_FRAUD:
        return days(t, frauds.last) if frauds.count > 0 else math.nan
    if op == Op.FIRST_USUAL_FRAUD:
        return days(t, frauds.first_usual) if frauds.usual > 0 else math.nan
    if op == Op.LAST_USUAL_FRAUD:
        return days(t, frauds.last_usual) if frauds.usual > 0 else math.nan
    if op == Op.LAST_LEGITIMATE:
        return days(t, frauds.last_legitimate) if frauds.last_legitimate > NEVER else math.nan
    return math.nan


@inlined
def _key_feature(op, known, amount):
    """Return a feature without a window; ``known`` is a record of ``_KEY``."""
    if op == Op.SECONDS_SINCE_LAST:
        return known.seconds
    if op == Op.DISTANCE:
        return known.kilometres
    if op == Op.SPEED:
        return known.kilometres / known.hours
    if op == Op.NEW_DEVICE:
        return known.new_device
    if op == Op.AMOUNT_TO_NORMAL:
        return amount / known.normal_amount if amount >= 0 else math.nan
    if op == Op.RECENT_TO_NORMAL:
        return known.recent_mean / known.normal_amount
    return math.nan


@kernel
def _kilometres(lat1, lon1, lat2, lon2):
    """Return the great-circle distance in km by the haversine formula."""
    p1, p2 = math.radians(lat1), math.radians(lat2)
    half_lat, half_lon = (p2 - p1) / 2.0, math.radians(lon2 - lon1) / 2.0
    a = math.sin(half_lat) ** 2 + math.cos(p1) * math.cos(p2) * math.sin(half_lon) ** 2
    return 2.0 * _EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(a)))


@inlined
def _new_device(devices, device):
    """Return 1 if a device is not among the key's last devices, else 0; NaN if the device is unknown or the key has no known device."""
    if device == 0 or devices[0] == 0:
        return math.nan
    for known in devices:
        if known == device:
            return 0.0
    return 1.0


@inlined
def _remember_device(devices, device):
    """Put a device first among the key's last devices. A new device displaces the oldest."""
    at = 0
    while at < DEVICES - 1 and devices[at] != device:
        at += 1
    while at > 0:
        devices[at] = devices[at - 1]
        at -= 1
    devices[0] = device
