"""
Readers of transaction files in chunks: CSV, Parquet and JSON Lines.

An unusable row is counted and written to a rejects file with its line number and the reason; reading goes on with the next row.
The result is tables with the fields of ``Transaction`` as columns. They are already private: no raw card number leaves this
module.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from msgspec import Struct

from core.clock import Clock, SystemClock, duration_ms
from core.decoding import private
from core.errors import InputError, InvalidEvent, MissingKeyError
from core.event_time import is_ahead
from core.messages import EARLIEST, LARGEST_AMOUNT, LATEST, Channel, Label, Transaction
from core.money import minor_per_major
from core.privacy.masking import WITHOUT_KEY, Privacy, without_controls
from core.privacy.sensitive import flag_rows, mask
from models.features.columns import string_buffers
from training.data.mapping import FIELDS, REQUIRED, Mapping

CHUNK_ROWS = 65_536
SCHEMA = pa.schema(
    [
        (
            field,
            {"event_time": pa.int64(), "amount": pa.int64(), "lat": pa.float64(), "lon": pa.float64()}.get(field, pa.string()),
        )
        for field in FIELDS
    ]
)
_IDENTIFIER = r"^[!-~]+( [!-~]+)*$"

Mask = npt.NDArray[np.bool_]


class TransactionChunk(Struct, frozen=True):
    """Some rows in file order: a table with the schema ``SCHEMA``, and ``fraud`` bool [n] if the mapping has a label column."""

    table: pa.Table
    fraud: Mask | None


def messages_of(table: pa.Table) -> Iterator[Transaction]:
    """Yield the rows of a reader's table as messages."""
    for values in table.to_pylist():
        for field in ("lat", "lon"):
            if values[field] is not None and np.isnan(values[field]):
                values[field] = None
        yield msgspec.convert(values, Transaction)


