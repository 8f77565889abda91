"""The test kit for whoever writes engines or programs that use jobs. It needs no server and no pytest; fixtures for
pytest are in `phaseline.pytest_plugin`, which pytest finds by itself.

`run_engine` runs one attempt of an engine in this thread, on a clock of its own: an engine that sleeps an hour is done in
a moment, and what it said comes back as typed events. `service` runs a whole Phaseline beside the test: the real log on
SQLite in a temporary folder, the in-memory bus, gateway and worker, with engines in child processes.
"""

import asyncio
import contextlib
import inspect
import selectors
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from typing_extensions import override

from engine_worker.child import SAID_BYTES_MAX, VALUE_FIELDS
from engine_worker.coalesce import Coalescer
from engine_worker.context import Context, Previous
from engine_worker.failure import SaidTooLarge, failed_fields
from engine_worker.frames import Frame
from engine_worker.said import entry_of
from events.catalog import AttemptError, Checkpoint, Progress, Said
from events.declaration import Engine
from events.values import decode, encode, jsonable
from phaseline.event_types import Event

JOB_ID = "00000000-0000-7000-8000-000000000000"
EVENTS_MAX = 20_000  # what one attempt may say here: an engine that never ends is a failure, not a full memory
SLEEPS_MAX = 200_000  # of one attempt: one that only sleeps says nothing and would never end either
WAIT_S = 60.0  # real seconds: for a service to start, a job to end on it, an engine to wait for a thread or a file

# ---- one attempt, on a clock of its own -------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """How an attempt ended and what was said in it.

    `status` is what the attempt alone comes to: `completed`, `cancelled` (it obeyed, or raised after being asked to stop)
    or `failed`; `error.retryable` says whether a job would be tried again, not before `retry_after_s`. `results` is plain
    JSON, after a cancel or failure the last `best`. `events` are those of docs/protocol.md §1 that an engine makes,
    progress thinned as a worker does. `recorded` are the phases' checkpoints. `seconds` is the attempt's own time.
    """

    status: Literal["completed", "failed", "cancelled"]
    results: Any = None
    error: AttemptError | None = None
    retry_after_s: float | None = None
    events: list[Said] = field(default_factory=list)
    recorded: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def types(self) -> list[str]:
        """The events' types, in order."""
        return [event.type for event in self.events]


def run_engine(
    engine: Engine,
    params: Mapping[str, Any] | BaseModel | None = None,
    *,
    recorded: Mapping[str, Any] | None = None,
    attempt: int = 1,
    attempt_s: float | None = None,
    cancel_after_s: float | None = None,
    cancel_on: Callable[[Said], bool] | None = None,
    previous: Previous | None = None,
) -> Ran:
    """Runs one attempt to its end, in this thread.

    Time passes only while the engine sleeps: `time.sleep`, `time.monotonic`, `time.time`, `time.perf_counter` (called
    through the module) and everything of asyncio see it; threads the engine starts do not. `recorded` is what earlier
    attempts left, such as another run's `Ran.recorded`. The attempt is stopped after `attempt_s`, as a worker kills it:
    `failed` with `attempt_timeout`. It is asked to stop at `cancel_after_s`, or by the first event that `cancel_on` picks.

    An engine that says or sleeps without end, or waits for what does not come, is a `RuntimeError`.

    Raises pydantic's `ValidationError`, or `InvalidParams` from the engine's check, for params that a submit refuses.
    """
    asked = engine.params.model_validate(params.model_dump() if isinstance(params, BaseModel) else dict(params or {}))
    if engine.check:
        engine.check(asked)
    clock = _Clock()
    told = _Told(clock, cancel_on)

    context = Context(
        engine.phases,
        told.say,
        job_id=JOB_ID,
        attempt=attempt,
        recorded=decode(encode(jsonable(dict(recorded or {}), "recorded"))),
        deadline=attempt_s,  # of a clock that begins at 0
        previous=previous,
    )
    told.cancel = lambda: context.notify(cancelled=True)
    if attempt_s is not None:
        clock.at(attempt_s, _killed)
    if cancel_after_s is not None:
        clock.at(cancel_after_s, told.cancel)
    with clock.governing():
        ended = _ended(engine, asked, context)
    told.flush()
    ran = _judged(ended, told.best, cancelled=context.cancelled)
    return Ran(**ran, events=told.events, recorded=told.recorded(recorded), seconds=clock.now)


class _Killed(BaseException):
    """The attempt's time is over; no `except Exception` of an engine stops that."""


def _killed() -> None:
    raise _Killed


def _ended(engine: Engine, params: BaseModel, context: Context) -> Any:
    """What the engine returned, as plain JSON in a tuple, or what it raised."""
    try:
        returned = engine.run(params, context)
        if inspect.iscoroutine(returned):
            with asyncio.Runner(loop_factory=_Loop) as runner:
                returned = runner.run(returned)
        return (decode(encode(jsonable(returned, "results"))),)
    except KeyboardInterrupt:
        raise
    except _Endless as endless:
        raise RuntimeError(str(endless)) from None
    except BaseException as problem:
        return problem


