"""What slow and stopped readers cost a gateway, and a slow log a worker: bounded, and printed (docs/reliability.md)."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.crowd import NDJSON, Peer, peer
from tests.installation import Installation, Viewer, api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.proxy import proxy_to
from tests.scrape import Scrape, scraped, scraped_until
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings
from tests.verified import verified

MIB = 1024 * 1024
WINDOW_BYTES = 4096  # what a reader's kernel takes for it
WATCHED_S = 5.0


@dataclass(frozen=True)
class Finished:
    """An installation with a stream of 10 MB and a result of 5 MiB."""

    made: Installation
    stream: str
    result: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def finished(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Finished]:
    settings = await postgres_settings(postgres, tmp_path_factory.mktemp("memory"))
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), rabbit_url, **ENVIRONMENT)
    made.forked = True
    async with running(made), api(made.url) as http:
        stream = await http.submit("chatty", {"events": 5000, "size": 2000})
        result = await http.submit("sized", {"size": 5 * MIB})
        for job_id in (stream, result):
            await Viewer(made.url, job_id).follow(query="&batch=1")
        yield Finished(made, stream, result)


async def stands_still(one: Peer) -> None:
    """Reads nothing after the answer's head."""
    await one.head()
    await asyncio.Event().wait()


async def a_kib_a_second(one: Peer) -> None:
    """Reads 1 KiB/s."""
    await one.head()
    while await one.take(1024):  # noqa: ASYNC110 it is slow on purpose
        await asyncio.sleep(1.0)


@dataclass(frozen=True)
class Reading:
    """So many readers of one address, each in this manner; what each may cost, or all of them together."""

    what: str
    path: Callable[[Finished], str]
    readers: int
    read: Callable[[Peer], Coroutine[None, None, None]]
    each_kib_max: int = 0
    all_mib_max: int = 0
    accept: str = ""


READINGS = (
    Reading("full streams at 1 KiB/s", lambda f: f"/api/v1/jobs/{f.stream}/stream", 200, a_kib_a_second, 300),
    Reading("stopped full streams", lambda f: f"/api/v1/jobs/{f.stream}/stream", 200, stands_still, 300),
    Reading(
        "stopped batches", lambda f: f"/api/v1/jobs/{f.stream}/stream?batch=1", 200, stands_still, each_kib_max=400
    ),
    Reading(
        "stopped NDJSON", lambda f: f"/api/v1/jobs/{f.stream}/events", 200, stands_still, each_kib_max=300, accept=NDJSON
    ),
    Reading(
        "stopped 5 MiB results, inline",
        lambda f: f"/api/v1/jobs/{f.result}/stream?results=inline", 40, stands_still, all_mib_max=32,
    ),
    Reading(
        "5 MiB results inline at 1 KiB/s",
        lambda f: f"/api/v1/jobs/{f.result}/stream?results=inline", 40, a_kib_a_second, all_mib_max=32,
    ),
    Reading(
        "stopped 5 MiB results over HTTP",
        lambda f: f"/api/v1/jobs/{f.result}/results", 40, stands_still, all_mib_max=32, accept="*/*",
    ),
)  # fmt: skip
QUICK = {"stopped 5 MiB results, inline"}  # the others take 10 s each


