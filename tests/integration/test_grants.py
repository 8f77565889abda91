"""`phaseline db grant`: the role gateways and workers log in as."""

import asyncio
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from phaseline.settings import Settings
from tests.cli.program import Run, in_process
from tests.servers import PostgresServer
from tests.stores import postgres_settings


@pytest.fixture
async def settings(postgres: PostgresServer, tmp_path: Path) -> Settings:
    return await postgres_settings(postgres, tmp_path)


@pytest.fixture
async def owner(settings: Settings):
    connection = await asyncpg.connect(str(settings.database_url))
    yield connection
    await connection.close()


async def granted(settings: Settings, role: str, **environment: str) -> Run:
    said = {"PHASELINE_DATABASE_URL": str(settings.database_url), **environment}
    return await asyncio.to_thread(in_process, "db", "grant", role, **said)


async def test_a_role_is_made_with_just_its_rights_and_loses_any_other(settings: Settings, owner: asyncpg.Connection):
    role, url = f'app "{secrets.token_hex(4)}"', urlsplit(str(settings.database_url))
    refused = await granted(settings, role)
    assert (refused.code, "POSTGRES_APP_PASSWORD" in refused.err) == (1, True)
    made = await granted(settings, role, POSTGRES_APP_PASSWORD="it's \\ secret")
    assert (made.code, "is made" in made.out) == (0, True), made.err
    quoted = role.replace('"', '""')
    try:
        await owner.execute(f'GRANT DELETE ON jobs TO "{quoted}"')
        again = await granted(settings, role)
        assert (again.code, "is made" in again.out) == (0, False), again.err
        application = await asyncpg.connect(
            host=url.hostname, port=url.port, database=url.path[1:], user=role, password="it's \\ secret"
        )
        try:
            await application.fetch("SELECT * FROM jobs")
            for forbidden in ("DELETE FROM jobs", "INSERT INTO api_keys (id) VALUES ('x')", "DROP TABLE jobs"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await application.execute(forbidden)
        finally:
            await application.close()
    finally:
        await owner.execute(f'DROP OWNED BY "{quoted}"')
        await owner.execute(f'DROP ROLE "{quoted}"')


async def test_a_role_that_nothing_would_hold_is_refused(settings: Settings, owner: asyncpg.Connection):
    of_owner = urlsplit(str(settings.database_url)).username
    assert of_owner
    refused = await granted(settings, of_owner)
    assert refused.code == 1
    assert "take another" in refused.err
    role = f"above_{secrets.token_hex(4)}"
    await owner.execute(f"CREATE ROLE {role} BYPASSRLS")
    try:
        assert "bypasses" in (await granted(settings, role)).err
    finally:
        await owner.execute(f"DROP ROLE {role}")


async def test_sqlite_has_no_roles(tmp_path: Path):
    refused = await asyncio.to_thread(in_process, "db", "grant", "app", PHASELINE_DATA_DIR=str(tmp_path))
    assert (refused.code, "SQLite has no roles" in refused.err) == (1, True)
