"""The second wall between tenants: on PostgreSQL a query made for a tenant sees its rows alone, whatever the query says."""

import secrets
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from events.acts import By
from events.log import Artifact, JobQuery
from events.log_postgres import PostgresLog
from events.schedules import Schedule, ScheduleAct
from phaseline.doctor import examined
from phaseline.grants import grant
from phaseline.settings import Settings
from tests.builders import a_submit, committing
from tests.stores import postgres_settings

TABLES = (
    "jobs", "events", "job_tags", "artifacts", "schedules", "webhooks", "deliveries", "delivery_attempts", "holds", "acts",
    "pins", "archived",
)  # fmt: skip
BODY = b"[1]" * 100


@asynccontextmanager
async def as_application(owner_url: str) -> AsyncIterator[str]:
    """The URL of a role as `phaseline db grant` makes it; it is gone afterwards."""
    role, password = f"app_{secrets.token_hex(4)}", secrets.token_hex(8)
    parts = urllib.parse.urlsplit(owner_url)
    owner = await asyncpg.connect(owner_url)
    try:
        assert await grant(Settings(database_url=owner_url, rabbitmq_url=None), role, password)
        try:
            yield parts._replace(netloc=f"{role}:{password}@{parts.hostname}:{parts.port}").geturl()
        finally:
            await owner.execute(f"DROP OWNED BY {role}")
            await owner.execute(f"DROP ROLE {role}")
    finally:
        await owner.close()


@pytest.fixture
async def owner_url(postgres, tmp_path) -> str:
    settings = await postgres_settings(postgres, tmp_path)
    return str(settings.database_url)


@pytest.fixture
async def log(owner_url: str) -> AsyncIterator[PostgresLog]:
    async with as_application(owner_url) as url:
        opened = PostgresLog(url)
        await opened.open()
        try:
            yield opened
        finally:
            await opened.close()


@pytest.fixture
async def made(log: PostgresLog, owner_url: str) -> dict[str, str]:
    """Of each of two tenants: a row in every table, a job with a tag, an artifact, a hold and a pin; acts and events are two."""
    async with committing(log) as running:
        jobs = {}
        for tenant in ("acme", "other"):
            row, _ = await running.committer.submit(a_submit(tags=("red",), key="once"), tenant=tenant)
            jobs[tenant] = row.job.id
        async with log.transaction() as tx:
            await tx.put_artifacts([Artifact(job_id, "0" * 64, BODY) for job_id in jobs.values()])
    owner = await asyncpg.connect(owner_url)
    try:
        for tenant, job_id in jobs.items():
            schedule = Schedule(
                tenant, tenant, "hourly", "0 * * * *", "UTC", "all", 1, {"engine": "countdown"}, 1, "user:test", 1
            )
            assert await log.add_schedule(schedule, ScheduleAct("created", 1, "user:test")) == "made"
            await owner.execute("INSERT INTO webhooks (tenant, secret, changed_at) VALUES ($1, 's', 1)", tenant)
            await owner.execute(
                "INSERT INTO deliveries VALUES ($1, 1, $2, 'l', 'https://a.example', 'pending', 1, 1, 1)",
                job_id, tenant,
            )  # fmt: skip
            await owner.execute(
                "INSERT INTO delivery_attempts (job_id, seq, attempt, tenant, at, duration_ms) VALUES ($1, 1, 1, $2, 1, 1)",
                job_id, tenant,
            )  # fmt: skip
            await owner.execute(
                "INSERT INTO holds (job_id, tenant, held, at, actor, reason) VALUES ($1, $2, true, 1, 'user:test', 'x')",
                job_id, tenant,
            )  # fmt: skip
            await owner.execute(
                "INSERT INTO archived VALUES (gen_random_uuid(), $1, 'e', 'completed', 1, 1, 1, 'w1/x', 0, 1)", tenant
            )
            await log.pin(job_id, tenant, By("user:test"))
    finally:
        await owner.close()
    return jobs


