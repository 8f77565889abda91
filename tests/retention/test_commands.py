"""`phaseline retention`: what it would do, what it does, and what it leaves alone."""

import asyncio
import json

import pytest

from events.values import decode
from phaseline import archives
from tests.cli.program import Run, in_process
from tests.retention.scene import Scene, settings_in

WHY = ("--reason", "replaced", "--by", "user:ada")


async def told(scene: Scene, *words: str, rules: str = "completed=0s", **environment: str) -> Run:
    said = settings_in(scene.settings, rules) | environment
    return await asyncio.to_thread(in_process, "retention", *words, **said)


async def test_plan_says_what_run_does(scene: Scene) -> None:
    pinned, free = await scene.completed(1), await scene.completed(2)
    await scene.sealer.seal()
    done = await told(scene, "pin", pinned, "--reason", "the baseline", "--by", "user:ada")
    assert done.out == f"job {pinned} is pinned\n"
    rules = "completed=0s, failed=180d"
    plan = json.loads((await told(scene, "plan", "--json", rules=rules)).out)
    assert [(one["rule"], one["due"], one["kept"]) for one in plan] == [("completed=0s", 1, 1), ("failed=180d", 0, 0)]
    assert "completed=0s  1 jobs due, the first ended" in (await told(scene, "plan")).out
    assert await scene.rows_of("jobs", free) == 1
    run = json.loads((await told(scene, "run", "--json")).out)
    assert (run["jobs"], run["objects"], run["events"]) == (1, 1, 5)
    assert [await scene.rows_of("jobs", job_id) for job_id in (pinned, free)] == [1, 0]
    refused = await told(scene, "pin", free, "--reason", "too late", "--by", "user:ada")
    assert (refused.code, "archived" in refused.err) == (1, True)
    assert (await told(scene, "unpin", pinned, *WHY)).out == f"job {pinned} is pinned no more\n"
    assert (await told(scene, "unpin", pinned, *WHY)).code == 1


@pytest.mark.parametrize(
    ("rules", "archive", "said"),
    [
        ("", "x", "everything is kept"),
        ("completed=30d", "", "PHASELINE_ARCHIVE"),
        ("completed=30", "x", "'completed=30'"),
        ("done=30d", "x", "'done=30d'"),
        ("Fpl.completed=30d", "x", "'Fpl'"),
        ("completed=30d, completed=1d", "x", "two rules"),
    ],
)
async def test_settings_that_do_not_fit_are_named(scene: Scene, rules: str, archive: str, said: str) -> None:
    refused = await told(scene, "plan", rules=rules, PHASELINE_ARCHIVE=archive)
    assert (refused.code, said in refused.err) == (1, True), refused.err


async def test_two_do_not_archive_at_once(scene: Scene) -> None:
    await scene.completed(1)
    await scene.sealer.seal()
    assert await scene.log.lead("retention", "another", 60.0)
    refused = await told(scene, "run")
    assert (refused.code, "another process" in refused.err) == (1, True)


async def test_what_retention_did_and_who_pinned_is_in_the_audit(scene: Scene) -> None:
    pinned, gone, thrown = [await scene.completed(n) for n in range(3)]
    await scene.sealer.seal()
    await told(scene, "pin", pinned, "--reason", "the baseline", "--by", "user:ada")
    await told(scene, "pin", thrown, "--reason", "later", "--by", "user:ada")
    await scene.sweep()
    await told(scene, "unpin", thrown, *WHY)
    await scene.sweep(discard=True)
    acts = [(act.actor, decode(act.data)) for act in (await scene.log.acts("default", None, 10))[::-1]]
    assert [(actor, act["act"]) for actor, act in acts] == [
        ("user:ada", "job_pinned"), ("user:ada", "job_pinned"), ("system:retention", "jobs_archived"),
        ("user:ada", "job_unpinned"), ("system:retention", "jobs_discarded"),
    ]  # fmt: skip
    assert [act["target"] for _, act in acts[:2]] == [pinned, thrown]
    assert acts[0][1]["reason"] == "the baseline"
    assert acts[2][1]["changed"] == {"jobs": 1, "events": 5}
    assert gone in acts[2][1]["target"]
    assert acts[4][1]["changed"] == {"jobs": 1, "events": 5, "job_ids": [thrown]}
    await scene.sealer.seal()
    assert (await scene.verify()).findings == []


async def test_the_doctor_says_whether_the_archive_answers(scene: Scene) -> None:
    def finding(rules: str, archive: str) -> tuple[str, str]:
        given = scene.settings.model_copy(update={"retention": rules, "archive": archive})
        found = asyncio.run(archives.examined(given))
        return found.state, found.detail

    await scene.completed(1)
    await scene.sweep()
    state, detail = await asyncio.to_thread(finding, "completed=30d, failed=180d", scene.settings.archive)
    assert (state, detail) == ("ok", f"{scene.settings.archive} answers; completed=30d, failed=180d")
    assert (await asyncio.to_thread(finding, "completed=30d", ""))[0] == "failed"
    assert (await asyncio.to_thread(finding, "completed=soon", "discard"))[1].startswith(
        "PHASELINE_RETENTION: 'completed=soon'"
    )
