"""One death at each crash point, and how it comes about: a process armed with the point, and what makes it go there.

`CASES` has every point of `events/crash_points.py`. The deaths of workers and gateways happen on one installation
whose other gateway and worker live on; those of the sweeper on another, where nobody else would lead; those of the
database's commands on an empty database each.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import aio_pika
import aiohttp
import asyncpg

from events.clock import parse_instant
from events.log import EngineRow
from events.schedules import Schedule, ScheduleAct
from phaseline import database
from phaseline.settings import Settings
from tests.builders import PHASES, Committing, a_worker
from tests.forked import Forked, environment
from tests.installation import Api, Viewer
from tests.ports import free_port
from tests.servers import PostgresServer
from tests.stores import open_log

BOUND_S = 60.0
HEALED_S = 180.0
VIEWER_S = 300.0  # a viewer's job may wait for all the other deaths
STEADY = "steady"  # the engine of the worker that lives on
LOCK_HOLDER = "tests: holds a job's row"


@dataclass
class Wreck:
    """What one death left: how the process ended, the jobs it concerned, and what each stream must say in the end."""

    exit: int = 0
    said: str = ""
    jobs: list[str] = field(default_factory=list)
    keys: list[tuple[str, bool | None]] = field(default_factory=list)  # a retried submit's key, whether it had worked


Drive = Callable[["Scene", "Case"], Awaitable[Wreck]]


@dataclass(frozen=True)
class Case:
    """How to get to one point. `story` is what each job's stream says in the end, one of these; empty for any."""

    point: str
    drive: Drive
    story: tuple[str, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    act: str = ""
    worked: bool | None = None  # whether the caller's command was carried out although it had no answer
    nth: int = 1

    @property
    def engine(self) -> str:
        """A worker that dies claims jobs of an engine only it runs."""
        return "doomed_" + self.point.replace(".", "_")


class Scene:
    """The installation that lives on: a gateway, a worker, and a viewer of every job."""

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer,
        settings: Settings,
        rabbit_url: str,
        http: Api,
        base: dict[str, str],
    ) -> None:
        self.folder = folder
        self.postgres = postgres
        self.settings = settings
        self.rabbit_url = rabbit_url
        self.http = http
        self.viewers: dict[str, Viewer] = {}
        self.migrating = asyncio.Lock()  # alembic has one context a process
        self._base = base
        self._watching: asyncio.TaskGroup | None = None
        self._watches: list[asyncio.Task[Viewer]] = []
        self._processes: list[Forked] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Ends every process of the scene after the block."""
        async with asyncio.TaskGroup() as group:
            self._watching = group
            try:
                yield self
            finally:
                for process in self._processes:
                    await process.kill()

    def start(self, *words: str, **settings: str) -> Forked:
        """A process of this installation."""
        output = self.folder / f"{len(self._processes)}-{words[-1]}.log"
        process = Forked(words, environment(**self._base | settings), output)
        self._processes.append(process)
        return process

    def arm(self, case: Case, *words: str, **settings: str) -> Forked:
        """A process that dies at the case's point."""
        return self.start(*words, PHASELINE_CRASH_AT=f"{case.point}:{case.nth}", **settings)

    async def armed_gateway(self, case: Case) -> tuple[Forked, str]:
        """One that answers and is connected to RabbitMQ."""
        port = str(free_port())
        process = self.arm(case, "gateway", PHASELINE_PORT=port)
        url = f"http://127.0.0.1:{port}"
        await self.answers(process, url)
        return process, url

    async def answers(self, process: Forked, url: str) -> None:
        async with asyncio.timeout(BOUND_S):
            while not await self._is_ready(url):
                assert process.running, process.said
                await asyncio.sleep(0.05)

    async def _is_ready(self, url: str) -> bool:
        with suppress(aiohttp.ClientConnectionError):
            async with self.http.session.get(f"{url}/readyz") as answer:
                return answer.status == 200 and (await answer.json())["bus"]["connected"]
        return False

    def watch(self, job_id: str) -> Viewer:
        """Follows a job to its end, beside everything else."""
        assert self._watching is not None
        viewer = self.viewers[job_id] = Viewer(self.http.url, job_id, bound_s=VIEWER_S)
        self._watches.append(self._watching.create_task(viewer.follow_to_the_end()))
        return viewer

    async def watched(self) -> None:
        """Returns when every job's stream has ended for its viewer, or has not in good time: then its test says so."""
        if self._watches:
            await asyncio.wait(self._watches, timeout=HEALED_S)
            for watch in self._watches:
                watch.cancel()

    async def submit(self, engine: str, params: dict[str, Any], **fields: Any) -> str:
        job_id = await self.http.submit(engine, params, **fields)
        self.watch(job_id)
        return job_id

    async def until_said(self, job_id: str, kind: str) -> None:
        """Waits for an event of this type."""
        viewer = self.viewers[job_id]
        async with asyncio.timeout(BOUND_S):
            while kind not in {event["type"] for event in viewer.events}:  # noqa: ASYNC110 another task's socket
                await asyncio.sleep(0.02)

    async def attempt(self, url: str, path: str, body: Any, **headers: str) -> tuple[int | None, bool]:
        """What a client hears from a gateway that may die meanwhile: the status, and whether it was a replay."""
        with suppress(aiohttp.ClientError):
            async with self.http.session.post(f"{url}{path}", json=body, headers=headers) as answer:
                await answer.read()
                return answer.status, "Idempotency-Replayed" in answer.headers
        return None, False


