"""Jobs go to the archive when their time has come, and open from there as if they had never gone."""

import asyncio
import gzip
import hashlib
import io
import json
import os
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from events import archive_member, audit
from events.acts import By
from events.archive_member import unpack
from events.archive_store import ArchiveBroken, ArchiveUnavailable
from events.errors import JobArchived, PhaselineError
from events.holds import HoldAct, is_held
from events.log import Head
from events.postgres_sql import TAKE_OUT
from events.retention import gone_to, parse_rules
from phaseline import database
from phaseline.erase import erase
from tests.builders import a_reopen
from tests.retention.scene import ALL, Scene

LARGE = b"x" * 400_000
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_what_went_reads_as_before(scene: Scene) -> None:
    ids = [*await scene.write(4), await scene.completed(2, weeks_ago=5, large=LARGE), await scene.completed(3)]
    running = set(ids[2:4])
    before = await scene.streams(*ids)
    rows = [await scene.log.job(job_id) for job_id in ids]
    lines = [await scene.log.lines(job_id, 2) for job_id in ids]
    names = await scene.log.artifact_names(ids[4])
    body = await scene.log.artifact(ids[4], names[0])
    assert body == LARGE

    done = await scene.sweep()
    assert done.jobs == len(ids) - 2
    for job_id in ids:
        here = job_id in running
        assert await scene.rows_of("jobs", job_id) == here
        assert await scene.rows_of("artifacts", job_id) == 0
        if scene.log.name == "sqlite" or job_id == ids[4]:  # on PostgreSQL a partition goes, when its week is over
            assert (await scene.rows_of("events", job_id) > 0) == here
    assert await scene.streams(*ids) == before
    assert [await scene.log.job(job_id) for job_id in ids] == rows
    assert [await scene.log.lines(job_id, 2) for job_id in ids] == lines
    assert await scene.log.artifact(ids[4], names[0]) == body
    assert await scene.log.artifact_size(ids[4], names[0]) == len(body)
    assert await scene.log.artifact(ids[4], "0" * 64) is None
    heads = await scene.log.heads(ids)
    assert heads == {
        job_id: Head(events[-1].seq, row.job.status) for job_id, events, row in zip(ids, before, rows, strict=True)
    }
    for job_id, events in zip(ids, before, strict=True):
        assert await scene.log.head(job_id) == heads[job_id]
        assert await scene.log.head(job_id, "another") is None
        assert await scene.log.job(job_id, "another") is None
        assert await scene.log.read_back(job_id, events[-1].seq + 1, 2) == events[-1:-3:-1]
        assert await scene.log.read_back(job_id, 3, 500) == events[1::-1]
        assert await scene.log.read(job_id, 1, limit=2) == events[1:3]
        assert await scene.log.read(job_id, events[-1].seq) == []
    assert await database.check(scene.settings) == []


async def test_an_archive_is_plain_gzip_beside_its_manifest(scene: Scene) -> None:
    ids = sorted([await scene.completed(1), await scene.completed(2)])
    before = await scene.streams(*ids)
    await scene.sweep()
    [path] = scene.folder.glob("*/w*/*.ndjson.gz")
    manifest = json.loads(path.with_name(f"{path.name}.manifest.json").read_bytes())
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [job["job_id"] for job in manifest["jobs"]] == ids
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [line["data"] for line in lines if "data" in line] == [event.data for events in before for event in events]


async def test_what_no_rule_names_stays(scene: Scene) -> None:
    completed, cancelled, *running = await scene.write(4)
    kept = await scene.completed(1)
    done = await scene.sweep("completed=30d, countdown.completed=forever, failed=0s, other.cancelled=0s")
    assert done.jobs == 0
    done = await scene.sweep("completed=30d, countdown.cancelled=0s")
    assert done.jobs == 1
    for job_id in (completed, *running, kept):
        assert await scene.rows_of("jobs", job_id) == 1
    assert await scene.rows_of("jobs", cancelled) == 0


