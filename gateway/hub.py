"""One per gateway process: the bus tail, the rings of the watched jobs, and their repair from the log (architecture §7).

Hints may be lost, doubled, late or out of order. An event enters a ring only as the next one; anything else makes the
job stale, and one read of the log, shared by all its viewers, repairs it. Heads are compared with the log after every
bind and every few seconds, so a lost hint costs time and never an event.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from events.bus import Bus, Hint
from events.clock import Clock, monotonic
from events.errors import LogUnavailable
from events.log import Head, Log
from events.record import job_id_of
from events.telemetry import GatewayMetrics, Telemetry
from gateway.departures import Departures
from gateway.feed import Feed
from gateway.heads import ENDING, Heads
from gateway.lag import Lag
from gateway.replay import READS_MAX, Replay
from gateway.ring import EVENTS_MAX, entries_of
from gateway.viewer import Viewer
from gateway.watched import Watched

COMPARE_S = (2.0, 4.0)  # between two comparisons of all heads, drawn evenly
POLL_S = (0.25, 2.0)  # without the bus: from, backing off to
BOUND_AGAIN_S = 2.0  # a hint published just before the bind may commit a moment after the first comparison
DEAF_S = 15.0  # comparing every few seconds, of which one may time out
LATE_HINT_S = 0.1  # a head seen in the log is given this long to arrive as a hint before it counts as lost
HEADS_MAX = 5000  # jobs a query
RINGS_BYTES_MAX = 64 * 1024 * 1024  # of all rings together
WATCHED_MAX = 20_000  # jobs with a viewer: an empty ring is about 3 KiB
RETRY_S = (0.05, 2.0)  # while the log does not answer
GOODBYES_PER_S = 50  # few viewers need no window at all
LEAVE_S = 5.0  # after the goodbye window, for the last viewers to close

log = logging.getLogger(__name__)


class TooManyWatched(Exception):
    """This process watches as many jobs as it may."""


class Hub:
    """`run` must be alive while anything is watched."""

    def __init__(
        self,
        store: Log,
        bus: Bus,
        *,
        rng: random.Random | None = None,
        watched_max: int = WATCHED_MAX,
        telemetry: Telemetry | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.replay = Replay(store, self._spawn)
        self.heads = Heads(store, self._spawn)
        self.feed = Feed(store, self._spawn)
        self.departures = Departures()
        self.closing = False
        self.repairs_total = 0
        self.sweep_repairs_total = 0  # lost hints found only by comparing; should stay 0
        self._store = store
        self._bus = bus
        self._rng = rng or random.Random()  # noqa: S311 jitter
        self._watched: dict[str, Watched] = {}
        self._full: OrderedDict[Watched, None] = OrderedDict()  # rings that hold bytes, least recently fed first
        self._ring_bytes = 0
        self._compare_now = asyncio.Event()
        self._turns = asyncio.Semaphore(READS_MAX)
        self._tasks: asyncio.TaskGroup | None = None
        self._epoch = ""  # the lineage of the log that the rings were filled from
        self._foreign_epoch = ""  # the last other one that hints came from
        self._foreign_asked = False  # whether the log is still to be asked about it
        self._left = asyncio.Event()  # a viewer left
        self._compared_at = 0.0  # monotonic; of no meaning while nothing is watched
        self._binds_total = 0
        self._watched_max = watched_max
        metrics = (telemetry or Telemetry()).gateway
        self.lag = Lag(clock or Clock(), metrics.lag_s)
        self._doubt, self._live = self._compare_now.set, self.lag.take  # once for all viewers
        self._measured_by(metrics)

    def _measured_by(self, metrics: GatewayMetrics) -> None:
        metrics.viewers.set_function(lambda: self.viewers)
        metrics.watched.set_function(lambda: self.watched_jobs)
        metrics.ring_bytes.set_function(lambda: self.ring_bytes)
        metrics.page_bytes.set_function(lambda: self.replay.kept_bytes)
        metrics.reads.set_function(lambda: self.replay.reads_total)
        metrics.stale.set_function(lambda: sum(watched.stale for watched in self._watched.values()))
        metrics.tail_age_s.set_function(lambda: self.tail_age_s)
        metrics.binds.set_function(lambda: self._binds_total)
        metrics.repairs.set_function(lambda: self.repairs_total)
        metrics.sweep_repairs.set_function(lambda: self.sweep_repairs_total)

    # -- viewers

    def watch(self, job_id: str) -> AbstractAsyncContextManager[Watched]:
        """Keeps a job's ring fed while the block lasts. Read the head from the log inside it, then `follow`.

        Raises `TooManyWatched`."""
        return _Watching(self, job_id)

    def follow(self, watched: Watched, head: Head, after: int) -> AbstractAsyncContextManager[Viewer]:
        """A viewer at `after`. `head` was read from the log after the watch began."""
        return _Following(self, watched, head, after)

    def begin(self, job_id: str) -> Watched:
        """What `watch` does first."""
        watched = self._watched.get(job_id)
        if watched is None:
            if len(self._watched) >= self._watched_max:
                raise TooManyWatched
            watched = self._watched[job_id] = Watched(job_id)
        watched.uses += 1
        return watched

    def end(self, watched: Watched) -> None:
        """What `watch` does last."""
        watched.uses -= 1
        if not watched.uses:
            self._forget(watched)

    def join(self, watched: Watched, head: Head, after: int) -> Viewer:
        """What `follow` does first."""
        if self._store.epoch != self._epoch:
            self._notice_epoch()
        watched.admit(head.seq)
        self._mend(watched)
        viewer = Viewer(watched, self.replay, head, after, doubt=self._doubt, live=self._live)
        watched.viewers[viewer] = None
        if self._watched.get(watched.job_id) is not watched:  # replaced since the watch began: no hint reaches it
            viewer.leave(0.0, "log_replaced")
        return viewer

    def part(self, watched: Watched, viewer: Viewer) -> None:
        """What `follow` does last."""
        del watched.viewers[viewer]
        self._left.set()

    @property
    def running(self) -> bool:
        """False before `run` and when it ended: streams would get nothing new."""
        return self._tasks is not None

    @property
    def tail_age_s(self) -> float:
        """Since the heads of the watched jobs were last compared with the log: until then lost hints stay unheard."""
        return monotonic() - self._compared_at if self._watched else 0.0

    @property
    def deaf(self) -> bool:
        """True when viewers would not hear of new events: nothing finds what hints have lost."""
        return self.tail_age_s > DEAF_S

    @property
    def viewers(self) -> int:
        """Open streams."""
        return sum(len(watched.viewers) for watched in self._watched.values())

    @property
    def watched_jobs(self) -> int:
        """Jobs somebody follows: one ring each."""
        return len(self._watched)

    @property
    def watched_jobs_max(self) -> int:
        """How many there may be."""
        return self._watched_max

    @property
    def ring_bytes(self) -> int:
        """Of all rings."""
        return self._ring_bytes

    async def say_goodbye(self, window_s: float) -> None:
        """Sends every viewer away, each at its own moment within the window or less when they are few; returns when
        they are gone, or soon."""
        self.closing = True
        window_s = min(window_s, (self.viewers + self.departures.expected) / GOODBYES_PER_S)
        self.departures.begin(window_s)
        loop = asyncio.get_running_loop()
        for watched in self._watched.values():
            for viewer in watched.viewers:
                viewer.leave(loop.time() + self._rng.uniform(0, window_s), "restarting")
            watched.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(window_s + LEAVE_S):
                while self.viewers:
                    self._left.clear()
                    await self._left.wait()
                await self.departures.all_gone()

    # -- tasks

    async def run(self) -> None:
        """Follows the bus and compares heads until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._epoch = self._store.epoch
            try:
                async with self._bus.tail(self._on_hint, self._on_bound):
                    await self._compare_forever()
            finally:
                self._tasks = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._tasks is not None:
            with suppress(RuntimeError):  # it is ending already
                return self._tasks.create_task(work)
        work.close()
        raise LogUnavailable(ENDING)

    # -- hints

    def _on_hint(self, hint: Hint) -> None:
        if hint.epoch != self._epoch:
            self._on_foreign(hint.epoch)
            return
        touched: dict[Watched, None] = {}
        for line in hint.lines:
            try:
                watched = self._watched.get(job_id_of(line))
                if watched is not None:
                    watched.take(line)
                    touched[watched] = None
            except ValueError:
                log.warning("a hint carried a line that is no event: %.80r", line)
        for watched in touched:
            self._fed(watched)
        self.feed.stir()

    def _on_foreign(self, epoch: str) -> None:
        """Somebody appends to another lineage of the log: what the rings hold may not be true there."""
        if epoch != self._foreign_epoch:
            log.warning("events of epoch %s arrived, the log here was %s; viewers reconnect", epoch, self._epoch)
            self._foreign_epoch = epoch
            self._foreign_asked = True
            self._compare_now.set()

    def _notice_epoch(self) -> None:
        """After the log was asked: another lineage, there or in a hint, sends every viewer away once."""
        if self._store.epoch != self._epoch:
            log.warning("the log was restored: its epoch is %s now, it was %s", self._store.epoch, self._epoch)
            self._foreign_epoch, self._epoch = self._epoch, self._store.epoch  # hints from before may still come
        elif not self._foreign_asked:
            return
        self._foreign_asked = False
        self._replace(list(self._watched.values()))

    def _on_bound(self) -> None:
        self._binds_total += 1
        self._compare_now.set()
        asyncio.get_running_loop().call_later(BOUND_AGAIN_S, self._compare_now.set)

    def _fed(self, watched: Watched) -> None:
        self._account(watched)
        watched.wake_soon()
        self._mend(watched)

    def _account(self, watched: Watched) -> None:
        """Counts what the ring grew by; over the budget the rings that were fed longest ago are emptied."""
        self._ring_bytes += watched.grown()
        if watched.ring is not None and watched.ring.size and watched.uses:
            self._full[watched] = None
            self._full.move_to_end(watched)
        while self._ring_bytes > RINGS_BYTES_MAX and self._full:
            self._empty(next(iter(self._full)))

    def _empty(self, watched: Watched) -> None:
        self._full.pop(watched, None)
        if watched.ring is not None:
            watched.ring.empty()
            self._ring_bytes += watched.grown()

    def _forget(self, watched: Watched) -> None:
        if self._watched.get(watched.job_id) is watched:
            del self._watched[watched.job_id]
        self._empty(watched)

    def _replace(self, lost: Iterable[Watched]) -> None:
        """The log is not the one these rings were filled from: their viewers reconnect and ask it again."""
        self.replay.clear()
        for watched in lost:
            if self._watched.get(watched.job_id) is watched:
                del self._watched[watched.job_id]
            for viewer in watched.viewers:
                viewer.leave(0.0, "log_replaced")
            watched.wake()

    # -- repair

    def _mend(self, watched: Watched) -> None:
        if watched.stale and not watched.mending and self._tasks is not None:
            watched.mending = True
            self._spawn(self._read_missing(watched))

    async def _read_missing(self, watched: Watched) -> None:
        """Reads what the ring lacks; a hole heard of meanwhile causes another read."""
        pause_s = RETRY_S[0]
        try:
            while watched.uses and watched.stale:
                try:
                    await self._read_once(watched)
                except LogUnavailable:
                    await asyncio.sleep(self._rng.uniform(RETRY_S[0], pause_s))
                    pause_s = min(pause_s * 2, RETRY_S[1])
        except Exception:  # a boundary: one stream that cannot be read must not end the hub of all the others
            log.exception("job %s could not be repaired from the log", watched.job_id, extra={"job_id": watched.job_id})
        finally:
            watched.mending = False

    async def _read_once(self, watched: Watched) -> None:
        ring = watched.ring
        assert ring is not None
        wanted = watched.beyond
        async with self._turns:
            self.repairs_total += 1
            if wanted - ring.head > EVENTS_MAX and (head := await self._store.head(watched.job_id)) is not None:
                ring.skip_to(head.seq - EVENTS_MAX)  # viewers read what is older from pages they share
            page = entries_of(await self._store.lines(watched.job_id, ring.head))
        if not page and watched.beyond == wanted:
            watched.beyond = ring.head  # a hint told of something the log does not know
            self._compare_now.set()
        for entry in page:
            ring.offer(entry)
        self._account(watched)
        watched.wake()

    # -- comparing

    async def _compare_forever(self) -> None:
        loop = asyncio.get_running_loop()
        poll_s = POLL_S[0]
        last = loop.time()
        due_s = 0.0
        while True:
            asked = await self._asked_within(POLL_S[0])
            limit_s = due_s if self._bus.connected else min(due_s, poll_s)
            if not asked and loop.time() - last < limit_s:
                continue
            poll_s = POLL_S[0] if await self._compare_calmly() else min(poll_s * 1.5, POLL_S[1])
            last = loop.time()
            due_s = self._rng.uniform(*COMPARE_S)

    async def _asked_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._compare_now.wait()
        except TimeoutError:
            return False
        self._compare_now.clear()
        return True

    async def _compare_calmly(self) -> bool:
        try:
            return await self._compare()
        except LogUnavailable as outage:
            log.debug("heads were not compared: %s", outage)
        except Exception:  # a boundary: without this loop no lost hint is ever found again
            log.exception("heads could not be compared")
        return False

    async def _compare(self) -> bool:
        """Asks the log for the heads of all watched jobs; says whether one had moved unheard."""
        known = {job_id: watched.head for job_id, watched in self._watched.items() if watched.ring is not None}
        heads = await self._heads(list(known))
        self._compared_at = monotonic()
        self._notice_epoch()
        behind = []
        for job_id, before in known.items():
            watched = self._watched.get(job_id)
            if watched is None or watched.ring is None:
                continue
            head = heads.get(job_id)
            if head is None or head.seq < before:
                self._replace([watched])
            elif head.seq > watched.head:
                behind.append((watched, head.seq))
        return await self._catch_up(behind)

    async def _heads(self, job_ids: list[str]) -> dict[str, Head]:
        heads: dict[str, Head] = {}
        for start in range(0, len(job_ids), HEADS_MAX):
            heads |= await self._store.heads(job_ids[start : start + HEADS_MAX])
        return heads

    async def _catch_up(self, behind: list[tuple[Watched, int]]) -> bool:
        if behind and self._bus.connected:
            await asyncio.sleep(LATE_HINT_S)
        lost = [(watched, seq) for watched, seq in behind if watched.uses and watched.head < seq]
        for watched, seq in lost:
            self.sweep_repairs_total += self._bus.connected
            watched.hear_of(seq)
            self._mend(watched)
        return bool(lost)


class _Watching:
    """The block of `Hub.watch`. No generator: of those each viewer would keep a frame."""

    __slots__ = ("_hub", "_job_id", "_watched")

    def __init__(self, hub: Hub, job_id: str) -> None:
        self._hub = hub
        self._job_id = job_id

    async def __aenter__(self) -> Watched:
        self._watched = self._hub.begin(self._job_id)
        return self._watched

    async def __aexit__(self, *_: object) -> None:
        self._hub.end(self._watched)


class _Following:
    """The block of `Hub.follow`, likewise."""

    __slots__ = ("_after", "_head", "_hub", "_viewer", "_watched")

    def __init__(self, hub: Hub, watched: Watched, head: Head, after: int) -> None:
        self._hub = hub
        self._watched = watched
        self._head = head
        self._after = after

    async def __aenter__(self) -> Viewer:
        self._viewer = self._hub.join(self._watched, self._head, self._after)
        return self._viewer

    async def __aexit__(self, *_: object) -> None:
        self._hub.part(self._watched, self._viewer)
