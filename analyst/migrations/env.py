"""Alembic entry point: runs the migrations on the caller's connection, inside the caller's transaction."""

from alembic import context

from analyst.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