async def _ended(process: Forked, *jobs: str) -> Wreck:
    return Wreck(await process.ended(BOUND_S), process.said, list(jobs))


# ---- workers ----------------------------------------------------------------------------------------------------


async def in_a_worker(scene: Scene, case: Case) -> Wreck:
    """The worker takes the one job it may run; then, if the case says so, it is asked to drain or the job to stop."""
    job_id = await scene.submit(case.engine, case.params)
    process = scene.arm(case, "worker", CRASH_ENGINES=case.engine)
    if case.act:
        await scene.until_said(job_id, "log")
    if case.act == "drain":
        process.signal()
    elif case.act == "cancel":
        await scene.http.post(f"/api/v1/jobs/{job_id}/cancel", {}, 200)
    return await _ended(process, job_id)


# ---- gateways ---------------------------------------------------------------------------------------------------


async def at_a_submit(scene: Scene, case: Case) -> Wreck:
    """The client that had no answer asks the other gateway, with the same key."""
    process, url = await scene.armed_gateway(case)
    body = {"engine": STEADY, "params": {}}
    key = uuid.uuid4().hex
    status, _ = await scene.attempt(url, "/api/v1/jobs", body, **{"Idempotency-Key": key})
    assert status is None, "the gateway answered before it died"
    wreck = await _ended(process)
    again, replayed = await scene.attempt(scene.http.url, "/api/v1/jobs", body, **{"Idempotency-Key": key})
    assert (again, replayed) == (202, case.worked)
    job = await scene.http.post("/api/v1/jobs", body, 202, **{"Idempotency-Key": key})
    scene.watch(job["id"])
    wreck.jobs.append(job["id"])
    return wreck


async def after_submits(scene: Scene, case: Case) -> Wreck:
    """Submits until it dies: what goes to RabbitMQ goes there at its own time, answered or not."""
    process, url = await scene.armed_gateway(case)
    body = {"engine": STEADY, "params": {}}
    keys = []
    async with asyncio.timeout(BOUND_S):
        while process.running:
            keys.append(uuid.uuid4().hex)
            await scene.attempt(url, "/api/v1/jobs", body, **{"Idempotency-Key": keys[-1]})
    wreck = await _ended(process)
    for key in keys:
        job = await scene.http.post("/api/v1/jobs", body, 202, **{"Idempotency-Key": key})
        scene.watch(job["id"])
        wreck.jobs.append(job["id"])
    assert len(set(wreck.jobs)) == len(keys)
    return wreck


async def at_a_cancel(scene: Scene, case: Case) -> Wreck:
    """Of a job the other worker runs; the client asks again at the other gateway."""
    process, url = await scene.armed_gateway(case)
    job_id = await scene.submit(STEADY, {"hold": True})
    await scene.until_said(job_id, "log")
    await scene.attempt(url, f"/api/v1/jobs/{job_id}/cancel", {})
    wreck = await _ended(process, job_id)
    assert ("cancel_requested" in {e["type"] for e in await scene.http.events(job_id)}) == case.worked
    await scene.http.post(f"/api/v1/jobs/{job_id}/cancel", {}, 200)
    return wreck


