"""The bus inside one process, for `phaseline up` and tests: as lossy as the port allows, and no more.

Everything is bounded, nothing is replayed, nothing survives the process. Callbacks run in the loop's next turn, never
inside `publish`: a listener that raises is logged and harms neither the publisher nor its neighbours.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from events import hints
from events.bus import Hint, Ticket, Tickets
from events.errors import BusUnavailable
from events.listener import calmly

HINTS_WAITING_MAX = 256  # a listener; at 256 KiB each the same 64 MiB a gateway's queue may hold at worst
CONTROLS_WAITING_MAX = 256  # a worker
TICKETS_WAITING_MAX = 1000  # an engine; more say nothing new, workers also poll

Item = TypeVar("Item")


class MemoryBus:
    """A `Bus` whose listeners live in this process. It keeps no copy: those calls raise `BusUnavailable`."""

    name = "memory"
    keeps_copy = False

    def __init__(self, *, hints_waiting_max: int = HINTS_WAITING_MAX) -> None:
        self._hints_waiting_max = hints_waiting_max
        self._tails: set[_Mailbox[Hint]] = set()
        self._controls: dict[str, set[_Mailbox[bytes]]] = {}
        self._waiting: dict[str, int] = {}
        self._takers: set[_MemoryTickets] = set()

    @property
    def connected(self) -> bool:
        return True

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        for mailbox in self._tails | set().union(*self._controls.values()):
            mailbox.close()
        self._waiting.clear()

    # -- hints

    def publish(self, epoch: str, lines: Sequence[bytes]) -> None:
        for batch in hints.batches(map(hints.travelling, lines)):
            for mailbox in self._tails:
                mailbox.put(Hint(epoch, batch))

    @asynccontextmanager
    async def tail(self, on_hint: Callable[[Hint], None], on_bound: Callable[[], None]) -> AsyncIterator[None]:
        mailbox = _Mailbox(on_hint, self._hints_waiting_max)
        self._tails.add(mailbox)
        try:
            calmly(on_bound)
            yield
        finally:
            self._tails.discard(mailbox)
            mailbox.close()

    # -- tickets

    def publish_tickets(self, engine: str, count: int) -> None:
        self._waiting[engine] = min(self._waiting.get(engine, 0) + count, TICKETS_WAITING_MAX)
        for taker in self._takers:
            taker.look_again()

    async def ticket_count(self, engine: str) -> int | None:
        return self._waiting.get(engine, 0)

    @asynccontextmanager
    async def tickets(self, engines: Sequence[str]) -> AsyncIterator[Tickets]:
        taker = _MemoryTickets(self._waiting, engines)
        self._takers.add(taker)
        try:
            yield taker
        finally:
            self._takers.discard(taker)

    # -- control

    def send_control(self, worker_id: str, words: bytes) -> None:
        for mailbox in self._controls.get(worker_id, ()):
            mailbox.put(words)

    @asynccontextmanager
    async def controls(self, worker_id: str, on_words: Callable[[bytes], None]) -> AsyncIterator[None]:
        mailbox = _Mailbox(on_words, CONTROLS_WAITING_MAX)
        self._controls.setdefault(worker_id, set()).add(mailbox)
        try:
            yield
        finally:
            mailbox.close()
            self._controls[worker_id].discard(mailbox)
            if not self._controls[worker_id]:
                del self._controls[worker_id]

    # -- copy

    async def copy_exists(self) -> bool:
        raise BusUnavailable(_NO_COPY)

    async def make_copy(self) -> None:
        raise BusUnavailable(_NO_COPY)

    async def append_copy(self, messages: Sequence[tuple[str, bytes]]) -> None:  # noqa: ARG002 nothing to append to
        raise BusUnavailable(_NO_COPY)

    def read_copy(self) -> AsyncIterator[bytes]:
        raise BusUnavailable(_NO_COPY)

    async def copy_start(self) -> int:
        raise BusUnavailable(_NO_COPY)


_NO_COPY = "The in-process bus keeps no copy of the log. Use RabbitMQ, or read the feed over HTTP."


class _Mailbox(Generic[Item]):
    """What waits for one listener: the newest `waiting_max` items, handed over in the loop's next turn."""

    def __init__(self, listener: Callable[[Item], None], waiting_max: int) -> None:
        self._listener = listener
        self._waiting: deque[Item] = deque(maxlen=waiting_max)  # a full one drops its oldest
        self._turn: asyncio.Handle | None = None

    def put(self, item: Item) -> None:
        self._waiting.append(item)
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._hand_over)

    def close(self) -> None:
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _hand_over(self) -> None:
        self._turn = None
        # Only what is there now: a listener that publishes in turn must not keep the loop from everyone else.
        for _ in range(len(self._waiting)):
            if self._waiting:  # a listener may leave while it is called
                calmly(self._listener, self._waiting.popleft())
        if self._waiting and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._hand_over)


class _MemoryTickets:
    """One worker's view of the counters: an engine whose ticket is out gives no other until the ack."""

    def __init__(self, waiting: dict[str, int], engines: Sequence[str]) -> None:
        self._waiting = waiting
        self._free = list(engines)
        self._paused = False
        self._news = asyncio.Event()

    async def get(self) -> Ticket:
        while (engine := self._next()) is None:
            self._news.clear()
            await self._news.wait()  # as long as nothing is due; whoever asks bounds it
        self._waiting[engine] -= 1
        self._free.remove(engine)
        return Ticket(engine, _once(lambda: self._acked(engine)))

    async def pause(self) -> None:
        self._paused = True

    async def resume(self) -> None:
        self._paused = False
        self.look_again()

    def look_again(self) -> None:
        self._news.set()

    def _next(self) -> str | None:
        if self._paused:
            return None
        return next((engine for engine in self._free if self._waiting.get(engine, 0) > 0), None)

    def _acked(self, engine: str) -> None:
        self._free.append(engine)  # at the end: engines take turns
        self.look_again()


def _once(act: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    done = False

    async def ack() -> None:
        nonlocal done
        if not done:
            done = True
            act()

    return ack
