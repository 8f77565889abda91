"""`phaseline doctor` on real servers: each real fault is seen, and the cure it names is one."""

import asyncio
import json
import secrets
import sqlite3
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import asyncpg
import pytest
import pytest_asyncio

from events import tables
from events.clock import Clock
from phaseline import database
from phaseline.doctor import examined
from phaseline.doctor_database import RIGHTS, WEEK_MS
from phaseline.settings import Settings
from tests.cli.program import in_process
from tests.installation import api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.ports import free_port
from tests.stores import postgres_settings


def on(database_url: str | None = None, rabbitmq_url: str | None = None, **more) -> Settings:
    return Settings(database_url=database_url, rabbitmq_url=rabbitmq_url, **more)


async def wrong(settings: Settings, gateway: str | None = None) -> dict[str, tuple[str, str, str]]:
    """state, detail and cure of all that is not ok."""
    found = await examined(settings, gateway)
    return {one.check: (one.state, one.detail, one.cure) for one in found if one.state != "ok"}


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def migrated(postgres, tmp_path_factory) -> str:
    """A database with the schema that nobody works on."""
    settings = await postgres_settings(postgres, tmp_path_factory.mktemp("doctor"))
    return str(settings.database_url)


def test_the_doctor_knows_what_the_application_may_do_with_every_table():
    assert set(RIGHTS) == {"alembic_version", *tables.metadata.tables}


# ---- all is well, with no more rights than the doctor asks for


async def test_an_installation_with_the_rights_the_doctor_names_runs_jobs_and_is_well(postgres, rabbit, tmp_path):
    owner = await postgres_settings(postgres, tmp_path)
    role, password = f"app_{secrets.token_hex(4)}", secrets.token_hex(8)
    login = urllib.parse.urlsplit(str(owner.database_url))
    app = login._replace(netloc=f"{role}:{password}@{login.hostname}:{login.port}").geturl()
    async with asking(str(owner.database_url)) as connection:
        await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        try:
            state, detail, cure = (await wrong(on(app)))["permissions"]
            assert (state, "INSERT ON events" in detail, "UPDATE ON events" in detail) == ("failed", True, False)
            for grant in cure.partition(": ")[2].split("; "):
                await connection.execute(grant)
            rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
            async with running(on_servers(app, rabbit_url, **ENVIRONMENT)) as made, api(made.url) as http:
                job_id = await http.submit("countdown", {"steps": 5, "step_s": 0}, tags=["a", "b"])
                async with asyncio.timeout(60):
                    while (await http.get(f"/api/v1/jobs/{job_id}"))["status"] != "completed":  # noqa: ASYNC110 it ends elsewhere
                        await asyncio.sleep(0.1)
                words = ["doctor", "--database-url", app, "--rabbitmq-url", rabbit_url, "--url", made.url]
                run = await asyncio.to_thread(in_process, *words, "--json")
                shown = await asyncio.to_thread(in_process, *words)
            found = json.loads(run.out)
            assert [one for one in found if one["state"] != "ok"] == []
            assert (run.code, run.err) == (0, "")
            assert {"database", "permissions", "partitions", "rabbitmq queues", "workers", "gateway"} <= {
                one["check"] for one in found
            }
            assert [line.split()[0] for line in shown.out.splitlines()] == ["ok"] * len(found)
        finally:
            await connection.execute(f"DROP OWNED BY {role}")
            await connection.execute(f"DROP ROLE {role}")


# ---- PostgreSQL


@pytest.mark.parametrize(
    "fault, repair, check, cure",
    [
        (
            "ALTER TABLE events DISABLE TRIGGER events_no_change",
            "ALTER TABLE events ENABLE TRIGGER events_no_change",
            "append-only",
            "ENABLE TRIGGER events_no_change",
        ),
        (
            "ALTER DATABASE {name} SET synchronous_commit = off",
            "ALTER DATABASE {name} RESET synchronous_commit",
            "durability",
            "synchronous_commit = on",
        ),
        (
            "UPDATE alembic_version SET version_num = '0001'",
            "UPDATE alembic_version SET version_num = '{revision}'",
            "schema",
            "phaseline db migrate",
        ),
        (
            "UPDATE alembic_version SET version_num = '9999'; UPDATE compatible SET since = '9999'",
            "UPDATE alembic_version SET version_num = '{revision}'; UPDATE compatible SET since = '{revision}'",
            "schema",
            "install the Phaseline it was migrated for",
        ),
        (
            "ALTER TABLE alembic_version RENAME TO gone",
            "ALTER TABLE gone RENAME TO alembic_version",
            "schema",
            "phaseline db migrate",
        ),
    ],
)
async def test_a_fault_of_the_database_is_named_with_its_cure(migrated, fault, repair, check, cure):
    async with asking(migrated) as connection:
        names = {
            "name": urllib.parse.urlsplit(migrated).path[1:],
            "revision": await connection.fetchval("SELECT version_num FROM alembic_version"),
        }
        await connection.execute(fault.format(**names))
        try:
            state, _, told = (await wrong(on(migrated)))[check]
        finally:
            await connection.execute(repair.format(**names))
    assert (state, cure in told) == ("failed", True), told
    assert check not in await wrong(on(migrated))


@pytest.mark.parametrize("ahead, state", [(0, "failed"), (1, "warning")])
async def test_a_missing_partition_is_made_by_what_the_doctor_says(migrated, ahead, state):
    week = Clock().now_ms() // WEEK_MS + ahead
    async with asking(migrated) as connection:
        await connection.execute(f"DROP TABLE events_w{week}")
        found, detail, cure = (await wrong(on(migrated)))["partitions"]
        assert (found, f"events_w{week}" in detail) == (state, True)
        await connection.execute(cure.partition(", or ")[0])
    assert "partitions" not in await wrong(on(migrated))


