"""The sweeper: periodic repair. Runs in every process; a leader lease per task lets one of them act.

- `expire` finds jobs without a live worker and jobs past a deadline. It never waits for RabbitMQ.
- `tickets` tops the queues up to the number of due jobs.
- `copy` feeds the log to the RabbitMQ stream, in order, at least once.
- `partitions` makes what the coming weeks need.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from events.bus import Bus
from events.catalog import Expire
from events.clock import Clock
from events.cloudevents import cloudevent, event_id
from events.committer import Committer, new_command_id
from events.errors import BusUnavailable, Refused, Unavailable
from events.log import Log, Overdue

OVERDUE_MAX = 500  # jobs expired in one pass
TICKETS_MAX = 1000  # tickets a queue is topped up to
COPY_EVENTS_MAX = 500
PARTITIONS_EVERY_S = 3600.0
GAP_S = 2.0  # a clock that moved more than this between two looks means this process or its database stood still

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweeperOptions:
    """How often it looks, how long a leader leads, and how long a worker's lease is."""

    sweep_s: float = 1.0
    leader_s: float = 3.0
    lease_s: float = 6.0


class Sweeper:
    """Owns the repair tasks of one process; `holder` names it in the leader leases."""

    def __init__(
        self, log: Log, bus: Bus, committer: Committer, holder: str, options: SweeperOptions, clock: Clock | None = None
    ) -> None:
        self._store = log
        self._bus = bus
        self._committer = committer
        self._holder = holder
        self._options = options
        self._pulse = Pulse(options.lease_s)
        self._clock = clock or Clock()

    async def run(self) -> None:
        """Sweeps until cancelled; a failing pass is logged and tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(self._options.sweep_s, "expire", self.expire))
            group.create_task(self._every(self._options.sweep_s, "tickets", self.top_up_tickets))
            group.create_task(self._every(PARTITIONS_EVERY_S, "partitions", self._store.make_partitions))
            if self._bus.keeps_copy:
                group.create_task(self._every(self._options.sweep_s, "copy", self.copy))

    async def _every(self, period_s: float, name: str, sweep: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                if name == "expire":
                    self._pulse.feel(self._clock.monotonic(), await self._store.now())
                lease_s = max(self._options.leader_s, period_s if name != "partitions" else 0)
                if await self._store.lead(name, self._holder, lease_s):
                    await sweep()
            except BusUnavailable as away:
                _log.debug("sweep %s waits for RabbitMQ: %s", name, away)
            except Unavailable as away:
                _log.warning("sweep %s: %s", name, away)
            except Exception:  # a boundary: one kind of repair that breaks must not end the others, or the process
                _log.exception("sweep %s failed and is tried again", name)
                await asyncio.sleep(self._options.leader_s)  # lets the lease go: another process may be able to
            await asyncio.sleep(period_s * random.uniform(0.8, 1.0))  # noqa: S311 jitter, so that processes spread

    async def expire(self) -> None:
        """Ends attempts nobody works on and jobs past their deadlines. After a gap everyone beats first."""
        if not self._pulse.steady():
            return
        found = await self._store.overdue(OVERDUE_MAX)
        # Judged again, this pass counted: the database may have stood still while it was asked.
        self._pulse.feel(self._clock.monotonic(), await self._store.now())
        if not self._pulse.steady():
            return
        async with asyncio.TaskGroup() as group:
            for overdue in found:
                group.create_task(self._expire(overdue))

    async def _expire(self, overdue: Overdue) -> None:
        command = Expire.model_validate(
            {
                "command_id": new_command_id(),
                "actor": "system:sweeper",
                "attempt": overdue.attempt,
                "cause": overdue.cause,
                "draw": random.random(),  # noqa: S311 jitter
            }
        )
        try:
            await self._committer.execute(overdue.job_id, command)
        except (Refused, Unavailable) as refusal:
            _log.debug("job %s was not expired (%s): %s", overdue.job_id, overdue.cause, refusal)
        else:
            _log.info("job %s attempt %d expired: %s", overdue.job_id, overdue.attempt, overdue.cause)

    async def top_up_tickets(self) -> None:
        """Tickets may be lost, doubled or eaten: a queue holds about as many as jobs are due."""
        if not self._bus.connected:
            return
        for engine, due in await self._claimable():
            waiting = await self._bus.ticket_count(engine)
            if waiting is not None and waiting < min(due, TICKETS_MAX):
                self._bus.publish_tickets(engine, min(due, TICKETS_MAX) - waiting)

    async def _claimable(self) -> list[tuple[str, int]]:
        """Due jobs by engine, of versions a living worker runs: a ticket for any other is an empty claim."""
        counts = await self._store.due_counts()
        if not counts:
            return []
        run = {declared for worker in await self._store.workers() for declared in worker.engines.items()}
        by_engine: dict[str, int] = {}
        for (engine, version), due in counts.items():
            if (engine, version) in run:
                by_engine[engine] = by_engine.get(engine, 0) + due
        return list(by_engine.items())

    async def copy(self) -> None:
        """Copies the log to the RabbitMQ stream up to its end. The cursor advances after the confirms: complete,
        at least once. A RabbitMQ stream that is missing begins again from the start of the log."""
        if not self._bus.connected:
            return
        if not await self._bus.copy_exists():
            # First the cursor, then the stream: a crash in between copies again instead of leaving a hole.
            if not await self._store.save_cursor("copy", self._holder, ""):
                return  # another process leads by now, and decides what to copy
            await self._bus.make_copy()
        cursor = await self._store.cursor("copy") or ""
        while True:
            page = await self._store.feed(cursor, COPY_EVENTS_MAX)
            if not page.events:
                return
            await self._bus.append_copy([(event_id(row), cloudevent(row)) for row in page.events])
            cursor = page.cursor
            leads = await self._store.lead("copy", self._holder, self._options.leader_s)
            if not leads or not await self._store.save_cursor("copy", self._holder, cursor):
                return


class Pulse:
    """Whether this process and its database have run without a gap for the whole of the last lease. PURE.

    After a pause of either, leases look expired although nobody had a chance to renew them.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._felt: deque[tuple[float, int]] = deque()

    def feel(self, monotonic: float, database_ms: int) -> None:
        """One successful round trip: our monotonic seconds, the database's milliseconds."""
        if self._felt:
            before, before_ms = self._felt[-1]
            passed, passed_ms = monotonic - before, database_ms - before_ms
            if passed > GAP_S or abs(passed_ms) > GAP_S * 1000 or abs(passed - passed_ms / 1000) > GAP_S:
                self._felt.clear()
        self._felt.append((monotonic, database_ms))
        while len(self._felt) > 1 and monotonic - self._felt[1][0] >= self._lease_s:
            self._felt.popleft()

    def steady(self) -> bool:
        """True once a whole lease passed without a gap."""
        return bool(self._felt) and self._felt[-1][0] - self._felt[0][0] >= self._lease_s
