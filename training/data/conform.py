"""
Convert rows of a file to the fields of a transaction, as a mapping says, and tokenise or mask private data.

A row that cannot be converted is refused with the reason, and so is a row with a field outside the bounds of ``Transaction``.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from core.bounds import bounds_of
from core.event_time import is_ahead
from core.messages import Channel, Transaction
from core.money import minor_per_major
from core.privacy.masking import Privacy
from core.privacy.sensitive import flag_rows
from models.features.columns import string_buffers
from training.data.mapping import FIELDS, REQUIRED, AmountUnit, LabelColumn, Mapping, TimeUnit

Mask = npt.NDArray[np.bool_]
Refuse = Callable[[Mask, str], None]

_TYPES = {"event_time": pa.int64(), "amount": pa.int64(), "lat": pa.float64(), "lon": pa.float64()}
SCHEMA = pa.schema([(field, _TYPES.get(field, pa.string())) for field in FIELDS])
_BOUNDS = bounds_of(Transaction)
_IDENTIFIERS = ("transaction_id", "card_id", "merchant_id", "device_id")
_CODES = {
    "currency": "an ISO 4217 code such as EUR",
    "mcc": "four digits (ISO 18245)",
    "country": "an ISO 3166-1 code such as BE",
}
_TEXTS = ("merchant_name", "memo", "ip")


class TransactionChunk(Struct, frozen=True):
    """
    Some rows in file order: a table with ``SCHEMA`` and, if the mapping names a label, which rows are fraud, bool [n].

    ``key_hashes`` has, for each card whose id became a token, a hash of the id in the file; it is empty unless it was asked for.
    """

    table: pa.Table
    fraud: Mask | None
    key_hashes: dict[str, int] = {}


class Refusal(NamedTuple):
    """A row that cannot be used: its place in the piece, and why."""

    row: int
    reason: str


class Conformed(NamedTuple):
    """The usable rows of a piece, and the refused ones."""

    chunk: TransactionChunk
    refusals: list[Refusal]


class Conformer:
    """Converts rows of files to transactions by one mapping."""

    def __init__(self, mapping: Mapping, privacy: Privacy, key_hash: Callable[[bytes], int] | None = None) -> None:
        """``key_hash`` is the hash of ``TransactionChunk.key_hashes``, if they are needed."""
        self._mapping, self._privacy, self._key_hash = mapping, privacy, key_hash

    def conform(self, raw: pa.Table, now_ms: int) -> Conformed:
        """
        Check and convert some rows. ``now_ms`` tells which events lie in the future.

        Raises:
            MissingKeyError: at the first identifier that must become a token, if there is no key.
        """
        n = len(raw)
        bad, reasons = np.zeros(n, np.bool_), np.full(n, "", object)

        def refuse(rows: Mask, reason: str) -> None:
            reasons[rows & ~bad] = reason
            bad[rows] = True

        mapping = self._mapping
        columns = {field: self._raw(raw, field) for field in FIELDS}
        cards = columns["card_id"]
        open_quote = _with_open_quote(columns, len(raw.column_names), mapping.separator)
        refuse(open_quote, "a value holds whole lines of the file: is a quote left open?")
        for field in _IDENTIFIERS:
            columns[field] = self._identifiers(field, columns[field], refuse)
        columns["event_time"] = _times(columns["event_time"], mapping.time, mapping.time_format, refuse)
        refuse(is_ahead(columns["event_time"].to_numpy(), now_ms), "event_time lies in the future")
        for field, description in _CODES.items():
            columns[field] = _matching(field, columns[field], _BOUNDS[field].pattern, description, refuse)
        columns["channel"] = _matching("channel", columns["channel"], f"^({'|'.join(Channel)})$", " or ".join(Channel), refuse)
        for field in _TEXTS:
            columns[field] = self._free_text(field, columns[field], refuse)
        for field in ("lat", "lon"):
            columns[field] = _degrees(field, columns[field], mapping.decimal, refuse)
        columns["amount"] = _amounts(columns["amount"], columns["currency"], mapping.amount, mapping.decimal, refuse)
        fraud = _flags(raw[mapping.label.column].combine_chunks(), mapping.label, refuse) if mapping.label else None
        refusals = [Refusal(i, str(reasons[i])) for i in np.flatnonzero(bad).tolist()]
        table = pa.table([columns[field].cast(SCHEMA.field(field).type) for field in FIELDS], schema=SCHEMA)
        if refusals:
            table = table.filter(pa.array(~bad))
            fraud = fraud[~bad] if fraud is not None else None
        return Conformed(TransactionChunk(table, fraud, self._key_hashes(cards, columns["card_id"])), refusals)

    def _key_hashes(self, cards: pa.Array, tokens: pa.Array) -> dict[str, int]:
        if self._key_hash is None:
            return {}
        if pa.types.is_floating(cards.type):  # a whole number, as the checks have found
            cards = pc.cast(cards, pa.int64(), safe=False)
        given = cards.cast(pa.string())
        changed = pa.table({"card": given, "token": tokens}).filter(pc.not_equal(given, tokens))
        pairs = changed.group_by(["card", "token"]).aggregate([]).to_pylist()
        return {pair["token"]: self._key_hash(pair["card"].encode()) for pair in pairs}

    def _raw(self, raw: pa.Table, field: str) -> pa.Array:
        """Return the values of a field as the file has them: its columns joined by a space, a constant, or nulls."""
        mapping = self._mapping
        sources = [name for name in mapping.sources(field) if name in raw.column_names]
        if sources:
            parts = [_plain(raw[name].combine_chunks()) for name in sources]
            column = (
                parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*(part.cast(pa.string()) for part in parts), " ")
            )
        elif field in mapping.constants:
            column = pa.array([mapping.constants[field]] * len(raw), pa.string())
        else:
            column = pa.nulls(len(raw), SCHEMA.field(field).type)
        return _translated(column, mapping.values[field]) if field in mapping.values else column

    def _identifiers(self, field: str, column: pa.Array, refuse: Refuse) -> pa.Array:
        """Check identifiers, and return them as strings, with private data tokenised or masked."""
        if pa.types.is_floating(column.type):
            column = _whole(field, column, refuse)
        encoded = column.cast(pa.string()).dictionary_encode()
        lengths = pc.binary_length(encoded.dictionary).to_numpy(zero_copy_only=False)
        dictionary = self._private(field, encoded.dictionary)
        bounds = _BOUNDS[field]
        shaped = pc.match_substring_regex(dictionary, bounds.pattern).to_numpy(zero_copy_only=False)
        n = len(dictionary)
        codes = encoded.indices.fill_null(n).to_numpy()
        sized = (lengths >= bounds.shortest) & (lengths <= bounds.longest)
        for fits, reason in (
            (sized, f"{field} is empty or longer than {bounds.longest} characters"),
            (shaped.astype(np.bool_), f"{field} holds characters an identifier cannot have"),
        ):
            if not fits.all():
                refuse(~np.append(fits, True)[codes], reason)
        if field in REQUIRED:
            refuse(codes == n, f"{field} is missing")
        return pa.DictionaryArray.from_arrays(encoded.indices, dictionary).cast(pa.string())

    def _free_text(self, field: str, column: pa.Array, refuse: Refuse) -> pa.Array:
        """Check the length of texts, and return them with private data tokenised or masked."""
        longest = _BOUNDS[field].longest
        encoded = column.cast(pa.string()).dictionary_encode()
        too_long = np.append(pc.utf8_length(encoded.dictionary).to_numpy(zero_copy_only=False) > longest, False)
        dictionary = self._private(field, encoded.dictionary)
        refuse(too_long[encoded.indices.fill_null(len(dictionary)).to_numpy()], f"{field} is longer than {longest} characters")
        return pa.DictionaryArray.from_arrays(encoded.indices, dictionary).cast(pa.string())

    def _private(self, field: str, values: pa.Array) -> pa.Array:
        """Tokenise or mask private data in values: by the stream's rules, or as the mapping declares their column."""
        sources, declared = set(self._mapping.sources(field)), self._mapping.privacy
        if sources & set(declared.card_number):
            return pa.array([self._privacy.token(field, value) for value in values.to_pylist()], pa.string())
        make = self._privacy.text if sources & set(declared.free_text) else partial(self._privacy.private, field)
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


