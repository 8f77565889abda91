"""What every log promises, each promise once, on SQLite and on each PostgreSQL."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import uuid_utils
from sqlalchemy import Select, event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from events import batch, tables
from events.catalog import Checkpoint, Partial, Ref
from events.catalog import Log as LogEvent
from events.committer import Committer
from events.errors import (
    KeyReused,
    LeaseLost,
    LogUnavailable,
    StillAlive,
    UniqueKeyTaken,
    UnknownJob,
    Unstorable,
    WrongRevision,
)
from events.job import Job
from events.log import PAGE_BYTES_MAX, Artifact, EngineRow, Head, JobQuery, Log, Look, at_or_behind
from events.log_postgres import WEEK_MS, WEEKS_AHEAD, PostgresLog
from events.postgres_line import asyncpg_url
from events.record import Recorded
from phaseline import database
from phaseline.settings import Settings
from tests.builders import (
    Committing,
    a_cancel,
    a_failure,
    a_finish,
    a_reopen,
    a_report,
    a_submit,
    a_worker,
    an_expiry,
    committing,
    progress,
    story,
    whole_stream,
)
from tests.stores import open_log

# SQLite has one writer: no transaction can commit late there, and none has an id.
WITH_MANY_WRITERS = pytest.mark.parametrize("store", ["postgres", "postgres_18", "simulated"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("store", ["postgres", "postgres_18"], indirect=True)
WITH_SQL = pytest.mark.parametrize("store", ["sqlite", "postgres", "postgres_18"], indirect=True)
MakeLog = Callable[[], Log]


@pytest.fixture(autouse=True)
async def rows_are_folds(log: Log) -> AsyncIterator[None]:
    """After every test here: each job's row equals the fold of its events."""
    yield
    problems = [problem async for row in log.all_jobs() for problem in await database.differences(log, row.job.id)]
    assert problems == []


GOODBYE = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"


def say_goodbye(driver: Any) -> None:
    driver._protocol.data_received(b"E" + (len(GOODBYE) + 4).to_bytes(4, "big") + GOODBYE)


def goodbye_to_the_next(engine: AsyncEngine) -> None:
    """The next connection hears that its server ends before it is ready for use; its close is still on the way."""

    def connected(dialect: Any, _: Any, arguments: Any, named: Any) -> Any:
        event.remove(engine.sync_engine, "do_connect", connected)
        connection = dialect.connect(*arguments, **named)
        say_goodbye(connection.driver_connection)
        try:
            connection.run_async(lambda driver: driver.fetch("SELECT 1"))
        except asyncpg.InternalClientError as refusal:
            connection._handle_exception(refusal)  # into SQLAlchemy's, as for any statement while it connects
        raise AssertionError

    event.listen(engine.sync_engine, "do_connect", connected)


@ON_POSTGRES
async def test_a_server_that_says_goodbye_to_a_new_connection_does_not_refuse_the_content(
    store_settings: Settings,
) -> None:
    """A process that was starting gave up, and a command could be refused for its content."""
    async with open_log(store_settings):
        log = PostgresLog(str(store_settings.database_url))
    for engine in (log._reader, log._writer):
        goodbye_to_the_next(engine)
    try:
        await log.open()
        async with committing(log) as running:
            job_id = await running.submit()
            assert story(await whole_stream(log, job_id)) == [(1, "submitted")]
            say_goodbye(await log._line._open())  # the committer's own connection, between two transactions
            assert story(await whole_stream(log, await running.submit())) == [(1, "submitted")]
    finally:
        await log.close()


# ---- appending and reading


async def test_all_events_come_job_by_job_in_sequence(log: Log, running: Committing) -> None:
    first, second = await running.started(), await running.started()
    for claimed in (second, first, second):
        await running.committer.execute(claimed.job.id, a_report(claimed, progress(1.0)))
    streams = [(job_id, await whole_stream(log, job_id)) for job_id in sorted((first.job.id, second.job.id))]
    assert [row async for row in log.all_events()] == [row for _, stream in streams for row in stream]


async def test_events_are_read_back_in_order_byte_for_byte(log: Log, running: Committing) -> None:
    claimed = await running.started()
    said = (
        progress(12.5),
        Partial(phase="p", name="é", value={"x": [1.0, None, 2**70]}),
        LogEvent(level="info", message="\\u0000 \n"),
    )
    recorded = await running.committer.execute(claimed.job.id, a_report(claimed, *said))
    read = await whole_stream(log, claimed.job.id)
    assert story(read) == [(1, "submitted"), (2, "started"), (3, "progress"), (4, "partial"), (5, "log")]
    assert read[2:] == recorded
    assert [row.line() for row in read[2:]] == [row.line() for row in recorded]
    assert await log.lines(claimed.job.id, 0) == [(row.seq, row.type, row.line()) for row in read]


async def test_many_committers_on_hot_jobs_leave_no_hole_and_lose_nothing(
    log: Log, running: Committing, make_log: MakeLog
) -> None:
    jobs = [await running.started() for _ in range(5)]
    others = [make_log() for _ in range(3)] if log.name == "postgresql" else []
    async with asyncio.TaskGroup() as group:
        committers = [running.committer]
        tasks = []
        for other in others:
            await other.open()
            committers.append(Committer(other))
            tasks.append(group.create_task(committers[-1].run()))
        dice = random.Random(7)
        picks = [(dice.choice(committers), dice.choice(jobs)) for _ in range(400)]
        await asyncio.gather(*(who.execute(job.job.id, a_report(job, progress())) for who, job in picks))
        for task in tasks:
            task.cancel()
    for other in others:
        await other.close()
    for claimed in jobs:
        mine = sum(job is claimed for _, job in picks)
        assert [row.seq for row in await whole_stream(log, claimed.job.id)] == list(range(1, mine + 3))


async def test_a_refused_command_fails_alone_and_its_neighbours_commit(log: Log, running: Committing) -> None:
    one, two = await running.started(), await running.started()
    stale = a_report(one, progress()).model_copy(update={"attempt": 9})
    results = await asyncio.gather(
        running.committer.execute(one.job.id, stale),
        running.committer.execute(two.job.id, a_report(two, progress())),
        running.committer.execute("01a20ca3-8f44-71e6-954e-9ff94174bd64", a_cancel()),
        return_exceptions=True,
    )
    assert isinstance(results[0], LeaseLost)
    assert isinstance(results[1], list)
    assert isinstance(results[2], UnknownJob)
    assert (await log.head(one.job.id), await log.head(two.job.id)) == (
        Head(2, "running"),
        Head(3, "running"),
    )


async def test_a_batch_run_again_after_an_unknown_outcome_doubles_nothing(log: Log, running: Committing) -> None:
    claimed = await running.started()
    items = [
        batch.Item(claimed.job.id, None, a_report(claimed, progress())),
        batch.Item(running.committer.new_job_id(), "default", a_submit(key="k")),
    ]
    async with log.transaction() as tx:
        await batch.commit_batch(tx, items, [])
    first = [item.rows for item in items]
    for item in items:
        item.doubtful = True
    async with log.transaction() as tx:  # its sender never heard of the first
        done = await batch.commit_batch(tx, items, [])
    assert (done.events, [item.rows for item in items]) == ([], first)
    assert len(await whole_stream(log, claimed.job.id)) == 3


