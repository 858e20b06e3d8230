"""A whole history in memory: columns, what became known of it and when, and its features."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

from core.errors import InputError
from core.messages import IDENTITY_FIELDS
from core.privacy.masking import Privacy
from models.features.columns import Int64s, LabelColumns, TransactionColumns, label_columns, table_columns
from models.features.engine import FeatureEngine, Matrix, Update
from models.features.spec import FeatureSpec
from models.features.state import FOREVER
from training.data.checks import check_fit
from training.data.readers import TransactionChunk, TransactionFile, read_labels

Mask = npt.NDArray[np.bool_]
Progress = Callable[[int], None]


class KnownLabels(Struct, frozen=True):
    """
    What became known of n transactions: reported as fraud at ``reported`` (``FOREVER`` if never), withdrawn at
    ``retracted``. Both int64 [n], ms.
    """

    reported: Int64s
    retracted: Int64s

    def fraud(self, as_of: int) -> Mask:
        """Which were known to be fraud at a time, bool [n]."""
        return (self.reported <= as_of) & (self.retracted > as_of)

    @property
    def final(self) -> Mask:
        """Which turned out to be fraud in the end, as far as the file tells, bool [n]."""
        return self.fraud(int(FOREVER) - 1)


class Dataset(Struct, frozen=True):
    """n transactions in the file's order: columns, the fields of their identity, amounts, what became known, and labels by time."""

    columns: TransactionColumns
    identities: pa.Table
    amounts: Int64s
    known: KnownLabels
    labels: LabelColumns


def columns_of(table: pa.Table, spec: FeatureSpec) -> TransactionColumns:
    """Columns of a reader's table as a spec wants them."""
    return table_columns(table, spec.currency, spec.rates, spec.low_amount, spec.night_until)


def column_labels(columns: TransactionColumns, chunk: TransactionChunk, delay_ms: int) -> LabelColumns:
    """The labels of a file that marks its frauds itself: each becomes known ``delay_ms`` after its transaction."""
    fraud = chunk.fraud if chunk.fraud is not None else np.zeros(len(chunk.table), np.bool_)
    frauds = columns.rows(fraud)
    return LabelColumns(
        transaction=frauds.transaction,
        card=frauds.card,
        merchant=frauds.merchant,
        event_time=frauds.event_time,
        label_time=frauds.event_time + delay_ms,
        fraud=np.ones(len(frauds.event_time), np.bool_),
    )


def concatenated_labels(parts: list[LabelColumns]) -> LabelColumns:
    """Labels of several sets, sorted by label time; at the same time in their order."""
    joined = LabelColumns(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return joined.rows(np.argsort(joined.label_time, kind="stable"))


def known_labels(transaction: npt.NDArray[np.uint64], labels: LabelColumns) -> KnownLabels:
    """Labels joined to transactions by the hash of card and transaction id."""
    ids, of_row = np.unique(transaction, return_inverse=True)
    reported = np.full(len(ids), FOREVER, np.int64)
    retracted = np.full(len(ids), FOREVER, np.int64)
    places = np.minimum(np.searchsorted(ids, labels.transaction), max(len(ids) - 1, 0))
    known = ids[places] == labels.transaction if len(ids) else np.zeros(len(places), np.bool_)
    for k in np.lexsort((labels.fraud, labels.label_time)):  # the newest label has the last word
        if not known[k]:
            continue
        place, when = places[k], labels.label_time[k]
        if not labels.fraud[k]:
            retracted[place] = min(retracted[place], when) if reported[place] < FOREVER else FOREVER
        elif retracted[place] < FOREVER or reported[place] == FOREVER:
            reported[place], retracted[place] = when, FOREVER
    return KnownLabels(reported[of_row], retracted[of_row])


def load_dataset(
    source: TransactionFile, spec: FeatureSpec, labels: Path | None, privacy: Privacy, progress: Progress
) -> Dataset:
    """
    Read a whole file and its labels, from a column of the file or a file of their own.

    Raises:
        InputError: if the file cannot be used or nothing says what was fraud.
    """
    if labels is None and not source.has_labels:
        raise InputError(
            "nothing says which transactions were fraud: give --labels FILE, or a mapping with a [label] section (docs/mappings.md)"
        )
    parts, identities, amounts, marked = [], [], [], []
    for chunk in source.chunks():
        columns = columns_of(chunk.table, spec)
        parts.append(columns)
        identities.append(chunk.table.select(IDENTITY_FIELDS))
        amounts.append(chunk.table["amount"].to_numpy())
        if labels is None:
            marked.append(column_labels(columns, chunk, source.label_delay_ms))
        progress(len(chunk.table))
    if not parts:
        raise InputError(f"{source.path} holds no transactions")
    columns = TransactionColumns(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    reports = concatenated_labels(marked) if labels is None else label_columns(read_labels(labels, privacy))
    return Dataset(
        columns=columns,
        identities=pa.concat_tables(identities),
        amounts=np.concatenate(amounts),
        known=known_labels(columns.transaction, reports),
        labels=reports,
    )


class LabelledReplay:
    """
    Feeds transactions and labels to an engine as they would have come: a label before the first batch that may know it.

    A label counts only from its label time on, so the size of the batches does not matter.
    """

    def __init__(self, engine: FeatureEngine, labels: LabelColumns | None = None) -> None:
        self._engine = engine
        self._pending = labels

    def add_labels(self, labels: LabelColumns) -> None:
        """More labels, which may be known later."""
        self._pending = labels if self._pending is None else concatenated_labels([self._pending, labels])

    def update(self, columns: TransactionColumns, recent: int = 0) -> Update:
        """As ``FeatureEngine.update``, after the labels that are known by the end of this batch."""
        if self._pending is not None and len(columns.event_time):
            due = int(np.searchsorted(self._pending.label_time, columns.event_time.max(), side="right"))
            if due:
                self._engine.apply_labels(self._pending.rows(slice(0, due)))
                self._pending = self._pending.rows(slice(due, None))
        return self._engine.update(columns, recent)


def features_of(
    dataset: Dataset, spec: FeatureSpec, progress: Progress, batch: int = 65_536, path: Path | None = None
) -> tuple[Matrix, Mask]:
    """
    X float32 [n, F] of a whole history and the mask of duplicates, bool [n].

    Raises:
        InputError: if the file it comes from, ``path``, is out of order or in another currency.
    """
    n = len(dataset.columns.event_time)
    X = np.empty((n, len(spec.feature_names)), np.float32)
    duplicate = np.empty(n, np.bool_)
    replay = LabelledReplay(FeatureEngine(spec), dataset.labels)
    for begin in range(0, n, batch):
        rows = slice(begin, begin + batch)
        columns = dataset.columns.rows(rows)
        X[rows], duplicate[rows], marks, _ = replay.update(columns)
        if path is not None:
            check_fit(columns.marked(marks), spec.currency, path)
        progress(len(X[rows]))
    return X, duplicate
