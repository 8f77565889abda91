"""What every row of the benchmark stands on: servers, an installation with a writer of our own, a crowd of viewers."""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.asked import Asked, asked
from benchmarks.measure import Results
from events.announce import Announcer
from events.batch import Claimed, Committed
from events.catalog import Partial, Said
from events.committer import Committer
from events.log import Log
from phaseline import database
from phaseline.settings import Settings
from phaseline.signals import settle
from tests.builders import a_report, a_submit, a_worker
from tests.installation import Api, Installation, api, embedded, on_servers, running
from tests.servers import Servers
from tests.stores import open_bus, open_log

OURS_ONLY = "written_by_the_bench"  # an engine no worker runs: these jobs are ours
DAY_S = 86_400.0
SLOTS = "16"  # each is a process; peers run ten jobs or more at a time
ENVIRONMENT = {
    "PHASELINE_ENGINE_MODULES": "benchmarks.engines",
    "PHASELINE_LOG_LEVEL": "ERROR",
    "PHASELINE_CONNECTIONS_MAX": "12000",
}


@dataclass
class Bench:
    """One run: where it measures, and how thoroughly."""

    servers: Servers
    folder: Path  # for what goes away with the run
    quick: bool
    plots: dict[str, str] = field(default_factory=dict)  # file name -> SVG
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _shared: "System | None" = None

    @property
    def repeats(self) -> int:
        """Of everything that is measured in turns."""
        return 2 if self.quick else 5

    def size(self, full: int, quick: int) -> int:
        """How much of something."""
        return quick if self.quick else full

    def new_database(self) -> str:
        """The URL of an empty database."""
        return self.servers.postgres().create_database()

    def new_vhost(self) -> str:
        """The URL of an empty RabbitMQ vhost."""
        return self.servers.rabbit().create_vhost()

    async def shared(self) -> "System":
        """An installation that rows use one after another: it has enough slots for the rates of jobs."""
        if self._shared is None:
            self._shared = await self._stack.enter_async_context(self.system(PHASELINE_SLOTS=SLOTS))
        return self._shared

    async def alone(self) -> None:
        """Ends the shared installation: what follows has the machine for itself."""
        self._shared = None
        await self._stack.aclose()

    @asynccontextmanager
    async def system(self, **settings: str) -> AsyncIterator["System"]:
        """A gateway and a worker on a fresh database and vhost, warm, with a writer in this process beside them."""
        url, rabbit_url = await asyncio.to_thread(self.new_database), await asyncio.to_thread(self.new_vhost)
        own = Settings(database_url=url, rabbitmq_url=rabbit_url, data_dir=self.folder)
        await database.migrate(own)
        installation = on_servers(url, rabbit_url, **ENVIRONMENT, **settings)
        async with running(installation), api(installation.url) as http, writer(own) as writing:
            await warmed(http)
            yield System(installation, http, writing, own)
            await installation.stop()

    @asynccontextmanager
    async def embedded(self) -> AsyncIterator[tuple[Installation, Api]]:
        """`phaseline up` on SQLite, warm."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            installation = embedded(Path(folder), **ENVIRONMENT, PHASELINE_SLOTS=SLOTS)
            async with running(installation), api(installation.url) as http:
                await warmed(http)
                yield installation, http
                await installation.stop()

    @asynccontextmanager
    async def crowd(self) -> AsyncIterator[Asked]:
        """A process of viewers."""
        async with asked([sys.executable, "-m", "benchmarks.crowd"], self.folder / "crowd.log") as crowd:
            yield crowd


class Row:
    """A row of the table: its name on the command line, its title, and what measures it."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title

    async def measure(self, bench: Bench, results: Results) -> None:
        """Adds this row's figures."""
        raise NotImplementedError