def _judged(ended: Any, best: Any, *, cancelled: bool) -> dict[str, Any]:
    """As a worker judges it."""
    if isinstance(ended, tuple):
        return {"status": "completed", "results": ended[0]}
    if isinstance(ended, _Killed):
        error = AttemptError(
            type="AttemptTimeout", message="the attempt's time is over", code="attempt_timeout", retryable=True
        )
        return {"status": "cancelled" if cancelled else "failed", "results": best, "error": error}
    fields = failed_fields(ended)
    if cancelled or fields["op"] == "stopped":
        return {"status": "cancelled", "results": best}
    error = AttemptError(**fields["error"])
    return {"status": "failed", "results": best, "error": error, "retry_after_s": fields["retry_after_s"]}


class _Told:
    """What the engine says, as the events it becomes."""

    def __init__(self, clock: "_Clock", cancel_on: Callable[[Said], bool] | None) -> None:
        self.events: list[Said] = []
        self.best: Any = None
        self.cancel: Callable[[], None] = lambda: None
        self._clock = clock
        self._cancel_on = cancel_on
        self._coalescer = Coalescer()

    def say(self, said: dict[str, Any]) -> None:
        body = encode(said.pop(VALUE_FIELDS[said["op"]])) if said["op"] in VALUE_FIELDS else b""
        size = len(encode(said))
        if size > SAID_BYTES_MAX and not body:
            raise SaidTooLarge(f"a {said['op']} event of {size} bytes is over 1 MiB; return it or checkpoint it")
        if said["op"] == "best":
            self.best = decode(body)
            return
        event = entry_of(JOB_ID, Frame(said, body, size + len(body))).event
        if (due_at := self._coalescer.due_at()) is not None and due_at <= self._clock.now:
            self._keep(*self._coalescer.flush(due_at))
        if isinstance(event, Progress):
            self._keep(*self._coalescer.offer(event, self._clock.now, mark=bool(said.get("mark"))))
        else:
            self._keep(*self._coalescer.flush(self._clock.now), event)

    def flush(self) -> None:
        self._cancel_on = None
        self._keep(*self._coalescer.flush(self._clock.now))

    def recorded(self, before: Mapping[str, Any] | None) -> dict[str, Any]:
        said = {event.phase: event.output for event in self.events if isinstance(event, Checkpoint)}
        return {**(before or {}), **said}

    def _keep(self, *events: Said) -> None:
        for event in events:
            if len(self.events) >= EVENTS_MAX:
                raise _Endless(f"the engine said {EVENTS_MAX} things and did not end")
            self.events.append(event)
            if self._cancel_on and self._cancel_on(event):
                self._cancel_on = None
                self.cancel()


class _Endless(BaseException):
    """The engine says too much for a test; no `except Exception` of it stops that."""


# ---- time -------------------------------------------------------------------------------------------------------

_governing: "_Clock | None" = None  # the clock of the attempt that runs now; one at a time in a process


class _Clock:
    """Seconds that pass when told. For its thread alone it stands in for the `time` module's functions."""

    def __init__(self) -> None:
        self.now = 0.0  # so that sums of whole seconds are exact
        self._epoch = time.time()  # noqa: TID251 the kit stands in for the machine's clock
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._slept = 0

    def at(self, after_s: float, act: Callable[[], None]) -> None:
        """Has something done once so many seconds have passed."""
        self._due = sorted([*self._due, (self.now + after_s, act)], key=lambda due: due[0])

    def sleep(self, seconds: float) -> None:
        self._slept += 1
        if self._slept > SLEEPS_MAX:
            raise _Endless(f"the engine slept {SLEEPS_MAX} times and did not end: give attempt_s, or a cancel")
        until = self.now + max(seconds, 0.0)
        while self._due and self._due[0][0] <= until:
            self.now, act = self._due.pop(0)
            act()
        self.now = until

    @contextlib.contextmanager
    def governing(self) -> Iterator[None]:
        """Time is this clock's for the block, in this thread."""
        global _governing  # noqa: PLW0603 so are the functions that are replaced
        if _governing is not None:
            raise RuntimeError("an engine runs on a clock of its own already: run one at a time")
        ours, thread = vars(time), threading.get_ident()
        real = {name: ours[name] for name in ("sleep", "monotonic", "time", "perf_counter")}
        stand_ins: dict[str, Callable[..., Any]] = {
            "sleep": self.sleep,
            "monotonic": lambda: self.now,
            "time": lambda: self._epoch + self.now,
            "perf_counter": lambda: self.now,
        }

        def here_only(name: str) -> Callable[..., Any]:
            stands_in, original = stand_ins[name], real[name]

            def governed(*given: float) -> Any:
                return stands_in(*given) if threading.get_ident() == thread else original(*given)

            return governed

        _governing = self
        try:
            for name in real:
                setattr(time, name, here_only(name))
            yield
        finally:
            for name, original in real.items():
                setattr(time, name, original)
            _governing = None


class _Loop(asyncio.SelectorEventLoop):
    """Where the next thing to happen is a timer, it happens now."""

    def __init__(self) -> None:
        assert _governing is not None
        self._governed_by = _governing
        super().__init__(_Jumping(_governing))

    @override
    def time(self) -> float:
        return self._governed_by.now


class _Jumping(selectors.DefaultSelector):
    """Waits for files, and for threads, only while no timer is due."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            if ready := list(super().select(WAIT_S)):
                return ready
            raise _Endless(f"the engine waited {WAIT_S:g} s for something that did not come")
        if timeout <= 0:
            return list(super().select(timeout))
        if ready := list(super().select(0)):
            return ready
        self._clock.sleep(timeout)
        return []


# ---- a whole Phaseline ------------------------------------------------------------------------------------------


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
