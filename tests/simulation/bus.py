"""The port `Bus` on a simulated RabbitMQ: hints, tickets, control words and the copy, over lines that lose and double.

The broker keeps tickets and the copy; a connection that ends takes its tail queue with it and gives back the tickets
it held. Nobody is told of a line that swallows everything until a heartbeat is missed.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from events import hints
from events.bus import Hint, Ticket, Tickets
from events.errors import BusUnavailable
from events.listener import calmly
from tests.simulation.line import Fifo, Line, Server
from tests.simulation.loop import OUTSIDE, PROCESS

WAITING_MAX = 256  # hints or words nobody has taken yet; the oldest are dropped
TICKETS_MAX = 1000
CONFIRM_S = 5.0  # deadline of a call that has an answer
RECONNECT_S = (0.2, 1.0)


class Broker(Server):
    """The server. Tickets and the copy survive its restarts."""

    def __init__(self) -> None:
        super().__init__(BusUnavailable)
        self.buses: dict[SimBus, None] = {}
        self.waiting: dict[str, int] = {}
        self.copy: list[tuple[str, bytes]] | None = None

    def crash(self) -> None:
        super().crash()
        for bus in list(self.buses):
            bus.disconnected()

    def route(self, hint: Hint) -> None:
        """To every tail there is now."""
        for bus in list(self.buses):
            for mailbox in bus.tails:
                mailbox.offer(hint)

    def tell(self, worker_id: str, words: bytes) -> None:
        """To one worker."""
        for bus in list(self.buses):
            for mailbox in bus.words.get(worker_id, ()):
                mailbox.offer(words)

    def add_tickets(self, engine: str, count: int) -> None:
        """Jobs are due."""
        self.waiting[engine] = min(self.waiting.get(engine, 0) + count, TICKETS_MAX)
        self.hand_out()

    def hand_out(self) -> None:
        """One ticket an engine to each consumer that holds none of it."""
        if not self.up or self.frozen:
            return
        takers = [taker for bus in self.buses for taker in bus.takers]
        for taker in takers:
            for engine in taker.wants():
                if self.waiting.get(engine, 0) > 0:
                    self.waiting[engine] -= 1
                    taker.hand(engine)
        # Whoever was served first is served last next time.
        for bus in list(self.buses)[:1]:
            del self.buses[bus]
            self.buses[bus] = None

    def thaw(self) -> None:
        super().thaw()
        self.hand_out()


class SimBus:
    """One process's bus. `line` is its way to the broker."""

    name = "simulated"
    keeps_copy = True

    def __init__(self, broker: Broker, line: Line | None = None) -> None:
        self.connected = False
        self.tails: dict[_Mailbox, None] = {}  # as the broker sees them
        self.words: dict[str, dict[_Mailbox, None]] = {}
        self.takers: dict[_Taker, None] = {}
        self._broker = broker
        self._line = line or Line()
        self._there = Fifo(self._line)
        self._closed = False
        self._owner = PROCESS.get()
        self._tails: dict[_Mailbox, Callable[[], None]] = {}  # as this process wants them
        self._words: dict[_Mailbox, str] = {}
        self._takers: dict[_Taker, None] = {}

    # -- the connection

    async def open(self) -> None:
        self._connect()

    async def close(self) -> None:
        self._closed = True
        self._forget()

    def dead(self) -> None:
        """The process ended: the broker hears of it at once."""
        self._closed = True
        self._forget()

    def _connect(self) -> None:
        """Tries until it is connected; in nobody's context, as the system's own timers are."""
        if self._closed or self.connected or not self._owner.alive:
            return
        if self._broker.up and not self._broker.frozen and not self._line.cut and not self._owner.frozen:
            self.connected = True
            self._broker.buses[self] = None
            for mailbox, on_bound in self._tails.items():
                self._bind(mailbox, on_bound)
            for mailbox, worker_id in self._words.items():
                self._bind_words(mailbox, worker_id)
            for taker in self._takers:
                self.takers[taker] = None
            self._broker.hand_out()
        else:
            self._again()

    def _again(self) -> None:
        pause_s = self._line.rng.uniform(*RECONNECT_S) if self._line.rng else RECONNECT_S[0]
        asyncio.get_running_loop().call_later(pause_s, self._connect, context=OUTSIDE)

    def disconnected(self) -> None:
        """The connection is gone."""
        if self.connected:
            self._forget()
            self._again()

    def _forget(self) -> None:
        self.connected = False
        self._broker.buses.pop(self, None)
        self.tails.clear()
        self.words.clear()
        self.takers.clear()
        for taker in self._takers:
            taker.dropped()

    def _bind(self, mailbox: "_Mailbox", on_bound: Callable[[], None]) -> None:
        def bound() -> None:
            if self.connected and mailbox in self._tails:
                self.tails[mailbox] = None
                mailbox.call(on_bound)

        self._line.carry(bound)

    def _bind_words(self, mailbox: "_Mailbox", worker_id: str) -> None:
        def bound() -> None:
            if self.connected and mailbox in self._words:
                self.words.setdefault(worker_id, {})[mailbox] = None

        self._line.carry(bound)

    def _send(self, call: Callable[[], None]) -> None:
        """What nobody confirms."""
        if self.connected:
            broker = self._broker
            self._there.send_unsure(lambda: broker.handle(call) if broker.up else None)

    # -- hints

    def publish(self, epoch: str, lines: Sequence[bytes]) -> None:
        for batch in hints.batches(map(hints.travelling, lines)):
            self._send(partial(self._broker.route, Hint(epoch, batch)))

    @asynccontextmanager
    async def tail(self, on_hint: Callable[[Hint], None], on_bound: Callable[[], None]) -> AsyncIterator[None]:
        mailbox = _Mailbox(on_hint, self._line)
        self._tails[mailbox] = on_bound
        if self.connected:
            self._bind(mailbox, on_bound)
        try:
            yield
        finally:
            del self._tails[mailbox]
            self.tails.pop(mailbox, None)
            mailbox.close()

    # -- tickets

    def publish_tickets(self, engine: str, count: int) -> None:
        self._send(partial(self._broker.add_tickets, engine, count))

    async def ticket_count(self, engine: str) -> int | None:
        try:
            count: int = await self._ask("count", lambda: self._broker.waiting.get(engine, 0))
        except BusUnavailable:
            return None
        return count

    @asynccontextmanager
    async def tickets(self, engines: Sequence[str]) -> AsyncIterator[Tickets]:
        taker = _Taker(self._broker, self._line, engines)
        self._takers[taker] = None
        if self.connected:
            self.takers[taker] = None
            self._line.carry(self._broker.hand_out)
        try:
            yield taker
        finally:
            del self._takers[taker]
            self.takers.pop(taker, None)
            taker.dropped()

    # -- control

    def send_control(self, worker_id: str, words: bytes) -> None:
        self._send(partial(self._broker.tell, worker_id, words))

    @asynccontextmanager
    async def controls(self, worker_id: str, on_words: Callable[[bytes], None]) -> AsyncIterator[None]:
        mailbox = _Mailbox(on_words, self._line)
        self._words[mailbox] = worker_id
        if self.connected:
            self._bind_words(mailbox, worker_id)
        try:
            yield
        finally:
            del self._words[mailbox]
            self.words.get(worker_id, {}).pop(mailbox, None)
            mailbox.close()

    # -- copy

    async def copy_exists(self) -> bool:
        return bool(await self._ask("copy exists", lambda: self._broker.copy is not None))

    async def make_copy(self) -> None:
        def make() -> None:
            if self._broker.copy is None:
                self._broker.copy = []

        await self._ask("make copy", make)

    async def append_copy(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """All of them, or some when the connection breaks among them."""
        session = self._broker.open(self._line, self._owner)

        def append(reply: Callable[..., None]) -> None:
            if self._broker.copy is None:
                reply(error=BusUnavailable("NO_ROUTE: there is no such stream"))
            elif session.line.broken() and session.line.rng:
                self._broker.copy += messages[: session.line.rng.randrange(len(messages) + 1)]
                session.lose()
            else:
                self._broker.copy += messages
                reply(None)

        await self._call("append copy", append, session)

    async def read_copy(self) -> AsyncIterator[bytes]:
        def read() -> list[bytes]:
            if self._broker.copy is None:
                raise BusUnavailable("there is no such stream")
            return [body for _, body in self._broker.copy]

        for body in await self._ask("read copy", read):
            yield body

    async def copy_start(self) -> int:
        return 0  # nothing is ever dropped here

    async def _ask(self, name: str, question: Callable[[], Any]) -> Any:
        def work(reply: Callable[..., None]) -> None:
            try:
                answer = question()
            except BusUnavailable as refusal:
                reply(error=refusal)
            else:
                reply(answer)

        return await self._call(name, work, self._broker.open(self._line, self._owner))

    async def _call(self, name: str, work: Callable[[Callable[..., None]], None], session: Any) -> Any:
        if not self.connected:
            raise BusUnavailable
        try:
            async with asyncio.timeout(CONFIRM_S):
                return await session.call(name, work)
        except TimeoutError:
            raise BusUnavailable from None
        finally:
            session.end()


class _Mailbox:
    """What is on its way to one listener: the newest messages, handed over in the listener's own process."""

    def __init__(self, listener: Callable[[Any], None], line: Line) -> None:
        self._listener = listener
        self._there = Fifo(line)
        self._context = contextvars.copy_context()
        self._waiting: deque[Any] = deque(maxlen=WAITING_MAX)
        self._turn: asyncio.Handle | None = None
        self._closed = False

    def offer(self, item: Any) -> None:
        """The broker has it."""
        self._there.send(partial(self._put, item))

    def call(self, listener: Callable[[], None]) -> None:
        """Runs something in the listener's process."""
        if not self._closed:
            asyncio.get_running_loop().call_soon(calmly, listener, context=self._context)

    def close(self) -> None:
        """Its listener left."""
        self._closed = True
        self._waiting.clear()

    def _put(self, item: Any) -> None:
        if self._closed:
            return
        self._waiting.append(item)
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._hand_over, context=self._context)

    def _hand_over(self) -> None:
        self._turn = None
        while self._waiting:
            calmly(self._listener, self._waiting.popleft())


