"""What goes out to RabbitMQ: three lanes, each a bounded buffer and one task that empties it.

While one window of messages waits for its confirms, the buffer gathers: under load messages grow by themselves, when
idle nothing waits. Hints are confirmed too, though none is ever
sent again: a confirm that misses its deadline is the only quick sign of a half-open connection.
Whatever fails is dropped. Readers repair by sequence, workers poll, beats repeat.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from uuid import uuid4

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import PublishError

from events import crash_points, hints
from events.rabbit_link import CALL_S, Session
from events.rabbit_topology import (
    CONTROL_EXCHANGE,
    EVENTS_EXCHANGE,
    Arguments,
    make_exchanges,
    make_ticket_queue,
    ticket_queue,
)
from events.rabbit_window import Outgoing, publish

WINDOW = 32  # confirms in flight: 20–50 saturate one event loop, 200 gain nothing (measured)
HINTS_BYTES_MAX = 4 * 1024 * 1024  # waiting in this process while a window is out
CONTROLS_MAX = 256
TICKETS_MAX = 1000  # an engine; the sweeper asks for no more either
# Tries of what was not taken. 3.10.8 nacks what reaches a quorum queue while another process is making it too (two of
# ten times); a full queue nacks as well, so it is soon given up.
TICKET_PAUSES_S = (0.05, 0.2, 0.0)

log = logging.getLogger(__name__)


class Lane(ABC):
    """What waits to go out, and the task that sends it."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.dropped = 0  # given up before it was sent

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

    name: str
    exchange: str

    @abstractmethod
    def _take(self) -> list[Outgoing]:
        """Everything that waits, in order, as messages; nothing waits afterwards."""

    async def run(self, session: Session) -> None:
        await make_exchanges(session)
        async with session.channel() as channel:
            while True:
                await self._news.wait()  # for something to say
                while messages := self._take():
                    crash_points.reached(f"{self.name}.taken")
                    for window in _windows(messages):
                        await publish(session, channel, self.exchange, window, within_s=CALL_S)
                    crash_points.reached(f"{self.name}.confirmed")
                self._rest()


class HintLane(_ExchangeLane):
    """Freshly committed lines; the oldest go when more than 4 MiB wait."""

    name = "hints"
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
            self.dropped += 1
        self._wake()

    def clear(self) -> None:
        self.dropped += len(self._lines)
        self._lines.clear()
        self._bytes = 0
        self._rest()

    def _take(self) -> list[Outgoing]:
        groups: dict[tuple[str, int], list[bytes]] = {}
        for epoch, line in self._lines:
            groups.setdefault((epoch, hints.partition_of(line, self._partitions)), []).append(line)
        self._lines.clear()
        self._bytes = 0
        return [
            Outgoing(f"p.{partition}", hints.joined(batch), content_type="application/x-ndjson", epoch=epoch)
            for (epoch, partition), lines in groups.items()
            for batch in hints.batches(lines)
        ]


class ControlLane(_ExchangeLane):
    """Words for single workers; the oldest go when more than 256 wait."""

    name = "control"
    exchange = CONTROL_EXCHANGE

    def __init__(self) -> None:
        super().__init__()
        self._words: deque[tuple[str, bytes]] = deque(maxlen=CONTROLS_MAX)

    def offer(self, worker_id: str, words: bytes) -> None:
        self.dropped += len(self._words) == CONTROLS_MAX
        self._words.append((worker_id, words))
        self._wake()

    def clear(self) -> None:
        self.dropped += len(self._words)
        self._words.clear()
        self._rest()

    def _take(self) -> list[Outgoing]:
        messages = [Outgoing(worker_id, words) for worker_id, words in self._words]
        self._words.clear()
        return messages


class TicketLane(Lane):
    """Tickets to be announced, as counts. Confirmed, tried again when their queue was not ready. Not persistent: what a
    restart of RabbitMQ loses, the sweeper announces again."""

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self._arguments = arguments
        self._due: dict[str, int] = {}

    def offer(self, engine: str, count: int) -> None:
        if count > 0:
            wanted = self._due.get(engine, 0) + count
            self._due[engine] = min(wanted, TICKETS_MAX)
            self.dropped += wanted - self._due[engine]
            self._wake()

    def clear(self) -> None:
        self.dropped += sum(self._due.values())
        self._due.clear()
        self._rest()

    async def run(self, session: Session) -> None:
        made: set[str] = set()
        async with session.channel(returns_raise=True) as channel:
            while True:
                await self._news.wait()  # for something to say
                while self._due:
                    engine = next(iter(self._due))  # the one that waits longest
                    count = self._due.pop(engine)
                    crash_points.reached("tickets.taken")
                    if engine not in made:
                        await make_ticket_queue(session, engine, self._arguments)
                        made.add(engine)
                    await self._announce(session, channel, engine, count)
                self._rest()

    async def _announce(self, session: Session, channel: AbstractChannel, engine: str, count: int) -> None:
        for pause_s in TICKET_PAUSES_S:
            count, missing = await _send_tickets(session, channel, engine, count)
            if not count:
                return
            if missing:  # somebody deleted the queue since
                await make_ticket_queue(session, engine, self._arguments)
            await asyncio.sleep(pause_s)
        log.debug("%d tickets of %s were not taken: their queue is full", count, engine)


async def _send_tickets(session: Session, channel: AbstractChannel, engine: str, count: int) -> tuple[int, bool]:
    """How many were not taken, and whether that is because their queue is missing."""
    queue = ticket_queue(engine)
    left = count
    while left:
        # The id is what a return is matched by: two alike in flight would be taken for each other.
        tickets = [Outgoing(queue, b"", message_id=str(uuid4())) for _ in range(min(WINDOW, left))]
        answers = await publish(session, channel, "", tickets, within_s=CALL_S, mandatory=True)
        crash_points.reached("tickets.confirmed")
        left -= answers.count(None)
        if any(answers):
            return left, any(isinstance(failure, PublishError) for failure in answers)
    return 0, False


def _windows(messages: Sequence[Outgoing]) -> Iterable[Sequence[Outgoing]]:
    return (messages[start : start + WINDOW] for start in range(0, len(messages), WINDOW))
