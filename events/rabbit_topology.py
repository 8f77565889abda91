"""What this product declares in RabbitMQ: every name and every argument, on one page.

Nothing existing is ever declared anew: a missing exchange or queue is made, one that is there is used as it is. So an
argument changed here later, or by an operator's policy, stops no process (RabbitMQ answers 406 to a declaration that
differs). All of it is accepted by RabbitMQ 3.10 (tested) to 4.x (from its source; a test compares).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal
from uuid import uuid4

from aio_pika.abc import AbstractChannel, AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from events.errors import BusUnavailable
from events.rabbit_link import CALL_S, Session

EVENTS_EXCHANGE = "phaseline.events"  # topic, durable; key p.<partition>
EVENTS_BINDING = "p.#"
CONTROL_EXCHANGE = "phaseline.control"  # direct, durable; key = worker id
COPY_STREAM = "phaseline.events.log"

Arguments = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class RabbitSettings:
    """Bounds of what RabbitMQ keeps for us. They apply to what is made from now on; a policy changes what exists."""

    partitions: int = 1  # keys p.0 … p.<n-1>; the same in every process of an installation
    tail_bytes_max: int = 16 * 1024 * 1024  # waiting for one gateway
    copy_age: str = "7D"  # Y, M, D, h, m or s, as RabbitMQ writes it
    copy_bytes_max: int = 5_000_000_000
    copy_segment_bytes: int = 50_000_000
    tickets: Literal["classic", "quorum"] = "classic"

    @property
    def tail(self) -> Arguments:
        return TAIL_ARGUMENTS | {"x-max-length-bytes": self.tail_bytes_max}

    @property
    def ticket(self) -> Arguments:
        return TICKET_ARGUMENTS[self.tickets]

    @property
    def copy(self) -> Arguments:
        return COPY_ARGUMENTS | {
            "x-max-age": self.copy_age,
            "x-max-length-bytes": self.copy_bytes_max,
            "x-stream-max-segment-size-bytes": self.copy_segment_bytes,
        }


# A gateway's hints. Classic, exclusive, not durable (exclusive transient queues stay allowed in 4.3).
TAIL_ARGUMENTS: dict[str, str | int] = {
    "x-max-length-bytes": 16 * 1024 * 1024,  # a frozen gateway costs the server this much, no more
    "x-overflow": "drop-head",  # what is lost is the oldest: its readers see the hole and read the log
}

# Control words to one worker. Classic, exclusive, not durable.
CONTROL_ARGUMENTS: dict[str, str | int] = {
    "x-max-length": 1000,  # beats say it all again
    "x-overflow": "drop-head",
}

# Tickets of one engine. Durable. No dead-letter queue: a ticket says nothing that the jobs table does not.
_TICKETS: dict[str, str | int] = {
    "x-max-length": 10_000,  # the sweeper keeps about 1000; beyond, one more says nothing new
    "x-overflow": "reject-publish",  # a nack: the publisher stops instead of pushing others out
}
TICKET_ARGUMENTS: dict[str, Arguments] = {
    "classic": _TICKETS,  # in memory, on one node
    "quorum": _TICKETS  # the only replicated queue in 4.x: each ticket goes to disk before it goes out
    | {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,  # explicit, since the default changed from none (3.10) to 20 (4.0)
        "x-queue-leader-locator": "balanced",  # leaders spread over a cluster, in 3.10 and 4.x alike
    },
}

# The copy of the log: a RabbitMQ stream. Durable, as streams must be. No x-overflow: streams refuse it.
COPY_ARGUMENTS: dict[str, str | int] = {
    "x-queue-type": "stream",
    "x-max-age": "7D",  # whole segments go once their newest message is older
    "x-max-length-bytes": 5_000_000_000,  # and when the stream is larger than this
    "x-stream-max-segment-size-bytes": 50_000_000,  # the default of 500 MB would let small bounds never apply
}


def ticket_queue(engine: str) -> str:
    return f"phaseline.tickets.{engine}"


async def make_exchanges(session: Session) -> None:
    """Makes the two exchanges if they are missing."""
    for name, kind in ((EVENTS_EXCHANGE, "topic"), (CONTROL_EXCHANGE, "direct")):
        await _make_missing(session, partial(_declare_exchange, name, kind))


async def make_ticket_queue(session: Session, engine: str, arguments: Arguments) -> None:
    """Makes an engine's ticket queue if it is missing."""
    await _make_durable(session, ticket_queue(engine), arguments)


async def make_copy(session: Session, settings: RabbitSettings) -> None:
    """Makes the RabbitMQ stream if it is missing. Raises `BusUnavailable` for one RabbitMQ remembers and cannot find."""
    try:
        await _make_durable(session, COPY_STREAM, settings.copy)
    except ChannelNotFoundEntity as lost:
        said = str(lost).partition("\n")[0]
        raise BusUnavailable(
            f"RabbitMQ has lost its stream, see docs/rabbitmq.md, or a node of it is down: {said}"
        ) from lost


async def delete_copy(session: Session) -> None:
    """Deletes the RabbitMQ stream with all it holds; nothing when there is none."""
    async with session.channel() as channel, session.alive(CALL_S):
        await channel.queue_delete(COPY_STREAM)


async def message_count(session: Session, queue: str) -> int | None:
    """How many messages wait in a queue, None when there is no such queue."""
    try:
        async with session.channel() as channel, session.alive(CALL_S):
            found = await channel.declare_queue(queue, passive=True)
            return found.declaration_result.message_count or 0
    except ChannelNotFoundEntity:
        return None


async def fresh_queue(channel: AbstractChannel, prefix: str, arguments: Arguments) -> AbstractQueue:
    """An exclusive queue under a name no connection ever had: RabbitMQ may still hold the old one for a while."""
    name = f"{prefix}.{uuid4()}"
    return await channel.declare_queue(name, exclusive=True, durable=False, arguments=dict(arguments))


async def _declare_exchange(name: str, kind: str, channel: AbstractChannel, passive: bool) -> None:
    await channel.declare_exchange(name, kind, durable=True, passive=passive)


async def _make_durable(session: Session, name: str, arguments: Arguments) -> None:
    await _make_missing(
        session,
        lambda channel, passive: channel.declare_queue(name, durable=True, passive=passive, arguments=dict(arguments)),
    )


async def _make_missing(session: Session, declare: Callable[[AbstractChannel, bool], Awaitable[object]]) -> None:
    # A refused declaration closes its channel: each gets one of its own.
    for passive in (True, False):
        try:
            async with session.channel() as channel, session.alive(CALL_S):
                await declare(channel, passive)
                return
        except ChannelNotFoundEntity:
            if not passive:
                raise
        except ChannelPreconditionFailed:
            return  # another process made it meanwhile, with other arguments: used as it is
