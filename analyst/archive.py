"""
The archive: transactions, decisions and labels in SQL, for looking up what a card, a merchant or a device did.

It is off the decision path. Each row is one Kafka record, or one row of an imported file. Its key is the time, partition and offset of the
record, so storing it twice changes nothing. Card numbers are tokens here as everywhere; memos and IP addresses are not stored.
"""

import io
import logging
import re
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.csv
from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, Connection, Float, Integer, Table, delete, func, insert, select, text
from sqlalchemy.exc import DataError, SQLAlchemyError

from analyst.database import database_at, lock, migrate
from analyst.tables import archived_decisions, archived_labels, archived_transactions
from core.clock import MS_PER_DAY, Clock
from core.errors import DatabaseError, InvalidEvent
from core.event_time import AHEAD_MS
from core.messages import Channel, Decision, Label, Transaction
from explain.facts.history import DeviceHistory, MerchantHistory, Payment

TABLES = (archived_transactions, archived_decisions, archived_labels)
_PARTITION_LOCK = 7_216_483  # any number: the advisory lock under which partitions are made
_LOCK_MS, _QUERY_MS = 2_000, 3_000  # longest wait for a lock, longest query of a page
_MOST_PAYMENTS = 2_000  # of one card: three months of the busiest simulated cards are 600
_ARROW_TYPES: dict[type, pa.DataType] = {BigInteger: pa.int64(), Integer: pa.int64(), Float: pa.float64(), Boolean: pa.bool_()}

logger = logging.getLogger(__name__)


class Source(Struct, frozen=True):
    """Where a record stands in its topic and when it was written (epoch ms)."""

    written_at: int
    partition: int
    offset: int


