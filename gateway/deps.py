"""What the gateway is given by the composition root, and who is asking."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from events.bus import Bus
from events.clock import Clock
from events.committer import Committer
from events.declaration import Engine
from events.log import Log
from gateway.engines import EngineBook
from gateway.hub import Hub


@dataclass(frozen=True, slots=True)
class Deps:
    """Ports, already open, and settings. `committer.run` must be alive as long as the application."""

    log: Log
    bus: Bus
    committer: Committer
    engines: Mapping[str, Engine]  # those installed here, by name
    allowed_origins: frozenset[str] = frozenset()  # besides loopback
    heartbeat_s: float = 15.0  # default of full streams
    stall_s: float = 120.0  # a peer that takes no byte for this long is closed with 4508
    goodbye_window_s: float = 10.0  # at shutdown viewers are sent away spread over this
    check_s: float = 5.0  # an engine's `check(params)` must answer within
    version: str = ""
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: the tenant whose jobs are visible, and the actor recorded in events."""

    tenant: str
    actor: str


DEPS = web.AppKey("deps", Deps)
HUB = web.AppKey("hub", Hub)
ENGINES = web.AppKey("engines", EngineBook)


def identify(request: web.Request) -> Identity:  # noqa: ARG001 credentials come with the security issue
    """Everyone is one tenant until requests carry credentials."""
    return Identity("default", "user:anonymous")
