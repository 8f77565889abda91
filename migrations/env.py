"""Runs migrations on the connection the caller opened (see `migrations/__init__.py`)."""

from alembic import context
from sqlalchemy import text

from events import crash_points
from events.tables import metadata

connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    # A waiting ACCESS EXCLUSIVE request queues every later reader: rather fail and try again.
    connection.execute(text("SET lock_timeout = '3s'"))
    connection.commit()
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=True,  # of SQLite alembic assumes otherwise; a killed migration would leave half a schema
    transaction_per_migration=True,
    on_version_apply=lambda **_: crash_points.reached("migration.before_commit"),
)
with context.begin_transaction():
    context.run_migrations()
