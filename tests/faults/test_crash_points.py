"""At every crash point a process dies, and whoever is left repairs what it left: clients, viewers and log agree.

The deaths happen a few at a time before the first test; then the parts that died are replaced, once, and each test
looks at one of them.
"""

import asyncio
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
import uuid_utils

from events.catalog import Log as LogEvent
from events.crash_points import POINTS
from events.log import Log
from events.log_postgres import WEEK_MS, WEEKS_AHEAD
from events.values import decode
from phaseline.settings import Settings
from phaseline.verify import Counts
from tests.builders import Committing, a_finish, a_report, committing, whole_stream
from tests.faults.deaths import (
    BOUND_S,
    CASES,
    STEADY,
    Case,
    Scene,
    Sweeps,
    Wreck,
    at_once,
    in_a_worker,
    told,
    with_a_due_job,
    with_a_lost_worker,
    with_a_tick,
    with_no_copy,
    with_partitions_missing,
)
from tests.figures import note
from tests.installation import Viewer, api
from tests.integration.conftest import ENVIRONMENT
from tests.ports import free_port
from tests.servers import PostgresServer, RabbitServer
from tests.stores import open_log, postgres_settings
from tests.verified import verified

pytestmark = [pytest.mark.long, pytest.mark.timeout(700)]  # the first test waits for all deaths

DYING_AT_ONCE = 4
# What a receiver sees of a death is looked at beside it.
ELSEWHERE = {"webhook.claimed": "tests/webhooks/test_killed.py", "webhook.answered": "tests/webhooks/test_killed.py"}
ELSEWHERE |= {f"erasure.{at}": "tests/retention/test_erasure.py" for at in ("written", "committed")}
ELSEWHERE |= {f"retention.{at}": "tests/retention/test_killed.py" for at in ("written", "taken_out", "part_dropped")}
ENDS = {"complete", "error", "cancelled"}
SWEEPING = (at_once, with_a_due_job, with_a_tick, with_a_lost_worker, with_no_copy, with_partitions_missing)
ENGINES = ",".join([STEADY, *(case.engine for case in CASES.values() if case.drive is in_a_worker)])
QUICK = ENVIRONMENT | {"PHASELINE_ENGINE_MODULES": "tests.crash_engines", "PHASELINE_POLL_S": "0.5"}
QUICK |= {"PHASELINE_DRAIN_S": "5", "PHASELINE_SLOTS": "1"}
# A third of the lease is what the sweeper takes for a standstill of its own: a busy machine must stay below it. Those
# that live on must not lose a lease to the machine's other work, or a stream would tell of that as well.
QUICK |= {"PHASELINE_LEASE_S": "4", "PHASELINE_BEAT_S": "0.5"}
SURVIVOR = {"PHASELINE_SLOTS": "4", "PHASELINE_LEASE_S": "10"}
DESERTED = QUICK | {"PHASELINE_SWEEP_S": "0.1", "PHASELINE_LEADER_S": "0.5"}


