"""Long and large jobs, end to end: nothing is cut, and nothing that waits for them grows."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from events.record import seq_of
from phaseline import database
from phaseline.settings import Settings
from tests.builders import a_report, committing, progress
from tests.crowd import NDJSON
from tests.installation import Installation, Viewer, api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.scrape import scraped
from tests.servers import PostgresServer, RabbitServer
from tests.stores import open_log, postgres_settings
from tests.verified import verified

BOUND_S = 600.0  # of one step with 200 000 events on a busy machine


@dataclass(frozen=True)
class Large:
    """A gateway and a worker, and the database they share with nobody."""

    made: Installation
    settings: Settings
    rabbit_url: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def large(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Large]:
    settings = await postgres_settings(postgres, tmp_path_factory.mktemp("large"))
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), rabbit_url, **ENVIRONMENT | {"PHASELINE_LEASE_S": "30"})
    made.forked = True
    async with running(made):
        yield Large(made, settings, rabbit_url)


@pytest.mark.timeout(2 * BOUND_S)
@pytest.mark.parametrize("events", [5_000, pytest.param(200_000, marks=pytest.mark.slow)])
async def test_every_event_of_a_long_stream_arrives_live_replayed_as_lines_and_in_the_copy(
    large: Large, events: int, capsys: pytest.CaptureFixture[str]
) -> None:
    url = large.made.url
    async with api(url) as http:
        began = time.monotonic()
        job_id = await http.submit("chatty", {"events": events})
        live = await Viewer(url, job_id, bound_s=BOUND_S).follow(query="&batch=1")
        ran_s, began = time.monotonic() - began, time.monotonic()
        assert live.seqs == list(range(1, len(live.events) + 1))
        assert [e["fields"]["number"] for e in live.events if e["type"] == "log"] == list(range(events))
        assert (live.events[-1]["type"], live.close_code) == ("complete", 1000)
        replayed = await Viewer(url, job_id, bound_s=BOUND_S).follow(query="&batch=1")
        replayed_s, began = time.monotonic() - began, time.monotonic()
        assert replayed.events == live.events
        lines = await _lines(url, job_id)
        lines_s, began = time.monotonic() - began, time.monotonic()
        assert [seq_of(line) for line in lines] == live.seqs
        counts = await verified(large.settings, large.rabbit_url, [live, replayed], copy_wait_s=BOUND_S)
        assert counts.events >= events
        gateway = await scraped(url)
        with capsys.disabled():
            sys.stdout.write(
                f"\n{len(live.events)} events: live {ran_s:.1f} s, replayed {replayed_s:.1f} s, NDJSON {lines_s:.1f} s, "
                f"checked with the copy {time.monotonic() - began:.1f} s; gateway "
                f"{gateway['process_resident_memory_bytes'] / 2**20:.0f} MiB, rings "
                f"{gateway['phaseline_ring_bytes'] / 1024:.0f} KiB, pages {gateway['phaseline_page_bytes'] / 2**20:.0f} MiB\n"
            )


LENGTHEN = """
    INSERT INTO events (job_id, seq, type, version, attempt, actor, tenant, at, command_id, size, data, digest, epoch)
    SELECT job_id, 3 + number, type, version, attempt, actor, tenant, at, command_id, size, data, digest, epoch
    FROM events, generate_series(1, 200000) AS number WHERE seq = 3"""


@pytest.mark.slow
@pytest.mark.timeout(BOUND_S)
async def test_the_row_of_a_long_stream_is_rebuilt_though_that_takes_longer_than_a_transaction_may_stand_still(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    async with open_log(settings) as log, committing(log) as committed:
        claimed = await committed.started()
        await committed.committer.execute(claimed.job.id, a_report(claimed, progress(5.0)))
    connection = await asyncpg.connect(settings.database_url)
    try:
        await connection.execute(LENGTHEN)
    finally:
        await connection.close()
    assert await database.rebuild(settings) == 1
    assert await database.check(settings) == []


async def _lines(url: str, job_id: str) -> list[bytes]:
    address = f"{url}/api/v1/jobs/{job_id}/events"
    async with aiohttp.ClientSession() as session, session.get(address, headers={"Accept": NDJSON}) as answer:
        return (await answer.read()).splitlines()
