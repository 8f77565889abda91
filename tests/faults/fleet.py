"""A gateway and two workers to break: each worker has a line of its own to PostgreSQL and to RabbitMQ."""

import asyncio
import contextlib
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from phaseline.settings import Settings
from tests.installation import Api, Installation, Viewer, api, on_servers, running
from tests.ports import free_port
from tests.proxy import Proxy, proxy_to
from tests.scrape import scraped
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings
from tests.verified import verified

BOUND_S = 60.0
SETTINGS = {
    "PHASELINE_ENGINE_MODULES": "tests.engines",
    "PHASELINE_SLOTS": "2",
    "PHASELINE_LOG_LEVEL": "INFO",
    "PHASELINE_CHILD_MEMORY_BYTES_MAX": str(512 * 1024 * 1024),
}
# Half of the default lease. A takeover with the defaults, as in `test_takeover.py`, takes minutes to show often.
SHORT = {
    "PHASELINE_LEASE_S": "4",  # more than two tries of a beat: those do not scale
    "PHASELINE_BEAT_S": "0.5",
    "PHASELINE_SWEEP_S": "0.3",
    "PHASELINE_LEADER_S": "1",
    "PHASELINE_POLL_S": "1",
}
WORKERS = ("worker", "worker.2")


@dataclasses.dataclass(frozen=True)
class Lines:
    """A worker's connections, and where it says how it is."""

    postgres: Proxy
    rabbit: Proxy
    metrics_port: int

    def heal(self) -> None:
        self.postgres.heal()
        self.rabbit.heal()


class Job:
    """A job of the engine `held`, watched from its start, that runs until told to end."""

    def __init__(self, fleet: "Fleet", job_id: str, gate: Path, viewer: Viewer) -> None:
        self.id = job_id
        self.viewer = viewer
        self._fleet = fleet
        self._gate = gate

    def let_go(self) -> None:
        """The engine ends, in whichever attempt it is."""
        self._gate.touch()

    async def event(self, kind: str, attempt: int = 1) -> dict[str, Any]:
        """Waits until the viewer has seen an event of this type in this attempt."""
        return await until(lambda: self._seen(kind, attempt), f"{kind} in attempt {attempt}", self._stream)

    async def runner(self, attempt: int = 1) -> str:
        """The name of the process that runs this attempt."""
        started = await self.event("started", attempt)
        return await self._fleet.name_of(started["actor"].removeprefix("worker:"))

    async def ended(self) -> list[dict[str, Any]]:
        """Waits for the end of the stream; everything the viewer saw, without a hole and without a repeat."""
        await until(lambda: self.viewer.close_code in {1000, 4000, 4004}, "the end", self._stream)
        assert self.viewer.seqs == list(range(1, len(self.viewer.events) + 1))
        assert self.viewer.events == await self._fleet.http.events(self.id)
        return self.viewer.events

    def attempts_of(self, kind: str) -> list[int]:
        """The attempts in which an event of this type was seen."""
        return [event["attempt"] for event in self.viewer.events if event["type"] == kind]

    def _seen(self, kind: str, attempt: int) -> dict[str, Any] | None:
        wanted = (kind, attempt)
        return next((e for e in self.viewer.events if (e["type"], e["attempt"]) == wanted), None)

    def _stream(self) -> str:
        kinds = itertools.groupby((event["type"], event["attempt"]) for event in self.viewer.events)
        return f"job {self.id}: {[kind for kind, _ in kinds]}"


