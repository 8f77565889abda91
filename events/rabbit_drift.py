"""Looks whether RabbitMQ holds what this product declares, with the same arguments, and whether it lets us work.

Changes nothing that lasts: what is missing is told, not made. What exists is declared again as we would make it, which
RabbitMQ refuses (406, naming the argument) if it differs.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from aio_pika import Message
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused

from events.errors import BusUnavailable
from events.rabbit_link import BROKEN, CALL_S, Session, connect
from events.rabbit_topology import (
    CONTROL_EXCHANGE,
    COPY_STREAM,
    EVENTS_EXCHANGE,
    Arguments,
    RabbitSettings,
    fresh_queue,
    ticket_queue,
)

OLDEST = (3, 10)


@dataclass(frozen=True, slots=True)
class Held:
    """One exchange or queue. `problem` is "" when it is as we declare it, `missing` when there is none yet, else
    RabbitMQ's words for what differs or is not allowed."""

    kind: str  # "exchange", "queue" or "stream"
    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A look at one virtual host. `carried` is "" when a message went through, else why not."""

    version: str
    carried: str
    held: list[Held]


async def look(url: str, engines: Sequence[str], settings: RabbitSettings) -> Seen:
    """Raises `BusUnavailable` when nobody answers or the login is refused."""
    try:
        session = await connect(url, "phaseline doctor")
    except BROKEN as failure:
        raise BusUnavailable(f"RabbitMQ does not answer: {failure!r}") from failure
    try:
        queues: dict[str, tuple[str, Arguments]] = {COPY_STREAM: ("stream", settings.copy)}
        queues |= {ticket_queue(engine): ("queue", settings.ticket) for engine in engines}
        held = [
            await _exchange(session, EVENTS_EXCHANGE, "topic"),
            await _exchange(session, CONTROL_EXCHANGE, "direct"),
        ]
        held += [await _queue(session, name, kind, arguments) for name, (kind, arguments) in queues.items()]
        return Seen(session.server_version, await _carried(session), held)
    except BROKEN as failure:
        raise BusUnavailable(f"RabbitMQ broke off: {failure!r}") from failure
    finally:
        await session.end()


async def _exchange(session: Session, name: str, kind: str) -> Held:
    for passive in (True, False):
        try:
            async with session.channel() as channel, session.alive(CALL_S):
                await channel.declare_exchange(name, kind, durable=True, passive=passive)
        except _REFUSED as refusal:
            return Held("exchange", name, _why(refusal))
    return Held("exchange", name, "")


async def _queue(session: Session, name: str, kind: str, arguments: Arguments) -> Held:
    for passive in (True, False):
        try:
            async with session.channel() as channel, session.alive(CALL_S):
                await channel.declare_queue(name, durable=True, passive=passive, arguments=dict(arguments))
        except _REFUSED as refusal:
            return Held(kind, name, _why(refusal))
    return Held(kind, name, "")


async def _carried(session: Session) -> str:
    """Sends one message round: a queue of our own, bound to an exchange of our own, as a gateway does."""
    word = uuid4().hex.encode()
    try:
        async with session.channel(returns_raise=True) as channel, session.alive(CALL_S):
            queue = await fresh_queue(channel, "phaseline.doctor", {})
            exchange = await channel.get_exchange(CONTROL_EXCHANGE)
            await queue.bind(exchange, routing_key=queue.name)
            await exchange.publish(Message(word), routing_key=queue.name, mandatory=True)
            while (message := await queue.get(no_ack=True, fail=False)) is None:  # noqa: ASYNC110 it was confirmed
                await asyncio.sleep(0.01)
            return "" if message.body == word else "another message came"
    except ChannelNotFoundEntity:
        return ""  # nobody made the exchange yet, which is told already
    except _REFUSED as refusal:
        return _why(refusal)
    except BusUnavailable:
        return "no message came through: a memory or disk alarm blocks publishers"


_REFUSED = (ChannelNotFoundEntity, ChannelPreconditionFailed, ChannelAccessRefused)


def _why(refusal: BaseException) -> str:
    if isinstance(refusal, ChannelNotFoundEntity):
        return "missing"
    return str(refusal).removeprefix("PRECONDITION_FAILED - ").removeprefix("ACCESS_REFUSED - ")
