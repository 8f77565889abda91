"""The audit reads archived jobs like any other: what was changed there is named, and what was discarded leaves its chain."""

import asyncio
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from events import audit
from events.acts_check import ActsTold
from events.archive_store import ArchiveBroken
from events.seal_log import Stored
from phaseline import database
from phaseline.settings import Settings
from tests.cli.program import in_process
from tests.retention.scene import Scene, settings_in


async def audited(settings: Settings) -> audit.Report:
    """By a process that has not read the archive before."""
    async with database.opened(settings) as log:
        return await audit.verify(log)


async def test_archived_jobs_are_audited_where_they_are(scene: Scene) -> None:
    ids = [await scene.completed(n, weeks_ago=5) for n in range(2)] + [await scene.completed(2)]
    await scene.write(4)
    await scene.sweep()
    report = await scene.verify()
    assert report.findings == []
    assert (report.archived, report.discarded, report.unread, report.jobs) == (5, 0, 0, 7)
    assert (await scene.verify(job_id=ids[0])).archived == 1
    unnamed = scene.settings.model_copy(update={"archive": ""})
    report = await audited(unnamed)
    assert report.findings == []
    assert (report.archived, report.unread) == (0, 5)


async def test_what_nobody_could_read_is_told_and_has_an_exit_code_of_its_own(scene: Scene) -> None:
    await scene.completed(1)
    await scene.sweep()
    where = settings_in(scene.settings)
    run = await asyncio.to_thread(in_process, "audit", "verify", **where)
    assert (run.code, run.out.rpartition("; ")[2]) == (0, "nothing is wrong\n")
    del where["PHASELINE_ARCHIVE"]
    run = await asyncio.to_thread(in_process, "audit", "verify", **where)
    assert run.code == 6
    assert "1 jobs are in an archive and COULD NOT BE VERIFIED: PHASELINE_ARCHIVE" in run.out
    run = await asyncio.to_thread(in_process, "audit", "verify", "-o", "json", **where)
    assert (run.code, json.loads(run.out)["unread"]) == (6, 1)


async def test_an_export_that_could_not_read_archived_jobs_says_how_many_and_exits_6(
    scene: Scene, tmp_path: Path
) -> None:
    gone = [await scene.completed(n, weeks_ago=5) for n in range(2)]
    await scene.completed(3)
    await scene.sweep()
    here = await scene.completed(4)
    where = settings_in(scene.settings)

    async def exported(name: str, *more: str) -> tuple[int, int, set[str], str]:
        run = await asyncio.to_thread(in_process, "audit", "export", str(tmp_path / name), *more, **where)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        lines = (tmp_path / name / "events.ndjson").read_text().splitlines()
        return run.code, manifest["unread"], {json.loads(line)["job_id"] for line in lines}, run.err

    code, unread, jobs, _ = await exported("whole")
    assert (code, unread, jobs >= {*gone, here}) == (0, 0, True)
    del where["PHASELINE_ARCHIVE"]
    code, unread, jobs, said = await exported("part")
    assert (code, unread, here in jobs, jobs & set(gone)) == (6, 3, True, set())
    assert "3 jobs are in an archive and THEIR EVENTS ARE NOT WRITTEN: PHASELINE_ARCHIVE" in said
    assert (await exported("one", "--job", gone[0]))[:2] == (6, 1)
    assert (await exported("another", "--job", here))[:2] == (0, 0)


@pytest.mark.parametrize("beside", [0, 2])
async def test_a_job_is_not_made_away_with_as_archived(scene: Scene, beside: int) -> None:
    """Where no archive is set, only the acts tell how many jobs went there."""
    for number in range(beside):
        await scene.completed(number, weeks_ago=5)
    await scene.sweep()
    unnamed = scene.settings.model_copy(update={"archive": ""})
    job_id = await scene.completed(7)
    await scene.sealer.seal()
    assert (await audited(unnamed)).findings == []
    columns = "job_id, tenant, engine, status, last_seq, finished_at, at, place, start, length"
    await scene.tamper(
        f"INSERT INTO archived ({columns}) SELECT id, tenant, engine, status, last_seq, finished_at, finished_at, "
        "'somewhere', 0, 9 FROM jobs WHERE id = :job",
        "DELETE FROM jobs WHERE id = :job",
        "DELETE FROM events WHERE job_id = :job",
        job=job_id,
    )
    report = await audited(unnamed)
    [finding] = report.findings
    assert finding.what == "missing"
    assert f"{beside + 1} jobs of tenant default" in finding.detail
    assert report.unread == beside + 1


