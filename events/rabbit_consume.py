"""What comes in from RabbitMQ: hints, control words, tickets. Each begins anew on each connection.

Callbacks run inside aio-pika's delivery tasks, which a lost connection cancels: they are synchronous and quick, and
no job ever runs in one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from events import hints
from events.bus import Hint, Ticket
from events.listener import calmly
from events.rabbit_link import BROKEN, CALL_S, Session
from events.rabbit_topology import (
    CONTROL_ARGUMENTS,
    CONTROL_EXCHANGE,
    EVENTS_BINDING,
    EVENTS_EXCHANGE,
    Arguments,
    fresh_queue,
    make_exchanges,
    make_ticket_queue,
    ticket_queue,
)

PREFETCH = 100  # messages of up to 256 KiB; the rest waits in RabbitMQ, bounded there
TICKET_CALL_S = 2.0  # a worker whose last slot filled waits at most this long for its consumers' goodbye

log = logging.getLogger(__name__)


async def consume_hints(
    session: Session, arguments: Arguments, on_hint: Callable[[Hint], None], on_bound: Callable[[], None]
) -> None:
    """Hands over hints until the queue is gone; a new one begins with `on_bound`."""

    def receive(message: AbstractIncomingMessage) -> None:
        on_hint(Hint(str(message.headers.get("epoch", "")), hints.split(message.body)))

    await _listen(session, (EVENTS_EXCHANGE, EVENTS_BINDING), "phaseline.tail", arguments, receive, on_bound)


async def consume_controls(session: Session, worker_id: str, on_words: Callable[[bytes], None]) -> None:
    """Hands over control words until the queue is gone."""

    def receive(message: AbstractIncomingMessage) -> None:
        on_words(message.body)

    binding = (CONTROL_EXCHANGE, worker_id)
    await _listen(session, binding, "phaseline.worker", CONTROL_ARGUMENTS, receive, lambda: None)


async def _listen(
    session: Session,
    binding: tuple[str, str],
    prefix: str,
    arguments: Arguments,
    receive: Callable[[AbstractIncomingMessage], None],
    on_bound: Callable[[], None],
) -> None:
    newest: AbstractIncomingMessage | None = None
    acknowledging = False

    async def deliver(message: AbstractIncomingMessage) -> None:
        nonlocal newest, acknowledging
        calmly(receive, message)
        newest = message
        if acknowledging:
            return  # the ack under way is followed by one for all that came meanwhile
        acknowledging = True
        try:
            while (latest := newest) is not None:
                newest = None
                await acknowledge(session, latest, with_earlier=True)
        finally:
            acknowledging = False

    await make_exchanges(session)
    async with session.channel() as channel:
        gone = asyncio.Event()
        async with session.alive(CALL_S):
            await on_gone(channel, gone.set)
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await fresh_queue(channel, prefix, arguments)
            await queue.bind(*binding)
            await queue.consume(deliver)
        calmly(on_bound)
        await gone.wait()  # for as long as the connection lives


class RabbitTickets:
    """A worker's consumers, one an engine with prefetch 1, and the tickets that arrived and wait to be taken."""

    def __init__(self, engines: Sequence[str], arguments: Arguments) -> None:
        self._engines = engines
        self._arguments = arguments
        self._arrived: asyncio.Queue[tuple[str, Session, AbstractIncomingMessage]] = asyncio.Queue(len(engines))
        self._consumers: _Consumers | None = None
        self._settling = asyncio.Lock()
        self._paused = False

    async def get(self) -> Ticket:
        engine, session, message = await self._arrived.get()
        return Ticket(engine, partial(acknowledge, session, message))

    async def pause(self) -> None:
        self._paused = True
        # First no more may come: RabbitMQ sends the next ticket the moment one is acked or given back.
        await self._settle()
        while not self._arrived.empty():
            _, session, message = self._arrived.get_nowait()
            await _give_back(session, message)

    async def resume(self) -> None:
        self._paused = False
        await self._settle()

    async def serve(self, session: Session) -> None:
        """Consumes on this session until a queue or the channel is gone."""
        for engine in self._engines:
            await make_ticket_queue(session, engine, self._arguments)
        async with session.channel() as channel:
            consumers = self._consumers = _Consumers(session, channel, self._arrive)
            try:
                async with session.alive(CALL_S):
                    await on_gone(channel, consumers.gone.set)
                    await consumers.prepare(self._engines)
                await self._settle()
                await consumers.gone.wait()  # for as long as the connection lives
            finally:
                self._consumers = None
                # RabbitMQ gives out again what was not acked on this channel.
                while not self._arrived.empty():
                    self._arrived.get_nowait()

    async def _settle(self) -> None:
        """Makes the consumers agree with `_paused`. Those that do not answer are `serve`'s to replace."""
        async with self._settling:
            if (consumers := self._consumers) is None:
                return
            try:
                await (consumers.stop() if self._paused else consumers.start())
            except BROKEN:
                # Whether they go on nobody knows: with their channel they end. On a connection that lives the rest of
                # RabbitMQ may be well, so nobody else would replace it.
                consumers.gone.set()

    async def _arrive(self, session: Session, engine: str, message: AbstractIncomingMessage) -> None:
        if self._paused or self._arrived.full():  # delivered while the consumer was being cancelled
            await _give_back(session, message)
        else:
            self._arrived.put_nowait((engine, session, message))


