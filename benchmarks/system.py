"""The whole system: real gateway and worker processes on PostgreSQL and RabbitMQ, driven over HTTP and WebSocket."""

import asyncio
import time
from typing import Any

import aiohttp

from benchmarks.measure import Figure, Results
from benchmarks.spine import OURS
from events.batch import Committed
from events.catalog import Progress
from tests.builders import Committing, a_report
from tests.installation import Api

BOUND_S = 120.0


async def idle_start(http: Api, results: Results, jobs: int) -> None:
    """HTTP submit to the engine's first line, one job at a time on an idle system."""
    waits = []
    for _ in range(jobs):
        sent = time.time_ns()
        job_id = await http.submit("noop", {})
        began = await _result(http, job_id)
        waits.append((began - sent) / 1e6)
    results.add(
        Figure(
            "idle submit to engine code", "ms", waits, "from before the POST to the engine's first line", latency=True
        )
    )


async def noop_jobs(http: Api, results: Results, jobs: int, repeats: int) -> None:
    """Jobs a second from the first POST to the last terminal event, all events persisted, submitting included."""
    rates = []
    for _ in range(repeats):
        began = time.monotonic()
        gate = asyncio.Semaphore(32)

        async def one(gate: asyncio.Semaphore = gate) -> str:
            async with gate:
                return await http.submit("noop", {}, tags=["bench"])

        ids = await asyncio.gather(*(one() for _ in range(jobs)))
        await all_done(http, set(ids))
        rates.append(jobs / (time.monotonic() - began))
    results.add(
        Figure("no-op jobs", "jobs/s", rates, f"{jobs} jobs over HTTP, 5 events each, state queryable, 2 slots")
    )


async def commit_to_socket(running: Committing, url: str, results: Results, events: int) -> None:
    """From just after the commit, in the writing process, to the frame at a viewer of a gateway in another."""
    claimed = await running.started(OURS)
    committed_at: dict[int, int] = {}
    before = running.committer._on_committed  # noqa: SLF001 the bench listens in front of the announcer

    def note(done: Committed) -> None:
        now = time.perf_counter_ns()
        committed_at.update((row.seq, now) for row in done.events if row.job_id == claimed.job.id)
        before(done)

    running.committer._on_committed = note  # noqa: SLF001
    waits: list[float] = []
    address = f"{url.replace('http', 'ws', 1)}/api/v1/jobs/{claimed.job.id}/stream?after=2"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        await _frame(socket, "caught_up")
        for number in range(events):
            said = (Progress(progress=0.0, phase="collecting_data", done=number),)
            await running.committer.execute(claimed.job.id, a_report(claimed, *said))
            frame = await _frame(socket, "progress")
            waits.append((time.perf_counter_ns() - committed_at[frame["seq"]]) / 1e6)
    results.add(
        Figure(
            "commit to WebSocket", "ms", waits, "one viewer, through RabbitMQ", "raw publish to consume", latency=True
        )
    )


async def replay(url: str, job_ids: list[str], events: int, results: Results) -> None:
    """A late viewer reads a long stream, each time another one, then the same ones again."""
    for name, query, note in (
        ("replay with batch=1", "&batch=1", "read from the log, one viewer"),
        ("replay with batch=1, again", "&batch=1", "the same streams: pages the gateway still has"),
        ("replay, one frame an event", "", "the same streams: pages the gateway still has"),
    ):
        rates = [await _replay_once(url, job_id, events, query) for job_id in job_ids]
        results.add(Figure(name, "events/s", rates, f"{events} events, {note}", "raw page reads"))


async def _replay_once(url: str, job_id: str, events: int, query: str) -> float:
    address = f"{url.replace('http', 'ws', 1)}/api/v1/jobs/{job_id}/stream?after=0{query}"
    began = time.monotonic()
    seen = 0
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        async with asyncio.timeout(BOUND_S):
            while seen < events:
                message = await socket.receive()
                # Counted without parsing: the bench's own JSON decoding is not what is measured.
                seen += (
                    message.data.count('"seq":') if '"type":"batch"' in message.data[:40] else '"actor"' in message.data
                )
    return events / (time.monotonic() - began)


async def _result(http: Api, job_id: str) -> int:
    async with asyncio.timeout(BOUND_S):
        address = f"{http.url.replace('http', 'ws', 1)}/api/v1/jobs/{job_id}/stream"
        async with http.session.ws_connect(address) as socket:
            began: int = (await _frame(socket, "complete"))["results"]
            return began


async def _frame(socket: Any, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(BOUND_S):
        while True:
            frame: dict[str, Any] = await socket.receive_json()
            if frame["type"] == kind:
                return frame


async def all_done(http: Api, ids: set[str]) -> None:
    """Waits for the last of these jobs: the newest still waiting is followed, then the list is asked again."""
    async with asyncio.timeout(BOUND_S):
        for status in ("queued", "running"):
            while True:
                page = await http.get(f"/api/v1/jobs?status={status}&tag=bench&limit=1")
                waiting = [job["id"] for job in page["jobs"] if job["id"] in ids]
                if not waiting:
                    break
                await _result(http, waiting[0])
