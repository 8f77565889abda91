"""A whole Phaseline as its users run it: real processes, real servers, one of the two shapes.

`embedded` is `phaseline up` on SQLite; `servers` is `phaseline gateway` and `phaseline worker` on PostgreSQL and
RabbitMQ. Both are driven through HTTP and signals only.

Further processes are named after the command they run, `worker.2`; each may have settings of its own, such as the URL
of a proxy in place of a server's.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.forked import Forked
from tests.ports import free_port

BOUND_S = 60.0
STILL_IMPORTED = "urn:phaseline:problem:check_timeout"
FINAL = {1000, 4000, 4004}  # close codes after which a client does not come back


class Installation:
    """One data directory or database, and the processes on it. `url` stays the same across restarts."""

    def __init__(self, environment: Mapping[str, str], *, embedded: bool) -> None:
        self.embedded = embedded
        self.forked = False  # True starts processes faster, and not by the command a person types
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PHASELINE_")},
            "PHASELINE_PORT": str(self.port),
            **environment,
        }
        self.processes: dict[str, asyncio.subprocess.Process | Forked] = {}
        self.logs: Path | None = None  # a folder for what each process says on stderr; None: `output`
        self._own: dict[str, dict[str, str]] = {}
        self._frozen: dict[str, list[psutil.Process]] = {}
        # What the processes log, all in one file; `running` shows it when the block failed.
        self.output = Path(tempfile.mkstemp(prefix="phaseline-output-")[1])

    @property
    def commands(self) -> tuple[str, ...]:
        """The processes it consists of."""
        return ("up",) if self.embedded else ("gateway", "worker")

    def configure(self, name: str, **settings: str) -> None:
        """Settings for one process only, each time it is started."""
        self._own[name] = settings

    def setting(self, name: str, variable: str) -> str:
        """What a process finds in its environment."""
        return (self.environment | self._own.get(name, {}))[variable]

    async def start(self, *names: str) -> None:
        """Starts processes (all by default) and waits until the gateway answers."""
        for name in names or self.commands:
            self.processes[name] = await self._started(name)
        await self._answers()

    async def _started(self, name: str) -> asyncio.subprocess.Process | Forked:
        command, environment = name.partition(".")[0], self.environment | self._own.get(name, {})
        said = self.logs / f"{name}.log" if self.logs else self.output
        if self.forked:
            return Forked([command], environment, said)
        with said.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "phaseline", command),
                env=environment,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=output,
            )

    async def kill(self, *names: str) -> None:
        """Sends SIGKILL and waits until they are gone; their children follow by themselves."""
        await self._end(signal.SIGKILL, names or tuple(self.processes))

    async def stop(self, *names: str) -> list[int]:
        """SIGTERM; returns the exit codes."""
        return await self._end(signal.SIGTERM, names or tuple(self.processes))

    def terminate(self, name: str) -> None:
        """SIGTERM, without waiting for what it does."""
        self.processes[name].send_signal(signal.SIGTERM)

    def freeze(self, name: str, *, children: bool = False) -> None:
        """SIGSTOP, for the process alone or with everything below it."""
        self._frozen[name] = [psutil.Process(self.pid(name)), *(self.children(name) if children else ())]
        for process in self._frozen[name]:
            process.suspend()

    def thaw(self, name: str) -> None:
        """Lets what `freeze` stopped go on."""
        for process in self._frozen.pop(name, ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def pid(self, name: str) -> int:
        """Of the process itself."""
        return self.processes[name].pid

    def children(self, name: str) -> list[psutil.Process]:
        """The engine processes of a worker and what they started."""
        return psutil.Process(self.pid(name)).children(recursive=True)

    def logged(self, words: str) -> list[str]:
        """The lines of all processes' logs that hold these words."""
        return [line for line in self.output.read_text(errors="replace").splitlines() if words in line]

    async def _end(self, number: signal.Signals, names: tuple[str, ...]) -> list[int]:
        ending = {name: self.processes[name] for name in names if name in self.processes}
        for name, process in ending.items():
            if process.returncode is None:
                process.send_signal(number)
            self.thaw(name)  # what is stopped hears no SIGTERM
        async with asyncio.timeout(BOUND_S):
            codes = list(await asyncio.gather(*(process.wait() for process in ending.values())))
        for name in ending:
            del self.processes[name]  # not before: whoever cleans up must still find one that will not end
        return codes

    async def _answers(self) -> None:
        if not {"up", "gateway"} & set(self.processes):
            return
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
async def running(installation: Installation, *names: str) -> AsyncIterator[Installation]:
    """Starts an installation, or the named processes of it, for the block and ends whatever of it still runs."""
    try:
        await installation.start(*names)
        yield installation
    finally:
        await installation.kill()
        sys.stderr.write(installation.output.read_text(errors="replace"))  # pytest shows it when the test failed
        installation.output.unlink()


