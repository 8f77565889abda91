"""What goes out to RabbitMQ: three lanes, each a bounded buffer and one task that empties it.

While one window of messages waits for its confirms, the buffer gathers: under load messages grow by themselves (one
costs 130–250 µs of Python whatever its size), when idle nothing waits. Hints are confirmed too, though none is ever
sent again: a confirm that misses its deadline is the only quick sign of a half-open connection.
Whatever fails is dropped. Readers repair by sequence, workers poll, beats repeat.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any
from uuid import uuid4

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import DeliveryError, PublishError

from events import hints
from events.rabbit_link import BROKEN, CALL_S, Session
from events.rabbit_topology import CONTROL_EXCHANGE, EVENTS_EXCHANGE, make_exchanges, make_ticket_queue, ticket_queue

WINDOW = 32  # confirms in flight: 20–50 saturate one event loop, 200 gain nothing (measured)
HINTS_BYTES_MAX = 4 * 1024 * 1024  # waiting in this process while a window is out
CONTROLS_MAX = 256
TICKETS_MAX = 1000  # an engine; the sweeper asks for no more either
# Tries of what was not taken. 3.10.8 nacks what reaches a quorum queue while another process is making it too (two of
# ten times); a full queue nacks as well, so it is soon given up.
TICKET_PAUSES_S = (0.05, 0.2, 0.0)

log = logging.getLogger(__name__)

Addressed = tuple[str, Message]  # routing key, message


class Lane(ABC):
    """What waits to go out, and the task that sends it."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def serve(self, session: Session) -> None:
        """Sends what is offered until the session is lost, and forgets what it could not send."""
        try:
            await self.run(session)
        finally:
            self.clear()

    @abstractmethod
    async def run(self, session: Session) -> None:
        """Sends what is offered, for ever."""

    @abstractmethod
    def clear(self) -> None:
        """Forgets what waits: after an outage it is old, and whoever it was for has asked the log by then."""

    async def drained(self) -> None:
        """Returns once nothing waits and nothing is out; the caller bounds it."""
        await self._idle.wait()

    def _wake(self) -> None:
        self._idle.clear()
        self._news.set()

    def _rest(self) -> None:
        self._news.clear()
        self._idle.set()


class _ExchangeLane(Lane):
    """Messages to one exchange, best effort: unroutable, refused or lost is the same to it."""

    exchange: str

    @abstractmethod
    def _take(self) -> list[Addressed]:
        """Everything that waits, in order, as messages; nothing waits afterwards."""

    async def run(self, session: Session) -> None:
        await make_exchanges(session)
        async with session.channel() as channel:
            exchange = await channel.get_exchange(self.exchange, ensure=False)
            while True:
                await self._news.wait()  # for something to say
                while messages := self._take():
                    for window in _windows(messages):
                        # Sends start in the order given and aiormq's channel lock is fair: messages keep their order.
                        sends = (exchange.publish(message, key, mandatory=False) for key, message in window)
                        _raise_broken(await outcomes(session, sends))
                self._rest()


class HintLane(_ExchangeLane):
    """Freshly committed lines; the oldest go when more than 4 MiB wait."""

    exchange = EVENTS_EXCHANGE

    def __init__(self, partitions: int) -> None:
        super().__init__()
        self._partitions = partitions
        self._lines: deque[tuple[str, bytes]] = deque()
        self._bytes = 0

    def offer(self, epoch: str, lines: Iterable[bytes]) -> None:
        for line in map(hints.travelling, lines):
            self._lines.append((epoch, line))
            self._bytes += len(line)
        while self._bytes > HINTS_BYTES_MAX:
            self._bytes -= len(self._lines.popleft()[1])
        self._wake()

    def clear(self) -> None:
        self._lines.clear()
        self._bytes = 0
        self._rest()

    def _take(self) -> list[Addressed]:
        groups: dict[tuple[str, int], list[bytes]] = {}
        for epoch, line in self._lines:
            groups.setdefault((epoch, hints.partition_of(line, self._partitions)), []).append(line)
        self._lines.clear()
        self._bytes = 0
        return [
            (f"p.{partition}", _hint_message(epoch, batch))
            for (epoch, partition), lines in groups.items()
            for batch in hints.batches(lines)
        ]


