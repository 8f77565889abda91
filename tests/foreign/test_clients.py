"""Clients nobody here wrote follow a job to its end and see each event once, a restart of the gateway included."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import websockets
from httpx_sse import aconnect_sse

from phaseline.settings import Settings
from tests.installation import Api, Installation, Viewer, api, embedded, running
from tests.node import installed
from tests.verified import verified

HERE = Path(__file__).parent
WAIT_S = 60.0
STEPS = 12
SLOW = {"steps": STEPS, "step_s": 0.4}
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(420)]  # the first one installs from npm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phaseline(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """Shared; a test may kill and start it again. Afterwards the whole run keeps what is promised of it."""
    folder = tmp_path_factory.mktemp("foreign")
    await asyncio.to_thread(installed, HERE)
    environment = {
        "PHASELINE_SLOTS": "4",
        "PHASELINE_LEASE_S": "2",
        "PHASELINE_BEAT_S": "0.5",
        "PHASELINE_SWEEP_S": "0.3",
    }
    async with running(embedded(folder, **environment)) as made:
        yield made
    await verified(Settings(data_dir=folder, database_url=None, rabbitmq_url=None))


@pytest_asyncio.fixture(loop_scope="module")
async def http(phaseline: Installation) -> AsyncIterator[Api]:
    async with api(phaseline.url) as http:
        yield http


class Printed:
    """A client in a process of its own that prints each sequence it sees."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    @classmethod
    async def by(cls, *words: str) -> "Printed":
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, cwd=HERE, limit=1024 * 1024
        )
        return cls(process)

    async def until(self, count: int) -> None:
        """Waits for so many lines."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            while len(self.lines) < count:
                self.lines.append((await self.process.stdout.readline()).decode().strip())
                assert self.lines[-1], self.lines

    async def rest(self) -> list[str]:
        """All lines, up to its end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            self.lines += (await self.process.stdout.read()).decode().splitlines()
            assert await self.process.wait() == 0
        return self.lines


async def ended(http: Api, job_id: str) -> list[int]:
    """The sequences of a job that ends soon."""
    await Viewer(http.url, job_id).follow_to_the_end()
    return [event["seq"] for event in await http.events(job_id)]


@pytest.mark.parametrize("script, stopped", [("eventsource.js", "stopped 204"), ("reconnecting.js", "stopped 1000")])
async def test_a_client_from_npm_resumes_over_a_killed_gateway(
    phaseline: Installation, http: Api, script: str, stopped: str
):
    job_id = await http.submit("countdown", SLOW)
    address = (
        f"{phaseline.url}/api/v1/jobs/{job_id}/events"
        if script == "eventsource.js"
        else f"{phaseline.url.replace('http', 'ws', 1)}/api/v1/jobs/{job_id}/stream"
    )
    client = await Printed.by("node", script, address)
    await client.until(5)
    await phaseline.kill()
    await phaseline.start()
    lines = await client.rest()
    seqs = await ended(http, job_id)
    assert lines == [*map(str, seqs), stopped]


async def test_httpx_sse_resumes_with_the_id_of_its_last_event(phaseline: Installation, http: Api):
    job_id = await http.submit("countdown", SLOW)
    seen: list[int] = []
    last_id, over, cuts = "", False, 0
    async with asyncio.timeout(WAIT_S), httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as client:
        while not over:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            url = f"{phaseline.url}/api/v1/jobs/{job_id}/events"
            async with aconnect_sse(client, "GET", url, headers=headers) as source:
                async for event in source.aiter_sse():
                    frame: dict[str, Any] = json.loads(event.data) if event.data else {"type": "nothing"}
                    last_id, over = event.id, frame["type"] == "end"
                    if "attempt" in frame:
                        seen.append(frame["seq"])
                        if frame["seq"] % 4 == 0:
                            cuts += 1
                            break
    assert seen == await ended(http, job_id)
    assert cuts > 2


