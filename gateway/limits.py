"""What one client may do to a gateway, so that others are served: rates by key and by address, sockets by address, jobs
in a tenant's queue. Every limit answers 429 or 4429 and when to come back.

Each gateway counts for itself: behind n of them a client may do n times as much. Who comes from this machine is not
held by address: it is the operator, or a proxy that is to be named (`PHASELINE_TRUSTED_PROXIES`).
"""

import asyncio
import ipaddress
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from aiohttp import web
from aiolimiter import AsyncLimiter

from events.committer import QUEUE_BYTES_MAX, QUEUE_COMMANDS_MAX
from events.errors import LogUnavailable, Refused
from events.log import JobQuery, Log
from events.telemetry import GatewayMetrics, Limit
from gateway.problems import Problem

WINDOW_S = 10.0  # a client may use this much of its rate at once
CLIENTS_MAX = 20_000  # whose rates are remembered: who was seen longest ago begins anew
COUNTED_S = 1.0  # how old a tenant's count of queued jobs may be
QUEUE_S = 5  # when to come back to a full one
SUBSCRIPTIONS_A_CONNECTION = 2  # on average, of all sockets of an address, and of a process: some 10 KiB each
# Bytes of bodies that have arrived in part: of a tenant, and of all. Whoever sends all but the end holds them for seconds.
ARRIVING_BYTES_MAX = 64 * 1024 * 1024
ALL_ARRIVING_BYTES_MAX = 256 * 1024 * 1024
# Of what may wait in this process to be written, so that what others say finds room at once. Bytes are those of requests.
WAITING_COMMANDS_MAX = QUEUE_COMMANDS_MAX // 2
WAITING_BYTES_MAX = QUEUE_BYTES_MAX // 2
BODY_BYTES = web.RequestKey("body_bytes", int)  # of a request whose body was read


@dataclass(frozen=True, slots=True)
class Limits:
    """0: no limit. The gateway's settings of the same names have the defaults."""

    submits_per_s: float = 0
    body_bytes_per_s: float = 0
    upgrades_per_s: float = 0
    connections_per_address: int = 0
    queued_jobs_max: int = 0
    refusals_per_s: float = 0
    reads_per_s: float = 0


class Room(NamedTuple):
    """For how many jobs there is some, and when there may be more: 0 when all had it."""

    jobs: int
    retry_after_s: int = 0


