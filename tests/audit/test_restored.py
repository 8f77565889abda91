"""`phaseline db restored` is an act: every tenant's audit tells who began another lineage of the log, when and why."""

import asyncio

import pytest

from events.acts import By
from events.keys import draw
from tests.audit.scene import Scene
from tests.cli.program import Run, in_process


async def db_restored(scene: Scene, *words: str) -> Run:
    url = scene.settings.database_url
    where = ["--database-url", url] if url else ["--data-dir", str(scene.settings.data_dir)]
    return await asyncio.to_thread(in_process, "db", "restored", *where, *words)


async def test_the_audit_of_every_tenant_tells_who_restored_the_log_and_why(scene: Scene) -> None:
    key, _ = draw("acme", "CI", ["read"], now_ms=await scene.log.now())
    await scene.log.add_key(key, By("user:ada"))
    await scene.write(1)
    run = await db_restored(scene, "--by", "user:ada", "--reason", "the backup of 03:00")
    assert run.code == 0, run.err
    for tenant in ("acme", "default"):
        told = (await scene.log.acts(tenant, None, 9))[0]
        act = told.act()
        assert (told.actor, act.act, act.target, act.reason) == (
            "user:ada",
            "log_restored",
            tenant,
            "the backup of 03:00",
        )
        assert f"the log's epoch is {act.changed['epoch']} now" in run.out
        assert abs(told.at - await scene.log.now()) < 60_000
    await scene.write(1)
    await scene.sealer.seal()
    report = await scene.verify()
    assert (report.findings, report.acts, report.unsealed) == ([], 3, 0)


@pytest.mark.parametrize("words", ["--by", "--reason"])
async def test_who_and_why_are_checked_before_anything_is_done(scene: Scene, words: str) -> None:
    await scene.log.head("01a20ca3-8f44-71e6-954e-9ff94174bd64")
    before = scene.log.epoch
    assert (await db_restored(scene, words, "")).code == 2
    assert (await db_restored(scene, words, "a\nb")).code == 2
    await scene.log.open()
    assert (scene.log.epoch, await scene.log.acts("default", None, 9)) == (before, [])
    assert (await db_restored(scene)).code == 0
    [told] = await scene.log.acts("default", None, 9)
    assert told.actor.startswith("user:")
