"""The sweeper: periodic repair. Runs in every process; a leader lease per task lets one of them act.

- `expire` finds jobs without a live worker and jobs past a deadline. It never waits for RabbitMQ.
- `tickets` tops the queues up to the number of due jobs.
- `copy` feeds the log to the RabbitMQ stream, in order, at least once.
- `schedules` makes the jobs whose ticks have come.
- `partitions` makes what the coming weeks need.
- `keys` tells the audit of API keys that expired.

While nothing is to do a process asks the log one question a second; its answer wakes what has something to do.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from events import crash_points
from events.acts import By
from events.bus import Bus
from events.catalog import Expire
from events.clock import monotonic
from events.cloudevents import cloudevent, event_id
from events.committer import Committer, new_command_id
from events.errors import BusUnavailable, Refused, Unavailable
from events.keys import Keys
from events.log import Log, Look, Overdue
from events.telemetry import Telemetry

OVERDUE_MAX = 500  # jobs expired in one pass
TICKETS_MAX = 1000  # tickets a queue is topped up to
COPY_EVENTS_MAX = 500
PARTITIONS_EVERY_S = 3600.0
KEYS_EVERY_S = 60.0
KEYS_MAX = 100  # whose expiry is told in one transaction
_BY_RABBITMQ = frozenset({"tickets", "copy"})
_KEEPS_LEAD = frozenset({"copy"})  # a page may take longer than the lease: others would begin the same one in turn
# A clock that moved more than this between two looks means this process or its database stood still. Less than that
# fits into a lease beside a beat; of a shorter lease it is a third.
GAP_S = 2.0
LOOK_S = 1.0  # between two looks at most
COPY_CHECK_S = 2.0  # between two looks whether a complete copy is still there

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
        *,
        tick: Callable[[], Awaitable[None]] | None = None,
        keys: Keys | None = None,
    ) -> None:
        """`tick` makes the jobs of schedules, of `keys` is told which expired; without them others do that."""
        self._store = log
        self._keys = keys
        self._bus = bus
        self._committer = committer
        self._holder = holder
        self._options = options
        self._pulse = Pulse(options.lease_s)
        self._metrics = (telemetry or Telemetry()).sweeper
        self._sweeps = [_Sweep("expire", self.expire), _Sweep("tickets", self.top_up_tickets)]
        if tick is not None:
            self._sweeps.append(_Sweep("schedules", tick))
        if bus.keeps_copy:
            self._sweeps.append(_Sweep("copy", self.copy))
        self._copied: str | None = None  # the cursor of a copy of ours that was complete
        self._behind = False  # the log went on since, at the last look
        self._copied_at: float | None = None  # monotonic: when the copy was last seen complete; None: others copy
        self._checked_at = float("-inf")  # monotonic: when RabbitMQ was last asked for its stream
        self._metrics.copy_lag_s.set_function(self._copy_lag_s)

    async def run(self) -> None:
        """Sweeps until cancelled; a failing pass is logged and tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_on())
            group.create_task(self._now_and_then("partitions", self._store.make_partitions, PARTITIONS_EVERY_S))
            if self._keys is not None:
                group.create_task(self._now_and_then("keys", partial(self.tell_expired, self._keys), KEYS_EVERY_S))
            for sweep in self._sweeps:
                group.create_task(self._repeat(sweep))

    # -- looking

    async def _look_on(self) -> None:
        """One question a second, on its own: a pass that takes long, over many jobs, is no gap in the pulse."""
        options = self._options
        every_s = min(options.sweep_s, options.leader_s / 3, self._pulse.gap_s / 2, LOOK_S)
        while True:
            try:
                await self._look()
            except Unavailable as away:
                self._missed("%s", away)
            except Exception:  # a boundary: without looks nothing would ever be repaired again
                self._missed("failed and is tried again", exc_info=True)
            await asyncio.sleep(every_s * random.uniform(0.8, 1.0))  # noqa: S311 jitter, so that processes spread

    async def _look(self) -> None:
        able = [sweep.name for sweep in self._sweeps if sweep.ready(monotonic()) and self._able(sweep.name)]
        lease_s = max(self._options.leader_s, self._options.sweep_s)
        seen = await self._store.look(self._holder, able, lease_s, self._copied)
        now = monotonic()
        self._pulse.feel(now, seen.now)
        for sweep in self._sweeps:
            leads = sweep.name in seen.leads
            self._led(sweep.name, leads)
            if leads and not sweep.busy and self._wanted(sweep.name, seen, now):
                sweep.wanted.set()

    def _wanted(self, name: str, seen: Look, now: float) -> bool:
        if name == "expire":
            return seen.overdue
        if name == "tickets":
            return seen.due
        if name == "schedules":
            return seen.ticks
        self._behind = seen.behind
        if self._copied is None or seen.behind:
            return True
        self._copied_at = now
        return now - self._checked_at >= COPY_CHECK_S

    def _missed(self, words: str, *values: object, exc_info: bool = False) -> None:
        _log.warning(f"a look for what to repair: {words}", *values, exc_info=exc_info)
        for sweep in self._sweeps:
            self._metrics.failed.labels(sweep.name).inc()
            self._led(sweep.name, False)

    def _able(self, name: str) -> bool:
        """Who cannot do it leaves the lead to others: one cut off from RabbitMQ, and one that has just started or stood
        still, which expires nothing for a whole lease."""
        if name == "expire":
            return self._pulse.steady()
        return name not in _BY_RABBITMQ or self._bus.connected

    def _led(self, name: str, leads: bool) -> None:
        self._metrics.leader.labels(name).set(leads)
        if name == "tickets" and not leads:
            self._metrics.due_jobs.set(0)
        if name == "copy":
            self._copied_at = (self._copied_at or monotonic()) if leads else None
            self._copied = self._copied if leads else None

    # -- doing

    async def _repeat(self, sweep: "_Sweep") -> None:
        while True:
            await sweep.wanted.wait()  # as long as nothing is to do; cancelled with the process
            sweep.wanted.clear()
            sweep.busy = True
            try:
                crash_points.reached("leader.taken")
                await sweep.work()
            except BusUnavailable as away:
                _log.debug("sweep %s waits for RabbitMQ: %s", sweep.name, away)
                sweep.rest(self._options.leader_s)
            except Unavailable as away:
                self._metrics.failed.labels(sweep.name).inc()
                _log.warning("sweep %s: %s", sweep.name, away)
            except Exception:  # a boundary: one kind of repair that breaks must not end the others, or the process
                self._metrics.failed.labels(sweep.name).inc()
                _log.exception("sweep %s failed and is tried again", sweep.name)
                sweep.rest(self._options.leader_s)
            finally:
                sweep.busy = False

    async def _now_and_then(self, name: str, work: Callable[[], Awaitable[None]], every_s: float) -> None:
        """What each process sees to by itself, one at a time: it may be done twice, and is done once."""
        while True:
            pause_s = self._options.leader_s  # until tried again: another leads, or it did not work
            try:
                if await self._store.lead(name, self._holder, self._options.leader_s):
                    self._metrics.leader.labels(name).set(True)
                    crash_points.reached("leader.taken")
                    await work()
                    pause_s = every_s
            except Unavailable as away:
                self._metrics.failed.labels(name).inc()
                _log.warning("sweep %s: %s", name, away)
            except Exception:  # a boundary, as above
                self._metrics.failed.labels(name).inc()
                _log.exception("sweep %s failed and is tried again", name)
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.0))  # noqa: S311 jitter, so that processes spread

    async def tell_expired(self, keys: Keys) -> None:
        """Expiry is nobody's deed: no request brings it about, so it is looked for."""
        while await keys.tell_expired(By("system:sweeper"), KEYS_MAX) == KEYS_MAX:
            pass

    def _copy_lag_s(self) -> float:
        return 0.0 if self._copied_at is None else monotonic() - self._copied_at

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
        copied, self._copied = self._copied, None
        if await self._bus.copy_exists():
            self._checked_at = monotonic()
            if copied is not None and not self._behind:
                self._copied = copied
                return
        else:
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
                self._copied, self._copied_at = page.cursor, monotonic()
                return
            await self._bus.append_copy([(event_id(row), cloudevent(row)) for row in page.events])
            crash_points.reached("copy.confirmed")
            cursor = page.cursor
            if not await self._store.save_cursor("copy", self._holder, cursor):
                return
            crash_points.reached("copy.cursor_saved")


class _Sweep:
    """A kind of repair, what does it, and when it is not led: while a pass runs (its lease is not renewed, so that one
    that hangs does not keep others from it) and for a while after one that broke."""

    def __init__(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self.name = name
        self.work = work
        self.wanted = asyncio.Event()
        self.busy = False
        self._rests_until = float("-inf")

    def rest(self, seconds: float) -> None:
        """Lets the lease go: another process may be able to."""
        self._rests_until = monotonic() + seconds

    def ready(self, now: float) -> bool:
        """Whether it may be led at this moment (monotonic)."""
        return now >= self._rests_until and (not self.busy or self.name in _KEEPS_LEAD)


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