class Limiter:
    """Holds clients to the limits of one process. `address_of` says where a request came from."""

    def __init__(
        self, limits: Limits, log: Log, metrics: GatewayMetrics, address_of: Callable[[web.Request], str | None]
    ) -> None:
        self._address_of = address_of
        self._limits = limits
        self._log = log
        self._metrics = metrics
        self._submits = _Rates(limits.submits_per_s)
        self._bytes = _Rates(limits.body_bytes_per_s)
        self._upgrades = _Rates(limits.upgrades_per_s)
        self._refusals = _Rates(limits.refusals_per_s)
        self._reads = _Rates(limits.reads_per_s)
        self._open: dict[str, int] = {}  # sockets by address; only addresses with some
        self._followed: dict[str, int] = {}  # subscriptions by address, likewise
        self._queues: OrderedDict[str, _Queue] = OrderedDict()  # by tenant
        self.arriving_bytes: dict[str, int] = {}  # by tenant; only tenants with some
        self.waiting_commands: dict[str, int] = {}  # likewise
        self.waiting_bytes: dict[str, int] = {}

    @asynccontextmanager
    async def submits(self, request: web.Request, tenant: str, actor: str, jobs: int = 1) -> AsyncIterator[Room]:
        """So many more jobs by this actor, made within the block. Raises the 429 when there is room for none."""
        client, wait_s = self._client(request, tenant, actor), 0
        if client is not None and self._submits.per_s:
            taken = await self._submits.take_some(client, jobs)
            if taken < jobs:
                self._metrics.limited.labels("submits").inc()
                wait_s = self._submits.left_s(client, 1) or 1
            if not taken:
                raise self._too_many_a_second("submits", self._submits, wait_s)
            jobs = taken
        async with self.queueing(tenant, jobs) as room:
            yield Room(room.jobs, room.retry_after_s or wait_s)

    @asynccontextmanager
    async def queueing(self, tenant: str, jobs: int = 1) -> AsyncIterator[Room]:
        """So many more jobs that wait, put there within the block. Raises the 429 when there is room for none."""
        most = self._limits.queued_jobs_max
        if not most:
            yield Room(jobs)
            return
        queue = self._queue(tenant)
        await self._count(queue, tenant, most)
        free = min(jobs, most - queue.jobs)
        if free < jobs:
            self._metrics.limited.labels("queued_jobs").inc()
        if free <= 0:
            raise too_many(f"{most} jobs wait already, as many as may.", QUEUE_S, "queued_jobs")
        queue.jobs += free
        queue.under_way += free
        try:
            yield Room(free, QUEUE_S if free < jobs else 0)
        except (Refused, Problem):
            queue.jobs -= free
            raise
        finally:
            queue.under_way -= free

    @contextmanager
    def waiting(self, request: web.Request, tenant: str, commands: int = 1) -> Iterator[None]:
        """So many commands of this tenant wait to be written while the block lasts. Raises the 429 for too many."""
        size = request.get(BODY_BYTES, 0)
        if (
            self.waiting_commands.get(tenant, 0) + commands > WAITING_COMMANDS_MAX
            or self.waiting_bytes.get(tenant, 0) + size > WAITING_BYTES_MAX
        ):
            self._metrics.limited.labels("waiting").inc()
            raise too_many("As much of this tenant as may waits to be written already.", 1, "waiting")
        _add(self.waiting_commands, tenant, commands)
        _add(self.waiting_bytes, tenant, size)
        try:
            yield
        finally:
            _add(self.waiting_commands, tenant, -commands)
            _add(self.waiting_bytes, tenant, -size)

    async def read(self, request: web.Request, tenant: str, actor: str) -> None:
        """One more request that reads. Raises the 429."""
        if self._reads.per_s:
            await self._rate("reads", self._reads, self._client(request, tenant, actor))

    async def body(self, request: web.Request, tenant: str, actor: str, size: int) -> None:
        """A body of so many bytes. Raises the 429."""
        request[BODY_BYTES] = size
        await self._rate("body_bytes", self._bytes, self._client(request, tenant, actor), size)

    @contextmanager
    def arriving(self, tenant: str | None) -> Iterator[Callable[[int], None]]:
        """A body is read within the block; what is yielded is told of each part. Raises the 429 for a tenant with too much
        under way, the 503 when all together have. Who has no tenant yet may send little, and takes no room of others."""
        held = 0

        def more(size: int) -> None:
            nonlocal held
            if tenant is None:
                return
            of_tenant = self.arriving_bytes.get(tenant, 0) + size
            if of_tenant > ARRIVING_BYTES_MAX:
                self._metrics.limited.labels("body_bytes").inc()
                raise too_many("Too many bytes of bodies are on their way already.", 1, "body_bytes")
            if sum(self.arriving_bytes.values()) + size > ALL_ARRIVING_BYTES_MAX:
                raise Problem(503, "overloaded", "Too many bodies are being read at this moment; try again.")
            _add(self.arriving_bytes, tenant, size)
            held += size

        try:
            yield more
        finally:
            if tenant is not None:
                _add(self.arriving_bytes, tenant, -held)

    async def upgrade(self, request: web.Request) -> None:
        """One more upgrade from this address. Raises the 429, before the upgrade."""
        await self._rate("upgrades", self._upgrades, self.address_of(request))

    def may_be_refused(self, request: web.Request) -> None:
        """Before a key nobody has seen is looked up. Raises the 429 for an address that sent too many that were not good."""
        client = self.address_of(request) if self._refusals.per_s else None
        if client is not None and (wait_s := self._refusals.left_s(client, 1)):
            self._metrics.limited.labels("refusals").inc()
            raise too_many("Too many keys that are not good came from there.", wait_s, "refusals")

    @asynccontextmanager
    async def refusals(self, request: web.Request, refusal: type[Problem]) -> AsyncIterator[None]:
        """Counts what is refused within the block by its address, and raises the 429 instead once it is too many."""
        try:
            yield
        except refusal:
            client = self.address_of(request) if self._refusals.per_s else None
            if client is not None:
                self.may_be_refused(request)
                await self._refusals.take(client, 1)
            raise

    def connection(self, request: web.Request) -> AbstractContextManager[bool]:
        """One more socket from this address while the block lasts; gives False when it is one too many."""
        most = self._limits.connections_per_address
        address = self.address_of(request) if most else None
        if address is None:
            return nullcontext(enter_result=True)
        return _Connection(self._open, address, most, self._metrics)

    def may_follow(self, address: str | None) -> bool:
        """Whether there is room for one more subscription of a socket from this address: one that has few sockets could
        take all that a process may follow."""
        most = SUBSCRIPTIONS_A_CONNECTION * self._limits.connections_per_address
        fits = not most or address is None or self._followed.get(address, 0) < most
        if not fits:
            self._metrics.limited.labels("connections").inc()
        return fits

    @contextmanager
    def subscription(self, address: str | None) -> Iterator[None]:
        """One of them, while the block lasts."""
        if address is None:
            yield
            return
        _add(self._followed, address, 1)
        try:
            yield
        finally:
            _add(self._followed, address, -1)

    def address_of(self, request: web.Request) -> str | None:
        """Who a client without a key is to a limit, see `client_of`."""
        text = self._address_of(request)
        return None if text is None else client_of(text)

    def _client(self, request: web.Request, tenant: str, actor: str) -> str | None:
        """A key wherever it comes from; who has none by address."""
        return f"{tenant} {actor}" if actor != "user:anonymous" else self.address_of(request)

    async def _rate(self, limit: Limit, rates: "_Rates", client: str | None, amount: float = 1) -> None:
        if client is not None and (wait_s := await rates.wait_s(client, amount)):
            self._metrics.limited.labels(limit).inc()
            raise self._too_many_a_second(limit, rates, wait_s)

    def _too_many_a_second(self, limit: Limit, rates: "_Rates", wait_s: int) -> Problem:
        detail = f"Too many {limit.replace('_', ' ')}: {rates.per_s:g} a second are allowed."
        return too_many(detail, wait_s, limit)

    def _queue(self, tenant: str) -> "_Queue":
        queue = self._queues.setdefault(tenant, _Queue())
        self._queues.move_to_end(tenant)
        while len(self._queues) > CLIENTS_MAX:
            self._queues.popitem(last=False)
        return queue

    async def _count(self, queue: "_Queue", tenant: str, most: int) -> None:
        """Counts when that is due. Who comes meanwhile waits for it, and shares its outcome."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        async with queue.turn:
            if asked_at - queue.counted_at < COUNTED_S:
                return
            if queue.failed_at >= asked_at:
                raise LogUnavailable
            # Those under way may be in the count already: for a moment one is held to less, never to more.
            counted_at, under_way = loop.time(), queue.under_way
            try:
                counted = await self._log.count(JobQuery(tenant, status=("queued",), limit=most))
            except LogUnavailable:
                queue.failed_at = loop.time()
                raise
            queue.counted_at, queue.jobs = counted_at, counted + under_way


@dataclass(slots=True)
class _Queue:
    """A tenant's jobs that wait: as counted, and those let in since. Times are the event loop's."""

    jobs: int = 0
    under_way: int = 0  # let in, and not known to be in the log
    counted_at: float = -math.inf
    failed_at: float = -math.inf
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Rates:
    """A leaky bucket for each client, of those seen last."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._buckets: OrderedDict[str, AsyncLimiter] = OrderedDict()

    async def wait_s(self, client: str, amount: float) -> int:
        """Takes what is asked for and returns 0, or takes nothing and returns the seconds until there may be room."""
        if not self.per_s:
            return 0
        bucket = self._bucket(client)  # once: each read comes here
        amount = min(amount, bucket.max_rate)
        if not bucket.has_capacity(amount):
            return self._seconds(amount)
        await bucket.acquire(amount)  # does not wait: there is room
        return 0

    def left_s(self, client: str, amount: float) -> int:
        """Takes nothing; 0 when there is room."""
        bucket = self._bucket(client)
        amount = min(amount, bucket.max_rate)
        return 0 if bucket.has_capacity(amount) else self._seconds(amount)

    async def take_some(self, client: str, most: int) -> int:
        """Takes what there is room for, at most so much; how much that was."""
        bucket = self._bucket(client)
        amount = next((amount for amount in range(most, 0, -1) if bucket.has_capacity(amount)), 0)
        await bucket.acquire(amount)  # does not wait: there is room
        return amount

    async def take(self, client: str, amount: float) -> None:
        """Takes what there is room for."""
        if self.per_s:
            bucket = self._bucket(client)
            await bucket.acquire(min(amount, bucket.max_rate))  # does not wait: there is room

    def _seconds(self, amount: float) -> int:
        return max(math.ceil(amount / self.per_s), 1)

    def _bucket(self, client: str) -> AsyncLimiter:
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = AsyncLimiter(max(self.per_s * WINDOW_S, 1.0), WINDOW_S)
            if len(self._buckets) > CLIENTS_MAX:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return bucket