class Writer:
    """Appends to the log from this process as a worker does, hints included, and knows when each event was committed."""

    def __init__(self, log: Log, announcer: Announcer) -> None:
        self.log = log
        self.committer = Committer(log, self._committed)
        self.committed_ns: dict[tuple[str, int], int] = {}  # by job and sequence, on the system's monotonic clock
        self.noting = False
        self._announcer = announcer

    def _committed(self, done: Committed) -> None:
        if self.noting:
            now = time.perf_counter_ns()
            self.committed_ns.update(((row.job_id, row.seq), now) for row in done.events)
        self._announcer(done)

    async def started(self, count: int) -> list[Claimed]:
        """So many running jobs that are ours for a day."""
        worker = replace(a_worker("bench", OURS_ONLY), slots=count)
        await self.log.beat(worker, DAY_S)
        submits = (self.committer.submit(a_submit(OURS_ONLY), tenant="default") for _ in range(count))
        await asyncio.gather(*submits)
        claimed: list[Claimed] = []
        async with asyncio.timeout(30):
            while len(claimed) < count:
                claimed += await self.committer.claim("bench", worker.engines, count - len(claimed), idle=True)
        return claimed

    async def say(self, claimed: Claimed, *said: Said) -> None:
        """Appends what an engine would have said."""
        await self.committer.execute(claimed.job.id, a_report(claimed, *said))

    async def say_many(self, claimed: Claimed, events: int, *, at_once: int = 50) -> None:
        """So many events, in reports of a few."""
        for start in range(0, events, at_once):
            await self.say(claimed, *(an_event(start + n) for n in range(min(at_once, events - start))))


@dataclass(frozen=True, slots=True)
class System:
    """A running installation on servers."""

    installation: Installation
    http: Api
    writer: Writer
    settings: Settings

    @property
    def gateway(self) -> psutil.Process:
        """The gateway's process."""
        return psutil.Process(self.installation.pid("gateway"))

    def path(self, job_id: str, query: str) -> str:
        """Of a job's stream."""
        return f"/api/v1/jobs/{job_id}/stream?{query}"

    async def metric(self, name: str) -> float:
        """A sum over a metric of the gateway."""
        async with self.http.session.get(f"{self.installation.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@asynccontextmanager
async def writer(settings: Settings) -> AsyncIterator[Writer]:
    """A running writer on the log and the bus of these settings."""
    async with open_log(settings) as log, open_bus(str(settings.rabbitmq_url), "bench") as bus:
        writing = Writer(log, Announcer(bus))
        settle()  # as a process that writes does
        async with asyncio.TaskGroup() as group:
            task = group.create_task(writing.committer.run())
            try:
                yield writing
            finally:
                task.cancel()


def an_event(number: int) -> Partial:
    """A small event of an engine; on the wire it is about 230 bytes."""
    return Partial(phase="working", name="said", value={"number": number, "text": "as engines say"})


async def warmed(http: Api) -> None:
    """Children, caches and connections are warm; over before anything is measured."""
    for engine in ("noop", "fivephase"):
        await asyncio.gather(*(http.submit(engine, {}) for _ in range(20)))
        await finished(http, engine)


async def finished(http: Api, engine: str) -> None:
    """Returns when no job of this engine is left to do: the newest that waits is followed to its end, then asked again."""
    async with asyncio.timeout(180):
        for status in ("queued", "running"):
            while jobs := (await http.get(f"/api/v1/jobs?status={status}&engine={engine}&limit=1"))["jobs"]:
                await followed(http, jobs[0]["id"])


async def followed(http: Api, job_id: str) -> Any:
    """The results of a job, once its stream ended."""
    address = f"{http.url.replace('http', 'ws', 1)}/api/v1/jobs/{job_id}/stream"
    async with http.session.ws_connect(address) as socket:
        return (await frame_of(socket, "complete"))["results"]


async def frame_of(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next frame of this type."""
    async with asyncio.timeout(60):
        while True:
            frame: dict[str, Any] = await socket.receive_json()
            if frame["type"] == kind:
                return frame