async def counted(log: PostgresLog, tenant: str | None) -> dict[str, int]:
    """What queries that name no tenant find on the connections of one."""

    async def count(connection: AsyncConnection) -> dict[str, int]:
        found = {}
        for table in TABLES:
            found[table] = (await connection.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar_one()
        return found

    rows: dict[str, int] = await log._read(count, tenant)
    return rows


def each(rows: int) -> dict[str, int]:
    """So many rows in every table. A schedule made and a job pinned are acts, and so events beside the job's one."""
    return dict.fromkeys(TABLES, rows) | {"acts": 2 * rows, "events": 3 * rows}


async def test_a_query_that_forgets_its_tenant_finds_nothing_of_others(log: PostgresLog, made: dict[str, str]):
    assert await counted(log, None) == each(2)  # committer, sweeper, hub and workers
    for tenant in ("acme", "other", "acme"):
        assert await counted(log, tenant) == each(1)
    assert await counted(log, "nobody") == each(0)
    assert await counted(log, "") == each(0)

    async def look(connection: AsyncConnection) -> Any:
        return (await connection.exec_driver_sql("SELECT id::text FROM jobs WHERE id = $1", (made["other"],))).all()

    assert await log._read(look, "acme") == []
    assert len(await log._read(look, "other")) == 1


async def test_a_connection_nobody_named_a_tenant_for_sees_nothing(log: PostgresLog, made: dict[str, str]):
    async with log._tenants.connect() as connection:
        for table in TABLES:
            assert (await connection.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar_one() == 0


async def test_a_tenants_connection_changes_nothing_of_others(log: PostgresLog, made: dict[str, str]):
    async def touch(connection: AsyncConnection) -> int:
        return (await connection.exec_driver_sql("UPDATE jobs SET progress = 1")).rowcount

    assert await log._read(touch, "acme") == 1

    async def move(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql("UPDATE jobs SET tenant = 'other' WHERE tenant = 'acme'")

    with pytest.raises(Exception, match="row-level security"):
        await log._read(move, "acme")


async def test_a_partition_is_no_way_around(log: PostgresLog, made: dict[str, str]):
    async def look(connection: AsyncConnection) -> None:
        name = (await connection.exec_driver_sql(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass LIMIT 1"
        )).scalar_one()  # fmt: skip
        with pytest.raises(DBAPIError, match="permission denied"):
            await connection.exec_driver_sql(f"SELECT count(*) FROM {name}")

    await log._read(look, "acme")


async def test_what_the_port_tells_a_tenant_is_its_own(log: PostgresLog, made: dict[str, str]):
    for tenant, other in (("acme", "other"), ("other", "acme")):
        assert await log.head(made[tenant], tenant) is not None
        assert await log.head(made[other], tenant) is None
        row = await log.job(made[tenant], tenant)
        assert row is not None
        assert row.job.tenant == tenant
        assert await log.job(made[other], tenant) is None
        for query in (JobQuery(tenant), JobQuery(tenant, tags=("red",)), JobQuery(tenant, created_after=0)):
            assert [row.job.id for row in (await log.jobs(query)).rows] == [made[tenant]]
            assert await log.count(query) == 1
        found = await log.find_key(tenant, "once")
        assert found is not None
        assert found.job.id == made[tenant]
        assert (await log.stats(tenant)).by_status == {"queued": 1}
        assert [recorded.job_id for recorded in (await log.feed("", 10, tenant)).events] == [made[tenant]]
        assert [schedule.tenant for schedule in await log.schedules(tenant)] == [tenant]
        assert await log.schedule(tenant, "hourly") is not None
    assert len([event for event in (await log.feed("", 10)).events if event.type == "submitted"]) == 2
    assert set(await log.heads(list(made.values()))) == set(made.values())


@contextmanager
def statements(log: PostgresLog) -> Iterator[list[str]]:
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    engines = (log._reader.sync_engine, log._writer.sync_engine, log._tenants.sync_engine)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


async def test_a_read_costs_a_statement_more_only_when_the_tenant_changes(log: PostgresLog, made: dict[str, str]):
    await log.head(made["acme"], "acme")
    with statements(log) as same:
        for _ in range(20):
            await log.head(made["acme"], "acme")
    assert len(same) == 20
    with statements(log) as changing:
        for tenant in ("other", "acme") * 5:
            await log.head(made[tenant], tenant)
    assert len(changing) == 20


async def test_a_submit_says_nothing_for_tenants(log: PostgresLog):
    """The committer's statement is on a connection of its own; nothing is added to it."""
    said: list[str] = []
    async with committing(log) as running:
        await running.submit(tenant="acme")  # prepares what is said again and again
        connection = await log._line._open()
        connection.add_query_logger(lambda query: said.append(query.query.split()[0]))
        await running.submit(tenant="other")
    assert said == ["WITH"]


async def test_doctor_says_whether_the_wall_stands(postgres, tmp_path):
    settings = await postgres_settings(postgres, tmp_path)
    owner_url = str(settings.database_url)

    async def told(url: str) -> str:
        found = await examined(Settings(database_url=url, rabbitmq_url=None, data_dir=tmp_path), None)
        return next(one.state for one in found if one.check == "tenants")

    assert await told(owner_url) == "warning"
    async with as_application(owner_url) as url:
        assert await told(url) == "ok"
        owner = await asyncpg.connect(owner_url)
        try:
            await owner.execute("ALTER TABLE events DISABLE ROW LEVEL SECURITY")
            assert await told(url) == "failed"
        finally:
            await owner.close()
