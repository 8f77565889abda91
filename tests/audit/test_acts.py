"""Administrative acts are sealed with everything else: what is done to one in the database is found and named."""

import json
from pathlib import Path
from typing import Any

import pytest

from events.checker import Violation
from phaseline import audit_export
from phaseline.verify import verify
from tests.audit.scene import Scene


async def administered(scene: Scene) -> str:
    """Jobs and acts, sealed; the id of an act between two others."""
    await scene.act()
    await scene.write(2)
    act_id = await scene.act()
    await scene.sealer.seal()
    await scene.act()
    await scene.write(1)
    await scene.sealer.seal()
    return act_id


async def test_acts_are_checked_counted_and_exported(scene: Scene, tmp_path: Path) -> None:
    act_id = await administered(scene)
    report = await scene.verify()
    assert (report.findings, report.jobs, report.acts, report.unsealed) == ([], 3, 3, 0)
    alone = await scene.verify(job_id=act_id)
    assert (alone.findings, alone.jobs, alone.acts, alone.events) == ([], 0, 1, 1)
    await audit_export.export(scene.log, tmp_path / "export", job_id=act_id)
    [line] = (tmp_path / "export" / "events.ndjson").read_text().splitlines()
    exported = json.loads(line)
    assert (exported["type"], exported["actor"]) == ("administered", "user:ada")
    assert json.loads(exported["data"])["reason"] == "a new colleague"
    counts = await verify(scene.log)
    assert (counts.jobs, counts.events) == (report.jobs, report.events)


INSERT = (
    "INSERT INTO events (job_id, seq, type, version, attempt, actor, tenant, at, command_id, size, data, digest, epoch) "
    "SELECT job_id, 2, type, version, attempt, actor, tenant, at, command_id, size, data, digest, epoch FROM events "
    "WHERE job_id = :act"
)


@pytest.mark.parametrize(
    ("statements", "what", "seq"),
    [
        (["UPDATE events SET actor = 'user:eve' WHERE job_id = :act"], "changed", 1),
        (["UPDATE events SET tenant = 'other' WHERE job_id = :act"], "changed", 1),
        (["UPDATE events SET type = 'submitted' WHERE job_id = :act"], "changed", 1),
        (["UPDATE events SET data = replace(data, 'colleague', 'friend') WHERE job_id = :act"], "changed", 1),
        (["DELETE FROM events WHERE job_id = :act"], "missing", 1),
        (["DELETE FROM events WHERE job_id = :act", "DELETE FROM acts WHERE job_id = :act"], "missing", 1),
        (["DELETE FROM acts WHERE job_id = :act"], "missing", None),
        ([INSERT], "added", 2),
    ],
)
async def test_whatever_is_done_to_an_act_is_found_and_named(
    scene: Scene, statements: list[str], what: str, seq: int | None
) -> None:
    act_id = await administered(scene)
    await scene.tamper(*statements, act=act_id)
    found = await scene.findings()
    assert {finding.job_id for finding in found if finding.key_id is None} == {act_id}  # and the key it told of
    assert (what, seq) in [(finding.what, finding.seq) for finding in found]


async def test_an_act_removed_with_all_that_seals_it_shows_in_the_chain(scene: Scene) -> None:
    act_id = await administered(scene)
    await scene.tamper(
        *(f"DELETE FROM {name} WHERE job_id = :act" for name in ("events", "acts", "sealed")), act=act_id
    )
    found = await scene.findings()
    assert [(one.what, one.job_id) for one in found if one.seal] == [("seal", act_id)]


async def test_a_job_whose_row_was_made_an_acts_is_found(scene: Scene) -> None:
    await administered(scene)
    [job_id] = await scene.write(1)
    await scene.sealer.seal()
    await scene.tamper(
        "INSERT INTO acts (job_id, tenant) SELECT id, tenant FROM jobs WHERE id = :job",
        "DELETE FROM jobs WHERE id = :job",
        job=job_id,
    )
    assert "the job's row is gone" in [one.detail for one in await scene.findings() if one.job_id == job_id]


async def test_the_database_refuses_to_change_acts(scene: Scene) -> None:
    act_id = await scene.act()
    for statement in (
        "UPDATE events SET actor = 'user:eve' WHERE job_id = :act",
        "DELETE FROM events WHERE job_id = :act",
        "UPDATE acts SET tenant = 'other' WHERE job_id = :act",
        "DELETE FROM acts WHERE job_id = :act",
    ):
        with pytest.raises(Exception, match="append-only"):
            await _as_application(scene, statement, act_id)
    assert (await scene.verify()).findings == []


async def _as_application(scene: Scene, statement: str, act_id: str) -> Any:
    from sqlalchemy import text

    async with scene.log._writing(5.0) as connection:
        await connection.execute(text(statement), {"act": act_id})


async def test_verify_names_an_act_that_is_none(scene: Scene) -> None:
    act_id = await administered(scene)
    await scene.tamper("UPDATE events SET data = '{}' WHERE job_id = :act", act=act_id)
    with pytest.raises(Violation, match=f"the act {act_id} is none"):
        await verify(scene.log)
