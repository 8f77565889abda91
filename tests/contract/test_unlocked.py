"""Batches without locks: all of what they decided is written, or nothing when somebody else was first."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from events.batch import Claim, Item, commit_batch
from events.clock import Clock
from events.errors import LeaseLost, Stale, UnknownJob, WrongStatus
from events.job import Job
from events.log import Log
from phaseline import database
from tests.builders import (
    Committing,
    a_cancel,
    a_finish,
    a_report,
    a_submit,
    a_worker,
    committing,
    progress,
    story,
    whole_stream,
)

pytestmark = pytest.mark.parametrize("store", ["postgres", "postgres_18", "simulated"], indirect=True)

STALE = "phaseline_stale_batches_total"


def clock() -> int:
    return time.time_ns() // 1_000_000


async def written(log: Log, known: Mapping[str, Job], *items: Item, clock: Callable[[], int] = clock) -> None:
    async with log.unlocked(known, clock) as tx:
        await commit_batch(tx, items, [])


@asynccontextmanager
async def elsewhere(make_log: Callable[[], Log]) -> AsyncIterator[Committing]:
    """Another process's committer."""
    log = make_log()
    await log.open()
    try:
        async with committing(log) as running:
            yield running
    finally:
        await log.close()


async def kinds(log: Log, job_id: str) -> list[str]:
    return [kind for _, kind in story(await whole_stream(log, job_id))]


async def test_what_is_as_known_is_written_with_new_jobs_in_one_go(log: Log, running: Committing) -> None:
    claimed, new = await running.started(), running.committer.new_job_id()
    report = Item(claimed.job.id, None, a_report(claimed, progress(20.0)))
    await written(log, {claimed.job.id: claimed.job}, report, Item(new, "default", a_submit()))
    assert [row.seq for row in report.rows] == [3]
    assert await kinds(log, claimed.job.id) == ["submitted", "started", "progress"]
    assert await kinds(log, new) == ["submitted"]
    assert [await database.differences(log, job_id) for job_id in (claimed.job.id, new)] == [[], []]


async def test_nothing_is_written_when_one_job_is_not_as_known(log: Log, running: Committing) -> None:
    """Neither for its neighbours: what they say may rest on the same mistake."""
    one, other = await running.started(), await running.started()
    await running.committer.execute(one.job.id, a_report(one, progress(10.0)))
    new = running.committer.new_job_id()
    items = [
        Item(new, "default", a_submit()),
        Item(one.job.id, None, a_report(one, progress(20.0))),
        Item(other.job.id, None, a_report(other, progress(20.0))),
    ]
    with pytest.raises(Stale):
        await written(log, {one.job.id: one.job, other.job.id: other.job}, *items)
    assert await kinds(log, one.job.id) == ["submitted", "started", "progress"]
    assert await kinds(log, other.job.id) == ["submitted", "started"]
    assert await log.job(new) is None


async def test_a_state_at_the_same_sequence_under_another_lease_is_another(log: Log, running: Committing) -> None:
    """As after a restore, when another worker took the job to the same sequence."""
    claimed = await running.started()
    dreamt = replace(claimed, job=replace(claimed.job, lease_id="of a log that is no more"))
    with pytest.raises(Stale):
        await written(log, {claimed.job.id: dreamt.job}, Item(claimed.job.id, None, a_finish(dreamt)))
    assert await kinds(log, claimed.job.id) == ["submitted", "started"]


@pytest.mark.parametrize("off_ms", [-1000, 1000])
async def test_nothing_is_written_by_a_clock_that_is_off(log: Log, running: Committing, off_ms: int) -> None:
    claimed = await running.started()
    item = Item(claimed.job.id, None, a_report(claimed, progress(20.0)))
    with pytest.raises(Stale):
        await written(log, {claimed.job.id: claimed.job}, item, clock=lambda: clock() + off_ms)
    assert await kinds(log, claimed.job.id) == ["submitted", "started"]


