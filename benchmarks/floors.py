"""What this machine can do without Phaseline: the drivers, RabbitMQ and aiohttp alone."""

import asyncio
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import asyncpg
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.asked import Asked, asked
from benchmarks.bench import Bench

LINE = (
    b'{"job_id":"01a20ca3-8f44-71e6-954e-9ff94174bd64","seq":7,"type":"partial","attempt":1,'
    b'"timestamp":"2026-11-24T08:00:00.123Z","actor":"worker:bench","phase":"working","name":"said",'
    b'"value":{"number":7,"text":"as engines say"}}'
)
DATA = '{"phase":"working","name":"said","value":{"number":7,"text":"as engines say"}}'
_INSERT = (
    "INSERT INTO raw SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], "
    "$6::bigint[], $7::text[])"
)


class RawTable:
    """A table with the columns and the key of an event, written by asyncpg alone: no locks, no decisions."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._digest = os.urandom(32)
        self._seq = 0

    async def insert(self, rows: int) -> None:
        """So many rows of as many jobs, one statement, one commit."""
        self._seq += 1
        jobs = [str(uuid.uuid4()) for _ in range(rows)]
        columns = ([self._seq] * rows, ["partial"] * rows, [DATA] * rows, [self._digest] * rows)
        await self.connection.execute(_INSERT, jobs, *columns, [self._seq] * rows, ["worker:bench"] * rows)

    async def rate(self, seconds: float, rows: int) -> Sequence[float]:
        """Rows a second in batches of this size."""
        count, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            await self.insert(rows)
            count += rows
        return [count / (time.monotonic() - began)]


@asynccontextmanager
async def raw_table(url: str) -> AsyncIterator[RawTable]:
    """A fresh one in the database at `url`."""
    connection: Any = await asyncpg.connect(url)
    try:
        await connection.execute(
            "CREATE TABLE raw (job_id uuid, seq bigint, type text, data text, digest bytea, at bigint, actor text, "
            "PRIMARY KEY (job_id, seq))"
        )
        yield RawTable(connection)
    finally:
        await connection.close()


class Echo:
    """Publishes to a topic exchange and consumes what came, on two connections: transient, no confirm, as hints are."""

    def __init__(self, exchange: Any, arrived: "asyncio.Queue[int]") -> None:
        self._exchange = exchange
        self._arrived = arrived

    async def once(self) -> int:
        """One message there and back; when it arrived, in ns."""
        await self._exchange.publish(aio_pika.Message(LINE), "p.0", mandatory=False)
        return await self._arrived.get()


@asynccontextmanager
async def echo(url: str) -> AsyncIterator[Echo]:
    """Both connections open, the queue bound."""
    out, back = await aio_pika.connect(url), await aio_pika.connect(url)
    async with out, back:
        sending, receiving = await out.channel(publisher_confirms=False), await back.channel()
        exchange = await sending.declare_exchange("floor", aio_pika.ExchangeType.TOPIC, auto_delete=True)
        queue = await receiving.declare_queue(exclusive=True)
        await queue.bind("floor", "p.#")
        arrived: asyncio.Queue[int] = asyncio.Queue(1)

        async def arrive(_: AbstractIncomingMessage) -> None:
            arrived.put_nowait(time.perf_counter_ns())

        await queue.consume(arrive, no_ack=True)
        yield Echo(exchange, arrived)


async def page_reads(url: str, job_id: str) -> Sequence[float]:
    """Rows a second: a whole stream in pages of 500, through asyncpg alone."""
    connection: Any = await asyncpg.connect(url)
    try:
        after, count, began = 0, 0, time.monotonic()
        while rows := await connection.fetch(
            "SELECT seq, type, attempt, actor, at, data FROM events WHERE job_id = $1 AND seq > $2 "
            "ORDER BY seq LIMIT 500",
            job_id,
            after,
        ):
            after, count = rows[-1]["seq"], count + len(rows)
        return [count / (time.monotonic() - began)]
    finally:
        await connection.close()


@asynccontextmanager
async def bare_sender(bench: Bench) -> AsyncIterator[tuple[Asked, str]]:
    """A bare aiohttp server in a process of its own, and its URL."""
    async with asked([sys.executable, "-m", "benchmarks.bare"], bench.folder / "bare.log") as bare:
        yield bare, (await bare.ask("listen"))["url"]
