"""A job's payload can go; that it ran, who did what, and the chain stay."""

import asyncio

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from events.acts import By
from events.batch import digest_of
from events.catalog import Checkpoint, Outcome, Partial, Ref
from events.catalog import Log as LogEvent
from events.erasure import redacted
from events.errors import Refused, UnknownJob
from events.log import Artifact
from phaseline import database
from phaseline.erase import alike, erase
from tests.audit.scene import Scene
from tests.builders import a_finish, a_report, whole_stream
from tests.cli.program import in_process

SECRET = "Ada Lovelace"
ACTOR, REASON = "user:officer", "asked by the customer"


async def secretive(scene: Scene) -> str:
    """A completed job that has the secret everywhere a job can have one."""
    claimed = await scene.running.started(params={"name": SECRET}, subject=SECRET, address="203.0.113.9")
    body = f'["{SECRET}"]'.encode()
    ref = Ref(url="/artifact", sha256=digest_of(body), size=len(body))
    said = (
        LogEvent(level="info", message=SECRET, fields={"name": SECRET}),
        Partial(phase="collecting_data", name="who", value=SECRET),
        Checkpoint(phase="collecting_data", output=SECRET, digest=digest_of(b"x"), duration_ms=1),
        Checkpoint(phase="finalizing", output_ref=ref, digest=ref.sha256, duration_ms=1),
    )
    artifacts = [Artifact(claimed.job.id, ref.sha256, body)]
    await scene.running.committer.execute(claimed.job.id, a_report(claimed, *said), artifacts=artifacts)
    finish = a_finish(claimed).model_copy(update={"outcome": Outcome(value={"name": SECRET})})
    await scene.running.committer.execute(claimed.job.id, finish)
    return claimed.job.id


async def test_an_erased_job_has_no_payload_and_the_chain_holds(scene: Scene) -> None:
    job_id = await secretive(scene)
    other = await secretive(scene)
    await scene.sealer.seal()
    before = await whole_stream(scene.log, job_id)
    assert await erase(scene.settings, job_id, actor=ACTOR, reason=REASON) == len(before)
    after = await whole_stream(scene.log, job_id)
    row = await scene.log.job(job_id)
    assert SECRET not in repr(after)
    assert "203.0.113.9" not in repr(after)
    assert SECRET not in repr(row)
    assert [(e.seq, e.type, e.actor, e.at, e.command_id) for e in after] == [
        (e.seq, e.type, e.actor, e.at, e.command_id) for e in before
    ]
    assert await scene.log.artifact(job_id, digest_of(f'["{SECRET}"]'.encode())) is None
    assert await database.differences(scene.log, job_id) == []
    assert SECRET in repr(await whole_stream(scene.log, other))
    [told] = await scene.log.acts("default", None, 9)
    act = told.act()
    assert (told.actor, act.act, act.target, act.reason) == (ACTOR, "payload_erased", job_id, REASON)
    report = await scene.verify()
    assert (report.findings, report.untold) == ([], 0)
    assert report.erased > 0
    [erasure] = [one async for one in scene.log.erasures()]
    assert (erasure.job_id, erasure.through_seq, erasure.actor, erasure.reason) == (job_id, len(before), ACTOR, REASON)
    assert await erase(scene.settings, job_id, actor=ACTOR, reason=REASON) == len(before)  # again: nothing changes
    assert (await scene.verify()).findings == []


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_no_file_of_the_embedded_database_has_the_payload_any_more(scene: Scene) -> None:
    """While `phaseline up` may go on: what is freed is overwritten, and so is the write-ahead log."""
    job_id = await secretive(scene)
    files = [path for path in scene.settings.data_dir.iterdir() if path.is_file()]
    assert any(SECRET.encode() in path.read_bytes() for path in files)
    await erase(scene.settings, job_id, actor=ACTOR, reason=REASON)
    assert [path.name for path in files if path.exists() and SECRET.encode() in path.read_bytes()] == []
    assert (await scene.log.job(job_id)) is not None  # it was open all the time


async def test_an_erasure_hides_no_other_change(scene: Scene) -> None:
    job_id = await secretive(scene)
    await scene.sealer.seal()
    await erase(scene.settings, job_id, actor=ACTOR, reason=REASON)
    forged = '{"level":"info","message":"all was well","fields":{}}'
    await scene.tamper(
        "UPDATE events SET data = :data, size = :size WHERE job_id = :job AND type = 'log'",
        data=forged,
        size=len(forged),
        job=job_id,
    )
    [finding] = await scene.findings()
    assert (finding.what, finding.job_id, finding.seq) == ("changed", job_id, 3)


async def test_what_was_erased_without_a_record_is_a_change(scene: Scene) -> None:
    job_id = await secretive(scene)
    await scene.sealer.seal()
    await erase(scene.settings, job_id, actor=ACTOR, reason=REASON)
    await scene.tamper("DELETE FROM erasures")
    assert {(one.what, one.job_id) for one in await scene.findings()} == {("changed", job_id)}


