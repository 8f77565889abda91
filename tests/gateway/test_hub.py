"""A hub outlives what one read of the log comes to; when it ends all the same, nobody is left waiting for it."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from events.errors import LogUnavailable, WrongRevision
from events.log import Head
from gateway.deps import HUB
from gateway.hub import Hub
from phaseline import listen
from phaseline.spine import spine
from tests.gateway.driving import WAIT_S, Driver, Gateway, Storage, eventually
from tests.gateway.listening import listening
from tests.gateway.test_full import running
from tests.stores import sqlite_settings


async def test_a_feed_that_cannot_be_read_ends_no_stream(
    gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    attempt = await running(driver)
    feed = gateway.app[HUB].feed
    async with (
        listening(gateway, "/api/v1/events") as listener,
        gateway.stream(f"/api/v1/jobs/{attempt.job_id}/stream") as stream,
    ):
        await listener.until("caught_up")
        await stream.until("caught_up")
        with monkeypatch.context() as broken:
            broken.setattr(type(gateway.storage.log), "failure", WrongRevision)
            gateway.storage.interrupt(True)
            before = feed.reads_total
            feed.stir()
            await eventually(lambda: feed.reads_total > before)
            gateway.storage.interrupt(False)
        await attempt.finish({})
        assert [event["seq"] for event in await stream.events(2)] == [6, 7]
        assert [event["seq"] for event in await listener.events(2)] == [6, 7]
    assert gateway.app[HUB].running
    assert "could not be read" in caplog.text


async def test_who_joins_as_the_hub_ends_hears_of_an_outage(
    storage: Storage, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    """None would say that there is no such job, and a client would stop."""
    first, second = [await driver.submit() for _ in range(2)]
    asked, answered = asyncio.Event(), asyncio.Event()
    heads = storage.log.heads

    async def slow(job_ids: Sequence[str]) -> dict[str, Head]:
        asked.set()
        await answered.wait()
        return await heads(job_ids)

    monkeypatch.setattr(storage.log, "heads", slow)
    hub = Hub(storage.log, storage.bus)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(hub.run())
        await eventually(lambda: hub.running)
        joins = [asyncio.ensure_future(hub.heads.of(first, "default"))]
        await asked.wait()
        joins.append(asyncio.ensure_future(hub.heads.of(second, "default")))  # gathers for the next query
        await eventually(lambda: second in hub.heads._asked)
        run.cancel()
        for join in joins:
            with pytest.raises(LogUnavailable, match="closing"):
                await join
        await asyncio.wait([run])
        with pytest.raises(LogUnavailable, match="closing"):
            await hub.heads.of(first, "default")


async def test_a_gateway_whose_hub_breaks_ends_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Whatever supervises it starts another: one that went on would heartbeat a stale head for ever."""
    begun = asyncio.Event()

    async def breaks(_: Hub) -> None:
        await begun.wait()
        raise RuntimeError("something nobody foresaw")

    monkeypatch.setattr(Hub, "_compare_forever", breaks)
    settings = sqlite_settings(tmp_path).model_copy(update={"port": 0})

    async def process() -> None:
        async with asyncio.timeout(6 * WAIT_S), spine(settings) as parts, listen.listening(settings, parts):
            begun.set()
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as ended:
        await process()
    assert ended.group_contains(RuntimeError, match="nobody foresaw")
    (said,) = [record.message for record in caplog.records if record.levelno == logging.CRITICAL]
    assert said.startswith("the hub stopped: this gateway ends")
