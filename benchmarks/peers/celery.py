"""Celery: RabbitMQ as broker, results in Postgres through its database backend. Prefork with a process a core."""

import asyncio
import sys
from typing import Any

import psycopg
from celery import Celery

from benchmarks.peers.driving import DATABASE_URL, RABBITMQ_URL, Driven, drive, tell

app = Celery(
    "celery_peer",
    broker=RABBITMQ_URL.replace("amqp://", "pyamqp://"),
    backend="db+" + DATABASE_URL.replace("postgresql://", "postgresql+psycopg://"),
)
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    database_create_tables_at_setup=True,
    task_track_started=False,
    worker_hijack_root_logger=False,
)
PHASES = ("initializing", "collecting_data", "counting", "evaluating", "finalizing")


@app.task(name="telling")
def telling() -> None:
    """Says that it runs."""
    tell()


@app.task(name="noop")
def noop() -> None:
    """Does nothing."""


@app.task(name="fivephase", bind=True)
def fivephase(self: Any) -> None:
    """Five custom states, as its documentation shows them."""
    for number, phase in enumerate(PHASES):
        self.update_state(state="PROGRESS", meta={"phase": phase, "progress": number * 20.0})


TASKS = {"telling": telling, "noop": noop, "fivephase": fivephase}


class CeleryPeer(Driven):
    """Its calls block; one thread submits, as a web process would."""

    name = "celery"
    arguments = ("-m", "celery", "-A", "benchmarks.peers.celery", "worker", "-c", "2", "-l", "WARNING")

    async def connect(self) -> None:
        self._connection = await psycopg.AsyncConnection.connect(DATABASE_URL, autocommit=True)

    async def submit(self, kind: str) -> None:
        await asyncio.to_thread(TASKS[kind].delay)

    async def submit_many(self, kind: str, jobs: int) -> None:
        def submit() -> None:
            for _ in range(jobs):
                TASKS[kind].delay()

        await asyncio.to_thread(submit)

    async def ended(self) -> int:
        cursor = await self._connection.execute("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")
        return int((await cursor.fetchone() or (0,))[0])


if __name__ == "__main__":
    sys.exit(asyncio.run(drive(CeleryPeer())))
