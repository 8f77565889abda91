"""kill -9 in a pass of retention: nothing is lost, and the next pass ends what it began."""

import asyncio
import signal

import pytest

from phaseline.settings import Settings
from tests.cli.program import Run, phaseline
from tests.retention.scene import Scene, settings_in


def run(settings: Settings, **environment: str) -> Run:
    """`phaseline retention run` as a process of its own."""
    return phaseline("retention", "run", **settings_in(settings), **environment)


@pytest.mark.parametrize("point", ["retention.written", "retention.taken_out", "retention.part_dropped"])
async def test_a_pass_that_was_killed_is_ended_by_the_next(scene: Scene, point: str) -> None:
    ids = [await scene.completed(n, weeks_ago=5, large=b"y" * 300_000) for n in range(3)]
    before = await scene.streams(*ids)
    rows = [await scene.log.job(job_id) for job_id in ids]
    await scene.sealer.seal()

    died = await asyncio.to_thread(run, scene.settings, PHASELINE_CRASH_AT=point)
    assert (died.code, f"crash point {point} reached" in died.err) == (-signal.SIGKILL, True)
    assert await scene.streams(*ids) == before
    assert [await scene.log.job(job_id) for job_id in ids] == rows
    assert (await scene.verify()).findings == []

    await scene.tamper("UPDATE leaders SET lease_until = 0 WHERE name = 'retention'")  # a minute later
    done = await asyncio.to_thread(run, scene.settings)
    assert done.code == 0, done.err
    for job_id in ids:
        assert await scene.rows_of("jobs", job_id) == await scene.rows_of("events", job_id) == 0
    assert await scene.streams(*ids) == before
    report = await scene.verify()
    assert (report.findings, report.archived) == ([], 3)
