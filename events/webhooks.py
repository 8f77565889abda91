"""Port: completion webhooks, what is owed to receivers and what became of it.

A delivery comes into being in the transaction of a job's terminal event (by a trigger, whoever writes), and is owed until
it was answered with 2xx or given up. Its id, `<job id>.<seq>`, is the event's own: the same at every attempt. At least
once: a process that dies after a receiver's answer, and before it noted that, sends again.
"""

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, Protocol
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from events.acts import By
from events.clock import rfc3339
from events.record import Recorded
from events.values import encode

SECRET_BYTES = 32
ROTATION_MS = 24 * 3600 * 1000  # so long the secret before the current one signs too
BACKOFF_FACTOR = 4
BACKOFF_MAX_S = 12 * 3600.0
RETRY_AFTER_MAX_S = 24 * 3600.0
GONE = 410  # the receiver wants no more (Standard Webhooks)

State = Literal["pending", "delivered", "abandoned"]
Failure = Literal["timeout", "address_not_allowed", "name_not_found", "tls", "not_connected", "broken", "erased"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a tenant's webhooks are signed, and where those of jobs go that name no URL. Instants in ms."""

    tenant: str
    secret: str  # as Standard Webhooks writes it: whsec_ and Base64
    previous: str | None
    previous_until: int | None
    url: str | None
    changed_at: int

    def secrets_at(self, now_ms: int) -> tuple[str, ...]:
        """Those that sign at this moment, the current one first."""
        old = self.previous if self.previous_until is not None and now_ms < self.previous_until else None
        return (self.secret,) if old is None else (self.secret, old)

    def rotated(self, now_ms: int) -> "Endpoint":
        """With a new secret; the old one signs beside it for a day."""
        return replace(
            self,
            secret=new_secret(),
            previous=self.secret,
            previous_until=now_ms + ROTATION_MS,
            changed_at=now_ms,
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to be made, claimed by this process. `attempt` counts from 1."""

    job_id: str
    seq: int
    tenant: str
    lane: str
    url: str
    attempt: int
    created_at: int

    @property
    def id(self) -> str:
        """What receivers recognise a repetition by."""
        return delivery_id(self.job_id, self.seq)


@dataclass(frozen=True, slots=True)
class Content:
    """What a delivery tells: its job, and the terminal event."""

    engine: str
    tags: tuple[str, ...]
    rerun_of: str | None
    event: Recorded


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt: the receiver's status, or why there is none."""

    status: int | None = None
    failure: Failure | None = None
    retry_after_s: float | None = None
    duration_ms: int = 0

    @property
    def good(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an attempt, and what follows: tried again after so long, if it is still pending."""

    delivery: Delivery
    answer: Answer
    state: State
    next_in_s: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt as it is kept. One that is missing between others: the process died before it knew."""

    attempt: int
    at: int
    status: int | None
    failure: str | None
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Owed:
    """A delivery as it stands, for people. `next_at`: not before then is it tried (again)."""

    job_id: str
    seq: int
    url: str
    state: State
    attempts: int
    next_at: int
    created_at: int
    tried: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class DueDeliveries:
    """(job, seq) of deliveries by tenant and lane, and, of each tenant that may have more lanes, the last one looked at."""

    due: Mapping[str, Mapping[str, Sequence[tuple[str, int]]]]
    reached: Mapping[str, str]


class Webhooks(Protocol):
    """Where they are kept: in the log's database. Every call raises `LogUnavailable` within its deadline."""

    async def endpoint(self, tenant: str) -> Endpoint | None:
        """How a tenant's webhooks are signed; None: it has no webhooks."""

    async def endpoints(self) -> list[Endpoint]:
        """Every tenant's."""

    async def keep_endpoint(self, endpoint: Endpoint, by: By, *, rotated: bool = False) -> None:
        """Gives a tenant webhooks, or changes them; `rotated` says that the secret is new. An act: see `events/acts.py`, which
        is told of the URL its origin only, since paths are often secrets."""

    async def drop_endpoint(self, tenant: str, by: By) -> bool:
        """Ends a tenant's webhooks and abandons what is owed. False when it has none. An act."""

    async def due_deliveries(self, after: Mapping[str, str], lanes: int, each: int) -> DueDeliveries:
        """What may be tried now: of each tenant so many lanes are looked at, those behind its `after`, if it is there; of
        each lane so many deliveries are told, the longest waiting first."""

    async def claim_deliveries(self, wanted: Sequence[tuple[str, int]], lease_s: float) -> list[Delivery]:
        """Takes those of them that nobody else took or is taking. Each comes up again after the lease, unless it is settled."""

    async def contents(self, deliveries: Sequence[Delivery]) -> tuple[int, Mapping[str, Content]]:
        """The database's time in ms, and by id what each is to tell; one whose job was erased is missing."""

    async def settle_deliveries(self, settled: Sequence[Settled]) -> None:
        """Keeps what became of attempts, all or none. A delivery that was claimed again meanwhile keeps its state."""

    async def deliveries(self, job_id: str) -> list[Owed]:
        """All of a job's, with every attempt, the oldest first."""


def delivery_id(job_id: str, seq: int) -> str:
    """Of the delivery of a terminal event."""
    return f"{job_id}.{seq}"


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL that may be one of a webhook."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def new_secret() -> str:
    """A secret to sign with: 256 random bits."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def backoff_s(attempt: int, base_s: float, draw: float) -> float:
    """The wait after this failed attempt; `draw` in [0, 1) spreads it by a fifth to both sides."""
    return float(min(base_s * BACKOFF_FACTOR ** (attempt - 1), BACKOFF_MAX_S) * (0.8 + 0.4 * draw))


_TYPES = {"complete": "job.completed", "error": "job.failed", "cancelled": "job.cancelled"}


def body_of(content: Content) -> str:
    """What is sent: the job, and its terminal event exactly as streams have it."""
    event = content.event
    job = {"id": event.job_id, "engine": content.engine, "tags": list(content.tags), "rerun_of": content.rerun_of}
    head = {"type": _TYPES[event.type], "timestamp": rfc3339(event.at)}
    return f'{encode(head).decode()[:-1]},"data":{{"job":{encode(job).decode()},"event":{event.line().decode()}}}}}'


def headers_of(delivery: Delivery, body: str, signing: Sequence[str], now_ms: int) -> Mapping[str, str]:
    """The headers of Standard Webhooks, signed with each of these secrets."""
    at = datetime.fromtimestamp(now_ms // 1000, UTC)
    signatures = [Webhook(secret).sign(delivery.id, at, body) for secret in signing]
    return {
        "webhook-id": delivery.id,
        "webhook-timestamp": str(now_ms // 1000),
        "webhook-signature": " ".join(signatures),
    }
