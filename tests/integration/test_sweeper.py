"""The sweeper repairs: lost workers, passed deadlines, missing tickets, the copy."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from events.acts import By
from events.bus import Bus
from events.bus_memory import MemoryBus
from events.errors import BusUnavailable, LogUnavailable
from events.keys import Keys, draw
from events.log import Log
from events.log_postgres import WEEK_MS
from events.sweeper import Pulse, Sweeper, SweeperOptions
from events.telemetry import Telemetry
from tests.builders import Committing, a_finish, a_report, a_worker, committing, progress, story, whole_stream
from tests.proxy import proxy_to
from tests.servers import PostgresServer, RabbitServer
from tests.stores import open_bus, open_log, postgres_settings, sqlite_settings

BOUND_S = 30.0
FAST = SweeperOptions(sweep_s=0.1, leader_s=1.0, lease_s=0.5)


@pytest.fixture(params=["sqlite", "postgres"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    settings = (
        sqlite_settings(tmp_path)
        if request.param == "sqlite"
        else await postgres_settings(request.getfixturevalue("postgres"), tmp_path)
    )
    async with open_log(settings) as log:
        yield log


@asynccontextmanager
async def sweeping(
    running: Committing,
    bus: Bus,
    options: SweeperOptions = FAST,
    telemetry: Telemetry | None = None,
    keys: Keys | None = None,
) -> AsyncIterator[Sweeper]:
    sweeper = Sweeper(running.log, bus, running.committer, str(uuid.uuid4()), options, telemetry=telemetry, keys=keys)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(sweeper.run())
        try:
            yield sweeper
        finally:
            task.cancel()


async def until(true: Callable[[], Any]) -> None:
    """Waits for a condition another task makes true; the test's bound ends it."""
    async with asyncio.timeout(BOUND_S):
        while not await true():  # noqa: ASYNC110 the condition is in a database
            await asyncio.sleep(0.02)


async def test_a_dead_workers_job_is_interrupted_and_claimed_by_another(log: Log) -> None:
    async with committing(log) as running, sweeping(running, MemoryBus()):
        job_id = await running.submit()
        await running.claim("dead")
        await log.beat(a_worker("dead"), 0.05)  # its last beat

        async def interrupted() -> bool:
            return story(await whole_stream(log, job_id))[-1][1] == "interrupted"

        await until(interrupted)
        [again] = await running.claim("alive")
        await running.committer.execute(job_id, a_finish(again))
        assert [kind for _, kind in story(await whole_stream(log, job_id))] == [
            "submitted", "started", "interrupted", "started", "progress", "complete",
        ]  # fmt: skip


async def test_deadlines_pass_without_any_worker(log: Log) -> None:
    async with committing(log) as running, sweeping(running, MemoryBus()):
        job_id = await running.submit(timeouts={"start_s": 0.05})

        async def failed() -> bool:
            head = await log.head(job_id)
            return head is not None and head.status == "failed"

        await until(failed)
        assert "start_timeout" in (await whole_stream(log, job_id))[-1].data


async def test_tickets_that_were_lost_are_published_again(log: Log) -> None:
    bus = MemoryBus()
    async with committing(log) as running:
        for _ in range(3):
            await running.submit()
        await running.submit(engine_version=7)  # no worker runs it: a ticket for it would be an empty claim
        await log.beat(a_worker(), 60.0)
        assert await bus.ticket_count("countdown") in {0, None}
        async with sweeping(running, bus):

            async def topped_up() -> bool:
                return await bus.ticket_count("countdown") == 3

            await until(topped_up)


def test_after_a_gap_nothing_is_expired_until_a_whole_lease_has_passed() -> None:
    pulse = Pulse(lease_s=6.0)
    for second in range(7):
        assert pulse.steady() == (second > 6)
        pulse.feel(float(second), second * 1000)
    assert pulse.steady()
    pulse.feel(10.0, 10_000)  # this process stood still for 4 s
    assert not pulse.steady()
    for second in range(11, 17):
        pulse.feel(float(second), second * 1000)
    assert pulse.steady()
    pulse.feel(17.0, 60_000)  # the database's clock jumped
    assert not pulse.steady()