@pytest.mark.parametrize(
    "reading",
    [pytest.param(r, id=r.what, marks=[] if r.what in QUICK else [pytest.mark.slow]) for r in READINGS],
)
async def test_slow_and_stopped_readers_cost_bounded_memory(
    finished: Finished, reading: Reading, capsys: pytest.CaptureFixture[str]
) -> None:
    made = finished.made
    await made.kill("gateway")
    await made.start("gateway")  # what an earlier test made it allocate would be used again unseen
    for job_id in (finished.stream, finished.result):
        await Viewer(made.url, job_id).follow(query="&batch=1&results=inline")
    before = await scraped_until(made.url, lambda scrape: scrape["phaseline_connections"] == 0)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        reads: list[asyncio.Task[None]] = []
        for _ in range(reading.readers):
            one = await stack.enter_async_context(
                peer(made.url, reading.path(finished), accept=reading.accept, window=WINDOW_BYTES)
            )
            reads.append(group.create_task(reading.read(one)))
        if reading.accept in ("", NDJSON):
            await scraped_until(made.url, lambda scrape: scrape["phaseline_connections"] == reading.readers)
        most = await _most(made.url)
        for read in reads:
            read.cancel()
    grown = most["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{reading.readers} readers, {reading.what}: gateway {before['process_resident_memory_bytes'] / MIB:.0f} MiB "
            f"{grown / MIB:+.1f} MiB, {grown / reading.readers / 1024:.0f} KiB each; "
            f"in large frames {most['phaseline_large_frame_bytes'] / MIB:.0f} MiB\n"
        )
    assert grown < max(reading.each_kib_max * reading.readers * 1024, reading.all_mib_max * MIB)
    assert most["phaseline_large_frame_bytes"] < 6 * MIB  # one result, however many read it
    await scraped_until(made.url, lambda scrape: scrape["phaseline_connections"] == 0)


async def _most(url: str) -> Scrape:
    """The scrape with the most memory, over some seconds from when nothing more is sent at once."""
    loop = asyncio.get_running_loop()
    until = loop.time() + WATCHED_S
    most = await scraped(url)
    while loop.time() < until:
        scrape = await scraped(url)
        if scrape["process_resident_memory_bytes"] > most["process_resident_memory_bytes"]:
            most = scrape
        await asyncio.sleep(0.25)  # samples of another process over a stretch of time
    return most


# ---- a slow log -------------------------------------------------------------------------------------------------

EVENTS, EVENT_BYTES = 4000, 4000


@pytest.mark.timeout(300)
async def test_a_slow_log_holds_engines_back_and_their_worker_small(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    assert settings.database_url is not None
    made = on_servers(settings.database_url, rabbit_url, **ENVIRONMENT)
    made.forked = True
    async with proxy_to(settings.database_url) as line:
        made.configure("worker", PHASELINE_DATABASE_URL=line.url, PHASELINE_LEASE_S="6")
        async with running(made), api(made.url) as http:
            await Viewer(made.url, await http.submit("chatty", {"events": 200})).follow()  # what it imports is there
            line.delay(0.12)
            jobs = [await http.submit("chatty", {"events": EVENTS, "size": EVENT_BYTES}) for _ in range(2)]
            viewers = [Viewer(made.url, job_id, bound_s=110.0) for job_id in jobs]
            before = _memory(made)
            for viewer in viewers:
                await viewer.follow(until=3)
            most = before
            until = asyncio.get_running_loop().time() + WATCHED_S
            while asyncio.get_running_loop().time() < until:
                now = _memory(made)
                most = (max(most[0], now[0]), max(most[1], now[1]))
                await asyncio.sleep(0.1)  # samples of other processes over a stretch of time
            said = [(await http.get(f"/api/v1/jobs/{job_id}"))["seq"] for job_id in jobs]
            line.heal()
            for viewer in viewers:
                await viewer.follow(query="&batch=1")
                assert viewer.events[-1]["type"] == "complete"
            assert max(said) < EVENTS  # they were held back
            await verified(settings, None, viewers)
    grown = [(now - then) / MIB for then, now in zip(before, most, strict=True)]
    with capsys.disabled():
        sys.stdout.write(
            f"\ntwo engines that would say {2 * EVENTS * EVENT_BYTES / MIB:.0f} MiB at once, a log with 120 ms to it each "
            f"way: worker {before[0] / MIB:.0f} MiB {grown[0]:+.1f} MiB, its children {grown[1]:+.1f} MiB\n"
        )
    assert grown[0] < 32
    assert grown[1] < 16


def _memory(made: Installation) -> tuple[int, int]:
    """Resident bytes of the worker, and of its children together."""
    children = sum(child.memory_info().rss for child in made.children("worker"))
    return psutil.Process(made.pid("worker")).memory_info().rss, children
