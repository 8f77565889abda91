"""PgQueuer: jobs in Postgres, woken by LISTEN/NOTIFY; one worker process."""

import asyncio
import sys
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.driving import DATABASE_URL, Driven, drive, tell


class PgQueuerPeer(Driven):
    """A job that ended leaves the queue; its log table keeps a row a change of status."""

    name = "pgqueuer"

    async def prepare(self) -> None:
        self._connection: Any = await asyncpg.connect(DATABASE_URL)
        self._queries = Queries(AsyncpgDriver(self._connection))
        await self._queries.install()

    async def submit(self, kind: str) -> None:
        await self._queries.enqueue(kind, None)

    async def submit_many(self, kind: str, jobs: int) -> None:
        for _ in range(jobs):  # one connection: no two statements at a time
            await self.submit(kind)

    async def ended(self) -> int:
        return int(await self._connection.fetchval("SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"))


async def work() -> None:
    """The worker process."""
    queue = PgQueuer.from_asyncpg_connection(await asyncpg.connect(DATABASE_URL))

    @queue.entrypoint("telling")
    async def telling(_: Job) -> None:
        tell()

    @queue.entrypoint("noop")
    async def noop(_: Job) -> None:
        pass

    await queue.run()


if __name__ == "__main__":
    asyncio.run(work() if "worker" in sys.argv else drive(PgQueuerPeer()))
