"""A process from its start to its end: signals ask it to end, and what it does until then ends in order."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Coroutine, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from events import crash_points
from phaseline import logs
from phaseline.settings import Misconfigured, Settings

if TYPE_CHECKING:
    from engine_worker.supervisor import Supervisor

YOUNG_MAX = 5_000  # objects there are more than before, until Python looks for cycles among the youngest; 700 by itself

_asked: ContextVar[asyncio.Semaphore] = ContextVar("asked")  # to end, by signals; one release for each


def run(process: Coroutine[Any, Any, None], settings: Settings) -> int:
    """Runs a whole process; returns its exit code."""
    logs.configure(settings)
    arm(settings)
    asyncio.run(ended_in_peace(process))
    return 0


def arm(settings: Settings) -> None:
    """For tests: this process kills itself where they want it."""
    if settings.crash_at:
        try:
            crash_points.arm(settings.crash_at)
        except ValueError as problem:
            raise Misconfigured(f"PHASELINE_CRASH_AT: {problem}") from problem


def settle() -> None:
    """To be called once a process has booted: what it has loaded stays, and Python is spared looking through all of it for
    cycles again and again, which holds up everything else each time (docs/performance.md)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *gc.get_threshold()[1:])


async def ended_in_peace(process: Coroutine[Any, Any, None]) -> None:
    """SIGTERM before a process listens for it itself, while it waits for its database, is no failure either."""
    asked = asyncio.Semaphore(0)
    _asked.set(asked)

    def end() -> None:
        asked.release()  # a driver may swallow the cancellation: the process ends as soon as it has booted
        task.cancel()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(process)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)


async def until_drained(worker: "Supervisor") -> None:
    """Runs a worker until a signal; the first drains it, a second ends it now."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(worker.run())
        signals = group.create_task(_drain_on_signals(worker))
        await asyncio.wait([running])
        signals.cancel()


async def _drain_on_signals(worker: "Supervisor") -> None:
    async with asyncio.TaskGroup() as group:
        with _signals() as received:
            while True:
                await received.acquire()
                group.create_task(worker.drain())


async def signalled() -> None:
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
