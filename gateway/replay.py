"""Pages of the log, encoded once and shared by all viewers that need them.

Two viewers after the same sequence cause one read; what was read stays for the next ones, least recently used first
out, under one byte budget for the process. Events never change, so a page never goes stale: it only may be short.
"""

import asyncio
import logging
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from events.errors import LogUnavailable
from events.log import Log
from gateway.ring import Entry, entries_of

CACHE_BYTES_MAX = 32 * 1024 * 1024
READS_MAX = 8  # at once; more only wait in the database's pool
_ENTRY_BYTES = 200  # what an event costs besides its line

log = logging.getLogger(__name__)

Page = list[Entry]


class Replay:
    """Reads pages of streams. `spawn` gives a coroutine to the task group that owns this."""

    def __init__(
        self, store: Log, spawn: Callable[[Coroutine[Any, Any, None]], object], *, bytes_max: int = CACHE_BYTES_MAX
    ) -> None:
        self.reads_total = 0
        self._store = store
        self._spawn = spawn
        self._bytes_max = bytes_max
        self._bytes = 0
        self._pages: OrderedDict[tuple[str, int], Page] = OrderedDict()
        self._starts: dict[str, list[int]] = {}  # sorted `after` of each job's pages
        self._reading: dict[tuple[str, int], asyncio.Future[Page | None]] = {}
        self._clearings = 0
        self._turns = asyncio.Semaphore(READS_MAX)

    @property
    def kept_bytes(self) -> int:
        """What the kept pages occupy."""
        return self._bytes

    def after(self, job_id: str, after: int, up_to: int = 0) -> asyncio.Future[Page | None]:
        """The events just after `after`: a page with at least one, `[]` when the log has none, None when it does not
        answer. Many may wait for the same future; none may cancel it.

        Whoever will go on to `up_to` has the next page read while it sends the rest of this one."""
        if (reading := self._reading.get((job_id, after))) is not None:
            return reading
        if not (page := self._kept(job_id, after)):
            return self._begin(job_id, after)
        following = page[-1].seq
        if following < up_to and (job_id, following) not in self._reading and not self._kept(job_id, following):
            self._begin(job_id, following)
        future: asyncio.Future[Page | None] = asyncio.get_running_loop().create_future()
        future.set_result(page)
        return future

    def _begin(self, job_id: str, after: int) -> asyncio.Future[Page | None]:
        future: asyncio.Future[Page | None] = asyncio.get_running_loop().create_future()
        self._spawn(self._read(job_id, after, future))
        self._reading[job_id, after] = future
        return future

    def clear(self) -> None:
        """Forgets every page: the log is another one now."""
        self._pages.clear()
        self._starts.clear()
        self._bytes = 0
        self._reading.clear()  # who waits for one gets it; nobody else may
        self._clearings += 1

    def _kept(self, job_id: str, after: int) -> Page | None:
        starts = self._starts.get(job_id, [])
        place = bisect_right(starts, after)
        if not place:
            return None
        start = starts[place - 1]
        page = self._pages[job_id, start]
        self._pages.move_to_end((job_id, start))
        return page[after - start :]

    async def _read(self, job_id: str, after: int, future: asyncio.Future[Page | None]) -> None:
        page: Page | None = None
        clearings = self._clearings
        try:
            async with self._turns:
                self.reads_total += 1
                page = entries_of(await self._store.lines(job_id, after))
            if clearings == self._clearings:
                self._keep(job_id, after, page)
        except LogUnavailable as outage:
            log.debug("page of %s after %d: %s", job_id, after, outage, extra={"job_id": job_id, "after": after})
        except Exception:  # a boundary: one stream that cannot be read must not end the hub of all the others
            about = {"job_id": job_id, "after": after}
            log.exception("the log could not be read for job %s after %d", job_id, after, extra=about)
        finally:
            if self._reading.get((job_id, after)) is future:
                del self._reading[job_id, after]
            if not future.done():
                future.set_result(page)

    def _keep(self, job_id: str, after: int, page: Page) -> None:
        if not page or (job_id, after) in self._pages:
            return
        self._pages[job_id, after] = page
        insort(self._starts.setdefault(job_id, []), after)
        self._bytes += _cost(page)
        while self._bytes > self._bytes_max:
            (oldest, start), dropped = self._pages.popitem(last=False)
            self._bytes -= _cost(dropped)
            self._starts[oldest].remove(start)
            if not self._starts[oldest]:
                del self._starts[oldest]


def _cost(page: Page) -> int:
    return sum(len(entry.line) + _ENTRY_BYTES for entry in page)
