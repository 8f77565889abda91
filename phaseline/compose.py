"""The composition root: the one place that names concrete adapters and owns processes' lifetimes and signals.

Each `run_…` is a whole process: it returns the exit code 0, or raises what the command line explains. `serving` is `phaseline up` inside a running loop.
"""

import asyncio
import contextlib
import fcntl
import importlib.metadata
import ipaddress
import logging
import os
import resource
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from engine_worker.supervisor import Supervisor, WorkerOptions
from events import crash_points
from events.acts import By
from events.announce import Announcer
from events.archiver import Archiver
from events.audit import AuditedLog
from events.batch import Committed
from events.bus import Bus
from events.bus_memory import MemoryBus
from events.bus_rabbit import RabbitBus, RabbitSettings
from events.committer import Committer
from events.declaration import Engine, installed_engines
from events.deliverer import Deliverer, DelivererOptions
from events.errors import BusUnavailable, LogUnavailable, Unavailable
from events.holds import Holds
from events.keys import Keys
from events.log import Log
from events.log_postgres import PostgresLog
from events.log_sqlite import SqliteLog
from events.passes import Doors
from events.retention import RetentionLog
from events.schedules import Schedules
from events.seal import Seal
from events.seal_log import SealLog
from events.sealer import Sealer, SealerOptions
from events.sweeper import Sweeper, SweeperOptions
from events.telemetry import CONTENT_TYPE, Telemetry
from events.ticker import Ticker
from events.tracing import NoTraces, Traces
from events.webhook_sender import sender
from events.webhook_url import Rules
from events.webhook_url import networks as webhook_networks
from events.webhooks import Endpoint, Webhooks
from gateway.addresses import Network, networks
from gateway.app import make_app, unbroken
from gateway.bearers import Bearers
from gateway.deps import Deps
from gateway.limits import Limits
from phaseline import archives, database, logs, verify
from phaseline.settings import OTHER_FILES, Misconfigured, Settings, words

BOOT_WAIT_S = 60.0  # how long a process waits for its database at boot before it gives up
RETRY_S = 0.5
BUS_WAIT_S = 10.0  # how long `verify` waits for RabbitMQ
SHUTDOWN_S = 6.0  # for plain requests and closing sockets, after the viewers were sent away
VERSION = importlib.metadata.version("phaseline")

T = TypeVar("T")
_log = logging.getLogger(__name__)
_asked: ContextVar[asyncio.Semaphore] = ContextVar("asked")  # to end, by signals; one release for each


@dataclass(frozen=True, slots=True)
class Spine:
    """What every process stands on."""

    log: Log
    bus: Bus
    keys: Doors
    schedules: Schedules
    webhooks: Webhooks
    holds: Holds
    audit: AuditedLog
    retention: RetentionLog
    committer: Committer
    engines: Mapping[str, Engine]
    telemetry: Telemetry


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
    arm(settings)
    asyncio.run(_waiting_for_database(lambda: database.migrate(settings)))


def db_restored(settings: Settings) -> str:
    """Begins a new epoch of a log that was restored from a backup and has it copied again; returns the epoch. Processes
    on it may be running, but for `phaseline up`."""
    arm(settings)
    with _only_one(settings):
        return asyncio.run(_restored(settings))


async def _restored(settings: Settings) -> str:
    epoch = await database.begin_epoch(settings)
    if settings.rabbitmq_url:
        # It holds what the log has lost. Whoever leads finds it missing and makes it anew, from the start.
        bus = _make_rabbit(settings, settings.rabbitmq_url)
        try:
            await bus.open()
            await _connected(bus)
            await bus.delete_copy()
        finally:
            await bus.close()
    return epoch


def webhooks_set(settings: Settings, tenant: str, url: str | None, by: By) -> Endpoint:
    """Gives a tenant webhooks; `url` is for jobs that name none. Raises `Misconfigured` for one that may not be."""
    try:
        checked = None if url is None else webhook_rules(settings).checked(url)
    except ValueError as problem:
        raise Misconfigured(f"the URL {problem}") from problem
    return asyncio.run(database.set_webhooks(settings, tenant, checked, by))


