"""A new version is rolled out: every gateway and worker is restarted, one after another, while jobs come and viewers
watch. Nobody misses an event or gets one twice, nothing accepted is lost, and viewers do not all come back at once."""

import asyncio
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.crowd import CLOSE, CLOSE_1000, TEXT, Away, Peer, peer
from tests.figures import note
from tests.installation import BOUND_S, FINAL, Api, Installation, api, on_servers, running
from tests.ports import free_port
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings
from tests.verified import verified

pytestmark = pytest.mark.long

WATCHED = 4  # jobs that go on until every process is a new one
GATEWAYS, WORKERS = ("gateway", "gateway.2"), ("worker", "worker.2")
ENVIRONMENT = {
    "PHASELINE_DRAIN_S": "0.5",
    "PHASELINE_SLOTS": "6",
    "PHASELINE_UPGRADES_PER_S": "0",
    "PHASELINE_CONNECTIONS_PER_ADDRESS": "0",
    "PHASELINE_SUBMITS_PER_S": "0",
}


class Watching:
    """Viewers that come back after the last event they have, to whichever gateway answers, until their job is over."""

    def __init__(self, urls: Sequence[str], viewers: int, dice: random.Random) -> None:
        self._urls = urls
        self._dice = dice
        self.sent_away: list[float] = []  # when, by the loop's clock
        self.all_there = asyncio.Event()
        self._missing = viewers

    async def follow(self, job_id: str) -> int:
        """Returns the last sequence; fails at a hole or a repeat."""
        viewer = _Viewer()
        while viewer.closed not in FINAL:
            try:
                path = f"/api/v1/jobs/{job_id}/stream?after={viewer.last}"
                async with peer(self._dice.choice(self._urls), path) as one:
                    await one.head()
                    await self._read(one, viewer)
            except (OSError, EOFError, Away):  # it is being restarted; the test's bound is around all of it
                await asyncio.sleep(self._dice.uniform(0.05, 0.3))
        return viewer.last

    async def _read(self, one: Peer, viewer: "_Viewer") -> None:
        while True:
            opcode, said = await one.frame()
            if opcode == CLOSE:
                one.say(CLOSE_1000)
                viewer.closed = int.from_bytes(said[:2])
                self.sent_away.append(asyncio.get_running_loop().time())
                return
            if opcode == TEXT and said.startswith(b'{"job_id"'):
                seq = int(said.partition(b'"seq":')[2].partition(b",")[0])
                assert seq == viewer.last + 1, f"{seq} after {viewer.last}"
                viewer.last = seq
            elif not viewer.there and said.startswith(b'{"type":"caught_up"'):
                viewer.there = True
                self._missing -= 1
                if not self._missing:
                    self.all_there.set()


@dataclass
class _Viewer:
    last: int = 0
    closed: int = 0
    there: bool = False  # it has caught up once


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("viewers", "moves"),
    [
        (200, False),
        pytest.param(1000, False, marks=pytest.mark.slow),
        pytest.param(200, True, marks=pytest.mark.slow, id="to another RabbitMQ"),
    ],
)
async def test_a_rollout_loses_and_repeats_nothing(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path, viewers: int, *, moves: bool
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), rabbit_url, **ENVIRONMENT)
    other = free_port()
    old: dict[str, dict[str, str]] = {name: {} for name in (*GATEWAYS, *WORKERS)}
    old["gateway.2"] = {"PHASELINE_PORT": str(other)}
    made.configure("gateway.2", **old["gateway.2"])
    if moves:
        rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    new = {name: own | {"PHASELINE_RABBITMQ_URL": rabbit_url} for name, own in old.items()}
    urls = [made.url, f"http://127.0.0.1:{other}"]
    async with running(made, *GATEWAYS, *WORKERS), api(urls[0]) as http:
        await _ready(urls[1])
        jobs = [await http.submit("countdown", {"steps": 100_000, "step_s": 0.1}) for _ in range(WATCHED)]
        watching = Watching(urls, viewers, random.Random(7))
        watched = [jobs[number % WATCHED] for number in range(viewers)]
        following = [asyncio.create_task(watching.follow(job_id)) for job_id in watched]
        async with asyncio.timeout(4 * BOUND_S):
            await watching.all_there.wait()
            short: list[str] = []
            rolled_out = asyncio.Event()
            coming = asyncio.create_task(_jobs(urls, short, rolled_out))
            gone = []
            for name, url in zip(GATEWAYS, urls, strict=True):
                before = len(watching.sent_away)
                await _replace(made, name, new[name], url)
                gone.append(watching.sent_away[before:])
            for name in WORKERS:
                await _replace(made, name, new[name], urls[0])
            rolled_out.set()
            await coming
            for job_id in jobs:
                await http.post(f"/api/v1/jobs/{job_id}/cancel", {"mode": "force"}, 200)
            lasts = await asyncio.gather(*following)
            ends = [await _ended(http, job_id) for job_id in short]
        heads = {job_id: (await http.events(job_id))[-1]["seq"] for job_id in jobs}
        counts = await verified(settings, rabbit_url)  # while they run: one of them copies
    assert lasts == [heads[job_id] for job_id in watched]
    assert set(ends) == {"completed"}
    for moments in gone:  # of those each gateway sent away
        assert moments
        note(
            {
                "what": f"rollout with {viewers} viewers: sent away by one gateway",
                "seconds": max(moments) - min(moments),
            }
        )
    assert counts.jobs == len(jobs) + len(short)


async def _ready(url: str) -> None:
    async with asyncio.timeout(BOUND_S), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)  # another process; bounded above


async def _replace(made: Installation, name: str, settings: Mapping[str, str], url: str) -> None:
    """As a rollout does: the old process ends in order, then the new one is waited for."""
    assert await made.stop(name) == [0]
    made.configure(name, **settings)
    made.processes[name] = await made._started(name)
    await _ready(url)


async def _jobs(urls: Sequence[str], accepted: list[str], enough: asyncio.Event) -> None:
    """Short jobs, one after another, by whichever gateway takes them."""
    async with aiohttp.ClientSession() as session:
        for number in itertools.takewhile(lambda _: not enough.is_set(), itertools.count()):
            body = {"engine": "countdown", "params": {"steps": 1, "step_s": 0}}
            url = urls[number % len(urls)]
            try:
                # The same key at the other gateway: whoever has no answer asks again and makes no second job.
                headers = {"Idempotency-Key": f"rollout-{number // len(urls)}"}
                async with session.post(f"{url}/api/v1/jobs", json=body, headers=headers) as answer:
                    if answer.status == 202 and (job_id := (await answer.json())["id"]) not in accepted:
                        accepted.append(job_id)
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)  # it is being restarted


async def _ended(http: Api, job_id: str) -> str:
    while True:
        status: str = (await http.get(f"/api/v1/jobs/{job_id}"))["status"]
        if status not in {"queued", "running"}:
            return status
        await asyncio.sleep(0.1)  # another process; the test's bound is around it
