"""How every full stream of a job begins, on any transport: read the query, watch, judge the position asked for, join."""

import random
from collections.abc import Hashable
from dataclasses import dataclass, field

from aiohttp import web

from events.catalog import FINAL
from events.clock import monotonic
from events.errors import UnknownJob
from events.log import Head, Log
from events.telemetry import GatewayMetrics
from events.values import DATA_BYTES_MAX
from gateway import frames
from gateway.artifacts import outlasting
from gateway.bodies import BODY_BYTES_MAX
from gateway.deps import DEPS, HUB, Deps, Identity
from gateway.jobs import as_of, document
from gateway.problems import bad_parameter
from gateway.queries import Query
from gateway.sockets import Vanished
from gateway.viewer import Viewer

HEARTBEAT_S = (2, 30)
FORM_PARAMETERS = ("batch", "heartbeat", "results")
PARAMETERS = ("after", "last", "epoch", *FORM_PARAMETERS)
RECONNECT_MS = (500, 5000)  # where a planned close sends clients, drawn evenly
RESET_BYTES_MAX = BODY_BYTES_MAX + DATA_BYTES_MAX  # params and last event: a larger result is named by its reference


def reconnect_ms() -> int:
    """When a client that is sent away should come back."""
    return random.randint(*RECONNECT_MS)  # noqa: S311 jitter


@dataclass(frozen=True, slots=True)
class FullQuery:
    """What a client asked for. `last` is None when it asked with `after`."""

    after: int
    last: int | None
    epoch: str | None
    batch: bool
    inline: bool
    heartbeat_s: float

    @classmethod
    def of(cls, request: web.Request, heartbeat_s: float, *more: str) -> "FullQuery":
        """Reads the query. Raises the `Problem` naming the parameter that is wrong."""
        query = Query(request, *PARAMETERS, *more)
        if "after" in query and "last" in query:
            raise bad_parameter("last", "cannot be given together with after")
        return cls._of(query, heartbeat_s)

    @classmethod
    def of_socket(cls, request: web.Request, heartbeat_s: float) -> "FullQuery":
        """Of a socket of many jobs: each job's position comes with its command."""
        return cls._of(Query(request, *FORM_PARAMETERS, "compress"), heartbeat_s)

    @classmethod
    def _of(cls, query: Query, heartbeat_s: float) -> "FullQuery":
        asked_s = query.number("heartbeat", 0, least=HEARTBEAT_S[0], most=HEARTBEAT_S[1])
        query.flag("compress")  # the upgrade has seen to it
        return cls(
            after=query.number("after", 0),
            last=query.number("last", 0) if "last" in query else None,
            epoch=query.text("epoch"),
            batch=query.flag("batch"),
            inline=query.choice("results", ("inline", "ref"), "ref") == "inline",
            heartbeat_s=float(asked_s or heartbeat_s),
        )

    def unusable(self, head: Head, epoch: str) -> str | None:
        """Why `after` cannot be served. From the start anything can."""
        if self.after and self.epoch is not None and self.epoch != epoch:
            return "epoch_changed"
        return "seq_ahead" if self.after > head.seq else None

    def start(self, head: Head, *, reset: bool) -> int:
        """After which sequence to begin. After a reset of a finished job its terminal event is sent again."""
        if reset:
            return head.seq - (head.status in FINAL)
        return self.after if self.last is None else max(head.seq - self.last, 0)

    def resume(self, *, reset: bool) -> str:
        """The word for `hello`."""
        return "reset" if reset else "resumed" if self.after else "fresh"


@dataclass(frozen=True, slots=True)
class Place:
    """A viewer that has joined. When the position asked for could not be served for `reason`, it begins behind a snapshot
    of the job at `head`."""

    job_id: str
    head: Head
    viewer: Viewer
    metrics: GatewayMetrics
    joined_after: int
    joined_at: float = field(default_factory=monotonic)
    reason: str | None = None

    def hello(self, query: FullQuery, deps: Deps) -> bytes:
        """The first frame, behind which the `reset` comes where there is a `reason`."""
        resume = query.resume(reset=self.reason is not None)
        self.metrics.resumes.labels(resume).inc()
        return frames.hello(
            self.job_id,
            self.head,
            epoch=deps.log.epoch,
            resume=resume,
            heartbeat_s=query.heartbeat_s,
            now_ms=deps.clock.now_ms(),
        )

    @property
    def reset_key(self) -> Hashable:
        """Who is sent a `reset` with the same key is sent the same."""
        return ("reset", self.job_id, self.head.seq, self.reason)

    async def reset(self, log: Log) -> bytes:
        """The `reset`, at most about `RESET_BYTES_MAX`: made when there is room to send it, for many may wait with one.
        Raises `Vanished` when the job is gone by then."""
        snapshot = await outlasting(lambda: _snapshot(log, self.job_id, self.head))
        return frames.reset(self.reason or "", self.head.seq, snapshot, self.job_id)

    def caught_up(self) -> bytes:
        """The `caught_up`, once: everything up to the head was sent."""
        self.metrics.replayed.observe(self.viewer.seq - self.joined_after)
        self.metrics.catch_up_s.observe(monotonic() - self.joined_at)
        return frames.caught_up(self.viewer.seq)


class Following:
    """Joins the stream of a job of this tenant, and of this engine if one is named, for the block. No generator: of those each
    viewer would keep a frame.

    Entering raises `UnknownJob`, `TooManyWatched`, `LogUnavailable`.
    """

    __slots__ = ("_app", "_engine", "_hub", "_job_id", "_query", "_viewer", "_watched", "_who")

    def __init__(
        self, app: web.Application, who: Identity, job_id: str, query: FullQuery, *, engine: str | None = None
    ) -> None:
        self._app = app
        self._hub = app[HUB]
        self._who = who
        self._job_id = job_id
        self._query = query
        self._engine = engine

    async def __aenter__(self) -> Place:
        self._watched = self._hub.begin(self._job_id)
        try:
            return await self._join()
        except BaseException:
            self._hub.end(self._watched)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._hub.part(self._watched, self._viewer)
        self._hub.end(self._watched)

    async def _join(self) -> Place:
        deps, job_id, tenant = self._app[DEPS], self._job_id, self._who.tenant
        if self._engine is not None:
            row = await deps.log.job(job_id, tenant)
            if row is None or row.job.engine != self._engine:
                raise UnknownJob
        head = await self._hub.heads.of(job_id, tenant)
        if head is None:
            raise UnknownJob
        reason = self._query.unusable(head, deps.log.epoch)
        after = self._query.start(head, reset=reason is not None)
        self._viewer = self._hub.join(self._watched, head, after)
        return Place(job_id, head, self._viewer, deps.telemetry.gateway, after, reason=reason)


async def _snapshot(log: Log, job_id: str, head: Head) -> bytes:
    """The job as it stood at this head, however far it has gone since. Raises `Vanished`."""
    row = await log.job(job_id, head.tenant)
    if row is None or row.job.last_seq < head.seq:
        raise Vanished
    return await document(log, row if row.job.last_seq == head.seq else await as_of(log, row, head.seq))
