"""A viewer is a cursor, not a queue: it holds the last sequence it was given and asks for what follows.

It is served from the ring or, below it, from pages of the log, whichever holds the next event. A slow one falls out of
the ring and reads the log again; it never has a queue of its own.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from events.catalog import FINAL
from events.log import Head
from gateway.direct import Direct
from gateway.replay import Replay
from gateway.ring import Entry
from gateway.watched import Watched

CHUNK_BYTES_MAX = 63 * 1024  # a batch frame of 64 KiB less its envelope; one longer event goes alone
RETRY_S = (0.1, 2.0)  # while the log does not answer
_STATUS = {"complete": "completed", "error": "failed", "cancelled": "cancelled"}


class Leaving(Exception):
    """The viewer must go now and come back after its last sequence; `reason` is a word for `goodbye`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Viewer:
    """One connection's place in one stream. `seq` is the last sequence it was given."""

    __slots__ = (
        *("seq", "_watched", "_replay", "_joined_at", "_final", "_doubt", "_live", "_waited", "_pause_s"),
        *("_leave_at", "_reason", "direct"),
    )

    def __init__(
        self,
        watched: Watched,
        replay: Replay,
        head: Head,
        after: int,
        *,
        doubt: Callable[[], None],
        live: Callable[[bytes], None],
    ) -> None:
        self.seq = after
        self._watched = watched
        self._replay = replay
        self._joined_at = head.seq
        self._final = head.status if after == head.seq and head.status in FINAL else None
        self._doubt = doubt
        self._live = live  # told the last event of what is given to a viewer that waited for it
        self._waited = False
        self._pause_s = RETRY_S[0]
        self._leave_at: float | None = None
        self._reason = ""
        self.direct: Direct | None = None  # set while nothing but events is due on its socket

    @property
    def stays(self) -> bool:
        """False once it was told to leave."""
        return self._leave_at is None

    @property
    def head(self) -> int:
        """The stream's last sequence as far as this process knows."""
        return max(self._watched.head, self._watched.beyond, self._joined_at, self.seq)

    @property
    def caught_up(self) -> bool:
        """True when everything up to the head was given."""
        return self.seq >= self.head

    @property
    def over(self) -> str | None:
        """The final status once the head was given and the status there is final; None while more may follow."""
        return self._final if self.caught_up else None

    def leave(self, at: float, reason: str) -> None:
        """Makes `next` raise `Leaving` from this moment of the loop's clock on."""
        if self._leave_at is None or at < self._leave_at:
            self._leave_at, self._reason = at, reason

    async def next(self, wait_s: float) -> list[Entry]:
        """The events after `seq`, at most 63 KiB or one; `[]` when none came within `wait_s`. Raises `Leaving`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            left_s = self._left(until, loop.time())
            ring = self._watched.ring
            entries = ring.after(self.seq) if ring is not None else []
            if ring is not None and entries is None:
                entries = await self._page(ring.start, max(left_s, 0))
            elif not entries and left_s > 0:
                await self._news(left_s)
            if entries:
                return self._given(entries)
            if left_s <= 0:
                return []

    async def idle(self, wait_s: float) -> None:
        """Waits until something after `seq` may be there, at most `wait_s`, and takes nothing. Raises `Leaving`."""
        now = asyncio.get_running_loop().time()
        left_s = self._left(now + wait_s, now)
        if self.caught_up and left_s > 0:
            await self._news(left_s)

    def _news(self, wait_s: float) -> Coroutine[Any, Any, None]:
        self._waited = True
        return self._watched.news(wait_s, self.direct)

    def _left(self, until: float, now: float) -> float:
        if self._leave_at is None:
            return until - now
        if now >= self._leave_at:
            raise Leaving(self._reason)
        return min(until, self._leave_at) - now

    async def _page(self, up_to: int, wait_s: float) -> list[Entry]:
        reading = self._replay.after(self._watched.job_id, self.seq, up_to)
        await asyncio.wait({reading}, timeout=wait_s)
        if not reading.done():
            return []
        page = reading.result()
        if page:
            self._pause_s = RETRY_S[0]
            return page
        if page is not None:
            self._doubt()  # the ring says there is more, the log does not
        await asyncio.sleep(min(self._pause_s, wait_s))
        self._pause_s = min(self._pause_s * 2, RETRY_S[1])
        return []

    def _given(self, entries: list[Entry]) -> list[Entry]:
        chunk = cut_to_chunk(entries)
        if chunk[0].seq != self.seq + 1 or chunk[-1].seq != self.seq + len(chunk):
            raise AssertionError(f"after {self.seq} came {[entry.seq for entry in chunk]}")
        self._moved(chunk[-1])
        if self._waited:
            self._waited = False
            self._live(chunk[-1].line)
        return chunk

    def went_on(self, last: Entry) -> None:
        """Its socket was given everything up to this event while it waited."""
        self._moved(last)
        self._live(last.line)

    def _moved(self, last: Entry) -> None:
        self.seq = last.seq
        self._final = _STATUS.get(last.type)
        self._watched.hear_of(self.seq)


def cut_to_chunk(entries: list[Entry]) -> list[Entry]:
    """The first of these events that make at most 63 KiB, at least one."""
    size = 0
    for index, entry in enumerate(entries):
        size += len(entry.line) + 1
        if size > CHUNK_BYTES_MAX and index:
            return entries[:index]
    return entries
