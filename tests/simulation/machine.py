"""Everything the product takes from its machine, replaced for one simulated run: clocks, dice, ids, servers.

Called once in a process that runs one seed and ends: nothing is put back.
"""

import random
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import uuid_utils
from aiohttp import web

from engine_worker import supervisor
from events.bus import Bus
from events.clock import Clock
from events.log import Log
from gateway.peers import PeersSite
from phaseline import database, listen, ports, spine
from tests.simulation.loop import PROCESS

_Random = random.Random


class SeededRandom(_Random):
    """`random.Random()` without a seed draws one from the run's own dice."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(random.getrandbits(64) if seed is None else seed)


class NamedRunner(web.AppRunner):
    """A runner whose address is its process; a runner that cleans up listens no more."""

    on_cleanup: ClassVar[Callable[[], None]]

    @property
    def addresses(self) -> list[Any]:
        return [(PROCESS.get().name, 80)]

    async def cleanup(self) -> None:
        NamedRunner.on_cleanup()
        await super().cleanup()


def simulate(
    seed: int,
    *,
    now_ms: Callable[[], int],
    make_log: Callable[[], Log],
    make_bus: Callable[[], Bus],
    bind: Callable[[PeersSite], None],
    unbind: Callable[[], None],
    start_child: Callable[[dict[str, Any]], Any],
    engines: dict[str, Any],
) -> None:
    """From here on this process knows no other machine than the simulated one."""
    random.seed(seed)
    dice = _Random(seed + 1)

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=dice.getrandbits(128), version=4)

    def uuid7(timestamp: int | None = None, nanoseconds: int | None = None) -> uuid.UUID:
        millis = (nanoseconds if nanoseconds is not None else now_ms() * 1_000_000) // 1_000_000
        low = dice.getrandbits(74)
        return uuid.UUID(int=millis << 80 | 7 << 76 | (low >> 62) << 64 | 2 << 62 | low & ((1 << 62) - 1))

    async def sim_bind(site: PeersSite, *_: Any) -> None:
        bind(site)

    NamedRunner.on_cleanup = unbind
    replaced: list[tuple[Any, str, Any]] = [
        (random, "Random", SeededRandom),
        (uuid, "uuid4", uuid4),
        (uuid_utils, "uuid4", uuid4),
        (uuid_utils, "uuid7", uuid7),
        (Clock, "now_ms", lambda _: now_ms()),
        (database, "make_log", lambda _: make_log()),
        (spine, "make_bus", lambda *_: make_bus()),
        (listen, "bind", sim_bind),
        (ports, "bind", sim_bind),
        (spine, "installed_engines", lambda _: engines),
        (supervisor, "Supervisor", partial(supervisor.Supervisor, start_child=start_child)),
        (web, "AppRunner", NamedRunner),
    ]
    for owner, name, ours in replaced:
        setattr(owner, name, ours)
