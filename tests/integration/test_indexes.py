"""Every index and key is the same on both databases and in `events/tables.py`: name, columns, uniqueness, condition.

PostgreSQL reads all of them. SQLite's statements and those of the tables are run on empty tables in a schema each; what is
compared is how PostgreSQL writes each index down, so that no reading of SQL is ours.
"""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from events.postgres_line import asyncpg_url
from events.tables import metadata
from phaseline import database
from phaseline.settings import Settings
from tests.servers import PostgresServer
from tests.stores import postgres_settings, sqlite_settings

# All that differs, on purpose: PostgreSQL's `events` are partitioned by job, and followed by transaction and position.
EVENTS = {
    "events.ix_events_feed": "CREATE INDEX ix_events_feed ON events USING btree (epoch, xid, pos)",
    "events.ix_events_tenant": "CREATE INDEX ix_events_tenant ON events USING btree (tenant, epoch, xid, pos)",
}
EVENTS_KEYS = {"events": (("job_id", "seq"), set[tuple[str, ...]]())}

# A partition's are its parent's; those of constraints are compared as keys.
WRITTEN = text("""
    SELECT t.relname, i.relname, pg_get_indexdef(i.oid)
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
    WHERE t.relnamespace = CAST(:schema AS text)::regnamespace AND NOT t.relispartition
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.oid)""")

Indexes = dict[str, str]  # by table and name
Keys = dict[str, tuple[tuple[str, ...], set[tuple[str, ...]]]]  # by table: the primary key, and what is unique


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """A connection whose changes go with the block."""
    url = settings.database_url
    engine = create_async_engine(asyncpg_url(url) if url else f"sqlite+aiosqlite:///{database.sqlite_path(settings)}")
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def written(connection: AsyncConnection, schema: str) -> Indexes:
    """How PostgreSQL writes down the indexes of a schema."""
    return {
        f"{table}.{name}": statement.replace(" ON ONLY ", " ON ").replace(f" ON {schema}.", " ON ")
        for table, name, statement in await connection.execute(WRITTEN, {"schema": schema})
    }


async def rewritten(connection: AsyncConnection, schema: str, statements: Iterable[str]) -> Indexes:
    """How PostgreSQL would write down what these statements make."""
    await connection.execute(text(f"CREATE SCHEMA {schema}"))
    await connection.execute(text(f"SET LOCAL search_path = {schema}"))
    for table in metadata.sorted_tables:
        await connection.exec_driver_sql(str(CreateTable(table).compile(dialect=postgresql.dialect())))
    for statement in statements:
        await connection.exec_driver_sql(statement)
    return await written(connection, schema)


def statements_of_tables() -> list[str]:
    return [
        str(CreateIndex(index).compile(dialect=postgresql.dialect()))
        for table in metadata.sorted_tables
        for index in table.indexes
    ]


def statements_of_sqlite(path: Path) -> list[str]:
    """Those of constraints have none."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        made = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        return [statement for (statement,) in made]


def keys(connection: Connection) -> Keys:
    asked = inspect(connection)
    return {
        table: (
            tuple(asked.get_pk_constraint(table)["constrained_columns"]),
            {tuple(unique["column_names"]) for unique in asked.get_unique_constraints(table)},
        )
        for table in metadata.tables
    }


@pytest.fixture
def sqlite(tmp_path: Path) -> Settings:
    return sqlite_settings(tmp_path / "sqlite")


@pytest.fixture
async def on_postgres(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[AsyncConnection]:
    async with connected(await postgres_settings(postgres, tmp_path)) as connection:
        yield connection


async def test_every_index_is_the_same_on_both_databases_and_in_the_tables(
    sqlite: Settings, on_postgres: AsyncConnection
) -> None:
    migrated = await written(on_postgres, "public")
    described = await rewritten(on_postgres, "described", statements_of_tables())
    embedded = await rewritten(on_postgres, "embedded", statements_of_sqlite(database.sqlite_path(sqlite)))
    assert embedded == described
    assert migrated == described | EVENTS


async def test_every_key_is_the_same_on_both_databases_and_in_the_tables(
    sqlite: Settings, on_postgres: AsyncConnection
) -> None:
    migrated = await on_postgres.run_sync(keys)
    async with connected(sqlite) as connection:
        embedded = await connection.run_sync(keys)
    await rewritten(on_postgres, "described", [])
    described = await on_postgres.run_sync(keys)
    assert embedded == described
    assert migrated == described | EVENTS_KEYS


KEY = "CREATE {} uq_jobs_key ON jobs ({}) WHERE {}"


@pytest.mark.parametrize(
    "instead",
    [
        [],
        ["CREATE UNIQUE INDEX uq_jobs_key ON jobs (tenant, key_sha256)"],
        [KEY.format("INDEX", "tenant, key_sha256", "key_sha256 IS NOT NULL")],
        [KEY.format("UNIQUE INDEX", "key_sha256, tenant", "key_sha256 IS NOT NULL")],
        [KEY.format("UNIQUE INDEX", "tenant, key_sha256", "key_sha256 IS NULL")],
    ],
    ids=["none", "whole", "not unique", "other order", "other condition"],
)
async def test_an_index_made_otherwise_on_one_database_is_found(
    sqlite: Settings, on_postgres: AsyncConnection, instead: list[str]
) -> None:
    path = database.sqlite_path(sqlite)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP INDEX uq_jobs_key")
        for statement in instead:
            connection.execute(statement)
    described = await rewritten(on_postgres, "described", statements_of_tables())
    embedded = await rewritten(on_postgres, "embedded", statements_of_sqlite(path))
    assert {name for name, _ in embedded.items() ^ described.items()} == {"jobs.uq_jobs_key"}


async def test_what_is_written_otherwise_and_means_the_same_is_the_same(on_postgres: AsyncConnection) -> None:
    described = await rewritten(on_postgres, "described", statements_of_tables())
    kept = [statement for statement in statements_of_tables() if "uq_jobs_unfinished" not in statement]
    other = "create unique index uq_jobs_unfinished on jobs(tenant,unique_key) where (unique_key is not null) and status in ('queued','running')"
    assert await rewritten(on_postgres, "embedded", [*kept, other]) == described