async def test_a_week_begins_without_a_partition_and_the_process_that_led_is_dead(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Submits are refused at once, and taken again soon after the dead leader's lease, not an hour later."""
    async with open_log(await postgres_settings(postgres, tmp_path)) as log, committing(log) as running:
        async with log._writer.begin() as connection:  # type: ignore[attr-defined]
            await connection.exec_driver_sql(f"DROP TABLE events_w{await log.now() // WEEK_MS}")
        await log._load_weeks()  # type: ignore[attr-defined]  # as a process that has just started
        assert await log.lead("partitions", "dead", 0.5)
        async with sweeping(running, MemoryBus()):
            with pytest.raises(LogUnavailable, match="no partition"):
                await running.submit()
            assert running.committer.waiting == 0

            async def accepted() -> bool:
                return await log.accepts(running.committer.new_job_id())

            await until(accepted)
            await running.submit()


async def test_two_processes_tell_once_that_a_key_expired(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.sweeper.KEYS_EVERY_S", 0.05)
    monkeypatch.setattr("events.sweeper.KEYS_MAX", 1)
    told: list[int] = []
    async with committing(log) as running, AsyncExitStack() as stack:
        for expires_at in (1000, 2000):
            key, _ = draw("acme", "CI", ["read"], now_ms=await log.now(), expires_at=expires_at)
            await log.add_key(key, By("user:ada"))
        log.on_act = lambda: told.append(1)
        options = replace(FAST, leader_s=0.05)
        for _ in range(2):
            await stack.enter_async_context(sweeping(running, MemoryBus(), options, keys=log))

        async def both() -> bool:
            return len(told) >= 2

        await until(both)
        last, _ = draw("acme", "CI", ["read"], now_ms=await log.now(), expires_at=3000)
        await log.add_key(last, By("user:ada"))

        async def told_too() -> bool:
            return len(told) >= 4  # that it was made, and that it is over

        await until(told_too)
        acts = [recorded.act().act for recorded in await log.acts("acme", None, 50)]
        assert acts.count("key_expired") == 3


async def test_a_process_that_cannot_expire_yet_leaves_the_lead_to_one_that_can(log: Log) -> None:
    async with committing(log) as running, sweeping(running, MemoryBus(), replace(FAST, lease_s=60.0)) as newcomer:

        async def passed() -> bool:
            return len(newcomer._pulse._felt) > 2

        await until(passed)
        assert await log.lead("expire", "one that has run for long", 60.0)


async def test_every_event_is_in_the_copy_and_a_lost_copy_is_made_whole_again(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    url = await asyncio.to_thread(rabbit.create_vhost)
    async with (
        open_log(settings) as log,
        committing(log) as running,
        open_bus(url, "test") as bus,
        sweeping(running, bus),
    ):
        claimed = await running.started()
        await running.committer.execute(claimed.job.id, a_report(claimed, progress(), progress(20.0)))
        await running.committer.execute(claimed.job.id, a_finish(claimed, {"x": 1}))
        wanted = {(row.job_id, row.seq) for row in await whole_stream(log, claimed.job.id)}

        async def complete() -> bool:
            try:
                return await bus.copy_exists() and wanted <= set(map(key_of, [m async for m in bus.read_copy()]))
            except BusUnavailable:  # RabbitMQ knows the new stream and has no replica of it yet
                return False

        await until(complete)
        await delete_stream(url)
        await until(complete)


async def test_a_copy_over_a_slow_line_is_made_once_although_others_wait_to_lead(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path
) -> None:
    """A page that took longer than the leader's lease was begun anew by each of the others meanwhile."""
    settings = await postgres_settings(postgres, tmp_path)
    url = await asyncio.to_thread(rabbit.create_vhost)
    async with open_log(settings) as log, proxy_to(url) as line, open_bus(url, "reader") as reader:
        async with committing(log) as running, AsyncExitStack() as processes:
            claimed = await running.started()
            for _ in range(4):
                await running.committer.execute(claimed.job.id, a_report(claimed, *[progress()] * 100))
            line.delay(0.2)  # a window of confirms takes 0.4 s, the page thirteen of them
            options = replace(FAST, leader_s=3.0)
            for number in range(4):
                bus = await processes.enter_async_context(open_bus(line.url, f"process {number}"))
                await processes.enter_async_context(sweeping(running, bus, options))
            await until(partial(copied_up, log))
        keys = [key_of(message) async for message in reader.read_copy()]
        assert keys == [(claimed.job.id, seq) for seq in range(1, 403)]


async def test_a_leader_that_is_cut_off_from_rabbitmq_leaves_the_copy_to_others(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    url = await asyncio.to_thread(rabbit.create_vhost)
    telemetry = Telemetry()
    async with (
        open_log(settings) as log,
        committing(log) as running,
        proxy_to(url) as line,
        open_bus(line.url, "leader") as leader,
        sweeping(running, leader, telemetry=telemetry),
    ):
        await running.submit()
        await until(partial(copied_up, log))
        assert telemetry.value("phaseline_copy_lag_seconds") > 0
        async with open_bus(url, "other") as other, sweeping(running, other):
            line.cut()
            await running.submit()
            await until(partial(copied_up, log))
            assert not leader.connected
            assert telemetry.value("phaseline_copy_lag_seconds") == 0  # of a copy that another process makes


async def copied_up(log: Log) -> bool:
    """Whether the cursor of the copy is at the end of a log that holds something."""
    cursor = await log.cursor("copy")
    return bool(cursor) and not (await log.feed(cursor or "", 1)).events


def key_of(message: bytes) -> tuple[str, int]:
    """Job and sequence of a CloudEvent, read with nothing but its specification."""
    event = json.loads(message)
    assert event["specversion"] == "1.0"
    return event["subject"], int(event["sequence"])


async def delete_stream(url: str) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.queue_delete("phaseline.events.log")
