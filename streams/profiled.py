"""
Records of the topic ``profiled``: what the first stage hands to the second. A record holds rows of transactions in columns, or a label.

A record is MessagePack. Numbers are matrices of little-endian values, which numpy reads without a loop; texts are lists. The rows
that a batch has for one partition form one record, or several if a record would exceed ``LARGEST`` bytes. Only workers read and write
this topic. ``docs/decisions/0033-columns-between-the-stages.md`` compares the format with Arrow.
"""

from collections.abc import Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from core.errors import InvalidEvent, Refusal, StateError
from core.messages import EARLIEST, LARGEST_AMOUNT, LATEST, Channel, Count, Label, Transaction
from core.privacy.masking import TEXT_LIMITS
from models.features.columns import (
    CATEGORY_SHIFT,
    CHANNEL_ONLINE,
    CHANNEL_SHIFT,
    COUNTRIES,
    COUNTRY_SHIFT,
    TransactionColumns,
)  # fmt: skip
from models.features.engine import RECENT, Update

FORMAT: Final = 2  # format 1, of version 0.1, was a JSON object for each transaction
LARGEST: Final = 256 << 10
TEXTS: Final = (
    "transaction_id", "card_id", "merchant_id", "currency", "mcc", "merchant_name", "country", "channel", "device_id", "ip", "memo",
)  # fmt: skip
_FIELDS: Final = attrgetter(*TEXTS, "amount", "lat", "lon")
REQUIRED: Final = 4  # texts that every transaction has, the first ones of TEXTS
_PARTITION, _OFFSET, _WRITTEN, _AMOUNT, _LAT, _LON, _COLUMNS = range(7)
_NUMBERS: Final = _COLUMNS + len(TransactionColumns._fields)
CATEGORIES: Final = 10_000  # merchant category codes of four digits
_CHANNELS: Final = {None, *Channel}
_EARLIER: Final = 3 * RECENT  # numbers of the recent transactions of a row

_Text = Annotated[str, Meta(max_length=max(TEXT_LIMITS["memo"], TEXT_LIMITS["merchant_name"]))]
Int64s = npt.NDArray[np.int64]
Texts = tuple[list[str | None], ...]


class _Rows(Struct, frozen=True, array_like=True, tag="rows"):
    """The record of some rows. Changing a field needs another ``FORMAT``."""

    format: int
    spec: str
    texts: Annotated[list[list[_Text | None]], Meta(min_length=len(TEXTS), max_length=len(TEXTS))]
    numbers: bytes
    features: bytes
    recent: bytes
    traces: list[str]


class _Label(Struct, frozen=True, array_like=True, tag="label"):
    """The record of a label."""

    format: int
    partition: Count
    offset: Count
    label: Label


class ForwardedLabel(Struct, frozen=True):
    """A label, and the place in ``labels`` from which it comes."""

    partition: int
    offset: int
    label: Label


class ProfiledRows(Struct, frozen=True):
    """
    n transactions with their card features. Those of a partition of ``transactions`` follow each other, in its order.

    ``texts`` holds a list of n for each name in TEXTS; the list of a text that no transaction has may be empty. ``numbers`` int64
    [16, n] holds the partition and the offset in ``transactions``, the write time (epoch ms), the amount (minor units), latitude and
    longitude (the bits of float64, NaN if absent) and the ten columns of ``TransactionColumns`` (their bits). ``features`` float32 [n, F] are those of the card. ``recent`` int64
    [n, 24] holds the card's last eight transactions as in ``Update``. ``traces`` holds the traceparent of each transaction, or
    nothing if none is traced.
    """

    spec: str
    texts: Texts
    numbers: Int64s
    features: npt.NDArray[np.float32]
    recent: Int64s
    traces: Sequence[str] = ()

    @property
    def count(self) -> int:
        """Number of transactions."""
        return len(self.features)

    @property
    def partitions(self) -> Int64s:
        """Partitions of ``transactions``, int64 [n]."""
        return self._row(_PARTITION)

    @property
    def offsets(self) -> Int64s:
        """Offsets in the partitions of ``transactions``, int64 [n]."""
        return self._row(_OFFSET)

    @property
    def written(self) -> Int64s:
        """When each transaction arrived in Kafka, epoch ms, int64 [n]; 0 if unknown."""
        return self._row(_WRITTEN)

    @property
    def event_time(self) -> Int64s:
        """Event times, epoch ms, int64 [n]."""
        return self._row(_COLUMNS + TransactionColumns._fields.index("event_time"))

    @property
    def amount(self) -> Int64s:
        """Amounts in minor units of each transaction's own currency, int64 [n]."""
        return self._row(_AMOUNT)

    def _row(self, at: int) -> Int64s:
        row: Int64s = self.numbers[at]
        return row

    @property
    def columns(self) -> TransactionColumns:
        """The columns that the kernels read, with the marks of the first stage."""
        own = self.numbers[_COLUMNS:]
        return TransactionColumns(*(row.view(kind) for row, kind in zip(own, _KINDS, strict=True)))

    def bounds(self) -> list[int]:
        """Return where the rows of each partition begin, and n at the end."""
        own = self.partitions
        return [0, *(np.flatnonzero(own[1:] != own[:-1]) + 1).tolist(), self.count]

    def text(self, name: str) -> list[str | None]:
        """Return a text of all transactions: one of TEXTS."""
        return self.texts[TEXTS.index(name)] or [None] * self.count

    def transaction(self, i: int) -> Transaction:
        """Return transaction i as a message, equal to the one that the first stage decoded."""
        lat, lon = self.numbers[_LAT : _LON + 1, i].view(np.float64).tolist()
        given: dict[str, Any] = {name: own[i] for name, own in zip(TEXTS, self.texts, strict=True) if own}
        if given.get("channel") is not None:
            given["channel"] = Channel(given["channel"])
        return Transaction(
            event_time=int(self.event_time[i]),
            amount=int(self.amount[i]),
            lat=lat if lat == lat else None,
            lon=lon if lon == lon else None,
            **given,
        )

    def rows(self, index: Int64s) -> "ProfiledRows":
        """Return some of the rows, selected by their places, int64 [m]."""
        if len(index) == self.count:
            return self
        places = index.tolist()
        return ProfiledRows(
            self.spec,
            tuple(_taken(own, places) for own in self.texts),
            np.take(self.numbers, index, axis=1),
            np.take(self.features, index, axis=0),
            np.take(self.recent, index, axis=0),
            _taken(self.traces, places),
        )


