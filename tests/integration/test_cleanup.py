"""After any number of connects and drops a gateway holds what it held before."""

import asyncio
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.crowd import MANNERS, crowd
from tests.installation import Viewer, api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.scrape import Scrape, scraped_until
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings

GAUGES = ("connections", "viewers", "watched_jobs", "ring_bytes", "large_frame_bytes", "asyncio_tasks")
GROWTH_BYTES_MAX = 16 * 1024 * 1024  # pages kept for replays are under a budget of their own


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [112 * len(MANNERS), pytest.param(556 * len(MANNERS), marks=pytest.mark.slow)])
async def test_after_connects_and_drops_of_every_kind_a_gateway_is_as_before(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    bus_url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), bus_url, **ENVIRONMENT)
    made.logs, made.forked = tmp_path, True
    async with running(made), api(made.url) as http:
        finished = await http.submit("chatty", {"events": 3000, "size": 2000})
        await Viewer(made.url, finished).follow(query="&batch=1")
        living = await http.submit("countdown", {"steps": 10, "step_s": 60})
        await Viewer(made.url, living).follow(until=2)
        await crowd(made.url, finished, living, 20 * len(MANNERS))  # pools fill, caches warm up
        before = await scraped_until(made.url, _empty)
        queues = await _queues(rabbit, bus_url)
        began = time.monotonic()
        await crowd(made.url, finished, living, count)
        took_s = time.monotonic() - began
        after = await scraped_until(made.url, lambda scrape: _as_before(scrape, before))
        assert await _queues(rabbit, bus_url) == queues
        grown = after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]
        assert grown < GROWTH_BYTES_MAX
        closed = {
            label: value - before["phaseline_closes_total", label]
            for (name, *labels), value in after.items()
            for label in labels
            if name == "phaseline_closes_total" and value
        }
        with capsys.disabled():
            sys.stdout.write(
                f"\n{count} connects and drops in {took_s:.1f} s, memory {grown / 2**20:+.1f} MiB: {closed}\n"
            )
        assert closed["1000"] == closed["4004"] == count / len(MANNERS)
        assert closed["gone"] >= 4 * count / len(MANNERS)
        assert after["phaseline_closes_total", "1011"] == 0
        assert _complaints(tmp_path / "gateway.log") == []  # nobody's leaving is worth a line


def _complaints(log: Path) -> list[str]:
    words = ("Traceback", " aiohttp.", " gateway.")
    return [line for line in log.read_text().splitlines() if any(word in line for word in words)]


def _empty(scrape: Scrape) -> bool:
    return all(scrape[f"phaseline_{gauge}"] == 0 for gauge in GAUGES if gauge != "asyncio_tasks")


def _as_before(scrape: Scrape, before: Scrape) -> bool:
    return (
        _empty(scrape)
        and scrape["phaseline_asyncio_tasks"] <= before["phaseline_asyncio_tasks"]
        and scrape["process_open_fds"] <= before["process_open_fds"]
    )


async def _queues(rabbit: RabbitServer, bus_url: str) -> int:
    vhost = unquote(urlsplit(bus_url).path[1:])
    return int(await asyncio.to_thread(rabbit.evaluate, f'length(rabbit_amqqueue:list(<<"{vhost}">>)).'))