async def at_a_reopening(scene: Scene, case: Case) -> Wreck:
    """Of a failed job; the client asks again at the other gateway, which may find it done."""
    process, url = await scene.armed_gateway(case)
    job_id = await scene.http.submit(STEADY, {"give_up": True})
    await Viewer(scene.http.url, job_id).follow_to_the_end()
    await scene.attempt(url, f"/api/v1/jobs/{job_id}/retry", {})
    wreck = await _ended(process, job_id)
    again, _ = await scene.attempt(scene.http.url, f"/api/v1/jobs/{job_id}/retry", {})
    assert again == (409 if case.worked else 202)
    scene.watch(job_id)
    return wreck


async def with_a_held_row(scene: Scene, case: Case) -> Wreck:
    """Somebody holds the job's row; the database then ends the waiting session, or the wait grows too long."""
    process, url = await scene.armed_gateway(case)
    job_id = await scene.submit(STEADY, {}, not_before="2099-01-01T00:00:00Z")
    holder = await asyncpg.connect(scene.settings.database_url, server_settings={"application_name": LOCK_HOLDER})
    try:
        async with holder.transaction(), asyncio.TaskGroup() as group:
            await holder.execute("SELECT 1 FROM jobs WHERE id = $1 FOR UPDATE", uuid.UUID(job_id))
            group.create_task(scene.attempt(url, f"/api/v1/jobs/{job_id}/cancel", {}))
            if case.act == "terminate":
                await _terminate_who_waits_for(holder)
            wreck = await _ended(process, job_id)
    finally:
        await holder.close()
    await scene.http.post(f"/api/v1/jobs/{job_id}/cancel", {}, 200)
    return wreck


async def _terminate_who_waits_for(holder: asyncpg.Connection) -> None:
    mine = holder.get_server_pid()
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))"
    async with asyncio.timeout(BOUND_S):
        while not await holder.fetch(end, mine):
            await asyncio.sleep(0.02)
            await holder.execute("SELECT pg_stat_clear_snapshot()")  # or a transaction sees the same sessions for ever


async def at_a_stream(scene: Scene, case: Case) -> Wreck:
    """A viewer's connection breaks with its gateway; it goes on at the other one, after the last event it has."""
    process, url = await scene.armed_gateway(case)
    job_id = await scene.http.submit(STEADY, {"bulk": 100_000})  # more than one frame may hold
    viewer = Viewer(scene.http.url, job_id, bound_s=VIEWER_S)
    await Viewer(scene.http.url, job_id).follow_to_the_end()
    elsewhere = viewer.address.replace(scene.http.url.replace("http", "ws", 1), url.replace("http", "ws", 1))
    viewer.address, here = elsewhere, viewer.address
    with suppress(aiohttp.ClientError):
        await viewer.follow()
    wreck = await _ended(process, job_id)
    assert (viewer.close_code in {1000, 4000}) is False
    scene.viewers[job_id] = viewer
    viewer.address = here
    await viewer.follow_to_the_end()
    return wreck


# ---- the sweeper ------------------------------------------------------------------------------------------------


class Sweeps(Scene):
    """An installation without other processes. Jobs are submitted and claimed from here."""

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer,
        settings: Settings,
        rabbit_url: str,
        http: Api,
        base: dict[str, str],
        running: Committing,
    ) -> None:
        super().__init__(folder, postgres, settings, rabbit_url, http, base)
        self.running = running


async def with_a_lost_worker(scene: Scene, case: Case) -> Wreck:
    """A worker claimed a job and is gone."""
    assert isinstance(scene, Sweeps)
    job_id = await scene.running.submit(case.engine)
    ghost = f"ghost of {case.point}"
    assert await scene.running.claim(ghost, engine=case.engine)
    await scene.running.log.leave(ghost)  # its lease ends now, not when a busy machine lets it
    return await _ended(scene.arm(case, "gateway"), job_id)


async def with_a_due_job(scene: Scene, case: Case) -> Wreck:
    """A worker lives that could run it, and no ticket says so."""
    assert isinstance(scene, Sweeps)
    job_id = await scene.running.submit(case.engine)
    await scene.running.log.beat(a_worker("alive", case.engine), 60.0)
    return await _ended(scene.arm(case, "gateway"), job_id)


