"""Functions of the migrating role are no way to its rights: who may call them is said, and what they name is the schema's."""

import secrets
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from phaseline import database
from phaseline.settings import Settings
from tests.audit.scene import Scene
from tests.builders import a_finish, committing
from tests.integration.test_tenants import as_application
from tests.servers import PostgresServer
from tests.stores import open_log, postgres_settings

HOLD = {"actor": "user:counsel", "reason": "case 4711"}
DISCARD = "SELECT * FROM phaseline_archive($1::uuid[], $2::bigint[], ARRAY[NULL::text], ARRAY[0::bigint], ARRAY[0::bigint], ARRAY[false])"
# A table of the session's own stands before the schema's wherever names are looked up without saying otherwise.
SEIZE = """
    CREATE TEMP TABLE seized (by text);
    CREATE FUNCTION pg_temp.seize() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO pg_temp.seized VALUES (current_user); RETURN NEW; END $$;
    GRANT ALL ON seized TO PUBLIC;
    CREATE TEMP TABLE {table} (LIKE public.{table});
    CREATE TRIGGER seize BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION pg_temp.seize();
    GRANT ALL ON {table} TO PUBLIC;
"""


@pytest.fixture
async def settings(postgres: PostgresServer, tmp_path) -> Settings:
    return await postgres_settings(postgres, tmp_path)


@pytest.fixture
async def application(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """As gateways and workers log in."""
    async with as_application(str(settings.database_url)) as url:
        connection = await asyncpg.connect(url)
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def a_sealed_job(settings: Settings, **submit: str) -> AsyncIterator[str]:
    async with open_log(settings) as log, committing(log) as running:
        claimed = await running.started(**submit)
        await running.committer.execute(claimed.job.id, a_finish(claimed))
        await Scene(settings, log, running).sealer.seal()
        yield claimed.job.id


async def test_a_table_of_the_callers_own_hides_no_hold(settings: Settings, application: asyncpg.Connection):
    async with a_sealed_job(settings) as job_id:
        await database.hold(settings, job_id, held=True, **HOLD)
        await application.execute(
            "CREATE TEMP TABLE holds (no bigint, job_id uuid, held boolean); GRANT ALL ON holds TO PUBLIC"
        )
        last_seq = await application.fetchval("SELECT last_seq FROM jobs WHERE id = $1", job_id)
        assert await application.fetch(DISCARD, [job_id], [last_seq]) == []
        assert await application.fetchval("SELECT count(*) FROM jobs WHERE id = $1", job_id) == 1
        await database.hold(settings, job_id, held=False, **HOLD)
        assert len(await application.fetch(DISCARD, [job_id], [last_seq])) == 1  # it was the hold that kept it


async def test_nothing_of_the_callers_runs_as_the_migrating_role(settings: Settings, application: asyncpg.Connection):
    async with a_sealed_job(settings) as job_id:
        await application.execute(SEIZE.format(table="archived"))
        last_seq = await application.fetchval("SELECT last_seq FROM jobs WHERE id = $1", job_id)
        assert len(await application.fetch(DISCARD, [job_id], [last_seq])) == 1
    assert await application.fetch("SELECT * FROM seized") == []
    assert await application.fetchval("SELECT count(*) FROM public.archived WHERE job_id = $1", job_id) == 1


@asynccontextmanager
async def a_role(settings: Settings) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    """The owner's connection, and a role that may do what everybody may."""
    role = f"report_{secrets.token_hex(4)}"
    owner = await asyncpg.connect(str(settings.database_url))
    try:
        await owner.execute(f"CREATE ROLE {role}")
        try:
            yield owner, role
        finally:
            await owner.execute(f"DROP OWNED BY {role}")
            await owner.execute(f"DROP ROLE {role}")
    finally:
        await owner.close()


async def callable_by(owner: asyncpg.Connection, role: str) -> set[str]:
    """The functions with their owner's rights that a role may call."""
    named = "SELECT proname FROM pg_proc WHERE prosecdef AND has_function_privilege($1, oid, 'EXECUTE')"
    return {row["proname"] for row in await owner.fetch(named, role)}


async def test_no_other_role_may_call_them(settings: Settings):
    """Whoever may log in to the database, such as a report's role, could discard jobs else."""
    async with a_role(settings) as (owner, role):
        assert len(await callable_by(owner, str(urllib.parse.urlsplit(str(settings.database_url)).username))) == 7
        assert await callable_by(owner, role) == set()


async def test_a_role_that_appended_before_the_migration_goes_on(settings: Settings):
    await database.downgrade(settings, "0025")
    async with a_role(settings) as (owner, role):
        await owner.execute(f"GRANT SELECT, INSERT ON events TO {role}")
        await database.migrate(settings)
        called = {"phaseline_make_partition", "phaseline_archive", "phaseline_drop_partition"}
        assert await callable_by(owner, role) == called
