"""Schedules in a database: exactly one job a tick, whatever happens to who makes it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from events import crash_points
from events.catalog import Scheduled, Submitted
from events.clock import rfc3339
from events.job import Job
from events.log import EngineRow, JobQuery
from events.log_postgres import PostgresLog
from events.log_sqlite import SqliteLog
from events.schedules import SCHEDULES_CHARS_MAX, Schedule, ScheduleAct
from events.telemetry import TICKS, Telemetry
from events.ticker import Ticker
from phaseline import database
from phaseline.settings import Settings
from tests.builders import a_cancel, committing, whole_stream
from tests.stores import open_log, postgres_settings, sqlite_settings

SqlLog = PostgresLog | SqliteLog
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
ENGINE = EngineRow("countdown", 3, "", [{"name": "all", "until": 100.0}], {"x-subject": ["team"]}, {})


@pytest.fixture(params=["sqlite", "postgres"])
async def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "sqlite":
        return sqlite_settings(tmp_path)
    return await postgres_settings(request.getfixturevalue("postgres"), tmp_path)


def a_schedule(tick: int, **fields: Any) -> Schedule:
    """An hourly one whose next tick is at `tick`, on the hour."""
    job = {"engine": "countdown", "params": {"team": 7}, "priority": "high", "max_attempts": 2}
    job |= {"timeouts": {"attempt_s": 9.0}, "tags": ["nightly"], "unique_key": None, "unique_mode": "return"}
    made = Schedule("s1", "acme", "hourly", "0 * * * *", "UTC", "all", 100, job, tick, "key:abc", tick)
    return replace(made, **fields)


async def stored(log: SqlLog, **fields: Any) -> Schedule:
    """Three ticks are due: this hour's and two missed ones. With cron of one instant a year there is no other."""
    await log.declare([ENGINE])
    schedule = a_schedule((await log.now() // HOUR_MS - 2) * HOUR_MS, **fields)
    assert await log.add_schedule(schedule, ScheduleAct("created", 1, "key:abc", "203.0.113.9")) == "made"
    return schedule


def due_of(schedule: Schedule, now: int) -> list[int]:
    assert schedule.next_at is not None
    return list(range(schedule.next_at, now + 1, HOUR_MS))


async def made(log: SqlLog) -> list[Job]:
    return [row.job for row in reversed((await log.jobs(JobQuery("acme", limit=100))).rows)]


async def ticks_made(log: SqlLog) -> list[int]:
    found = []
    for job in await made(log):
        [submitted] = await whole_stream(log, job.id)
        event = submitted.event()
        assert isinstance(event, Submitted)
        assert event.schedule is not None
        assert submitted.actor == "system:schedules"
        found.append(event.schedule.tick)
    return sorted(found)  # jobs of one millisecond are in no order


async def test_a_ticks_job_is_what_the_schedule_says_and_names_it(settings: Settings) -> None:
    async with open_log(settings) as log, committing(log) as running:
        assert isinstance(log, SqlLog)
        schedule = await stored(log, catch_up="last")
        before = await log.now()
        await Ticker(log, log, running.committer).tick()
        [job] = await made(log)
        [submitted] = await whole_stream(log, job.id)
        event = submitted.event()
        assert isinstance(event, Submitted)
        assert event.schedule == Scheduled(name="hourly", tick=due_of(schedule, before)[-1])
        assert (job.tenant, job.engine, job.engine_version, job.priority, job.max_attempts, job.attempt_s) == (
            *("acme", "countdown", 3, "high", 2, 9.0),
        )
        assert (event.params, event.tags, event.subject) == ({"team": 7}, ("nightly",), "[7]")
        now = await log.schedule("acme", "hourly")
        assert now is not None
        assert (now.last_at, now.last_job_id) == (event.schedule.tick, job.id)
        assert now.next_at == event.schedule.tick + HOUR_MS
        acts = [(act.act, act.actor, act.address) for act in await log.schedule_acts("s1", 9)]
        assert acts == [("skipped", "system:schedules", None), ("created", "key:abc", "203.0.113.9")]


async def test_many_processes_at_the_same_ticks_make_one_job_each(settings: Settings) -> None:
    async with open_log(settings) as log:
        assert isinstance(log, SqlLog)
        schedule = await stored(log)
        before = await log.now()
        logs = [database.make_log(settings) for _ in range(6)]
        for each in logs:
            await each.open()
        async with committing(logs[0]) as a, committing(logs[1]) as b:
            who = [a.committer, b.committer] * 3
            tickers = [Ticker(each, each, by) for each, by in zip(logs, who, strict=True)]
            await asyncio.gather(*(ticker.tick() for ticker in tickers))
        for each in logs:
            await each.close()
        assert sorted(await ticks_made(log)) == due_of(schedule, before)


class Died(BaseException):
    """The process is gone from here on."""


def die(point: str) -> None:
    """Once a tick's job is made."""
    if point == "schedule.made":
        raise Died


async def test_a_tick_whose_maker_died_before_moving_on_is_not_made_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_log(settings) as log, committing(log) as running:
        assert isinstance(log, SqlLog)
        schedule = await stored(log)
        before = await log.now()
        ticker = Ticker(log, log, running.committer)
        with monkeypatch.context() as armed:
            armed.setattr(crash_points, "on_reached", die)
            with pytest.raises(Died):
                await ticker.tick()
        assert await ticks_made(log) == due_of(schedule, before)
        assert await log.schedule("acme", "hourly") == schedule
        await ticker.tick()
        assert await ticks_made(log) == due_of(schedule, before)
        now = await log.schedule("acme", "hourly")
        assert now is not None
        assert now.next_at == due_of(schedule, before)[-1] + HOUR_MS


async def test_ticks_that_cannot_be_made_are_recorded_and_others_go_on(settings: Settings) -> None:
    async with open_log(settings) as log, committing(log) as running:
        assert isinstance(log, SqlLog)
        schedule = await stored(log)
        job = {**schedule.job, "engine": "gone"}
        gone = replace(schedule, id="s0", name="gone", job=job, next_at=(schedule.next_at or 0) - 1)
        broken = replace(gone, id="s2", name="broken", timezone="Europe/Atlantis")
        for each in (gone, broken):
            assert await log.add_schedule(each, ScheduleAct("created", 1, "key:abc")) == "made"
        before = await log.now()
        telemetry = Telemetry()
        await Ticker(log, log, running.committer, telemetry).tick()
        assert await ticks_made(log) == due_of(schedule, before)
        ticks = {word: telemetry.value("phaseline_schedule_ticks_total", outcome=word) for word in TICKS}
        due = len(due_of(schedule, before))
        assert ticks == {"made": due, "failed": due, "skipped": 0}
        assert telemetry.value("phaseline_schedules_paused_total") == 1
        failed = await log.schedule_acts("s0", 99)
        assert [act.act for act in failed] == [*["failed"] * len(due_of(schedule, before)), "created"]
        assert "there is no engine 'gone'" in (failed[0].detail or "")
        paused = await log.schedule("acme", "broken")
        assert paused is not None
        assert paused.paused
        assert [act.act for act in await log.schedule_acts("s2", 9)] == ["paused", "created"]


async def test_a_schedule_of_a_newer_version_holds_up_no_other(settings: Settings) -> None:
    async with open_log(settings) as log, committing(log) as running:
        assert isinstance(log, SqlLog)
        schedule = await stored(log)
        earlier = (schedule.next_at or 0) - 1
        newer: dict[str, dict[str, Any]] = {
            "field": {"job": {**schedule.job, "colour": "red"}},
            "limit": {"job": {**schedule.job, "timeouts": {"lunch_s": 1.0}}},
            "mode": {"job": {**schedule.job, "unique_mode": "queue"}},
            "shape": {"job": {"engine": "countdown", "tags": 7}},
            "rule": {"catch_up": "some"},
        }
        for name, fields in newer.items():
            made = replace(schedule, id=name, name=name, next_at=earlier, **fields)
            assert await log.add_schedule(made, ScheduleAct("created", 1, "key:abc")) == "made"
        before = await log.now()
        await Ticker(log, log, running.committer).tick()
        assert await ticks_made(log) == due_of(schedule, before)
        said = {name: (await log.schedule_acts(name, 1))[0] for name in newer}
        assert {name: act.act for name, act in said.items()} == dict.fromkeys(newer, "failed") | {"rule": "paused"}
        assert "this version does not know colour" in (said["field"].detail or "")
        assert "lunch_s" in (said["limit"].detail or "")
        assert "unique_mode" in (said["mode"].detail or "")
        assert await log.due_schedules(99) == []


async def test_a_tick_that_found_its_key_taken_is_judged_again_when_its_maker_died(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job was made for it, so nothing remembers it: it makes its one job as if it came now, and only the one."""
    async with open_log(settings) as log, committing(log) as running:
        assert isinstance(log, SqlLog)
        schedule = await stored(log, catch_up="last", job={**a_schedule(0).job, "unique_key": "nightly"})
        holder = await running.submit(tenant="acme", unique_key="nightly")
        ticker = Ticker(log, log, running.committer)
        with monkeypatch.context() as armed:
            armed.setattr(crash_points, "on_reached", die)
            with pytest.raises(Died):
                await ticker.tick()
        assert [job.id for job in await made(log)] == [holder]
        await running.committer.execute(holder, a_cancel())
        for _ in range(2):
            await ticker.tick()
        [first, job] = await made(log)
        assert first.id == holder
        now = await log.schedule("acme", "hourly")
        assert now is not None
        assert now.last_job_id == job.id
        assert now.next_at == (now.last_at or 0) + HOUR_MS > (schedule.next_at or 0)


async def test_ticks_with_a_unique_key_make_one_job_while_it_has_not_ended(settings: Settings) -> None:
    async with open_log(settings) as log, committing(log) as running:
        assert isinstance(log, SqlLog)
        await stored(log, job={**a_schedule(0).job, "unique_key": "nightly", "unique_mode": "refuse"})
        await Ticker(log, log, running.committer).tick()
        [job] = await made(log)
        acts = await log.schedule_acts("s1", 9)
        assert {act.act for act in acts} == {"failed", "created"}
        assert job.id in (acts[0].detail or "")


async def test_the_one_who_leads_hears_that_a_tick_has_come(settings: Settings) -> None:
    async with open_log(settings) as log:
        assert isinstance(log, SqlLog)
        looks = [await log.look("me", ["schedules"], 60.0, None)]
        schedule = await stored(log)
        looks.append(await log.look("me", ["schedules"], 60.0, None))
        looks.append(await log.look("other", ["schedules"], 60.0, None))
        await log.set_schedule(schedule.id, None, ScheduleAct("paused", 2, "user:test"))
        looks.append(await log.look("me", ["schedules"], 60.0, None))
        assert [(look.leads, look.ticks) for look in looks] == [
            (("schedules",), False),
            (("schedules",), True),
            ((), False),
            (("schedules",), False),
        ]


async def test_a_schedule_that_was_paused_or_removed_meanwhile_is_left_as_it_is(settings: Settings) -> None:
    async with open_log(settings) as log, committing(log) as running:
        assert isinstance(log, SqlLog)
        schedule = await stored(log)
        await log.set_schedule(schedule.id, None, ScheduleAct("paused", 2, "user:test"))
        assert not await log.advance_schedule(schedule, 5, [ScheduleAct("skipped", 3, "system:schedules")])
        assert [act.act for act in await log.schedule_acts("s1", 9)] == ["paused", "created"]
        await Ticker(log, log, running.committer).tick()
        assert await made(log) == []
        assert await log.drop_schedule(schedule.id, ScheduleAct("deleted", 4, "user:test"))
        assert not await log.drop_schedule(schedule.id, ScheduleAct("deleted", 5, "user:test"))
        assert [act.act for act in await log.schedule_acts("s1", 9)] == ["deleted", "paused", "created"]


async def test_what_a_tenants_schedules_submit_is_bounded_for_a_list_shows_all_of_it(settings: Settings) -> None:
    async with open_log(settings) as log:
        assert isinstance(log, SqlLog)
        large = a_schedule(0, job={**a_schedule(0).job, "params": {"text": "ö" * (SCHEDULES_CHARS_MAX // 3)}})
        answers = [
            await log.add_schedule(
                replace(large, id=name, name=name, tenant=tenant), ScheduleAct("created", 1, "key:abc")
            )
            for name, tenant in (("a", "acme"), ("b", "acme"), ("c", "acme"), ("d", "other"))
        ]
        assert answers == ["made", "made", "full", "made"]
        assert [one.name for one in await log.schedules("acme")] == ["a", "b"]
        assert await log.drop_schedule("a", ScheduleAct("deleted", 2, "user:test"))
        assert await log.add_schedule(replace(large, id="c", name="c"), ScheduleAct("created", 3, "key:abc")) == "made"


async def test_a_name_belongs_to_its_tenant(settings: Settings) -> None:
    async with open_log(settings) as log:
        assert isinstance(log, SqlLog)
        schedule = await stored(log)
        again = replace(schedule, id="s3")
        assert await log.add_schedule(again, ScheduleAct("created", 1, "key:abc")) == "taken"
        elsewhere = replace(again, tenant="other")
        assert await log.add_schedule(elsewhere, ScheduleAct("created", 1, "key:abc")) == "made"
        assert [found.id for found in await log.schedules("acme")] == ["s1"]
        assert rfc3339(schedule.next_at or 0).endswith(":00:00.000Z")
