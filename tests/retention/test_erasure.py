"""The payload of an archived job goes from the archive too; the jobs beside it, and the chain, stay."""

import asyncio
import gzip
import json
import signal
from pathlib import Path

import asyncpg
import pytest

from events import audit, crash_points
from events.errors import PhaselineError, Refused, UnknownJob
from phaseline import database
from phaseline.erase import erase
from phaseline.erase_archived import Quicker
from tests.cli.program import phaseline
from tests.retention.scene import Scene, settings_in

SECRET = "Ada Lovelace"
WHO = {"actor": "user:officer", "reason": "asked by the customer"}


def kept(scene: Scene) -> str:
    """Everything the archive holds."""
    return "".join(kept_of(week) for week in scene.folder.glob("*/w*"))


def kept_of(week: Path) -> str:
    """What the archive holds of a week."""
    return "".join(gzip.decompress(path.read_bytes()).decode() for path in week.glob("*.gz"))


async def whole(scene: Scene, *job_ids: str) -> list[str]:
    """As a process reads them that has not read the archive before."""
    async with database.opened(scene.settings) as log:
        return [repr(await database.whole_stream(log, job_id)) for job_id in job_ids]


@pytest.mark.parametrize("weeks_ago", [0, 5])
async def test_an_archived_job_is_erased_where_it_lies(scene: Scene, weeks_ago: int) -> None:
    secret, other = [await scene.completed({"name": SECRET}, weeks_ago=weeks_ago, large=b"y" * 300_000) for _ in "ab"]
    await scene.sweep()
    before = await whole(scene, other)
    assert await erase(scene.settings, secret, **WHO) == 5
    assert kept(scene).count(SECRET) == 1  # the other job's
    assert await whole(scene, other) == before
    [left] = await whole(scene, secret)
    assert SECRET not in left
    if weeks_ago == 0 and scene.log.name == "postgresql":
        async with scene.log._writer.begin() as connection:
            found = await connection.exec_driver_sql(f"SELECT count(*) FROM events WHERE data LIKE '%%{SECRET}%%'")
            assert found.scalar_one() == 1
    [told] = [act for act in await scene.log.acts("default", None, 9) if "payload_erased" in act.data]
    assert (told.actor, secret in told.data) == ("user:officer", True)
    await scene.sealer.seal()
    async with database.opened(scene.settings) as log:
        report = await audit.verify(log)
        assert (report.findings, report.archived, report.erased > 0) == ([], 2, True)
        row = await log.job(secret)
        assert row is not None
        assert row.params == "{}"
        assert len(await log.artifact_names(secret)) == 0
    assert await erase(scene.settings, secret, **WHO) == 5  # again changes nothing
    assert len([act for act in await scene.log.acts("default", None, 9) if "payload_erased" in act.data]) == 1


async def test_a_held_or_discarded_one_is_not(scene: Scene) -> None:
    held, gone = await scene.completed(SECRET), await scene.completed(1)
    await scene.sweep("completed=0s")
    await database.hold(scene.settings, held, held=True, actor="user:counsel", reason="case 4711")
    with pytest.raises(Refused, match="held"):
        await erase(scene.settings, held, **WHO)
    assert SECRET in kept(scene)
    assert gone


@pytest.mark.parametrize("point", ["erasure.written", "erasure.committed"])
async def test_an_erasure_that_was_killed_is_ended_by_the_next(scene: Scene, point: str) -> None:
    secret, other = await scene.completed({"name": SECRET}, weeks_ago=5), await scene.completed(2, weeks_ago=5)
    await scene.sweep()
    before = await whole(scene, other)
    words = ("db", "erase", secret, "--by", "user:officer", "--reason", "asked")
    died = await asyncio.to_thread(phaseline, *words, **settings_in(scene.settings), PHASELINE_CRASH_AT=point)
    assert died.code == -signal.SIGKILL, died.err
    assert await whole(scene, other) == before
    done = await asyncio.to_thread(phaseline, *words, **settings_in(scene.settings))
    assert (done.code, done.out) == (0, "5 events erased\n"), done.err
    assert SECRET not in kept(scene)
    assert await whole(scene, other) == before
    async with database.opened(scene.settings) as log:
        assert (await audit.verify(log)).findings == []


async def test_a_discarded_job_is_erased_where_a_partition_still_has_it(scene: Scene) -> None:
    gone = await scene.completed(SECRET)
    await scene.sweep(discard=True)
    if scene.log.name == "sqlite":
        with pytest.raises(UnknownJob):
            await erase(scene.settings, gone, **WHO)
        return
    assert await scene.rows_of("events", gone) == 5
    assert await erase(scene.settings, gone, **WHO) == 5
    async with scene.log._writer.begin() as connection:
        found = await connection.exec_driver_sql(f"SELECT count(*) FROM events WHERE data LIKE '%%{SECRET}%%'")
        assert found.scalar_one() == 0
    await scene.sealer.seal()
    assert await scene.findings() == []