def _with_open_quote(columns: dict[str, pa.Array], width: int, separator: str) -> Mask:
    """Return which rows, bool [n], probably have an open quote: a text contains a line with as many separators as a row has."""
    found = np.zeros(len(columns["event_time"]), np.bool_)
    for field in ("merchant_name", "memo"):
        text = columns[field].cast(pa.string())
        lined = pc.match_substring(text, "\n").fill_null(False).to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(lined):
            found[i] |= any(line.count(separator) >= width - 1 > 0 for line in text[int(i)].as_py().splitlines()[1:])
    return found


def _whole(field: str, column: pa.Array, refuse: Refuse) -> pa.Array:
    """Convert float identifiers back to whole numbers. Some tools write integers as floats if a value is missing (NaN)."""
    numbers = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    missing = np.isnan(numbers)
    exact = missing | ((np.abs(numbers) < 2**53) & (numbers == np.floor(np.where(missing, 0, numbers))))
    refuse(~exact, f"{field} is a float that is not a whole number, or too large to be exact: write it as text")
    whole = np.where(exact & ~missing, numbers, 0).astype(np.int64)
    return pa.array(whole, pa.int64(), mask=missing | ~exact)


def _translated(column: pa.Array, translation: dict[str, str]) -> pa.Array:
    encoded = column.cast(pa.string()).dictionary_encode()
    values = [translation.get(value, value) for value in encoded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(values, pa.string())).cast(pa.string())


