"""A whole Phaseline as its users run it: real processes, real servers, one of the two shapes.

`embedded` is `phaseline up` on SQLite; `servers` is `phaseline gateway` and `phaseline worker` on PostgreSQL and
RabbitMQ. Both are driven through HTTP and signals only.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

BOUND_S = 60.0


class Installation:
    """One data directory or database, and the processes on it. `url` stays the same across restarts."""

    def __init__(self, environment: Mapping[str, str], *, embedded: bool) -> None:
        self.embedded = embedded
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PHASELINE_")},
            "PHASELINE_PORT": str(self.port),
            **environment,
        }
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def commands(self) -> tuple[str, ...]:
        """The processes it consists of."""
        return ("up",) if self.embedded else ("gateway", "worker")

    async def start(self, *names: str) -> None:
        """Starts processes (all by default) and waits until the gateway answers."""
        for name in names or self.commands:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "phaseline", name, env=self.environment, stdout=asyncio.subprocess.DEVNULL
            )
        await self._answers()

    async def kill(self, *names: str) -> None:
        """Sends SIGKILL and waits until they are gone."""
        await self._end(signal.SIGKILL, names or self.commands)

    async def stop(self, *names: str) -> list[int]:
        """SIGTERM; returns the exit codes."""
        return await self._end(signal.SIGTERM, names or self.commands)

    async def _end(self, number: signal.Signals, names: tuple[str, ...]) -> list[int]:
        ending = {name: self.processes[name] for name in names if name in self.processes}
        for process in ending.values():
            if process.returncode is None:
                process.send_signal(number)
        async with asyncio.timeout(BOUND_S):
            codes = list(await asyncio.gather(*(process.wait() for process in ending.values())))
        for name in ending:
            del self.processes[name]  # not before: whoever cleans up must still find one that will not end
        return codes

    async def _answers(self) -> None:
        async with asyncio.timeout(BOUND_S), aiohttp.ClientSession() as session:
            while True:
                for name, process in self.processes.items():
                    if process.returncode is not None:
                        raise RuntimeError(f"`phaseline {name}` ended with {process.returncode}")
                try:
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.05)  # polling another process's readiness; the bound is above


@asynccontextmanager
async def running(installation: Installation) -> AsyncIterator[Installation]:
    """Starts an installation for the block and ends whatever of it still runs."""
    try:
        await installation.start()
        yield installation
    finally:
        await installation.kill()


def embedded(folder: Path, **settings: str) -> Installation:
    """`phaseline up` on SQLite in `folder`."""
    return Installation({"PHASELINE_DATA_DIR": str(folder), **settings}, embedded=True)


def on_servers(database_url: str, rabbitmq_url: str, **settings: str) -> Installation:
    """Gateway and worker on PostgreSQL and RabbitMQ."""
    urls = {"PHASELINE_DATABASE_URL": database_url, "PHASELINE_RABBITMQ_URL": rabbitmq_url}
    return Installation({**urls, **settings}, embedded=False)


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Api:
    """The HTTP interface as a stranger would call it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def post(self, path: str, body: Any = None, status: int | None = None, **headers: str) -> Any:
        async with self.session.post(f"{self.url}{path}", json=body, headers=headers) as answer:
            said = await answer.json()
            assert status is None or answer.status == status, said
            return said

    async def get(self, path: str, status: int = 200) -> Any:
        async with self.session.get(f"{self.url}{path}") as answer:
            said = await answer.json()
            assert answer.status == status, said
            return said

    async def submit(self, engine: str, params: Any, **fields: Any) -> str:
        job = await self.post("/api/v1/jobs", {"engine": engine, "params": params, **fields}, 202)
        job_id: str = job["id"]
        return job_id

    async def events(self, job_id: str) -> list[dict[str, Any]]:
        """The whole stream, page by page over JSON."""
        events: list[dict[str, Any]] = []
        while True:
            page = await self.get(f"/api/v1/jobs/{job_id}/events?after={len(events)}")
            if not page["events"]:
                return events
            events += page["events"]


@asynccontextmanager
async def api(url: str) -> AsyncIterator[Api]:
    """An HTTP client for the block."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=BOUND_S)) as session:
        yield Api(session, url)


class Viewer:
    """Follows one stream over the full WebSocket and keeps every frame."""

    def __init__(self, url: str, job_id: str) -> None:
        self.address = f"{url.replace('http', 'ws', 1)}/api/v1/jobs/{job_id}/stream"
        self.frames: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.close_code: int | None = None

    async def follow(self, *, until: int | None = None, query: str = "") -> "Viewer":
        """Connects after the last event seen and reads until the stream ends, or `until` events are held; then the
        connection is dropped without a word."""
        after = self.events[-1]["seq"] if self.events else 0
        address = f"{self.address}?after={after}{query}"
        async with (
            asyncio.timeout(BOUND_S),
            aiohttp.ClientSession() as session,
            session.ws_connect(address, max_msg_size=0) as socket_,
        ):
            async for frame in socket_:
                self._take(frame.json())
                if until is not None and len(self.events) >= until:
                    return self
            self.close_code = socket_.close_code
        return self

    async def follow_to_the_end(self) -> "Viewer":
        """Reconnects after the last event until the stream is over, as a client library does."""
        async with asyncio.timeout(BOUND_S):
            while True:
                try:
                    await self.follow()
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.1)  # the gateway is away; the bound is above
                    continue
                if self.close_code in {1000, 4000, 4004}:
                    return self

    def _take(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        for event in frame.get("events", [frame]):
            if "seq" in event and "attempt" in event and "actor" in event:
                self.events.append(event)

    @property
    def seqs(self) -> list[int]:
        """Sequences in the order they arrived."""
        return [event["seq"] for event in self.events]