class _Taker:
    """One worker's consumers: of each engine at most one ticket is out."""

    def __init__(self, broker: Broker, line: Line, engines: Sequence[str]) -> None:
        self._broker = broker
        self._there = Fifo(line)
        self._back = Fifo(line)
        self._engines = list(engines)
        self._out: dict[str, int] = {}  # engine -> number of its ticket that is out
        self._here: list[tuple[str, int]] = []  # arrived, not taken
        self._numbers = 0
        self._paused = False
        self._news = asyncio.Event()

    # what the broker does

    def wants(self) -> list[str]:
        """Engines it may be handed a ticket of."""
        return [] if self._paused else [engine for engine in self._engines if engine not in self._out]

    def hand(self, engine: str) -> None:
        """A ticket on its way."""
        self._numbers += 1
        number = self._out[engine] = self._numbers
        self._there.send(partial(self._arrived, engine, number))

    def dropped(self) -> None:
        """The connection or the consumer is gone: what was out is ready again."""
        out, self._out = self._out, {}
        self._here.clear()
        for engine in out:
            self._broker.add_tickets(engine, 1)

    # what the worker does

    async def get(self) -> Ticket:
        while not self._here:
            self._news.clear()
            await self._news.wait()
        engine, number = self._here.pop(0)
        return Ticket(engine, self._ack(engine, number))

    async def pause(self) -> None:
        self._paused = True
        for engine, number in self._here:
            if self._out.get(engine) == number:
                del self._out[engine]
                self._broker.add_tickets(engine, 1)
        self._here.clear()

    async def resume(self) -> None:
        self._paused = False
        self._back.send(self._broker.hand_out)

    def _arrived(self, engine: str, number: int) -> None:
        if self._out.get(engine) != number:
            return
        if self._paused:  # it was on its way when the consumer was cancelled
            del self._out[engine]
            self._broker.add_tickets(engine, 1)
            return
        self._here.append((engine, number))
        self._news.set()

    def _ack(self, engine: str, number: int) -> Callable[[], Awaitable[None]]:
        def acked() -> None:
            if self._out.get(engine) == number:
                del self._out[engine]
                self._broker.hand_out()

        async def ack() -> None:
            self._back.send(acked)

        return ack
