"""
Transactions and labels as columns, the input format of the kernels.

Identifiers become 64-bit hashes, so that the state contains no strings. Among ten million cards, the probability that any two
share a hash is below 10^-5. The hash function is implemented here, so that every process and every version computes the same
hash.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import IntFlag
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from core.messages import LARGEST_AMOUNT, Channel, Label, RecentTransaction, Transaction

if TYPE_CHECKING:
    import pyarrow as pa  # only those who read files need it

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

UNKNOWN_AMOUNT = -1
COUNTRIES = 26 * 26 + 1
# Layout of ``attributes``, from the lowest bit: low amount, night, channel (2), country (10), category (14), merchant (32), marks (3).
LOW_BIT, NIGHT_BIT, CHANNEL_SHIFT, COUNTRY_SHIFT, CATEGORY_SHIFT, MERCHANT_SHIFT, MARK_SHIFT = 1, 2, 2, 4, 14, 28, 60


class Mark(IntFlag):
    """Marks that the profile stage sets on a transaction, in addition to its features."""

    UNUSUAL = 1  # its amount is unusual for the card
    LATE = 2  # an event that arrived before it is newer by more than the entity's lateness
    REUSED = 4  # the card used the id before, for a different transaction


UNUSUAL_BIT = Mark.UNUSUAL << MARK_SHIFT
CHANNEL_PRESENT, CHANNEL_ONLINE = 1, 2
_FIELDS = attrgetter(
    "transaction_id", "card_id", "merchant_id", "device_id", "event_time", "amount", "currency", "mcc", "country", "channel", "lat", "lon"
)  # fmt: skip
_CHANNELS = {None: 0, Channel.CARD_PRESENT: CHANNEL_PRESENT, Channel.ONLINE: CHANNEL_ONLINE}


class TransactionColumns(NamedTuple):
    """
    Columns of n transactions.

    Hashes are uint64 [n]. A missing device is 0, a missing place is NaN, and an amount without a known exchange rate is
    ``UNKNOWN_AMOUNT``. ``transaction`` is the hash of card and transaction id, as in labels. ``content`` is the hash of the
    transaction's other identifying fields; both hashes together identify the transaction. ``amount`` is in minor units of the
    spec's currency. ``attributes`` is packed in the layout above.
    """

    transaction: UInt64s
    content: UInt64s
    event_time: Int64s
    card: UInt64s
    merchant: UInt64s
    device: UInt64s
    amount: Int64s
    attributes: Int64s
    lat: Floats
    lon: Floats

    def key(self, name: str) -> UInt64s:
        """Return the column of an entity's key: ``card_id``, ``merchant_id`` or ``device_id``."""
        return {"card_id": self.card, "merchant_id": self.merchant, "device_id": self.device}[name]

    def rows(self, index: Any) -> "TransactionColumns":
        """Return some of the rows, selected by slice, mask or indices."""
        return TransactionColumns(*(np.ascontiguousarray(column[index]) for column in self))

    def marked(self, marks: Int64s) -> "TransactionColumns":
        """Return the columns with ``marks``, int64 [n] (bits of ``Mark``), added to the attributes."""
        return self._replace(attributes=self.attributes | marks << MARK_SHIFT) if marks.any() else self

    def has(self, mark: Mark) -> npt.NDArray[np.bool_]:
        """Return which transactions have a mark, bool [n]."""
        found: npt.NDArray[np.bool_] = (self.attributes & (int(mark) << MARK_SHIFT)) != 0
        return found


class LabelColumns(NamedTuple):
    """Columns of n labels. Hashes are those of ``TransactionColumns``; ``fraud`` is bool [n]."""

    transaction: UInt64s
    card: UInt64s
    merchant: UInt64s
    event_time: Int64s
    label_time: Int64s
    fraud: npt.NDArray[np.bool_]

    def key(self, name: str) -> UInt64s:
        """Return the column of an entity's key: ``card_id`` or ``merchant_id``."""
        return {"card_id": self.card, "merchant_id": self.merchant}[name]

    def rows(self, index: Any) -> "LabelColumns":
        """Return some of the rows, selected by slice, mask or indices."""
        return LabelColumns(*(np.ascontiguousarray(column[index]) for column in self))


@njit(cache=True, nogil=True)
def _hash_bytes(data: npt.NDArray[np.uint8], offsets: Int64s, out: UInt64s) -> None:
    """Hash each run of bytes: FNV-style multiply over little-endian 8-byte words, finished by MurmurHash3's fmix64."""
    word_multiplier = np.uint64(0x9FB21C651E98DF25)
    state_multiplier = np.uint64(0x9E3779B97F4A7C15)
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        state = np.uint64(end - begin) * state_multiplier
        j = begin
        while j < end:
            word = np.uint64(0)
            width = min(8, end - j)
            for k in range(width):
                word |= np.uint64(data[j + k]) << np.uint64(8 * k)
            word *= word_multiplier
            word ^= word >> np.uint64(32)
            state = (state ^ word) * state_multiplier
            state ^= state >> np.uint64(29)
            j += width
        state ^= state >> np.uint64(33)
        state *= np.uint64(0xFF51AFD7ED558CCD)
        state ^= state >> np.uint64(33)
        state *= np.uint64(0xC4CEB9FE1A85EC53)
        state ^= state >> np.uint64(33)
        out[i] = state if state != np.uint64(0) else np.uint64(1)


