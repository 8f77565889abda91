"""The feed: every event of a tenant by opaque cursor, read from the log and shared by its readers.

Hints only say when to look. The feed lags behind the streams by the transactions that still run: an event is read once
nothing can appear before it any more.
"""

import asyncio
import base64
import binascii
import logging
import random
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from events.errors import LogUnavailable
from events.log import Log
from gateway.problems import bad_parameter

PAGE_BYTES = 63 * 1024  # what one reader holds, or one event
PAGE_EVENTS = 500
LOOK_AFTER_S = (0.03, 0.3)  # after a hint, and once more: other transactions may still have run at the first look
POLL_S = (2.0, 4.0)  # without a hint, drawn evenly
FRESH_S = 1.0  # how long "nothing new" holds for the next reader who asks
RETRY_S = (0.1, 2.0)  # while the log does not answer
READS_MAX = 4  # at once
KNOWN_MAX = 1000  # cursors known to be at the end

_Key = tuple[str, str, bool]  # tenant, cursor, whether acts are shown

_SHAPES = {"postgresql": r"\d{1,9}:\d{1,19}:(-1|\d{1,18})", "sqlite": r"\d{1,9}:\d{1,18}"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events as they go to clients, the cursor behind each, and where to go on."""

    lines: list[bytes]
    cursors: list[str]
    cursor: str


class Feed:
    """One per gateway process. `spawn` gives a coroutine to the task group that owns its reads."""

    def __init__(self, store: Log, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self.reads_total = 0
        self._store = store
        self._spawn = spawn
        self._reading: dict[_Key, _Reading] = {}
        self._nothing_at: dict[_Key, float] = {}  # readers that are up to date, few different cursors
        self._waiters: set[asyncio.Future[None]] = set()
        self._stirred = False
        self._readers = 0
        self._turns = asyncio.Semaphore(READS_MAX)

    @contextmanager
    def reader(self, tenant: str, cursor: str, *, acts: bool) -> "Iterator[FeedReader]":
        """A reader behind this cursor of the log, for the block; with `acts`, for operators, shown administrative acts."""
        self._readers += 1
        try:
            yield FeedReader(self, tenant, cursor, acts=acts)
        finally:
            self._readers -= 1

    # -- cursors towards clients

    def cursor_in(self, text: str) -> str:
        """The log's cursor of a client's. Raises the 400."""
        try:
            form = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            form = ""
        kind, _, cursor = form.partition("~")
        if kind != self._store.name[0] or not re.fullmatch(_SHAPES.get(self._store.name, ""), cursor):
            raise bad_parameter("cursor", "is not one this service gave out")
        return cursor

    def cursor_out(self, cursor: str) -> str:
        """A cursor for clients."""
        return base64.urlsafe_b64encode(f"{self._store.name[0]}~{cursor}".encode()).decode().rstrip("=")

    # -- reading

    def stir(self) -> None:
        """Something was appended somewhere: readers look again in a moment."""
        if self._readers and not self._stirred:
            self._stirred = True
            for delay_s in LOOK_AFTER_S:
                asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._stirred = False
        self._nothing_at.clear()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def news(self, wait_s: float) -> None:
        """Returns when there may be more, at the latest after `wait_s`."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=wait_s)
        finally:
            self._waiters.discard(waiter)

    def after(self, tenant: str, cursor: str, since: float, *, acts: bool) -> asyncio.Future[Chunk | None]:
        """What followed a cursor at this moment of the loop's time or later: at most 63 KiB or one event; None when the
        log does not answer. Many may wait for the same future; none may cancel it."""
        key = (tenant, cursor, acts)
        reading = self._reading.get(key)
        if reading is not None and reading.began >= since:
            return reading.future
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Chunk | None] = loop.create_future()
        if self._nothing_at.get(key, float("-inf")) >= since:
            future.set_result(Chunk([], [], cursor))
        else:
            reading = _Reading(future)
            self._spawn(self._read(key, reading))
            self._reading[key] = reading
        return future

    async def _read(self, key: "_Key", reading: "_Reading") -> None:
        chunk: Chunk | None = None
        tenant, cursor, acts = key
        try:
            async with self._turns:
                reading.began = asyncio.get_running_loop().time()
                self.reads_total += 1
                page = await self._store.feed(cursor, PAGE_EVENTS, tenant, acts=acts, bytes_max=PAGE_BYTES)
            chunk = Chunk([event.line() for event in page.events], page.cursors, page.cursor)
            if not page.events:
                if len(self._nothing_at) >= KNOWN_MAX:
                    self._nothing_at.clear()
                self._nothing_at[key] = reading.began
        except LogUnavailable as outage:
            log.debug("the feed of %s after %s: %s", tenant, cursor, outage)
        except Exception:  # a boundary: one reader's page that cannot be read must not end the hub of all streams
            log.exception("the feed of %s could not be read after %s", tenant, cursor)
        finally:
            if self._reading.get(key) is reading:
                del self._reading[key]
            if not reading.future.done():
                reading.future.set_result(chunk)


@dataclass(slots=True, eq=False)
class _Reading:
    """A read of the log that several wait for. Until it has begun it may still be joined by all."""

    future: asyncio.Future[Chunk | None]
    began: float = float("inf")


class FeedReader:
    """One reader's place: `cursor` is the log's, behind the last event it was given."""

    def __init__(self, feed: Feed, tenant: str, cursor: str, *, acts: bool) -> None:
        self.cursor = cursor
        self.caught_up = False  # everything there was when this reader came was given
        self._feed = feed
        self._tenant = tenant
        self._acts = acts
        self._pause_s = RETRY_S[0]
        self._look_at = 0.0
        self._came = asyncio.get_running_loop().time()

    @property
    def position(self) -> str:
        """The cursor, as clients are given it."""
        return self._feed.cursor_out(self.cursor)

    def public(self, cursor: str) -> bytes:
        """A cursor of the log, as clients are given it."""
        return self._feed.cursor_out(cursor).encode()

    async def read(self) -> Chunk | None:
        """What follows now, nothing at the end; None when the log does not answer."""
        reading = self._feed.after(self._tenant, self.cursor, self._came, acts=self._acts)
        await asyncio.wait({reading})  # others wait for the same one: it must not be cancelled with this reader
        return self._taken(reading.result())

    async def next(self, wait_s: float) -> Chunk | None:
        """The next events; None when none came within `wait_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        if self.caught_up and self._look_at > loop.time():
            await self._feed.news(min(self._look_at - loop.time(), wait_s))
        since = loop.time() - FRESH_S if self.caught_up else self._came
        reading = self._feed.after(self._tenant, self.cursor, since, acts=self._acts)
        await asyncio.wait({reading}, timeout=max(until - loop.time(), 0.0))
        if not reading.done():
            return None
        chunk = self._taken(reading.result())
        if chunk is None:
            await asyncio.sleep(min(self._pause_s, max(until - loop.time(), 0.0)))
            self._pause_s = min(self._pause_s * 2, RETRY_S[1])
            return None
        self._pause_s = RETRY_S[0]
        self.caught_up = self.caught_up or not chunk.lines
        self._look_at = 0.0 if chunk.lines else loop.time() + random.uniform(*POLL_S)  # noqa: S311 jitter
        return chunk if chunk.lines else None

    def _taken(self, chunk: Chunk | None) -> Chunk | None:
        if chunk is not None:
            self.cursor = chunk.cursor
        return chunk