_KINDS: Final = [np.dtype(kind) for kind in ("u8", "u8", "i8", "u8", "u8", "u8", "i8", "i8", "f8", "f8")]  # of TransactionColumns


def _taken(values: Sequence[Any], places: list[int]) -> list[Any]:
    if not values or not places:
        return []
    taken = itemgetter(*places)(values)
    return list(taken) if len(places) > 1 else [taken]


def profiled_rows(
    spec: str, transactions: Sequence[Transaction], partitions: Sequence[int], offsets: Sequence[int], written: Sequence[int],
    columns: TransactionColumns, update: Update, traces: Sequence[str] = (),
) -> ProfiledRows:  # fmt: skip
    """Return the rows of n transactions whose card state has been updated. All sequences have n entries, ``traces`` n or none."""
    n = len(transactions)
    numbers = np.empty((_NUMBERS, n), np.int64)
    numbers[_PARTITION] = partitions
    numbers[_OFFSET] = offsets
    numbers[_WRITTEN] = np.maximum(np.array(written, np.int64), 0)
    *texts, amounts, lats, lons = zip(*map(_FIELDS, transactions), strict=True)
    numbers[_AMOUNT] = amounts
    numbers[_LAT] = np.array(lats, np.float64).view(np.int64)  # None becomes NaN
    numbers[_LON] = np.array(lons, np.float64).view(np.int64)
    for row, column in zip(numbers[_COLUMNS:], columns.marked(update.marks), strict=True):
        row[:] = column.view(np.int64)
    earlier = update.recent.reshape(n, _EARLIER)
    return ProfiledRows(spec, tuple(map(list, texts)), numbers, update.X, earlier, traces)


def encode_rows(rows: ProfiledRows) -> Iterator[bytes]:
    """Yield the records of some rows, each at most ``LARGEST`` bytes unless it holds a single row."""
    record = _encode(
        _Rows(
            FORMAT,
            rows.spec,
            [own if any(value is not None for value in own) else [] for own in rows.texts],
            np.ascontiguousarray(rows.numbers, "<i8").tobytes(),
            np.ascontiguousarray(rows.features, "<f4").tobytes(),
            np.ascontiguousarray(rows.recent, "<i8").tobytes(),
            list(rows.traces),
        )
    )
    if len(record) <= LARGEST or rows.count == 1:
        yield record
        return
    half = rows.count // 2
    every = np.arange(rows.count)
    yield from encode_rows(rows.rows(every[:half]))
    yield from encode_rows(rows.rows(every[half:]))


def encode_label(label: ForwardedLabel) -> bytes:
    """Return the record of a label."""
    return _encode(_Label(FORMAT, label.partition, label.offset, label.label))


_encode = msgspec.msgpack.Encoder().encode
_decoder: Final[msgspec.msgpack.Decoder[_Rows | _Label]] = msgspec.msgpack.Decoder(_Rows | _Label)