async def test_a_pinned_or_held_job_stays_until_it_is_let_go(scene: Scene) -> None:
    pinned, held, free = [await scene.completed(n) for n in range(3)]
    await scene.log.pin(pinned, "default", By("user:ada", None, "the baseline"))
    await scene.log.pin(pinned, "default", By("user:ada", None, "still the baseline"))
    await database.hold(scene.settings, held, held=True, actor="user:counsel", reason="case 4711")
    assert (await scene.sweep()).jobs == 1
    assert [await scene.rows_of("jobs", job_id) for job_id in (pinned, held, free)] == [1, 1, 0]
    pin = await scene.log.pinned(pinned)
    assert (pin.actor, pin.reason, pin.at > 0) == ("user:ada", "still the baseline", True)
    assert await scene.log.unpin(pinned, By("user:ada"))
    assert not await scene.log.unpin(pinned, By("user:ada"))
    assert await scene.log.pinned(pinned) is None
    await database.hold(scene.settings, held, held=False, actor="user:counsel", reason="case closed")
    assert (await scene.sweep()).jobs == 2


async def test_a_job_is_judged_again_when_it_is_taken_out(scene: Scene) -> None:
    other, reopened = await scene.write(2)
    pinned, held, free = [await scene.completed(n) for n in range(3)]
    await scene.sealer.seal()
    due = await scene.log.due_for_archive(parse_rules(ALL), 100)
    assert {one.job_id for one in due} >= {reopened, pinned, held, free}
    await scene.running.committer.execute(reopened, a_reopen())
    await scene.log.pin(pinned, "default", By("user:ada", None, "wait"))
    await database.hold(scene.settings, held, held=True, actor="user:counsel", reason="case 4711")
    assert await scene.log.put_archived([gone_to(one, "w1/object", 0, 1) for one in due]) == {free, other}
    assert set(await scene.log.archived([reopened, pinned, held, free])) == {free}


async def test_nothing_goes_before_it_is_sealed(scene: Scene) -> None:
    job_id = await scene.completed(1)
    assert (await scene.sweep(seal=False)).jobs == 0
    assert (await scene.sweep()).jobs == 1
    assert await scene.rows_of("jobs", job_id) == 0


async def test_what_is_discarded_is_unknown(scene: Scene) -> None:
    job_id = await scene.completed(1, large=LARGE)
    done = await scene.sweep(discard=True)
    assert (done.jobs, done.objects) == (1, 0)
    assert await scene.log.job(job_id) is None
    assert await scene.log.head(job_id) is None
    assert (await scene.log.archived([job_id]))[job_id].place is None
    assert not scene.folder.exists()