def verify_run(settings: Settings, recordings: Sequence[Path], *, settled: bool) -> verify.Counts:
    """Holds the log, the RabbitMQ stream if one is named, and what clients recorded against the promises. Raises the
    first `Violation`."""
    return asyncio.run(_verify(settings, recordings, settled=settled))


async def _verify(settings: Settings, recordings: Sequence[Path], *, settled: bool) -> verify.Counts:
    log = database.make_log(settings)
    bus = make_bus(settings)
    try:
        await log.open()
        if settings.rabbitmq_url:
            await bus.open()
            await _connected(bus)
        named = {str(path): verify.lines_of(path) for path in recordings}
        return await verify.verify(log, bus, named, settled=settled)
    finally:
        await bus.close()
        await log.close()


async def _connected(bus: Bus) -> None:
    try:
        async with asyncio.timeout(BUS_WAIT_S):
            while not bus.connected:  # noqa: ASYNC110 the port has no signal for it
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise BusUnavailable(
            "RabbitMQ does not answer. Check that it runs and that PHASELINE_RABBITMQ_URL is right."
        ) from None


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
    async with spine(settings, "phaseline-gateway") as parts, listening(settings, parts) as url:
        on_ready(url)
        await _signalled()


async def _worker(settings: Settings) -> None:
    _needs_servers(settings, "worker")
    async with spine(settings, "phaseline-worker") as parts, metrics_port(settings, parts.telemetry):
        await _until_drained(make_supervisor(settings, parts))


# ---- parts ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def spine(settings: Settings, service: str = "phaseline") -> AsyncIterator[Spine]:
    """Log, bus, committer and sweeper, open and running; closed in the opposite order. `service` names the process in
    traces."""
    async with _traces(settings, service) as traces, _spine(settings, Telemetry(traces)) as parts:
        yield parts


@contextlib.asynccontextmanager
async def _traces(settings: Settings, service: str) -> AsyncIterator[Traces]:
    if settings.traces == "off":
        yield NoTraces()
        return
    try:
        from phaseline.traces import OtelTraces
    except ImportError as missing:
        raise Misconfigured(f"PHASELINE_TRACES=otlp needs `pip install 'phaseline[otel]'` ({missing})") from missing
    traces = OtelTraces(service, VERSION)
    async with traces.kept():
        yield traces


@contextlib.asynccontextmanager
async def _spine(settings: Settings, telemetry: Telemetry) -> AsyncIterator[Spine]:
    log = database.make_log(settings)
    bus = make_bus(settings, telemetry)
    announcer = Announcer(bus, telemetry.traces)
    holder = str(uuid.uuid4())
    sealer = Sealer(log, log, holder, SealerOptions(settings.seal_s), on_sealed=_anchors(settings, log))
    told: list[Callable[[Committed], None]] = [announcer, sealer.committed]
    log.on_act = sealer.appended

    def committed(done: Committed) -> None:
        for tell in told:
            tell(done)

    committer = Committer(log, committed, telemetry=telemetry)
    options = SweeperOptions(settings.sweep_s, settings.leader_s, settings.lease_s)
    ticker = Ticker(log, log, committer)
    sweeper = Sweeper(log, bus, committer, holder, options, telemetry=telemetry, tick=ticker.tick)
    try:
        await _waiting_for_database(log.open)
        await bus.open()
        async with (
            _background(committer.run()),
            _background(sweeper.run()),
            _background(sealer.run()),
            _delivering(settings, log, told, telemetry),
            _archiving(settings, log, holder, telemetry),
        ):
            yield Spine(log, bus, log, log, log, log, log, log, committer, _engines(settings), telemetry)
    finally:
        await bus.close()
        await log.close()


@contextlib.asynccontextmanager
async def _delivering(
    settings: Settings, log: PostgresLog | SqliteLog, told: list[Callable[[Committed], None]], telemetry: Telemetry
) -> AsyncIterator[None]:
    """Webhooks go out while the block lasts, where this process sends any."""
    if not settings.webhook_places:
        yield
        return
    options = DelivererOptions(
        settings.webhook_places, settings.webhook_timeout_s, settings.webhook_attempts_max, settings.webhook_backoff_s
    )
    rules, agent = webhook_rules(settings), f"phaseline/{VERSION}"
    async with sender(rules, settings.webhook_timeout_s, settings.webhook_places, agent) as sends:
        deliverer = Deliverer(log, log, sends, options, telemetry)
        told.append(deliverer.committed)
        async with _background(deliverer.run()):
            yield


