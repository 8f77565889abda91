"""SIGTERM ends each process within its grace and loses no accepted work. `phaseline up`: see test_end_to_end.py."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.faults.fleet import Fleet, since, until
from tests.figures import note
from tests.installation import Api
from tests.proxy import DOWN

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT_JOB = {"engine": "countdown", "params": {"steps": 2, "step_s": 0.01}}
# What is left of a drain once its engines ended or their time is over: last reports, goodbyes to both servers.
AFTER_DRAIN_S = 15.0


async def test_a_drained_worker_gives_back_what_does_not_end_in_time(fleet: Fleet):
    async with fleet.another("worker.3", PHASELINE_DRAIN_S="0.5") as name:
        job = await fleet.held_by(name, obedient=False)
        at = time.monotonic()
        assert await fleet.installation.stop(name) == [0]
        note({"what": "worker drained, drain_s 0.5", "seconds": since(at)})
        assert since(at) < 0.5 + AFTER_DRAIN_S
    assert await job.runner(attempt=2) != name
    job.let_go()
    events = await job.ended()
    assert [event["reason"] for event in events if event["type"] == "interrupted"] == ["drained"]
    counted = await fleet.http.get(f"/api/v1/jobs/{job.id}")
    assert (counted["failures"], counted["losses"]) == (0, 0)


async def test_a_drained_worker_lets_its_engine_finish(fleet: Fleet):
    async with fleet.another("worker.3", PHASELINE_DRAIN_S="60") as name:
        job = await fleet.held_by(name, obedient=False)
        stopping = asyncio.create_task(fleet.installation.stop(name))
        await until(lambda: fleet.drains(name), "a worker that says it drains")
        job.let_go()
        assert await stopping == [0]
    await job.ended()
    assert job.attempts_of("complete") == [1]


async def test_a_second_sigterm_ends_a_worker_now_and_its_job_goes_on_elsewhere(fleet: Fleet):
    async with fleet.another("worker.3", PHASELINE_DRAIN_S="600") as name:
        job = await fleet.held_by(name, obedient=False)
        fleet.installation.terminate(name)
        await until(lambda: fleet.drains(name), "a worker that says it drains")
        at = time.monotonic()
        assert await fleet.installation.stop(name) == [0]
        assert since(at) < AFTER_DRAIN_S
    assert await job.runner(attempt=2) != name
    job.let_go()
    await job.ended()


async def test_a_worker_told_to_end_inside_a_claim_gives_back_what_the_claim_took(fleet: Fleet):
    """PostgreSQL has committed the claim; its answer is still on the way."""
    await fleet.installation.stop("worker.2")
    fleet.lines["worker"].postgres.delay(0.2, DOWN)
    job = await fleet.held()
    await until(lambda: fleet.status_of(job.id, "running"), "a committed claim")
    at = time.monotonic()
    assert await fleet.installation.stop("worker") == [0]
    assert since(at) < AFTER_DRAIN_S
    await fleet.mend()
    await job.event("started", attempt=2)
    job.let_go()
    events = await job.ended()
    assert events[-1]["results"] == {"attempt": 2}
    # Lost, when the slow line made its beats late as well.
    assert {event["reason"] for event in events if event["type"] == "interrupted"} <= {"drained", "lost"}


async def test_a_gateway_told_to_end_answers_what_it_accepted_and_its_viewers_go_on(fleet: Fleet):
    job = await fleet.held()
    await job.event("partial")
    async with submitting(fleet.http) as accepted:
        for _ in range(2):
            enough = len(accepted) + 5
            await until(lambda: len(accepted) >= enough, "five more jobs")  # noqa: B023 awaited here
            at = time.monotonic()
            assert await fleet.installation.stop("gateway") == [0]
            note({"what": "gateway drained", "seconds": since(at)})
            assert since(at) < AFTER_DRAIN_S
            await fleet.installation.start("gateway")
    for other in [fleet.watched(job_id) for job_id in accepted]:
        assert (await other.ended())[-1]["type"] == "complete"
    job.let_go()
    await job.ended()
    assert job.attempts_of("started") == [1]


@asynccontextmanager
async def submitting(http: Api) -> AsyncIterator[list[str]]:
    """Two clients submit short jobs while the block lasts, each under a key it asks with until it is answered: the
    accepted jobs, one for each key."""
    accepted: list[str] = []
    numbers = itertools.count()
    leaving = asyncio.Event()

    async def submit() -> None:
        while not leaving.is_set():
            key = f"{id(accepted)} {next(numbers)}"
            accepted.append(await until(lambda: answered(http, key), f"an answer to {key}"))  # noqa: B023 awaited here

    async with asyncio.TaskGroup() as clients:
        for _ in range(2):
            clients.create_task(submit())
        yield accepted
        leaving.set()
    assert len(set(accepted)) == len(accepted) == next(numbers)


async def answered(http: Api, key: str) -> str | None:
    """The job of this key; None while nobody is there to say."""
    try:
        async with http.session.post(
            f"{http.url}/api/v1/jobs", json=SHORT_JOB, headers={"Idempotency-Key": key}
        ) as said:
            assert said.status in {202, 503}, await said.text()
            return (await said.json())["id"] if said.status == 202 else None
    except aiohttp.ClientError:
        return None
