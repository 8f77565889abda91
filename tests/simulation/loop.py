"""An event loop for many simulated processes in one thread: virtual time, one seeded order, deaths and freezes.

A context variable names the process a handle belongs to. Handles of one process run first in, first out, as asyncio
promises; which process runs next is drawn. A dead process's handles are dropped: it ends at exactly that await and
none of its `finally` blocks run, as with SIGKILL. A frozen one's are kept until it thaws, when its clock has jumped.
"""

import asyncio
import contextvars
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

STEP_S = 2e-6  # what running one handle costs, so that time moves even where nobody waits
START_S = 1000.0  # far from zero: a moment taken for "never" shows


class Process:
    """A simulated process, from its start to its death; a restart makes another one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.freezes = 0
        self.steps = 0  # handles run so far
        self.strike_at = -1  # before the handle of this number something happens to it
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self.signals: dict[int, asyncio.Handle] = {}

    def __repr__(self) -> str:
        return self.name

    @property
    def unfinished(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended."""
        self.tasks = [task for task in self.tasks if not task.done()]
        return self.tasks


WORLD = Process("world")  # servers, wires and clients: it neither dies nor freezes
PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process", default=WORLD)
OUTSIDE = contextvars.Context()  # of what belongs to no process


class Stuck(Exception):
    """The run does not come to an end."""


class SimTask(asyncio.Task[T]):
    """A task whose hash is its number, so that sets of tasks are visited in the same order in every run."""

    _numbers = itertools.count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(SimTask._numbers)  # asked for inside: asyncio keeps its tasks in a set
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimFuture(asyncio.Future[T]):
    """As `SimTask`."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._number = next(SimTask._numbers)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.AbstractEventLoop):
    """Runs until its main coroutine is done. `on_strike` decides what happens to a process whose step has come."""

    def __init__(self, rng: random.Random, *, steps_max: int = 3_000_000) -> None:
        self.steps = 0
        self.problems: list[tuple[Process, str, BaseException | None]] = []  # what nobody caught
        self.on_strike: Callable[[Process], None] = lambda _: None
        self._rng = rng
        self._steps_max = steps_max
        self._now = START_S
        self._runnable: list[Process] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Process]] = []
        self._numbers = itertools.count()
        self._running = False

    # -- what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        context = contextvars.copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(context.get(PROCESS, WORLD), handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        context = contextvars.copy_context() if context is None else context
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer, context.get(PROCESS, WORLD)))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[T]:
        task: SimTask[T] = SimTask(coro, loop=self, name=name, context=context)
        owner = PROCESS.get() if context is None else context.get(PROCESS, WORLD)
        owner.tasks.append(task)
        if len(owner.tasks) > 500:
            _ = owner.unfinished
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append((PROCESS.get(), str(context.get("message")), context.get("exception")))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asked by asyncio; a cancelled timer is skipped when its time comes."""

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        process = PROCESS.get()
        process.signals[sig] = asyncio.Handle(callback, args, self, contextvars.copy_context())

    def remove_signal_handler(self, sig: int) -> bool:
        return PROCESS.get().signals.pop(sig, None) is not None

    # -- processes

    def signal(self, process: Process, number: int) -> bool:
        """Sends a process a signal: its handler runs, or it dies of it. Says whether it lives."""
        if (handle := process.signals.get(number)) is not None:
            # A handler runs each time its signal comes.
            self._enqueue(process, asyncio.Handle(handle._callback, handle._args, self, handle._context))  # type: ignore[attr-defined]
        else:
            self.kill(process)
        return process.alive

    def spawn(self, process: Process, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs `coro` as the process."""
        context = contextvars.Context()
        context.run(PROCESS.set, process)
        return self.create_task(coro, name=process.name, context=context)

    def kill(self, process: Process) -> None:
        """Ends a process between two handles."""
        process.alive = False
        process.ready.clear()
        if process in self._runnable:
            self._runnable.remove(process)

    def freeze(self, process: Process) -> None:
        """Runs nothing of a process until `thaw`."""
        process.frozen = True
        if process in self._runnable:
            self._runnable.remove(process)

    def thaw(self, process: Process) -> None:
        """Lets a frozen process go on; everything that waited for it happens at once."""
        process.frozen = False
        if process.alive and process.ready:
            self._runnable.append(process)

    def _enqueue(self, process: Process, handle: asyncio.Handle) -> None:
        if not process.alive:
            return
        if not process.ready and not process.frozen:
            self._runnable.append(process)
        process.ready.append(handle)

    # -- running

    def run_until_complete(self, future: Any) -> Any:
        """Runs `future`, a coroutine of the world."""
        asyncio.set_event_loop(self)
        asyncio._set_running_loop(self)
        self._running = True
        try:
            main: asyncio.Task[Any] = OUTSIDE.run(lambda: self.create_task(future))
            while not main.done():
                self._step()
            return main.result()
        finally:
            self._running = False
            asyncio._set_running_loop(None)

    def _step(self) -> None:
        if self._timers and self._timers[0][0] <= self._now:
            self._due()
        if not self._runnable:
            self._sleep()
            return
        index = int(self._rng.random() * len(self._runnable)) if len(self._runnable) > 1 else 0
        process = self._runnable[index]
        if process.steps == process.strike_at:
            process.strike_at = -1
            self.on_strike(process)
            if not process.alive or process.frozen:
                return
        handle = process.ready.popleft()
        if not process.ready:
            self._runnable.remove(process)
        if handle._cancelled:
            return
        process.steps += 1
        self.steps += 1
        if self.steps > self._steps_max:
            raise Stuck(f"{self.steps} steps, and no end at {self._now - START_S:.3f} s; last was {handle!r}")
        self._now += STEP_S
        handle._run()

    def _due(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self._now:
            _, _, timer, process = heapq.heappop(timers)
            if not timer._cancelled:
                self._enqueue(process, timer)

    def _sleep(self) -> None:
        while self._timers and self._timers[0][2]._cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            raise Stuck("everybody waits, and nothing is going to happen")
        self._now = max(self._now, self._timers[0][0])