class TransactionFile:
    """A transaction file, read through a mapping."""

    def __init__(
        self,
        path: Path,
        mapping: Mapping,
        privacy: Privacy = WITHOUT_KEY,
        rejects: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        """
        Check the path; reading begins with ``chunks``.

        ``rejects`` is the JSON Lines file for unusable rows. It holds their mapped fields, made private. ``clock`` decides which
        events are in the future.

        Raises:
            InputError: if the file does not exist, its extension is unknown, or ``rejects`` would overwrite it.
        """
        if not path.is_file():
            raise InputError(f"no file {path}")
        suffix = path.suffix.lower()
        if suffix not in {".csv", ".parquet", ".jsonl", ".ndjson"}:
            raise InputError(f"{path}: unknown file type; name the file .csv, .parquet or .jsonl")
        if rejects is not None and rejects.resolve() == path.resolve():
            raise InputError(f"the rejects file would overwrite {path}: choose another file")
        self.path, self.mapping, self.suffix = path, mapping, suffix
        self.read = self.rejected = 0
        self.first_reject = ""
        self._privacy, self._rejects_path, self._clock = privacy, rejects, clock or SystemClock()
        self._rejects: BinaryIO | None = None
        self._label_delay = duration_ms(mapping.label.delay) if mapping.label else 0

    @property
    def has_labels(self) -> bool:
        """Return whether the file has a label column."""
        return self.mapping.label is not None

    @property
    def label_delay_ms(self) -> int:
        """Return the delay between a transaction and the time its label becomes known, ms."""
        return self._label_delay

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[TransactionChunk]:
        """
        Yield the usable rows of the file in chunks of at most ``rows``.

        Raises:
            MappingError: if the mapping does not fit the file.
            MissingKeyError: if no key is set, at the first identifier that must become a token.
            InputError: if the file is broken, or none of its rows can be used.
        """
        pieces = {".csv": self._csv, ".parquet": self._parquet}.get(self.suffix, self._json_lines)
        try:
            for raw, lines in pieces(rows):
                chunk = self._conform(raw, lines)
                if len(chunk.table):
                    yield chunk
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path} cannot be read: {mask(str(error))}") from None
        finally:
            if self._rejects:
                self._rejects.close()
                self._rejects = None
        if self.read and self.rejected == self.read:
            raise InputError(f"{self.path}: none of its {self.read:,} rows can be used; the first: {self.first_reject}")

    def _reject(self, line: int, reason: str, row: dict[str, Any] | None = None) -> None:
        """
        Count a rejected row and write it to the rejects file.

        Without ``row`` only the line number and the reason are written, because the raw line may contain personal columns.
        """
        self.rejected += 1
        reason = mask(without_controls(reason))
        self.first_reject = self.first_reject or f"line {line}: {reason}"
        if self._rejects_path is None:
            return
        if self._rejects is None:
            self._rejects_path.parent.mkdir(parents=True, exist_ok=True)
            self._rejects = self._rejects_path.open("wb")
        entry = {"file": str(self.path), "line": line, "reason": reason}
        if row is not None:
            hidden = self.mapping.privacy.card_number
            entry["row"] = {
                name: "[card number]" if name in hidden else None if value is None else mask(str(value))
                for name, value in row.items()
            }
        self._rejects.write(msgspec.json.encode(entry) + b"\n")

    def _parquet(self, rows: int) -> Iterator[tuple[pa.Table, npt.NDArray[np.int64]]]:
        with pyarrow.parquet.ParquetFile(self.path) as file:
            wanted = self.mapping.wanted(file.schema_arrow.names, self.path)
            line = 1
            for batch in file.iter_batches(batch_size=rows, columns=wanted):
                yield pa.Table.from_batches([batch]), np.arange(line, line + len(batch))
                line += len(batch)

    def _csv(self, rows: int) -> Iterator[tuple[pa.Table, npt.NDArray[np.int64]]]:
        with self.path.open("rb") as file:
            header = file.readline().decode("utf-8", "replace").strip("\r\n\ufeff")
        present = [name.strip('"') for name in header.split(",")]
        wanted = self.mapping.wanted(present, self.path)
        skipped: list[int] = []

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            skipped.append(row.number)
            if not row.text.strip():
                return "skip"
            self.read += 1
            self._reject(row.number, f"{row.actual_columns} columns instead of {row.expected_columns}")
            return "skip"

        stream = pyarrow.csv.open_csv(
            self.path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=max(1 << 16, rows * 160)),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=skip, newlines_in_values=True, ignore_empty_lines=False),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted, column_types={name: pa.binary() for name in wanted}, strings_can_be_null=True
            ),
        )
        line = 2
        for batch in stream:
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
                yield (table, lines) if filled.all() else (table.filter(pa.array(filled)), lines[filled])  # drops blank lines

    def _json_lines(self, rows: int) -> Iterator[tuple[pa.Table, npt.NDArray[np.int64]]]:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        names = self.mapping.names()
        checked = False
        number = 0
        with self.path.open("rb") as file:
            while lines := list(islice(file, rows)):
                records: list[dict[str, str | None]] = []
                places = []
                present: set[str] = set()
                if number == 0:
                    lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
                for line in lines:
                    number += 1
                    if not line.strip():
                        continue
                    try:
                        record = decode(line)
                        records.append({name: _scalar(name, record.get(name)) for name in names})
                    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
                        self.read += 1
                        self._reject(number, f"not a JSON object: {error}")
                        continue
                    present |= record.keys()
                    places.append(number)
                if not records:
                    continue
                if not checked:  # only the first chunk is checked: a later one may lack a field in all of its rows
                    self.mapping.wanted(sorted(present), self.path)
                    checked = True
                yield pa.table({name: pa.array([r[name] for r in records], pa.string()) for name in names}), np.array(places)

    def _conform(self, raw: pa.Table, lines: npt.NDArray[np.int64]) -> TransactionChunk:
        """Check and convert one chunk; reject rows that are invalid."""
        n = len(raw)
        self.read += n
        bad, reasons = np.zeros(n, np.bool_), np.full(n, "", object)

        def refuse(mask: Mask, reason: str) -> None:
            reasons[mask & ~bad] = reason
            bad[mask] = True

        columns: dict[str, pa.Array] = {}
        for field in FIELDS:
            source = self.mapping.column(field)
            if source is not None and source in raw.column_names:
                column = _plain(raw[source].combine_chunks())
            elif field in self.mapping.constants:
                column = pa.array([self.mapping.constants[field]] * n, pa.string())
            else:
                column = pa.nulls(n, SCHEMA.field(field).type)
            if field in self.mapping.values:
                column = _translated(column, self.mapping.values[field])
            columns[field] = column
        swallowed = _swallowed(columns, len(raw.column_names))
        refuse(swallowed, "a value contains whole lines of the file: a quote is probably not closed")
        for field in ("transaction_id", "card_id", "merchant_id", "device_id"):
            columns[field] = self._identifiers(field, columns[field], refuse)
        columns["event_time"] = _times(columns["event_time"], self.mapping.time, refuse)
        refuse(is_ahead(columns["event_time"].to_numpy(), self._clock.now_ms()), "event_time is in the future")
        for field, pattern in (("currency", "^[A-Z]{3}$"), ("mcc", "^[0-9]{4}$"), ("country", "^[A-Z]{2}$")):
            columns[field] = _matching(field, columns[field], pattern, refuse)
        columns["channel"] = _matching("channel", columns["channel"], f"^({'|'.join(Channel)})$", refuse)
        for field, longest in (("merchant_name", 512), ("memo", 512), ("ip", 64)):
            columns[field] = self._free_text(field, columns[field], longest, refuse)
        for field, limit in (("lat", 90.0), ("lon", 180.0)):
            columns[field] = _degrees(field, columns[field], limit, refuse)
        columns["amount"] = _amounts(columns["amount"], columns["currency"], self.mapping.amount, refuse)
        fraud = _flags(raw[self.mapping.label.column].combine_chunks(), refuse) if self.mapping.label else None
        for i in np.flatnonzero(bad):
            self._reject(int(lines[i]), str(reasons[i]), raw.slice(int(i), 1).to_pylist()[0])
        table = pa.table([columns[field].cast(SCHEMA.field(field).type) for field in FIELDS], schema=SCHEMA)
        if bad.any():
            table = table.filter(pa.array(~bad))
            fraud = fraud[~bad] if fraud is not None else None
        return TransactionChunk(table, fraud)

    def _identifiers(self, field: str, column: pa.Array, refuse: Any) -> pa.Array:
        """Return identifiers as strings, made private."""
        if pa.types.is_floating(column.type):
            column = _whole(field, column, refuse)
        encoded = column.cast(pa.string()).dictionary_encode()
        lengths = pc.binary_length(encoded.dictionary).to_numpy(zero_copy_only=False)
        dictionary = self._private(field, encoded.dictionary)
        shaped = pc.match_substring_regex(dictionary, _IDENTIFIER).to_numpy(zero_copy_only=False)
        n = len(dictionary)
        codes = encoded.indices.fill_null(n).to_numpy()
        sized = (lengths > 0) & (lengths <= 128)
        for fits, reason in (
            (sized, f"{field} is empty or longer than 128 characters"),
            (shaped.astype(np.bool_), f"{field} contains characters that an identifier cannot have"),
        ):
            if not fits.all():
                refuse(~np.append(fits, True)[codes], reason)
        if field in REQUIRED:
            refuse(codes == n, f"{field} is missing")
        return pa.DictionaryArray.from_arrays(encoded.indices, dictionary).cast(pa.string())

    def _free_text(self, field: str, column: pa.Array, longest: int, refuse: Any) -> pa.Array:
        encoded = column.cast(pa.string()).dictionary_encode()
        too_long = np.append(pc.utf8_length(encoded.dictionary).to_numpy(zero_copy_only=False) > longest, False)
        dictionary = self._private(field, encoded.dictionary)
        refuse(too_long[encoded.indices.fill_null(len(dictionary)).to_numpy()], f"{field} is longer than {longest} characters")
        return pa.DictionaryArray.from_arrays(encoded.indices, dictionary).cast(pa.string())

    def _private(self, field: str, values: pa.Array) -> pa.Array:
        """Return the values of a field made private as in the stream, and as the mapping declares for their column."""
        source, declared = self.mapping.column(field), self.mapping.privacy
        if source in declared.card_number:
            return pa.array([self._privacy.token(field, value) for value in values.to_pylist()], pa.string())
        make = self._privacy.text if source in declared.free_text else partial(self._privacy.private, field)
        data, offsets = string_buffers(values)
        plain = pc.and_(pc.string_is_ascii(values), pc.ascii_is_printable(values)).to_numpy(zero_copy_only=False)
        remarkable = np.flatnonzero(flag_rows(data, offsets) | ~plain.astype(np.bool_))
        if not len(remarkable):
            return values
        made = values.to_pylist()
        for i in remarkable.tolist():
            made[i] = make(made[i])
        return pa.array(made, pa.string())


