"""PostgreSQL or RabbitMQ away, frozen, short of memory, or robbed of its queues: slower, and nothing else."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from events.committer import ANSWER_S
from tests.faults.fleet import Fleet, a_fleet, since, until
from tests.figures import note
from tests.servers import PostgresServer, RabbitServer
from tests.verified import verified

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT_JOB = {"steps": 4, "step_s": 0.02}


async def copied(fleet: Fleet) -> None:
    """The RabbitMQ stream becomes complete."""
    await verified(fleet.settings, fleet.rabbit_url, settled=False)


async def work_goes_on(fleet: Fleet) -> None:
    """A job is accepted, runs, is watched to its end; another is cancelled while it runs."""
    running = await fleet.held()
    await running.event("partial")
    short = fleet.watched(await fleet.http.submit("countdown", SHORT_JOB))
    assert (await short.ended())[-1]["type"] == "complete"
    await fleet.http.post(f"/api/v1/jobs/{running.id}/cancel", {}, 200)
    assert (await running.ended())[-1]["type"] == "cancelled"


# ---- RabbitMQ -----------------------------------------------------------------------------------------------------


async def test_with_rabbitmq_killed_jobs_are_accepted_run_and_watched(fleet: Fleet, rabbit: RabbitServer):
    await copied(fleet)
    await asyncio.to_thread(rabbit.settle)
    before = await fleet.held()
    await before.event("partial")
    await asyncio.to_thread(rabbit.kill)
    try:
        await work_goes_on(fleet)
        before.let_go()
        await before.ended()
        assert before.attempts_of("started") == [1]
    finally:
        await asyncio.to_thread(rabbit.start)
    await copied(fleet)


async def test_under_a_memory_alarm_work_goes_on_and_after_it_the_copy_is_complete(fleet: Fleet, rabbit: RabbitServer):
    await asyncio.to_thread(rabbit.memory_alarm, True)
    try:
        await work_goes_on(fleet)
    finally:
        await asyncio.to_thread(rabbit.memory_alarm, False)
    await copied(fleet)


async def test_queues_deleted_from_outside_are_made_again(fleet: Fleet, rabbit: RabbitServer):
    await work_goes_on(fleet)
    before = await asyncio.to_thread(rabbit.queues, fleet.rabbit_url, "phaseline.")
    assert await asyncio.to_thread(rabbit.delete_queues, fleet.rabbit_url, "phaseline.") == len(before)
    await work_goes_on(fleet)
    wanted = sorted(kind_of(name) for name in before)

    async def back() -> bool:
        return sorted(map(kind_of, await asyncio.to_thread(rabbit.queues, fleet.rabbit_url, "phaseline."))) == wanted

    await until(back, f"{wanted} again")
    await copied(fleet)


def kind_of(queue: str) -> str:
    """A queue's name without what is fresh for each connection."""
    return queue if queue.startswith(("phaseline.tickets", "phaseline.events")) else ".".join(queue.split(".")[:2])


async def test_tickets_purged_from_outside_are_missed_by_nobody(fleet: Fleet, rabbit: RabbitServer):
    full = [await fleet.held() for _ in range(4)]  # every slot of both workers
    for job in full:
        await job.event("started")
    waiting = [fleet.watched(await fleet.http.submit("countdown", SHORT_JOB)) for _ in range(5)]
    assert await asyncio.to_thread(rabbit.purge_queues, fleet.rabbit_url, "phaseline.tickets.countdown") == 1
    for job in full:
        job.let_go()
    for job in (*full, *waiting):
        assert (await job.ended())[-1]["type"] == "complete"


# ---- PostgreSQL ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def outage(kind: str, postgres: PostgresServer) -> AsyncIterator[None]:
    """The database is killed or frozen for the block."""
    begin, end = (postgres.kill, postgres.start) if kind == "killed" else (postgres.pause, postgres.resume)
    await asyncio.to_thread(begin)
    try:
        yield
    finally:
        await asyncio.to_thread(end)


