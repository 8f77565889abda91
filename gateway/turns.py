"""Who checks or exports the audit at this moment: it reads much, so few do at a time, and of one tenant one.

A reader that is slow keeps its turn as long as nobody else wants it. Once it has kept the gateway waiting for `PATIENCE_S` in
all, the next tenant that asks and finds no turn takes it over; the slow one is cut off, which tells its client that this is
not the end.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AT_ONCE = 2
PATIENCE_S = 30.0


class Turn:
    """One of them. Times are the event loop's."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self.cut = cut
        self._waited_s = 0.0
        self._since: float | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For its reader, while the block lasts."""
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        try:
            yield
        finally:
            self._waited_s += loop.time() - self._since
            self._since = None

    def waited_s(self) -> float:
        """For how long its reader has kept it waiting in all."""
        return self._waited_s + (0.0 if self._since is None else asyncio.get_running_loop().time() - self._since)


class Turns:
    """Those of this process."""

    def __init__(self) -> None:
        self._taken: dict[str, Turn] = {}  # by tenant

    @contextmanager
    def take(self, tenant: str, cut: Callable[[], None]) -> Iterator[Turn | None]:
        """A turn for the block, None when there is none. `cut` breaks off what the block sends, when another takes it over."""
        if not self._room_for(tenant):
            yield None
            return
        turn = self._taken[tenant] = Turn(cut)
        try:
            yield turn
        finally:
            if self._taken.get(tenant) is turn:
                del self._taken[tenant]

    def _room_for(self, tenant: str) -> bool:
        """Whether there is a turn, after the slowest reader of others was cut off if that makes it one."""
        if tenant in self._taken:
            return False
        if len(self._taken) < AT_ONCE:
            return True
        slowest = max(self._taken, key=lambda one: self._taken[one].waited_s())
        if self._taken[slowest].waited_s() < PATIENCE_S:
            return False
        self._taken.pop(slowest).cut()
        return True
