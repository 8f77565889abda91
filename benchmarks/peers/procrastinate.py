"""procrastinate: jobs in Postgres, woken by LISTEN/NOTIFY; one worker process, ten jobs at a time."""

import asyncio
import sys

from procrastinate import App, PsycopgConnector

from benchmarks.peers.driving import DATABASE_URL, Driven, drive, tell

app = App(connector=PsycopgConnector(conninfo=DATABASE_URL))


@app.task(name="telling")
async def telling() -> None:
    """Says that it runs."""
    tell()


@app.task(name="noop")
async def noop() -> None:
    """Does nothing."""


TASKS = {"telling": telling, "noop": noop}


class ProcrastinatePeer(Driven):
    """Finished jobs stay as rows with their status, its default."""

    name = "procrastinate"

    async def prepare(self) -> None:
        await app.open_async()
        await app.schema_manager.apply_schema_async()

    async def submit(self, kind: str) -> None:
        await TASKS[kind].defer_async()

    async def ended(self) -> int:
        found = await app.connector.execute_query_one_async(
            "SELECT count(*) AS count FROM procrastinate_jobs WHERE status = 'succeeded'"
        )
        return int(found["count"])


async def work() -> None:
    """The worker process."""
    async with app.open_async():
        await app.run_worker_async(concurrency=10)


if __name__ == "__main__":
    asyncio.run(work() if "worker" in sys.argv else drive(ProcrastinatePeer()))
