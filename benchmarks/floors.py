"""What this machine can do without Phaseline: RabbitMQ there and back, a bare send loop, bare page reads."""

import asyncio
import time
from typing import Any

import aio_pika
import aiohttp
import asyncpg
from aio_pika.abc import AbstractIncomingMessage
from aiohttp import web

from benchmarks.measure import Figure, Results

MESSAGE = b'{"job_id":"01a20ca3-8f44-71e6-954e-9ff94174bd64","seq":7,"type":"progress","attempt":1,"progress":50.0}'


async def publish_to_consume(url: str, results: Results, messages: int) -> None:
    """One transient message at a time through a topic exchange into an exclusive queue, two connections."""
    waits: list[float] = []
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
        for _ in range(messages):
            sent = time.perf_counter_ns()
            await exchange.publish(aio_pika.Message(MESSAGE), "p.0", mandatory=False)
            waits.append((await arrived.get() - sent) / 1e6)
    results.add(
        Figure("raw publish to consume", "ms", waits, "aio-pika, one process, transient, no confirm", latency=True)
    )


async def bare_sends(results: Results, messages: int, repeats: int) -> None:
    """An aiohttp handler that sends the same text `messages` times, a client in the same process reading it."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        text = MESSAGE.decode()
        for _ in range(messages):
            await socket.send_str(text)
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    rates = []
    async with aiohttp.ClientSession() as session:
        for _ in range(repeats):
            began = time.monotonic()  # before connecting: the server sends from then on
            async with session.ws_connect(f"ws://127.0.0.1:{port}/") as socket:
                count = sum([1 async for _ in socket])
                rates.append(count / (time.monotonic() - began))
    await runner.cleanup()
    results.add(Figure("bare aiohttp sends", "messages/s", rates, "server and client in one process"))


async def page_reads(url: str, job_id: str, results: Results, repeats: int) -> None:
    """Pages of 500 rows of the same stream, through asyncpg alone."""
    connection: Any = await asyncpg.connect(url)
    rates = []
    try:
        for _ in range(repeats):
            after, count, began = 0, 0, time.monotonic()
            while rows := await connection.fetch(
                "SELECT seq, type, attempt, actor, at, data FROM events WHERE job_id = $1 AND seq > $2 "
                "ORDER BY seq LIMIT 500",
                job_id,
                after,
            ):
                after, count = rows[-1]["seq"], count + len(rows)
            rates.append(count / (time.monotonic() - began))
    finally:
        await connection.close()
    results.add(Figure("raw page reads", "events/s", rates, "asyncpg, pages of 500"))
