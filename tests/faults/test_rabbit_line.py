"""A line to RabbitMQ that stays open and carries nothing is noticed, also by a process that only listens."""

import asyncio

import pytest

from events import rabbit_link
from events.bus import Hint
from tests.faults.fleet import until
from tests.proxy import proxy_to
from tests.servers import RabbitServer
from tests.stores import open_bus

LINE = b'{"job_id":"01a20d47-6ac9-7392-aae6-d494580ac819","seq":1,"type":"log"}'
# A tenth of the real deadlines, which together are 10 s.
TENTH_S = 0.5


async def test_a_listener_behind_a_dead_line_connects_anew_and_hears_again(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await asyncio.to_thread(rabbit.create_vhost)
    heard: list[Hint] = []
    bound = asyncio.Event()
    async with (
        proxy_to(url) as line,
        open_bus(line.url, "listener") as listener,
        open_bus(url, "publisher") as speaker,
        listener.tail(heard.append, bound.set),
    ):
        await bound.wait()
        bound.clear()
        monkeypatch.setattr(rabbit_link, "PROBE_S", TENTH_S)
        monkeypatch.setattr(rabbit_link, "CALL_S", TENTH_S)
        line.stall()
        await until(lambda: listener._consuming.session is None, "the dead line noticed", bound_s=20)
        monkeypatch.undo()
        line.heal()
        async with asyncio.timeout(30):
            await bound.wait()
        speaker.publish("epoch", [LINE])
        await until(lambda: [hint.lines for hint in heard] == [[LINE]], "the hint", lambda: str(heard))