def _matching(field: str, column: pa.Array, pattern: str, description: str, refuse: Refuse) -> pa.Array:
    """Return a column of codes as text."""
    text = column.cast(pa.string())
    required = field in REQUIRED
    fits = pc.match_substring_regex(text, pattern).fill_null(not required).to_numpy(zero_copy_only=False)
    refuse(~fits, f"{field} is missing or is not {description}" if required else f"{field} is not {description}")
    return text


def _numbers(column: pa.Array, decimal: str = ".") -> npt.NDArray[np.float64]:
    """Return numbers, float64 [n]; NaN for a value that is not a number."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        text = column
        if decimal != ".":  # a point can then only separate thousands, which is not supported: it must not become a decimal point
            grouped = pc.match_substring(column, ".").fill_null(False)
            text = pc.if_else(grouped, None, pc.replace_substring(column, decimal, "."))
        numbers: npt.NDArray[np.float64] = pd.to_numeric(text.to_pandas(), errors="coerce").to_numpy(np.float64)
        return numbers
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def _degrees(field: str, column: pa.Array, decimal: str, refuse: Refuse) -> pa.Array:
    """Return degrees of latitude or longitude, float64; NaN where missing."""
    limit = _BOUNDS[field].largest
    numbers = _numbers(column, decimal)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        missing = missing | np.isnan(numbers)
    with np.errstate(invalid="ignore"):
        refuse(~missing & ~(np.abs(numbers) <= limit), f"{field} is not a number of degrees within {limit:g}")
    return pa.array(np.where(missing, np.nan, numbers), pa.float64())


def _amounts(column: pa.Array, currency: pa.Array, unit: AmountUnit, decimal: str, refuse: Refuse) -> pa.Array:
    """Return amounts in minor units, int64."""
    numbers, largest = _numbers(column, decimal), _BOUNDS["amount"].largest
    if unit == "major":
        units = {name: minor_per_major(name or "") for name in currency.unique().to_pylist()}
        if len(units) == 1:
            numbers = np.round(numbers * next(iter(units.values())))
        else:
            numbers = np.round(numbers * np.array([units[name] for name in currency.to_pylist()], np.float64))
    with np.errstate(invalid="ignore"):
        refuse(
            np.isnan(numbers),
            f"amount is missing or not a number with the decimal sign {decimal!r}: see decimal in docs/how-to/mappings.md",
        )
        refuse(numbers < 0, "amount is negative: refunds are not transactions to decide on")
        refuse(~(numbers <= largest), f"amount is above {largest:.0f} minor units")
        refuse(numbers != np.round(numbers), "amount is not a whole number of minor units")
    return pa.array(np.nan_to_num(np.clip(numbers, 0, largest)).astype(np.int64))


def _times(column: pa.Array, unit: TimeUnit, time_format: str, refuse: Refuse) -> pa.Array:
    """Return event times, epoch ms, int64. A time without a zone is UTC."""
    if pa.types.is_timestamp(column.type):
        times = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).fill_null(0).to_numpy().astype(np.float64)
    elif unit == "datetime":
        text = column.cast(pa.string()).to_pandas()
        parsed = pd.to_datetime(text, errors="coerce", utc=True, format=time_format or "ISO8601")
        times = parsed.astype("datetime64[ms, UTC]").astype("int64").to_numpy().astype(np.float64)
    else:
        times = np.floor(_numbers(column) * (1000 if unit == "s" else 1))
    bounds, read_as = _BOUNDS["event_time"], time_format or unit
    with np.errstate(invalid="ignore"):
        refuse(
            ~((times >= bounds.smallest) & (times <= bounds.largest)),
            f"event_time is missing, unreadable or outside 2000 to 2100 (read as {read_as}: see time_format in docs/how-to/mappings.md)",
        )
    return pa.array(np.nan_to_num(np.clip(times, 0, bounds.largest)).astype(np.int64))


def _flags(column: pa.Array, label: LabelColumn, refuse: Refuse) -> Mask:
    """Return which rows the label column marks as fraud, bool [n]."""
    encoded = pc.utf8_lower(_plain(column).cast(pa.string())).fill_null("").dictionary_encode()
    codes, values = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    fraud, legitimate = ({one.lower() for one in named} for named in (label.fraud, label.legitimate))
    for code, value in enumerate(values):
        if value not in fraud | legitimate:
            shown = (
                f"the label {value!r} is neither fraud ({', '.join(label.fraud)}) nor legitimate ({', '.join(label.legitimate)})"
            )
            refuse(codes == code, f"{shown}: add it to fraud or legitimate in the mapping's [label] table")
    return np.isin(codes, [code for code, value in enumerate(values) if value in fraud])
