"""
SQL archive of transactions, decisions and labels, for looking up the history of a card, a merchant or a device.

The archive is not on the decision path. Each row is one Kafka record or one row of an imported file. Its primary key is the time,
partition and offset of the record, so storing a record twice has no effect. Card numbers are stored as tokens, as everywhere in
whyflag. Memos and IP addresses are not stored.
"""

import io
import logging
import re
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, Connection, Float, Integer, Table, delete, func, insert, select, text
from sqlalchemy.exc import DataError, SQLAlchemyError

from analyst.database import database_at, lock, migrate
from analyst.tables import archived_decisions, archived_labels, archived_transactions
from core.clock import MS_PER_DAY, Clock
from core.errors import DatabaseError, InvalidEvent, Refusal
from core.event_time import AHEAD_MS
from core.messages import Channel, Decision, Label, Outcome, Transaction
from explain.facts.history import DeviceHistory, MerchantHistory, Payment

TABLES = (archived_transactions, archived_decisions, archived_labels)
_PARTITION_LOCK = 7_216_483  # arbitrary ID of the advisory lock held while partitions are created
_LOCK_MS, _QUERY_MS = 2_000, 3_000  # lock_timeout for dropping a partition, statement_timeout for a query
_COUNT_MS = 60_000  # statement_timeout for counting a day's decisions
_MOST_PAYMENTS = 2_000  # per card; the busiest simulated cards make 600 payments in three months
_ARROW_TYPES: dict[type, pa.DataType] = {BigInteger: pa.int64(), Integer: pa.int64(), Float: pa.float64(), Boolean: pa.bool_()}

logger = logging.getLogger(__name__)


class Source(Struct, frozen=True):
    """The partition and offset of a record, and the time at which it was written (epoch ms)."""

    written_at: int
    partition: int
    offset: int


class Outcomes(NamedTuple):
    """Number of decisions with and without an alert that turned out to be fraud or not, and the sum of their probabilities."""

    alert: bool
    fraud: bool
    decisions: int
    probability: float