class ControlLane(_ExchangeLane):
    """Words for single workers; the oldest go when more than 256 wait."""

    exchange = CONTROL_EXCHANGE

    def __init__(self) -> None:
        super().__init__()
        self._words: deque[tuple[str, bytes]] = deque(maxlen=CONTROLS_MAX)

    def offer(self, worker_id: str, words: bytes) -> None:
        self._words.append((worker_id, words))
        self._wake()

    def clear(self) -> None:
        self._words.clear()
        self._rest()

    def _take(self) -> list[Addressed]:
        messages = [(worker_id, Message(words)) for worker_id, words in self._words]
        self._words.clear()
        return messages


class TicketLane(Lane):
    """Tickets to be announced, as counts. Persistent, confirmed, tried again when their queue was not ready."""

    def __init__(self) -> None:
        super().__init__()
        self._due: dict[str, int] = {}

    def offer(self, engine: str, count: int) -> None:
        if count > 0:
            self._due[engine] = min(self._due.get(engine, 0) + count, TICKETS_MAX)
            self._wake()

    def clear(self) -> None:
        self._due.clear()
        self._rest()

    async def run(self, session: Session) -> None:
        made: set[str] = set()
        async with session.channel(returns_raise=True) as channel:
            while True:
                await self._news.wait()  # for something to say
                while self._due:
                    engine, count = self._due.popitem()
                    if engine not in made:
                        await make_ticket_queue(session, engine)
                        made.add(engine)
                    await _announce(session, channel, engine, count)
                self._rest()


async def outcomes(session: Session, publishes: Iterable[Coroutine[Any, Any, object]]) -> list[Exception | None]:
    """Publishes one window; None or the failure of each, in order. Raises `BusUnavailable` when the confirms are late:
    the connection is given up then, and what RabbitMQ did with the messages is unknown."""
    async with session.alive(CALL_S, vital=True):
        async with asyncio.TaskGroup() as group:
            sent = [group.create_task(_outcome(publish)) for publish in publishes]
        return [task.result() for task in sent]


async def _outcome(publish: Coroutine[Any, Any, object]) -> Exception | None:
    try:
        await publish
    except BROKEN as failure:
        return failure
    return None


def _raise_broken(results: Iterable[Exception | None]) -> None:
    """Raises the first failure that is more than RabbitMQ declining a message."""
    for failure in results:
        if failure is not None and not isinstance(failure, DeliveryError):
            raise failure


async def _announce(session: Session, channel: AbstractChannel, engine: str, count: int) -> None:
    for pause_s in TICKET_PAUSES_S:
        count, missing = await _send_tickets(session, channel, engine, count)
        if not count:
            return
        if missing:  # somebody deleted the queue since
            await make_ticket_queue(session, engine)
        await asyncio.sleep(pause_s)
    log.debug("%d tickets of %s were not taken: their queue is full", count, engine)


async def _send_tickets(session: Session, channel: AbstractChannel, engine: str, count: int) -> tuple[int, bool]:
    """How many were not taken, and whether that is because their queue is missing."""
    left = count
    while left:
        sends = (
            channel.default_exchange.publish(_ticket(), ticket_queue(engine), mandatory=True)
            for _ in range(min(WINDOW, left))
        )
        results = await outcomes(session, sends)
        _raise_broken(results)
        left -= results.count(None)
        if any(results):
            return left, any(isinstance(failure, PublishError) for failure in results)
    return 0, False


def _ticket() -> Message:
    # The id is what aiormq matches a return by: two alike in flight would be taken for each other.
    return Message(b"", message_id=str(uuid4()), delivery_mode=DeliveryMode.PERSISTENT)


def _hint_message(epoch: str, lines: Sequence[bytes]) -> Message:
    return Message(
        hints.joined(lines),
        headers={"epoch": epoch},
        content_type="application/x-ndjson",
        delivery_mode=DeliveryMode.NOT_PERSISTENT,
    )


def _windows(messages: Sequence[Addressed]) -> Iterable[Sequence[Addressed]]:
    return (messages[start : start + WINDOW] for start in range(0, len(messages), WINDOW))