async def test_an_archive_that_is_away_or_broken_is_an_outage_not_an_end(scene: Scene) -> None:
    job_id = await scene.completed(1, weeks_ago=5)
    before = await scene.streams(job_id)
    await scene.sweep()
    [path] = scene.folder.glob("*/w*/*.ndjson.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(ArchiveUnavailable):
        await scene.log.read(job_id, 0)
    path.unlink()
    with pytest.raises(ArchiveUnavailable, match="cannot be read"):
        await scene.log.read(job_id, 0)
    path.write_bytes(whole)
    assert await scene.streams(job_id) == before


async def test_what_a_death_left_in_the_archive_is_removed_after_a_day(scene: Scene) -> None:
    job_id = await scene.completed(1, weeks_ago=5)
    before = await scene.streams(job_id)
    await scene.sweep()
    [path] = scene.folder.glob("*/w*/*.ndjson.gz")
    left = path.with_name(f"{job_id}-{'0' * 16}.ndjson.gz")
    orphans = [left, left.with_name(f"{left.name}.manifest.json"), left.with_name(f"{left.name}.manifest.json.part")]
    foreign = [path.with_name("notes.txt"), scene.folder / "www" / "w1" / left.name, scene.folder / "w1" / left.name]
    for other in (*orphans, *foreign):
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(path.read_bytes())
    await scene.sweep()
    assert all(orphan.exists() for orphan in orphans)  # somebody may be about to name it
    yesterday = time.time() - 2 * 24 * 3600
    for file in scene.folder.rglob("*"):
        os.utime(file, (yesterday, yesterday))
    await scene.sweep()
    assert not any(orphan.exists() for orphan in orphans)
    assert all(other.exists() for other in foreign)  # not of this log
    assert await scene.streams(job_id) == before


async def test_an_empty_place_where_the_archive_should_be_takes_nothing(scene: Scene) -> None:
    await scene.completed(1, weeks_ago=5)
    await scene.sweep()
    scene.folder.rename(scene.folder.with_name("elsewhere"))  # unmounted
    scene.folder.mkdir()
    stays = await scene.completed(2)
    with pytest.raises(ArchiveUnavailable, match="mount it"):
        await scene.sweep()
    assert await scene.rows_of("jobs", stays) == 1
    assert list(scene.folder.iterdir()) == []


async def test_what_was_erased_while_it_was_written_is_written_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await scene.completed({"name": "Ada"}, weeks_ago=5)

    async def meanwhile(went: Any, erased: Any) -> Any:
        monkeypatch.undo()
        await erase(scene.settings, job_id, actor="user:ada", reason="asked")
        return await scene.log.put_archived(went, erased)

    monkeypatch.setattr(scene.log, "put_archived", meanwhile)
    assert (await scene.sweep()).jobs == 0
    assert (await scene.sweep()).jobs == 1
    assert "Ada" not in repr(await scene.streams(job_id))
    assert (await scene.verify()).findings == []


async def test_a_job_that_went_is_pinned_by_nobody(scene: Scene) -> None:
    job_id = await scene.completed(1)
    await scene.sweep(discard=True)
    with pytest.raises(JobArchived):
        await scene.log.pin(job_id, "default", By("user:ada"))


def a_hold(job_id: str) -> HoldAct:
    return HoldAct(job_id, "default", True, 0, "user:counsel", None, "case 4711")


async def test_a_job_that_was_discarded_is_held_by_nobody_one_in_the_archive_is(scene: Scene) -> None:
    kept = await scene.completed(1)
    assert (await scene.sweep()).jobs == 1
    await scene.log.hold(a_hold(kept))
    assert is_held(await scene.log.hold_acts(kept))
    gone = await scene.completed(3)
    await scene.sweep(discard=True)
    acts = len(await scene.log.acts("default", None, 100))
    with pytest.raises(JobArchived):
        await scene.log.hold(a_hold(gone))
    assert await scene.log.hold_acts(gone) == []
    assert len(await scene.log.acts("default", None, 100)) == acts


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_a_hold_that_waited_for_retention_is_refused_once_the_job_is_discarded(scene: Scene) -> None:
    job_id = await scene.completed(1)
    await scene.sealer.seal()
    [due] = await scene.log.due_for_archive(parse_rules(ALL), 1)
    retaining, looking = [await asyncpg.connect(scene.settings.database_url) for _ in range(2)]
    try:
        async with asyncio.TaskGroup() as group, retaining.transaction():
            columns = [[job_id], [due.last_seq], [None], [0], [0], [False]]
            assert len(await retaining.fetch(TAKE_OUT, *columns)) == 1
            held = group.create_task(refusal_of(scene.log.hold(a_hold(job_id))))
            async with asyncio.timeout(60):
                while not await looking.fetchval(WAITING):  # noqa: ASYNC110 another session
                    await asyncio.sleep(0.02)
        assert isinstance(held.result(), JobArchived)
        assert await scene.log.hold_acts(job_id) == []
    finally:
        for connection in (retaining, looking):
            await connection.close()


async def refusal_of(call: Awaitable[None]) -> PhaselineError | None:
    try:
        await call
    except PhaselineError as refusal:
        return refusal
    return None


class Endless(io.RawIOBase):
    """Gzip that never ends: who reads it through never comes back, and has no room left."""

    def __init__(self, line: bytes, first: bytes = b"") -> None:
        self._packer = zlib.compressobj(1, wbits=31)
        self._ready = self._packer.compress(first)
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            self._ready = self._packer.compress(self._line)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


@pytest.mark.parametrize(
    ("line", "first"),
    [
        (b"\n" * 65536, b""),
        (b"x" * 65536, b""),
        (b'{"seq":1,"data":"' + b"x" * 65536 + b'"}\n', b""),
        (b"A" * 65536, b'{"sha256":"00","body":"'),
        (b'{"sha256":"00","body":"' + b"A" * 65536 + b'"}\n', b'{"format":"phaseline job 1"}\n'),
    ],
)
def test_a_member_that_never_ends_is_read_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, line: bytes, first: bytes
) -> None:
    monkeypatch.setattr(archive_member, "LINE_BYTES_MAX", 8 << 20)
    monkeypatch.setattr(archive_member, "JOB_BYTES_MAX", 16 << 20)
    with pytest.raises(ArchiveBroken):
        unpack(io.BufferedReader(Endless(line, first)), 5)


