"""The composition root: the one place that names concrete adapters and owns processes' lifetimes and signals.

Each `run_…` is a whole process: it returns the exit code 0, or raises what the command line explains. `serving` is `phaseline up` inside a running loop.
"""

import asyncio
import contextlib
import fcntl
import importlib.metadata
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from engine_worker.supervisor import Supervisor, WorkerOptions
from events.announce import Announcer
from events.bus import Bus
from events.bus_memory import MemoryBus
from events.bus_rabbit import RabbitBus, RabbitSettings
from events.committer import Committer
from events.declaration import Engine, installed_engines
from events.errors import LogUnavailable, PhaselineError
from events.log import Log
from events.sweeper import Sweeper, SweeperOptions
from gateway.app import make_app
from gateway.deps import Deps
from phaseline import database
from phaseline.settings import Settings

BOOT_WAIT_S = 60.0  # how long a process waits for its database at boot before it gives up
RETRY_S = 0.5
SHUTDOWN_S = 16.0  # viewers are sent away within 10 s, their sockets close within 5 more
VERSION = importlib.metadata.version("phaseline")

_log = logging.getLogger(__name__)


class Misconfigured(PhaselineError):
    """The settings do not fit together."""


@dataclass(frozen=True, slots=True)
class Spine:
    """What every process stands on."""

    log: Log
    bus: Bus
    committer: Committer
    engines: Mapping[str, Engine]


# ---- whole processes --------------------------------------------------------------------------------------------


def run_up(settings: Settings, on_ready: Callable[[str], None] = print) -> int:
    """Gateway and worker in one process. `on_ready` gets the URL once it answers."""
    return _run(_up(settings, on_ready), settings)


def run_gateway(settings: Settings, on_ready: Callable[[str], None] = print) -> int:
    """A gateway, for PostgreSQL and RabbitMQ."""
    return _run(_gateway(settings, on_ready), settings)


def run_worker(settings: Settings) -> int:
    """An engine worker, for PostgreSQL and RabbitMQ."""
    return _run(_worker(settings), settings)


def db_migrate(settings: Settings) -> None:
    """Brings the schema up to date; waits for its turn when another process migrates."""
    asyncio.run(_waiting_for_database(lambda: database.migrate(settings)))


def db_check(settings: Settings) -> list[str]:
    """Differences between jobs' rows and their events; none is good."""
    return asyncio.run(database.check(settings))


def db_rebuild(settings: Settings) -> int:
    """Rewrites rows that differ from their events; returns how many."""
    return asyncio.run(database.rebuild(settings))


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[str]:
    """Gateway and worker inside the running loop; yields the URL. Ends with a drain."""
    with _only_one(settings):
        await database.migrate(settings)
        async with spine(settings) as parts:
            worker = make_supervisor(settings, parts)
            async with _background(worker.run()), listening(settings, parts) as url:
                yield url
                await worker.drain()


async def _up(settings: Settings, on_ready: Callable[[str], None]) -> None:
    with _only_one(settings):
        await database.migrate(settings)
        async with spine(settings) as parts:
            worker = make_supervisor(settings, parts)
            async with listening(settings, parts) as url:
                on_ready(url)
                await _until_drained(worker)


async def _gateway(settings: Settings, on_ready: Callable[[str], None]) -> None:
    _needs_servers(settings, "gateway")
    async with spine(settings) as parts, listening(settings, parts) as url:
        on_ready(url)
        await _signalled()


async def _worker(settings: Settings) -> None:
    _needs_servers(settings, "worker")
    async with spine(settings) as parts:
        await _until_drained(make_supervisor(settings, parts))


# ---- parts ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def spine(settings: Settings) -> AsyncIterator[Spine]:
    """Log, bus, committer and sweeper, open and running; closed in the opposite order."""
    log = database.make_log(settings)
    bus = make_bus(settings)
    announcer = Announcer(bus)
    committer = Committer(log, announcer)
    options = SweeperOptions(settings.sweep_s, settings.leader_s, settings.lease_s)
    sweeper = Sweeper(log, bus, committer, str(uuid.uuid4()), options)
    try:
        await _waiting_for_database(log.open)
        announcer.epoch = log.epoch
        await bus.open()
        async with _background(committer.run()), _background(sweeper.run()):
            yield Spine(log, bus, committer, _engines(settings))
    finally:
        await bus.close()
        await log.close()


