"""Sealing: everything committed, once, in order, without a statement while nothing happens."""

import asyncio
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from events.sealer import Sealer, SealerOptions
from phaseline import database
from tests.audit.scene import Scene
from tests.builders import a_report, progress


async def test_an_untouched_log_has_no_finding(scene: Scene) -> None:
    await scene.write(9)
    report = await scene.verify()
    assert (report.findings, report.seals, report.unsealed) == ([], 0, report.events)
    sealed = await scene.sealer.seal()
    report = await scene.verify()
    assert report.findings == []
    assert (report.jobs, report.unsealed, report.events) == (9, 0, sealed)
    assert report.oldest_unsealed_ms is None


async def test_what_came_after_the_last_seal_is_said_with_its_age(scene: Scene) -> None:
    await scene.write(4)
    await scene.sealer.seal()
    await scene.write(1)
    report = await scene.verify()
    assert report.findings == []
    assert report.unsealed > 0
    assert report.oldest_unsealed_ms is not None
    assert report.oldest_unsealed_ms >= 0


async def test_a_job_that_goes_on_is_sealed_in_parts_that_follow_each_other(scene: Scene) -> None:
    claimed = await scene.running.started()
    total = await scene.sealer.seal()
    for percent in range(3):
        await scene.running.committer.execute(claimed.job.id, a_report(claimed, progress(percent), progress(percent)))
        total += await scene.sealer.seal()
    ranges = [(one.first_seq, one.last_seq, one.seal) async for one in scene.log.ranges(99)]
    assert ranges == [(1, 2, 1), (3, 4, 2), (5, 6, 3), (7, 8, 4)]
    report = await scene.verify(job_id=claimed.job.id)
    assert (report.findings, report.unsealed, report.events) == ([], 0, total)


async def test_events_a_page_of_the_feed_ends_between_are_sealed_in_order(scene: Scene, monkeypatch) -> None:
    monkeypatch.setattr("events.sealer.SEAL_EVENTS_MAX", 7)
    await scene.write(5)
    await scene.sealer.seal()
    report = await scene.verify()
    assert (report.findings, report.unsealed) == ([], 0)
    assert report.seals == -(-report.events // 7)


async def test_two_that_seal_at_once_seal_once(scene: Scene) -> None:
    await scene.write(3)
    sealed = await asyncio.gather(*(Sealer(scene.log, scene.log, f"s{n}").seal() for n in range(4)))
    report = await scene.verify()
    assert (report.findings, report.unsealed) == ([], 0)
    assert sum(sealed) == report.events


async def test_seals_are_append_only(scene: Scene) -> None:
    await scene.write(1)
    await scene.sealer.seal()
    changes = ("UPDATE seals SET at = 1", "UPDATE sealed SET seal = 1", "DELETE FROM seals", "DELETE FROM sealed")
    for change in changes:
        with pytest.raises(DBAPIError, match="append-only"):
            await database.on_connection(scene.settings, partial(_execute, change))


def _execute(statement: str, connection: Connection) -> None:
    connection.execute(text(statement))


async def test_nothing_is_asked_of_the_database_while_nothing_is_appended(scene: Scene) -> None:
    asked: list[str] = []
    turns = asyncio.Semaphore(0)

    class Watched:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            turns.release()
            return getattr(scene.log, name)

    sealer = Sealer(Watched(), Watched(), "w", SealerOptions(seal_s=0.01))
    await scene.write(1)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(sealer.run())
        async with asyncio.timeout(10):
            while (await scene.verify()).unsealed or asked[-3:] != ["lead", "last_seal", "sealable"]:
                await turns.acquire()
        quiet = len(asked)
        for _ in range(20):  # of its looks, each a turn of a timer that fires no later than ours
            await asyncio.sleep(0.02)
        assert len(asked) == quiet
        running.cancel()
