"""Read rows from CSV, Parquet and JSON Lines files, compressed or not, in pieces, without interpreting them."""

import csv
import glob
import gzip
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from core.errors import InputError

SEPARATORS = (",", ";", "\t", "|")
_BYTES_PER_ROW = 160  # a guess that makes a block of CSV hold about the wanted number of rows
_SMALLEST_BLOCK = 1 << 16


class Format(StrEnum):
    """Format of a file, determined by its extension."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON_LINES = "jsonl"


_SUFFIXES = {".csv": Format.CSV, ".tsv": Format.CSV, ".txt": Format.CSV, ".parquet": Format.PARQUET, ".jsonl": Format.JSON_LINES, ".ndjson": Format.JSON_LINES}  # fmt: skip


class DataFile(NamedTuple):
    """One file of rows; ``compressed`` says that it is gzip."""

    path: Path
    form: Format
    compressed: bool

    def open(self) -> BinaryIO:
        """Open the file for reading, decompressed."""
        return gzip.open(self.path, "rb") if self.compressed else self.path.open("rb")  # type: ignore[return-value]


def data_file(path: Path) -> DataFile | None:
    """Return the file with the format of its extension, or None if no supported format has that extension."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = (suffixes[:-1] if compressed else suffixes)[-1:]
    form = _SUFFIXES.get(suffix[0]) if suffix else None
    if form is None or (compressed and form is Format.PARQUET):
        return None
    return DataFile(path, form, compressed)


def data_files(path: Path, otherwise: Format | None = None, without: Path | None = None) -> tuple[DataFile, ...]:
    """
    Return the files that a path means: the file itself, the data files of a folder, or those that a pattern such as ``days/*.csv.gz``
    matches. The files of a folder or pattern are in the order of their names, without hidden ones and without the file ``without``.

    ``otherwise`` is the format of a single file whose name does not tell its format.

    Raises:
        InputError: if there is no such file, or its name does not tell its format.
    """
    if path.is_file():
        found = data_file(path) or (DataFile(path, otherwise, False) if otherwise else None)
        if found is None:
            raise InputError(f"{path}: unknown format; name it .csv, .parquet or .jsonl (.csv.gz and .jsonl.gz if compressed)")
        return (found,)
    if path.is_dir():
        candidates, nothing = [child for child in path.iterdir() if child.suffix != ".txt"], f"the folder {path} contains no"
    elif glob.has_magic(str(path)):
        candidates, nothing = [Path(match) for match in glob.glob(str(path))], f"the pattern {path} matches no"
    else:
        raise InputError(f"no file {path}")
    hidden = {without.resolve()} if without else set()
    kept = [one for one in sorted(candidates) if one.is_file() and not one.name.startswith(".") and one.resolve() not in hidden]
    files = tuple(found for one in kept if (found := data_file(one)) is not None)
    if not files:
        raise InputError(f"{nothing} .csv, .parquet or .jsonl file")
    return files


class Piece(NamedTuple):
    """
    Some rows of a file: a table of the wanted columns, not interpreted.

    ``lines`` int64 [n] holds the line number of each row (CSV, JSON Lines) or its row number (Parquet).
    """

    table: pa.Table
    lines: npt.NDArray[np.int64]


class Columns(Protocol):
    """Selects the columns to read from a file."""

    def names(self) -> list[str]:
        """Return every column that may be read, whether the file must have it or not."""

    def choose(self, present: list[str], file: DataFile) -> list[str]:
        """Return the columns to read from a file that has ``present``, or raise if one is missing."""


Reject = Callable[[DataFile, int, str], None]


def read_pieces(file: DataFile, rows: int, columns: Columns, reject: Reject, separator: str = ",") -> Iterator[Piece]:
    """
    Yield a file in pieces of at most ``rows`` rows. ``reject`` is called with the line of each malformed row, and the reason.

    Raises:
        pyarrow.ArrowException: if the file is damaged.
        OSError: if it cannot be read.
    """
    if file.form is Format.PARQUET:
        return _parquet(file, rows, columns)
    if file.form is Format.JSON_LINES:
        return _json_lines(file, rows, columns, reject)
    return _csv(file, rows, columns, reject, separator)