async def test_two_erasures_of_one_job_leave_it_readable(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, other = await scene.completed(SECRET, weeks_ago=5), await scene.completed(2, weeks_ago=5)
    await scene.sweep()
    before = await whole(scene, other)

    def meanwhile(point: str) -> None:
        if point == "erasure.written":
            crash_points.on_reached = None
            done = phaseline("db", "erase", job_id, "--by", "user:x", "--reason", "y", **settings_in(scene.settings))
            assert done.code == 0, done.err

    monkeypatch.setattr(crash_points, "on_reached", meanwhile)
    with pytest.raises(Quicker):
        await erase(scene.settings, job_id, **WHO)
    assert await whole(scene, other) == before
    assert SECRET not in kept(scene)
    assert await erase(scene.settings, job_id, **WHO) == 5


async def test_a_dead_erasure_is_ended_by_the_next_though_another_came_between(scene: Scene) -> None:
    one, other = await scene.completed({"name": SECRET}, weeks_ago=5), await scene.completed(2, weeks_ago=5)
    await scene.sweep()
    words = ("db", "erase", one, "--by", "user:officer", "--reason", "asked")
    died = await asyncio.to_thread(
        phaseline, *words, **settings_in(scene.settings), PHASELINE_CRASH_AT="erasure.committed"
    )
    assert died.code == -signal.SIGKILL
    await erase(scene.settings, other, **WHO)
    assert SECRET not in kept(scene)
    assert len(list(scene.folder.glob("*/w*/*.gz"))) == 1


async def test_a_manifest_that_was_edited_leads_to_no_other_file(scene: Scene, tmp_path: Path) -> None:
    """Who can write to the archive, which may be a bucket, reaches nothing else by it: no file, no other log's object."""
    secret = await scene.completed({"name": SECRET}, weeks_ago=5)
    await scene.sweep()
    [manifest] = scene.folder.glob("*/w*/*.manifest.json")
    object_name = manifest.name.removesuffix(".manifest.json")
    others = scene.folder / "1-0123abcd" / "w1" / object_name  # of another log that shares the archive
    mine = manifest.with_name(f"{secret}-{'0' * 16}.ndjson.gz")  # what an erasure that died leaves
    victims = [tmp_path / "victim", tmp_path / "victim.manifest.json", others]
    for path in (*victims, mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("somebody's")
    names = [
        "../victim",
        str(tmp_path / "victim"),
        7,
        None,
        *(path.relative_to(scene.folder).as_posix() for path in (others, mine)),
    ]
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"replaces": names}))
    assert await erase(scene.settings, secret, **WHO) == 5
    assert [path.exists() for path in victims] == [True, True, True]
    assert not mine.exists()
    assert SECRET not in kept_of(manifest.parent)


async def test_a_hold_under_way_stops_the_erasure_of_an_archived_job(scene: Scene) -> None:
    job_id = await scene.completed(SECRET, weeks_ago=5)
    await scene.sweep()
    if scene.log.name == "sqlite":
        return  # one writer: a hold is before or after
    counsel, looking = [await asyncpg.connect(str(scene.settings.database_url)) for _ in "ab"]
    try:
        async with counsel.transaction():
            said = "INSERT INTO holds (job_id, tenant, held, at, actor, reason) VALUES ($1, 'default', true, 1, 'user:x', 'y')"
            await counsel.execute(said, job_id)
            erasing = asyncio.create_task(erase(scene.settings, job_id, **WHO))
            async with asyncio.timeout(60):
                while not await looking.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)  # its statement waits; the bound is above
        with pytest.raises(PhaselineError, match="held"):
            await erasing
    finally:
        await counsel.close()
        await looking.close()
    assert SECRET in kept(scene)


async def test_of_two_in_one_object_the_slower_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = await scene.completed({"name": SECRET}, weeks_ago=5), await scene.completed(SECRET, weeks_ago=5)
    await scene.sweep()

    def meanwhile(point: str) -> None:
        if point == "erasure.written":
            crash_points.on_reached = None
            done = phaseline("db", "erase", other, "--by", "user:x", "--reason", "y", **settings_in(scene.settings))
            assert done.code == 0, done.err

    monkeypatch.setattr(crash_points, "on_reached", meanwhile)
    with pytest.raises(Quicker):
        await erase(scene.settings, one, **WHO)
    await erase(scene.settings, one, **WHO)
    assert SECRET not in kept(scene)