async def test_acts_passed_before_a_record_was_written_are_read_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass beside an audit: the record of a job is seen, and the act that tells of it came behind the audit's page."""
    await scene.completed(1)
    await scene.sweep()
    take = ActsTold.take
    missed = list[Stored]()

    def misses_the_first_time(told: ActsTold, stored: Stored) -> None:
        if stored in missed:
            take(told, stored)
        missed.append(stored)

    monkeypatch.setattr(ActsTold, "take", misses_the_first_time)
    report = await audited(scene.settings.model_copy(update={"archive": ""}))
    assert (report.findings, report.unread) == ([], 1)
    assert missed


async def test_what_is_discarded_leaves_its_chain(scene: Scene) -> None:
    gone, stays = await scene.completed(1, weeks_ago=5), await scene.completed(2)
    await scene.sweep(discard=True)
    report = await scene.verify()
    assert report.findings == []
    assert report.discarded == 2
    # Said of a job that was not sealed to its end: nobody would know what else was in it.
    await scene.tamper("UPDATE archived SET last_seq = last_seq + 1 WHERE job_id = :job", job=gone)
    [finding] = await scene.findings()
    assert (finding.what, finding.job_id) == ("missing", gone)
    assert stays != gone


def _change(lines: list[Any]) -> None:
    lines[2]["data"] = lines[2]["data"].replace("1", "7", 1)


def _of_another(lines: list[Any]) -> None:
    lines[2]["actor"] = "user:mallory"


def _cut(lines: list[Any]) -> None:
    del lines[-1]


def _swap(lines: list[Any]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


@pytest.mark.parametrize("edit", [_change, _of_another, _cut, _swap])
async def test_a_changed_archive_is_found_and_named(scene: Scene, edit: Callable[[list[Any]], None]) -> None:
    job_id = await scene.completed(1, weeks_ago=5)
    await scene.sweep()
    assert await scene.findings() == []
    [path] = scene.folder.glob("*/w*/*.ndjson.gz")
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    edit(lines)
    content = gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    path.write_bytes(content)
    await scene.tamper("UPDATE archived SET length = :length WHERE job_id = :job", length=len(content), job=job_id)
    findings = (await audited(scene.settings)).findings
    assert {finding.job_id for finding in findings} == {job_id}


async def test_a_lost_object_is_named(scene: Scene) -> None:
    job_id, other = await scene.completed(1, weeks_ago=5), await scene.completed(2, weeks_ago=9)
    await scene.sweep()
    _one(scene.folder, job_id).unlink()
    findings = (await audited(scene.settings)).findings
    assert [(finding.what, finding.job_id) for finding in findings] == [("missing", job_id)]
    assert other != job_id


async def test_nothing_else_in_the_database_misses_what_went(scene: Scene) -> None:
    """Neither the audit nor the repair of rows takes the events left in a partition for those of a lost job."""
    await scene.completed(1)
    await scene.sweep()
    assert await scene.findings() == []
    assert await database.check(scene.settings) == []
    assert await database.rebuild(scene.settings) == 0


def _one(folder: Path, job_id: str) -> Path:
    [path] = [path for path in folder.glob("*/w*/*.gz") if path.name.startswith(job_id)]
    return path


@pytest.mark.parametrize("edit", ["tenant = 'mallory'", "engine = 'other'", "status = 'failed'", "finished_at = 1"])
async def test_a_changed_record_of_where_a_job_lies_is_found(scene: Scene, edit: str) -> None:
    job_id, other = await scene.completed(1, weeks_ago=5), await scene.completed(2, weeks_ago=5)
    await scene.sweep()
    await scene.tamper(f"UPDATE archived SET {edit} WHERE job_id = :job", job=job_id)
    assert {finding.job_id for finding in await scene.findings()} == {job_id}
    if "tenant" in edit:
        async with database.opened(scene.settings) as log:
            with pytest.raises(ArchiveBroken):
                await log.job(job_id, "mallory")
    assert other != job_id


async def test_a_job_is_not_discarded_by_a_record_alone(scene: Scene) -> None:
    job_id = await scene.completed(1, weeks_ago=5)
    await scene.sweep()
    await scene.tamper("UPDATE archived SET place = NULL, start = 0, length = 0 WHERE job_id = :job", job=job_id)
    [finding] = await scene.findings()
    assert (finding.what, finding.job_id) == ("missing", job_id)
    assert "no act tells" in finding.detail


async def test_an_audit_beside_a_pass_finds_nothing_wrong(scene: Scene) -> None:
    for number in range(6):
        await scene.completed(number, weeks_ago=5)
    await scene.sealer.seal()
    seen: list[tuple[str, int]] = []
    async for stored in scene.log.stored():
        if not seen:  # what was read ahead of it goes
            await scene.sweep(seal=False)
        seen.append((stored.job_id, stored.envelope.seq))
    assert len(seen) == len(set(seen)) >= 30
    assert seen == sorted(seen)
    assert await scene.findings() == []