async def test_pages_are_cut_by_count_and_bytes_but_always_hold_one(log: Log, running: Committing) -> None:
    claimed = await running.started()
    large = Partial(phase="p", name="n", value="x" * 50_000)
    await running.committer.execute(claimed.job.id, a_report(claimed, *[progress()] * 10, large, large, large))
    assert [row.seq for row in await log.read(claimed.job.id, 2, limit=4)] == [3, 4, 5, 6]
    assert [row.seq for row in await log.read(claimed.job.id, 12, bytes_max=110_000)] == [13, 14]
    assert [row.seq for row in await log.read(claimed.job.id, 12, bytes_max=10)] == [13]
    assert await log.read(claimed.job.id, 15) == []
    assert [row.seq for row in await log.read_back(claimed.job.id, 16, 2)] == [15, 14]
    await running.committer.execute(claimed.job.id, a_report(claimed, *[large] * 6, progress()))
    assert [seq for seq, _, _ in await log.lines(claimed.job.id, 12)] == [13, 14, 15, 16, 17]  # 256 KiB
    assert [seq for seq, _, _ in await log.lines(claimed.job.id, 20)] == [21, 22]
    assert await log.lines(claimed.job.id, 22) == []


async def test_content_no_log_can_keep_is_refused_before_anything_is_queued(log: Log, running: Committing) -> None:
    claimed = await running.started()
    with pytest.raises(Unstorable):
        await running.committer.execute(
            claimed.job.id, a_report(claimed, Partial(phase="p", name="n", value="x" * 1_100_000))
        )
    assert running.committer.waiting == 0
    assert await log.head(claimed.job.id) == Head(2, "running")


async def test_the_feed_returns_every_event_once_from_any_cursor(log: Log, running: Committing) -> None:
    for _ in range(3):
        await running.started()
    seen, cursor = [], ""
    while (page := await log.feed(cursor, 2)).events:
        seen += page.events
        cursor = page.cursor
    assert sorted(story(seen)) == sorted([(1, "submitted"), (2, "started")] * 3)
    await running.submit(tenant="other")
    assert [row.tenant for row in (await log.feed(cursor, 10)).events] == ["other"]
    assert [row.tenant for row in (await log.feed("", 10, "other")).events] == ["other"]


async def test_the_feed_goes_on_after_any_single_event(log: Log, running: Committing) -> None:
    for _ in range(3):
        await running.started()
    page = await log.feed("", 10)
    assert len(page.cursors) == len(page.events) == 6
    assert page.cursors[-1] == page.cursor
    for done, cursor in enumerate(page.cursors, 1):
        assert (await log.feed(cursor, 10)).events == page.events[done:]


async def test_the_end_of_the_feed_is_behind_what_it_holds_and_before_what_comes(log: Log, running: Committing) -> None:
    await running.started()
    end = await log.feed_end()
    page = await log.feed("", 10)
    assert all(at_or_behind(end, cursor) for cursor in page.cursors)
    assert (await log.feed(end, 10)).events == []
    job_id = await running.submit()
    (late,) = (later := await log.feed(end, 10)).events
    assert (late.job_id, at_or_behind(later.cursor, end)) == (job_id, True)


async def test_a_feed_page_is_cut_by_bytes_but_always_holds_one(log: Log, running: Committing) -> None:
    claimed = await running.started()
    large = Partial(phase="p", name="n", value="x" * 600_000)
    for _ in range(3):
        await running.committer.execute(claimed.job.id, a_report(claimed, large))
    sizes, cursor = [], ""
    while (page := await log.feed(cursor, 500)).events:
        sizes.append(len(page.events))
        cursor = page.cursor
    assert sizes == [3, 1, 1]
    assert [len((await log.feed("", 500, bytes_max=size)).events) for size in (1, 2000, 700_000)] == [1, 2, 3]


async def test_a_job_changed_in_the_batch_that_makes_it_is_what_its_events_say(log: Log, running: Committing) -> None:
    job_id = running.committer.new_job_id()
    await asyncio.gather(
        running.committer.submit(a_submit(), tenant="default", job_id=job_id),
        running.committer.execute(job_id, a_cancel()),
    )
    assert story(await whole_stream(log, job_id)) == [(1, "submitted"), (2, "cancelled")]


@WITH_MANY_WRITERS
async def test_the_feed_never_skips_a_transaction_that_commits_late(make_log: MakeLog, log: Log) -> None:
    """Two writers; the one that began first commits last. A plain serial cursor would step over its events."""
    slow, quick = make_log(), make_log()
    await slow.open()
    await quick.open()
    cursor = ""
    async with slow.transaction() as tx:
        item = batch.Item("01a20ca3-8f44-71e6-954e-9ff94174bd64", "default", a_submit())
        item.job_id = Committer(slow).new_job_id()
        await batch.commit_batch(tx, [item], [])
        async with committing(quick) as other:
            await other.submit()
        page = await log.feed(cursor, 10)
        assert page.events == []
        cursor = page.cursor
    assert len((await log.feed(cursor, 10)).events) == 2
    await slow.close()
    await quick.close()


@ON_POSTGRES
async def test_the_feed_is_in_the_order_of_transactions_as_numbers(log: Log, running: Committing) -> None:
    """Page by page, across the point where their ids get a digit longer."""
    job_id = await running.submit()
    [first] = await whole_stream(log, job_id)
    columns = "version, attempt, actor, tenant, at, command_id, size, data, digest, epoch"
    async with log._writer.begin() as connection:  # type: ignore[attr-defined]
        for seq, xid in ((2, 100), (3, 99), (4, 9)):
            await connection.exec_driver_sql(
                f"INSERT INTO events (job_id, seq, type, {columns}, xid) "
                f"SELECT job_id, {seq}, 'log', {columns}, '{xid}'::xid8 FROM events WHERE seq = 1"
            )
    seen, cursor = [], ""
    while (page := await log.feed(cursor, 1)).events:
        seen += [row.seq for row in page.events]
        cursor = page.cursor
    assert seen == [4, 3, 2, 1]
    async with log._writer.begin() as connection:  # type: ignore[attr-defined]
        await connection.exec_driver_sql("ALTER TABLE events DISABLE TRIGGER ALL")
        await connection.exec_driver_sql("DELETE FROM events WHERE seq > 1")
        await connection.exec_driver_sql("ALTER TABLE events ENABLE TRIGGER ALL")
    assert (await log.feed("", 10)).events == [first]


# ---- after a restore