async def test_the_websockets_library_follows_and_resumes(phaseline: Installation, http: Api):
    job_id = await http.submit("countdown", {"steps": STEPS, "step_s": 0.05})
    url = f"{phaseline.url.replace('http', 'ws', 1)}/api/v1/jobs/{job_id}/stream"
    seen: list[int] = []
    code = None
    async with asyncio.timeout(WAIT_S):
        while code is None:
            async with websockets.connect(f"{url}?after={seen[-1] if seen else 0}&batch=1", proxy=None) as socket:
                try:
                    while True:
                        frame = json.loads(await socket.recv())
                        seen += [event["seq"] for event in frame.get("events", ())]
                        if frame["type"] == "batch" and len(seen) % 3 == 0:
                            break
                except websockets.ConnectionClosed as closed:
                    code = closed.rcvd.code if closed.rcvd else None
    assert (seen, code) == (await ended(http, job_id), 1000)


async def test_the_websockets_library_follows_many_jobs_and_the_feed(phaseline: Installation, http: Api):
    jobs = [await http.submit("countdown", {"steps": 3, "step_s": 0.01}) for _ in range(5)]
    of: dict[str, list[int]] = {job_id: [] for job_id in jobs}
    fed: dict[str, list[int]] = {job_id: [] for job_id in jobs}
    open_jobs = set(jobs)
    url = f"{phaseline.url.replace('http', 'ws', 1)}/api/v1/stream"
    async with asyncio.timeout(WAIT_S), websockets.connect(url, proxy=None) as socket:
        await socket.send(json.dumps({"op": "subscribe", "feed": True}))
        for job_id in jobs:
            await socket.send(json.dumps({"op": "subscribe", "job_id": job_id}))
        while open_jobs or any(len(fed[job_id]) < len(of[job_id]) for job_id in jobs):
            frame: dict[str, Any] = json.loads(await socket.recv())
            for event in frame.get("events", ()):
                fed.get(event["job_id"], []).append(event["seq"])
            if "attempt" in frame:
                of[frame["job_id"]].append(frame["seq"])
            if frame["type"] == "end":
                open_jobs.discard(frame["job_id"])
    assert of == fed == {job_id: await ended(http, job_id) for job_id in jobs}


async def test_websocat_prints_a_stream_and_ends_with_it(phaseline: Installation, http: Api):
    job_id = await http.submit("countdown", {"steps": 3, "step_s": 0.01})
    websocat = str(Path(sys.executable).parent / "websocat")
    url = f"{phaseline.url.replace('http', 'ws', 1)}/api/v1/jobs/{job_id}/stream"
    lines = await (await Printed.by(websocat, "--no-close", "-U", url)).rest()
    frames = [json.loads(line) for line in lines]
    assert [frame["seq"] for frame in frames if "attempt" in frame] == await ended(http, job_id)
    assert frames[0]["type"] == "hello"


async def test_curl_reads_server_sent_events_and_ndjson(phaseline: Installation, http: Api):
    job_id = await http.submit("countdown", {"steps": 3, "step_s": 0.05})
    url = f"{phaseline.url}/api/v1/jobs/{job_id}/events"
    curl = shutil.which("curl") or "curl"
    lines = await (await Printed.by(curl, "-sSN", "-H", "Accept: text/event-stream", url)).rest()
    frames = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    seqs = await ended(http, job_id)
    assert [frame["seq"] for frame in frames if "attempt" in frame] == seqs
    assert frames[-1]["type"] == "end"
    lines = await (await Printed.by(curl, "-sS", "-H", "Accept: application/x-ndjson", url)).rest()
    assert [json.loads(line)["seq"] for line in lines] == seqs
    feed = await (
        await Printed.by(curl, "-sS", "-H", "Accept: application/x-ndjson", f"{phaseline.url}/api/v1/events")
    ).rest()
    assert [event["seq"] for event in map(json.loads, feed) if event["job_id"] == job_id] == seqs


async def test_the_description_of_the_streams_is_asyncapi_3(phaseline: Installation):
    (line,) = await (await Printed.by("node", "asyncapi.js", f"{phaseline.url}/asyncapi.json")).rest()
    assert json.loads(line) == {"version": "3.0.0", "errors": []}
