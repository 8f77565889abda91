"""What comes in from RabbitMQ: hints, control words, tickets. Each begins anew on each connection.

Callbacks run inside aiormq's delivery tasks, which a lost connection cancels: they are synchronous and quick, and
no job ever runs in one.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage

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
ACK_EVERY, ACK_S = 50, 0.1  # hints and words: half the prefetch together, or those of a tenth of a second
TICKET_CALL_S = 2.0  # a worker whose last slot filled waits at most this long for its consumers' goodbye

log = logging.getLogger(__name__)


async def consume_hints(
    session: Session, arguments: Arguments, on_hint: Callable[[Hint], None], on_bound: Callable[[], None]
) -> None:
    """Hands over hints until the queue is gone; a new one begins with `on_bound`."""

    def receive(message: DeliveredMessage) -> None:
        on_hint(Hint(str(headers_of(message).get("epoch", "")), hints.split(message.body)))

    await _listen(session, (EVENTS_EXCHANGE, EVENTS_BINDING), "phaseline.tail", arguments, receive, on_bound)


async def consume_controls(session: Session, worker_id: str, on_words: Callable[[bytes], None]) -> None:
    """Hands over control words until the queue is gone."""

    def receive(message: DeliveredMessage) -> None:
        on_words(message.body)

    binding = (CONTROL_EXCHANGE, worker_id)
    await _listen(session, binding, "phaseline.worker", CONTROL_ARGUMENTS, receive, lambda: None)


async def _listen(
    session: Session,
    binding: tuple[str, str],
    prefix: str,
    arguments: Arguments,
    receive: Callable[[DeliveredMessage], None],
    on_bound: Callable[[], None],
) -> None:
    loop, wanted = asyncio.get_running_loop(), asyncio.Event()  # an ack, or the end
    gone = False
    newest: DeliveredMessage | None = None
    owed = 0

    def end() -> None:
        nonlocal gone
        gone = True
        wanted.set()

    async def deliver(message: DeliveredMessage) -> None:
        nonlocal newest, owed
        calmly(receive, message)
        newest, owed = message, owed + 1
        if owed == 1:
            loop.call_later(ACK_S, wanted.set)
        elif owed >= ACK_EVERY:
            wanted.set()

    await make_exchanges(session)
    async with session.channel() as channel:
        async with session.alive(CALL_S):
            await on_gone(channel, end)
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await fresh_queue(channel, prefix, arguments)
            await queue.bind(*binding)
            await consume(channel, queue.name, deliver)
        calmly(on_bound)
        while not gone:
            await wanted.wait()  # for as long as the connection lives
            wanted.clear()
            if newest is not None:
                latest, newest, owed = newest, None, 0
                await acknowledge(session, latest, with_earlier=True)


async def consume(
    channel: AbstractChannel,
    queue: str,
    deliver: Callable[[DeliveredMessage], Coroutine[Any, Any, None]],
    arguments: Arguments | None = None,
) -> str:
    """Past aio-pika, which makes a second task for each message. Returns the consumer's tag, a new one each time: 3.10.8 mixes
    up deliveries when one is used again (rabbitmq-server#5927)."""
    below = await channel.get_underlay_channel()
    begun = await below.basic_consume(queue, deliver, arguments=dict(arguments or {}))
    return str(begun.consumer_tag)


def headers_of(message: DeliveredMessage) -> Mapping[str, Any]:
    """What it carries beside its body."""
    return message.header.properties.headers or {}


class RabbitTickets:
    """A worker's consumers, one an engine with prefetch 1, and the tickets that arrived and wait to be taken."""

    def __init__(self, engines: Sequence[str], arguments: Arguments) -> None:
        self._engines = engines
        self._arguments = arguments
        self._arrived: asyncio.Queue[tuple[str, Session, DeliveredMessage]] = asyncio.Queue(len(engines))
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

    async def _arrive(self, session: Session, engine: str, message: DeliveredMessage) -> None:
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
        on_ticket: Callable[[Session, str, DeliveredMessage], Coroutine[Any, Any, None]],
    ) -> None:
        self._session = session
        self._channel = channel
        self._on_ticket = on_ticket
        self.gone = asyncio.Event()
        self._engines: list[str] = []
        self._tags: dict[str, str] = {}

    async def prepare(self, engines: Sequence[str]) -> None:
        await self._channel.set_qos(prefetch_count=1)  # for each consumer, not for the channel
        self._engines = list(engines)

    async def start(self) -> None:
        async with self._session.alive(TICKET_CALL_S):
            for engine in self._engines:
                if engine not in self._tags:
                    arrive = partial(self._on_ticket, self._session, engine)
                    self._tags[engine] = await consume(self._channel, ticket_queue(engine), arrive)

    async def stop(self) -> None:
        async with self._session.alive(TICKET_CALL_S):
            below = await self._channel.get_underlay_channel()
            while self._tags:
                engine, tag = next(iter(self._tags.items()))
                await below.basic_cancel(tag)
                del self._tags[engine]


async def acknowledge(session: Session, message: DeliveredMessage, *, with_earlier: bool = False) -> None:
    """Best effort: on a dead channel RabbitMQ has the message back already and gives it out again."""
    try:
        async with session.alive(TICKET_CALL_S):
            await message.channel.basic_ack(_tag(message), multiple=with_earlier)
    except BROKEN as failure:
        log.debug("an ack was not sent: %s", failure)


async def _give_back(session: Session, message: DeliveredMessage) -> None:
    # Another worker may be free for it: acked here, it would wait for that one's next poll.
    try:
        async with session.alive(TICKET_CALL_S):
            await message.channel.basic_nack(_tag(message), requeue=True)
    except BROKEN as failure:
        log.debug("a ticket was not given back: %s", failure)


def _tag(message: DeliveredMessage) -> int:
    tag = message.delivery_tag
    assert tag is not None, "it was delivered, not asked for"
    return tag


async def on_gone(channel: AbstractChannel, tell: Callable[[], None]) -> None:
    """Calls `tell` when RabbitMQ cancels a consumer of this channel (its queue was deleted) or the channel closes."""
    underlay = await channel.get_underlay_channel()
    underlay.on_consumer_cancel_callbacks.add(lambda _: tell())
    channel.close_callbacks.add(lambda *_: tell())