class Archive:
    """The archive in one database."""

    def __init__(self, url: str, clock: Clock, days: int) -> None:
        """
        The archive at a SQLAlchemy URL, which need not answer yet. Records written more than ``days`` days ago are not kept.

        Raises:
            DatabaseError: if the URL is wrong.
        """
        self._engine = database_at(url, "WHYFLAG_ARCHIVE")
        self._clock, self._days = clock, days
        self._partitions: set[str] = set()

    def migrate(self) -> None:
        """
        Bring the database to the newest schema.

        Raises:
            DatabaseError: if it cannot be opened or changed.
        """
        migrate(self._engine, "WHYFLAG_ARCHIVE")

    def close(self) -> None:
        """Release the database's connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Return when the database has answered."""
        self._rows(select(1))

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
        """
        Drop what was written before the retention; return how many partitions (PostgreSQL) or rows (SQLite) that were.

        A partition that a long query is reading is left for the next time.
        """
        oldest = self._oldest()
        with _failures():
            if self._engine.dialect.name != "postgresql":
                with self._engine.begin() as connection:
                    return sum(connection.execute(delete(table).where(table.c.written_at < oldest)).rowcount for table in TABLES)
            with self._engine.connect() as connection:
                names = [name for table in TABLES for name, end in _partitions(connection, table).items() if end <= oldest]
        return sum(self._dropped(name) for name in names)

    def _dropped(self, name: str) -> bool:
        import psycopg

        try:
            with _failures(), self._engine.begin() as connection:
                connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MS}"))
                connection.execute(text(f'DROP TABLE IF EXISTS "{name}"'))
        except DatabaseError as error:
            if not isinstance(getattr(error.__cause__, "orig", None), psycopg.errors.LockNotAvailable):
                raise
            logger.warning("the partition %s is in use and is dropped later", name)
            return False
        self._partitions.discard(name)
        return True

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
        oldest = self._oldest()
        kept = rows.filter(pa.array([written >= oldest for written in columns["written_at"]], pa.bool_()))
        if not kept.num_rows:
            return
        with _failures():
            if self._engine.dialect.name == "postgresql":
                self._copy(table, kept)
                return
            with self._engine.begin() as connection:
                connection.execute(insert(table).prefix_with("OR IGNORE"), kept.to_pylist())

    def _copy(self, table: Table, rows: pa.Table) -> None:
        """
        Store rows by COPY. COPY fails on rows that already exist, for example after a restart or a second import. Then all rows are copied
        to a temporary table, and the missing ones are inserted from there.
        """
        import psycopg

        buffer = io.BytesIO()
        # an empty cell is NULL, an empty text is quoted
        pyarrow.csv.write_csv(rows, buffer, pyarrow.csv.WriteOptions(include_header=False))
        days = {time // MS_PER_DAY for time in rows.column("written_at").to_pylist()}
        try:
            self._make_partitions(table, days)
            try:
                self._copy_once(table, rows.column_names, buffer)
            except psycopg.errors.CheckViolation:
                # a partition has gone since it was looked up: by a shorter retention elsewhere, or in a restored database
                self._partitions.clear()
                self._make_partitions(table, days)
                self._copy_once(table, rows.column_names, buffer)
        except psycopg.DataError as error:
            raise _refused(error) from error
        except psycopg.Error as error:
            raise _away(error) from error

    def _copy_once(self, table: Table, columns: list[str], rows: io.BytesIO) -> None:
        import psycopg

        with self._engine.begin() as connection:
            try:
                with connection.begin_nested():
                    _copy_csv(connection, table.name, columns, rows)
            except psycopg.errors.UniqueViolation:
                waiting = f"{table.name}_waiting"
                connection.execute(text(f"CREATE TEMPORARY TABLE {waiting} (LIKE {table.name}) ON COMMIT DROP"))
                _copy_csv(connection, waiting, columns, rows)
                connection.execute(text(f"INSERT INTO {table.name} SELECT * FROM {waiting} ON CONFLICT DO NOTHING"))

    def _make_partitions(self, table: Table, days: set[int]) -> None:
        """Make the partitions of some days. To attach one does not wait for readers, as to make it in place would."""
        wanted = {_name_of(table, day): day for day in days}
        missing = wanted.keys() - self._partitions
        if not missing:
            return
        with self._engine.begin() as connection:
            lock(connection, _PARTITION_LOCK)  # another worker may make the same
            there = _partitions(connection, table).keys()
            for name in sorted(missing - there):
                begin = wanted[name] * MS_PER_DAY
                connection.execute(text(f'CREATE TABLE "{name}" (LIKE {table.name} INCLUDING ALL)'))
                connection.execute(
                    text(
                        f'ALTER TABLE {table.name} ATTACH PARTITION "{name}" FOR VALUES FROM ({begin}) TO ({begin + MS_PER_DAY})'
                    )
                )
        self._partitions |= there | missing

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

    def begins(self) -> int | None:
        """When the oldest stored transaction was written, epoch ms; None if there is none."""
        ((oldest,),) = self._rows(select(func.min(archived_transactions.c.written_at)))
        return None if oldest is None else int(oldest)

    def payments_of_card(self, card_id: str, since: int, before: int) -> list[Payment]:
        """A card's payments from ``since`` to before ``before`` (event time, epoch ms), oldest first; the newest 2,000 of them."""
        table = archived_transactions
        columns = [table.c[name] for name in Payment.__struct_fields__]
        wanted = _between(select(*columns).where(table.c.card_id == card_id), since, before).distinct()  # sent twice, paid once
        rows = self._rows(wanted.order_by(table.c.event_time.desc(), table.c.transaction_id).limit(_MOST_PAYMENTS))
        return [_payment(row) for row in reversed(rows)]

    def merchant(self, merchant_id: str, since: int, before: int) -> MerchantHistory:
        """A merchant's payments from ``since`` to before ``before``, and what was reported of these until then."""
        labels = archived_labels
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
        count, cards = self._counted(archived_transactions.c.merchant_id == merchant_id, since, before)
        newest = {(row.card_id, row.transaction_id): row.fraud for row in self._rows(reported)}  # a later label corrects
        frauds = [card for (card, _), fraud in newest.items() if fraud]
        return MerchantHistory(payments=count, cards=cards, frauds=len(frauds), cards_with_fraud=len(set(frauds)))

    def device(self, device_id: str, since: int, before: int) -> DeviceHistory:
        """A device's payments from ``since`` to before ``before``, and by how many cards."""
        payments, cards = self._counted(archived_transactions.c.device_id == device_id, since, before)
        return DeviceHistory(payments=payments, cards=cards)

    def _counted(self, condition: Any, since: int, before: int) -> tuple[int, int]:
        """How many payments there are on a condition, and by how many cards. What was sent twice counts once."""
        table = archived_transactions
        identity = (table.c.card_id, table.c.transaction_id, table.c.event_time, table.c.amount)
        payments = _between(select(*identity).where(condition), since, before).distinct().subquery()
        ((count, cards),) = self._rows(select(func.count(), func.count(payments.c.card_id.distinct())).select_from(payments))
        return count, cards

    def _rows(self, wanted: Any) -> list[Any]:
        with _failures(), self._engine.connect().execution_options(reading=True) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL statement_timeout = {_QUERY_MS}"))
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
    except (DataError, OverflowError, UnicodeEncodeError) as error:
        raise _refused(getattr(error, "orig", error)) from error
    except SQLAlchemyError as error:
        raise _away(getattr(error, "orig", error)) from error


def _refused(error: BaseException) -> InvalidEvent:
    return InvalidEvent(f"the archive refuses a value: {type(error).__name__}")


def _away(error: BaseException) -> DatabaseError:
    return DatabaseError(
        f"the archive's database does not answer ({type(error).__name__}): check WHYFLAG_ARCHIVE and the database"
    )


def _payment(row: Any) -> Payment:
    values = row._asdict()
    channel = values.pop("channel")
    return Payment(channel=Channel(channel) if channel else None, **values)


def _name_of(table: Table, day: int) -> str:
    return f"{table.name}_{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day):%Y%m%d}"


def _partitions(connection: Connection, table: Table) -> dict[str, int]:
    """The partitions that were made here, by name, with the end of their day (epoch ms). Others are an administrator's."""
    wanted = text(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = CAST(:parent AS regclass)"
    )
    found = {}
    for (name,) in connection.execute(wanted, {"parent": table.name}):
        if re.fullmatch(rf"{table.name}_[0-9]{{8}}", name):
            begin = datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC)
            found[name] = int(begin.timestamp() * 1000) + MS_PER_DAY
    return found


def _between(wanted: Any, since: int, before: int) -> Any:
    """Transactions of an event time; what was written long before cannot be among them."""
    table = archived_transactions
    return wanted.where(table.c.event_time >= since, table.c.event_time < before, table.c.written_at >= since - AHEAD_MS)
