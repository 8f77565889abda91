"""The sweeper: periodic repair. Runs in every process; a leader lease per task lets one of them act.

- `expire` finds jobs without a live worker and jobs past a deadline. It never waits for RabbitMQ.
- `tickets` tops the queues up to the number of due jobs.
- `copy` feeds the log to the RabbitMQ stream, in order, at least once.
- `partitions` makes what the coming weeks need.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from events import crash_points
from events.bus import Bus
from events.catalog import Expire
from events.clock import monotonic
from events.cloudevents import cloudevent, event_id
from events.committer import Committer, new_command_id
from events.errors import BusUnavailable, Refused, Unavailable
from events.log import Log, Overdue
from events.telemetry import Telemetry

OVERDUE_MAX = 500  # jobs expired in one pass
TICKETS_MAX = 1000  # tickets a queue is topped up to
COPY_EVENTS_MAX = 500
PARTITIONS_EVERY_S = 3600.0
_BY_RABBITMQ = frozenset({"tickets", "copy"})
# A clock that moved more than this between two looks means this process or its database stood still. Less than that
# fits into a lease beside a beat; of a shorter lease it is a third.
GAP_S = 2.0
PULSE_S = 1.0  # between two looks, half a gap at most

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
        self,
        log: Log,
        bus: Bus,
        committer: Committer,
        holder: str,
        options: SweeperOptions,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = log
        self._bus = bus
        self._committer = committer
        self._holder = holder
        self._options = options
        self._pulse = Pulse(options.lease_s)
        self._metrics = (telemetry or Telemetry()).sweeper
        self._renewed_at: dict[str, float] = {}  # monotonic: when what this process leads was last asked for
        self._copying = False
        self._copied_at: float | None = None  # monotonic: when the copy was last seen complete; None: others copy
        self._metrics.copy_lag_s.set_function(self._copy_lag_s)

    async def run(self) -> None:
        """Sweeps until cancelled; a failing pass is logged and tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feel_pulse())
            group.create_task(self._every(self._options.sweep_s, "expire", self.expire))
            group.create_task(self._every(self._options.sweep_s, "tickets", self.top_up_tickets))
            group.create_task(self._every(PARTITIONS_EVERY_S, "partitions", self._store.make_partitions))
            if self._bus.keeps_copy:
                group.create_task(self._every(self._options.sweep_s, "copy", self.copy))
                group.create_task(self._lead_on())

    async def _every(self, period_s: float, name: str, sweep: Callable[[], Awaitable[None]]) -> None:
        while True:
            pause_s = min(period_s, self._options.leader_s)  # until tried again: another leads, or it did not work
            try:
                lease_s = max(self._options.leader_s, period_s if name != "partitions" else 0)
                if not self._able(name):
                    self._led(name, False)
                elif await self._leads(name, lease_s):
                    crash_points.reached("leader.taken")
                    await sweep()
                    pause_s = period_s
                elif name in _BY_RABBITMQ:
                    pause_s = self._options.leader_s  # whoever leads has it for so long; only expiries are in a hurry
            except BusUnavailable as away:
                _log.debug("sweep %s waits for RabbitMQ: %s", name, away)
                await asyncio.sleep(self._options.leader_s)  # lets the lease go, as below
            except Unavailable as away:
                self._metrics.failed.labels(name).inc()
                _log.warning("sweep %s: %s", name, away)
            except Exception:  # a boundary: one kind of repair that breaks must not end the others, or the process
                self._metrics.failed.labels(name).inc()
                _log.exception("sweep %s failed and is tried again", name)
                await asyncio.sleep(self._options.leader_s)  # lets the lease go: another process may be able to
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.0))  # noqa: S311 jitter, so that processes spread

    def _able(self, name: str) -> bool:
        """Who cannot do it leaves the lead to others: one cut off from RabbitMQ, and one that has just started or stood
        still, which expires nothing for a whole lease."""
        if name == "expire":
            return self._pulse.steady()
        return name not in _BY_RABBITMQ or self._bus.connected

    async def _leads(self, name: str, lease_s: float) -> bool:
        now = monotonic()
        if now - self._renewed_at.get(name, float("-inf")) < lease_s / 2:
            return True  # nobody else can lead before the other half has passed
        leads = await self._store.lead(name, self._holder, lease_s)
        self._led(name, leads)
        if leads:
            self._renewed_at[name] = now
        return leads

    def _led(self, name: str, leads: bool) -> None:
        if not leads:
            self._renewed_at.pop(name, None)
        self._metrics.leader.labels(name).set(leads)
        if name == "tickets" and not leads:
            self._metrics.due_jobs.set(0)
        if name == "copy":
            self._copied_at = (self._copied_at or monotonic()) if leads else None

    async def _lead_on(self) -> None:
        """A page of the copy may take longer than the leader's lease: renewed meanwhile, or every other process would
        begin the same page in turn."""
        while True:
            await asyncio.sleep(self._options.leader_s / 3)
            if self._copying:
                with contextlib.suppress(Exception):  # a boundary: the pass itself meets it too, and says so
                    await self._store.lead("copy", self._holder, self._options.leader_s)

    def _copy_lag_s(self) -> float:
        return 0.0 if self._copied_at is None else monotonic() - self._copied_at

    async def _feel_pulse(self) -> None:
        """On its own: a pass that takes long, over many jobs, is no gap, and must not put off the next one."""
        every_s = min(PULSE_S, self._pulse.gap_s / 2)
        while True:
            try:
                await self._feel()
            except Unavailable:
                pass  # the gap shows at the next round trip
            except Exception:  # a boundary: without a pulse nothing would ever expire again
                _log.exception("the database's clock could not be read")
            await asyncio.sleep(every_s * random.uniform(0.8, 1.0))  # noqa: S311 jitter, so that processes spread

    async def _feel(self) -> None:
        self._pulse.feel(monotonic(), await self._store.now())

    async def expire(self) -> None:
        """Ends attempts nobody works on and jobs past their deadlines. After a gap everyone beats first."""
        found = await self._store.overdue(OVERDUE_MAX)
        if not found:
            return
        # Judged again, this pass counted: the database may have stood still while it was asked.
        await self._feel()
        if not self._pulse.steady():
            return
        crash_points.reached("sweep.found")
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
            expired = await self._committer.execute(overdue.job_id, command)
        except (Refused, Unavailable) as refusal:
            _log.debug("job %s was not expired (%s): %s", overdue.job_id, overdue.cause, refusal)
        else:
            self._metrics.expired.labels(overdue.cause).inc(bool(expired))
            about = {"job_id": overdue.job_id, "attempt": overdue.attempt, "cause": overdue.cause}
            about |= {"seq": expired[-1].seq, "event": expired[-1].type} if expired else {}
            _log.info("job %s attempt %d expired: %s", overdue.job_id, overdue.attempt, overdue.cause, extra=about)

    async def top_up_tickets(self) -> None:
        """Tickets may be lost, doubled or eaten: a queue holds about as many as jobs are due."""
        for engine, due in await self._claimable():
            waiting = await self._bus.ticket_count(engine)
            if waiting is not None and waiting < min(due, TICKETS_MAX):
                crash_points.reached("tickets.counted")
                self._bus.publish_tickets(engine, min(due, TICKETS_MAX) - waiting)

    async def _claimable(self) -> list[tuple[str, int]]:
        """Due jobs by engine, of versions a living worker runs: a ticket for any other is an empty claim."""
        counts = await self._store.due_counts()
        self._metrics.due_jobs.set(sum(counts.values()))
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
        self._copying = True
        try:
            await self._copy()
        finally:
            self._copying = False

    async def _copy(self) -> None:
        if not await self._bus.copy_exists():
            # First the cursor, then the stream: a crash in between copies again instead of leaving a hole.
            if not await self._store.save_cursor("copy", self._holder, ""):
                return  # another process leads by now, and decides what to copy
            crash_points.reached("copy.cursor_reset")
            await self._bus.make_copy()
            crash_points.reached("copy.made")
        cursor = await self._store.cursor("copy") or ""
        while True:
            page = await self._store.feed(cursor, COPY_EVENTS_MAX)
            if not page.events:
                self._copied_at = monotonic()
                return
            await self._bus.append_copy([(event_id(row), cloudevent(row)) for row in page.events])
            crash_points.reached("copy.confirmed")
            cursor = page.cursor
            leads = await self._store.lead("copy", self._holder, self._options.leader_s)
            if not leads or not await self._store.save_cursor("copy", self._holder, cursor):
                return
            crash_points.reached("copy.cursor_saved")


class Pulse:
    """Whether this process and its database have run without a gap for the whole of the last lease. PURE.

    After a pause of either, leases look expired although nobody had a chance to renew them.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self.gap_s = min(GAP_S, lease_s / 3)
        self._felt: deque[tuple[float, int]] = deque()

    def feel(self, now: float, database_ms: int) -> None:
        """One successful round trip: our monotonic seconds, the database's milliseconds."""
        if self._felt:
            before, before_ms = self._felt[-1]
            passed, passed_ms = now - before, database_ms - before_ms
            drift_s = abs(passed - passed_ms / 1000)
            if passed > self.gap_s or abs(passed_ms) > self.gap_s * 1000 or drift_s > self.gap_s:
                self._felt.clear()
        self._felt.append((now, database_ms))
        while len(self._felt) > 1 and now - self._felt[1][0] >= self._lease_s:
            self._felt.popleft()

    def steady(self) -> bool:
        """True once a whole lease passed without a gap."""
        return bool(self._felt) and self._felt[-1][0] - self._felt[0][0] >= self._lease_s