async def test_a_database_that_is_away_fails_with_its_cure_and_nothing_else_is_asked():
    away = f"postgresql://app@127.0.0.1:{free_port()}/phaseline"
    found = {one.check: one for one in await examined(on(away), None)}
    assert (found["database"].state, "PHASELINE_DATABASE_URL" in found["database"].cure) == ("failed", True)
    assert set(found) == {"open files", "engines", "database"}
    run = await asyncio.to_thread(in_process, "doctor", "--database-url", away)
    assert run.code == 1
    assert "Traceback" not in run.out + run.err


# ---- RabbitMQ


async def test_a_queue_with_other_arguments_is_named_with_both_values(migrated, rabbit):
    url = await asyncio.to_thread(rabbit.create_vhost)
    async with asking(migrated) as connection:
        await connection.execute("INSERT INTO engines (name, version, declaration) VALUES ('countdown', 1, '{}')")
    connection_ = await aio_pika.connect(url)
    async with connection_:
        channel = await connection_.channel()
        await channel.declare_queue(
            "phaseline.tickets.countdown", durable=True, arguments={"x-queue-type": "quorum", "x-max-length": 5}
        )
        await channel.declare_exchange("phaseline.events", "fanout", durable=True)
        await channel.declare_exchange("phaseline.control", "direct", durable=True)
        found = [one for one in await examined(on(migrated, url), None) if one.check.startswith("rabbitmq")]
    told = {one.detail.split()[1]: one for one in found if one.check == "rabbitmq queues"}
    assert [(one.check, one.state) for one in found[:2]] == [("rabbitmq", "ok"), ("rabbitmq permissions", "ok")]
    queue = told["phaseline.tickets.countdown"]
    assert (queue.state, "x-" in queue.detail) == ("warning", True)
    assert "rabbitmqctl delete_queue phaseline.tickets.countdown" in queue.cure
    assert "delete the exchange phaseline.events" in told["phaseline.events"].cure
    assert "not there yet" in told["phaseline.events.log"].detail
    assert "phaseline.control" not in told


async def test_a_user_that_may_not_bind_is_told_what_to_grant(rabbit):
    url = await asyncio.to_thread(rabbit.create_vhost)
    vhost, user = urllib.parse.urlsplit(url).path[1:], urllib.parse.urlsplit(url).username
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_exchange("phaseline.control", "direct", durable=True)
    grant = f'rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"{vhost}">>, <<"^$">>, <<".*">>, <<".*">>, <<"t">>).'
    await asyncio.to_thread(rabbit.evaluate, grant)
    state, detail, cure = (await wrong(on(None, url, data_dir=Path("nowhere"))))["rabbitmq permissions"]
    assert (state, "access" in detail) == ("failed", True), detail
    assert f"rabbitmqctl set_permissions -p VHOST {user}" in cure


async def test_a_rabbitmq_that_stopped_or_froze_is_away(rabbit):
    url = await asyncio.to_thread(rabbit.create_vhost)
    rabbit.pause()
    try:
        frozen = await wrong(on(None, url, data_dir=Path("nowhere")))
    finally:
        rabbit.resume()
    stopped = await wrong(on(None, f"amqp://127.0.0.1:{free_port()}/", data_dir=Path("nowhere")))
    for found in (frozen, stopped):
        state, _, cure = found["rabbitmq"]
        assert (state, "start RabbitMQ" in cure) == ("failed", True)


@pytest.mark.slow
async def test_a_memory_alarm_is_told_from_a_lack_of_rights(rabbit):
    url = await asyncio.to_thread(rabbit.create_vhost)
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_exchange("phaseline.control", "direct", durable=True)
    await asyncio.to_thread(rabbit.memory_alarm, True)
    try:
        found = await wrong(on(None, url, data_dir=Path("nowhere")))
    finally:
        await asyncio.to_thread(rabbit.memory_alarm, False)
    assert any("alarm" in detail + cure for _, detail, cure in found.values()), found


# ---- SQLite, the machine, a gateway


async def test_an_embedded_database_is_looked_at_as_thoroughly(tmp_path):
    settings = on(data_dir=tmp_path)
    assert (await wrong(settings))["database"][0] == "failed"
    await database.migrate(settings)
    assert set(await wrong(settings)) == {"workers"}
    with sqlite3.connect(tmp_path / "phaseline.db") as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("PRAGMA journal_mode = delete")
    found = await wrong(settings)
    assert (found["append-only"][0], "events_no_update" in found["append-only"][1]) == ("failed", True)


async def test_a_file_that_somebody_holds_is_told_so(tmp_path):
    await database.migrate(on(data_dir=tmp_path))
    holder = sqlite3.connect(tmp_path / "phaseline.db")
    holder.execute("BEGIN IMMEDIATE")
    try:
        state, detail, cure = (await wrong(on(data_dir=tmp_path)))["database"]
    finally:
        holder.close()
    assert (state, "locked" in detail, "fuser" in cure) == ("failed", True, True)


async def test_a_machine_that_is_too_small_is_told_so():
    small = on(data_dir=Path("/proc/phaseline"), connections_max=10**9, engine_modules="no.such.module")
    found = await wrong(small)
    assert (found["open files"][0], "ulimit -n" in found["open files"][2]) == ("warning", True)
    assert (found["engines"][0], "no" in found["engines"][1]) == ("failed", True)
    assert (found["disk"][0], "--data-dir" in found["disk"][2]) == ("failed", True)


async def test_a_gateway_that_is_not_there_fails():
    found = await wrong(on(data_dir=Path("nowhere")), f"http://127.0.0.1:{free_port()}")
    assert (found["gateway"][0], "phaseline gateway" in found["gateway"][2]) == ("failed", True)
