"""The worker: claims jobs for its slots, beats its lease, passes on cancels, drains. It never runs an engine's code.

Here the parts are joined: `claims` takes jobs, `slots` run `attempt`s in child processes, `lease` beats, `reconcile`
judges the replies.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from engine_worker.attempt import Attempt
from engine_worker.claims import Claims
from engine_worker.lease import Lease
from engine_worker.options import WorkerOptions
from engine_worker.process import ChildProcess
from engine_worker.reconcile import Key, Reconciler, Snapshot
from engine_worker.slots import Slots, StartChild
from events import crash_points
from events.batch import Claimed
from events.bus import Bus
from events.catalog import Release
from events.clock import monotonic
from events.committer import Committer, new_command_id
from events.declaration import Engine
from events.errors import PhaselineError, Refused, Unavailable, UnknownJob
from events.log import BeatReply, Log, WorkerRow
from events.telemetry import CLAIMS, Telemetry
from events.values import decode

__all__ = ["Supervisor", "WorkerOptions"]

PROBE_S = 5.0
RELEASES_S = 10.0  # for the last commands of a drain
LEAVE_S = 2.0

_log = logging.getLogger(__name__)


class Supervisor:
    """`run` until `drain` was called and everything is given back. The committer must run longer than this."""

    def __init__(
        self,
        log: Log,
        bus: Bus,
        committer: Committer,
        engines: Mapping[str, Engine],
        options: WorkerOptions,
        *,
        draw: Callable[[], float] = random.random,
        start_child: StartChild = ChildProcess.start,
        telemetry: Telemetry | None = None,
    ) -> None:
        """`draw` in [0, 1) is the jitter of backoffs, `start_child` starts a process that runs engines."""
        self.worker_id = str(uuid.uuid4())  # one per boot: a restart never answers for its predecessor's jobs
        self._store = log
        self._bus = bus
        self._committer = committer
        self._engines = dict(engines)
        self._options = options
        self._draw = draw
        self._reconciler = Reconciler()
        self._drained = asyncio.Event()  # asked to drain
        self._now = asyncio.Event()  # asked twice
        self._left = asyncio.Event()  # nothing of this worker is left
        self._declared = False
        self._releasing: set[Key] = set()
        self._group: asyncio.TaskGroup | None = None
        telemetry = telemetry or Telemetry()
        metrics = telemetry.worker
        self._traces = telemetry.traces
        self._lease = Lease(
            log,
            options,
            row=self._row,
            beating=self._beating,
            on_silence=lambda: self._claims.log_up(False),
            on_over=self._over,
            probe=self._committer_answers,
        )
        self._slots = Slots(options, self._engines, lambda: self._lease.children_until, start_child)
        self._claims = Claims(
            worker_id=self.worker_id,
            engines={name: engine.version for name, engine in self._engines.items()},
            bus=bus,
            committer=committer,
            slots=self._slots,
            options=options,
            attempt=self._attempt,
            on_trouble=self._lease.soon,
        )
        for answer in CLAIMS:
            metrics.claims.set_function(partial(self._claims.answers.__getitem__, answer), answer)
        metrics.beats_failed.set_function(lambda: self._lease.beats_failed)
        metrics.slots.labels("busy").set_function(lambda: self.running)
        metrics.slots.labels("free").set_function(lambda: self._slots.free)
        metrics.children.set_function(lambda: self._slots.children)

    async def run(self) -> None:
        """Works until drained. Cancelled instead, it ends its children and leaves its jobs to the sweeper."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                works = (self._slots.run(), self._lease.run(), self._claims.run(), self._hear_controls())
                parts = [group.create_task(work) for work in works]
                await self._drained.wait()
                await self._empty()
                for part in parts:
                    part.cancel()
            with contextlib.suppress(PhaselineError, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    crash_points.reached("worker.emptied")
                    await self._store.leave(self.worker_id)
                    crash_points.reached("worker.left")
        finally:
            self._group = None
            self._left.set()

    async def drain(self) -> None:
        """Stops claiming, lets engines finish for `drain_s`, gives back the rest; called again meanwhile: gives it
        back now. Returns when `run` has nothing left to do."""
        if self._drained.is_set():
            self._now.set()
        self._drained.set()
        if self._group:
            await self._left.wait()  # bounded by `drain_s` and the deadlines after it

    @property
    def running(self) -> int:
        """Attempts this worker holds."""
        return len(self._slots.running)

    # -- drain

    async def _empty(self) -> None:
        crash_points.reached("drain.begun")
        self._lease.soon()
        await self._claims.close()
        self._slots.close()
        for attempt in list(self._slots.running.values()):
            attempt.drain()
        await self._emptied_or_now(self._options.drain_s)
        for attempt in list(self._slots.running.values()):
            attempt.release()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASES_S):
                await self._slots.empty()

    async def _emptied_or_now(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(self._slots.empty()), group.create_task(self._asked_twice())]
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _asked_twice(self) -> None:
        await self._now.wait()

    # -- attempts

    def _attempt(self, claimed: Claimed) -> Attempt:
        return Attempt(
            claimed,
            worker_id=self.worker_id,
            log=self._store,
            committer=self._committer,
            options=self._options,
            on_unanswered=self._lease.suspend,
            lease_over=lambda: self._lease.over,
            draw=self._draw,
            traces=self._traces,
        )

    # -- the lease

    def _row(self) -> WorkerRow:
        return WorkerRow(
            id=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            build=self._options.build,
            slots=self._options.slots,
            engines={name: engine.version for name, engine in self._engines.items()},
            draining=self._drained.is_set(),
            running=self.running,
        )

    def _snapshot(self) -> Snapshot:
        attempts = self._slots.running.values()
        return Snapshot(
            mine=frozenset(attempt.key for attempt in attempts),
            quiet={attempt.key: attempt.commands for attempt in attempts if not attempt.in_flight},
            claims=self._claims.in_flight,
        )

    def _beating(self) -> Callable[[BeatReply, float], None]:
        sent = self._snapshot()
        return lambda reply, sent_at: self._heard(reply, sent_at, sent)

    def _heard(self, reply: BeatReply, sent_at: float, sent: Snapshot) -> None:
        self._slots.extend()
        held = {(h.job_id, h.attempt, h.lease_id): h for h in reply.held}
        verdict = self._reconciler.judge(held, sent, self._snapshot())
        for attempt in list(self._slots.running.values()):
            if attempt.key in verdict.lost:
                attempt.forget()
            elif (row := held.get(attempt.key)) and row.cancel_mode and row.cancel_at is not None:
                attempt.cancel(sent_at + (row.cancel_at - reply.now) / 1000)
        for key in verdict.orphans - self._releasing:
            self._begin(self._release(key))
            self._releasing.add(key)
        if not self._declared:
            self._begin(self._declare())
        self._claims.make_room(reply.make_room)
        self._claims.log_up(True)

    def _over(self) -> None:
        for attempt in list(self._slots.running.values()):
            attempt.forget()

    def _begin(self, work: Any) -> None:
        if self._group:
            self._group.create_task(work)

    async def _declare(self) -> None:
        with contextlib.suppress(Unavailable):
            await self._store.declare([engine.row(engine.result_schema()) for engine in self._engines.values()])
            self._declared = True
            crash_points.reached("worker.declared")

    async def _release(self, key: Key) -> None:
        """Gives back a job the log thinks we run: its claim's answer never reached us."""
        try:
            with contextlib.suppress(Refused, Unavailable):
                await self._committer.execute(key[0], self._release_command(key))
        finally:
            self._releasing.discard(key)

    def _release_command(self, key: Key) -> Release:
        return Release(
            command_id=new_command_id(),
            actor=f"worker:{self.worker_id}",
            attempt=key[1],
            lease_id=key[2],
            reason="released",
        )

    async def _committer_answers(self) -> bool:
        """Asks for something harmless: there is no job with a worker's id."""
        try:
            await self._committer.execute(
                self.worker_id, self._release_command((self.worker_id, 0, "")), wait_s=PROBE_S
            )
        except UnknownJob:
            return True
        except (Refused, Unavailable):
            return False
        return True

    # -- control words

    async def _hear_controls(self) -> None:
        async with self._bus.controls(self.worker_id, self._on_words):
            await asyncio.Event().wait()  # until cancelled

    def _on_words(self, words: bytes) -> None:
        """`{"op": "cancel", "job_id", "attempt", "grace_s"}` or `{"op": "stop", "job_id", "attempt"}`; anything
        else is ignored: the beat says it again."""
        try:
            said = decode(words)
            named = (said["job_id"], said["attempt"])
            for attempt in [one for one in self._slots.running.values() if one.key[:2] == named]:
                if said["op"] == "stop":
                    attempt.forget()
                elif said["op"] == "cancel":
                    attempt.cancel(monotonic() + float(said["grace_s"]))
        except (ValueError, KeyError, TypeError) as problem:
            _log.warning("a control message that says nothing: %s", problem)
