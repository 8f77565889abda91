"""Who must be told to leave at shutdown and follows no single job: readers of the feed, sockets of many jobs."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager


class Departure:
    """One connection's. `due` is done when it must leave."""

    def __init__(self) -> None:
        self.due: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def now(self) -> None:
        """It is time."""
        if not self.due.done():
            self.due.set_result(None)


class Departures:
    """All of a process."""

    def __init__(self) -> None:
        self._open: dict[Departure, None] = {}  # in order, so that a simulated run repeats
        self._closing = False
        self._left = asyncio.Event()

    @property
    def expected(self) -> int:
        """Open connections."""
        return len(self._open)

    @contextmanager
    def announced(self) -> Iterator[Departure]:
        """A connection that is told in time, as long as the block lasts."""
        departure = Departure()
        self._open[departure] = None
        if self._closing:
            departure.now()
        try:
            yield departure
        finally:
            self._open.pop(departure, None)
            self._left.set()

    def begin(self, window_s: float) -> None:
        """Tells each at its own moment within the window."""
        self._closing = True
        loop = asyncio.get_running_loop()
        for departure in self._open:
            loop.call_later(random.uniform(0, window_s), departure.now)  # noqa: S311 jitter

    async def all_gone(self) -> None:
        """Waits for the last; the caller bounds it."""
        while self._open:
            self._left.clear()
            await self._left.wait()
