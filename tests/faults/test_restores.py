"""The log goes back in time under running processes: a restored backup, or a replica that lagged behind.

Then it gets a new epoch. Everyone learns it without a restart, viewers drop what is no longer true, and what was lost is
done again where that is possible.
"""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from phaseline import database
from tests.faults.fleet import BOUND_S, Fleet, until
from tests.installation import Viewer
from tests.verified import verified

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def db_restored(fleet: Fleet) -> None:
    """The command, as an operator gives it."""
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "phaseline", "db", "restored", env=fleet.installation.environment
    )
    async with asyncio.timeout(BOUND_S):
        assert await command.wait() == 0


async def forget_after(fleet: Fleet, job_id: str, seq: int) -> None:
    """What a replica that lagged behind does not have: the events after `seq`, and the row as they made it."""
    connection = await asyncpg.connect(fleet.settings.database_url)
    try:
        async with connection.transaction():
            await connection.execute("ALTER TABLE events DISABLE TRIGGER ALL")
            await connection.execute("DELETE FROM events WHERE job_id = $1 AND seq > $2", uuid.UUID(job_id), seq)
            await connection.execute("ALTER TABLE events ENABLE TRIGGER ALL")
    finally:
        await connection.close()
    assert await database.rebuild(fleet.settings) == 1


async def epoch_of(fleet: Fleet, job_id: str) -> str:
    viewer = await Viewer(fleet.installation.url, job_id).follow(until=1)
    epoch: str = viewer.frames[0]["epoch"]
    return epoch


@asynccontextmanager
async def watching(fleet: Fleet, job_id: str) -> AsyncIterator[Viewer]:
    """A viewer that is caught up when the block begins, and was sent away when it ends."""
    viewer = Viewer(fleet.installation.url, job_id)
    following = asyncio.create_task(viewer.follow())
    await until(lambda: "caught_up" in {frame["type"] for frame in viewer.frames}, "a viewer that is caught up")
    yield viewer
    await following
    assert (viewer.frames[-1]["type"], viewer.frames[-1]["reason"]) == ("goodbye", "log_replaced")
    assert viewer.close_code == 1012


async def come_back(fleet: Fleet, viewer: Viewer, epoch: str) -> list[dict[str, Any]]:
    """Resumes after the viewer's last sequence, with this epoch in the query; the first two frames."""
    again = Viewer(fleet.installation.url, viewer.job_id)
    again.events = viewer.events[:]
    following = asyncio.create_task(again.follow(query=epoch))
    await until(lambda: len(again.frames) >= 2, "an answer")
    following.cancel()
    await asyncio.wait({following})
    return again.frames[:2]


async def test_a_restore_reaches_every_running_process_and_every_viewer(fleet: Fleet):
    """Also while events are being appended: each is of one epoch or of the other, in order, and none is lost."""
    job = await fleet.held()
    await job.event("partial")
    before = await epoch_of(fleet, job.id)
    async with watching(fleet, job.id) as viewer:
        await db_restored(fleet)
    after = await epoch_of(fleet, job.id)
    assert after != before
    hello, reset = await come_back(fleet, viewer, f"&epoch={before}")
    assert (hello["resume"], hello["epoch"]) == ("reset", after)
    assert reset["reason"] == "epoch_changed"
    assert reset["snapshot"]["seq"] >= viewer.seqs[-1]
    hello, _ = await come_back(fleet, viewer, f"&epoch={after}")
    assert hello["resume"] == "resumed"
    job.let_go()
    events = await job.ended()
    assert job.attempts_of("started") == [1]
    epochs = await epochs_of(fleet, job.id)
    assert len(epochs) == len(events)
    assert epochs == sorted(epochs)
    assert set(epochs) == {int(epoch.partition("-")[0]) for epoch in (before, after)}
    await verified(fleet.settings, rabbit_url_of(fleet), settled=False)  # copy and feed have all of both epochs


async def test_a_replica_that_lagged_behind_takes_back_events_and_viewers_hear_of_it(fleet: Fleet, tmp_path: Path):
    job_id, gate = await quiet(fleet, tmp_path)
    before = await epoch_of(fleet, job_id)
    async with watching(fleet, job_id) as viewer:
        await forget_after(fleet, job_id, 2)  # what the engine said
    assert viewer.seqs == [1, 2, 3]
    _, reset = await come_back(fleet, viewer, "")
    assert (reset["reason"], reset["snapshot"]["seq"]) == ("seq_ahead", 2)
    await db_restored(fleet)
    _, reset = await come_back(fleet, viewer, f"&epoch={before}")
    assert (reset["reason"], reset["snapshot"]["seq"]) == ("epoch_changed", 2)
    gate.touch()
    after = await Viewer(fleet.installation.url, job_id).follow_to_the_end()
    assert kinds(after.events) == ["submitted", "started", "complete"]  # the same attempt went on
    await verified(fleet.settings, rabbit_url_of(fleet), [after])


async def test_a_job_whose_end_was_lost_with_the_old_primary_runs_again_to_one_end(fleet: Fleet, tmp_path: Path):
    job_id, gate = await quiet(fleet, tmp_path)
    gate.touch()
    done = await Viewer(fleet.installation.url, job_id).follow_to_the_end()
    assert kinds(done.events) == ["submitted", "started", "log", "complete"]
    await forget_after(fleet, job_id, 3)
    await db_restored(fleet)
    again = await Viewer(fleet.installation.url, job_id).follow_to_the_end()
    assert kinds(again.events) == ["submitted", "started", "log", "interrupted", "started", "log", "complete"]
    assert [event["reason"] for event in again.events if event["type"] == "interrupted"] == ["released"]
    await verified(fleet.settings, rabbit_url_of(fleet), [again])


async def quiet(fleet: Fleet, tmp: Path) -> tuple[str, Path]:
    """A job whose engine has said one thing and waits for its file."""
    gate = tmp / "gate"
    job_id = await fleet.http.submit("quiet", {"path": str(gate)})
    await Viewer(fleet.installation.url, job_id).follow(until=3)
    return job_id, gate


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Types in order, progress left out."""
    return [event["type"] for event in events if event["type"] != "progress"]


def rabbit_url_of(fleet: Fleet) -> str:
    return fleet.installation.environment["PHASELINE_RABBITMQ_URL"]


async def epochs_of(fleet: Fleet, job_id: str) -> list[int]:
    """The epoch of each of a job's events, in order."""
    connection = await asyncpg.connect(fleet.settings.database_url)
    try:
        rows = await connection.fetch("SELECT epoch FROM events WHERE job_id = $1 ORDER BY seq", uuid.UUID(job_id))
        return [row[0] for row in rows]
    finally:
        await connection.close()