class _Consumers:
    """The consumers of one channel, all of them on or off, until they are `gone`."""

    def __init__(
        self,
        session: Session,
        channel: AbstractChannel,
        on_ticket: Callable[[Session, str, AbstractIncomingMessage], Awaitable[None]],
    ) -> None:
        self._session = session
        self._channel = channel
        self._on_ticket = on_ticket
        self.gone = asyncio.Event()
        self._queues: dict[str, AbstractQueue] = {}
        self._tags: dict[str, str] = {}

    async def prepare(self, engines: Sequence[str]) -> None:
        await self._channel.set_qos(prefetch_count=1)  # for each consumer, not for the channel
        for engine in engines:
            self._queues[engine] = await self._channel.get_queue(ticket_queue(engine), ensure=False)

    async def start(self) -> None:
        async with self._session.alive(TICKET_CALL_S):
            for engine, queue in self._queues.items():
                if engine not in self._tags:
                    # A new tag each time: 3.10.8 mixes up deliveries when one is used again (rabbitmq-server#5927).
                    self._tags[engine] = await queue.consume(partial(self._on_ticket, self._session, engine))

    async def stop(self) -> None:
        async with self._session.alive(TICKET_CALL_S):
            while self._tags:
                engine, tag = next(iter(self._tags.items()))
                await self._queues[engine].cancel(tag)
                del self._tags[engine]


async def acknowledge(session: Session, message: AbstractIncomingMessage, *, with_earlier: bool = False) -> None:
    """Best effort: on a dead channel RabbitMQ has the message back already and gives it out again."""
    try:
        async with session.alive(TICKET_CALL_S):
            await message.ack(multiple=with_earlier)
    except BROKEN as failure:
        log.debug("an ack was not sent: %s", failure)


async def _give_back(session: Session, message: AbstractIncomingMessage) -> None:
    # Another worker may be free for it: acked here, it would wait for that one's next poll.
    try:
        async with session.alive(TICKET_CALL_S):
            await message.nack(requeue=True)
    except BROKEN as failure:
        log.debug("a ticket was not given back: %s", failure)


async def on_gone(channel: AbstractChannel, tell: Callable[[], None]) -> None:
    """Calls `tell` when RabbitMQ cancels a consumer of this channel (its queue was deleted) or the channel closes."""
    underlay = await channel.get_underlay_channel()
    underlay.on_consumer_cancel_callbacks.add(lambda _: tell())
    channel.close_callbacks.add(lambda *_: tell())
