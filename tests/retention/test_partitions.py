"""On PostgreSQL a week's partition is dropped once nothing in it is needed, and by the application's role only so."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from events.acts import By, act_id, recorded_act
from events.acts_sql import act_statements
from events.holds import HoldAct
from phaseline.settings import Settings
from tests.retention.scene import WEEK_MS, Scene
from tests.servers import PostgresServer
from tests.stores import postgres_settings


@pytest.fixture
async def settings(postgres: PostgresServer, tmp_path: Path) -> Settings:
    found = await postgres_settings(postgres, tmp_path)
    return found.model_copy(update={"archive": str(tmp_path / "archive")})


async def partitions(scene: Scene) -> set[int]:
    await scene.log._load_weeks()
    return set(scene.log._weeks)


async def test_a_partition_goes_with_the_last_job_of_its_week(scene: Scene) -> None:
    now = await scene.log.now() // WEEK_MS
    first, last = await scene.completed(1, weeks_ago=5), await scene.completed(2, weeks_ago=5)
    await scene.completed(3, weeks_ago=9)
    await scene.completed(4)
    await scene.log.hold(HoldAct(last, "default", True, 0, "user:counsel", None, "case 4711"))
    before = await partitions(scene)
    assert (await scene.sweep()).parts == 1
    assert await partitions(scene) == before - {now - 9}
    assert await scene.rows_of("events", first) > 0
    await scene.log.hold(HoldAct(last, "default", False, 0, "user:counsel", None, "closed"))
    assert (await scene.sweep()).parts == 1
    assert await partitions(scene) == before - {now - 9, now - 5}
    assert (await scene.verify()).findings == []


async def test_the_database_itself_drops_no_partition_that_is_needed(scene: Scene) -> None:
    now = await scene.log.now() // WEEK_MS
    job_id = await scene.completed(1, weeks_ago=5)

    async def dropped(week: int) -> bool:
        async with scene.log._writer.begin() as connection:
            found = await connection.exec_driver_sql(f"SELECT phaseline_drop_partition({week})")
            return bool(found.scalar_one())

    assert not await dropped(now)  # new jobs come here
    assert not await dropped(now - 77)  # there is none
    assert not await dropped(now - 5)
    await scene.tamper("DELETE FROM jobs WHERE id = :job", job=job_id)  # a row that is gone is no job that is archived
    assert not await dropped(now - 5)
    assert await scene.rows_of("events", job_id) > 0


async def test_a_reader_of_the_log_delays_the_drop_and_nobody_else(scene: Scene) -> None:
    await scene.completed(1, weeks_ago=5)
    reader = await asyncpg.connect(str(scene.settings.database_url))
    try:
        async with reader.transaction():
            await reader.fetch("SELECT count(*) FROM events")
            async with asyncio.timeout(30):
                done = await scene.sweep()
            assert (done.jobs, done.parts) == (1, 0)
            await scene.completed(2)  # nobody waits behind the drop
    finally:
        await reader.close()
    assert (await scene.sweep()).parts == 1


async def test_acts_stay_when_the_jobs_of_their_week_have_gone(scene: Scene) -> None:
    job_id = await scene.completed(1, weeks_ago=5)
    now = await scene.log.now()
    act = recorded_act(
        act_id(now - 5 * WEEK_MS), now - 5 * WEEK_MS, "default", By("user:ada").did("webhooks_removed", "default")
    )
    async with scene.log._writer.begin() as connection:
        for statement in act_statements(act):
            await connection.execute(statement)
    assert (await scene.sweep()).parts == 1
    assert await scene.rows_of("events", job_id) == 0
    assert await scene.rows_of("events", act.job_id) == 1
    assert act in await scene.log.acts("default", None, 10)
    assert (await scene.sweep()).parts == 0  # nothing more to free
    assert (await scene.verify()).findings == []
    with pytest.raises(DBAPIError, match="append-only"):
        async with scene.log._writer.begin() as connection:
            await connection.exec_driver_sql(f"DELETE FROM events WHERE job_id = '{act.job_id}'")
    with pytest.raises(DBAPIError, match="append-only"):
        async with scene.log._writer.begin() as connection:
            await connection.exec_driver_sql(f"TRUNCATE events_w{now // WEEK_MS - 5}")