def hash_strings(values: Sequence[str | None]) -> UInt64s:
    """Return 64-bit hashes of strings, uint64 [n]. None becomes 0."""
    encoded = [value.encode() if value is not None else b"" for value in values]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    out = np.empty(len(encoded), np.uint64)
    _hash_bytes(np.frombuffer(b"".join(encoded) or b"\0", np.uint8), offsets, out)
    if None in values:
        out[[value is None for value in values]] = 0
    return out


def string_buffers(values: "pa.Array") -> tuple[npt.NDArray[np.uint8], Int64s]:
    """Return the UTF-8 bytes and the offsets, int64 [n + 1], of an Arrow string array. A null is an empty string."""
    values = values.cast("large_string")
    _, offset_buffer, data = values.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : values.offset + len(values) + 1]
    raw = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)
    return raw, offsets


def hash_arrow(values: "pa.Array") -> UInt64s:
    """Return 64-bit hashes of an Arrow string array, uint64 [n], as ``hash_strings`` does. Null becomes 0."""
    out = np.empty(len(values), np.uint64)
    _hash_bytes(*string_buffers(values), out)
    if values.null_count:
        out[values.is_null().to_numpy(zero_copy_only=False)] = 0
    return out


def combined(*columns: npt.NDArray[Any]) -> UInt64s:
    """Combine several 64-bit columns of n rows into one 64-bit hash per row, uint64 [n]. The order of the columns matters."""
    state = np.full(len(columns[0]), 0x9E3779B97F4A7C15, np.uint64)
    for column in columns:
        state = (state ^ column.view(np.uint64)) * np.uint64(0xFF51AFD7ED558CCD)
        state ^= state >> np.uint64(32)
    return state


def _content(
    transaction: UInt64s, merchant: UInt64s, device: UInt64s, event_time: Int64s, amount: Int64s, currency: Int64s, attributes: Int64s,
    lat: Floats, lon: Floats,
) -> UInt64s:  # fmt: skip
    return combined(transaction, merchant, device, event_time, amount, currency, attributes, lat, lon)


def _currency_code(currency: str) -> int:
    return ord(currency[0]) << 16 | ord(currency[1]) << 8 | ord(currency[2])


def country_code(country: str | None) -> int:
    """Return 1 to 676 for an ISO 3166-1 alpha-2 code, or 0 for None."""
    return 1 + (ord(country[0]) - 65) * 26 + ord(country[1]) - 65 if country else 0


def _attributes(
    merchant: UInt64s, category: Int64s, country: Int64s, channel: Int64s, event_time: Int64s, amount: Int64s,
    low_amount: int, night_until: int,
) -> Int64s:  # fmt: skip
    hour = event_time // 3_600_000 % 24
    packed = (merchant & np.uint64(0xFFFFFFFF)).astype(np.int64) << MERCHANT_SHIFT
    packed |= category << CATEGORY_SHIFT
    packed |= country << COUNTRY_SHIFT
    packed |= channel << CHANNEL_SHIFT
    packed |= np.where(hour <= night_until, NIGHT_BIT, 0)
    packed |= np.where((amount >= 0) & (amount <= low_amount), LOW_BIT, 0)
    return packed


def transaction_columns(
    transactions: Sequence[Transaction], currency: str, rates: dict[str, float], low_amount: int, night_until: int
) -> TransactionColumns:
    """Return the columns of a batch of messages. The last four arguments come from the feature spec."""
    fields = list(zip(*map(_FIELDS, transactions), strict=True)) or [()] * 12
    ids, cards, merchants, devices, times, amounts, currencies, mccs, countries, channels, lats, lons = fields
    card, merchant, device = hash_strings(cards), hash_strings(merchants), hash_strings(devices)
    transaction = combined(card, hash_strings(ids))
    event_time, paid = np.array(times, np.int64), np.array(amounts, np.int64)
    amount = paid.copy()
    for i, own in enumerate(currencies):
        if own != currency:
            amount[i] = converted(amounts[i], own, rates)
    lat, lon = np.array(lats, np.float64), np.array(lons, np.float64)  # None becomes NaN
    nowhere = np.isnan(lat) | np.isnan(lon)
    lat[nowhere] = lon[nowhere] = np.nan
    attributes = _attributes(
        merchant,
        _coded(mccs, lambda mcc: int(mcc) + 1 if mcc else 0),
        _coded(countries, country_code),
        _coded(channels, _CHANNELS.__getitem__),
        event_time, amount, low_amount, night_until,
    )  # fmt: skip
    codes = _coded(currencies, _currency_code)
    return TransactionColumns(
        transaction=transaction,
        content=_content(transaction, merchant, device, event_time, paid, codes, attributes, lat, lon),
        event_time=event_time,
        card=card,
        merchant=merchant,
        device=device,
        amount=amount,
        attributes=attributes,
        lat=lat,
        lon=lon,
    )


