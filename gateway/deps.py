"""What the gateway is given by the composition root, and who is asking."""

import ipaddress
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from events.audit import AuditedLog
from events.bus import Bus
from events.clock import Clock
from events.committer import Committer
from events.declaration import Engine
from events.holds import Holds
from events.keys import DEFAULT_TENANT, SCOPES, Scope
from events.log import Log
from events.passes import Doors
from events.retention import RetentionLog
from events.schedules import Schedules
from events.telemetry import Telemetry
from events.webhook_url import Rules
from events.webhooks import Webhooks
from gateway.bearers import Bearers
from gateway.engines import EngineBook
from gateway.hub import WATCHED_MAX, Hub
from gateway.limits import Limits
from gateway.sockets import COMPRESSED_MAX, CONNECTIONS_MAX


@dataclass(frozen=True, slots=True)
class Deps:
    """Ports, already open, and settings. `committer.run` must be alive as long as the application."""

    log: Log
    bus: Bus
    committer: Committer
    engines: Mapping[str, Engine]  # those installed here, by name
    schedules: Schedules | None = None  # without them nothing is known of any
    keys: Doors | None = None  # without them nobody is ever asked for one
    tokens: Bearers | None = None  # of an issuer: with it everybody is asked
    holds: Holds | None = None
    audit: AuditedLog | None = None
    retention: RetentionLog | None = None
    webhooks: Webhooks | None = None  # without them no job may name one
    webhook_rules: Rules = field(default_factory=Rules)
    asks: bool = False  # for a key, from the start; otherwise as soon as there is one
    trusted_proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()  # whose X-Forwarded-For counts
    allowed_origins: frozenset[str] = frozenset()  # besides loopback
    heartbeat_s: float = 15.0  # default of full streams
    stall_s: float = 120.0  # a peer that takes no byte for this long is closed with 4508
    connections_max: int = CONNECTIONS_MAX  # open WebSockets in this process
    compressed_max: int = COMPRESSED_MAX  # of them those that compress; more are served without
    watched_jobs_max: int = WATCHED_MAX
    limits: Limits = field(default_factory=Limits)
    goodbye_window_s: float = 10.0  # at shutdown viewers are sent away spread over this
    check_s: float = 5.0  # an engine's `check(params)` must answer within
    version: str = ""
    process_id: str = field(default_factory=lambda: str(uuid.uuid4()))  # of this start of this process
    started_at: int = field(default_factory=lambda: Clock().now_ms())
    clock: Clock = field(default_factory=Clock)
    telemetry: Telemetry = field(default_factory=Telemetry)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: the tenant whose jobs are visible, the actor recorded in events, and what they may do."""

    tenant: str
    actor: str
    scopes: frozenset[Scope] = frozenset(SCOPES)
    key_id: str | None = None
    only: frozenset[str] | None = None  # with a pass: these jobs and no other, and not the feed
    until: int | None = None  # with a pass or a token: when it ends, in ms

    def may(self, scope: Scope) -> bool:
        """`admin` may everything."""
        return scope in self.scopes or "admin" in self.scopes

    def watches(self, job_id: str | None) -> bool:
        """Whether a stream of this job, or without one the feed, is among what may be watched."""
        return self.only is None or job_id in self.only


DEPS = web.AppKey("deps", Deps)
HUB = web.AppKey("hub", Hub)
ENGINES = web.AppKey("engines", EngineBook)
IDENTITY = web.RequestKey("identity", Identity)
EVERYONE = Identity(DEFAULT_TENANT, "user:anonymous")  # where no key is asked for


def identify(request: web.Request) -> Identity:
    """Who asks; `gateway/access.py` has found out."""
    return request[IDENTITY]
