"""Gateways, workers and servers of a soak, each with a line of its own to each server, and every fault they can have."""

import asyncio
import contextlib
import signal
import time
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import asyncpg
import psutil

from tests.forked import Forked
from tests.ports import free_port
from tests.proxy import Proxy, proxy_to
from tests.servers import PostgresServer, RabbitServer
from tests.soak.plan import Fault

GATEWAYS, WORKERS = 2, 3
ENVIRONMENT = {
    "PHASELINE_ENGINE_MODULES": "tests.engines",
    "PHASELINE_SLOTS": "2",
    "PHASELINE_LEASE_S": "2",
    "PHASELINE_BEAT_S": "0.5",
    "PHASELINE_SWEEP_S": "0.3",
    "PHASELINE_LEADER_S": "1",
    "PHASELINE_POLL_S": "2",
    "PHASELINE_DRAIN_S": "2",
    "PHASELINE_OUTAGE_GRACE_S": "12",
    "PHASELINE_LOG_LEVEL": "INFO",
}
END_S = 40.0  # a gateway sends its viewers away over 10 s and waits for their sockets; freezes come on top
READY_S = 60.0
BOOT_S = 20.0  # until then a process may not have heard of signals; nothing is lost with it
SAMPLE_S = 0.5
MIB = 1024 * 1024

_T = TypeVar("_T")


@dataclass(eq=False)
class Program:
    """One of our processes: started, ended by a fault, started again under the same name and port."""

    name: str
    environment: Mapping[str, str]
    output: Path
    lines: dict[str, Proxy]
    url: str = ""  # of a gateway, through the viewers' line
    port: int = 0
    process: Forked | None = None
    started_at: float = 0.0
    busy: bool = False  # a fault has it now
    deaths: int = 0

    @property
    def kind(self) -> str:
        return self.name.partition(" ")[0]

    def start(self) -> None:
        """Starts it; its database may be away for longer."""
        self.process = Forked([self.kind], self.environment, self.output)
        self.started_at = time.monotonic()

    async def ended(self, number: signal.Signals) -> int:
        """Signals it and waits for its end; returns the exit code."""
        assert self.process is not None
        self.process.signal(number)
        return await self.process.ended(END_S)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.running

    @property
    def said(self) -> str:
        """The end of what it printed."""
        return self.process.said[-3000:] if self.process else ""

    def family(self) -> list[psutil.Process]:
        """The process and its children, as they are now."""
        if not self.alive:
            return []
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def engine_children(self) -> list[psutil.Process]:
        return self.family()[1:] if self.kind == "worker" else []


