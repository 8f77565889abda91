"""Claims: takes due jobs for free slots, when a ticket says so and now and then without one.

Tickets may be lost, doubled or eaten; polls find what they miss. A ticket is acknowledged after its claim and before
the work, so nothing in RabbitMQ ever waits for an engine.
"""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Mapping

from engine_worker.attempt import Attempt
from engine_worker.options import WorkerOptions
from engine_worker.slots import Slots
from events import crash_points
from events.batch import Claimed
from events.bus import Bus, Ticket, Tickets
from events.committer import Committer
from events.errors import LeaseLost, Unavailable
from events.job import CAREFUL_LOSSES
from events.telemetry import CLAIMS, ClaimAnswer

AGAIN_S = 0.03  # after an empty claim a poll follows: whoever held the job's row may have given it back
POLL_UNCONNECTED_S = 1.0
ACK_S = 1.0  # then the work begins all the same

_log = logging.getLogger(__name__)


class Claims:
    """`run` until cancelled, after `close`. Nothing is claimed before `log_up(True)`."""

    def __init__(
        self,
        *,
        worker_id: str,
        engines: Mapping[str, int],
        bus: Bus,
        committer: Committer,
        slots: Slots,
        options: WorkerOptions,
        attempt: Callable[[Claimed], Attempt],
        on_trouble: Callable[[], None],
    ) -> None:
        """`engines` are the versions this worker runs; `on_trouble` asks for a beat at once."""
        self._worker_id = worker_id
        self._versions = dict(engines)
        self._bus = bus
        self._committer = committer
        self._slots = slots
        self._options = options
        self._attempt = attempt
        self._on_trouble = on_trouble
        self._turn = asyncio.Lock()  # one claim at a time: `idle` and `free` must be true when it is answered
        self._open = asyncio.Event()
        self._closed = False
        self._taking = True
        self._again: asyncio.TimerHandle | None = None
        self._numbers = itertools.count()
        self._making_room = False
        self.in_flight: frozenset[int] = frozenset()
        self.answers: dict[ClaimAnswer, int] = dict.fromkeys(CLAIMS, 0)

    def log_up(self, up: bool) -> None:
        """Whether the log answers: while it does not, tickets are for others."""
        if up == self._open.is_set() or self._closed:
            return
        if up:
            self._open.set()
        else:
            self._open.clear()
        self._slots.freed.set()  # the poll sees to the tickets

    def make_room(self, wanted: bool) -> None:
        """Whether to claim nothing until nothing runs here: a job that must run alone waits for an idle worker."""
        if wanted != self._making_room:
            self._making_room = wanted
            self._slots.freed.set()

    async def close(self) -> None:
        """Claims no more; returns when the claim in flight, if any, has its answer."""
        self._closed = True
        self._open.clear()
        async with self._turn:
            return

    async def run(self) -> None:
        """Claims by tickets and by polls."""
        async with self._bus.tickets(list(self._versions)) as tickets, asyncio.TaskGroup() as group:
            group.create_task(self._by_ticket(tickets))
            group.create_task(self._by_poll(tickets))

    async def _by_ticket(self, tickets: Tickets) -> None:
        while True:
            ticket = await tickets.get()
            crash_points.reached("ticket.delivered")
            engines = {ticket.engine: self._versions[ticket.engine]}
            try:
                if not await self._take(tickets, engines, 1):
                    self._look_again_soon()
            finally:
                await _acknowledge(ticket)
            crash_points.reached("ticket.acked")

    def _look_again_soon(self) -> None:
        """The ticket itself is not kept meanwhile: the next one would wait behind it, and most empty claims only mean
        that a poll was quicker."""
        if self._again is None and self._may_claim:
            self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._slots.freed.set()

    async def _take(self, tickets: Tickets, engines: Mapping[str, int], slots: int | None = None) -> int:
        """Claims for at most `slots`, by default all that are free. Returns how many attempts it began."""
        async with self._turn:
            taken = await self._claim(engines, slots or self._slots.free)
            if taken:
                crash_points.reached("claim.answered")
            for claimed in taken:
                self._give(self._attempt(claimed))
            await self._settle(tickets)
        return len(taken)

    async def _by_poll(self, tickets: Tickets) -> None:
        while True:
            await self._poll_time()
            await self._take(tickets, self._versions)

    async def _poll_time(self) -> None:
        every_s = self._options.poll_s if self._bus.connected else min(POLL_UNCONNECTED_S, self._options.poll_s)
        try:
            async with asyncio.timeout(every_s * random.uniform(0.75, 1.25)):  # noqa: S311 jitter
                await self._slots.freed.wait()
        except TimeoutError:
            return
        finally:
            self._slots.freed.clear()

    @property
    def _may_claim(self) -> bool:
        """A job on its last loss runs alone: it may be what takes workers down."""
        running = self._slots.running
        careful = any(attempt.job.losses >= CAREFUL_LOSSES for attempt in running.values())
        return self._open.is_set() and self._slots.free > 0 and not careful and not (self._making_room and running)

    async def _claim(self, engines: Mapping[str, int], slots: int) -> list[Claimed]:
        if not self._may_claim:
            return []
        number = next(self._numbers)
        self.in_flight |= {number}
        try:
            taken = await self._committer.claim(self._worker_id, engines, slots, idle=not self._slots.running)
        except LeaseLost:
            self.answers["lease_lost"] += 1
            self._on_trouble()
        except Unavailable as problem:
            self.answers["unanswered"] += 1
            _log.warning("no answer to a claim: %s", problem)
            self.log_up(False)
            self._on_trouble()
        else:
            self.answers["taken" if taken else "empty"] += 1
            return taken
        finally:
            self.in_flight -= {number}
        return []

    def _give(self, attempt: Attempt) -> None:
        if self._closed:
            attempt.release()
        self._slots.give(attempt)

    async def _settle(self, tickets: Tickets) -> None:
        """Takes tickets only while one could be used."""
        if self._taking != self._may_claim:
            self._taking = self._may_claim
            await (tickets.resume() if self._taking else tickets.pause())


async def _acknowledge(ticket: Ticket) -> None:
    try:
        async with asyncio.timeout(ACK_S):
            await ticket.ack()
    except TimeoutError:
        _log.warning("a ticket of %s could not be acknowledged", ticket.engine)
