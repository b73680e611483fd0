"""What Alembic runs around the migrations: they share the connection that `Database` opened."""

from alembic import context

from outcrop.ledger import tables

context.configure(connection=context.config.attributes["connection"], target_metadata=tables.METADATA)
with context.begin_transaction():
    context.run_migrations()
