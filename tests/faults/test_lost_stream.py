"""What RabbitMQ 3.10.8 loses when it is killed in its first seconds, and how it comes back (docs/rabbitmq.md)."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.bus_rabbit import RabbitBus
from events.errors import BusUnavailable
from tests.servers import RabbitServer, Servers

PAGE = (Path(__file__).parents[2] / "docs" / "rabbitmq.md").read_text()


@pytest.fixture
def newborn() -> Iterator[RabbitServer]:
    """A node on which no stream was ever made."""
    servers = Servers()
    servers.prepare("rabbit")
    yield servers.rabbit()
    servers.close()


async def connected(bus: RabbitBus) -> None:
    async with asyncio.timeout(60):
        while not bus.connected:  # noqa: ASYNC110 the port has no signal for it
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_stream_that_rabbitmq_lost_is_named_and_comes_back_as_the_page_says(newborn: RabbitServer) -> None:
    bus = RabbitBus(newborn.url, name="test")
    await bus.open()
    try:
        await connected(bus)
        await bus.make_copy()
        await bus.append_copy([("1", b"{}")])
        await asyncio.to_thread(newborn.kill)
        await asyncio.to_thread(newborn.start)
        await connected(bus)
        assert not await bus.copy_exists()
        with pytest.raises(BusUnavailable, match=r"has lost its stream, see docs/rabbitmq\.md"):
            await bus.make_copy()
        (cure,) = re.findall(r"`rabbitmqctl eval '(.*)'`", PAGE)
        await asyncio.to_thread(newborn.evaluate, cure)
        await bus.make_copy()
        await bus.append_copy([("1", b"{}")])
        assert [message async for message in bus.read_copy()] == [b"{}"]
    finally:
        await bus.close()