async def with_a_tick(scene: Scene, case: Case) -> Wreck:
    """A schedule whose tick has come; others come to it again, and the tick has one job."""
    assert isinstance(scene, Sweeps)
    log: Any = scene.running.log
    await log.declare([EngineRow(case.engine, 1, "", [phase.model_dump() for phase in PHASES], {}, {})])
    tick = parse_instant("2026-01-01T00:00:00Z")
    job = {"engine": case.engine, "params": {}, "timeouts": {}, "tags": []}
    schedule = Schedule("s1", "default", "yearly", "0 0 1 1 *", "UTC", "all", 1, job, tick, "user:test", tick)
    assert await log.add_schedule(schedule, ScheduleAct("created", tick, "user:test")) == "made"
    wreck = await _ended(scene.arm(case, "gateway"))
    row = await log.find_key("default", schedule.idempotency(tick).key_sha256)
    return replace(wreck, jobs=[row.job.id])


async def with_no_copy(scene: Scene, case: Case) -> Wreck:
    """Somebody deleted the RabbitMQ stream; there is at least one event to copy."""
    assert isinstance(scene, Sweeps)
    job_id = await scene.running.submit(case.engine)
    connection = await aio_pika.connect(scene.rabbit_url)
    async with connection:
        channel = await connection.channel()
        await channel.queue_delete("phaseline.events.log")
    return await _ended(scene.arm(case, "gateway"), job_id)


async def with_partitions_missing(scene: Scene, case: Case) -> Wreck:
    """As after a long sleep of everything: the coming weeks have none."""
    connection = await asyncpg.connect(scene.settings.database_url)
    try:
        ahead = await connection.fetch(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = 'events'::regclass ORDER BY 1 OFFSET 1"
        )
        for row in ahead:
            await connection.execute(f'DROP TABLE "{row[0]}"')
    finally:
        await connection.close()
    return await _ended(scene.arm(case, "gateway"))


async def at_once(scene: Scene, case: Case) -> Wreck:
    """A gateway goes there by itself."""
    return await _ended(scene.arm(case, "gateway"))


# ---- the database's commands ------------------------------------------------------------------------------------


async def in_a_migration(scene: Scene, case: Case) -> Wreck:
    """Of an empty database; the next one finds nothing, or everything."""
    url = await asyncio.to_thread(scene.postgres.create_database)
    wreck = await _ended(scene.arm(case, "db", "migrate", PHASELINE_DATABASE_URL=url))
    settings = Settings(data_dir=scene.folder, database_url=url, rabbitmq_url=None)
    async with scene.migrating:
        await database.migrate(settings)
    assert await database.check(settings) == []
    return wreck


async def in_a_restore(scene: Scene, case: Case) -> Wreck:
    """Of another database: its epoch was raised, or it was not, and the command can be given again."""
    url = await asyncio.to_thread(scene.postgres.create_database)
    settings = Settings(data_dir=scene.folder, database_url=url, rabbitmq_url=None)
    async with scene.migrating:
        await database.migrate(settings)
    async with open_log(settings) as log:
        before = log.epoch
    wreck = await _ended(scene.arm(case, "db", "restored", PHASELINE_DATABASE_URL=url))
    async with open_log(settings) as log:
        assert (log.epoch != before) == case.worked
        assert await database.begin_epoch(settings) not in {before, log.epoch}
    return wreck


# ---- the list ---------------------------------------------------------------------------------------------------

HOLD = {"hold": True}
BEGUN = ("submitted", "started")
LOST = ("interrupted: lost",)
AGAIN = ("started", "log", "complete")
WHOLE = ("submitted", *AGAIN)


