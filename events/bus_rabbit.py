"""The bus over RabbitMQ: says when to look, never what happened.

What each part promises: `rabbit_link` one connection after another, `rabbit_publish` what goes out, `rabbit_consume`
what comes in, `rabbit_copy` the RabbitMQ stream, `rabbit_topology` every name and argument. Publishing and consuming
have connections of their own: RabbitMQ blocks publishers when it is short of memory or disk, and a blocked
connection delivers nothing either.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress

from events import rabbit_copy
from events.bus import Hint, Tickets
from events.errors import BusUnavailable
from events.rabbit_consume import RabbitTickets, consume_controls, consume_hints
from events.rabbit_link import BROKEN, Link, Session
from events.rabbit_publish import ControlLane, HintLane, Lane, TicketLane
from events.rabbit_topology import COPY_STREAM, RabbitSettings, delete_copy, make_copy, message_count, ticket_queue
from events.telemetry import Telemetry

__all__ = ["RabbitBus", "RabbitSettings"]

FLUSH_S = 1.0  # what a closing process gives its last hints
CLOSE_S = 8.0  # two goodbyes of 2 s each, politely and not, beside each other, and some air

_log = logging.getLogger(__name__)


class RabbitBus:
    """A `Bus` over one RabbitMQ server or cluster. `name` names the process in RabbitMQ's list of connections.

    No call raises or waits because RabbitMQ is away, except the copy's, which raise `BusUnavailable`.
    """

    name = "rabbitmq"
    keeps_copy = True

    def __init__(
        self, url: str, *, name: str, settings: RabbitSettings | None = None, telemetry: Telemetry | None = None
    ) -> None:
        self._settings = settings or RabbitSettings()
        self._publishing = Link(url, f"{name} publishing")
        self._consuming = Link(url, f"{name} consuming", listening=True)
        self._hints = HintLane(self._settings.partitions)
        self._tickets = TicketLane(self._settings.ticket)
        self._controls = ControlLane()
        self._group: asyncio.TaskGroup | None = None
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        metrics = (telemetry or Telemetry()).bus
        metrics.connected.set_function(lambda: self.connected)
        metrics.dropped.set_function(lambda: self._hints.dropped, "hints")
        metrics.dropped.set_function(lambda: self._tickets.dropped, "tickets")
        metrics.dropped.set_function(lambda: self._controls.dropped, "controls")

    @property
    def connected(self) -> bool:
        return self._publishing.session is not None and self._consuming.session is not None

    async def open(self) -> None:
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        for link in (self._publishing, self._consuming):
            self._begin(link.run())
        for lane in self._lanes:
            self._begin(self._publishing.keep(lane.serve))

    async def close(self) -> None:
        if self._group is None:
            return
        self._group = None
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                for lane in self._lanes if self.connected else ():
                    await lane.drained()
        for task in self._tasks:
            task.cancel()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._stack.aclose()
        except TimeoutError:  # the process ends, and its sockets with it: no reason to end it as a failure
            _log.warning("RabbitMQ's connections were not closed in order within %g s", CLOSE_S)

    # -- hints

    def publish(self, epoch: str, lines: Sequence[bytes]) -> None:
        if self._publishing.session is not None:
            self._hints.offer(epoch, lines)
        else:
            self._hints.dropped += len(lines)

    @asynccontextmanager
    async def tail(self, on_hint: Callable[[Hint], None], on_bound: Callable[[], None]) -> AsyncIterator[None]:
        arguments = self._settings.tail
        async with self._consume(lambda session: consume_hints(session, arguments, on_hint, on_bound)):
            yield

    # -- tickets

    def publish_tickets(self, engine: str, count: int) -> None:
        if self._publishing.session is not None:
            self._tickets.offer(engine, count)
        else:
            self._tickets.dropped += count

    async def ticket_count(self, engine: str) -> int | None:
        try:
            return await message_count(self._publishing.now(), ticket_queue(engine)) or 0
        except BROKEN:
            return None

    @asynccontextmanager
    async def tickets(self, engines: Sequence[str]) -> AsyncIterator[Tickets]:
        tickets = RabbitTickets(engines, self._settings.ticket)
        async with self._consume(tickets.serve):
            yield tickets

    # -- control

    def send_control(self, worker_id: str, words: bytes) -> None:
        if self._publishing.session is not None:
            self._controls.offer(worker_id, words)
        else:
            self._controls.dropped += 1

    @asynccontextmanager
    async def controls(self, worker_id: str, on_words: Callable[[bytes], None]) -> AsyncIterator[None]:
        async with self._consume(lambda session: consume_controls(session, worker_id, on_words)):
            yield

    # -- copy

    async def copy_exists(self) -> bool:
        with _unavailable():
            return await message_count(self._publishing.now(), COPY_STREAM) is not None

    async def make_copy(self) -> None:
        with _unavailable():
            await make_copy(self._publishing.now(), self._settings)

    async def delete_copy(self) -> None:
        """Deletes the RabbitMQ stream: the leader makes it again, from the start of the log. Raises `BusUnavailable`."""
        with _unavailable():
            await delete_copy(self._publishing.now())

    async def append_copy(self, messages: Sequence[tuple[str, bytes]]) -> None:
        with _unavailable():
            await rabbit_copy.append_copy(self._publishing.now(), messages)

    async def read_copy(self) -> AsyncIterator[bytes]:
        with _unavailable():
            async with aclosing(rabbit_copy.read_copy(self._consuming.now())) as messages:
                async for message in messages:
                    yield message

    async def copy_start(self) -> int:
        with _unavailable():
            return await rabbit_copy.copy_start(self._consuming.now())

    # -- tasks

    @property
    def _lanes(self) -> tuple[Lane, ...]:
        return (self._hints, self._tickets, self._controls)

    @asynccontextmanager
    async def _consume(self, work: Callable[[Session], Coroutine[None, None, None]]) -> AsyncIterator[None]:
        task = self._begin(self._consuming.keep(work))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})  # at most the goodbye to its channel, 2 s

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            raise RuntimeError("open the bus before using it")
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except BusUnavailable:
        raise
    except BROKEN as failure:
        raise BusUnavailable(f"RabbitMQ does not answer: {failure}") from failure
