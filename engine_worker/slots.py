"""Slots: each holds one child ready to run, and runs one attempt at a time in it.

A child is used again only after a success, a bounded number of times and while it is small: what an engine leaves
behind, it leaves to itself.
"""

import asyncio
import logging
import random
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from engine_worker.attempt import Attempt
from engine_worker.endings import Ending, Returned
from engine_worker.options import WorkerOptions
from engine_worker.process import ChildFailed, ChildProcess
from engine_worker.reconcile import Key

StartChild = Callable[[dict[str, Any]], Awaitable[ChildProcess]]

_log = logging.getLogger(__name__)

START_AGAIN_S = 1.0  # between two attempts to start a process, on average


class Slots:
    """`run` keeps the children; `give` hands over an attempt whenever `free` says there is room."""

    def __init__(
        self,
        options: WorkerOptions,
        engines: Mapping[str, object],
        until: Callable[[], float],
        start_child: StartChild = ChildProcess.start,
    ) -> None:
        self._options = options
        self._engines = list(engines)
        self._until = until  # when children end by themselves, as of the last beat
        self._start_child = start_child
        self._waiting: asyncio.Queue[Attempt] = asyncio.Queue(options.slots)
        self._children: dict[ChildProcess, None] = {}  # in order, so that a simulated run repeats
        self._closed = False
        self._ready = 0  # slots whose child waits for an attempt
        self.running: dict[Key, Attempt] = {}  # from the claim to the end; a job's next attempt may come before the end
        self.freed = asyncio.Event()  # a slot got ready
        self._emptied = asyncio.Event()  # nothing runs any more

    @property
    def free(self) -> int:
        """How many attempts may be given now."""
        return self._ready - self._waiting.qsize()

    @property
    def children(self) -> int:
        """Processes kept, busy or waiting."""
        return len(self._children)

    def give(self, attempt: Attempt) -> None:
        """Runs an attempt in a free slot. Raises `asyncio.QueueFull` when there is none."""
        self._waiting.put_nowait(attempt)
        self.running[attempt.key] = attempt

    def extend(self) -> None:
        """Tells every child how long it may live."""
        for child in self._children:
            child.tell(op="lease", until=self._until())

    def close(self) -> None:
        """Starts no more children."""
        self._closed = True

    async def empty(self) -> None:
        """Returns once nothing runs; whoever asks bounds it."""
        while self.running:
            self._emptied.clear()
            await self._emptied.wait()

    async def run(self) -> None:
        """Keeps every slot filled with a child until cancelled; then ends them all."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._options.slots):
                group.create_task(self._slot())

    async def _slot(self) -> None:
        while not self._closed or not self._waiting.empty():
            try:
                child = await self._start_child(self._setup())
            except ChildFailed as problem:
                _log.error("%s", problem)
                await asyncio.sleep(random.uniform(0.5, 1.5) * START_AGAIN_S)  # noqa: S311 jitter
                continue
            self._children[child] = None
            child.tell(op="lease", until=self._until())  # it ends by itself even if this process freezes right now
            try:
                while await self._next(child):
                    pass
            finally:
                del self._children[child]
                await self._end(child)

    async def _next(self, child: ChildProcess) -> bool:
        """Waits for an attempt and runs it; False when the slot needs another child."""
        self._ready += 1
        self.freed.set()
        try:
            attempt = await self._waiting.get()
        finally:
            self._ready -= 1
        if not child.alive:  # it died while it waited, which is no attempt's fault
            self._waiting.put_nowait(attempt)
            return False
        try:
            return self._fit(child, await self._run(attempt, child))
        finally:
            self.running.pop(attempt.key, None)
            if not self.running:
                self._emptied.set()

    async def _run(self, attempt: Attempt, child: ChildProcess) -> Ending | None:
        child.attempts += 1  # until when it may live it knows: every beat tells every child
        try:
            return await attempt.run(child)
        except Exception as problem:  # a boundary: our own mistake about one attempt must not end the others
            _log.exception("attempt %d of job %s broke", attempt.job.attempt, attempt.job.id, extra=attempt.about)
            await attempt.broke(problem)
            return None

    def _fit(self, child: ChildProcess, ending: Ending | None) -> bool:
        return (
            isinstance(ending, Returned)
            and child.alive
            and child.attempts < self._options.child_attempts_max
            and ending.rss_bytes < self._options.child_rss_bytes_max
        )

    async def _end(self, child: ChildProcess) -> None:
        try:
            await child.end(term_s=0)
        except TimeoutError:
            _log.error("engine process %d cannot be ended", child.pid)

    def _setup(self) -> dict[str, Any]:
        return {
            "op": "setup",
            "engines": self._engines,
            "modules": list(self._options.engine_modules),
            "path": [str(Path(folder).absolute()) for folder in sys.path],
            "result_bytes_max": self._options.result_bytes_max,
            "memory_bytes_max": self._options.child_memory_bytes_max,
        }
