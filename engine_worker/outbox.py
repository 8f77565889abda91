"""What one attempt has said and the log does not have yet: in order, bounded, progress thinned."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from engine_worker.coalesce import Coalescer
from events.catalog import Progress, Said
from events.clock import monotonic
from events.log import Artifact

EVENTS_MAX = 256  # unsent; then the child's socket fills, and then its engine waits
BYTES_MAX = 1024 * 1024
REPORT_EVENTS_MAX = 200
ENTRY_BYTES = 256  # what an event occupies beside its values, about


@dataclass(frozen=True, slots=True)
class Entry:
    """An event to report, the bytes it occupies, and the value stored beside it."""

    event: Said
    size: int
    artifact: Artifact | None = None


class Outbox:
    """One task puts, one takes."""

    def __init__(self) -> None:
        self._coalescer = Coalescer()
        self._entries: list[Entry] = []
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Event()  # for the taker
        self._room = asyncio.Event()  # for the putter

    async def put(self, entry: Entry, *, mark: bool = False) -> None:
        """Adds an event behind the others, waiting for room first. After `close` nothing is kept."""
        while not self._closed and self._entries and (len(self._entries) >= EVENTS_MAX or self._bytes >= BYTES_MAX):
            self._room.clear()
            await self._room.wait()
        if self._closed:
            return
        now = monotonic()
        if isinstance(entry.event, Progress):
            self._append(self._coalescer.offer(entry.event, now, mark=mark))
        else:
            self._append(self._coalescer.flush(now))
            self._entries.append(entry)
            self._bytes += entry.size
        self._changed.set()

    async def take(self) -> list[Entry]:
        """The next events to report, waiting until there are some; none once closed and empty."""
        while not self._entries:
            if due_at := self._coalescer.due_at():
                if self._closed or due_at <= monotonic():
                    self._append(self._coalescer.flush(monotonic()))
                    continue
            elif self._closed:
                return []
            await self._wait(due_at)
        taken, self._entries = self._entries[:REPORT_EVENTS_MAX], self._entries[REPORT_EVENTS_MAX:]
        self._bytes -= sum(entry.size for entry in taken)
        self._room.set()
        return taken

    def rest(self) -> list[Entry]:
        """Everything that waits, for the command that ends the attempt; a taker finds nothing afterwards."""
        self._append(self._coalescer.flush(monotonic()))
        rest, self._entries, self._bytes = self._entries, [], 0
        return rest

    def close(self, *, drop: bool = False) -> None:
        """Nothing follows; with `drop` nothing of what waits is wanted either."""
        self._closed = True
        if drop:
            self._entries.clear()
            self._coalescer = Coalescer()
        self._changed.set()
        self._room.set()

    @property
    def empty(self) -> bool:
        """Whether the log has everything, or a taker is about to see to it."""
        return not self._entries

    def _append(self, progress: Sequence[Progress]) -> None:
        for event in progress:
            entry = Entry(event, ENTRY_BYTES + len(event.message or ""))
            self._entries.append(entry)
            self._bytes += entry.size

    async def _wait(self, until: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(None if until is None else max(until - monotonic(), 0.0)):
                await self._changed.wait()
        except TimeoutError:
            return
