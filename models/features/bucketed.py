"""
Kernels of the bucketed state: counts and amounts in buckets of time.

They process one event at a time, in order: look up the key, compute the features from earlier events, then count the event.
"""

import math

import numpy as np

from models.features.columns import LOW_BIT
from models.features.compiled import inlined, kernel
from models.features.labels import holds, known_reports
from models.features.ops import Op, Source
from models.features.state import SIZE, START
from models.features.storage import insert, no_room, slot_for_event
from models.features.values import event_feature, share

# sums over the transactions in the buckets of a window
SUMS = np.dtype([("count", np.int64), ("priced", np.int64), ("low", np.int64), ("total", np.int64)])
_COUNT_SHIFT, _PRICED_MASK = 32, 0xFFFFFFFF  # a bucket's counts: transactions in the upper half, those with an amount below


@kernel
def update_bucketed(state, columns, keys, begin, plan, sums, out):
    """
    Compute features for the events from index ``begin`` on, and add these events to the state.

    Fills ``out`` float32 [n, F]; ``sums`` [W] is working memory. Returns the index of the first event that was not processed: n,
    or less if the state needs room.
    """
    for i in range(begin, len(keys)):
        if no_room(state, plan.room):
            return i
        t, amount, attributes = columns.event_time[i], columns.amount[i], columns.attributes[i]
        slot, _ = slot_for_event(state, keys[i], t, plan.retention)
        if slot < 0:
            return i
        for level in range(len(plan.levels)):
            _add_up(state, plan, slot, level, t // plan.levels[level].resolution, sums)
        transaction = np.int64(columns.transaction[i])
        for f in range(len(plan.features)):
            feature = plan.features[f]
            if feature.source == Source.EVENT:
                out[i, f] = event_feature(feature.op, t, amount, attributes, plan.major)
            elif feature.source == Source.WINDOW:
                out[i, f] = _window_feature(feature.op, sums[feature.window], amount, plan.major)
            else:
                since = t - plan.windows[feature.window].length
                reports = _reports(state, slot, since, t, transaction, plan.history)
                out[i, f] = _report_feature(feature.op, reports, sums[feature.window].count, plan.fraud_prior, plan.prior_weight)
        state.dirty[slot] = 1
        state.newest[slot] = max(state.newest[slot], t)
        for level in range(len(plan.levels)):
            _count(state, plan.levels[level], state.buckets[slot, level], t, amount, attributes)
    return len(keys)


@inlined
def _add_up(state, plan, slot, level, bucket, sums):
    """Add up the complete buckets before ``bucket`` for each window of a level, walking back once over the level's buckets."""
    pool, start = state.pool, np.int64(state.buckets[slot, level, START])
    row = start + state.buckets[slot, level, SIZE] - 1
    oldest = pool[row, 0] - plan.levels[level].kept if row >= start else np.int64(0)
    while row >= start and pool[row, 0] >= bucket:
        row -= 1
    count, priced, low, total = 0, 0, 0, 0
    for w in range(len(plan.windows)):
        if plan.windows[w].level != level:
            continue
        first = max(bucket - plan.windows[w].buckets, oldest + 1)
        while row >= start and pool[row, 0] >= first:
            count += pool[row, 1] >> _COUNT_SHIFT
            priced += pool[row, 1] & _PRICED_MASK
            low += pool[row, 2]
            total += pool[row, 3]
            row -= 1
        own = sums[w]
        own.count, own.priced, own.low, own.total = count, priced, low, total


@inlined
def _window_feature(op, window, amount, major):
    """Return a feature of the transactions of a window; ``window`` is a record of ``SUMS``."""
    if op == Op.COUNT:
        return float(window.count)
    if op == Op.AMOUNT_SUM:
        return window.total / major
    if op == Op.AMOUNT_MEAN:
        return window.total / window.priced / major if window.priced > 0 else math.nan
    if op == Op.AMOUNT_RATIO:
        return amount * float(window.priced) / window.total if amount >= 0 and window.total > 0 else math.nan
    if op == Op.LOW_COUNT:
        return float(window.low)
    if op == Op.LOW_SHARE:
        return share(window.low, window.count)
    return math.nan


@inlined
def _reports(state, slot, since, now, own, history):
    """Count a key's fraud reports that became known after ``since`` and hold at ``now``, except for the transaction ``own``."""
    first, end = known_reports(state, slot, now, history)
    found = 0
    for report in range(first, end):
        if state.pool[report, 0] > since and holds(state, report, now, own):
            found += 1
    return found


@inlined
def _report_feature(op, reports, count, prior, prior_weight):
    if op == Op.FRAUD_REPORTS:
        return float(reports)
    if op == Op.FRAUD_REPORT_SHARE:
        return (reports + prior * prior_weight) / (count + prior_weight)
    return math.nan


@inlined
def _count(state, level, block, t, amount, attributes):
    """Count a transaction in its bucket of a level, unless that bucket is no longer kept."""
    pool, bucket = state.pool, t // level.resolution
    start, size = np.int64(block[START]), np.int64(block[SIZE])
    newest = max(bucket, pool[start + size - 1, 0]) if size > 0 else bucket
    if bucket <= newest - level.kept:
        return
    position = size
    while position > 0 and pool[start + position - 1, 0] > bucket:
        position -= 1
    one, low, paid = np.int64(1) << _COUNT_SHIFT | (1 if amount >= 0 else 0), attributes & LOW_BIT, max(amount, 0)
    if position > 0 and pool[start + position - 1, 0] == bucket:
        row = start + position - 1
        pool[row, 1] += one
        pool[row, 2] += low
        pool[row, 3] += paid
    else:
        insert(state, block, position, newest - level.kept, level.kept, bucket, one, low, paid)