def embedded(folder: Path, **settings: str) -> Installation:
    """`phaseline up` on SQLite in `folder`."""
    return Installation({"PHASELINE_DATA_DIR": str(folder), **settings}, embedded=True)


def on_servers(database_url: str, rabbitmq_url: str, **settings: str) -> Installation:
    """Gateway and worker on PostgreSQL and RabbitMQ."""
    urls = {"PHASELINE_DATABASE_URL": database_url, "PHASELINE_RABBITMQ_URL": rabbitmq_url}
    return Installation({**urls, **settings}, embedded=False)


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
        """Makes a job. The first check of an engine imports it, and is answered 503 where that takes over 5 s: tried again."""
        body = {"engine": engine, "params": params, **fields}
        async with asyncio.timeout(BOUND_S):
            while True:
                async with self.session.post(f"{self.url}/api/v1/jobs", json=body) as answer:
                    said = await answer.json()
                if said.get("type") != STILL_IMPORTED:
                    break
                await asyncio.sleep(0.1)  # another process's import; the bound is above
        assert answer.status == 202, said
        job_id: str = said["id"]
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
    """Follows one stream over the full WebSocket and keeps every frame; `recording` is what `phaseline verify` reads."""

    def __init__(self, url: str, job_id: str, *, bound_s: float = BOUND_S) -> None:
        self.job_id = job_id
        self._bound_s = bound_s
        self.address = f"{url.replace('http', 'ws', 1)}/api/v1/jobs/{job_id}/stream"
        self.frames: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.recording: list[str] = []
        self.close_code: int | None = None

    async def follow(self, *, until: int | None = None, query: str = "") -> "Viewer":
        """Connects after the last event seen and reads until the stream ends, or `until` events are held; then the
        connection is dropped without a word."""
        after = self.events[-1]["seq"] if self.events else 0
        address = f"{self.address}?after={after}{query}"
        async with (
            asyncio.timeout(self._bound_s),
            aiohttp.ClientSession() as session,
            session.ws_connect(address, max_msg_size=0) as socket_,
        ):
            self._mark(type="connected", job_id=self.job_id, after=after)
            async for frame in socket_:
                self.recording.append(frame.data)
                self._take(frame.json())
                if until is not None and len(self.events) >= until:
                    return self
            self.close_code = socket_.close_code
            self._mark(type="closed", code=self.close_code)
        return self

    async def follow_to_the_end(self) -> "Viewer":
        """Reconnects after the last event until the stream is over, as a client library does."""
        async with asyncio.timeout(self._bound_s):
            while True:
                try:
                    await self.follow()
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.1)  # the gateway is away; the bound is above
                    continue
                if self.close_code in FINAL:
                    return self

    async def follow_restlessly(self, dice: random.Random, events_max: int = 10) -> "Viewer":
        """Drops the connection after a random number of events, again and again, until the stream is over."""
        async with asyncio.timeout(self._bound_s):
            while self.close_code not in FINAL:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await self.follow(until=len(self.events) + dice.randint(1, events_max))
                await asyncio.sleep(dice.uniform(0, 0.05))
        return self

    def _mark(self, **marker: Any) -> None:
        self.recording.append(json.dumps(marker))

    def _take(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        for event in frame.get("events", [frame]):
            if "seq" in event and "attempt" in event and "actor" in event:
                self.events.append(event)

    @property
    def seqs(self) -> list[int]:
        """Sequences in the order they arrived."""
        return [event["seq"] for event in self.events]