@contextlib.asynccontextmanager
async def _archiving(
    settings: Settings, log: PostgresLog | SqliteLog, holder: str, telemetry: Telemetry
) -> AsyncIterator[None]:
    """Retention goes on while the block lasts, where there are rules."""
    rules = archives.rules(settings)
    if not rules:
        yield
        return
    store = archives.make_store(settings)
    archiver = Archiver(log, store, rules, holder, settings.retention_every_s, telemetry)
    async with _background(archiver.run()):
        yield


def _tokens(settings: Settings) -> Bearers | None:
    if not settings.oidc_issuer:
        return None
    from phaseline import oidc  # with it a library of 9 MiB

    return oidc.tokens(settings)


def webhook_rules(settings: Settings) -> Rules:
    """Where webhooks may go. Raises `Misconfigured`."""
    try:
        return Rules(webhook_networks(words(settings.webhook_networks)), settings.webhook_http)
    except ValueError as problem:
        raise Misconfigured(f"PHASELINE_WEBHOOK_NETWORKS: {problem}") from problem


def _anchors(settings: Settings, log: SealLog) -> Callable[[Seal], Awaitable[None]] | None:
    if settings.anchor_key_file is None and settings.anchors_dir is None:
        return None
    if settings.anchor_key_file is None or settings.anchors_dir is None:
        raise Misconfigured("PHASELINE_ANCHOR_KEY_FILE and PHASELINE_ANCHORS_DIR go together")
    from phaseline import anchors  # a library of its own, for those who anchor

    try:
        key = anchors.private_key(settings.anchor_key_file)
    except (OSError, anchors.BadKey) as problem:
        raise Misconfigured(f"PHASELINE_ANCHOR_KEY_FILE: {problem}") from problem
    return anchors.AnchorWriter(log, settings.anchors_dir, key, settings.anchor_every_s)


@contextlib.asynccontextmanager
async def listening(settings: Settings, parts: Spine) -> AsyncIterator[str]:
    """The gateway on its port; yields its URL."""
    _allow_files(settings)
    asks = await _asks_for_keys(settings, parts.keys)
    origins = frozenset(words(settings.allowed_origins))
    deps = Deps(
        parts.log,
        parts.bus,
        parts.committer,
        parts.engines,
        keys=parts.keys,
        tokens=_tokens(settings),
        schedules=parts.schedules,
        webhooks=parts.webhooks,
        holds=parts.holds,
        audit=parts.audit,
        retention=parts.retention,
        webhook_rules=webhook_rules(settings),
        asks=asks,
        trusted_proxies=_networks(settings),
        allowed_origins=origins,
        connections_max=settings.connections_max,
        compressed_max=settings.compressed_max,
        watched_jobs_max=settings.watched_jobs_max,
        limits=_limits(settings),
        version=VERSION,
        telemetry=parts.telemetry,
    )
    app = make_app(deps)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=SHUTDOWN_S,
        keepalive_timeout=settings.idle_s,
    )
    await runner.setup()
    try:
        await _bind(runner, settings.host, settings.port, "choose another --port")
        host, port = runner.addresses[0][:2]
        async with _background(unbroken(app)):
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        await runner.cleanup()


async def _asks_for_keys(settings: Settings, keys: Keys) -> bool:
    """Whether every request needs a key from the start. Raises `Misconfigured` where strangers could come in."""
    if settings.auth == "keys" or settings.oidc_issuer or await _waiting_for_database(keys.has_keys):
        return True
    if settings.auth == "auto" and not _is_loopback(settings.host):
        raise Misconfigured(
            f"listening on {settings.host} would let anybody in: there is no API key yet. Make one with `phaseline keys "
            "create`, or set PHASELINE_AUTH=open if something before this asks who comes"
        )
    _log.info("no API key is asked for: there is none yet (`phaseline keys create` makes one)")
    return False


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _networks(settings: Settings) -> tuple[Network, ...]:
    try:
        return networks(words(settings.trusted_proxies))
    except ValueError as problem:
        raise Misconfigured(f"PHASELINE_TRUSTED_PROXIES: {problem}") from problem


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.submits_per_s,
        settings.body_bytes_per_s,
        settings.upgrades_per_s,
        settings.connections_per_address,
        settings.queued_jobs_max,
        settings.refusals_per_s,
    )


