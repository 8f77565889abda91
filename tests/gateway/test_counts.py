"""Counts of a tenant's jobs: what takes long is not done again for each who asks."""

import asyncio
from pathlib import Path
from typing import Any

from events.log import Stats
from gateway.counts import FREE_S, Counts
from tests.builders import committing
from tests.stores import open_log, sqlite_settings


class SlowCounts:
    """A log whose counts take as long as one wants."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self.began = 0
        self.may_end = asyncio.Event()

    async def stats(self, tenant: str) -> Stats:
        self.began += 1
        await self.may_end.wait()
        found: Stats = await self.log.stats(tenant)
        return found


async def test_who_asks_while_a_count_takes_long_is_told_that_one_and_each_tenant_its_own(tmp_path: Path):
    async with open_log(sqlite_settings(tmp_path)) as log, committing(log) as running:
        for tenant in ("a", "a", "b"):
            await running.submit(tenant=tenant)
        slow = SlowCounts(log)
        counts = Counts(slow)  # type: ignore[arg-type]
        many = [asyncio.ensure_future(counts.of("a")) for _ in range(20)]
        other = asyncio.ensure_future(counts.of("b"))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while slow.began < 2 or loop.time() - begun < 2 * FREE_S:  # noqa: ASYNC110 time is what is waited for
            await asyncio.sleep(0)
        slow.may_end.set()
        assert {dict(stats.by_status)["queued"] for stats in await asyncio.gather(*many)} == {2}
        assert dict((await other).by_status) == {"queued": 1}
        assert slow.began == 2


async def test_who_goes_away_while_it_is_counted_holds_up_nobody(tmp_path: Path):
    async with open_log(sqlite_settings(tmp_path)) as log, committing(log) as running:
        counts = Counts(log)
        assert (await counts.of("a")).by_status == {}
        await running.submit(tenant="a")
        abandoned = asyncio.ensure_future(counts.of("a"))
        await asyncio.sleep(0)
        abandoned.cancel()
        await asyncio.wait({abandoned})
        async with asyncio.timeout(30):  # where the machine stalls a count may be good for a moment
            while (found := (await counts.of("a")).by_status) == {}:  # noqa: ASYNC110 as above
                await asyncio.sleep(0.05)
        assert found == {"queued": 1}
