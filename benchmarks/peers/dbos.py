"""DBOS: durable workflows in Postgres through a queue; one worker process, ten workflows at a time."""

import asyncio
import sys
import threading
import time
from typing import Any

import psycopg
from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.peers.driving import DATABASE_URL, WORKER_READY_S, Driven, drive, tell

CONFIG: DBOSConfig = {
    "name": "benchmark",
    "system_database_url": DATABASE_URL,
    "run_admin_server": False,
    "log_level": "WARNING",
    "application_version": "1",
}
QUEUE = "bench"
PHASES = ("initializing", "collecting_data", "counting", "evaluating", "finalizing")


@DBOS.workflow(name="telling")
def telling() -> None:
    """Says that it runs."""
    tell()


@DBOS.workflow(name="noop")
def noop() -> None:
    """Does nothing."""


@DBOS.step(name="phase")
def phase(name: str) -> str:
    """A durable step."""
    return name


@DBOS.workflow(name="fivephase")
def fivephase() -> None:
    """Five durable steps."""
    for name in PHASES:
        phase(name)


@DBOS.workflow(name="streaming")
def streaming(values: int, pause_s: float) -> None:
    """Writes so many values to a stream; each says when, in ns of the system's monotonic clock."""
    for _ in range(values):
        DBOS.write_stream("said", {"at_ns": time.perf_counter_ns(), "text": "as engines say"})
        time.sleep(pause_s)
    DBOS.close_stream("said")


class DbosPeer(Driven):
    """Enqueues from outside through its client, which blocks; one thread submits."""

    name = "dbos"

    async def connect(self) -> None:
        async with asyncio.timeout(WORKER_READY_S):
            await self.told()  # the worker has made the schema and the queue
        self._client = await asyncio.to_thread(DBOSClient, system_database_url=DATABASE_URL, use_listen_notify=True)

    async def submit(self, kind: str) -> None:
        await asyncio.to_thread(self._enqueue, kind)

    async def submit_many(self, kind: str, jobs: int) -> None:
        def submit() -> None:
            for _ in range(jobs):
                self._enqueue(kind)

        await asyncio.to_thread(submit)

    async def ended(self) -> int:
        return await asyncio.to_thread(
            _ask, "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS' AND name <> 'streaming'"
        )

    async def live(self, events: int) -> dict[str, Any]:
        """Milliseconds from before each write to its arrival at a reader in another process."""
        return {"values": await asyncio.to_thread(self._live, events)}

    async def replay(self, events: int) -> dict[str, Any]:
        """Values a second that a late reader gets of a finished stream. All but its first value are copies."""
        handle = self._enqueue("streaming", 1, 0.0)
        await asyncio.to_thread(handle.get_result)
        await asyncio.to_thread(_lengthen, handle.workflow_id, events)

        def read() -> float:
            began = time.monotonic()
            count = sum(1 for _ in self._client.read_stream(handle.workflow_id, "said"))
            return count / (time.monotonic() - began)

        return {"values": [await asyncio.to_thread(read)]}

    def _enqueue(self, kind: str, *arguments: Any) -> Any:
        options = {"queue_name": QUEUE, "workflow_name": kind, "app_version": "1"}
        return self._client.enqueue(options, *arguments)

    def _live(self, events: int) -> list[float]:
        handle = self._enqueue("streaming", events, 0.005)
        return [
            (time.perf_counter_ns() - value["at_ns"]) / 1e6
            for value in self._client.read_stream(handle.workflow_id, "said")
        ]


def _ask(sql: str) -> int:
    with psycopg.connect(DATABASE_URL) as connection:
        return int((connection.execute(sql).fetchone() or (0,))[0])


def _lengthen(workflow_id: str, values: int) -> None:
    """A stream of one value and its end becomes one of so many values."""
    with psycopg.connect(DATABASE_URL) as connection:
        connection.execute(
            'UPDATE dbos.streams SET "offset" = %s WHERE workflow_uuid = %s AND "offset" = 1', (values, workflow_id)
        )
        connection.execute(
            'INSERT INTO dbos.streams (workflow_uuid, key, value, "offset", function_id, serialization) '
            "SELECT workflow_uuid, key, value, n, function_id, serialization FROM dbos.streams, "
            'generate_series(1, %s) AS n WHERE workflow_uuid = %s AND "offset" = 0',
            (values - 1, workflow_id),
        )


def work() -> None:
    """The worker process."""
    DBOS(config=CONFIG)
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    tell()
    threading.Event().wait()


if __name__ == "__main__":
    if "worker" in sys.argv:
        work()
    else:
        asyncio.run(drive(DbosPeer()))
