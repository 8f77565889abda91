"""Delivers completion webhooks. Runs in every process; what is owed lies in the database, and is claimed there.

Nothing here is waited for: jobs end, and streams go on, whatever a receiver does. A process sends to so many receivers at
once; one lane (a tenant and a host) gets two of these places, one tenant a quarter. A lane whose receiver takes what it gets
within a second gets a place more for each, up to half of all, and so may its tenant; the first answer that is late or bad
takes them back. Tenants take turns, and so do the lanes of each: neither many lanes nor a long one hold up others.

What is claimed together is read together, and what is answered while an outcome is written is written together next.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from events import crash_points
from events.batch import Committed
from events.catalog import TERMINAL
from events.errors import Unavailable
from events.telemetry import Telemetry
from events.webhooks import (
    GONE,
    Answer,
    Content,
    Delivery,
    DueDeliveries,
    Settled,
    State,
    Webhooks,
    backoff_s,
    body_of,
    headers_of,
)

LOOK_S = 5.0  # between two looks, when nothing is known to wait
REST_S = 1.0  # after a look that failed
LANES_MAX = 100  # of a tenant, looked at in one look
LANE_PLACES = 2  # before its receiver has shown itself quick
QUICK_MS = 1000
LEASE_MARGIN_S = 10.0  # from the end of an attempt to its being known

_log = logging.getLogger(__name__)


class Sends(Protocol):
    """What sends."""

    async def send(self, lane: str, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """Posts; never raises for what a receiver does. Lanes share nothing."""


@dataclass(frozen=True, slots=True)
class DelivererOptions:
    """How many at once, how long one may take, and how often and in which steps it is tried."""

    places: int = 16
    timeout_s: float = 15.0
    attempts_max: int = 10
    backoff_s: float = 5.0


class _Answered:
    """Attempts whose outcome is written together: at most as many as there are places."""

    def __init__(self) -> None:
        self.settled: list[Settled] = []
        self.failure: Exception | None = None


class Deliverer:
    """Owns the deliveries of one process."""

    def __init__(
        self,
        webhooks: Webhooks,
        sends: Sends,
        options: DelivererOptions | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = webhooks
        self._sends = sends
        self._options = options or DelivererOptions()
        self._metrics = (telemetry or Telemetry()).webhooks
        self._wanted = asyncio.Event()
        self._used = True  # somebody has webhooks, or had at the last look
        self._lanes: dict[str, int] = {}  # lane -> attempts under way
        self._tenants: dict[str, int] = {}
        self._earned: dict[str, int] = {}  # lane -> places, of quick ones that are owed something or sent to
        self._answered = _Answered()  # those whose outcome is written next
        self._writing = asyncio.Lock()
        self._after: dict[str, str] = {}  # of tenants with many lanes: the one after which the next look begins
        self._last_tenant = ""  # was chosen last: the next turn begins behind it
        self._last_lane: dict[str, str] = {}  # likewise, of each tenant that is owed something now
        self._metrics.sending.set_function(lambda: sum(self._lanes.values()))

    def committed(self, done: Committed) -> None:
        """This process committed something; never waits."""
        if self._used and not self._wanted.is_set() and any(row.type in TERMINAL for row in done.events):
            self._wanted.set()

    async def run(self) -> None:
        """Delivers until cancelled; what was under way then is sent again later, by whoever looks."""
        async with asyncio.TaskGroup() as group:
            while True:
                pause_s = LOOK_S * random.uniform(0.8, 1.2)  # noqa: S311 jitter, so that processes spread
                try:
                    self._wanted.clear()
                    if await self._look(group):
                        continue
                except Unavailable as away:
                    _log.warning("webhooks wait: %s", away)
                    pause_s = REST_S
                except Exception:  # a boundary: webhooks that break must not end the process
                    _log.exception("looking for webhooks failed and is tried again")
                try:
                    async with asyncio.timeout(pause_s):
                        await self._wanted.wait()
                except TimeoutError:
                    continue

    async def _look(self, group: asyncio.TaskGroup) -> bool:
        """Begins what may be begun; True when there may be more."""
        if sum(self._lanes.values()) >= self._options.places:
            return False
        secrets = {endpoint.tenant: endpoint for endpoint in await self._store.endpoints()}
        self._used = bool(secrets)
        if not self._used:
            return False
        each = max(self._earned.values(), default=LANE_PLACES)
        found = await self._store.due_deliveries(self._after, LANES_MAX, each)
        owed = {lane for lanes in found.due.values() for lane in lanes}
        self._earned = {lane: places for lane, places in self._earned.items() if lane in owed or lane in self._lanes}
        chosen, left = self._chosen(found)
        claimed = await self._store.claim_deliveries(chosen, self._lease_s()) if chosen else []
        now_ms, contents = await self._store.contents(claimed) if claimed else (0, {})
        for delivery in claimed:
            self._began(delivery, 1)
            endpoint, content = secrets.get(delivery.tenant), contents.get(delivery.id)
            signing = () if endpoint is None else endpoint.secrets_at(now_ms)
            group.create_task(self._deliver(delivery, content, signing, now_ms))
        self._after = self._onward(found, left)
        # Where all are taken or locked by others, looking again at once would find the same.
        return 0 < len(claimed) < len(chosen) or any(tenant not in left for tenant in found.reached)

    def _lease_s(self) -> float:
        return self._options.timeout_s + LEASE_MARGIN_S

    def _chosen(self, found: DueDeliveries) -> tuple[list[tuple[str, int]], dict[str, str | None]]:
        """What is sent now, and the tenants that could be sent more were there places, with the lane chosen last of each."""
        places = self._options.places - sum(self._lanes.values())
        each, most = max(self._options.places // 4, 1), max(self._options.places // 2, 1)
        lanes, tenants = dict(self._lanes), dict(self._tenants)
        self._last_lane = {tenant: self._last_lane.get(tenant, "") for tenant in found.due}
        lines = {tenant: self._in_turn(tenant, due) for tenant, due in found.due.items()}
        order = sorted(lines, key=lambda tenant: (tenant <= self._last_tenant, tenant))
        turns = [(tenants.get(tenant, 0), place, tenant) for place, tenant in enumerate(order)]
        heapq.heapify(turns)
        chosen: list[tuple[str, int]] = []
        left: dict[str, str | None] = {}
        while turns:
            sending, place, tenant = heapq.heappop(turns)
            line = lines[tenant]
            while line and lanes.get(line[-1][0], 0) >= self._places_of(line[-1][0]):
                line.pop()
            if not line:
                left.pop(tenant, None)
            elif sending >= (most if line[-1][0] in self._earned else each) or len(chosen) >= places:
                left.setdefault(tenant, None)
            else:
                lane, delivery = line.pop()
                chosen.append(delivery)
                lanes[lane] = lanes.get(lane, 0) + 1
                left[tenant] = self._last_lane[tenant] = lane
                self._last_tenant = tenant
                heapq.heappush(turns, (sending + 1, place, tenant))
        return chosen, left

    def _in_turn(self, tenant: str, due: Mapping[str, Sequence[tuple[str, int]]]) -> list[tuple[str, tuple[str, int]]]:
        """(lane, delivery): one of each lane before a second of any. The first is last."""
        last = self._last_lane[tenant]
        order = sorted(due, key=lambda lane: (lane <= last, lane))
        longest = max(map(len, due.values()))
        return [(lane, one) for nth in range(longest) for lane in order for one in due[lane][nth : nth + 1]][::-1]

    def _onward(self, found: DueDeliveries, left: Mapping[str, str | None]) -> dict[str, str]:
        """Behind which lane the next look begins, of tenants that have more lanes than one look sees."""
        onward = {tenant: lane for tenant, lane in found.reached.items() if tenant not in left}
        for tenant, lane in left.items():
            if tenant in found.reached or tenant in self._after:
                onward[tenant] = lane or self._after.get(tenant, "")
        return onward

    def _began(self, delivery: Delivery, change: int) -> None:
        for counts, name in ((self._lanes, delivery.lane), (self._tenants, delivery.tenant)):
            counts[name] = counts.get(name, 0) + change
            if not counts[name]:
                del counts[name]

    def _places_of(self, lane: str) -> int:
        return self._earned.get(lane, LANE_PLACES)

    def _paced(self, lane: str, answer: Answer) -> None:
        """Quick receivers earn a place with each answer; what they earned is gone with one that is not."""
        if not answer.good or answer.duration_ms > QUICK_MS:
            self._earned.pop(lane, None)
        elif self._places_of(lane) < self._options.places // 2:
            self._earned[lane] = self._places_of(lane) + 1

    async def _deliver(self, delivery: Delivery, content: Content | None, signing: Sequence[str], now_ms: int) -> None:
        try:
            answer = await self._answer(delivery, content, signing, now_ms)
            crash_points.reached("webhook.answered")
            self._paced(delivery.lane, answer)
            state, next_in_s = self._judged(delivery, answer)
            await self._settle(Settled(delivery, answer, state, next_in_s))
            self._told(delivery, answer, state)
        except Unavailable as away:
            _log.debug("webhook %s will be tried again: %s", delivery.id, away)
        except Exception:  # a boundary: one delivery must not end the others
            _log.exception("webhook %s failed and is tried again", delivery.id)
        finally:
            self._began(delivery, -1)
            self._wanted.set()

    async def _answer(self, delivery: Delivery, content: Content | None, signing: Sequence[str], now_ms: int) -> Answer:
        if not signing or content is None:
            return Answer(failure="erased")
        body = body_of(content)
        headers = headers_of(delivery, body, signing, now_ms)
        crash_points.reached("webhook.claimed")
        return await self._sends.send(delivery.lane, delivery.url, headers, body)

    async def _settle(self, settled: Settled) -> None:
        """Writes what became of it, with whatever else is answered until its turn comes."""
        batch = self._answered
        batch.settled.append(settled)
        async with self._writing:
            if batch is self._answered:
                self._answered = _Answered()
                try:
                    await self._store.settle_deliveries(batch.settled)
                except Exception as failure:
                    batch.failure = failure
                    raise
        if batch.failure is not None:
            raise batch.failure

    def _judged(self, delivery: Delivery, answer: Answer) -> tuple[State, float]:
        if answer.good:
            return "delivered", 0.0
        if delivery.attempt >= self._options.attempts_max or answer.status == GONE or answer.failure == "erased":
            return "abandoned", 0.0
        wait_s = backoff_s(delivery.attempt, self._options.backoff_s, random.random())  # noqa: S311 jitter
        return "pending", max(wait_s, answer.retry_after_s or 0.0)

    def _told(self, delivery: Delivery, answer: Answer, state: State) -> None:
        self._metrics.attempts.labels(state if state != "pending" else "failed").inc()
        self._metrics.answer_s.observe(answer.duration_ms / 1000)
        about = {"job_id": delivery.job_id, "seq": delivery.seq, "attempt": delivery.attempt}
        said = answer.status if answer.status is not None else answer.failure
        level = logging.WARNING if state == "abandoned" else logging.INFO
        _log.log(level, "webhook %s, attempt %d: %s (%s)", delivery.id, delivery.attempt, said, state, extra=about)