def _cases() -> Sequence[Case]:
    said = (*BEGUN, "log")
    cancelled = (*said, "cancel_requested")
    return [
        Case("submit.before_commit", at_a_submit, WHOLE, worked=False),
        Case("submit.committed", at_a_submit, WHOLE, worked=True),
        Case("claim.before_commit", in_a_worker, WHOLE),
        Case("claim.committed", in_a_worker, (*BEGUN, *LOST, *AGAIN)),
        Case("report.before_commit", in_a_worker, (*BEGUN, *LOST, *AGAIN), HOLD),
        Case("report.committed", in_a_worker, (*said, *LOST, *AGAIN), HOLD),
        Case("finish.before_commit", in_a_worker, (*said, *LOST, *AGAIN), {"pause": True}),
        Case("finish.committed", in_a_worker, WHOLE),
        Case("fail.before_commit", in_a_worker, (*said, *LOST, *AGAIN), {"fail": True}),
        Case("fail.committed", in_a_worker, (*said, "retry", *AGAIN), {"fail": True}),
        Case("release.before_commit", in_a_worker, (*said, *LOST, *AGAIN), HOLD, act="drain"),
        Case("release.committed", in_a_worker, (*said, "interrupted: drained", *AGAIN), HOLD, act="drain"),
        Case("stop.before_commit", in_a_worker, (*cancelled, "cancelled by system"), HOLD, act="cancel"),
        Case("stop.committed", in_a_worker, (*cancelled, "cancelled by worker"), HOLD, act="cancel"),
        Case("expire.before_commit", with_a_lost_worker, (*BEGUN, *LOST, *AGAIN)),
        Case("expire.committed", with_a_lost_worker, (*BEGUN, *LOST, *AGAIN)),
        Case("cancel.before_commit", at_a_cancel, (*cancelled, "cancelled by worker"), worked=False),
        Case("cancel.committed", at_a_cancel, (*cancelled, "cancelled by worker"), worked=True),
        Case("reopen.before_commit", at_a_reopening, (*said, "error", "reopened", *AGAIN), worked=False),
        Case("reopen.committed", at_a_reopening, (*said, "error", "reopened", *AGAIN), worked=True),
        Case(
            "artifacts.put", in_a_worker, (*BEGUN, *LOST, "started", "checkpoint", "log", "complete"), {"bulk": 300_000}
        ),
        Case("batch.unanswered", with_a_held_row, ("submitted", "cancelled by user"), act="terminate"),
        Case("batch.taken_apart", with_a_held_row, ("submitted", "cancelled by user")),
        Case("hints.taken", after_submits, WHOLE),
        Case("hints.confirmed", after_submits, WHOLE),
        Case("tickets.taken", after_submits, WHOLE),
        Case("tickets.confirmed", after_submits, WHOLE),
        Case("control.taken", at_a_cancel, (*cancelled, "cancelled by worker"), worked=True),
        Case("control.confirmed", at_a_cancel, (*cancelled, "cancelled by worker"), worked=True),
        Case("ticket.delivered", in_a_worker),
        Case("claim.answered", in_a_worker, (*BEGUN, *LOST, *AGAIN)),
        Case("ticket.acked", in_a_worker),
        Case("attempt.unstarted", in_a_worker, (*BEGUN, *LOST, *AGAIN)),
        Case("attempt.started", in_a_worker, (*BEGUN, *LOST, *AGAIN)),
        Case("attempt.ended", in_a_worker, (*said, *LOST, *AGAIN), {"pause": True}),
        Case("beat.answered", in_a_worker, params=HOLD, nth=6),
        Case("cancel.heard", in_a_worker, (*cancelled, "cancelled by system"), HOLD, act="cancel"),
        Case("worker.declared", in_a_worker),
        Case("drain.begun", in_a_worker, (*said, *LOST, *AGAIN), HOLD, act="drain"),
        Case("worker.emptied", in_a_worker, (*said, "interrupted: drained", *AGAIN), HOLD, act="drain"),
        Case("worker.left", in_a_worker, (*said, "interrupted: drained", *AGAIN), HOLD, act="drain"),
        Case("stream.head_read", at_a_stream),
        Case("stream.replaying", at_a_stream),
        Case("stream.ended", at_a_stream),
        Case("leader.taken", at_once),
        Case("sweep.found", with_a_lost_worker, (*BEGUN, *LOST, *AGAIN)),
        Case("tickets.counted", with_a_due_job, WHOLE),
        Case("copy.cursor_reset", with_no_copy, WHOLE),
        Case("copy.made", with_no_copy, WHOLE),
        Case("copy.confirmed", with_no_copy, WHOLE),
        Case("copy.cursor_saved", with_no_copy, WHOLE),
        Case("schedule.made", with_a_tick, WHOLE),
        Case("partitions.half_made", with_partitions_missing),
        Case("partitions.made", with_partitions_missing),
        Case("migration.locked", in_a_migration),
        Case("migration.before_commit", in_a_migration),
        Case("migration.committed", in_a_migration),
        Case("epoch.before_commit", in_a_restore, worked=False),
        Case("epoch.committed", in_a_restore, worked=True),
    ]


CASES = {case.point: case for case in _cases()}


def told(events: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """A stream as a case tells it: progress left out, who and why where it matters."""
    return tuple(_word(event) for event in events if event["type"] != "progress")


def _word(event: dict[str, Any]) -> str:
    match event["type"]:
        case "interrupted":
            return f"interrupted: {event['reason']}"
        case "cancelled":
            return f"cancelled by {event['actor'].partition(':')[0]}"
        case kind:
            return str(kind)
