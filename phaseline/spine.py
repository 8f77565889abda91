"""What every process stands on: log, bus, committer and what runs beside them. The one place that names adapters."""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

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
from events.errors import LogUnavailable, Unavailable
from events.holds import Holds
from events.log import Log
from events.passes import Doors
from events.retention import RetentionLog
from events.schedules import Schedules
from events.seal import Seal
from events.seal_log import SealLog
from events.sealer import Sealer, SealerOptions
from events.sweeper import Sweeper, SweeperOptions
from events.telemetry import Telemetry
from events.ticker import Ticker
from events.tracing import NoTraces, Traces
from events.webhook_sender import sender
from events.webhook_url import Rules
from events.webhook_url import networks as webhook_networks
from events.webhooks import Webhooks
from phaseline import archives, database
from phaseline.settings import Misconfigured, Settings, words

BOOT_WAIT_S = 60.0  # how long a process waits for its database at boot before it gives up
RETRY_S = 0.5
VERSION = importlib.metadata.version("phaseline")

T = TypeVar("T")
_log = logging.getLogger(__name__)


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
    ticker = Ticker(log, log, committer, telemetry)
    sweeper = Sweeper(log, bus, committer, holder, options, telemetry=telemetry, tick=ticker.tick, keys=log)
    try:
        await waiting_for_database(log.open)
        await bus.open()
        async with (
            background(committer.run()),
            background(sweeper.run()),
            background(sealer.run()),
            _delivering(settings, log, told, telemetry),
            _archiving(settings, log, holder, telemetry),
        ):
            yield Spine(log, bus, log, log, log, log, log, log, committer, _engines(settings), telemetry)
    finally:
        await bus.close()
        await log.close()


@contextlib.asynccontextmanager
async def _delivering(
    settings: Settings, log: database.OpenLog, told: list[Callable[[Committed], None]], telemetry: Telemetry
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
        deliverer = Deliverer(log, sends, options, telemetry)
        told.append(deliverer.committed)
        async with background(deliverer.run()):
            yield


@contextlib.asynccontextmanager
async def _archiving(
    settings: Settings, log: database.OpenLog, holder: str, telemetry: Telemetry
) -> AsyncIterator[None]:
    """Retention goes on while the block lasts, where there are rules."""
    rules = archives.rules(settings)
    if not rules:
        yield
        return
    store = archives.make_store(settings)
    archiver = Archiver(log, store, rules, holder, settings.retention_every_s, telemetry)
    async with background(archiver.run()):
        yield


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


def _engines(settings: Settings) -> Mapping[str, Engine]:
    try:
        return installed_engines(words(settings.engine_modules))
    except (ImportError, ValueError) as problem:
        raise Misconfigured(f"PHASELINE_ENGINE_MODULES or an installed package: {problem}") from problem


def make_bus(settings: Settings, telemetry: Telemetry | None = None) -> Bus:
    """The bus these settings name, not yet open."""
    if settings.rabbitmq_url:
        return make_rabbit(settings, settings.rabbitmq_url, telemetry)
    if telemetry:
        telemetry.bus.connected.set(1)
    return MemoryBus()


def make_rabbit(settings: Settings, url: str, telemetry: Telemetry | None = None) -> RabbitBus:
    name = f"phaseline {socket.gethostname()}[{os.getpid()}]"
    return RabbitBus(url, name=name, settings=rabbit_settings(settings), telemetry=telemetry)


def rabbit_settings(settings: Settings) -> RabbitSettings:
    """What is declared in RabbitMQ under these settings."""
    return RabbitSettings(partitions=settings.event_partitions, tickets=settings.ticket_queues)


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `work` beside the block and cancels it after; a failure of either ends the other."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


async def waiting_for_database(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
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
