"""Alembic's entry: runs on the connection the queue gives it, inside its transaction."""

from alembic import context

from analyst.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