async def survives(fleet: Fleet, postgres: PostgresServer, kind: str, outage_s: float) -> None:
    """A running engine and its viewer outlive an outage: no takeover, no new connection, nothing lost."""
    job = await fleet.held()
    await job.event("partial")
    async with outage(kind, postgres):
        at = time.monotonic()
        if outage_s > ANSWER_S:
            answer = await refused(fleet)
            note({"what": "submit refused", "outage": kind, "seconds": since(at)})
            assert (answer.status, int(answer.headers["Retry-After"]) >= 1) == (503, True)
        await asyncio.sleep(at + outage_s - time.monotonic())  # the outage itself
        seen = len(job.viewer.events)
    at = time.monotonic()
    await until(lambda: len(job.viewer.events) > seen, "the stream going on")
    note({"what": "stream goes on", "outage": kind, "outage_s": outage_s, "seconds": since(at)})
    await work_goes_on(fleet)
    job.let_go()
    await job.ended()
    told = [{**event, "value": None} for event in job.viewer.events if event["type"] not in ("partial", "progress")]
    assert job.attempts_of("started") == [1], told
    assert [frame["type"] for frame in job.viewer.frames].count("hello") == 1


async def refused(fleet: Fleet) -> aiohttp.ClientResponse:
    """The answer to a submit while the database is away."""
    body = {"engine": "countdown", "params": SHORT_JOB}
    async with fleet.http.session.post(f"{fleet.http.url}/api/v1/jobs", json=body) as answer:
        return answer


@pytest.mark.parametrize("kind, outage_s", [("killed", 10.5), ("frozen", 5.0)])
async def test_an_engine_and_its_viewer_outlive_an_outage_longer_than_the_lease(
    fleet: Fleet, postgres: PostgresServer, kind: str, outage_s: float
):
    await survives(fleet, postgres, kind, outage_s)


async def test_nothing_acknowledged_is_lost_when_postgresql_crashes_again_and_again(
    fleet: Fleet, postgres: PostgresServer
):
    """Submits and claims are under way at each crash. Who had no answer asks again with its key."""
    accepted: list[str] = []
    stop = asyncio.Event()

    async def submit(keys: Callable[[], str]) -> None:
        while not stop.is_set():
            key = keys()
            job = await until(lambda: asked(fleet, key), f"an answer to {key}")  # noqa: B023 awaited here
            accepted.append(job["id"])

    numbers = itertools.count()
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(submit(lambda: f"key {next(numbers)}"))
        for _ in range(3):
            enough = len(accepted) + 10
            await until(lambda: len(accepted) >= enough, "ten more jobs")  # noqa: B023 awaited here
            async with outage("killed", postgres):
                pass
        stop.set()
    note({"what": "accepted across three crashes", "jobs": len(accepted)})
    assert len(accepted) == len(set(accepted)) == next(numbers)
    for job in [fleet.watched(job_id) for job_id in accepted]:
        assert (await job.ended())[-1]["type"] == "complete"


async def asked(fleet: Fleet, key: str) -> dict[str, Any] | None:
    """A submit under this key: the job, None when the answer was 503."""
    body = {"engine": "countdown", "params": {"steps": 1, "step_s": 0}}
    headers = {"Idempotency-Key": key}
    async with fleet.http.session.post(f"{fleet.http.url}/api/v1/jobs", json=body, headers=headers) as answer:
        assert answer.status in {202, 503}, await answer.text()
        said: dict[str, Any] = await answer.json()
        return said if answer.status == 202 else None


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["killed", "frozen"])
async def test_with_the_default_leases_engines_outlive_an_outage_of_thirty_seconds(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path, kind: str
):
    async with a_fleet(postgres, rabbit, tmp_path) as fleet:
        await survives(fleet, postgres, kind, outage_s=30)
        await fleet.close()
