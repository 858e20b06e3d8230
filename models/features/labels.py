"""Kernels for fraud labels: add them to a key's reports, and find the reports that are known at a time."""

import numpy as np

from models.features.compiled import inlined, kernel
from models.features.state import FOREVER, NEVER, SIZE, START
from models.features.storage import insert, no_room, slot_for_update, slot_of


@kernel
def apply_labels(state, labels, keys, begin, retention, history, room):
    """
    Add the labels from ``begin`` on to the state. Returns the index of the first label that was not processed: ``len(keys)``,
    or less if the state needs room.

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
                if labels.fraud[i]:  # ignores a report older by more than the retention, as if dropped
                    found = found or (state.pool[row, 3] > label_time and state.pool[row, 0] >= label_time - retention)
                elif state.pool[row, 0] < label_time:
                    state.pool[row, 3] = min(state.pool[row, 3], label_time)
        if found or not labels.fraud[i]:
            continue
        position = size
        while position > 0 and state.pool[start + position - 1, 0] > label_time:
            position -= 1
        insert(state, block, position, NEVER, 2 * history, label_time, labels.event_time[i], transaction, FOREVER)
    return len(keys)


@inlined
def known_reports(state, slot, now, history):
    """Return the first and end row of a key's newest ``history`` reports that are known at ``now``."""
    start, end = state.reports[slot, START], state.reports[slot, START] + state.reports[slot, SIZE]
    while end > start and state.pool[end - 1, 0] > now:
        end -= 1
    return max(start, end - history), end


@inlined
def holds(state, report, now, own):
    """Return whether a known report is not retracted at ``now`` and concerns another transaction than ``own``."""
    return state.pool[report, 3] > now and state.pool[report, 2] != own