@dataclass
class Fleet:
    """Everything that can break. `faults` counts what happened, `intervals` says from when to when and what."""

    postgres: PostgresServer
    rabbit: RabbitServer
    database_url: str
    rabbit_url: str
    programs: list[Program] = field(default_factory=list)
    lines: list[Proxy] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    intervals: list[tuple[float, float, str]] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)  # kind of process -> largest resident set, bytes
    surprises: list[str] = field(default_factory=list)  # what no fault of ours explains
    orphans: list[psutil.Process] = field(default_factory=list)  # engine children of killed workers
    _server_busy: dict[str, bool] = field(default_factory=lambda: {"PostgreSQL": False, "RabbitMQ": False})

    @property
    def gateways(self) -> list[Program]:
        return [program for program in self.programs if program.kind == "gateway"]

    @property
    def workers(self) -> list[Program]:
        return [program for program in self.programs if program.kind == "worker"]

    # -- the plan

    async def suffer(self, plan: Sequence[Fault]) -> None:
        """Lets every fault of the plan happen at its time; returns when the last is over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(began + fault.at_s - time.monotonic())
                group.create_task(self._one(fault))

    async def _one(self, fault: Fault) -> None:
        at = time.monotonic()
        if await self._happened(fault):
            self.faults[fault.kind] += 1
            self.intervals.append((at, time.monotonic(), fault.kind))

    async def _happened(self, fault: Fault) -> bool:
        """False when nobody was there for it to happen to."""
        match fault.kind.partition(" ")[0], fault.kind:
            case (("kill" | "freeze" | "stop"), kind) if kind.endswith(("worker", "gateway", "in order")):
                return await self._to_program(fault)
            case _, "kill engine child" | "freeze engine child":
                return await self._to_child(fault)
            case _, kind if kind.endswith("line"):
                return await self._to_line(fault)
            case _, kind if "PostgreSQL" in kind:
                return await self._to_server("PostgreSQL", fault)
            case _:
                return await self._to_server("RabbitMQ", fault)

    async def _to_program(self, fault: Fault) -> bool:
        kind = "worker" if "worker" in fault.kind else "gateway"
        there = [program for program in self.programs if program.kind == kind and program.alive and not program.busy]
        program = _picked(there, fault.pick)
        if program is None:
            return False
        program.busy = True
        try:
            if fault.kind.startswith("freeze"):
                # Sometimes with its engines, as a machine that stands still, sometimes alone.
                family = program.family()[: None if fault.for_s % 1 < 0.5 else 1]
                await _frozen(family, fault.for_s)
                return True
            if fault.kind.startswith("kill"):
                self.orphans += program.engine_children()
                await program.ended(signal.SIGKILL)
            else:
                code = await program.ended(signal.SIGTERM)
                booting = code == -signal.SIGTERM and time.monotonic() - program.started_at < BOOT_S
                if code != 0 and not booting:
                    self.surprises.append(f"{program.name} ended with {code} when it was asked to: {program.said}")
            program.deaths += 1
            await asyncio.sleep(fault.for_s)
            program.start()
            if kind == "gateway":
                with contextlib.suppress(TimeoutError):  # its database may be away
                    await _ready(program)
        finally:
            program.busy = False
        return True

    async def _to_child(self, fault: Fault) -> bool:
        child = _picked([child for worker in self.workers for child in worker.engine_children()], fault.pick)
        if child is None:
            return False
        if fault.kind.startswith("freeze"):
            await _frozen([child], fault.for_s)
        else:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        return True

    async def _to_line(self, fault: Fault) -> bool:
        line = _picked(self.lines, fault.pick)
        assert line is not None
        match fault.kind:
            case "slow line":
                line.delay(0.05 + fault.pick % 0.4)
            case "narrow line":
                line.limit(30_000)
            case "cut line":
                line.cut()
            case "reset line":
                line.reset()
            case "half-open line":
                line.stall()
            case _:
                line.drop()
        await asyncio.sleep(fault.for_s)
        line.heal()
        return True

    async def _to_server(self, name: str, fault: Fault) -> bool:
        if self._server_busy[name]:
            return False
        self._server_busy[name] = True
        try:
            if name == "PostgreSQL":
                await self._to_postgres(fault)
            else:
                await self._to_rabbit(fault)
        finally:
            self._server_busy[name] = False
        return True

    async def _to_postgres(self, fault: Fault) -> None:
        server = self.postgres
        match fault.kind:
            case "kill PostgreSQL":
                await _away(server.kill, fault.for_s, server.start)
            case "restart PostgreSQL":
                await _away(server.stop, fault.for_s, server.start)
            case "freeze PostgreSQL":
                await _away(server.pause, fault.for_s, server.resume)
            case _:
                connection = await asyncpg.connect(self.database_url, timeout=10)
                try:
                    await connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                finally:
                    await connection.close()

    async def _to_rabbit(self, fault: Fault) -> None:
        server = self.rabbit
        vhost = urllib.parse.unquote(urllib.parse.urlsplit(self.rabbit_url).path[1:])
        queues = f'[Q || Q <- rabbit_amqqueue:list(<<"{vhost}">>)]'
        match fault.kind:
            case "stop RabbitMQ":
                await _away(server.stop_app, fault.for_s, server.start_app)
            case "kill RabbitMQ":
                await _away(server.kill, fault.for_s, server.start)
            case "freeze RabbitMQ":
                await _away(server.pause, fault.for_s, server.resume)
            case "memory alarm of RabbitMQ":
                alarm = "{resource_limit, memory, node()}"
                await _away(
                    lambda: server.evaluate(f"rabbit_alarm:set_alarm({{{alarm}, []}})."),
                    fault.for_s,
                    lambda: server.evaluate(f"rabbit_alarm:clear_alarm({alarm})."),
                )
            case "delete a queue":
                nth = f"lists:nth(1 + trunc({fault.pick} * length(Queues)), Queues)"
                expression = (
                    f"Queues = {queues}, case Queues of [] -> none; "
                    f'_ -> element(1, rabbit_amqqueue:delete({nth}, false, false, <<"soak">>)) end.'
                )
                await asyncio.to_thread(server.evaluate, expression)
            case _:
                tickets = f"[Q || Q <- {queues}, rabbit_amqqueue:is_replicated(Q)]"
                await asyncio.to_thread(server.evaluate, f"[catch rabbit_amqqueue:purge(Q) || Q <- {tickets}].")

    # -- around it

    async def watch(self) -> None:
        """Samples the resident sets until cancelled, and finds out who died of itself."""
        while True:
            for program in self.programs:
                if not program.alive and not program.busy:
                    self.surprises.append(f"{program.name} ended by itself: {program.said}")
                    program.start()
                for number, process in enumerate(program.family()):
                    kind = program.kind if number == 0 else "engine child" if program.kind == "worker" else "child"
                    with contextlib.suppress(psutil.NoSuchProcess):
                        self.memory[kind] = max(self.memory.get(kind, 0), process.memory_info().rss)
            await asyncio.sleep(SAMPLE_S)

    async def healed(self) -> None:
        """Everything runs again, and every gateway answers."""
        for line in self.lines:
            line.heal()
        for program in self.programs:
            if not program.alive:
                program.start()
        for gateway in self.gateways:
            await _ready(gateway)

    async def stopped(self) -> None:
        """SIGTERM for all; every exit code is 0 and no engine is left behind."""
        families = [child for program in self.programs for child in program.family()[1:]]
        codes = await asyncio.gather(*(program.ended(signal.SIGTERM) for program in self.programs))
        assert set(codes) == {0}, dict(zip((program.name for program in self.programs), codes, strict=True))
        _, left = await asyncio.to_thread(psutil.wait_procs, [*families, *self.orphans], END_S)
        left = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        assert left == [], f"engines were left behind: {left}"


@asynccontextmanager
async def fleet_on(
    postgres: PostgresServer,
    rabbit: RabbitServer,
    database_url: str,
    rabbit_url: str,
    base: Mapping[str, str],
    folder: Path,
) -> AsyncIterator[Fleet]:
    """A running fleet; whatever of it still runs is killed after the block."""
    fleet = Fleet(postgres, rabbit, database_url, rabbit_url)
    async with contextlib.AsyncExitStack() as lines:

        async def line(url: str) -> Proxy:
            made = await lines.enter_async_context(proxy_to(url))
            fleet.lines.append(made)
            return made

        for kind, count in (("gateway", GATEWAYS), ("worker", WORKERS)):
            for number in range(1, count + 1):
                own = {"database": await line(database_url), "rabbitmq": await line(rabbit_url)}
                urls = {f"PHASELINE_{server.upper()}_URL": proxy.url for server, proxy in own.items()}
                program = Program(f"{kind} {number}", {}, folder / f"{kind}{number}.log", own)
                if kind == "gateway":
                    program.port = free_port()
                    own["viewers"] = await line(f"http://127.0.0.1:{program.port}")
                    program.url = own["viewers"].url.rstrip("/")
                program.environment = {**base, **ENVIRONMENT, **urls, "PHASELINE_PORT": str(program.port)}
                fleet.programs.append(program)
        try:
            for program in fleet.programs:
                program.start()
            await asyncio.gather(*(_ready(gateway) for gateway in fleet.gateways))
            yield fleet
        finally:
            for program in fleet.programs:
                for process in program.family():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                if program.process is not None:
                    await program.process.kill()


async def _ready(gateway: Program) -> None:
    async with asyncio.timeout(READY_S), aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:
        while True:
            if not gateway.alive:
                return  # whoever watches says so
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with session.get(f"http://127.0.0.1:{gateway.port}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)  # polling another process's readiness; the bound is above


async def _away(begin: Callable[[], Any], for_s: float, end: Callable[[], Any]) -> None:
    """A fault of a server; it ends even when the run is given up meanwhile."""
    await asyncio.to_thread(begin)
    try:
        await asyncio.sleep(for_s)
    finally:
        await asyncio.to_thread(end)


async def _frozen(family: Sequence[psutil.Process], for_s: float) -> None:
    try:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        await asyncio.sleep(for_s)
    finally:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def _picked(choices: Sequence[_T], pick: float) -> _T | None:
    return choices[int(pick * len(choices))] if choices else None
