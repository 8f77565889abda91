"""The schema's one alembic tree, for PostgreSQL and SQLite.

Applications only check the revision; `phaseline db migrate` changes it, one process at a time.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from events import crash_points

LOCK_KEY = 0x70686173  # "phas": the session advisory lock of `db migrate`


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, made here so that no path or address is in a file."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent))
    settings.set_main_option("path_separator", "os")
    if connection is not None:
        settings.attributes["connection"] = connection
    return settings


def head() -> str:
    """The revision this code needs."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    assert revision is not None
    return revision


def current(connection: Connection) -> str | None:
    """The revision the database has, None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Brings the schema up to `revision`, on a connection that is in no transaction."""
    with _alone(connection):
        crash_points.reached("migration.locked")
        if revision != "head" or current(connection) != head():
            connection.rollback()
            command.upgrade(config(connection), revision)
            crash_points.reached("migration.committed")


def downgrade(connection: Connection, revision: str) -> None:
    """Takes the schema back to `revision` ("base" for nothing). For tests: data is lost."""
    with _alone(connection):
        command.downgrade(config(connection), revision)


@contextlib.contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """One migration at a time: alembic has no lock of its own and racing ones break each other."""
    if connection.dialect.name == "postgresql":
        # Whoever waits for a lock is in a transaction all the while, and an index built beside writers waits for those.
        while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}).scalar_one():
            connection.commit()
            connection.execute(text("SELECT pg_sleep(0.2)"))
            connection.commit()
        connection.commit()  # a session lock outlives its transaction; migrations need their own
        try:
            yield
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})
            connection.commit()
        return
    with _lock_file(connection) as _:
        yield
        connection.commit()


@contextlib.contextmanager
def _lock_file(connection: Connection) -> Iterator[Any]:
    path = Path(f"{connection.engine.url.database}.migrate.lock")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