class Archive:
    """Archive stored in one SQL database."""

    def __init__(self, url: str, clock: Clock, days: int) -> None:
        """
        Use the database at a SQLAlchemy URL, without connecting to it yet.

        Records written more than ``days`` days ago are not kept.

        Raises:
            DatabaseError: if the URL is wrong or a SQLite file cannot be created.
        """
        self._engine = database_at(url, "WHYFLAG_ARCHIVE")
        self._clock, self._days = clock, days
        self._partitions: set[str] = set()

    def migrate(self) -> None:
        """
        Migrate the database to the newest schema.

        Raises:
            DatabaseError: if the database cannot be opened or migrated.
        """
        migrate(self._engine, "WHYFLAG_ARCHIVE")

    def close(self) -> None:
        """Release the database's connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Check that the database answers, and raise ``DatabaseError`` if it does not."""
        self._rows(select(1))

    # -- writing --------------------------------------------------------------------------------------------------------------

    def add_transactions(self, sources: Sequence[Source], transactions: Sequence[Transaction]) -> None:
        """
        Store transactions, skipping those that are already stored.

        Raises:
            InvalidEvent: if the database rejects a value.
            DatabaseError: if the database does not answer.
        """
        self._add(archived_transactions, sources, transactions)

    def add_decisions(self, sources: Sequence[Source], decisions: Sequence[Decision]) -> None:
        """Store decisions; otherwise like ``add_transactions``."""
        self._add(archived_decisions, sources, decisions, reason_codes=[" ".join(one.reason_codes) for one in decisions])

    def add_labels(self, sources: Sequence[Source], labels: Sequence[Label]) -> None:
        """Store labels; otherwise like ``add_transactions``."""
        self._add(archived_labels, sources, labels)

    def expire(self) -> int:
        """
        Drop records older than the retention; return the number of partitions (PostgreSQL) or rows (SQLite) dropped.

        A partition that a long query is reading is left for the next call.
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
            logger.warning("partition %s is in use and will be dropped later", name)
            return False
        self._partitions.discard(name)
        return True

    def _oldest(self) -> int:
        """Return the start of the retention period: midnight UTC of its first day, epoch ms."""
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
        Store rows with COPY. COPY fails on rows that already exist, for example after a restart or a second import. In that case,
        copy all rows to a temporary table and insert the missing ones from there.
        """
        import psycopg

        buffer = io.BytesIO()
        # pyarrow quotes an empty string but not a null, so COPY reads only the null as NULL
        pyarrow.csv.write_csv(rows, buffer, pyarrow.csv.WriteOptions(include_header=False))
        days = {time // MS_PER_DAY for time in rows.column("written_at").to_pylist()}
        try:
            self._make_partitions(table, days)
            try:
                self._copy_once(table, rows.column_names, buffer)
            except psycopg.errors.CheckViolation:
                # a cached partition no longer exists: another process has a shorter retention, or the database was restored
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
        """Create the partitions of some days. Attaching a partition does not wait for readers; creating it in place would."""
        wanted = {_name_of(table, day): day for day in days}
        missing = wanted.keys() - self._partitions
        if not missing:
            return
        with self._engine.begin() as connection:
            lock(connection, _PARTITION_LOCK)  # another worker may be creating the same partitions
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

    def contains(self, transaction: Transaction) -> bool:
        """Return whether a transaction is archived. If not, the archive lags or the transaction is past the retention."""
        table = archived_transactions
        wanted = select(table.c.source_offset).where(
            table.c.card_id == transaction.card_id,
            table.c.event_time == transaction.event_time,
            table.c.transaction_id == transaction.transaction_id,
            table.c.written_at >= transaction.event_time - AHEAD_MS,
        )
        return bool(self._rows(wanted.limit(1)))

    def oldest_written_at(self) -> int | None:
        """Return when the oldest stored transaction was written (epoch ms), or None if no transaction is stored."""
        ((oldest,),) = self._rows(select(func.min(archived_transactions.c.written_at)))
        return None if oldest is None else int(oldest)

    def payments_of_card(self, card_id: str, since: int, before: int) -> list[Payment]:
        """Return a card's newest 2,000 payments with ``since`` <= event time < ``before`` (epoch ms), oldest first."""
        table = archived_transactions
        columns = [table.c[name] for name in Payment.__struct_fields__]
        # distinct, because a payment sent twice counts once
        wanted = _between(select(*columns).where(table.c.card_id == card_id), since, before).distinct()
        rows = self._rows(wanted.order_by(table.c.event_time.desc(), table.c.transaction_id).limit(_MOST_PAYMENTS))
        return [_payment(row) for row in reversed(rows)]

    def merchant(self, merchant_id: str, since: int, before: int) -> MerchantHistory:
        """Count a merchant's payments with ``since`` <= event time < ``before``, and the frauds reported before ``before``."""
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
        newest = {(row.card_id, row.transaction_id): row.fraud for row in self._rows(reported)}  # the last label wins
        frauds = [card for (card, _), fraud in newest.items() if fraud]
        return MerchantHistory(payments=count, cards=cards, frauds=len(frauds), cards_with_fraud=len(set(frauds)))

    def device(self, device_id: str, since: int, before: int) -> DeviceHistory:
        """Count a device's payments with ``since`` <= event time < ``before``, and the cards that made them."""
        payments, cards = self._counted(archived_transactions.c.device_id == device_id, since, before)
        return DeviceHistory(payments=payments, cards=cards)

    def outcomes(self, since: int, before: int) -> list[Outcomes]:
        """
        Count the decisions written at ``since`` <= time < ``before`` (epoch ms) by alert and fraud.

        The newest label of a transaction counts; a transaction without a label was legitimate. A decision written twice counts once.
        """
        table, labels = archived_decisions, archived_labels
        newest_first = labels.c.label_time.desc(), labels.c.written_at.desc(), labels.c.source_offset.desc()
        ranked = (
            select(
                labels.c.card_id,
                labels.c.transaction_id,
                labels.c.fraud,
                func.row_number()
                .over(partition_by=(labels.c.card_id, labels.c.transaction_id), order_by=newest_first)
                .label("rank"),
            )
            .where(labels.c.written_at >= since - AHEAD_MS)
            .subquery()
        )
        made = (
            select(
                table.c.card_id,
                table.c.transaction_id,
                (table.c.outcome != Outcome.APPROVE.value).label("alert"),
                table.c.probability,
            )
            .where(table.c.written_at >= since, table.c.written_at < before)
            .distinct()
            .subquery()
        )
        same = (ranked.c.card_id == made.c.card_id) & (ranked.c.transaction_id == made.c.transaction_id) & (ranked.c.rank == 1)
        fraud = func.coalesce(ranked.c.fraud, False)
        wanted = (
            select(made.c.alert, fraud, func.count(), func.coalesce(func.sum(made.c.probability), 0.0))
            .select_from(made.outerjoin(ranked, same))
            .group_by(made.c.alert, fraud)
        )
        return [Outcomes(bool(row[0]), bool(row[1]), int(row[2]), float(row[3])) for row in self._rows(wanted, _COUNT_MS)]

    def _counted(self, condition: Any, since: int, before: int) -> tuple[int, int]:
        """Count the payments that match a condition and the cards that made them. A payment sent twice counts once."""
        table = archived_transactions
        identity = (table.c.card_id, table.c.transaction_id, table.c.event_time, table.c.amount)
        payments = _between(select(*identity).where(condition), since, before).distinct().subquery()
        ((count, cards),) = self._rows(select(func.count(), func.count(payments.c.card_id.distinct())).select_from(payments))
        return count, cards

    def _rows(self, wanted: Any, limit_ms: int = _QUERY_MS) -> list[Any]:
        with _failures(), self._engine.connect().execution_options(reading=True) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL statement_timeout = {limit_ms}"))
            return list(connection.execute(wanted).all())


def _copy_csv(connection: Connection, table: str, columns: list[str], rows: io.BytesIO) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv)") as copy:
        copy.write(rows.getbuffer())


@contextmanager
def _failures() -> Any:
    """Map errors by class: a rejected value to ``InvalidEvent``, any other database error to ``DatabaseError``."""
    try:
        yield
    except (DataError, OverflowError, UnicodeEncodeError) as error:
        raise _refused(getattr(error, "orig", error)) from error
    except SQLAlchemyError as error:
        raise _away(getattr(error, "orig", error)) from error


def _refused(error: BaseException) -> InvalidEvent:
    return InvalidEvent(f"the archive's database rejected a value: {type(error).__name__}", Refusal.DATABASE)


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
    """Map the partitions that whyflag created to the end of their day (epoch ms). Partitions that others created are left out."""
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
    """
    Limit a query to payments with ``since`` <= event time < ``before``.

    An event time is at most ``AHEAD_MS`` later than the write time. The query therefore reads only records with a write time of
    at least ``since - AHEAD_MS``.
    """
    table = archived_transactions
    return wanted.where(table.c.event_time >= since, table.c.event_time < before, table.c.written_at >= since - AHEAD_MS)
