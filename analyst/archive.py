"""
The archive: transactions, decisions and labels in SQL, for looking up what a card, a merchant or a device did.

It is off the decision path. Each row is one Kafka record, or one row of an imported file. Its key is the time, partition and offset of the
record, so storing it twice changes nothing. Card numbers are tokens here as everywhere; memos and IP addresses are not stored.
"""

import io
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.csv
from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, Connection, Float, Integer, Table, delete, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from analyst.database import lock, open_database
from analyst.tables import archived_decisions, archived_labels, archived_transactions
from core.clock import MS_PER_DAY, Clock
from core.errors import DatabaseError, InvalidEvent
from core.event_time import AHEAD_MS
from core.messages import Channel, Decision, Label, Transaction
from explain.facts.history import DeviceHistory, MerchantHistory, Payment

TABLES = (archived_transactions, archived_decisions, archived_labels)
_MOST_PAYMENTS = 2_000  # of one card: three months of the busiest simulated cards are 600
_ARROW_TYPES: dict[type, pa.DataType] = {BigInteger: pa.int64(), Integer: pa.int64(), Float: pa.float64(), Boolean: pa.bool_()}


class Source(Struct, frozen=True):
    """Where a record stands in its topic and when it was written (epoch ms)."""

    written_at: int
    partition: int
    offset: int


