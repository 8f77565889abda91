"""One attempt, from its claim to the command that ends it: what an engine says becomes events, in order.

The reader takes frames from the child, the writer reports them in batches, the guard ends what takes too long. Only
then comes the ending: exactly one command, none when the attempt was lost meanwhile.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from engine_worker.endings import (
    Circumstances,
    Ending,
    Exit,
    Gone,
    Raised,
    Returned,
    Stopped,
    Why,
    command_for,
    finish,
)
from engine_worker.frames import Frame
from engine_worker.limits import Limits
from engine_worker.options import WorkerOptions
from engine_worker.outbox import Entry, Outbox
from engine_worker.outcome import outcome_of
from engine_worker.previous import previous_result
from engine_worker.process import TERM_S, ChildProcess
from engine_worker.recorded import recorded_outputs
from engine_worker.said import entry_of
from engine_worker.traced import AttemptTrace, attempt_trace
from events import crash_points
from events.batch import Claimed
from events.catalog import AnyCommand, AttemptError, Expire, Fail, Outcome, Report
from events.clock import monotonic
from events.committer import Committer, new_command_id
from events.errors import Refused, StillAlive, Unavailable, Unstorable
from events.log import Artifact, Log
from events.record import Recorded
from events.tracing import NoTraces, Traces
from events.values import decode, encode, storable_text

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Attempt:
    """An attempt this worker owns. `run` it once; the other methods may be called from any task of the loop."""

    def __init__(  # noqa: PLR0913 what one attempt is given by its worker
        self,
        claimed: Claimed,
        *,
        worker_id: str,
        log: Log,
        committer: Committer,
        options: WorkerOptions,
        on_unanswered: Callable[[], None] = lambda: None,
        lease_over: Callable[[], bool] = lambda: False,
        draw: Callable[[], float] = random.random,
        traces: Traces | None = None,
    ) -> None:
        """`on_unanswered` hears that a command had no answer in time, `lease_over` says whether children end by
        themselves by now, `draw` gives the jitter of backoffs."""
        self.job = claimed.job
        self.claimed_at = monotonic()
        self.limits = Limits(claimed.job, self.claimed_at)
        self.commands = 0  # answered so far
        self.in_flight = False  # a command of this attempt waits for its answer
        self._claimed = claimed
        self._actor = f"worker:{worker_id}"
        self._log = log
        self._committer = committer
        self._options = options
        self._on_unanswered = on_unanswered
        self._lease_over = lease_over
        self._draw = draw
        self._traces = traces or NoTraces()
        self._trace = AttemptTrace(self._traces, claimed.job)
        self._outbox = Outbox()
        self._child: ChildProcess | None = None
        self._writer: asyncio.Task[None] | None = None
        self._best = b""
        self._last_said: list[Entry] = []
        self._why: Why | None = None
        self._problem = ""
        self._draining = False
        self._changed = asyncio.Event()  # limits or `_why`

    @property
    def key(self) -> tuple[str, int, str]:
        """Job, attempt and lease: what the log knows this attempt by."""
        return (self.job.id, self.job.attempt, self.job.lease_id or "")

    @property
    def about(self) -> dict[str, Any]:
        """What log lines about this attempt carry beside their text."""
        return {"job_id": self.job.id, "attempt": self.job.attempt, "worker": self._actor.removeprefix("worker:")}

    # -- told from outside

    def cancel(self, until: float) -> None:
        """The job was asked to stop: the engine is told once, and killed at `until` (monotonic)."""
        if self.limits.cancel(until):
            crash_points.reached("cancel.heard")
            if self._child:
                self._child.tell(op="cancel")
        self._changed.set()

    def drain(self) -> None:
        """The worker shuts down: the engine may finish, or stop at a checkpoint."""
        self._draining = True
        if self._child:
            self._child.tell(op="drain")

    def release(self) -> None:
        """Time is up: the child ends, the job goes back to the queue unharmed."""
        self._stop("drained")

    def forget(self) -> None:
        """The attempt is lost: the child ends and nothing more is said."""
        if self._why != "lost":
            _log.warning(
                "attempt %d of job %s is lost; its engine ends", self.job.attempt, self.job.id, extra=self.about
            )
        self._stop("lost")
        self._outbox.close(drop=True)
        if self._writer and self._writer is not asyncio.current_task():
            self._writer.cancel()  # what it waits for is fenced by the log anyway

    def _stop(self, why: Why, problem: str = "") -> None:
        if self._why is None or why == "lost":
            self._why, self._problem = why, problem
        self._changed.set()

    # -- the attempt

    async def run(self, child: ChildProcess) -> Ending:
        """Runs to the end and reports it. Returns how the engine ended, for the child's future use."""
        self._child = child
        async with asyncio.TaskGroup() as group:
            guard = group.create_task(self._guard(child))
            watcher = group.create_task(child.watch())
            self._writer = group.create_task(self._write())
            try:
                ending = await self._listen(child) if await self._begin(child) else Gone(Exit())
                if isinstance(ending, Returned):
                    self._last_said = self._outbox.rest()  # goes with the result: one transaction instead of two
            finally:
                guard.cancel()
                watcher.cancel()
                self._outbox.close()
            await asyncio.wait([self._writer])  # its errors are the group's
        await self._conclude(ending)
        self._trace.end(None if isinstance(ending, Returned) else self._why or type(ending).__name__.lower())
        return ending

    async def _begin(self, child: ChildProcess) -> bool:
        """Starts the engine; False when the attempt was over before."""
        recorded = await self._tried(lambda: recorded_outputs(self._log, self.job))
        previous = await self._tried(lambda: previous_result(self._log, self._claimed))
        if self._traces.on:
            self._trace = await self._tried(lambda: attempt_trace(self._traces, self._log, self.job)) or self._trace
        if self._why is not None:
            return False
        fields = {
            "op": "run",
            "job_id": self.job.id,
            "engine": self.job.engine,
            "version": self.job.engine_version,
            "attempt": self.job.attempt,
            "params": decode(self._claimed.params),
            "previous": previous,
            "deadline": self.limits.deadline,
        }
        crash_points.reached("attempt.unstarted")
        await child.send(fields, encode(recorded or {}))
        crash_points.reached("attempt.started")
        if self.limits.cancelled:
            child.tell(op="cancel")
        if self._draining:
            child.tell(op="drain")
        return True

    async def _tried(self, read: Callable[[], Awaitable[T]]) -> T | None:
        """What the log answers; asked as long as the attempt is ours."""
        while self._why is None:
            try:
                return await read()
            except Unavailable:
                await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 jitter
        return None

    async def _listen(self, child: ChildProcess) -> Ending:
        """Takes what the child says until it ends one way or another."""
        while True:
            try:
                if (frame := await child.receive()) is None:
                    break
                self.limits.said(monotonic())
                if ending := self._ending(frame):
                    return ending
                if frame.op == "progress" and frame.fields.get("mark") is True:
                    self._trace.phase(frame.fields["phase"])
                if frame.op != "best":
                    await self._outbox.put(entry_of(self.job.id, frame), mark=frame.fields.get("mark") is True)
            except (ValueError, KeyError, TypeError) as problem:  # an engine may write into our socket
                self._stop("unusable", storable_text(f"the engine said what no event can hold: {problem}"))
                break
        return Gone(await self._exit(child))

    def _ending(self, frame: Frame) -> Ending | None:
        match frame.op:
            case "result":
                return Returned(frame.body, frame.fields["rss_bytes"])
            case "failed":
                error = AttemptError.model_validate(frame.fields["error"])
                return Raised(error, frame.fields["retry_after_s"])
            case "stopped":
                return Stopped()
            case "best":
                self._best = frame.body
                return None
            case _:
                return None

    async def _exit(self, child: ChildProcess) -> Exit:
        child.kill()  # it closed its socket: usually it is dead already
        if self._lease_over():
            self.forget()  # it obeyed its deadline; no engine failed
        try:
            return await child.exited()
        except TimeoutError:
            return Exit(signal="SIGKILL")

    # -- the writer

    async def _write(self) -> None:
        """Reports what was said, one command at a time; what comes meanwhile goes with the next one."""
        while entries := await self._outbox.take():
            artifacts = [entry.artifact for entry in entries if entry.artifact]
            try:
                await self._execute(Report(**self._fence(), said=tuple(e.event for e in entries)), artifacts)
            except Unstorable as problem:
                self._stop("unusable", str(problem))
                self._outbox.close(drop=True)
            except Refused as refusal:
                _log.warning(
                    "attempt %d of job %s was refused: %s",
                    self.job.attempt,
                    self.job.id,
                    refusal,
                    extra=self.about,
                )
                self.forget()
            except Unavailable:
                self._on_unanswered()
                self.forget()
            self.limits.said(monotonic())

    async def _execute(self, command: AnyCommand, artifacts: Sequence[Artifact] = ()) -> list[Recorded]:
        self.in_flight = True
        try:
            # The committer itself tries again under the same command id, so that nothing is doubled.
            return await self._committer.execute(
                self.job.id, command, artifacts=artifacts, wait_s=self._options.answer_s
            )
        finally:
            self.in_flight = False
            self.commands += 1

    def _fence(self) -> dict[str, Any]:
        _, attempt, lease_id = self.key
        return {"command_id": new_command_id(), "actor": self._actor, "attempt": attempt, "lease_id": lease_id}

    # -- the guard

    async def _guard(self, child: ChildProcess) -> None:
        """Ends the child when a limit passes or it was told to. Its socket's end ends the reader."""
        while self._why is None:
            self._changed.clear()
            now = monotonic()
            limit = self.limits.next(now, busy=self.in_flight or not self._outbox.empty)
            if limit and limit[1] <= now:
                self._stop(limit[0])
            else:
                await _wait(self._changed, limit[1] - now if limit else None)
        await child.stop(term_s=0.0 if self._why == "lost" else TERM_S)

    # -- the ending

    async def broke(self, problem: BaseException) -> None:
        """The worker itself could not carry the attempt on. It counts as a failure: given back it would break the same
        way again, for ever."""
        while isinstance(problem, BaseExceptionGroup):
            problem = problem.exceptions[0]
        message = storable_text(f"the worker could not carry the attempt on: {type(problem).__name__}: {problem}")
        error = AttemptError(type=type(problem).__name__, message=message, code="engine_error", retryable=True)
        with contextlib.suppress(Refused, Unavailable):
            self._tell(await self._execute(Fail(**self._fence(), error=error, draw=self._draw())))

    async def _conclude(self, ending: Ending) -> None:
        crash_points.reached("attempt.ended")
        try:
            if self._why != "lost":
                await self._end(ending)
        except (Refused, Unavailable) as problem:
            _log.warning(
                "attempt %d of job %s ended unheard: %s", self.job.attempt, self.job.id, problem, extra=self.about
            )

    async def _end(self, ending: Ending) -> None:
        returned = isinstance(ending, Returned)
        outcome, artifact = outcome_of(self.job.id, ending.body if isinstance(ending, Returned) else self._best)
        artifacts = [artifact] if artifact else []
        if self._why == "total_timeout" and not returned and await self._expired(outcome, artifacts):
            return
        seen = Circumstances(
            self._fence(),
            self._draw(),
            self._why,
            self._problem,
            self.limits.cancelled,
            self._draining,
            outcome,
        )
        if not returned:
            self._tell(await self._execute(command_for(ending, self.job, seen), artifacts))
            return
        last = tuple(entry.event for entry in self._last_said)
        stored = [entry.artifact for entry in self._last_said if entry.artifact]
        try:
            self._tell(await self._execute(finish(seen.fence, outcome, last), [*stored, *artifacts]))
        except Unstorable as problem:
            if not last:
                raise
            _log.warning("what job %s said last cannot be stored: %s", self.job.id, problem, extra=self.about)
            self._tell(await self._execute(finish(self._fence(), outcome), artifacts))

    def _tell(self, recorded: Sequence[Recorded]) -> None:
        for event in recorded[-1:]:
            about = self.about | {"seq": event.seq, "event": event.type}
            _log.info("attempt %d of job %s ended: %s", self.job.attempt, self.job.id, event.type, extra=about)

    async def _expired(self, best: Outcome, artifacts: Sequence[Artifact]) -> bool:
        """A job over its total time is nobody's failure; False when the database does not think it is over yet."""
        fence = self._fence()
        command = Expire(
            command_id=fence["command_id"],
            actor=self._actor,
            attempt=self.job.attempt,
            cause="total_timeout",
            best=best,
            lease_id=fence["lease_id"],
        )
        try:
            self._tell(await self._execute(command, artifacts))
        except StillAlive:
            return False
        return True


async def _wait(changed: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return