class Fleet:
    """What a test breaks, and what it looks at."""

    def __init__(
        self, made: Installation, settings: Settings, http: Api, lines: dict[str, Lines], folder: Path
    ) -> None:
        self.installation = made
        self.rabbit_url = made.environment["PHASELINE_RABBITMQ_URL"]
        self.settings = settings
        self.http = http
        self.lines = lines
        self._folder = folder
        self._numbers = itertools.count()
        self.viewers: list[Viewer] = []
        self._watching: set[asyncio.Task[Viewer]] = set()

    async def close(self) -> None:
        """Nobody watches any more, and no engine of a test that failed occupies a slot."""
        for number in range(next(self._numbers)):
            self._gate(number).touch()
        for task in self._watching:
            task.cancel()
        if self._watching:
            await asyncio.wait(self._watching)
        self._watching.clear()

    async def held(self, *, obedient: bool = True, **fields: Any) -> Job:
        """A new job that runs until it is let go, and a viewer who stays with it."""
        gate = self._gate(next(self._numbers))
        job_id = await self.http.submit("held", {"path": str(gate), "obedient": obedient}, **fields)
        return self.watched(job_id, gate)

    def _gate(self, number: int) -> Path:
        return self._folder / f"gate{number}"

    async def held_by(self, name: str, **fields: Any) -> Job:
        """As `held`, by the named worker: what another takes is let go and asked for again."""
        while True:
            job = await self.held(**fields)
            if await job.runner() == name:
                return job
            job.let_go()
            await job.ended()

    @asynccontextmanager
    async def another(self, name: str, **settings: str) -> AsyncIterator[str]:
        """One more worker for the block, with settings of its own; then it is killed."""
        self.installation.configure(name, **settings)
        await self.installation.start(name)
        try:
            pid = self.installation.pid(name)
            await until(lambda: self._live({pid}), f"a beat of {name}")
            yield name
        finally:
            await self.installation.kill(name)  # nothing, when the test has ended it

    def watched(self, job_id: str, gate: Path | None = None) -> Job:
        """A job somebody follows to its end, over any number of connections."""
        viewer = Viewer(self.installation.url, job_id)
        self.viewers.append(viewer)
        # No task group: it would belong to the fixture's task, which does not last as long as the test.
        self._watching.add(asyncio.create_task(viewer.follow_to_the_end()))
        return Job(self, job_id, gate or self._folder / "none", viewer)

    async def status_of(self, job_id: str, status: str) -> bool:
        """Whether the log has the job in this status."""
        job = await self.http.get(f"/api/v1/jobs/{job_id}")
        return bool(job["status"] == status)

    async def drains(self, name: str) -> bool:
        """Whether a worker has said that it drains."""
        rows = (await self.http.get("/api/v1/workers"))["workers"]
        return any(row["draining"] for row in rows if row["pid"] == self.installation.pid(name))

    async def metric(self, name: str, metric: str) -> float:
        """What a worker counts under this name."""
        return (await scraped(f"http://127.0.0.1:{self.lines[name].metrics_port}"))[metric]

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Workers that end are started again while the block lasts, as a supervisor does."""
        async with asyncio.TaskGroup() as group:
            keeping = [group.create_task(self._keep(name)) for name in self.lines]
            yield
            for task in keeping:
                task.cancel()

    async def _keep(self, name: str) -> None:
        while True:
            await until(lambda: self.installation.processes[name].returncode is not None, "an end", bound_s=3600)
            await self.installation.start(name)

    async def name_of(self, worker_id: str) -> str:
        rows = {row["id"]: row["pid"] for row in (await self.http.get("/api/v1/workers"))["workers"]}
        names = {process.pid: name for name, process in self.installation.processes.items()}
        return names[rows[worker_id]]

    async def mend(self) -> None:
        """Every line healed, every process alive and beating."""
        for name, lines in self.lines.items():
            lines.heal()
            self.installation.thaw(name)
        for name in ("gateway", *self.lines):
            process = self.installation.processes.get(name)
            if process is None or process.returncode is not None:
                await self.installation.start(name)
        pids = {self.installation.pid(name) for name in self.lines}
        await until(lambda: self._live(pids), "every worker beating")

    async def _live(self, pids: set[int]) -> bool:
        async with self.http.session.get(f"{self.http.url}/api/v1/workers") as answer:
            return answer.status == 200 and pids <= {row["pid"] for row in (await answer.json())["workers"]}


@asynccontextmanager
async def a_fleet(
    postgres: PostgresServer, rabbit: RabbitServer, folder: Path, **environment: str
) -> AsyncIterator[Fleet]:
    """Afterwards the checker holds the log, the copy and what viewers saw against I1 to I6."""
    settings = await postgres_settings(postgres, folder)
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    assert settings.database_url is not None
    made = on_servers(settings.database_url, rabbit_url, **SETTINGS, **environment)
    made.forked = True
    async with AsyncExitStack() as stack:
        lines = {
            name: Lines(
                await stack.enter_async_context(proxy_to(settings.database_url)),
                await stack.enter_async_context(proxy_to(rabbit_url)),
                free_port(),
            )
            for name in WORKERS
        }
        for name, line in lines.items():
            made.configure(
                name,
                PHASELINE_DATABASE_URL=line.postgres.url,
                PHASELINE_RABBITMQ_URL=line.rabbit.url,
                PHASELINE_METRICS_PORT=str(line.metrics_port),
            )
        await stack.enter_async_context(running(made, "gateway", *WORKERS))
        http = await stack.enter_async_context(api(made.url))
        fleet = Fleet(made, settings, http, lines, folder)
        await fleet.mend()
        yield fleet
        await fleet.mend()
        await verified(settings, rabbit_url, fleet.viewers)


async def until(
    true: Callable[[], Any], what: str, story: Callable[[], str] = lambda: "", bound_s: float = BOUND_S
) -> Any:
    """Waits for something another process does, and returns what `true` gave (it may be async)."""
    deadline = time.monotonic() + bound_s
    while True:
        found = true()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {bound_s:g} s: {what}. {story()}"
        await asyncio.sleep(0.02)


def since(moment: float) -> float:
    """Seconds since a monotonic moment, to print."""
    return round(time.monotonic() - moment, 2)


def moment(event: dict[str, Any]) -> datetime:
    """When an event was recorded."""
    return datetime.fromisoformat(event["timestamp"])


def alive(process: psutil.Process) -> bool:
    """False for a zombie, which nobody may be there to reap."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
