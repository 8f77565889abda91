"""kill -9 of `phaseline up` at any moment, on SQLite: started again on its folder, it owes nobody anything.

A seed draws the jobs and the moments, those of its start included. It is printed; `PHASELINE_TEST_SEED` gives it again.
"""

import asyncio
import os
import random
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from phaseline.settings import Settings
from tests.faults.fleet import until
from tests.figures import note
from tests.forked import Forked, environment
from tests.installation import Api, Viewer, api
from tests.integration.conftest import ENVIRONMENT
from tests.ports import free_port
from tests.verified import verified

pytestmark = pytest.mark.long

START_S = 1.0  # one of three dies within this time, while it starts; the others after they answered, within
LIFE_S = 2.5
OPEN_JOBS_MAX = 12
# A life is short: what the one before held is given back within it.
LEASES = {
    "PHASELINE_LEASE_S": "1.5",
    "PHASELINE_BEAT_S": "0.3",
    "PHASELINE_SWEEP_S": "0.1",
    "PHASELINE_LEADER_S": "0.3",
}
HEALED_S = 120.0


class Clients:
    """People who submit, cancel, retry and watch, and ask again until they are answered."""

    def __init__(self, http: Api, dice: random.Random, bound_s: float) -> None:
        self.jobs: dict[str, str] = {}  # idempotency key -> the job that was acknowledged
        self.viewers: list[Viewer] = []
        self._http = http
        self._dice = dice
        self._bound_s = bound_s
        self._open = asyncio.Semaphore(OPEN_JOBS_MAX)

    async def come(self, stopped: asyncio.Event) -> None:
        """One after another, until told to stop; returns when all have seen the end of their jobs."""
        async with asyncio.TaskGroup() as group:
            while not stopped.is_set():
                await self._open.acquire()
                group.create_task(self._one(*self._draw()))

    def _draw(self) -> tuple[dict[str, Any], str]:
        dice = self._dice
        steps = {"steps": dice.randint(1, 12), "step_s": round(dice.uniform(0, 0.1), 3)}
        body: dict[str, Any] = dice.choice(
            [
                {"engine": "countdown", "params": steps},
                {"engine": "countdown", "params": steps | {"fail_at": 1}, "max_attempts": 1},
                {"engine": "phased", "params": {"bulk": dice.choice([1, 300_000])}},
                {"engine": "sized", "params": {"size": dice.choice([10, 400_000])}},
            ]
        )
        return body, dice.choice(["", "", "cancel", "retry"])

    async def _one(self, body: dict[str, Any], act: str) -> None:
        try:
            key = uuid.UUID(int=self._dice.getrandbits(128)).hex
            job = await self._answer("/api/v1/jobs", body, **{"Idempotency-Key": key})
            self.jobs[key] = job["id"]
            viewers = [Viewer(self._http.url, job["id"], bound_s=self._bound_s) for _ in range(2)]
            self.viewers += viewers
            async with asyncio.TaskGroup() as group:
                for viewer in viewers:
                    group.create_task(viewer.follow_to_the_end())
                if act == "cancel":
                    await self._answer(f"/api/v1/jobs/{job['id']}/cancel", {})
            if act == "retry":
                await self._answer(f"/api/v1/jobs/{job['id']}/retry", {})
                await viewers[0].follow_to_the_end()
        finally:
            self._open.release()

    async def _answer(self, path: str, body: Any, **headers: str) -> Any:
        """Asks until there is an answer; a refusal is one."""
        async with asyncio.timeout(self._bound_s):
            while True:
                with suppress(aiohttp.ClientError):
                    async with self._http.session.post(self._http.url + path, json=body, headers=headers) as answer:
                        if answer.status < 500:
                            return await answer.json()
                await asyncio.sleep(0.1)  # it is dead, or has just begun to live


async def answers(http: Api) -> bool:
    with suppress(aiohttp.ClientError):
        async with http.session.get(f"{http.url}/readyz") as answer:
            return answer.status == 200
    return False


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(12, marks=pytest.mark.timeout(300)),
        pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
async def test_whenever_up_is_killed_every_accepted_job_ends_once_and_viewers_miss_nothing(
    kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    seed = int(os.environ.get("PHASELINE_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PHASELINE_TEST_SEED={seed}")  # noqa: T201 shown with a failure
    dice = random.Random(seed)
    port = str(free_port())
    variables = environment(**ENVIRONMENT | LEASES, PHASELINE_PORT=port, PHASELINE_DATA_DIR=str(tmp_path))
    stopped = asyncio.Event()
    async with api(f"http://127.0.0.1:{port}") as http:
        clients = Clients(http, random.Random(seed), HEALED_S + kills * 4 * LIFE_S)
        async with asyncio.TaskGroup() as group:
            coming = group.create_task(clients.come(stopped))
            for _ in range(kills):
                up = Forked(["up"], variables, tmp_path / "output")
                starting = dice.random() < 1 / 3
                if not starting:
                    await until(lambda: answers(http), "its first answer")
                await asyncio.sleep(dice.uniform(0.0, START_S if starting else LIFE_S))  # the moment itself
                assert up.running, up.said
                await up.kill()
            up = Forked(["up"], variables, tmp_path / "output")
            stopped.set()
            try:
                await until(coming.done, "the end of every job", bound_s=HEALED_S)
            finally:
                await up.kill()
    settings = Settings(data_dir=tmp_path, database_url=None, rabbitmq_url=None)
    counts = await verified(settings, viewers=clients.viewers)
    assert counts.jobs == len(clients.jobs) == len(set(clients.jobs.values()))
    met = len(
        {(viewer.job_id, e["seq"]) for viewer in clients.viewers for e in viewer.events if e["type"] == "interrupted"}
    )
    figures = {"kills": kills, "seed": seed, "jobs": counts.jobs, "events": counts.events, "attempts lost": met}
    note({"text": f"phaseline up killed: {figures}, {counts.recordings} recordings"})
