"""The test kit for whoever writes engines or programs that use jobs. It needs no server and no pytest; fixtures for
pytest are in `phaseline.pytest_plugin`, which pytest finds by itself.

`run_engine` runs one attempt of an engine in this thread, on a clock of its own: an engine that sleeps an hour is done in
a moment, and what it said comes back as typed events. `service` runs a whole Phaseline beside the test: the real log on
SQLite in a temporary folder, the in-memory bus, gateway and worker, with engines in child processes.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from engine_worker.child import SAID_BYTES_MAX, VALUE_FIELDS
from engine_worker.coalesce import Coalescer
from engine_worker.context import Context, Previous
from engine_worker.failure import SaidTooLarge, failed_fields
from engine_worker.frames import Frame
from engine_worker.said import entry_of
from events.catalog import AttemptError, Checkpoint, Progress, Said
from events.declaration import Engine
from events.values import decode, encode, jsonable
from phaseline.testing_clock import Clock, Endless, Loop
from phaseline.testing_service import Ended, Service, service

__all__ = ["Ended", "Ran", "Service", "run_engine", "service"]

JOB_ID = "00000000-0000-7000-8000-000000000000"
EVENTS_MAX = 20_000  # what one attempt may say here: an engine that never ends is a failure, not a full memory


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
    clock = Clock()
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
            with asyncio.Runner(loop_factory=Loop) as runner:
                returned = runner.run(returned)
        return (decode(encode(jsonable(returned, "results"))),)
    except KeyboardInterrupt:
        raise
    except Endless as endless:
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

    def __init__(self, clock: Clock, cancel_on: Callable[[Said], bool] | None) -> None:
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
                raise Endless(f"the engine said {EVENTS_MAX} things and did not end")
            self.events.append(event)
            if self._cancel_on and self._cancel_on(event):
                self._cancel_on = None
                self.cancel()
