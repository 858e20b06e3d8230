"""A SQLite or PostgreSQL database: open it, migrate it to the newest schema, read and change it."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from analyst.audit import AuditTrail
from core.errors import DatabaseError

_LOCK_SECONDS = 20  # wait for SQLite's write lock, which another process may hold for one short transaction
_QUEUE_LOCK = 7_216_482  # arbitrary ID of a PostgreSQL advisory lock
# The timeouts keep a server that does not answer from blocking a page or a worker forever.
_POSTGRES = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "client_encoding": "utf8"}


class Database:
    """An open database with its audit trail. Changes of one database happen one after the other."""

    def __init__(self, engine: Engine, audit: AuditTrail) -> None:
        self.engine, self.audit = engine, audit

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for a read-only transaction."""
        with self.engine.connect().execution_options(reading=True) as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Give a connection for a read-only transaction in which all queries see the same state."""
        options = {"isolation_level": "REPEATABLE READ"} if self.engine.dialect.name == "postgresql" else {}
        with self.engine.connect().execution_options(reading=True, **options) as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """Give a connection for a transaction that excludes all other changes. It is committed unless an error is raised."""
        with self.engine.begin() as connection:
            lock(connection)
            yield connection


def open_database(url: str, setting: str) -> Engine:
    """
    Open and migrate the database at a SQLAlchemy URL; ``setting`` is the environment variable that holds the URL.

    Raises:
        DatabaseError: if the URL is wrong or the database cannot be opened.
    """
    engine = database_at(url, setting)
    migrate(engine, setting)
    return engine


def database_at(url: str, setting: str) -> Engine:
    """
    Return an engine for a SQLAlchemy URL without connecting to the database yet.

    Raises:
        DatabaseError: if the URL is wrong or a SQLite file cannot be created.
    """
    try:
        return _engine(url)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise DatabaseError(f"{setting} is not a usable SQLAlchemy URL: {error}") from None
    except OSError as error:
        raise DatabaseError(f"the database cannot be opened: {error.__class__.__name__}; check {setting}") from None


def migrate(engine: Engine, setting: str, revision: str | None = None) -> str:
    """
    Migrate a database forward or back to a revision, None: the newest, and return it. Two processes may do this at the same time.

    Raises:
        DatabaseError: if the database cannot be opened or migrated, or this version does not know its revision or the wanted one.
    """
    try:
        return _migrate(engine, revision)
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseError(f"the database cannot be opened: {error.__class__.__name__}; check {setting}") from None


def lock(connection: Connection, number: int = _QUEUE_LOCK) -> None:
    """
    Take a PostgreSQL advisory lock until the end of the transaction. The default lock protects the schema, the audit chain and
    the cases. On SQLite, do nothing: its write lock already admits one writer at a time.
    """
    if connection.dialect.name == "postgresql":
        # a hung process that holds the lock must not block all others for ever
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
        connection.execute(select(func.pg_advisory_xact_lock(number)))


def _engine(url: str) -> Engine:
    # error messages are logged, so they must not contain parameter values
    engine = create_engine(
        url, pool_pre_ping=True, hide_parameters=True, connect_args=_POSTGRES if url.startswith("postgresql") else {}
    )
    if engine.dialect.name == "sqlite":
        if (path := engine.url.database) and path != ":memory:":
            # create the file with mode 0600, for its owner only; SQLite gives its WAL files the same mode
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))

        @event.listens_for(engine, "connect")
        def _(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # stop the driver from sending BEGIN; the listener below sends it
            connection.execute(f"PRAGMA busy_timeout={_LOCK_SECONDS * 1000}")
            _use_wal(connection)
            connection.execute("PRAGMA case_sensitive_like=ON")  # as in PostgreSQL

        @event.listens_for(engine, "begin")
        def _(connection: Connection) -> None:
            # a deferred transaction cannot wait for the lock at its first write, so a writer takes the lock at the beginning
            reading = connection.get_execution_options().get("reading", False)
            connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: Any) -> None:
    """Switch a SQLite file to WAL. The switch ignores the busy timeout, so it is tried again while somebody else has the file locked."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _migrate(engine: Engine, revision: str | None) -> str:
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]  # newest first
    wanted = revision or known[0]
    if wanted not in known:
        raise DatabaseError(f"there is no revision {wanted}: this version knows {', '.join(reversed(known))}")
    with engine.begin() as connection:
        lock(connection)
        present = MigrationContext.configure(connection).get_current_revision()
        if present is not None and present not in known:
            raise DatabaseError(
                f"the database has revision {present}, which this version does not know (its newest is {known[0]}): install the newer "
                f"version, or go back with it: `whyflag database migrate --revision {known[0]}`"
            )
        if present != wanted:
            config.attributes["connection"] = connection
            is_older = present is None or known.index(present) > known.index(wanted)
            if is_older:
                command.upgrade(config, wanted)
            else:
                command.downgrade(config, wanted)
    return wanted