def csv_header(file: DataFile, separator: str) -> list[str]:
    """Return the names in a CSV file's first line."""
    with file.open() as opened:
        line = opened.readline().decode("utf-8", "replace").strip("\r\n\ufeff")
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error as error:
        raise InputError(
            f"{file.path}: its first line cannot be read as CSV ({error}): lines must end with a line feed"
        ) from None


def _parquet(file: DataFile, rows: int, columns: Columns) -> Iterator[Piece]:
    with pyarrow.parquet.ParquetFile(file.path) as opened:
        wanted = columns.choose(opened.schema_arrow.names, file)
        line = 1
        for batch in opened.iter_batches(batch_size=rows, columns=wanted):
            yield Piece(pa.Table.from_batches([batch]), np.arange(line, line + len(batch)))
            line += len(batch)


def _csv(file: DataFile, rows: int, columns: Columns, reject: Reject, separator: str) -> Iterator[Piece]:
    wanted = columns.choose(csv_header(file, separator), file)
    skipped: list[int] = []
    formless: list[tuple[int, str]] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        # pyarrow swallows an error that is raised here
        skipped.append(row.number)
        if row.text.strip():
            formless.append((row.number, f"{row.actual_columns} columns instead of {row.expected_columns}"))
        return "skip"

    def reject_formless() -> None:
        while formless:
            reject(file, *formless.pop(0))

    with pa.input_stream(str(file.path), compression="gzip" if file.compressed else None) as opened:
        stream = pyarrow.csv.open_csv(
            opened,
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=max(_SMALLEST_BLOCK, rows * _BYTES_PER_ROW)),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=separator, invalid_row_handler=skip, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted, column_types={name: pa.binary() for name in wanted}, strings_can_be_null=True
            ),
        )
        line = 2
        for batch in stream:
            reject_formless()
            for begin in range(0, len(batch), rows):
                piece = batch.slice(begin, rows)
                lines = np.empty(len(piece), np.int64)
                for i in range(len(piece)):
                    while skipped and skipped[0] <= line:
                        skipped.pop(0)
                        line += 1
                    lines[i] = line
                    line += 1
                filled = np.logical_or.reduce([column.is_valid().to_numpy(zero_copy_only=False) for column in piece.columns])
                table = pa.table({name: _text(column) for name, column in zip(wanted, piece.columns, strict=True)})
                # a blank line is a row without values
                yield Piece(table, lines) if filled.all() else Piece(table.filter(pa.array(filled)), lines[filled])
        reject_formless()


def _text(column: pa.Array) -> pa.Array:
    """Convert binary cells to text; bytes that are not UTF-8 become the replacement character, which no identifier may hold."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if cell is None else cell.decode("utf-8", "replace") for cell in column.to_pylist()], pa.string())


def _json_lines(file: DataFile, rows: int, columns: Columns, reject: Reject) -> Iterator[Piece]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    names = columns.names()
    checked = False
    number = 0
    with file.open() as opened:
        while lines := list(islice(opened, rows)):
            records: list[tuple[int, dict[str, Any]]] = []
            if number == 0:
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
            for line in lines:
                number += 1
                if not line.strip():
                    continue
                try:
                    records.append((number, decode(line)))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    reject(file, number, f"not a JSON object: {error}")
            if not records:
                continue
            if not checked:  # check the first piece only: a later one lacks a column if none of its rows has that field
                columns.choose(sorted({name for _, record in records for name in record}), file)
                checked = True
            yield from _records(file, records, names, reject)


def _records(file: DataFile, records: list[tuple[int, dict[str, Any]]], names: list[str], reject: Reject) -> Iterator[Piece]:
    kept: list[dict[str, str | None]] = []
    places: list[int] = []
    for number, record in records:
        try:
            kept.append({name: _scalar(name, record.get(name)) for name in names})
            places.append(number)
        except ValueError as error:
            reject(file, number, f"not a JSON object: {error}")
    if kept:
        table = pa.table({name: pa.array([record[name] for record in kept], pa.string()) for name in names})
        yield Piece(table, np.array(places))


def _scalar(name: str, value: Any) -> str | None:
    """
    Return a JSON value as text.

    Raises:
        ValueError: if it is an object or a list.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise ValueError(f"{name} is neither text nor a number")
    return msgspec.json.encode(value).decode()
