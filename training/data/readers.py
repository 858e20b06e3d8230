"""
Files of transactions and labels: CSV, Parquet and JSON Lines; one file, a folder or a pattern.

A row that cannot be used is counted, and written with its line and its reason to a rejects file; reading continues with the next row.
The result is a table with the fields of ``Transaction`` as columns. Private data is already tokenised or masked: no raw card
number leaves this package.
"""

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from core.clock import Clock, SystemClock, duration_ms
from core.decoding import private
from core.errors import InputError, InvalidEvent, MappingError, MissingKeyError
from core.messages import Label, Transaction
from core.privacy.masking import WITHOUT_KEY, Privacy, without_controls
from core.privacy.sensitive import mask
from training.data.conform import Conformer, TransactionChunk
from training.data.formats import SEPARATORS, DataFile, Format, csv_header, data_files, read_pieces
from training.data.mapping import Mapping

CHUNK_ROWS = 65_536
_REASONS_COUNTED = 1_000  # maximum number of distinct reasons that are counted; reasons that contain values could be very many


def messages_of(table: pa.Table) -> Iterator[Transaction]:
    """Yield the rows of a reader's table as messages."""
    for values in table.to_pylist():
        for field in ("lat", "lon"):
            if values[field] is not None and np.isnan(values[field]):
                values[field] = None
        yield msgspec.convert(values, Transaction)