def _coded(values: Sequence[Any], code: Callable[[Any], int]) -> Int64s:
    """Return the code of each value, int64 [n]. It is computed once for equal values."""
    codes = {value: code(value) for value in set(values)}
    return np.array([codes[value] for value in values], np.int64)


def converted(amount: int, currency: str, rates: dict[str, float]) -> int:
    """
    Return an amount in minor units of the spec's currency.

    Return ``UNKNOWN_AMOUNT`` if there is no exchange rate or if the converted amount exceeds ``LARGEST_AMOUNT``.
    """
    if currency not in rates:
        return UNKNOWN_AMOUNT
    exchanged = round(amount * rates[currency])
    return exchanged if exchanged <= LARGEST_AMOUNT else UNKNOWN_AMOUNT


def table_columns(
    table: "pa.Table", currency: str, rates: dict[str, float], low_amount: int, night_until: int
) -> TransactionColumns:
    """
    Return the columns of a table of validated transactions, which has the fields of ``Transaction`` as columns and nulls for
    missing values.

    The result is bit-identical to that of ``transaction_columns`` for the same transactions.
    """

    def mapped(name: str, of: Any) -> Int64s:
        column = table[name].combine_chunks()
        encoded = column.dictionary_encode()
        codes = np.array([of(value) for value in encoded.dictionary.to_pylist()] + [0], np.int64)
        rows: Int64s = codes[encoded.indices.fill_null(len(codes) - 1).to_numpy(zero_copy_only=False)]
        return rows

    def floats(name: str) -> Floats:
        return np.array(table[name].to_numpy(), np.float64)

    card, merchant = hash_arrow(table["card_id"].combine_chunks()), hash_arrow(table["merchant_id"].combine_chunks())
    device = hash_arrow(table["device_id"].combine_chunks())
    transaction = combined(card, hash_arrow(table["transaction_id"].combine_chunks()))
    event_time = np.array(table["event_time"].to_numpy(), np.int64)  # a copy: kernels are compiled for writable arrays
    paid = np.array(table["amount"].to_numpy(), np.int64)
    amount = paid.copy()
    currencies = table["currency"].combine_chunks().dictionary_encode()
    names = currencies.dictionary.to_pylist()
    if names != [currency]:
        own = currencies.indices.to_numpy()
        for index, name in enumerate(names):
            if name != currency:
                rows = np.flatnonzero(own == index)
                amount[rows] = [converted(int(value), name, rates) for value in amount[rows]]
    lat, lon = floats("lat"), floats("lon")
    nowhere = np.isnan(lat) | np.isnan(lon)
    lat, lon = np.where(nowhere, np.nan, lat), np.where(nowhere, np.nan, lon)
    attributes = _attributes(
        merchant,
        mapped("mcc", lambda mcc: int(mcc) + 1),
        mapped("country", country_code),
        mapped("channel", lambda channel: _CHANNELS[Channel(channel)]),
        event_time, amount, low_amount, night_until,
    )  # fmt: skip
    content = _content(transaction, merchant, device, event_time, paid, mapped("currency", _currency_code), attributes, lat, lon)
    return TransactionColumns(transaction, content, event_time, card, merchant, device, amount, attributes, lat, lon)


def label_columns(labels: Sequence[Label]) -> LabelColumns:
    """Return the columns of a batch of label messages."""
    n = len(labels)
    card = hash_strings([label.card_id for label in labels])
    return LabelColumns(
        transaction=combined(card, hash_strings([label.transaction_id for label in labels])),
        card=card,
        merchant=hash_strings([label.merchant_id for label in labels]),
        event_time=np.fromiter((label.event_time for label in labels), np.int64, n),
        label_time=np.fromiter((label.label_time for label in labels), np.int64, n),
        fraud=np.fromiter((label.fraud for label in labels), np.bool_, n),
    )


def recent_transactions(rows: Iterable[Sequence[int]], merchant: int) -> tuple[RecentTransaction, ...]:
    """Decode recent transactions from the engine's rows (time, amount, attributes). ``merchant`` is the hash of the merchant."""
    recent = []
    for event_time, amount, attributes in rows:
        if event_time == 0:
            continue
        category = attributes >> CATEGORY_SHIFT & 0x3FFF
        country = attributes >> COUNTRY_SHIFT & 0x3FF
        channel = attributes >> CHANNEL_SHIFT & 3
        recent.append(
            RecentTransaction(
                event_time=event_time,
                amount=amount if amount >= 0 else None,
                mcc=f"{category - 1:04d}" if category else None,
                country=chr(65 + (country - 1) // 26) + chr(65 + (country - 1) % 26) if country else None,
                channel={0: None, CHANNEL_PRESENT: Channel.CARD_PRESENT, CHANNEL_ONLINE: Channel.ONLINE}[channel],
                same_merchant=attributes >> MERCHANT_SHIFT & 0xFFFFFFFF == merchant & 0xFFFFFFFF,
            )
        )
    return tuple(recent)