def _plain(column: pa.Array) -> pa.Array:
    """Return a dictionary-encoded column decoded, and any other column unchanged."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _text(column: pa.Array) -> pa.Array:
    """Return binary cells as text. Invalid UTF-8 becomes the replacement character, which no identifier may contain."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if cell is None else cell.decode("utf-8", "replace") for cell in column.to_pylist()], pa.string())


def _swallowed(columns: dict[str, pa.Array], width: int) -> Mask:
    """Return which rows have a text of several lines, one of them with at least the commas of a row of the file, bool [n]."""
    found = np.zeros(len(columns["event_time"]), np.bool_)
    for field in ("merchant_name", "memo"):
        text = columns[field].cast(pa.string())
        lined = pc.match_substring(text, "\n").fill_null(False).to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(lined):
            found[i] |= any(line.count(",") >= width - 1 > 0 for line in text[int(i)].as_py().splitlines()[1:])
    return found


def _whole(field: str, column: pa.Array, refuse: Any) -> pa.Array:
    """Convert identifiers back to whole numbers that a tool turned into floats because some were missing. NaN means missing."""
    numbers = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    missing = np.isnan(numbers)
    exact = missing | ((np.abs(numbers) < 2**53) & (numbers == np.floor(np.where(missing, 0, numbers))))
    refuse(~exact, f"{field} is a float that is not a whole number, or too large to be exact: write it as text")
    whole = np.where(exact & ~missing, numbers, 0).astype(np.int64)
    return pa.array(whole, pa.int64(), mask=missing | ~exact)