async def test_a_process_whose_clock_is_off_writes_the_time_of_the_database(
    log: Log, make_log: Callable[[], Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "now_ms", lambda _: clock() - 3_600_000)
    async with elsewhere(make_log) as other:
        jobs = [await other.submit() for _ in range(3)]
        told = [await whole_stream(log, job_id) for job_id in jobs]
        assert all(abs(clock() - event.at) < 30_000 for events in told for event in events)
        assert other.telemetry.value(STALE) == 1  # the first learns how far it is off


async def test_a_new_job_whose_key_is_taken_writes_nothing(log: Log, running: Committing) -> None:
    claimed = await running.started()
    first = await running.submit(key="k")
    twice = running.committer.new_job_id()
    report = Item(claimed.job.id, None, a_report(claimed, progress(20.0)))
    with pytest.raises(Stale):
        await written(log, {claimed.job.id: claimed.job}, report, Item(twice, "default", a_submit(key="k")))
    assert (await log.job(twice), await kinds(log, first)) == (None, ["submitted"])
    assert await kinds(log, claimed.job.id) == ["submitted", "started"]


async def test_what_a_claim_saw_and_somebody_else_took_is_not_taken(log: Log, running: Committing) -> None:
    job_id = await running.submit()
    await log.beat(a_worker("w2"), 60.0)
    claim = Claim("w2", a_worker().engines, 1, idle=True)
    with pytest.raises(Stale):  # noqa: PT012 the end of the block is what raises
        async with log.unlocked({}, clock) as tx:
            await commit_batch(tx, [], [claim])
            assert [taken.job.id for taken in claim.taken] == [job_id]
            assert [taken.job.id for taken in await running.claim("w1")] == [job_id]
    row = await log.job(job_id)
    assert row is not None
    assert (row.job.worker_id, row.job.attempt) == ("w1", 1)
    assert await kinds(log, job_id) == ["submitted", "started"]


async def test_a_worker_whose_job_others_ended_is_refused_and_adds_nothing(
    running: Committing, make_log: Callable[[], Log]
) -> None:
    claimed = await running.started()
    await running.committer.execute(claimed.job.id, a_report(claimed, progress(10.0)))
    async with elsewhere(make_log) as other:
        await other.committer.execute(claimed.job.id, a_cancel("force"))
    with pytest.raises(LeaseLost):
        await running.committer.execute(claimed.job.id, a_finish(claimed))
    assert await kinds(running.log, claimed.job.id) == ["submitted", "started", "progress", "cancelled"]
    assert running.telemetry.value(STALE) == 1


async def test_a_refusal_is_never_told_from_what_is_only_known(
    running: Committing, make_log: Callable[[], Log]
) -> None:
    """This process asked the job to stop, another saw it end: what it is told next is what is true."""
    claimed = await running.started()
    async with elsewhere(make_log) as gateway:
        await gateway.committer.execute(claimed.job.id, a_cancel())
        await running.committer.execute(claimed.job.id, a_finish(claimed))
        with pytest.raises(WrongStatus, match="already completed"):
            await gateway.committer.execute(claimed.job.id, a_cancel())
        with pytest.raises(UnknownJob):
            await gateway.committer.execute(claimed.job.id, a_cancel(), tenant="another")


async def test_two_submits_with_one_key_at_once_make_one_job(running: Committing) -> None:
    answers = await asyncio.gather(
        *(running.committer.submit(a_submit(key="k"), tenant="default") for _ in range(5)), return_exceptions=False
    )
    assert len({row.job.id for row, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False, True, True, True, True]


async def test_many_that_claim_at_once_take_each_job_once(
    log: Log, running: Committing, make_log: Callable[[], Log]
) -> None:
    jobs = [await running.submit() for _ in range(30)]
    taken: Counter[str] = Counter()

    async def claims(worker_id: str) -> None:
        async with elsewhere(make_log) as own:
            while mine := await own.claim(worker_id, 2):
                taken.update(claimed.job.id for claimed in mine)
                for claimed in mine:
                    await own.committer.execute(claimed.job.id, a_report(claimed, progress(50.0)))
                    await own.committer.execute(claimed.job.id, a_finish(claimed))

    while any(job_id not in taken for job_id in jobs):  # an empty claim may only mean that another was quicker
        await asyncio.gather(*(claims(f"w{number}") for number in range(3)))
    assert set(taken.values()) == {1}
    for job_id in jobs:
        assert await kinds(log, job_id) == ["submitted", "started", "progress", "progress", "complete"]
        assert await database.differences(log, job_id) == []