async def test_a_job_that_goes_on_is_not_erased(scene: Scene) -> None:
    claimed = await scene.running.started(params={"name": SECRET})
    with pytest.raises(Refused, match="running"):
        await erase(scene.settings, claimed.job.id, actor=ACTOR, reason=REASON)
    with pytest.raises(UnknownJob):
        await erase(scene.settings, "01a20ca3-8f44-71e6-954e-9ff94174bd64", actor=ACTOR, reason=REASON)
    assert SECRET in repr(await whole_stream(scene.log, claimed.job.id))


@pytest.mark.parametrize(
    "change", ["data = '{}', actor = 'x'", "digest = digest || digest", "seq = seq + 100", "at = 1"]
)
async def test_of_an_erased_job_only_data_can_change(scene: Scene, change: str) -> None:
    job_id = await secretive(scene)
    await erase(scene.settings, job_id, actor=ACTOR, reason=REASON)

    def edit(connection: Connection) -> None:
        connection.execute(text(f"UPDATE events SET {change} WHERE job_id = :job"), {"job": job_id})

    with pytest.raises(DBAPIError, match="append-only"):
        await database.on_connection(scene.settings, edit)


async def test_an_unerased_job_stays_append_only(scene: Scene) -> None:
    job_id = await secretive(scene)

    def edit(connection: Connection) -> None:
        connection.execute(text("UPDATE events SET data = '{}' WHERE job_id = :job"), {"job": job_id})

    with pytest.raises(DBAPIError, match="append-only"):
        await database.on_connection(scene.settings, edit)


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_another_role_than_the_migrating_one_may_not_erase(scene: Scene) -> None:
    job_id = await secretive(scene)

    def erasing(connection: Connection) -> None:
        connection.execute(text("CREATE ROLE phaseline_test_app"))  # rolled back
        connection.execute(text("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO phaseline_test_app"))
        connection.execute(text("SET LOCAL ROLE phaseline_test_app"))
        connection.execute(text("SELECT phaseline_erase(:job, '{1}', '{x}', 'a', 'b')"), {"job": job_id})

    with pytest.raises(DBAPIError, match="permission denied for function phaseline_erase"):
        await database.on_connection(scene.settings, erasing)


async def test_erasing_by_command(scene: Scene) -> None:
    job_id = await secretive(scene)
    url = scene.settings.database_url
    where = ["--database-url", url] if url else ["--data-dir", str(scene.settings.data_dir)]
    run = await asyncio.to_thread(in_process, "db", "erase", job_id, "--reason", REASON, "--by", ACTOR, *where)
    assert (run.code, run.out) == (0, "8 events erased\n")
    assert SECRET not in repr(await whole_stream(scene.log, job_id))


async def test_jobs_that_may_hold_the_same_are_named_until_they_are_erased_too(scene: Scene) -> None:
    first = await secretive(scene)
    claimed = await scene.running.started(params={"name": SECRET}, rerun_of=first)
    again = claimed.job.id
    third = await scene.running.submit(params={"name": SECRET}, rerun_of=again)
    other = await secretive(scene)
    assert await alike(scene.settings, again) == sorted([first, third])
    assert await alike(scene.settings, other) == []
    url = scene.settings.database_url
    where = ["--database-url", url] if url else ["--data-dir", str(scene.settings.data_dir)]
    run = await asyncio.to_thread(in_process, "db", "erase", first, "--reason", REASON, "--by", ACTOR, *where)
    assert (run.code, [again in run.err, third in run.err, other in run.err]) == (0, [True, True, False])
    await scene.running.committer.execute(again, a_finish(claimed))
    await erase(scene.settings, again, actor=ACTOR, reason=REASON)
    assert await alike(scene.settings, first) == [third]


async def test_a_record_of_an_erasure_that_no_act_tells_of_is_counted(scene: Scene) -> None:
    job_id = await secretive(scene)
    await scene.sealer.seal()
    record = "INSERT INTO erasures (job_id, through_seq, at, actor, reason) VALUES (:job, 9, 1, 'user:eve', 'x')"
    await scene.tamper(record, job=job_id)
    assert (await scene.verify()).untold == 1
    await erase(scene.settings, await secretive(scene), actor=ACTOR, reason=REASON)
    assert (await scene.verify()).untold == 1


async def test_a_record_that_no_act_tells_of_is_a_finding_where_acts_were_told_before(scene: Scene) -> None:
    """A forged record lets a payload go; of a job that ended after there were acts it must have been told."""
    await database.create_key(scene.settings, "default", "a", ["read"], None, By("user:ada"))
    job_id = await secretive(scene)
    await scene.sealer.seal()
    record = "INSERT INTO erasures (job_id, through_seq, at, actor, reason) VALUES (:job, 9, 1, 'user:eve', 'x')"
    changed = "UPDATE events SET data = :data, size = :size WHERE job_id = :job AND type = 'log'"
    left = redacted(next(one for one in await whole_stream(scene.log, job_id) if one.type == "log"))
    await scene.tamper(record, changed, job=job_id, data=left, size=len(left))
    report = await scene.verify()
    assert (report.untold, [(one.what, one.job_id) for one in report.findings]) == (1, [("changed", job_id)])
    told = await secretive(scene)
    await erase(scene.settings, told, actor=ACTOR, reason=REASON)
    assert [one.job_id for one in (await scene.verify()).findings] == [job_id]