class Aftermath:
    """Every wreck, and every job's stream after the repair."""

    def __init__(self) -> None:
        self.wrecks: dict[str, Wreck | BaseException] = {}
        self.streams: dict[str, tuple[str, ...]] = {}
        self.problems: list[str] = []
        self.counts: dict[str, Counts] = {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aftermath(
    request: pytest.FixtureRequest,
    postgres: PostgresServer,
    rabbit: RabbitServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Aftermath:
    """Lets processes die at the points the selected tests ask for, replaces them, and reads what came of it."""
    asked = {point for item in request.session.items if item.path == request.path for point in _points(item)}
    cases = [case for case in CASES.values() if case.point in asked or not asked]
    after = Aftermath()
    living, deserted = tmp_path_factory.mktemp("living"), tmp_path_factory.mktemp("deserted")
    sweeping = [case for case in cases if case.drive in SWEEPING]
    others = [case for case in cases if case.drive not in SWEEPING]
    first, second = [await postgres_settings(postgres, folder) for folder in (living, deserted)]
    async with asyncio.TaskGroup() as group:
        group.create_task(_on_a_living_installation(after, others, postgres, first, rabbit, living))
        group.create_task(_on_a_deserted_installation(after, sweeping, postgres, second, rabbit, deserted))
    return after


def _points(item: pytest.Item) -> set[str]:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return {params["point"]} if "point" in params else set()


async def _on_a_living_installation(
    after: Aftermath,
    cases: list[Case],
    postgres: PostgresServer,
    settings: Settings,
    rabbit: RabbitServer,
    folder: Path,
) -> None:
    port = str(free_port())
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    base = QUICK | _urls(settings, rabbit_url) | {"CRASH_ENGINES": ENGINES}
    async with (
        api(f"http://127.0.0.1:{port}") as http,
        Scene(folder, postgres, settings, rabbit_url, http, base).open() as scene,
    ):
        gateway = scene.start("gateway", PHASELINE_PORT=port)
        scene.start("worker", CRASH_ENGINES=STEADY, **SURVIVOR)
        await scene.answers(gateway, http.url)
        await _die(after, scene, cases)
        scene.start("worker", **SURVIVOR)  # runs whatever those that died could run
        await scene.watched()
        for job_id, viewer in scene.viewers.items():
            stream = await http.events(job_id)
            after.streams[job_id] = told(stream)
            if viewer.events != stream:
                after.problems.append(f"the viewer of {job_id} saw {viewer.seqs} of {len(stream)} events")
        await _verify(after, "living", settings, rabbit_url, list(scene.viewers.values()))


async def _on_a_deserted_installation(
    after: Aftermath,
    cases: list[Case],
    postgres: PostgresServer,
    settings: Settings,
    rabbit: RabbitServer,
    folder: Path,
) -> None:
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    base = DESERTED | _urls(settings, rabbit_url) | {"PHASELINE_PORT": "0"}
    async with (
        open_log(settings) as log,
        committing(log) as running,
        api("") as http,
        Sweeps(folder, postgres, settings, rabbit_url, http, base, running).open() as scene,
    ):
        for case in cases:  # one after another: the one that dies must be the leader
            await _die(after, scene, [case])
        scene.start("gateway")
        for case in cases:
            for job_id in _jobs(after.wrecks[case.point]):
                await _finish(running, job_id, case.engine)
                stream = [decode(row.line()) for row in await whole_stream(log, job_id)]
                after.streams[job_id] = told(stream)
        await _verify(after, "deserted", settings, rabbit_url)
        await _partitions_are_made(log)


async def _die(after: Aftermath, scene: Scene, cases: Iterable[Case]) -> None:
    turns = asyncio.Semaphore(DYING_AT_ONCE)

    async def die(case: Case) -> None:
        async with turns:
            try:
                after.wrecks[case.point] = await case.drive(scene, case)
            except Exception as problem:  # each case has a test of its own to fail
                after.wrecks[case.point] = problem

    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(die(case))


def _jobs(wreck: Wreck | BaseException) -> list[str]:
    return wreck.jobs if isinstance(wreck, Wreck) else []


async def _finish(running: Committing, job_id: str, engine: str) -> None:
    """A worker that lives takes the job once the sweeper has given it back, and ends it."""
    async with asyncio.timeout(BOUND_S):
        while not (taken := await running.claim("alive", engine=engine)):  # noqa: ASYNC110 the sweeper's turn
            await asyncio.sleep(0.05)
    assert [claimed.job.id for claimed in taken] == [job_id]
    await running.committer.execute(job_id, a_report(taken[0], LogEvent(level="info", message="here")))
    await running.committer.execute(job_id, a_finish(taken[0]))


async def _partitions_are_made(log: Log) -> None:
    last = (await log.now() // WEEK_MS + WEEKS_AHEAD) * WEEK_MS
    async with asyncio.timeout(BOUND_S):
        while not await log.accepts(str(uuid_utils.uuid7(nanoseconds=last * 1_000_000))):  # noqa: ASYNC110 a sweep
            await asyncio.sleep(0.1)


def _urls(settings: Settings, rabbit_url: str) -> dict[str, str]:
    return {"PHASELINE_DATABASE_URL": str(settings.database_url), "PHASELINE_RABBITMQ_URL": rabbit_url}


async def _verify(
    after: Aftermath, name: str, settings: Settings, rabbit_url: str, viewers: Sequence[Viewer] = ()
) -> None:
    """Log, rows, copy and recordings; and no job is there that nobody asked for."""
    try:
        after.counts[name] = await verified(settings, rabbit_url, viewers)
    except AssertionError as violation:
        after.problems.append(str(violation))
    async with open_log(settings) as log:
        unknown = [row.job.id async for row in log.all_jobs() if row.job.id not in after.streams]
    after.problems += [f"job {job_id} was made by nobody" for job_id in unknown]


def test_every_point_has_a_case():
    assert set(CASES) | set(ELSEWHERE) == set(POINTS)


@pytest.mark.parametrize("point", CASES)
def test_what_a_death_there_leaves_is_repaired(point: str, aftermath: Aftermath):
    wreck = aftermath.wrecks[point]
    if isinstance(wreck, BaseException):
        raise wreck
    reached = [line for line in wreck.said.splitlines() if line.startswith("crash point ")]
    assert (wreck.exit, reached) == (-signal.SIGKILL, [f"crash point {point} reached"])
    streams = {job_id: aftermath.streams[job_id] for job_id in wreck.jobs}
    if story := CASES[point].story:
        assert streams == dict.fromkeys(wreck.jobs, story)
    assert all(
        sum(word.partition(" ")[0] in ENDS for word in stream) == 1 + stream.count("reopened")
        for stream in streams.values()
    )


def test_after_all_deaths_log_rows_copy_and_viewers_agree(aftermath: Aftermath):
    assert aftermath.problems == []
    counted = "; ".join(f"{name} installation: {counts}" for name, counts in sorted(aftermath.counts.items()))
    note({"text": f"crash points: {len(POINTS)}, deaths: {len(aftermath.wrecks)}; {counted}"})
