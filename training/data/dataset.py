"""A whole transaction history in memory: columns, labels with the times at which they became known, and features."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

from core.errors import InputError
from core.messages import IDENTITY_FIELDS
from core.privacy.masking import Privacy
from models.features.columns import UNKNOWN_AMOUNT, Int64s, LabelColumns, TransactionColumns, label_columns, table_columns
from models.features.engine import COMPILING, FeatureEngine, Matrix, Update, compile_kernels
from models.features.spec import FeatureSpec
from models.features.state import FOREVER
from training.data.checks import check_file_suits_bundle
from training.data.conform import TransactionChunk
from training.data.readers import TransactionFile, read_labels
from training.progress import Advance, Progress

Mask = npt.NDArray[np.bool_]


class KnownLabels(Struct, frozen=True):
    """
    Fraud reports of n transactions: the time of each report, ``reported``, and of its retraction, ``retracted``.

    Both are int64 [n], ms, and ``FOREVER`` where there is none.
    """

    reported: Int64s
    retracted: Int64s

    def fraud(self, as_of: int) -> Mask:
        """Return which transactions are known to be fraud at the time ``as_of``, bool [n]."""
        return (self.reported <= as_of) & (self.retracted > as_of)

    @property
    def final(self) -> Mask:
        """Return which transactions are fraud once all labels of the file are known, bool [n]."""
        return self.fraud(int(FOREVER) - 1)


class Dataset(Struct, frozen=True):
    """
    n transactions in file order: columns, identity fields, amounts, fraud reports, and the labels sorted by label time.

    ``amounts`` are minor units of the spec's currency, 0 where there is no exchange rate.
    """

    columns: TransactionColumns
    identities: pa.Table
    amounts: Int64s
    known: KnownLabels
    labels: LabelColumns


def compile_with_progress(spec: FeatureSpec, progress: Progress) -> None:
    """Compile the kernels of a spec; show it as a stage if it takes long, as it does once per installation."""
    compile_kernels(spec, lambda: progress.stage(COMPILING))


def priced(columns: TransactionColumns) -> Int64s:
    """Return amounts in minor units of the spec's currency, int64 [n]; 0 where there is no exchange rate."""
    return np.where(columns.amount == UNKNOWN_AMOUNT, 0, columns.amount)


def columns_of(table: pa.Table, spec: FeatureSpec) -> TransactionColumns:
    """Return the columns of a reader's table, converted for a feature spec."""
    return table_columns(table, spec.currency, spec.rates, spec.low_amount, spec.night_until)


def column_labels(columns: TransactionColumns, chunk: TransactionChunk, delay_ms: int) -> LabelColumns:
    """Return the labels from a file's own label column. Each becomes known ``delay_ms`` after its transaction."""
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
    """Return the labels of several sets, sorted by label time. Labels with the same time keep their order."""
    joined = LabelColumns(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return joined.rows(np.argsort(joined.label_time, kind="stable"))


def known_labels(transaction: npt.NDArray[np.uint64], labels: LabelColumns) -> KnownLabels:
    """Return the fraud reports of transactions, joined to labels by the hash of card and transaction id."""
    ids, of_row = np.unique(transaction, return_inverse=True)
    reported = np.full(len(ids), FOREVER, np.int64)
    retracted = np.full(len(ids), FOREVER, np.int64)
    places = np.minimum(np.searchsorted(ids, labels.transaction), max(len(ids) - 1, 0))
    known = ids[places] == labels.transaction if len(ids) else np.zeros(len(places), np.bool_)
    for k in np.lexsort((labels.fraud, labels.label_time)):  # the newest label wins
        if not known[k]:
            continue
        place, when = places[k], labels.label_time[k]
        if not labels.fraud[k]:
            retracted[place] = min(retracted[place], when) if reported[place] < FOREVER else FOREVER
        elif retracted[place] < FOREVER or reported[place] == FOREVER:
            reported[place], retracted[place] = when, FOREVER
    return KnownLabels(reported[of_row], retracted[of_row])


def load_dataset(source: TransactionFile, spec: FeatureSpec, labels: Path | None, privacy: Privacy, progress: Advance) -> Dataset:
    """
    Read a whole transaction file and its labels, from the file ``labels`` or from a column of the transaction file.

    Raises:
        InputError: if the file cannot be used or there are no labels.
    """
    if labels is None and not source.has_labels:
        raise InputError("no fraud labels: give --labels FILE, or a mapping with a [label] section (docs/how-to/mappings.md)")
    parts, identities, amounts, marked = [], [], [], []
    for chunk in source.chunks():
        columns = columns_of(chunk.table, spec)
        parts.append(columns)
        identities.append(chunk.table.select(IDENTITY_FIELDS))
        amounts.append(priced(columns))
        if labels is None:
            marked.append(column_labels(columns, chunk, source.label_delay_ms))
        progress(len(chunk.table))
    if not parts:
        raise InputError(f"{source.path} contains no transactions")
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
    Replay of transactions and labels into a feature engine, in the order in which they became known.

    Labels are applied before the first batch that reaches their label time. A label takes effect only from its label time on,
    so the batch size does not change the result.
    """

    def __init__(self, engine: FeatureEngine, labels: LabelColumns | None = None) -> None:
        self._engine = engine
        self._pending = labels

    def add_labels(self, labels: LabelColumns) -> None:
        """Add labels. Each takes effect from its label time on."""
        self._pending = labels if self._pending is None else concatenated_labels([self._pending, labels])

    def update(self, columns: TransactionColumns, recent: int = 0) -> Update:
        """Apply the labels that are known by the end of this batch, then call ``FeatureEngine.update``."""
        if self._pending is not None and len(columns.event_time):
            due = int(np.searchsorted(self._pending.label_time, columns.event_time.max(), side="right"))
            if due:
                self._engine.apply_labels(self._pending.rows(slice(0, due)))
                self._pending = self._pending.rows(slice(due, None))
        return self._engine.update(columns, recent)


class HistoryFeatures(NamedTuple):
    """Features X float32 [n, F] of a history, and which rows are duplicates, bool [n]."""

    X: Matrix
    duplicate: Mask


def features_of(
    dataset: Dataset, spec: FeatureSpec, progress: Advance, batch: int = 65_536, path: Path | None = None
) -> HistoryFeatures:
    """
    Return the features X float32 [n, F] of a whole history, and the mask of duplicates, bool [n].

    Raises:
        InputError: if the source file ``path`` is unsorted or in another currency. Without ``path`` this is not checked.
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
            check_file_suits_bundle(columns.marked(marks), spec.currency, path)
        progress(len(X[rows]))
    return HistoryFeatures(X, duplicate)