class _Rejects:
    """Writer of rows that cannot be used, as JSON Lines. The file is created with the first such row."""

    def __init__(self, path: Path | None, hidden: tuple[str, ...]) -> None:
        """``hidden`` are the columns that hold card numbers."""
        self._path, self._hidden = path, hidden
        self._file: BinaryIO | None = None

    def begin(self) -> None:
        """Remove the file of an earlier run."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def write(self, file: Path, line: int, reason: str, row: dict[str, Any] | None) -> None:
        """Write one row, masked. If ``row`` is None, its columns are unknown, and only its line and the reason are written."""
        if self._path is None:
            return
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
        entry: dict[str, Any] = {"file": str(file), "line": line, "reason": reason}
        if row is not None:
            entry["row"] = {
                name: "[card number]" if name in self._hidden else None if value is None else mask(str(value))
                for name, value in row.items()
            }
        self._file.write(msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file:
            self._file.close()
            self._file = None


class TransactionFile:
    """Transactions read through a mapping, from one file, the files of a folder, or the files that match a pattern."""

    def __init__(
        self,
        path: Path,
        mapping: Mapping,
        privacy: Privacy = WITHOUT_KEY,
        rejects: Path | None = None,
        clock: Clock | None = None,
        key_hash: Callable[[bytes], int] | None = None,
    ) -> None:
        """
        ``rejects`` is the JSON Lines file for rows that cannot be used. It holds the columns that the mapping reads, masked.
        ``clock`` tells which events lie in the future. ``key_hash`` hashes the card numbers that become tokens, for the chunks'
        ``key_hashes``.

        Raises:
            InputError: if there is no such file, or its format is unknown.
        """
        self.files = data_files(path, without=rejects)
        if rejects is not None and any(rejects.resolve() == file.path.resolve() for file in self.files):
            raise InputError(f"the rejects would overwrite {rejects}: give them a file of their own")
        if rejects is not None and rejects.suffix != ".jsonl":
            raise InputError(f"the rejects are JSON Lines: name their file .jsonl instead of {rejects.name}")
        self.path, self.mapping = path, mapping
        self.read = self.rejected = 0
        self.first_reject = ""
        self.reasons: Counter[str] = Counter()
        self._clock = clock or SystemClock()
        self._conformer = Conformer(mapping, privacy, key_hash)
        self._rejects = _Rejects(rejects, mapping.privacy.card_number)
        self._label_delay = duration_ms(mapping.label.delay) if mapping.label else 0

    @property
    def has_labels(self) -> bool:
        """Whether the mapping names a label column of the file."""
        return self.mapping.label is not None

    @property
    def label_delay_ms(self) -> int:
        """Delay from a transaction until its label in the file became known, ms."""
        return self._label_delay

    @property
    def digest(self) -> str:
        """SHA-256 of the file or files, hexadecimal."""
        return _digest_of(self.files)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[TransactionChunk]:
        """
        Yield the usable rows in pieces of at most ``rows``.

        Raises:
            MappingError: if the mapping does not fit.
            MissingKeyError: at the first identifier that must become a token, if there is no key.
            InputError: if a file is damaged, or no row can be used.
        """
        self._rejects.begin()
        self.read = self.rejected = 0
        self.first_reject = ""
        self.reasons.clear()
        try:
            for file in self.files:
                yield from self._chunks_of(file, rows)
        finally:
            self._rejects.close()
        if self.read and self.rejected == self.read:
            raise InputError(f"{self.path}: none of its {self.read:,} rows can be used; the first: {self.first_reject}")

    def _chunks_of(self, file: DataFile, rows: int) -> Iterator[TransactionChunk]:
        try:
            for piece in read_pieces(file, rows, self.mapping, self._refuse_form, self.mapping.separator):
                self.read += len(piece.table)
                conformed = self._conformer.conform(piece.table, self._clock.now_ms())
                for refusal in conformed.refusals:
                    row = piece.table.slice(refusal.row, 1).to_pylist()[0]
                    self._reject(file, int(piece.lines[refusal.row]), refusal.reason, row)
                if len(conformed.chunk.table):
                    yield conformed.chunk
        except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
            raise InputError(f"{file.path} cannot be read: {mask(str(error))}") from None

    def _refuse_form(self, file: DataFile, line: int, reason: str) -> None:
        """Count and reject a malformed row."""
        self.read += 1
        self._reject(file, line, reason, None)

    def _reject(self, file: DataFile, line: int, reason: str, row: dict[str, Any] | None) -> None:
        self.rejected += 1
        reason = mask(without_controls(reason))
        if reason in self.reasons or len(self.reasons) < _REASONS_COUNTED:
            self.reasons[reason] += 1
        self.first_reject = self.first_reject or f"{file.path.name}, line {line}: {reason}"
        self._rejects.write(file.path, line, reason, row)


def files_digest(path: Path) -> str:
    """Return the SHA-256 of a file of labels, hexadecimal; of several files, that of their digests in order."""
    return _digest_of(data_files(path, otherwise=Format.JSON_LINES))


def _digest_of(files: tuple[DataFile, ...]) -> str:
    digests = []
    for data in files:
        with data.path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


_LABEL_FIELDS = tuple(name for name in Label.__struct_fields__ if name != "v")


class _LabelColumns:
    """The columns of a file of labels: the fields of ``Label``."""

    def names(self) -> list[str]:
        """Return the fields of a label."""
        return [*_LABEL_FIELDS, "v"]

    def choose(self, present: list[str], file: DataFile) -> list[str]:
        """Return the fields of a label that the file has."""
        missing = [name for name in _LABEL_FIELDS if name not in present]
        if missing:
            raise MappingError(
                f"{file.path} has no column {', '.join(map(repr, missing))}: a file of labels has the columns "
                f"{', '.join(_LABEL_FIELDS)} (docs/how-to/mappings.md)"
            )
        return [name for name in self.names() if name in present]


def read_labels(path: Path, privacy: Privacy = WITHOUT_KEY) -> list[Label]:
    """
    Return the labels in files with the fields of ``Label`` as columns, sorted by label time.

    Raises:
        InputError: if a file or one of its rows cannot be used; labels are few and each one counts.
    """
    labels: list[Label] = []
    files = data_files(path, otherwise=Format.JSON_LINES)
    for file in files:
        try:
            for piece in read_pieces(file, CHUNK_ROWS, _LabelColumns(), _refuse_label, _separator_of(file)):
                labels += _labels(file, piece.table.to_pylist(), piece.lines.tolist(), privacy)
        except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise InputError(f"{file.path} cannot be read as labels: {mask(str(error))}") from None
    return sorted(labels, key=lambda label: label.label_time)


def _separator_of(file: DataFile) -> str:
    """Return the separator of a CSV file of labels: the one that splits its first line into the most columns."""
    if file.form is not Format.CSV:
        return SEPARATORS[0]
    return max(SEPARATORS, key=lambda separator: len(csv_header(file, separator)))


def _refuse_label(file: DataFile, line: int, reason: str) -> None:
    raise InputError(f"{file.path}, line {line}: {mask(reason)}")


def _labels(file: DataFile, rows: list[dict[str, Any]], lines: list[int], privacy: Privacy) -> Iterator[Label]:
    for line, row in zip(lines, rows, strict=True):
        given = {name: value.strip() if isinstance(value, str) else value for name, value in row.items() if value is not None}
        try:
            yield private(msgspec.convert(given, Label, strict=False), privacy)
        except MissingKeyError:
            raise
        except (msgspec.ValidationError, InvalidEvent) as error:
            raise InputError(f"{file.path}, line {line}: {mask(str(error))}") from None
