"""A job that is held is not erased, whoever asks; who held it and why stays."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from events.errors import Refused, UnknownJob
from events.holds import is_held
from phaseline import database
from phaseline.erase import erase
from tests.audit.scene import Scene
from tests.builders import a_finish, whole_stream
from tests.cli.program import in_process

HOLD = {"actor": "user:counsel", "reason": "case 4711"}
ERASE = {"actor": "user:officer", "reason": "asked"}


async def completed(scene: Scene) -> str:
    claimed = await scene.running.started(params={"name": "Ada"})
    await scene.running.committer.execute(claimed.job.id, a_finish(claimed))
    return claimed.job.id


async def test_a_held_job_is_not_erased_until_it_is_let_go(scene: Scene) -> None:
    job_id, other = await completed(scene), await completed(scene)
    await database.hold(scene.settings, job_id, held=True, **HOLD)
    with pytest.raises(Refused, match="held"):
        await erase(scene.settings, job_id, **ERASE)
    assert "Ada" in repr(await whole_stream(scene.log, job_id))
    await erase(scene.settings, other, **ERASE)  # another job is not concerned
    await database.hold(scene.settings, job_id, held=False, actor="user:counsel", reason="case closed")
    await erase(scene.settings, job_id, **ERASE)
    acts = await scene.log.hold_acts(job_id)
    assert [(act.held, act.actor, act.reason) for act in acts] == [
        (True, "user:counsel", "case 4711"),
        (False, "user:counsel", "case closed"),
    ]
    assert acts[0].at > 0
    assert not is_held(acts)


async def test_the_database_itself_refuses_to_erase_what_is_held(scene: Scene) -> None:
    job_id = await completed(scene)
    await database.hold(scene.settings, job_id, held=True, **HOLD)

    def erasing(connection: Connection) -> None:
        values = "VALUES (:job, 3, 1, 'user:x', 'y')"
        connection.execute(
            text(f"INSERT INTO erasures (job_id, through_seq, at, actor, reason) {values}"), {"job": job_id}
        )

    with pytest.raises(DBAPIError, match="the job is held"):
        await database.on_connection(scene.settings, erasing)


@pytest.mark.parametrize("edit", ["UPDATE holds SET held = (1 = 0)", "DELETE FROM holds"])
async def test_acts_are_append_only(scene: Scene, edit: str) -> None:
    await database.hold(scene.settings, await completed(scene), held=True, **HOLD)

    def change(connection: Connection) -> None:
        connection.execute(text(edit))

    with pytest.raises(DBAPIError, match="append-only"):
        await database.on_connection(scene.settings, change)


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_a_hold_waits_for_an_erasure_under_way(scene: Scene) -> None:
    job_id = await completed(scene)
    erasing, holding, looking = [await asyncpg.connect(scene.settings.database_url) for _ in range(3)]
    waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')"
    insert = (
        "INSERT INTO holds (job_id, tenant, held, at, actor, reason) VALUES ($1, 'default', true, 1, 'user:x', 'y')"
    )
    try:
        async with asyncio.TaskGroup() as group, erasing.transaction():
            await erasing.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", job_id)  # as phaseline_erase does
            held = group.create_task(holding.execute(insert, job_id))
            async with asyncio.timeout(60):
                while not await looking.fetchval(waits, holding.get_server_pid()):  # noqa: ASYNC110 another session
                    await asyncio.sleep(0.02)
            assert not held.done()
        assert held.done()
    finally:
        for connection in (erasing, holding, looking):
            await connection.close()


async def test_holding_by_command(scene: Scene) -> None:
    job_id = await completed(scene)
    url = scene.settings.database_url
    where = ["--database-url", url] if url else ["--data-dir", str(scene.settings.data_dir)]
    words = ["--reason", "case 4711", "--by", "user:counsel", *where]
    assert (await asyncio.to_thread(in_process, "db", "hold", job_id, *words)).code == 0
    refused = await asyncio.to_thread(in_process, "db", "erase", job_id, *words)
    assert (refused.code, "is held" in refused.err) == (1, True)
    assert (await asyncio.to_thread(in_process, "db", "unhold", job_id, *words)).code == 0
    with pytest.raises(UnknownJob):
        await database.hold(scene.settings, "01a20ca3-8f44-71e6-954e-9ff94174bd64", held=True, **HOLD)