@WITH_SQL
async def test_after_a_restore_events_are_of_the_new_epoch_and_the_feed_has_both(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    before = log.epoch
    first = await running.submit()
    read = await log.feed("", 10)
    after = await database.begin_epoch(store_settings)
    assert after != before
    second = await running.submit()
    assert [done.epoch for done in running.committed] == [before, after]
    assert [row.job_id for row in await _fed(log, "")] == [first, second]
    assert [row.job_id for row in await _fed(log, read.cursor)] == [second]
    await log.head(second)
    assert log.epoch == after


async def _fed(log: Log, cursor: str) -> list[Recorded]:
    """All that follows a cursor, an event a page."""
    events: list[Recorded] = []
    while (page := await log.feed(cursor, 1)).events:
        events += page.events
        cursor = page.cursor
    return events


@WITH_SQL
async def test_heads_of_streams_tell_that_the_log_was_restored(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    job_id = await running.submit()
    after = await database.begin_epoch(store_settings)
    await log.heads([job_id])
    assert log.epoch == after


@WITH_SQL
async def test_each_restore_begins_an_epoch_above_all_before(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    epochs = [log.epoch] + [await database.begin_epoch(store_settings) for _ in range(3)]
    numbers = [int(epoch.partition("-")[0]) for epoch in epochs]
    assert numbers == sorted(set(numbers))


@ON_POSTGRES
async def test_a_restore_waits_for_appends_under_way_and_their_events_come_first(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    """A reader that saw nothing of them yet, and that a later epoch has begun, still gets them."""
    before = log.epoch
    cursor = (await log.feed("", 10)).cursor
    async with asyncio.TaskGroup() as group:
        async with log.transaction() as tx:
            item = batch.Item(running.committer.new_job_id(), "default", a_submit())
            await batch.commit_batch(tx, [item], [])
            restoring = group.create_task(database.begin_epoch(store_settings))
            await _until_somebody_waits_for_a_lock(store_settings)
            assert (await log.feed(cursor, 10)).events == []
        after = await restoring
    assert (tx.epoch, after != before) == (before, True)
    late = await running.submit()
    assert [row.job_id for row in await _fed(log, cursor)] == [item.job_id, late]


async def _until_somebody_waits_for_a_lock(settings: Settings) -> None:
    connection = await asyncpg.connect(settings.database_url)
    try:
        async with asyncio.timeout(30):
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            while not await connection.fetch(waits):  # noqa: ASYNC110 another session
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


@ON_POSTGRES
async def test_events_of_another_servers_transactions_are_fed_after_a_restore(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    """A dump keeps the ids of transactions; where it is restored they may be far in the future."""
    job_id = await running.submit()
    async with log._writer.begin() as connection:  # type: ignore[attr-defined]
        await connection.exec_driver_sql("ALTER TABLE events DISABLE TRIGGER ALL")
        await connection.exec_driver_sql("UPDATE events SET xid = '999999999999'::xid8")
        await connection.exec_driver_sql("ALTER TABLE events ENABLE TRIGGER ALL")
    assert await _fed(log, "") == []
    await database.begin_epoch(store_settings)
    assert [row.job_id for row in await _fed(log, "")] == [job_id]


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_positions_used_again_after_a_restore_are_fed(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    """Somebody had read further than the backup reaches."""
    first = await running.submit()
    ahead = f"{int(log.epoch.partition('-')[0])}:1000"
    await database.begin_epoch(store_settings)
    await log.head(first)
    second = await running.submit()
    assert [row.job_id for row in await _fed(log, ahead)] == [second]


# ---- weeks: one partition each, on PostgreSQL


@ON_POSTGRES
async def test_a_job_whose_events_span_a_weeks_end_lives_in_the_week_it_began(log: Log, running: Committing) -> None:
    week = await log.now() // WEEK_MS
    job_id = await _submitted_at(log, running, week * WEEK_MS - 1)
    [claimed] = await running.claim()
    await running.committer.execute(job_id, a_report(claimed, progress(1.0)))
    await running.committer.execute(job_id, a_finish(claimed))
    kinds = ["submitted", "started", "progress", "progress", "complete"]
    assert story(await whole_stream(log, job_id)) == list(enumerate(kinds, 1))
    assert [row.seq for row in await _fed(log, "")] == [1, 2, 3, 4, 5]
    async with log._reader.connect() as connection:  # type: ignore[attr-defined]
        kept = (
            (await connection.exec_driver_sql("SELECT DISTINCT tableoid::regclass::text FROM events")).scalars().all()
        )
    assert kept == [f"events_w{week - 1}"]


async def _submitted_at(log: Log, running: Committing, instant_ms: int) -> str:
    """A job whose id was drawn at another moment, in a week that has a partition."""
    async with log._writer.begin() as connection:  # type: ignore[attr-defined]
        await connection.exec_driver_sql(f"SELECT phaseline_make_partition({instant_ms // WEEK_MS})")
    job_id = str(uuid_utils.uuid7(nanoseconds=instant_ms * 1_000_000))
    await running.committer.submit(a_submit(), tenant="default", job_id=job_id)
    return job_id


@ON_POSTGRES
async def test_a_week_without_a_partition_takes_no_job_until_the_sweeper_made_one(
    log: Log, running: Committing
) -> None:
    instant_ms = (await log.now() // WEEK_MS + WEEKS_AHEAD + 1) * WEEK_MS
    job_id = str(uuid_utils.uuid7(nanoseconds=instant_ms * 1_000_000))
    with pytest.raises(LogUnavailable, match="no partition"):
        await running.committer.submit(a_submit(), tenant="default", job_id=job_id)
    assert (running.committer.waiting, (await log.jobs(JobQuery("default"))).rows) == (0, [])
    async with log._writer.begin() as connection:  # type: ignore[attr-defined]
        await connection.exec_driver_sql(f"SELECT phaseline_make_partition({instant_ms // WEEK_MS})")
    await running.committer.submit(a_submit(), tenant="default", job_id=job_id)
    assert story(await whole_stream(log, job_id)) == [(1, "submitted")]


@ON_POSTGRES
async def test_a_partition_that_vanished_delays_its_own_jobs_only(log: Log, running: Committing) -> None:
    week = await log.now() // WEEK_MS
    elsewhere = await _submitted_at(log, running, (week - 1) * WEEK_MS)
    async with log._writer.begin() as connection:  # type: ignore[attr-defined]
        await connection.exec_driver_sql(f"DROP TABLE events_w{week}")
    async with asyncio.TaskGroup() as group:
        held = group.create_task(_refused(running.committer.submit(a_submit(), tenant="default", wait_s=3.0)))
        await running.committer.execute(elsewhere, a_cancel(), wait_s=2.0)
    assert isinstance(held.result(), LogUnavailable)
    assert story(await whole_stream(log, elsewhere)) == [(1, "submitted"), (2, "cancelled")]
    assert [row.job.id for row in (await log.jobs(JobQuery("default"))).rows] == [elsewhere]


async def _refused(submitting: Awaitable[object]) -> BaseException | None:
    try:
        await submitting
    except LogUnavailable as refusal:
        return refusal
    return None


# ---- submitting


async def test_the_same_key_at_the_same_instant_makes_one_job(log: Log, running: Committing, make_log: MakeLog) -> None:
    other_log = make_log()
    await other_log.open()
    async with committing(other_log) as other:
        made = await asyncio.gather(
            *(who.committer.submit(a_submit(key="k"), tenant="default") for who in [running, other] * 5)
        )
    await other_log.close()
    assert len({row.job.id for row, _ in made}) == 1
    assert sum(not replayed for _, replayed in made) == 1
    assert len((await log.jobs(JobQuery("default"))).rows) == 1


async def unique(who: Committing, mode: str = "return", key: str | None = None, **fields: Any) -> tuple[str, bool]:
    """A submit with the unique key `u`: the job it is answered with, and whether it made it."""
    command = a_submit(key=key, unique_key="u", **fields).model_copy(update={"unique_mode": mode})
    job_id = who.committer.new_job_id()
    row, replayed = await who.committer.submit(command, tenant="default", job_id=job_id)
    return row.job.id, row.job.id == job_id and not replayed


async def test_fifty_submits_with_a_unique_key_at_the_same_instant_make_one_job(
    log: Log, running: Committing, make_log: MakeLog
) -> None:
    async with committing(other_log := make_log()) as other:
        await other_log.open()
        asked = [
            unique(who, "return", key and f"k{n}") for n, (who, key) in enumerate([(running, ""), (other, "k")] * 25)
        ]
        answers = await asyncio.gather(*asked)
    await other_log.close()
    assert len({job_id for job_id, _ in answers}) == 1
    assert sum(made for _, made in answers) == 1
    assert len((await log.jobs(JobQuery("default"))).rows) == 1


async def test_fifty_submits_that_replace_at_the_same_instant_leave_one_job_unfinished(
    log: Log, running: Committing, make_log: MakeLog
) -> None:
    async with committing(other_log := make_log()) as other:
        await other_log.open()
        answers = await asyncio.gather(*(unique(who, "replace") for who in [running, other] * 25))
    await other_log.close()
    assert all(made for _, made in answers)
    jobs = (await log.jobs(JobQuery("default", limit=100))).rows
    assert sorted(row.job.status for row in jobs) == ["cancelled"] * 49 + ["queued"]


async def test_a_unique_key_is_free_again_once_its_job_has_ended(log: Log, running: Committing) -> None:
    first, _ = await unique(running)
    assert await unique(running, "return", tags=("another",)) == (first, False)
    with pytest.raises(UniqueKeyTaken, match=first) as taken:
        await unique(running, "refuse")
    assert taken.value.job_id == first
    _, elsewhere = await running.committer.submit(a_submit(unique_key="u"), tenant="another")
    assert not elsewhere
    [claimed] = [one for one in await running.claim(slots=9) if one.job.id == first]
    await running.committer.execute(first, a_finish(claimed))
    second, made = await unique(running, "refuse")
    assert made
    row = await log.job(second)
    assert row is not None
    assert row.unique_key == "u"


async def test_a_replaced_job_is_cancelled_with_the_making_of_the_other_and_its_worker_is_told(
    log: Log, running: Committing
) -> None:
    old = await running.started(unique_key="u")
    new, made = await unique(running, "replace")
    assert made
    [first, *_, last] = await whole_stream(log, old.job.id)
    assert (first.type, last.type, last.event().model_dump(include={"reason", "forced"})) == (
        "submitted", "cancelled", {"reason": f"replaced by job {new}", "forced": True},
    )  # fmt: skip
    assert running.committed[-1].taken_from == {old.job.id: ("w1", 1)}
    assert [job.status for job in running.committed[-1].jobs.values()] == ["cancelled", "queued"]
    with pytest.raises(LeaseLost):
        await running.committer.execute(old.job.id, a_report(old, progress()))


async def test_who_repeats_a_submit_is_answered_by_its_idempotency_key_and_replaces_nothing(
    log: Log, running: Committing
) -> None:
    first, _ = await unique(running, "replace", "k")
    assert await unique(running, "replace", "k") == (first, False)
    await running.committer.execute(first, a_cancel(), tenant="default")
    second, made = await unique(running, "replace", "other")
    assert made
    assert await unique(running, "replace", "k") == (first, False)
    with pytest.raises(KeyReused):
        await unique(running, "replace", "k", body="another")
    assert {row.job.id: row.job.status for row in (await log.jobs(JobQuery("default"))).rows} == {
        first: "cancelled", second: "queued",
    }  # fmt: skip


async def test_a_job_is_not_tried_again_while_another_has_its_unique_key(log: Log, running: Committing) -> None:
    ended = []
    for _ in range(2):
        job_id, _ = await unique(running)
        await running.committer.execute(job_id, a_cancel(), tenant="default")
        ended.append(job_id)
    answers = await asyncio.gather(
        *(running.committer.execute(job_id, a_reopen(), tenant="default") for job_id in ended), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, UniqueKeyTaken)]
    assert len(refused) == 1
    assert refused[0].job_id in ended
    statuses = sorted(row.job.status for row in (await log.jobs(JobQuery("default"))).rows)
    assert statuses == ["cancelled", "queued"]


async def test_a_submit_with_a_unique_key_whose_outcome_was_unknown_is_found_and_not_doubled(
    log: Log, running: Committing
) -> None:
    command = a_submit(unique_key="u").model_copy(update={"unique_mode": "replace"})
    job_id = running.committer.new_job_id()
    for doubtful in (False, True):
        item = batch.Item(job_id, "default", command, doubtful=doubtful)
        async with log.transaction() as tx:
            await batch.commit_batch(tx, [item], [])
        assert (item.error, item.found) == (None, doubtful)
    assert story(await whole_stream(log, job_id)) == [(1, "submitted")]


async def test_a_key_with_another_body_is_refused_and_belongs_to_its_tenant(log: Log, running: Committing) -> None:
    await running.committer.submit(a_submit(key="k"), tenant="default")
    with pytest.raises(KeyReused):
        await running.committer.submit(a_submit(key="k", body="other"), tenant="default")
    _, replayed = await running.committer.submit(a_submit(key="k", body="other"), tenant="another")
    assert not replayed
    found = await log.find_key("default", "k")
    assert found is not None
    assert found.fingerprint == "body"


async def test_a_rerun_gets_checkpoints_and_its_own_artifacts(log: Log, running: Committing) -> None:
    first = await running.started()
    body = b'{"large":true}'
    await running.committer.execute(
        first.job.id, a_report(first, progress()), artifacts=[Artifact(first.job.id, "abc", body)]
    )
    checkpoint = Checkpoint(
        phase="collecting_data", output_ref=Ref(url="u", sha256="abc", size=14), digest="abc", duration_ms=1
    )
    command = a_submit(rerun_of=first.job.id, from_phase="finalizing").model_copy(update={"reused": (checkpoint,)})
    row, _ = await running.committer.submit(command, tenant="default", source_job_id=first.job.id)
    assert story(await whole_stream(log, row.job.id)) == [(1, "submitted"), (2, "checkpoint")]
    assert await log.artifact(row.job.id, "abc") == body
    assert await log.artifact_size(row.job.id, "abc") == len(body)
    assert await log.artifact_size(row.job.id, "abd") is None
    claimed = next(c for c in await running.claim(slots=9) if c.job.id == row.job.id)
    assert claimed.job.progress == 25.0
    assert [event.type for event in await log.checkpoints(row.job.id)] == ["checkpoint"]
    assert await log.checkpoints(first.job.id) == []


# ---- claiming


async def test_the_job_before_is_the_last_about_the_subject_that_completed_before_the_submit(
    log: Log, running: Committing
) -> None:
    async def completed(**fields: Any) -> Job:
        claimed = await running.started(**fields)
        await running.committer.execute(claimed.job.id, a_finish(claimed))
        return claimed.job

    await completed(subject="a")
    second = await completed(subject="a")
    await completed(subject="b")
    await completed()
    await completed(subject="a", tenant="other")
    failing = await running.started(subject="a")
    await running.committer.execute(failing.job.id, a_failure(failing, retryable=False))
    now = await running.started(subject="a")
    while await log.now() <= now.job.created_at:  # noqa: ASYNC110 what ends in the same millisecond may count or not
        await asyncio.sleep(0)
    late = await completed(subject="a")
    assert late.created_at >= now.job.created_at
    found = [await log.previous(now.job, subject) for subject in ("a", "c")]
    assert [row and row.job.id for row in found] == [second.id, None]
    assert now.subject == "a"
    row = await log.job(second.id)
    assert row == found[0]
    assert row is not None
    assert row.subject == "a"


async def test_claims_take_the_best_due_jobs_of_the_engine_in_order(running: Committing) -> None:
    low = await running.submit(priority="low")
    normal = await running.submit()
    later = await running.submit(not_before=2_000_000_000_000)
    high = await running.submit(priority="high")
    other = await running.submit("other_engine")
    newer = await running.submit(engine_version=2)
    taken = [claimed.job.id for claimed in await running.claim(slots=2)]
    assert taken == [high, normal]
    assert [claimed.job.id for claimed in await running.claim(slots=9)] == [low]
    assert {later, other, newer}.isdisjoint(taken)


async def test_a_tenant_with_a_long_queue_does_not_hold_up_the_single_job_of_another(running: Committing) -> None:
    for _ in range(30):
        await running.submit(tenant="flood")
    lone = await running.submit(tenant="lone")
    first = await running.claim(slots=2)
    assert {claimed.job.tenant for claimed in first} == {"flood", "lone"}
    assert lone in {claimed.job.id for claimed in first}
    late = [await running.submit(tenant="lone", priority="low") for _ in range(2)]
    # One runs for each: the next places go by turns, and within a tenant by rank.
    taken = [(await running.claim(worker))[0].job for worker in ("w2", "w3", "w4", "w5")]
    assert sorted(job.tenant for job in taken) == ["flood", "flood", "lone", "lone"]
    assert sorted(job.id for job in taken if job.tenant == "lone") == sorted(late)


async def test_jobs_beyond_the_limit_of_their_concurrency_key_wait_until_one_has_ended(
    log: Log, running: Committing
) -> None:
    limited = [await running.submit(concurrency={"key": "k", "limit": 2}, priority="high") for _ in range(4)]
    free = await running.submit()
    elsewhere = await running.submit(tenant="another", concurrency={"key": "k", "limit": 1})
    assert await log.due_counts() == {("countdown", 1): 4}
    first = await running.claim(slots=9)
    begun = [claimed for claimed in first if claimed.job.id in limited]
    assert {claimed.job.id for claimed in first} == {*(claimed.job.id for claimed in begun), free, elsewhere}
    assert len(begun) == 2
    assert await running.claim("w2", slots=9) == []
    assert await log.due_counts() == {}  # no ticket goes out for what would be a claim of nothing
    await running.committer.execute(begun[0].job.id, a_finish(begun[0]))
    assert await log.due_counts() == {("countdown", 1): 1}
    [next_one] = await running.claim("w2", slots=9)
    assert next_one.job.id in {*limited} - {claimed.job.id for claimed in begun}


async def test_of_many_tenants_those_have_a_turn_who_run_least_and_have_waited_longest(
    log: Log, running: Committing
) -> None:
    log.running_jobs_max = 2
    for number in range(40):
        await running.submit(tenant=f"t{number:02}")
    waiting = sorted([row.job.created_at async for row in log.all_jobs()])  # some were made in one millisecond
    await asyncio.gather(*(running.submit(tenant=f"t{number:02}") for number in range(40)))
    assert sorted(claimed.job.created_at for claimed in await running.claim(slots=5)) == waiting[:5]
    assert sorted(claimed.job.created_at for claimed in await running.claim(slots=35)) == waiting[5:]
    assert len({claimed.job.tenant for claimed in await running.claim(slots=40)}) == 40
    assert await running.claim(slots=9) == []


async def test_a_tenant_runs_no_more_jobs_than_it_may(log: Log, running: Committing) -> None:
    log.running_jobs_max = 2
    for _ in range(4):
        await running.submit()
    assert await log.due_counts() == {("countdown", 1): 2}
    first = await running.claim(slots=9)
    assert len(first) == 2
    other = await running.submit(tenant="another")
    assert [claimed.job.id for claimed in await running.claim("w2", slots=9)] == [other]
    await running.committer.execute(first[0].job.id, a_finish(first[0]))
    assert len(await running.claim("w2", slots=9)) == 1
    assert await log.due_counts() == {}


async def test_claimants_at_the_same_instant_pass_no_limit_together(
    log: Log, running: Committing, make_log: MakeLog
) -> None:
    for n in range(24):
        await running.submit(concurrency={"key": f"k{n % 2}", "limit": 2}, tenant=f"t{n % 3}")
    async with AsyncExitStack() as stack:
        claimants = [running]
        for _ in range(3):
            other = make_log()
            await other.open()
            stack.push_async_callback(other.close)
            claimants.append(await stack.enter_async_context(committing(other)))
        claims = (who.claim(f"w{n}", slots=5) for n, who in enumerate(claimants * 2))
        taken = [claimed.job.id for answer in await asyncio.gather(*claims) for claimed in answer]
    assert len(set(taken)) == len(taken) == 12
    pages = [await log.jobs(JobQuery(tenant, status=("running",))) for tenant in ("t0", "t1", "t2")]
    rows = [row for page in pages for row in page.rows]
    held = Counter((row.job.tenant, row.concurrency_key) for row in rows)
    assert held == dict.fromkeys([(f"t{n}", f"k{m}") for n in range(3) for m in range(2)], 2)


async def test_two_claimants_never_get_the_same_job(log: Log, running: Committing, make_log: MakeLog) -> None:
    jobs = {await running.submit() for _ in range(20)}
    other_log = make_log()
    await other_log.open()
    async with committing(other_log) as other:
        rounds = await asyncio.gather(*(who.claim(name, slots=3) for who, name in [(running, "a"), (other, "b")] * 5))
    await other_log.close()
    taken = [claimed.job.id for claimed_jobs in rounds for claimed in claimed_jobs]
    assert len(taken) == len(set(taken))
    rest = [claimed.job.id for claimed in await running.claim(slots=20)]
    assert set(taken) | set(rest) == jobs


async def test_a_worker_without_a_live_lease_claims_nothing(log: Log, running: Committing) -> None:
    await running.submit()
    with pytest.raises(LeaseLost):
        await running.committer.claim("never-beat", {"countdown": 1}, 1, idle=True)
    with pytest.raises(LeaseLost):
        await running.claim("late", lease_s=0.0)
    assert await log.due_counts() == {("countdown", 1): 1}


async def test_a_job_that_lost_two_workers_is_claimed_only_by_an_idle_one_and_alone(running: Committing) -> None:
    poison = await running.submit(priority="high")
    for _ in range(2):
        [claimed] = await running.claim("dying")
        await running.log.leave("dying")
        await running.committer.execute(poison, an_expiry(claimed.job.attempt))
    healthy = await running.submit()
    assert [c.job.id for c in await running.claim("busy", slots=4, idle=False)] == [healthy]
    another = await running.submit()
    assert [c.job.id for c in await running.claim("idle", slots=4, idle=True)] == [poison]
    assert [c.job.id for c in await running.claim("next", slots=4, idle=True)] == [another]


async def test_the_emptiest_worker_makes_room_for_a_job_that_must_run_alone_and_waits_long(
    log: Log, running: Committing
) -> None:
    poison = await running.submit()
    for _ in range(2):
        [claimed] = await running.claim("dying")
        await log.leave("dying")
        await running.committer.execute(poison, an_expiry(claimed.job.attempt))
    for name, jobs in (("full", 2), ("emptier", 1)):
        for _ in range(jobs):
            await running.submit()
        assert len(await running.claim(name, slots=jobs, idle=False)) == jobs
    empty = [a_worker("of another engine", engine="other"), replace(a_worker("leaving"), draining=True)]
    for worker in (a_worker("full"), a_worker("emptier"), *empty):
        assert not (await log.beat(worker, 60.0)).make_room  # it has only just begun to wait
    for worker in (a_worker("full"), *empty):  # after five leases, which now are short
        assert not (await log.beat(worker, 0.002)).make_room
        await log.beat(worker, 60.0)
    async with asyncio.timeout(10):
        while not (await log.beat(a_worker("emptier"), 0.002)).make_room:
            pass
    assert [c.job.id for c in await running.claim("emptier", idle=True)] == [poison]
    assert not (await log.beat(a_worker("emptier"), 0.002)).make_room


async def test_no_worker_makes_room_for_a_job_that_is_not_due(log: Log, running: Committing) -> None:
    poison = await running.submit()
    for _ in range(2):
        [claimed] = await running.claim("dying")
        await log.leave("dying")
        await running.committer.execute(poison, an_expiry(claimed.job.attempt))
    [claimed] = await running.claim("able")
    later = a_failure(claimed).model_copy(update={"retry_after_s": 3600.0})
    await running.committer.execute(poison, later)
    long_waited_at = await log.now() + 50
    async with asyncio.timeout(10):
        while await log.now() < long_waited_at:
            pass
    assert not (await log.beat(a_worker("able"), 0.002)).make_room


# ---- the fleet and the sweeper


async def test_a_beat_renews_the_lease_and_names_every_job_the_worker_runs(log: Log, running: Committing) -> None:
    claimed = await running.started(timeouts={"total_s": 60.0})
    await running.committer.execute(claimed.job.id, a_cancel(grace_s=30.0))
    reply = await log.beat(a_worker(), 6.0)
    assert reply.lease_until == reply.now + 6000
    [held] = reply.held
    assert (held.job_id, held.attempt, held.lease_id, held.cancel_mode) == (
        claimed.job.id,
        1,
        claimed.job.lease_id,
        "graceful",
    )
    assert held.total_at == claimed.job.created_at + 60_000
    [worker] = await log.workers()
    assert (worker.running, worker.engines) == (1, {"countdown": 1})
    await log.leave("w1")
    assert await log.workers() == []


async def test_a_running_job_without_a_live_worker_is_overdue_and_a_living_one_is_spared(
    log: Log, running: Committing
) -> None:
    claimed = await running.started()
    assert await log.overdue(10) == []
    with pytest.raises(StillAlive):
        await running.committer.execute(claimed.job.id, an_expiry(1))
    await log.leave("w1")
    [overdue] = await log.overdue(10)
    assert (overdue.job_id, overdue.attempt, overdue.cause) == (claimed.job.id, 1, "lost")
    [row] = await running.committer.execute(claimed.job.id, an_expiry(1))
    assert row.type == "interrupted"
    assert running.committed[-1].taken_from == {claimed.job.id: ("w1", 1)}


async def test_deadlines_are_found_with_their_cause(log: Log, running: Committing) -> None:
    start = await running.submit(timeouts={"start_s": 0.001})
    total = await running.submit(timeouts={"total_s": 0.001}, not_before=1_000_000_000_000)
    await running.submit(timeouts={"start_s": 600.0, "total_s": 600.0})
    later = await running.submit(timeouts={"start_s": 0.001, "total_s": 0.001}, not_before=2_000_000_000_000)
    async with asyncio.timeout(5):
        while len(found := {one.job_id: one.cause for one in await log.overdue(10)}) < 2:  # noqa: ASYNC110 time passes
            await asyncio.sleep(0.001)
    assert found == {start: "start_timeout", total: "total_timeout"}
    with pytest.raises(StillAlive):
        await running.committer.execute(later, an_expiry(0, "start_timeout"))


async def test_only_one_process_leads_and_only_the_leader_moves_the_cursor(log: Log) -> None:
    assert await log.lead("copy", "a", 60.0)
    assert not await log.lead("copy", "b", 60.0)
    assert await log.lead("copy", "a", 60.0)
    assert await log.save_cursor("copy", "a", "c1")
    assert not await log.save_cursor("copy", "b", "c2")
    assert await log.cursor("copy") == "c1"
    assert await log.lead("copy", "a", -1.0)
    assert await log.lead("copy", "b", 60.0)
    assert await log.cursor("copy") == "c1"


async def test_one_look_takes_the_free_leads_and_tells_only_who_leads_what_is_to_do(
    log: Log, running: Committing
) -> None:
    names = ("expire", "tickets", "copy")

    async def looked(holder: str, copied: str | None = None) -> Look:
        return replace(await log.look(holder, names, 60.0, copied), now=0)

    assert abs((await log.look("a", names, 60.0, None)).now - await log.now()) < 10_000
    assert sorted((await looked("a")).leads) == sorted(names)
    assert await looked("b") == Look(0)
    assert not await log.lead("tickets", "b", 60.0)
    await running.started()
    cursor = await read_up_to(log, 2)
    assert await looked("b", cursor) == Look(0)
    await running.submit(timeouts={"total_s": 0.001})
    await read_up_to(log, 3)
    async with asyncio.timeout(10):
        while not (seen := await looked("a", cursor)).overdue:
            pass
    assert (seen.due, seen.behind) == (True, True)
    assert await looked("b") == Look(0)
    only_expiries = await log.look("a", ("expire",), 60.0, None)
    assert (only_expiries.leads, only_expiries.overdue, only_expiries.due) == (("expire",), True, False)


async def test_a_look_renews_a_lease_half_over_and_takes_one_that_ended(log: Log) -> None:
    assert (await log.look("a", ("expire",), 60.0, None)).leads == ("expire",)
    assert await log.lead("expire", "a", 29.0)  # less than half of 60 s is left
    assert (await log.look("a", ("expire",), 60.0, None)).leads == ("expire",)
    assert await log.lead("expire", "a", 0.05)
    async with asyncio.timeout(10):
        while not (await log.look("b", ("expire",), 60.0, None)).leads:
            pass
    assert (await log.look("a", ("expire",), 60.0, None)).leads == ()
    seen = await asyncio.gather(*(log.look(f"p{n}", ("new",), 60.0, None) for n in range(6)))
    seen += await asyncio.gather(*(log.look(f"p{n}", ("new",), 60.0, None) for n in range(6)))
    assert len([look for look in seen[6:] if look.leads]) == 1


async def read_up_to(log: Log, events: int) -> str:
    """The cursor behind so many events; what was just committed may not be in the feed at once."""
    async with asyncio.timeout(10):
        while len((page := await log.feed("", 500)).events) < events:  # noqa: ASYNC110 another transaction ends
            await asyncio.sleep(0.01)
    return page.cursor


async def test_a_declaration_is_kept_and_never_goes_back_to_a_lower_version(log: Log) -> None:
    def declared(version: int, summary: str) -> EngineRow:
        return EngineRow("fpl", version, summary, [{"name": "a", "until": 100.0}], {"type": "object"}, {})

    await log.declare([declared(2, "two")])
    await log.declare([declared(1, "one")])
    assert await log.engines() == [declared(2, "two")]
    await log.declare([declared(2, "two again")])
    assert (await log.engines())[0].summary == "two again"


# ---- listing


async def test_jobs_are_listed_newest_first_by_filter_and_page(log: Log, running: Committing) -> None:
    made = {await running.submit(tags=("weekly", f"n{n}")): f"n{n}" for n in range(5)}
    ids = sorted(made)  # two of one millisecond may come in any order
    await running.submit(tenant="other", tags=("weekly",))
    done = await running.started(tags=('quoted "tag"',))
    await running.committer.execute(done.job.id, a_finish(done))

    async def listed(**query: Any) -> list[str]:
        return [row.job.id for row in (await log.jobs(JobQuery("default", **query))).rows]

    assert await listed(tags=("weekly",)) == ids[::-1]
    assert await listed(tags=("weekly", made[ids[3]])) == [ids[3]]
    assert await listed(tags=("week",)) == []
    assert await listed(tags=('quoted "tag"',)) == [done.job.id]
    assert await listed(status=("completed",)) == [done.job.id]
    assert await listed(tags=("weekly",), limit=2) == ids[:2:-1]
    assert await listed(tags=("weekly",), limit=2, before=ids[3]) == [ids[2], ids[1]]
    assert await listed(tags=("weekly",), up_to=ids[1]) == [ids[1], ids[0]]
    assert await listed(tags=("weekly", "n9")) == []
    assert await listed(engine="none") == []
    engine, made_at = done.job.engine, done.job.created_at
    assert await listed(engine=engine, limit=1) == [max(done.job.id, *ids)]
    assert set(await listed(created_after=made_at - 60_000)) == {done.job.id, *ids}
    assert await listed(created_after=made_at + 60_000) == []
    assert await log.count(JobQuery("default", tags=("weekly",))) == 5
    assert await log.count(JobQuery("default", limit=2)) == 2
    stats = await log.stats("default")
    assert (stats.by_status["completed"], (await log.stats("other")).by_status) == (1, {"running": 1})
    assert await log.job(ids[0], "other") is None
    assert await log.head(ids[0], "other") is None


async def test_a_page_of_jobs_is_bounded_by_bytes_and_has_always_one(log: Log, running: Committing) -> None:
    half, most = "x" * (PAGE_BYTES_MAX // 2 - 100), "é" * PAGE_BYTES_MAX  # of two bytes each
    ids = sorted(running.committer.new_job_id() for _ in range(7))
    for job_id, given in zip(ids, ("small", half, half, most, "small", half, half), strict=True):
        submit = a_submit(params={"text": given}, tags=("large",))
        await running.committer.submit(submit, tenant="default", job_id=job_id)
    pages, before, more = [], None, True
    while more:
        page = await log.jobs(JobQuery("default", tags=("large",), before=before))
        more, before = page.more, page.rows[-1].job.id
        pages.append([row.job.id for row in page.rows])
    assert pages == [[ids[6], ids[5], ids[4]], [ids[3]], [ids[2], ids[1], ids[0]]]
    page = await log.jobs(JobQuery("default", limit=2))
    assert (len(page.rows), page.more) == (2, True)
    assert await log.job_ids(JobQuery("default", tags=("large",))) == ids[::-1]
    assert await log.job_ids(JobQuery("default", before=ids[3], limit=2)) == [ids[2], ids[1]]
    page = await log.jobs(JobQuery("default", status=("failed",)))
    assert (page.rows, page.more) == ([], False)


@WITH_SQL
async def test_lists_read_an_index_however_many_jobs_there_are(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    """5 000 finished jobs beside the few that are asked for: no list goes through them."""
    wanted = await running.submit("rare", tags=("rare", "common"))
    common = await running.submit(tags=("common",), rerun_of=wanted)
    made_at = (await log.now()) - 60_000
    names = ", ".join(
        column.name
        for column in tables.jobs.c
        if column.name not in {"id", "created_at", "status", "key_sha256", "rerun_of"}
    )
    postgres = store_settings.database_url is not None
    new_id = "('01000000' || substr(md5(n::text), 9))::uuid" if postgres else "'0100' || printf('%032d', n)"
    for first in range(1, 5000, 1000):
        numbers = (
            f"generate_series({first}, {first + 999}) AS s(n)"
            if postgres
            else f"(WITH RECURSIVE r(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM r WHERE n < {first + 999}) "
            "SELECT n FROM r)"
        )
        async with log._writing(60.0) as connection:  # type: ignore[attr-defined]
            await connection.exec_driver_sql(
                f"INSERT INTO jobs (id, created_at, status, {names}) SELECT {new_id}, 1000, 'completed', {names} "
                f"FROM {numbers}, (SELECT {names} FROM jobs WHERE id = '{common}') AS one"
            )
    if postgres:
        async with log._writing(60.0) as connection:  # type: ignore[attr-defined]
            await connection.exec_driver_sql("ANALYZE jobs, job_tags")
    for query, expected in (
        (JobQuery("default", tags=("rare",)), [wanted]),
        (JobQuery("default", tags=("rare", "common")), [wanted]),
        (JobQuery("default", engine="rare"), [wanted]),
        (JobQuery("default", created_after=made_at), sorted([wanted, common], reverse=True)),
        (JobQuery("default", status=("running",)), []),
        (JobQuery("default", status=("failed", "running")), []),
        (JobQuery("default", status=("running", "queued", "queued")), sorted([wanted, common], reverse=True)),
        (JobQuery("default", rerun_of=wanted), [common]),
        (JobQuery("default", rerun_of=common), []),
    ):
        assert [row.job.id for row in (await log.jobs(query)).rows] == expected
        assert await _rows_read(log, query, store_settings) < 200, query
    assert len((await log.jobs(JobQuery("default", tags=("common",), limit=50))).rows) == 50
    assert await _rows_read(log, JobQuery("default", tags=("common",), limit=50), store_settings) < 1000
    assert await log.count(JobQuery("default", tags=("common",), limit=1000)) == 1000
    async with log._writing(60.0) as connection:  # type: ignore[attr-defined]
        await connection.exec_driver_sql("DELETE FROM jobs WHERE created_at = 1000")


async def _rows_read(log: Log, query: JobQuery, settings: Settings) -> int:
    """By the database's own account, of the larger of the two statements; on SQLite only whether a whole table is scanned."""
    ids = await log._listed(query)  # type: ignore[attr-defined]
    page = await log._job_page(query)  # type: ignore[attr-defined]
    return max(await _read_for(log, ids, settings), await _read_for(log, page, settings))


async def _read_for(log: Log, listed: Select[Any], settings: Settings) -> int:
    engine = log._reader.dialect  # type: ignore[attr-defined]
    sql = str(listed.compile(dialect=engine, compile_kwargs={"literal_binds": True}))
    async with log._reader.connect() as connection:  # type: ignore[attr-defined]
        if settings.database_url:
            return max(await _explained(connection, sql), await _explained(connection, *_prepared(listed, engine)))
        steps = [row[3] for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")]
        return 10**6 if any(re.match(r"SCAN (jobs|job_tags|tag_)", step) for step in steps) else 0


def _prepared(listed: Select[Any], dialect: Any) -> tuple[str, str, str, str]:
    """As a connection has it that has seen the statement several times: planned without its parameters."""
    compiled = listed.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    given = ", ".join(
        f"'{value}'" if isinstance(value, str) else str(value)
        for value in (compiled.params[name] for name in compiled.positiontup or ())
    )
    generic, usual = "SET plan_cache_mode = force_generic_plan", "RESET plan_cache_mode"
    return f"EXECUTE listed ({given})", generic, f"PREPARE listed AS {compiled}", f"DEALLOCATE listed; {usual}"


async def _explained(connection: AsyncConnection, sql: str, *around: str) -> int:
    *before, after = around or ("SELECT 1",)
    for statement in before:
        await connection.exec_driver_sql(statement)
    explained = (await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")).scalar_one()
    for statement in after.split("; "):
        await connection.exec_driver_sql(statement)
    plan = json.loads(explained) if isinstance(explained, str) else explained
    return _read_by(plan[0]["Plan"])


def _read_by(plan: dict[str, Any]) -> int:
    """Rows every node gave and threw away."""
    own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return int(own) + sum(map(_read_by, plan.get("Plans", ())))


@WITH_SQL
async def test_tags_are_kept_beside_a_job_and_go_with_it(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    job_id = await running.submit(tags=("a", "b", "a"))
    await running.submit()

    async def kept() -> list[str]:
        async with log._reader.connect() as connection:  # type: ignore[attr-defined]
            rows = (await connection.execute(select(tables.job_tags).order_by(tables.job_tags.c.tag))).all()
            assert {row.job_id for row in rows} <= {job_id}
            return [row.tag for row in rows]

    assert await kept() == ["a", "b"]
    for statement, expected in (
        ('UPDATE jobs SET tags = \'["b","c"]\' WHERE id =', ["b", "c"]),
        ("DELETE FROM jobs WHERE id =", []),
    ):
        async with log._writing(5.0) as connection:  # type: ignore[attr-defined]
            await connection.exec_driver_sql(f"{statement} '{job_id}'")
        assert await kept() == expected


# ---- what the database itself refuses


@WITH_SQL
@pytest.mark.parametrize("statement", ["UPDATE events SET data = '{}'", "DELETE FROM events", "TRUNCATE events"])
async def test_the_database_refuses_to_change_an_event(
    log: Log, running: Committing, store_settings: Settings, statement: str
) -> None:
    job_id = await running.submit()
    before = await whole_stream(log, job_id)
    url = store_settings.database_url
    engine = create_async_engine(
        asyncpg_url(url) if url else f"sqlite+aiosqlite:///{database.sqlite_path(store_settings)}"
    )
    with pytest.raises(DBAPIError):
        async with engine.begin() as connection:
            await connection.execute(text(statement))
    await engine.dispose()
    assert await whole_stream(log, job_id) == before


@WITH_SQL
async def test_rebuild_makes_a_spoilt_row_right_again(log: Log, running: Committing, store_settings: Settings) -> None:
    claimed = await running.started()
    await running.committer.execute(claimed.job.id, a_failure(claimed))
    row = await log.job(claimed.job.id)
    assert row is not None
    async with log.transaction() as tx:
        await tx.append([], [replace(row.job, status="running", progress=99.0)])
    await log.rebuild(replace(row, tags=("spoilt",), subject="spoilt"))
    assert {problem.split(" column ")[1].split()[0] for problem in await database.check(store_settings)} == {
        "status",
        "progress",
        "tags",
        "subject",
    }
    assert await database.rebuild(store_settings) == 1
    assert await database.check(store_settings) == []


@WITH_SQL
async def test_an_unmigrated_or_older_schema_is_refused_with_the_cure(store_settings: Settings, log: Log) -> None:
    await database.downgrade(store_settings, "base")
    other = database.make_log(store_settings)
    with pytest.raises(WrongRevision, match="db migrate"):
        await other.open()
    await other.close()
    await database.migrate(store_settings)


@WITH_SQL
async def test_a_table_that_a_restore_has_yet_to_bring_is_an_outage(log: Log, running: Committing) -> None:
    """Gateways and workers may run meanwhile: to them it must be no other schema, at which they would end."""
    moved = ("jobs", "events", "workers")

    async def rename(*names: tuple[str, str]) -> None:
        async with log._writer.begin() as connection:  # type: ignore[attr-defined]
            for name, other in names:
                await connection.execute(text(f"ALTER TABLE {name} RENAME TO {other}"))

    job_id = await running.submit()
    await rename(*((name, f"{name}_before") for name in moved))
    for call in (
        log.heads([job_id]),
        log.job(job_id),
        log.lines(job_id, 0),
        log.feed("", 9),
        log.beat(a_worker(), 6.0),
    ):
        with pytest.raises(LogUnavailable):
            await call
    submitting = asyncio.create_task(running.submit())
    with pytest.raises(LogUnavailable):
        await running.committer.claim("w1", {"countdown": 1}, 1, idle=True)
    await rename(*((f"{name}_before", name) for name in moved))
    assert [recorded.type for recorded in await whole_stream(log, await submitting)] == ["submitted"]
    assert [recorded.seq for recorded in await log.read(job_id, 0)] == [1]


@WITH_SQL
async def test_a_later_schema_serves_as_long_as_it_took_nothing_away(log: Log, store_settings: Settings) -> None:
    """The next version has migrated already; a process of this one is started again."""

    async def later(**says: str) -> None:
        async with log._writer.begin() as connection:  # type: ignore[attr-defined]
            await connection.execute(text("UPDATE alembic_version SET version_num = :revision"), says)
            await connection.execute(text("UPDATE compatible SET since = :since"), says)

    await later(revision="9998", since=tables.REVISION)
    other = database.make_log(store_settings)
    await other.open()
    async with committing(other) as running:
        job_id = await running.submit()
    assert [recorded.seq for recorded in await other.read(job_id, 0)] == [1]
    await other.close()
    await later(revision="9998", since="9998")
    refused = database.make_log(store_settings)
    with pytest.raises(WrongRevision):
        await refused.open()
    await refused.close()


async def test_a_job_no_partition_can_take_is_refused_before_it_is_queued(log: Log) -> None:
    year_3000 = "1d8dfc0d-9c00-7000-8000-000000000000"
    assert await log.accepts(year_3000) == (log.name == "sqlite")
    await log.make_partitions()


async def test_a_closed_committer_answers_unavailable(log: Log) -> None:
    async with committing(log) as running:
        await running.submit()
    with pytest.raises(LogUnavailable):
        await running.submit()
