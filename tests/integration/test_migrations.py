"""The schema: made, taken back and made again, equal to `events/tables.py`, by any number of processes at once."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

import migrations
from events import tables
from events.log_postgres import WEEKS_AHEAD
from events.postgres_line import asyncpg_url
from phaseline import database
from phaseline.settings import Settings
from tests.builders import a_failure, committing
from tests.stores import open_log, unmigrated_postgres, unmigrated_sqlite


@pytest.fixture(params=["sqlite", "postgres"])
async def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings for an empty database of each kind."""
    if request.param == "sqlite":
        return unmigrated_sqlite(tmp_path)
    return await unmigrated_postgres(request.getfixturevalue("postgres"), tmp_path)


async def on_connection(settings: Settings, work: Any) -> Any:
    url = settings.database_url
    engine = create_async_engine(asyncpg_url(url) if url else f"sqlite+aiosqlite:///{database.sqlite_path(settings)}")
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def differences(connection: Connection) -> list[Any]:
    postgres = connection.dialect.name == "postgresql"

    def kept(name: str | None, kind: str, _: Any) -> bool:
        # On PostgreSQL the migration makes `events` itself: partitions are beyond table objects.
        return not (postgres and kind == "table" and name is not None and name.startswith("events"))

    context = MigrationContext.configure(connection, opts={"include_name": kept, "compare_type": True})
    found = compare_metadata(context, tables.metadata)
    return [change for change in found if not (postgres and _names_events(change))]


def _names_events(change: Any) -> bool:
    made = {"add_table": lambda of: of.name, "add_index": lambda of: of.table.name}
    return change[0] in made and made[change[0]](change[1]) == "events"


async def test_the_migrated_schema_is_what_the_code_describes(settings: Settings) -> None:
    await database.migrate(settings)
    assert await on_connection(settings, differences) == []
    assert migrations.head() == tables.REVISION
    if settings.database_url:
        assert await on_connection(settings, _indexes_of_feeds) == (True, 0)


def _indexes_of_feeds(connection: Connection) -> tuple[bool, int]:
    """Whether the index of tenants' feeds is whole, and how many partitions lack theirs or have half of it."""
    whole = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_events_tenant'::regclass"
    parts = (
        "SELECT count(*) FROM pg_inherits p WHERE inhparent = 'events'::regclass AND NOT EXISTS (SELECT FROM pg_inherits i "
        "JOIN pg_index x ON x.indexrelid = i.inhrelid WHERE i.inhparent = 'ix_events_tenant'::regclass "
        "AND x.indrelid = p.inhrelid AND x.indisvalid)"
    )
    return connection.exec_driver_sql(whole).scalar_one(), connection.exec_driver_sql(parts).scalar_one()


async def test_up_down_and_up_again_leaves_a_working_log(settings: Settings) -> None:
    await database.migrate(settings)
    await database.downgrade(settings, "base")
    await database.migrate(settings)
    async with open_log(settings) as log:
        assert (await log.feed("", 1)).events == []


async def test_jobs_of_before_that_wait_count_their_limits_from_when_they_are_due(settings: Settings) -> None:
    await database.migrate(settings)
    async with open_log(settings) as log, committing(log) as running:
        waiting = await running.submit(not_before=2_000_000_000_123)
        retried = await running.started()
        await running.committer.execute(retried.job.id, a_failure(retried))
    await database.downgrade(settings, "0023")
    opened = "SELECT count(*) FROM jobs WHERE opened_at = created_at"
    assert await on_connection(settings, lambda connection: connection.execute(text(opened)).scalar_one()) == 2
    await database.migrate(settings)
    async with open_log(settings) as log:
        row = await log.job(waiting)
        assert row is not None
        assert row.job.opened_at == 2_000_000_000_123
        for job_id in (waiting, retried.job.id):
            assert await database.differences(log, job_id) == []


async def test_processes_that_migrate_at_once_wait_for_each_other(settings: Settings) -> None:
    environment = {"PHASELINE_DATA_DIR": str(settings.data_dir)}
    if settings.database_url:
        environment["PHASELINE_DATABASE_URL"] = settings.database_url
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "phaseline", "db", "migrate", env=environment)
        for _ in range(3)
    ]
    assert await asyncio.gather(*(process.wait() for process in processes)) == [0, 0, 0]
    assert await on_connection(settings, migrations.current) == tables.REVISION


DIES = """
import asyncio, os, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
made = 0

@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *rest):
    global made
    made += statement.lstrip().upper().startswith(("CREATE", "INSERT"))
    if made == int(sys.argv[1]):
        os._exit(9)

from phaseline import database
from phaseline.settings import Settings
asyncio.run(database.migrate(Settings()))
"""


@pytest.mark.parametrize("statement", [2, 9, 14])
async def test_a_migration_killed_half_way_leaves_nothing_behind(settings: Settings, statement: int) -> None:
    environment = {"PHASELINE_DATA_DIR": str(settings.data_dir)}
    if settings.database_url:
        environment["PHASELINE_DATABASE_URL"] = settings.database_url
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES, str(statement), env=environment)
    assert await killed.wait() == 9
    await database.migrate(settings)
    assert await on_connection(settings, differences) == []


async def test_migrations_keep_the_triggers_that_make_events_append_only(settings: Settings) -> None:
    await database.migrate(settings)
    query = (
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'events'::regclass AND NOT tgisinternal"
        if settings.database_url
        else "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    )
    names = await on_connection(settings, lambda connection: {row[0] for row in connection.execute(text(query))})
    wanted = (
        {"events_no_change", "events_no_truncate", "events_owe"}
        if settings.database_url
        else {
            *(
                f"{table}_no_{change}"
                for table in ("events", "seals", "sealed", "erasures", "delivery_attempts", "holds", "acts")
                for change in ("update", "delete")
            ),
            *(f"jobs_tags_{change}" for change in ("insert", "update", "delete")),
            "events_owe",
            "erasures_forget",
            "erasures_no_held",
        }
    )
    assert names == wanted


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_a_partition_is_made_once_and_weeks_ahead(settings: Settings) -> None:
    await database.migrate(settings)
    async with open_log(settings) as log:
        await asyncio.gather(log.make_partitions(), log.make_partitions())
        count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass"
        [rows] = await on_connection(settings, lambda connection: connection.execute(text(count)).all())
        assert rows[0] == WEEKS_AHEAD + 1
        year_3000 = "1d8dfc0d-9c00-7000-8000-000000000000"
        assert not await log.accepts(year_3000)
