"""The copy of the log in a RabbitMQ stream: written in confirmed windows, read from its start."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage

from events.cloudevents import CONTENT_TYPE
from events.errors import BusUnavailable
from events.rabbit_consume import acknowledge, consume, headers_of, on_gone
from events.rabbit_link import CALL_S, Session
from events.rabbit_publish import WINDOW
from events.rabbit_topology import COPY_STREAM, message_count
from events.rabbit_window import Outgoing, publish

WINDOW_BYTES_MAX = 1024 * 1024  # in flight; one larger event goes alone
PREFETCH = 100
ACK_EVERY = 50  # an ack is new credit: half of it is always left, so the last ones need none
SETTLE_S = 0.5  # a chunk's messages arrive together; silence after the last known one is the end
STALLED_S = 5.0  # silence before it is not

CopyMessage = tuple[str, bytes]  # message id, structured CloudEvents JSON
_Arrived = asyncio.Queue[DeliveredMessage | None]


async def append_copy(session: Session, messages: Sequence[CopyMessage]) -> None:
    """Returns once every message is confirmed and routed. Raises `BusUnavailable`."""
    async with session.channel(returns_raise=True) as channel:
        for window in _windows(messages):
            copies = [_copy_message(*message) for message in window]
            for failure in await publish(session, channel, "", copies, within_s=CALL_S, mandatory=True):
                if failure is not None:
                    # RabbitMQ confirms what it cannot route: a return is what tells us that the stream is missing.
                    raise BusUnavailable(f"the RabbitMQ stream did not take an event: {failure}") from failure


async def read_copy(session: Session) -> AsyncGenerator[bytes, None]:
    """Every message from the first to the last that was there when reading began. Raises `BusUnavailable`."""
    if await message_count(session, COPY_STREAM) is None:
        raise BusUnavailable("There is no RabbitMQ stream yet; the leader makes it.")
    newest = await _offset_at(session, "last")
    if newest is None:
        return
    async with session.channel() as channel:
        arrived = await _consume(session, channel, "first", PREFETCH)
        offset = -1
        while message := await _next(session, arrived, SETTLE_S if offset >= newest else STALLED_S):
            offset = _offset(message)
            if offset % ACK_EVERY == 0:
                await acknowledge(session, message, with_earlier=True)
            yield message.body
        if offset < newest:
            raise BusUnavailable("the RabbitMQ stream fell silent before its end")


async def copy_start(session: Session) -> int:
    """The offset of the oldest message, 0 until retention has removed something. Raises `BusUnavailable`."""
    return await _offset_at(session, "first") or 0


async def _offset_at(session: Session, place: str) -> int | None:
    """The first offset of the oldest or newest chunk, None when the stream is empty. A queue's counters lag behind by
    seconds and are no offsets once retention has removed something; where a reader begins is exact."""
    async with session.channel() as channel:
        message = await _next(session, await _consume(session, channel, place, 1), SETTLE_S)
        return None if message is None else _offset(message)


async def _consume(session: Session, channel: AbstractChannel, offset: str, prefetch: int) -> _Arrived:
    arrived: _Arrived = asyncio.Queue()  # bounded by the prefetch
    async with session.alive(CALL_S):
        await on_gone(channel, lambda: arrived.put_nowait(None))
        await channel.set_qos(prefetch_count=prefetch)  # streams demand a prefetch and acks
        await consume(channel, COPY_STREAM, arrived.put, {"x-stream-offset": offset})
    return arrived


async def _next(session: Session, arrived: _Arrived, within_s: float) -> DeliveredMessage | None:
    """The next message, None when none comes in time or the consumer is gone."""
    async with session.alive():
        try:
            async with asyncio.timeout(within_s):
                return await arrived.get()
        except TimeoutError:
            return None


def _offset(message: DeliveredMessage) -> int:
    offset = headers_of(message)["x-stream-offset"]
    assert isinstance(offset, int)
    return offset


def _copy_message(message_id: str, body: bytes) -> Outgoing:
    return Outgoing(COPY_STREAM, body, message_id=message_id, content_type=CONTENT_TYPE, persistent=True)


def _windows(messages: Sequence[CopyMessage]) -> Iterator[list[CopyMessage]]:
    window: list[CopyMessage] = []
    size = 0
    for message in messages:
        if window and (len(window) == WINDOW or size + len(message[1]) > WINDOW_BYTES_MAX):
            yield window
            window, size = [], 0
        window.append(message)
        size += len(message[1])
    if window:
        yield window
