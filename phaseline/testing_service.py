"""A whole Phaseline beside a test, in a thread of its process. See `phaseline.testing`."""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phaseline.event_types import Event

WAIT_S = 60.0  # for a service to start, a job to end on it


@dataclass(frozen=True)
class Ended:
    """A job that ended: as the API shows it, result included, and its whole stream."""

    job: dict[str, Any]
    events: list[Event]

    @property
    def status(self) -> str:
        """`completed`, `failed` or `cancelled`."""
        return str(self.job["status"])

    @property
    def results(self) -> Any:
        """The result, or the best there was; None without one."""
        return self.job.get("results")

    @property
    def types(self) -> list[str]:
        """The events' types, in order."""
        return [event["type"] for event in self.events]


class Service:
    """A Phaseline that runs in a thread of this process, at `url`; `phaseline.Client(url)` talks to it as to any other."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self._loop = loop

    def run(
        self, engine: str, params: Mapping[str, Any] | None = None, *, timeout_s: float = WAIT_S, **submitted: Any
    ) -> Ended:
        """Submits a job (`submitted` as in `Client.submit`) and waits for its end. Raises `TimedOut` and whatever a
        submit raises. It blocks: in an async test use a `Client`."""
        running = _run_job(self.url, engine, params, timeout_s, submitted)
        return asyncio.run_coroutine_threadsafe(running, self._loop).result(timeout_s + WAIT_S)


@contextlib.contextmanager
def service(*engine_modules: str, folder: Path | None = None, **settings: Any) -> Iterator[Service]:
    """A whole Phaseline for the block, with the engines installed and those of `engine_modules` (importable: engines run in
    child processes). `settings` are those of docs/operations.md, `lease_s=2.0` for one. Its data is in `folder`, else in a
    temporary one. Nothing of the environment's `PHASELINE_…` variables decides where it keeps or sends anything.

    Raises what a start raises, such as `Misconfigured` for a module that cannot be imported, and `TimeoutError` when it takes
    over a minute.
    """
    with tempfile.TemporaryDirectory(prefix="phaseline-") as temporary:
        wanted = {
            "database_url": None,
            "rabbitmq_url": None,
            "host": "127.0.0.1",
            "port": 0,
            "data_dir": folder or Path(temporary),
            "engine_modules": ",".join(engine_modules),
            "crash_at": "",
            "drain_s": 0.0,
            **settings,
        }
        started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        thread = threading.Thread(target=_serve, args=(wanted, started), name="phaseline", daemon=True)
        thread.start()
        try:
            url, loop, enough = started.result(WAIT_S)
        except BaseException:  # it takes too long, or Ctrl-C came meanwhile
            started.cancel()
            raise
        try:
            yield Service(url, loop)
        finally:
            loop.call_soon_threadsafe(enough.set)
            thread.join(WAIT_S)


def _serve(wanted: dict[str, Any], started: "Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    async def serve() -> None:
        from phaseline import compose
        from phaseline.settings import Settings

        enough = asyncio.Event()
        async with compose.serving(Settings(**wanted)) as url:
            if started.set_running_or_notify_cancel():  # else nobody waits for it any more
                started.set_result((url, asyncio.get_running_loop(), enough))
                await enough.wait()

    try:
        asyncio.run(serve())
    except BaseException as problem:  # the thread that waits for the start is told
        if started.done():
            raise
        while isinstance(problem, BaseExceptionGroup) and len(problem.exceptions) == 1:
            problem = problem.exceptions[0]
        started.set_exception(problem)


async def _run_job(
    url: str, engine: str, params: Mapping[str, Any] | None, timeout_s: float, submitted: dict[str, Any]
) -> Ended:
    from phaseline.client import Client

    async with Client(url) as client:
        job = await client.submit(engine, params, **submitted)
        events = [event async for event in client.follow(job["id"], timeout_s=timeout_s)]
        return Ended(await client.job(job["id"]), events)