def _allow_files(settings: Settings) -> None:
    """Raises this process's own limit of open files to what its connections may need, as far as the system allows."""
    needed = settings.connections_max + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        _log.warning(
            "%d open files are allowed here, %d connections may need %d: raise `ulimit -n` or lower "
            "PHASELINE_CONNECTIONS_MAX", most, settings.connections_max, needed,
        )  # fmt: skip


@contextlib.asynccontextmanager
async def metrics_port(settings: Settings, telemetry: Telemetry) -> AsyncIterator[None]:
    """`/metrics` and `/healthz` of a worker, on a port of their own when one is set; a gateway has them beside its API.

    In the loop rather than a thread beside it: a scrape reads numbers the loop writes, and tells whether it turns.
    """
    if settings.metrics_port is None:
        yield
        return

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=telemetry.page(), headers={"Content-Type": CONTENT_TYPE})

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    app = web.Application()
    app.add_routes([web.get("/metrics", page), web.get("/healthz", alive)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await _bind(runner, settings.metrics_host, settings.metrics_port, "choose another PHASELINE_METRICS_PORT")
        _log.info("metrics at http://%s:%d/metrics", *runner.addresses[0][:2])
        yield
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, host: str, port: int, cure: str) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as failure:
        raise Misconfigured(f"cannot listen on {host}:{port} ({failure.strerror}); {cure}, 0 picks one") from failure


def _engines(settings: Settings) -> Mapping[str, Engine]:
    try:
        return installed_engines(words(settings.engine_modules))
    except (ImportError, ValueError) as problem:
        raise Misconfigured(f"PHASELINE_ENGINE_MODULES or an installed package: {problem}") from problem


def make_bus(settings: Settings, telemetry: Telemetry | None = None) -> Bus:
    """The bus these settings name, not yet open."""
    if settings.rabbitmq_url:
        return _make_rabbit(settings, settings.rabbitmq_url, telemetry)
    if telemetry:
        telemetry.bus.connected.set(1)
    return MemoryBus()


def _make_rabbit(settings: Settings, url: str, telemetry: Telemetry | None = None) -> RabbitBus:
    name = f"phaseline {socket.gethostname()}[{os.getpid()}]"
    options = RabbitSettings(partitions=settings.event_partitions)
    return RabbitBus(url, name=name, settings=options, telemetry=telemetry)


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
        engine_modules=words(settings.engine_modules),
        child_memory_bytes_max=settings.child_memory_bytes_max,
        build=VERSION,
    )
    return Supervisor(parts.log, parts.bus, parts.committer, parts.engines, options, telemetry=parts.telemetry)


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `work` beside the block and cancels it after; a failure of either ends the other."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


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


async def _waiting_for_database(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """A process that boots before its database, or while it is cut off from it, waits instead of crashing in a loop."""
    deadline = asyncio.get_running_loop().time() + BOOT_WAIT_S
    while True:
        try:
            return await work()
        except (Unavailable, OSError) as away:
            if asyncio.get_running_loop().time() > deadline:
                raise LogUnavailable(str(away)) from away
            _log.warning("waiting for the database: %s", away)
            await asyncio.sleep(RETRY_S)


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
    received = _asked.get()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received.release)
    try:
        yield received
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _run(process: Coroutine[Any, Any, None], settings: Settings) -> int:
    logs.configure(settings)
    arm(settings)
    asyncio.run(_ended_in_peace(process))
    return 0


def arm(settings: Settings) -> None:
    """For tests: this process kills itself where they want it."""
    if settings.crash_at:
        try:
            crash_points.arm(settings.crash_at)
        except ValueError as problem:
            raise Misconfigured(f"PHASELINE_CRASH_AT: {problem}") from problem


async def _ended_in_peace(process: Coroutine[Any, Any, None]) -> None:
    """SIGTERM before a process listens for it itself, while it waits for its database, is no failure either."""
    asked = asyncio.Semaphore(0)
    _asked.set(asked)

    def end() -> None:
        asked.release()  # a driver may swallow the cancellation: the process ends as soon as it has booted
        task.cancel()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(process)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