class Archive:
    """The archive in one database."""

    def __init__(self, url: str, clock: Clock, days: int) -> None:
        """
        Open and migrate the database at a SQLAlchemy URL. Records written more than ``days`` days ago are not kept.

        Raises:
            DatabaseError: if it cannot be opened.
        """
        self._engine = open_database(url, "WHYFLAG_ARCHIVE")
        self._clock, self._days = clock, days
        self._partitions: set[str] = set()

    def close(self) -> None:
        """Release the database's connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Return when the database has answered."""
        with self._engine.connect().execution_options(reading=True) as connection:
            connection.execute(select(1))

    # -- writing --------------------------------------------------------------------------------------------------------------

    def add_transactions(self, sources: Sequence[Source], transactions: Sequence[Transaction]) -> None:
        """
        Store transactions. Those that are there already stay as they are.

        Raises:
            InvalidEvent: if the database refuses a value.
            DatabaseError: if it does not answer.
        """
        self._add(archived_transactions, sources, transactions)

    def add_decisions(self, sources: Sequence[Source], decisions: Sequence[Decision]) -> None:
        """As ``add_transactions``, for decisions."""
        self._add(archived_decisions, sources, decisions, reason_codes=[" ".join(one.reason_codes) for one in decisions])

    def add_labels(self, sources: Sequence[Source], labels: Sequence[Label]) -> None:
        """As ``add_transactions``, for labels."""
        self._add(archived_labels, sources, labels)

    def expire(self) -> int:
        """Drop what was written before the retention; return how many partitions (PostgreSQL) or rows (SQLite) that were."""
        oldest = self._oldest()
        with _failures(), self._engine.begin() as connection:
            if connection.dialect.name != "postgresql":
                return sum(connection.execute(delete(table).where(table.c.written_at < oldest)).rowcount for table in TABLES)
            lock(connection)
            names = [name for table in TABLES for name in _partitions(connection, table) if _end_of(name) <= oldest]
            for name in names:
                connection.execute(text(f'DROP TABLE "{name}"'))
            self._partitions.difference_update(names)
            return len(names)

    def _oldest(self) -> int:
        """When the oldest kept record was written: the beginning of a day, epoch ms."""
        return (self._clock.now_ms() // MS_PER_DAY - self._days) * MS_PER_DAY

    def _add(self, table: Table, sources: Sequence[Source], messages: Sequence[Any], **computed: list[Any]) -> None:
        columns: dict[str, list[Any]] = {
            "written_at": [source.written_at for source in sources],
            "source_partition": [source.partition for source in sources],
            "source_offset": [source.offset for source in sources],
        }
        for column in table.columns:
            if column.name not in columns:
                columns[column.name] = computed.get(column.name) or [getattr(message, column.name) for message in messages]
        types = {column.name: _ARROW_TYPES.get(type(column.type), pa.string()) for column in table.columns}
        rows = pa.table({column.name: pa.array(columns[column.name], types[column.name]) for column in table.columns})
        kept = rows.filter(pa.array([written >= self._oldest() for written in columns["written_at"]], pa.bool_()))
        if not kept.num_rows:
            return
        with _failures(), self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                self._copy(connection, table, kept)
            else:
                connection.execute(insert(table).prefix_with("OR IGNORE"), kept.to_pylist())

    def _copy(self, connection: Connection, table: Table, rows: pa.Table) -> None:
        """
        Store rows by COPY. COPY fails on rows that already exist, for example after a restart or a second import. Then all rows are copied
        to a temporary table, and the missing ones are inserted from there.
        """
        import psycopg

        self._make_partitions(connection, table, rows.column("written_at").to_pylist())
        buffer = io.BytesIO()
        # an empty cell is NULL, an empty text is quoted
        pyarrow.csv.write_csv(rows, buffer, pyarrow.csv.WriteOptions(include_header=False))
        try:
            with connection.begin_nested():
                _copy_csv(connection, table.name, rows.column_names, buffer)
        except psycopg.errors.UniqueViolation:
            waiting = f"{table.name}_waiting"
            connection.execute(text(f"CREATE TEMPORARY TABLE {waiting} (LIKE {table.name}) ON COMMIT DROP"))
            _copy_csv(connection, waiting, rows.column_names, buffer)
            connection.execute(text(f"INSERT INTO {table.name} SELECT * FROM {waiting} ON CONFLICT DO NOTHING"))

    def _make_partitions(self, connection: Connection, table: Table, written: Iterable[int]) -> None:
        wanted = {_name_of(table, day): day for day in {time // MS_PER_DAY for time in written}}
        if missing := wanted.keys() - self._partitions:
            lock(connection)  # another worker may make the same
            there = set(_partitions(connection, table))
            for name in sorted(missing - there):
                begin = wanted[name] * MS_PER_DAY
                connection.execute(
                    text(f'CREATE TABLE "{name}" PARTITION OF {table.name} FOR VALUES FROM ({begin}) TO ({begin + MS_PER_DAY})')
                )
            self._partitions |= there  # not those created here: the transaction may still be rolled back

    # -- reading --------------------------------------------------------------------------------------------------------------

    def holds(self, transaction: Transaction) -> bool:
        """Whether a transaction has been archived: if not, the archive is behind, or no longer keeps its time."""
        table = archived_transactions
        wanted = select(table.c.source_offset).where(
            table.c.card_id == transaction.card_id,
            table.c.event_time == transaction.event_time,
            table.c.transaction_id == transaction.transaction_id,
            table.c.written_at >= transaction.event_time - AHEAD_MS,
        )
        return bool(self._rows(wanted.limit(1)))

    def payments_of_card(self, card_id: str, since: int, before: int) -> list[Payment]:
        """A card's payments from ``since`` to before ``before`` (event time, epoch ms), oldest first; the newest 2,000 of them."""
        table = archived_transactions
        wanted = select(*(table.c[name] for name in Payment.__struct_fields__)).where(
            table.c.card_id == card_id,
            table.c.event_time >= since,
            table.c.event_time < before,
            table.c.written_at >= since - AHEAD_MS,
        )
        rows = self._rows(wanted.order_by(table.c.event_time.desc(), table.c.source_offset.desc()).limit(_MOST_PAYMENTS))
        return [_payment(row) for row in reversed(rows)]

    def merchant(self, merchant_id: str, since: int, before: int) -> MerchantHistory:
        """A merchant's payments from ``since`` to before ``before``, and what was reported of these until then."""
        payments, labels = archived_transactions, archived_labels
        counted = select(func.count(), func.count(payments.c.card_id.distinct())).where(
            payments.c.merchant_id == merchant_id,
            payments.c.event_time >= since,
            payments.c.event_time < before,
            payments.c.written_at >= since - AHEAD_MS,
        )
        reported = (
            select(labels.c.card_id, labels.c.transaction_id, labels.c.fraud)
            .where(
                labels.c.merchant_id == merchant_id,
                labels.c.event_time >= since,
                labels.c.label_time < before,
                labels.c.written_at >= since - AHEAD_MS,
            )
            .order_by(labels.c.label_time, labels.c.source_offset)
        )
        ((count, cards),) = self._rows(counted)
        newest = {(row.card_id, row.transaction_id): row.fraud for row in self._rows(reported)}  # a later label corrects
        frauds = [card for (card, _), fraud in newest.items() if fraud]
        return MerchantHistory(payments=count, cards=cards, frauds=len(frauds), cards_with_fraud=len(set(frauds)))

    def device(self, device_id: str, since: int, before: int) -> DeviceHistory:
        """A device's payments from ``since`` to before ``before``, and the cards that made them, most payments first."""
        table = archived_transactions
        wanted = select(table.c.card_id, func.count().label("payments")).where(
            table.c.device_id == device_id,
            table.c.event_time >= since,
            table.c.event_time < before,
            table.c.written_at >= since - AHEAD_MS,
        )
        rows = self._rows(wanted.group_by(table.c.card_id))
        cards = sorted(rows, key=lambda row: (-row.payments, row.card_id))
        return DeviceHistory(payments=sum(row.payments for row in rows), cards=tuple(row.card_id for row in cards))

    def _rows(self, wanted: Any) -> list[Any]:
        with _failures(), self._engine.connect().execution_options(reading=True) as connection:
            return list(connection.execute(wanted).all())


def _copy_csv(connection: Connection, table: str, columns: list[str], rows: io.BytesIO) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv)") as copy:
        copy.write(rows.getbuffer())


@contextmanager
def _failures() -> Any:
    """Turn a refused value into ``InvalidEvent`` and an outage into ``DatabaseError``, by the error's class."""
    try:
        yield
    except (SQLAlchemyError, OverflowError, UnicodeEncodeError) as error:
        raise _failure(getattr(error, "orig", None) or error) from error
    except Exception as error:
        if not hasattr(error, "sqlstate"):  # COPY speaks to psycopg directly
            raise
        raise _failure(error) from error


def _failure(error: BaseException) -> InvalidEvent | DatabaseError:
    refused = {"DataError", "IntegrityError", "OverflowError", "UnicodeEncodeError"}
    if refused & {kind.__name__ for kind in type(error).__mro__}:
        return InvalidEvent(f"the archive refuses a value: {type(error).__name__}")
    return DatabaseError(
        f"the archive's database does not answer ({type(error).__name__}): check WHYFLAG_ARCHIVE and the database"
    )


def _payment(row: Any) -> Payment:
    values = row._asdict()
    channel = values.pop("channel")
    return Payment(channel=Channel(channel) if channel else None, **values)


def _name_of(table: Table, day: int) -> str:
    return f"{table.name}_{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day):%Y%m%d}"


def _end_of(name: str) -> int:
    """When the day of a partition ended, epoch ms."""
    begin = datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC)
    return int(begin.timestamp() * 1000) + MS_PER_DAY


def _partitions(connection: Connection, table: Table) -> list[str]:
    wanted = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:parent AS regclass)")
    return [name.strip('"') for (name,) in connection.execute(wanted, {"parent": table.name})]
