"""Open an SQL database, SQLite or PostgreSQL, and bring it to the newest schema."""

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from core.errors import DatabaseError

_LOCK_SECONDS = 20  # another process may hold SQLite's write lock for one short transaction
_MIGRATION_LOCK = 7_216_482  # any number: the PostgreSQL advisory lock under which schemas and the audit chain change


def open_database(url: str, setting: str) -> Engine:
    """
    Open and migrate the database at a SQLAlchemy URL; ``setting`` is the environment variable that holds the URL.

    Raises:
        DatabaseError: if the URL is wrong or the database cannot be opened.
    """
    try:
        engine = _engine(url)
        _migrate(engine)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise DatabaseError(f"{setting} is no usable SQLAlchemy URL: {error}") from None
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseError(f"the database cannot be opened: {error.__class__.__name__}; check {setting}") from None
    return engine


def lock(connection: Connection) -> None:
    """Let one transaction at a time change the schema, the audit chain or the cases. SQLite's write lock does it by itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))


def _engine(url: str) -> Engine:
    engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)  # an error's text goes to the log
    if engine.dialect.name == "sqlite":
        if (path := engine.url.database) and path != ":memory:":
            # made here, for its owner alone; SQLite gives the files beside it the same mode
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))

        @event.listens_for(engine, "connect")
        def _(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # stop the driver from sending BEGIN; the listener below sends it
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA busy_timeout={_LOCK_SECONDS * 1000}")

        @event.listens_for(engine, "begin")
        def _(connection: Connection) -> None:
            # a deferred transaction that turns into a writer cannot wait for the lock: a writer takes it at the beginning
            reading = connection.get_execution_options().get("reading", False)
            connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _migrate(engine: Engine) -> None:
    """Bring the database to the newest schema; two processes may start at once."""
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.begin() as connection:
        lock(connection)
        if MigrationContext.configure(connection).get_current_revision() != head:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
