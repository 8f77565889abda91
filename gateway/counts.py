"""A tenant's jobs by status, counted for whoever asks at the same time.

Counting reads an entry of an index for each job, and pages ask every two seconds. So what took long is not asked again at
once: at most a twentieth of the time goes into counting for one tenant.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from aiohttp import web

from events.log import Log, Stats

SHARE = 20  # a count is good for so many times as long as it took
FREE_S = 0.02  # what took no longer is asked each time
TENANTS_MAX = 1000  # remembered: who was asked for longest ago is forgotten


@dataclass(slots=True)
class _Counted:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    stats: Stats | None = None
    until: float = 0.0  # by the loop's time


class Counts:
    """One per gateway process."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: OrderedDict[str, _Counted] = OrderedDict()

    async def of(self, tenant: str) -> Stats:
        """As of a moment ago. Raises `LogUnavailable`."""
        counted = self._known.setdefault(tenant, _Counted())
        self._known.move_to_end(tenant)
        while len(self._known) > TENANTS_MAX:
            self._known.popitem(last=False)
        loop = asyncio.get_running_loop()
        came = loop.time()
        async with counted.turn:  # who waited while another's took long takes that one
            if counted.stats is not None and counted.until > came:
                return counted.stats
            began = loop.time()
            counted.stats = await self._log.stats(tenant)
            took = loop.time() - began
            counted.until = loop.time() + (SHARE * took if took > FREE_S else 0.0)
            return counted.stats


COUNTS = web.AppKey("counts", Counts)