def decode_profiled(record: bytes | None) -> ProfiledRows | ForwardedLabel:
    """
    Decode a record. Features and recent transactions are read-only.

    Raises:
        InvalidEvent: if it is malformed, or of format 1.
        StateError: if it has a later format; the worker must stop.
    """
    found = _decoded(record or b"")
    if found.format != FORMAT:  # its rows cannot be named in dead letters, so none may be skipped
        raise StateError(
            f"profiled has a record of format {found.format}, and this worker reads format {FORMAT}: run the version of whyflag that "
            "wrote it until everything is decided (docs/deploy/upgrade.md)"
        )
    if isinstance(found, _Label):
        return ForwardedLabel(found.partition, found.offset, found.label)
    n = len(found.texts[0])
    sizes = (len(found.numbers), len(found.recent), len(found.features) % max(4 * n, 1))
    if n == 0 or sizes != (8 * _NUMBERS * n, 8 * _EARLIER * n, 0):
        raise InvalidEvent("the columns of a profiled record have different lengths")
    allowed = [{n}] * REQUIRED + [{0, n}] * (len(TEXTS) - REQUIRED)
    if any(len(own) not in lengths for own, lengths in zip(found.texts, allowed, strict=True)) or len(found.traces) not in (0, n):
        raise InvalidEvent("the texts of a profiled record have different lengths")
    if any(None in own for own in found.texts[:REQUIRED]):
        raise InvalidEvent("a required text of a profiled record is missing")
    rows = ProfiledRows(
        found.spec,
        tuple(found.texts),
        np.frombuffer(found.numbers, "<i8").reshape(_NUMBERS, n).copy(),  # the kernels are compiled for writable arrays
        np.frombuffer(found.features, "<f4").reshape(n, -1),
        np.frombuffer(found.recent, "<i8").reshape(n, _EARLIER),
        found.traces,
    )
    _check_values(rows)
    bounds = rows.bounds()
    owners = rows.partitions[bounds[:-1]].tolist()
    descends = rows.offsets[1:] <= rows.offsets[:-1]
    if len(set(owners)) < len(owners) or np.count_nonzero(descends) > np.count_nonzero(
        descends[np.array(bounds[1:-1], np.int64) - 1]
    ):
        raise InvalidEvent("the offsets of a profiled record are not in order")
    return rows


def _check_values(rows: ProfiledRows) -> None:
    """Refuse values that the first stage never writes: they could damage the state, or stop the worker when an alert is raised."""
    columns = rows.columns
    attributes = columns.attributes
    country, category = attributes >> COUNTRY_SHIFT & 0x3FF, attributes >> CATEGORY_SHIFT & 0x3FFF
    channels = np.concatenate([attributes >> CHANNEL_SHIFT & 3, rows.recent[:, 2::3].ravel() >> CHANNEL_SHIFT & 3])
    found = {
        "origin": (rows.partitions >= 0) & (rows.offsets >= 0) & (rows.written >= 0),
        "time": (columns.event_time >= EARLIEST) & (columns.event_time <= LATEST),
        "amount": (rows.amount >= 0)
        & (rows.amount <= LARGEST_AMOUNT)
        & (columns.amount >= -1)
        & (columns.amount <= LARGEST_AMOUNT),
        "country": (attributes >= 0) & (country < COUNTRIES),
        "category": category <= CATEGORIES,
        "channel": channels <= CHANNEL_ONLINE,
    }
    flaws = [name for name, fits in found.items() if not fits.all()]
    if not _CHANNELS.issuperset(rows.texts[TEXTS.index("channel")]):
        flaws.append("channel")
    if flaws:
        raise InvalidEvent(f"a profiled record has an impossible {flaws[0]}")


def _decoded(record: bytes) -> _Rows | _Label:
    try:
        return _decoder.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if record.startswith(b"{"):
            raise InvalidEvent(
                f"the record has format 1, of whyflag 0.1; this worker reads format {FORMAT}: before an upgrade, let the old workers "
                "decide everything (docs/deploy/upgrade.md)",
                Refusal.OTHER_FORMAT,
            ) from None
        raise InvalidEvent(str(error)) from None


def joined(parts: Sequence[ProfiledRows]) -> ProfiledRows:
    """Return the rows of one or more records of a spec one after the other."""
    if len(parts) == 1:
        return parts[0]
    texts = tuple(
        [value for part in parts for value in part.text(name)] if any(part.texts[at] for part in parts) else []
        for at, name in enumerate(TEXTS)
    )
    traced = any(part.traces for part in parts)
    return ProfiledRows(
        parts[0].spec,
        texts,
        np.concatenate([part.numbers for part in parts], axis=1),
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.recent for part in parts]),
        [trace for part in parts for trace in (part.traces or [""] * part.count)] if traced else (),
    )
