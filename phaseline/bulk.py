"""Actions on all jobs a query finds: counted first, then done to exactly those (docs/protocol.md §2, Bulk)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, NamedTuple

from phaseline.backoff import HINT_MAX_S
from phaseline.calls import Calls
from phaseline.client_errors import Busy

Action = Literal["cancel", "retry", "rerun"]

ROUTE = "/api/v1/bulk"
FULL_S = 1.0  # when nobody says when there is room again


class BulkDone(NamedTuple):
    """`jobs` are the ids of those changed, or for a rerun of those made; `refused` says of the others why."""

    jobs: list[str]
    refused: list[dict[str, str]]


class Bulk:
    """A counted selection. `count` is how many jobs it has, `expires_at` until when it may be done."""

    def __init__(self, calls: Calls, asked: Mapping[str, Any], counted: Mapping[str, Any]) -> None:
        self.count: int = counted["count"]
        self.expires_at: str = counted["expires_at"]
        self._calls = calls
        self._asked = dict(asked)
        self._confirm: str | None = counted["confirm"]

    @classmethod
    async def counted(cls, calls: Calls, asked: Mapping[str, Any]) -> "Bulk":
        return cls(calls, asked, await calls.object("POST", ROUTE, body=dict(asked)))

    async def do(self) -> BulkDone:
        """Does it to all of them, and waits where more are asked for than the limits of the service allow. Raises `Invalid`
        when it is over 10 minutes since the count, or since any was done; no job is done twice."""
        jobs: list[str] = []
        refused: list[dict[str, str]] = []
        async for part in self:
            jobs += part.jobs
            refused += part.refused
        return BulkDone(jobs, refused)

    async def __aiter__(self) -> AsyncIterator[BulkDone]:
        """Does it a hundred at a time, and goes on where it was left."""
        while self._confirm is not None:
            try:
                done = await self._calls.object("POST", ROUTE, body={**self._asked, "confirm": self._confirm})
            except Busy as full:
                if full.status != 429:
                    raise
                await asyncio.sleep(min(full.retry_after_s or FULL_S, HINT_MAX_S))
                continue
            self._confirm = done["next"]
            yield BulkDone(done["jobs"], done["refused"])
