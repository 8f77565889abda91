"""Whole processes and commands, put together and owned for their lifetime.

Each `run_…` is a whole process: it returns the exit code 0, or raises what the command line explains. `serving` is
`phaseline up` inside a running loop.
"""

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from events.acts import By
from events.bus import Bus
from events.errors import BusUnavailable
from events.webhooks import Endpoint
from phaseline import database
from phaseline.ports import metrics_port
from phaseline.settings import Misconfigured, Settings, words
from phaseline.signals import arm, run, settle, signalled, until_drained
from phaseline.spine import (
    VERSION,
    Spine,
    background,
    make_bus,
    make_rabbit,
    spine,
    waiting_for_database,
    webhook_rules,
)

if TYPE_CHECKING:
    from engine_worker.supervisor import Supervisor
    from phaseline import verify

BUS_WAIT_S = 10.0  # how long `verify` waits for RabbitMQ


def run_up(settings: Settings, on_ready: Callable[[str], None] = print) -> int:
    """Gateway and worker in one process. `on_ready` gets the URL once it answers."""
    return run(_up(settings, on_ready), settings)


def run_gateway(settings: Settings, on_ready: Callable[[str], None] = print) -> int:
    """A gateway, for PostgreSQL and RabbitMQ."""
    return run(_gateway(settings, on_ready), settings)


def run_worker(settings: Settings) -> int:
    """An engine worker, for PostgreSQL and RabbitMQ."""
    return run(_worker(settings), settings)


def db_migrate(settings: Settings) -> None:
    """Brings the schema up to date; waits for its turn when another process migrates."""
    arm(settings)
    asyncio.run(waiting_for_database(lambda: database.migrate(settings)))


def db_restored(settings: Settings, by: By) -> str:
    """Begins a new epoch of a log that was restored from a backup and has it copied again; returns the epoch. Processes
    on it may be running, but for `phaseline up`."""
    arm(settings)
    with _only_one(settings):
        return asyncio.run(_restored(settings, by))


async def _restored(settings: Settings, by: By) -> str:
    epoch = await database.begin_epoch(settings, by)
    if settings.rabbitmq_url:
        # It holds what the log has lost. Whoever leads finds it missing and makes it anew, from the start.
        bus = make_rabbit(settings, settings.rabbitmq_url)
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


def verify_run(settings: Settings, recordings: Sequence[Path], *, settled: bool) -> "verify.Counts":
    """Holds the log, the RabbitMQ stream if one is named, and what clients recorded against the promises. Raises the
    first `Violation`."""
    return asyncio.run(_verify(settings, recordings, settled=settled))


async def _verify(settings: Settings, recordings: Sequence[Path], *, settled: bool) -> "verify.Counts":
    from phaseline import verify

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
    from phaseline.listen import listening

    with _only_one(settings):
        await database.migrate(settings)
        async with spine(settings) as parts:
            worker = make_supervisor(settings, parts)
            async with background(worker.run()), listening(settings, parts) as url:
                yield url
                await worker.drain()


async def _up(settings: Settings, on_ready: Callable[[str], None]) -> None:
    from phaseline.listen import listening

    with _only_one(settings):
        await database.migrate(settings)
        async with spine(settings) as parts:
            worker = make_supervisor(settings, parts)
            async with listening(settings, parts) as url:
                settle()
                on_ready(url)
                await until_drained(worker)


async def _gateway(settings: Settings, on_ready: Callable[[str], None]) -> None:
    from phaseline.listen import listening  # and with it the gateway, 6 MiB a worker does without

    _needs_servers(settings, "gateway")
    async with spine(settings, "phaseline-gateway") as parts, listening(settings, parts) as url:
        settle()
        on_ready(url)
        await signalled()


async def _worker(settings: Settings) -> None:
    _needs_servers(settings, "worker")
    async with spine(settings, "phaseline-worker") as parts, metrics_port(settings, parts.telemetry):
        worker = make_supervisor(settings, parts)
        settle()
        await until_drained(worker)


def make_supervisor(settings: Settings, parts: Spine) -> "Supervisor":
    """A worker, not yet running."""
    from engine_worker.supervisor import Supervisor, WorkerOptions  # which a gateway does without

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