def _scalar(name: str, value: Any) -> str | None:
    """Return a JSON value as text.

    Raises:
        ValueError: if it is an object or a list.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise ValueError(f"{name} is neither text nor a number")
    return msgspec.json.encode(value).decode()


def _translated(column: pa.Array, translation: dict[str, str]) -> pa.Array:
    encoded = column.cast(pa.string()).dictionary_encode()
    values = [translation.get(value, value) for value in encoded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(values, pa.string())).cast(pa.string())


def _matching(field: str, column: pa.Array, pattern: str, refuse: Any) -> pa.Array:
    text = column.cast(pa.string())
    fits = pc.match_substring_regex(text, pattern).fill_null(field not in REQUIRED).to_numpy(zero_copy_only=False)
    refuse(
        ~fits,
        f"{field} is missing or does not match {pattern}" if field in REQUIRED else f"{field} does not match {pattern}",
    )
    return text


def _numbers(column: pa.Array) -> npt.NDArray[np.float64]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        numbers: npt.NDArray[np.float64] = pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(np.float64)
        return numbers
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def _degrees(field: str, column: pa.Array, limit: float, refuse: Any) -> pa.Array:
    numbers = _numbers(column)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        missing = missing | np.isnan(numbers)
    with np.errstate(invalid="ignore"):
        refuse(~missing & ~(np.abs(numbers) <= limit), f"{field} is not a number of degrees within ±{limit:g}")
    return pa.array(np.where(missing, np.nan, numbers), pa.float64())


def _amounts(column: pa.Array, currency: pa.Array, unit: str, refuse: Any) -> pa.Array:
    numbers = _numbers(column)
    if unit == "major":
        units = {name: minor_per_major(name or "") for name in currency.unique().to_pylist()}
        if len(units) == 1:
            numbers = np.round(numbers * next(iter(units.values())))
        else:
            numbers = np.round(numbers * np.array([units[name] for name in currency.to_pylist()], np.float64))
    with np.errstate(invalid="ignore"):
        refuse(np.isnan(numbers), "amount is missing or not a number")
        refuse(numbers < 0, "amount is negative: refunds are not scored")
        refuse(~(numbers <= LARGEST_AMOUNT), f"amount is above {LARGEST_AMOUNT} minor units")
        refuse(numbers != np.round(numbers), "amount is not a whole number of minor units")
    return pa.array(np.nan_to_num(np.clip(numbers, 0, LARGEST_AMOUNT)).astype(np.int64))


def _times(column: pa.Array, form: str, refuse: Any) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        times = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).fill_null(0).to_numpy().astype(np.float64)
    elif form == "datetime":
        parsed = pd.to_datetime(column.cast(pa.string()).to_pandas(), errors="coerce", utc=True, format="ISO8601")
        times = parsed.astype("datetime64[ms, UTC]").astype("int64").to_numpy().astype(np.float64)
    else:
        times = np.floor(_numbers(column) * (1000 if form == "s" else 1))
    with np.errstate(invalid="ignore"):
        refuse(
            ~((times >= EARLIEST) & (times <= LATEST)),
            f"event_time is missing, unreadable or outside 2000 to 2100 (read as {form})",
        )
    return pa.array(np.nan_to_num(np.clip(times, 0, LATEST)).astype(np.int64))


def _flags(column: pa.Array, refuse: Any) -> Mask:
    text = pc.utf8_lower(column.cast(pa.string()))
    yes = pc.is_in(text, pa.array(["1", "true", "1.0"])).to_numpy(zero_copy_only=False)
    no = pc.is_in(text, pa.array(["0", "false", "0.0"])).to_numpy(zero_copy_only=False)
    refuse(~(yes | no), "the label is neither 0 nor 1")
    return np.asarray(yes, np.bool_)


def read_labels(path: Path, privacy: Privacy = WITHOUT_KEY) -> list[Label]:
    """
    Read labels from a file with the fields of ``Label`` as columns (Parquet, CSV or JSON Lines), sorted by label time.

    Raises:
        InputError: if the file or one of its rows cannot be used. No row is skipped: labels are few and each one counts.
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
    try:
        if path.suffix == ".parquet":
            rows = pyarrow.parquet.read_table(path).to_pylist()
        elif path.suffix == ".csv":
            rows = pyarrow.csv.read_csv(path).to_pylist()
        else:
            rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line.strip()]
        labels = []
        for number, row in enumerate(rows, start=1):
            try:
                labels.append(private(msgspec.convert(row, Label, strict=False), privacy))
            except MissingKeyError:
                raise
            except (msgspec.ValidationError, InvalidEvent) as error:
                raise InputError(f"{path}, label {number}: {mask(str(error))}") from None
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, RecursionError, msgspec.MsgspecError) as error:
        raise InputError(f"{path} cannot be read as labels: {mask(str(error))}") from None
    return sorted(labels, key=lambda label: label.label_time)
