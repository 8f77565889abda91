"""What every log promises, each promise once, on SQLite and on each PostgreSQL."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from events import batch
from events.catalog import Checkpoint, Partial, Ref
from events.catalog import Log as LogEvent
from events.committer import Committer
from events.errors import KeyReused, LeaseLost, LogUnavailable, StillAlive, UnknownJob, Unstorable, WrongRevision
from events.log import Artifact, EngineRow, Head, JobQuery, Log
from events.log_postgres import asyncpg_url
from phaseline import database
from phaseline.settings import Settings
from tests.builders import (
    Committing,
    a_cancel,
    a_failure,
    a_finish,
    a_report,
    a_submit,
    a_worker,
    an_expiry,
    committing,
    progress,
    story,
    whole_stream,
)

# SQLite has one writer: no transaction can commit late there, and none has an id.
ON_POSTGRES = pytest.mark.parametrize("store_settings", ["postgres", "postgres_18"], indirect=True)


@pytest.fixture(autouse=True)
async def rows_are_folds(log: Log) -> AsyncIterator[None]:
    """After every test here: each job's row equals the fold of its events."""
    yield
    problems = [problem async for row in log.all_jobs() for problem in await database.differences(log, row.job.id)]
    assert problems == []


# ---- appending and reading


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


async def test_many_committers_on_hot_jobs_leave_no_hole_and_lose_nothing(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    jobs = [await running.started() for _ in range(5)]
    others = [database.make_log(store_settings) for _ in range(3)] if log.name == "postgresql" else []
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


async def test_a_job_changed_in_the_batch_that_makes_it_is_what_its_events_say(log: Log, running: Committing) -> None:
    job_id = running.committer.new_job_id()
    await asyncio.gather(
        running.committer.submit(a_submit(), tenant="default", job_id=job_id),
        running.committer.execute(job_id, a_cancel()),
    )
    assert story(await whole_stream(log, job_id)) == [(1, "submitted"), (2, "cancelled")]


@ON_POSTGRES
async def test_the_feed_never_skips_a_transaction_that_commits_late(store_settings: Settings, log: Log) -> None:
    """Two writers; the one that began first commits last. A plain serial cursor would step over its events."""
    slow, quick = database.make_log(store_settings), database.make_log(store_settings)
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


# ---- submitting


async def test_the_same_key_at_the_same_instant_makes_one_job(
    log: Log, running: Committing, store_settings: Settings
) -> None:
    other_log = database.make_log(store_settings)
    await other_log.open()
    async with committing(other_log) as other:
        made = await asyncio.gather(
            *(who.committer.submit(a_submit(key="k"), tenant="default") for who in [running, other] * 5)
        )
    await other_log.close()
    assert len({row.job.id for row, _ in made}) == 1
    assert sum(not replayed for _, replayed in made) == 1
    assert len(await log.jobs(JobQuery("default"))) == 1


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
    claimed = next(c for c in await running.claim(slots=9) if c.job.id == row.job.id)
    assert claimed.job.progress == 25.0
    assert [event.type for event in await log.checkpoints(row.job.id)] == ["checkpoint"]
    assert await log.checkpoints(first.job.id) == []


# ---- claiming


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


async def test_two_claimants_never_get_the_same_job(log: Log, running: Committing, store_settings: Settings) -> None:
    jobs = {await running.submit() for _ in range(20)}
    other_log = database.make_log(store_settings)
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


async def test_deadlines_are_found_with_their_cause(log: Log, running: Committing, store_settings: Settings) -> None:
    start = await running.submit(timeouts={"start_s": 0.001})
    total = await running.submit(timeouts={"total_s": 0.001}, not_before=2_000_000_000_000)
    await running.submit(timeouts={"start_s": 600.0, "total_s": 600.0})
    found = {overdue.job_id: overdue.cause for overdue in await log.overdue(10)}
    assert found == {start: "start_timeout", total: "total_timeout"}


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
    ids = [await running.submit(tags=("weekly", f"n{n}")) for n in range(5)]
    await running.submit(tenant="other", tags=("weekly",))
    done = await running.started(tags=('quoted "tag"',))
    await running.committer.execute(done.job.id, a_finish(done))

    async def listed(**query: Any) -> list[str]:
        return [row.job.id for row in await log.jobs(JobQuery("default", **query))]

    assert await listed(tag="weekly") == ids[::-1]
    assert await listed(tag="n3") == [ids[3]]
    assert await listed(tag="week") == []
    assert await listed(tag='quoted "tag"') == [done.job.id]
    assert await listed(status=("completed",)) == [done.job.id]
    assert await listed(tag="weekly", limit=2) == ids[:2:-1]
    assert await listed(tag="weekly", limit=2, before=ids[3]) == [ids[2], ids[1]]
    assert await listed(engine="none") == []
    stats = await log.stats("default")
    assert (stats.by_status["completed"], (await log.stats("other")).by_status) == (1, {"running": 1})
    assert await log.job(ids[0], "other") is None
    assert await log.head(ids[0], "other") is None


# ---- what the database itself refuses


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


async def test_rebuild_makes_a_spoilt_row_right_again(log: Log, running: Committing, store_settings: Settings) -> None:
    claimed = await running.started()
    await running.committer.execute(claimed.job.id, a_failure(claimed))
    row = await log.job(claimed.job.id)
    assert row is not None
    async with log.transaction() as tx:
        await tx.save([replace(row.job, status="running", progress=99.0)])
    await log.rebuild(replace(row, tags=("spoilt",)))
    assert {problem.split(" column ")[1].split()[0] for problem in await database.check(store_settings)} == {
        "status",
        "progress",
        "tags",
    }
    assert await database.rebuild(store_settings) == 1
    assert await database.check(store_settings) == []


async def test_an_unmigrated_or_older_schema_is_refused_with_the_cure(store_settings: Settings, log: Log) -> None:
    await database.downgrade(store_settings, "base")
    other = database.make_log(store_settings)
    with pytest.raises(WrongRevision, match="db migrate"):
        await other.open()
    await other.close()
    await database.migrate(store_settings)


async def test_a_job_no_partition_can_take_is_refused_before_it_is_queued(log: Log) -> None:
    year_3000 = "1d8dfc0d-9c00-7000-8000-000000000000"
    assert await log.accepts(year_3000) == (log.name == "sqlite")
    await log.make_partitions()


async def test_a_closed_committer_answers_unavailable(log: Log) -> None:
    async with committing(log) as running:
        await running.submit()
    with pytest.raises(LogUnavailable):
        await running.submit()