@contextlib.asynccontextmanager
async def listening(settings: Settings, parts: Spine) -> AsyncIterator[str]:
    """The gateway on its port; yields its URL."""
    origins = frozenset(_words(settings.allowed_origins))
    deps = Deps(parts.log, parts.bus, parts.committer, parts.engines, allowed_origins=origins, version=VERSION)
    runner = web.AppRunner(make_app(deps), access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await _bind(runner, settings)
        host, port = runner.addresses[0][:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as failure:
        raise Misconfigured(
            f"cannot listen on {settings.host}:{settings.port} ({failure.strerror}); choose another --port, 0 picks one"
        ) from failure


def _engines(settings: Settings) -> Mapping[str, Engine]:
    try:
        return installed_engines(_words(settings.engine_modules))
    except (ImportError, ValueError) as problem:
        raise Misconfigured(f"PHASELINE_ENGINE_MODULES or an installed package: {problem}") from problem


def make_bus(settings: Settings) -> Bus:
    """The bus these settings name, not yet open."""
    if settings.rabbitmq_url:
        name = f"phaseline {socket.gethostname()}[{os.getpid()}]"
        return RabbitBus(
            settings.rabbitmq_url, name=name, settings=RabbitSettings(partitions=settings.event_partitions)
        )
    return MemoryBus()


def make_supervisor(settings: Settings, parts: Spine) -> Supervisor:
    """A worker, not yet running."""
    options = WorkerOptions(
        slots=settings.slots,
        lease_s=settings.lease_s,
        beat_s=settings.beat_s,
        poll_s=settings.poll_s,
        drain_s=settings.drain_s,
        outage_grace_s=settings.outage_grace_s,
        result_bytes_max=settings.result_bytes_max,
        engine_modules=_words(settings.engine_modules),
        build=VERSION,
    )
    return Supervisor(parts.log, parts.bus, parts.committer, parts.engines, options)


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `work` beside the block and cancels it after; a failure of either ends the other."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


def _words(text: str) -> tuple[str, ...]:
    """A comma-separated setting."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Two processes on one data directory would each run the other's jobs' sweeper and confuse people."""
    if settings.database_url:
        yield
        return
    path = database.sqlite_path(settings).with_suffix(".lock")
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(
                f"another `phaseline up` uses {path.parent}; end it, or choose another --data-dir"
            ) from None
        yield


def _needs_servers(settings: Settings, process: str) -> None:
    missing = [
        f"PHASELINE_{name.upper()}" for name in ("database_url", "rabbitmq_url") if getattr(settings, name) is None
    ]
    if missing:
        raise Misconfigured(
            f"a separate {process} needs {' and '.join(missing)}; on one machine without servers use `phaseline up`"
        )


async def _waiting_for_database(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A process that boots before its database waits for it instead of crashing in a loop."""
    deadline = asyncio.get_running_loop().time() + BOOT_WAIT_S
    while True:
        try:
            await work()
        except (LogUnavailable, OSError) as away:
            if asyncio.get_running_loop().time() > deadline:
                raise LogUnavailable(str(away)) from away
            _log.warning("waiting for the database: %s", away)
            await asyncio.sleep(RETRY_S)
        else:
            return


async def _until_drained(worker: Supervisor) -> None:
    """Runs a worker until a signal; the first drains it, a second ends it now."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(worker.run())
        signals = group.create_task(_drain_on_signals(worker))
        await asyncio.wait([running])
        signals.cancel()


async def _drain_on_signals(worker: Supervisor) -> None:
    async with asyncio.TaskGroup() as group:
        with _signals() as received:
            while True:
                await received.acquire()
                group.create_task(worker.drain())


async def _signalled() -> None:
    with _signals() as received:
        await received.acquire()


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Semaphore]:
    """A semaphore released by each SIGTERM and SIGINT."""
    received = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received.release)
    try:
        yield received
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _run(process: Coroutine[Any, Any, None], settings: Settings) -> int:
    logging.basicConfig(
        level=settings.log_level.upper(),
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s {socket.gethostname()}[{os.getpid()}] %(name)s: %(message)s",
    )
    for noisy in ("aiormq", "aio_pika", "alembic", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    asyncio.run(_ended_in_peace(process))
    return 0


async def _ended_in_peace(process: Coroutine[Any, Any, None]) -> None:
    """SIGTERM before a process listens for it itself, while it waits for its database, is no failure either."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(process)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
