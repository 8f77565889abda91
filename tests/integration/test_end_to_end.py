"""What a user lives through, on every shape: real processes, kill -9, reconnects, and the same stream for everyone."""

import asyncio
import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from phaseline import database
from tests.installation import Api, Installation, Viewer, api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings

LONG = {"steps": 40, "step_s": 0.1}


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Types in order, runs of the same type as one."""
    return [kind for kind, _ in itertools.groupby(event["type"] for event in events)]


async def test_every_viewer_sees_the_same_stream_early_late_and_in_pages(installation: Installation, http: Api) -> None:
    job_id = await http.submit("countdown", {"steps": 10, "step_s": 0.05})
    early = Viewer(installation.url, job_id)
    middle = Viewer(installation.url, job_id)
    await asyncio.gather(early.follow(), middle.follow(until=4))
    await middle.follow()
    late = await Viewer(installation.url, job_id).follow(query="&batch=1")
    assert early.seqs == list(range(1, len(early.events) + 1))
    assert early.events == middle.events == late.events == await http.events(job_id)
    assert (early.close_code, late.close_code) == (1000, 1000)
    async with http.session.get(
        f"{http.url}/api/v1/jobs/{job_id}/events", headers={"Accept": "application/x-ndjson"}
    ) as answer:
        lines = (await answer.text()).splitlines()
    assert [json.loads(line) for line in lines] == early.events
    marks = [e["progress"] for e in early.events if e["type"] == "progress" and "done" not in e and "message" not in e]
    assert marks == [0.0, 10.0, 25.0, 50.0, 90.0, 100.0]
    assert early.events[-1]["type"] == "complete"


async def test_a_job_outlives_kill_9_of_everything_and_viewers_resume(own_installation: Installation) -> None:
    installation = own_installation
    async with api(installation.url) as http:
        job_id = await http.submit("countdown", LONG)
        viewer = Viewer(installation.url, job_id)
        await viewer.follow(until=6)
        following = asyncio.create_task(viewer.follow_to_the_end())
        await installation.kill()
        await installation.start()
        await following
        assert viewer.seqs == list(range(1, len(viewer.events) + 1))
        assert [e["reason"] for e in viewer.events if e["type"] == "interrupted"] == ["lost"]
        assert viewer.events[-1]["type"] == "complete"
        assert viewer.events == await http.events(job_id)


async def test_a_drained_worker_gives_its_job_back_and_loses_nothing(own_installation: Installation) -> None:
    installation = own_installation
    async with api(installation.url) as http:
        installation.environment["PHASELINE_DRAIN_S"] = "0.3"
        await installation.stop()
        await installation.start()
        job_id = await http.submit("countdown", LONG)
        viewer = Viewer(installation.url, job_id)
        await viewer.follow(until=5)
        assert await installation.stop() == [0] * len(installation.commands)
        await installation.start()
        await viewer.follow_to_the_end()
        assert [e["reason"] for e in viewer.events if e["type"] == "interrupted"] == ["drained"]
        job = await http.get(f"/api/v1/jobs/{job_id}")
        assert (job["status"], job["failures"], job["losses"]) == ("completed", 0, 0)


async def test_fifty_viewers_who_join_at_random_moments_all_see_one_to_n(installation: Installation, http: Api) -> None:
    job_id = await http.submit("countdown", {"steps": 30, "step_s": 0.05})
    dice = random.Random(50)

    async def join(moment_s: float, drop_after: int) -> Viewer:
        await asyncio.sleep(moment_s)  # the random moment itself
        viewer = Viewer(installation.url, job_id)
        await viewer.follow(until=drop_after)
        return await viewer.follow()

    viewers = await asyncio.gather(*(join(dice.uniform(0, 2), dice.randint(1, 20)) for _ in range(50)))
    stream = await http.events(job_id)
    assert all(viewer.events == stream for viewer in viewers)


async def test_a_failed_job_is_reopened_and_its_stream_goes_on(installation: Installation, http: Api) -> None:
    job_id = await http.submit("countdown", {"steps": 2, "step_s": 0, "fail_at": 2}, max_attempts=1)
    first = await Viewer(installation.url, job_id).follow()
    assert (first.close_code, first.events[-1]["type"], first.events[-1]["code"]) == (4000, "error", "engine_error")
    await http.post(f"/api/v1/jobs/{job_id}/retry", {"reason": "once more"}, 202)
    again = await Viewer(installation.url, job_id).follow()
    assert again.seqs == list(range(1, len(again.events) + 1))
    assert [kind for kind in kinds(again.events) if kind in {"error", "reopened"}] == ["error", "reopened", "error"]
    resumed = Viewer(installation.url, job_id)
    resumed.events = first.events[:]
    await resumed.follow()
    assert resumed.events == again.events


async def test_a_rerun_from_a_phase_reuses_what_was_recorded(installation: Installation, http: Api) -> None:
    job_id = await http.submit("phased", {"start": 1})
    await Viewer(installation.url, job_id).follow()
    rerun = await http.post(f"/api/v1/jobs/{job_id}/rerun", {"from_phase": "analyzing", "params": {"start": 2}}, 202)
    viewer = await Viewer(installation.url, rerun["id"]).follow()
    started = next(event for event in viewer.events if event["type"] == "started")
    assert (started["reused_phases"], started["progress"]) == (["collecting_data"], 30.0)
    result = viewer.events[-1]["results"]
    assert (result["first"]["job"], result["second"]["job"], result["start"]) == (job_id, rerun["id"], 2)
    assert viewer.events[0]["rerun_of"] == job_id


async def test_a_rerun_owns_the_large_outputs_it_reuses(installation: Installation, http: Api) -> None:
    size = 300_000
    job_id = await http.submit("phased", {"bulk": size})
    await Viewer(installation.url, job_id).follow()
    rerun = await http.post(f"/api/v1/jobs/{job_id}/rerun", {"from_phase": "finalizing", "params": {"bulk": 1}}, 202)
    viewer = await Viewer(installation.url, rerun["id"]).follow()
    assert viewer.events[-1]["results"]["sizes"] == [size, size]
    for checkpoint in (event for event in viewer.events if event["type"] == "checkpoint"):
        ref = checkpoint["output_ref"]
        assert rerun["id"] in ref["url"]
        async with http.session.get(f"{http.url}{ref['url']}") as answer:
            assert hashlib.sha256(await answer.read()).hexdigest() == ref["sha256"] == checkpoint["digest"]


async def test_an_attempt_after_a_crash_goes_on_from_its_checkpoint(installation: Installation, http: Api) -> None:
    job_id = await http.submit("suicidal", {}, timeouts={"attempt_s": 60})
    viewer = await Viewer(installation.url, job_id).follow()
    retry = next(event for event in viewer.events if event["type"] == "retry")
    assert (retry["error"]["code"], retry["error"]["signal"]) == ("killed", "SIGKILL")
    assert viewer.events[-1]["results"] == {"first": {"attempt": 1}, "attempt": 2}


async def test_a_result_of_five_mebibytes_goes_by_reference_and_inline_where_asked(
    installation: Installation, http: Api
) -> None:
    size = 5 * 1024 * 1024
    job_id = await http.submit("sized", {"size": size})
    viewer = await Viewer(installation.url, job_id).follow()
    ref = viewer.events[-1]["results_ref"]
    async with http.session.get(f"{http.url}{ref['url']}") as answer:
        body = await answer.read()
    assert (len(body), hashlib.sha256(body).hexdigest()) == (ref["size"], ref["sha256"])
    assert json.loads(body) == "x" * size
    assert (await http.get(f"/api/v1/jobs/{job_id}?results=inline"))["results"] == "x" * size
    inline = await Viewer(installation.url, job_id).follow(query="&results=inline")
    assert inline.events[-1] == {**_without(viewer.events[-1], "results_ref"), "results": "x" * size}
    assert inline.events[:-1] == viewer.events[:-1]


async def test_a_deep_result_becomes_json_and_a_nan_is_refused_with_its_path(
    installation: Installation, http: Api
) -> None:
    good = await Viewer(installation.url, await http.submit("nested", {})).follow()
    assert good.events[-1]["results"] == {
        "rows": [{"when": "2026-11-24T08:00:00Z", "amount": "1.50"}],
        "by_id": {"a": ["00000000-0000-0000-0000-000000000001"]},
        "colours": ["red"],
        "extra": {"levels": [{"deeper": [1.5]}]},
    }
    bad = await Viewer(installation.url, await http.submit("nested", {"nan": True}, max_attempts=1)).follow()
    assert bad.events[-1]["code"] == "engine_error"
    assert "extra.levels[0].deeper[0]" in bad.events[-1]["message"]


async def test_the_same_key_twice_at_once_is_one_job(installation: Installation, http: Api) -> None:
    body = {"engine": "countdown", "params": {"steps": 1, "step_s": 0}}
    made = await asyncio.gather(
        *(http.post("/api/v1/jobs", body, 202, **{"Idempotency-Key": "same"}) for _ in range(10))
    )
    assert len({job["id"] for job in made}) == 1
    await http.post("/api/v1/jobs", body | {"priority": "high"}, 422, **{"Idempotency-Key": "same"})
    await Viewer(installation.url, made[0]["id"]).follow()


async def test_priority_goes_first_and_not_before_waits(installation: Installation, http: Api) -> None:
    blocking = [await http.submit("countdown", LONG) for _ in range(2)]
    await asyncio.gather(*(Viewer(installation.url, job_id).follow(until=2) for job_id in blocking))
    low, normal, high = [
        await http.submit("countdown", {"steps": 1, "step_s": 0.3}, priority=priority)
        for priority in ("low", "normal", "high")
    ]
    later = await http.submit("countdown", {"steps": 1, "step_s": 0}, not_before="2099-01-01T00:00:00Z")
    await asyncio.gather(*(http.post(f"/api/v1/jobs/{job_id}/cancel", {}, 200) for job_id in blocking))
    viewers = await asyncio.gather(*(Viewer(installation.url, job_id).follow() for job_id in (low, normal, high)))
    started = [next(e["timestamp"] for e in viewer.events if e["type"] == "started") for viewer in viewers]
    assert started[2] <= started[1] <= started[0]
    assert (await http.get(f"/api/v1/jobs/{later}"))["status"] == "queued"
    await http.post(f"/api/v1/jobs/{later}/cancel", {}, 200)


@pytest.mark.parametrize("mode", ["graceful", "force"])
async def test_a_running_job_is_cancelled_well_within_a_second_and_keeps_its_best(
    installation: Installation, http: Api, mode: str
) -> None:
    job_id = await http.submit("countdown", LONG)
    viewer = Viewer(installation.url, job_id)
    await viewer.follow(until=6)
    await http.post(f"/api/v1/jobs/{job_id}/cancel", {"mode": mode, "reason": "seen enough"}, 200)
    await viewer.follow()
    assert kinds(viewer.events)[-1] == "cancelled"
    assert viewer.events[-1]["reason"] == "seen enough"
    assert viewer.events[-1]["results"]["steps"] >= 1
    assert viewer.close_code == 1000


async def test_the_job_as_it_stood_at_any_sequence(installation: Installation, http: Api) -> None:
    job_id = await http.submit("countdown", {"steps": 5, "step_s": 0})
    viewer = await Viewer(installation.url, job_id).follow()
    first = await http.get(f"/api/v1/jobs/{job_id}?at=1")
    assert (first["status"], first["seq"], first["progress"]) == ("queued", 1, 0.0)
    then = [await http.get(f"/api/v1/jobs/{job_id}?at={event['seq']}") for event in viewer.events]
    assert [job["seq"] for job in then] == viewer.seqs
    assert then[-1] == await http.get(f"/api/v1/jobs/{job_id}")
    await http.get(f"/api/v1/jobs/{job_id}?at={len(viewer.events) + 1}", 404)


async def test_an_fpl_decision_runs_end_to_end_and_a_rerun_reuses_its_data(
    installation: Installation, http: Api
) -> None:
    made = await http.post("/api/v1/analyze", {"team_id": 1, "horizon": 1}, 202)
    job_id = made["analysis_id"]
    viewer = await Viewer(installation.url, job_id).follow()
    assert viewer.events[-1]["type"] == "complete", viewer.events[-1]
    decision = viewer.events[-1]["results"]
    assert len(decision["lineup"]["starters"]) == 11
    phases = [phase for phase, _ in itertools.groupby(e["phase"] for e in viewer.events if e["type"] == "progress")]
    assert phases == ["initializing", "collecting_data", "projecting_points", "analyzing_transfers", "finalizing"]
    rerun = await http.post(f"/api/v1/jobs/{job_id}/rerun", {"from_phase": "analyzing_transfers"}, 202)
    again = await Viewer(installation.url, rerun["id"]).follow()
    started = next(event for event in again.events if event["type"] == "started")
    assert started["reused_phases"] == ["collecting_data", "projecting_points"]
    assert again.events[-1]["results"]["lineup"] == decision["lineup"]


async def test_with_rabbitmq_stopped_after_submit_nothing_is_lost_only_slower(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), url, **ENVIRONMENT)
    async with running(made), api(made.url) as http:
        job_id = await http.submit("countdown", LONG)
        viewer = Viewer(made.url, job_id)
        following = asyncio.create_task(viewer.follow_to_the_end())
        await asyncio.to_thread(rabbit.stop_app)
        try:
            later = await http.submit("countdown", {"steps": 3, "step_s": 0.05})
            await following
            late = await Viewer(made.url, later).follow_to_the_end()
        finally:
            await asyncio.to_thread(rabbit.start_app)
        for seen in (viewer, late):
            assert seen.seqs == list(range(1, len(seen.events) + 1))
            assert seen.events[-1]["type"] == "complete"
        assert "interrupted" not in kinds(viewer.events)
        await Viewer(made.url, await http.submit("countdown", {"steps": 1, "step_s": 0})).follow()
    assert await database.check(settings) == []


def _without(event: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != name}
