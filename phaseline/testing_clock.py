"""The clock of an attempt that a test runs: time passes only while the engine sleeps. See `phaseline.testing`."""

import asyncio
import contextlib
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from typing_extensions import override

SLEEPS_MAX = 200_000  # of one attempt: one that only sleeps says nothing and would never end either
WAIT_S = 60.0  # real seconds, for a thread or a file


class Endless(BaseException):
    """The engine says, sleeps or waits too much for a test; no `except Exception` of it stops that."""


_governing: "Clock | None" = None  # the clock of the attempt that runs now; one at a time in a process


class Clock:
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
            raise Endless(f"the engine slept {SLEEPS_MAX} times and did not end: give attempt_s, or a cancel")
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


class Loop(asyncio.SelectorEventLoop):
    """Of the clock that governs: where the next thing to happen is a timer, it happens now."""

    def __init__(self) -> None:
        assert _governing is not None
        self._governed_by = _governing
        super().__init__(_Jumping(_governing))

    @override
    def time(self) -> float:
        return self._governed_by.now


class _Jumping(selectors.DefaultSelector):
    """Waits for files, and for threads, only while no timer is due."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            if ready := list(super().select(WAIT_S)):
                return ready
            raise Endless(f"the engine waited {WAIT_S:g} s for something that did not come")
        if timeout <= 0:
            return list(super().select(timeout))
        if ready := list(super().select(0)):
            return ready
        self._clock.sleep(timeout)
        return []