@lru_cache(maxsize=4096)  # each request asks
def client_of(text: str) -> str | None:
    """Who an address is to a limit: an IPv4 address is itself, an IPv6 one its network of 64 bits; None for this machine."""
    address = ipaddress.ip_address(text)
    if address.is_loopback:
        return None
    return text if address.version == 4 else str(ipaddress.ip_network((text, 64), strict=False))


class _Connection:
    """The block of `Limiter.connection`. No generator: of those each viewer would keep a frame."""

    __slots__ = ("_address", "_metrics", "_most", "_open")

    def __init__(self, open_: dict[str, int], address: str, most: int, metrics: GatewayMetrics) -> None:
        self._open = open_
        self._address = address
        self._most = most
        self._metrics = metrics

    def __enter__(self) -> bool:
        _add(self._open, self._address, 1)
        if self._open[self._address] <= self._most:
            return True
        self._metrics.limited.labels("connections").inc()
        return False

    def __exit__(self, *_: object) -> None:
        _add(self._open, self._address, -1)


def _add(counts: dict[str, int], key: str, amount: int) -> None:
    """Keeps no key that counts nothing."""
    counts[key] = counts.get(key, 0) + amount
    if not counts[key]:
        del counts[key]


def too_many(detail: str, retry_after_s: int, limit: Limit) -> Problem:
    """The 429, naming the limit."""
    return Problem(429, "too_many", detail, headers={"Retry-After": str(retry_after_s)}, limit=limit)


LIMITER = web.AppKey("limiter", Limiter)
