"""A server may end a connection at any moment of it, also before anyone has asked anything."""

import asyncio
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from events.errors import LogUnavailable
from events.log_postgres import PostgresLog
from phaseline import database
from phaseline.settings import Settings
from tests.ports import free_port
from tests.servers import PostgresServer

READY = b"Z\x00\x00\x00\x05"  # how the server's part of the handshake ends
TRIES = 30  # when the driver notices is a matter of the loop's turns


async def test_a_connection_ended_right_after_its_handshake_is_an_outage_like_any_other(
    postgres: PostgresServer,
) -> None:
    url = await asyncio.to_thread(postgres.create_database)
    await database.migrate(Settings(database_url=url))
    for pause_s in (n % 10 / 2000 for n in range(TRIES)):
        async with ending_handshakes(url, pause_s) as ended:
            log = PostgresLog(ended)
            with pytest.raises(LogUnavailable):
                await log.open()
            with pytest.raises(LogUnavailable):
                async with log.transaction():
                    pass
            with pytest.raises(LogUnavailable):
                await log.lead("expire", "somebody", 1.0)
            with pytest.raises((LogUnavailable, OSError)):
                await database.migrate(Settings(database_url=ended))
            await log.close()


@asynccontextmanager
async def ending_handshakes(url: str, pause_s: float) -> AsyncIterator[str]:
    """The server's URL through a line that breaks so many seconds after the handshake."""
    parts = urllib.parse.urlsplit(url)

    async def upward(reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            server.write(data)

    async def carry(client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        server_reader, server = await asyncio.open_connection(parts.hostname, parts.port)
        asking = asyncio.create_task(upward(client_reader, server))
        try:
            said = b""
            while READY not in said and (data := await server_reader.read(65536)):
                said += data
                client.write(data)
            await asyncio.sleep(pause_s)  # part of what is tried, nothing is waited for
        finally:
            asking.cancel()
            client.close()
            server.close()

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as line:
        port = line.sockets[0].getsockname()[1]
        yield parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()


async def test_a_driver_that_swallows_a_cancellation_keeps_no_loop_going() -> None:
    log = PostgresLog(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    begun = asyncio.Event()

    async def loop_that_goes_on_after_outages() -> None:
        begun.set()
        with suppress(asyncio.CancelledError):  # as a driver does that closes a broken connection meanwhile
            await asyncio.Event().wait()
        while True:
            with suppress(LogUnavailable):
                await log.now()

    task = asyncio.create_task(loop_that_goes_on_after_outages())
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([task])
    assert task.cancelled()
    await log.close()