async def test_a_bomb_in_the_archive_is_no_job_and_the_audit_names_it(scene: Scene) -> None:
    job_id = await scene.completed(1, weeks_ago=5)
    await scene.sweep()
    [path] = scene.folder.glob("*/w*/*.ndjson.gz")
    path.write_bytes(gzip.compress(b"\n" * (64 << 20)))
    await scene.tamper("UPDATE archived SET length = :length", length=path.stat().st_size)
    async with database.opened(scene.settings) as log, asyncio.timeout(30):
        with pytest.raises(ArchiveBroken, match="more lines than a job"):
            await log.read(job_id, 0)
        assert [finding.job_id for finding in (await audit.verify(log)).findings] == [job_id]


async def test_a_job_too_large_to_be_read_back_stays_and_holds_up_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, large, last = [await scene.completed(n, large=LARGE if n == 1 else b"") for n in range(3)]
    monkeypatch.setattr(archive_member, "JOB_BYTES_MAX", len(LARGE))
    before = await scene.streams(first, large, last)
    assert (await scene.sweep()).jobs == 2
    assert (await scene.sweep()).jobs == 0  # alone it is no object
    assert set(await scene.log.archived([first, large, last])) == {first, last}
    assert await scene.streams(first, large, last) == before
    assert await scene.findings() == []


async def test_of_a_cut_or_foreign_member_nothing_is_told(scene: Scene) -> None:
    job_id = await scene.completed(1, weeks_ago=5, large=LARGE)
    [name] = await scene.log.artifact_names(job_id)
    await scene.sweep()
    [path] = scene.folder.glob("*/w*/*.ndjson.gz")
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    whole = path.read_bytes()

    async def asked(change: list[bytes], question: Callable[[Any], Awaitable[Any]]) -> None:
        path.write_bytes(gzip.compress(b"".join(change)))
        await scene.tamper("UPDATE archived SET length = :length", length=path.stat().st_size)
        async with database.opened(scene.settings) as log, asyncio.timeout(30):
            with pytest.raises(ArchiveBroken):
                await question(log)

    await asked(lines[:4], lambda log: log.job(job_id))
    await asked([line.replace(b"default", b"mallory") for line in lines], lambda log: log.read(job_id, 0))
    await asked([line.replace(b"eHh4", b"eHh5") for line in lines], lambda log: log.artifact(job_id, name))
    path.write_bytes(whole)
    await scene.tamper("UPDATE archived SET length = :length", length=len(whole))
    assert await scene.log.artifact(job_id, name) == LARGE
