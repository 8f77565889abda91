"""`phaseline up` with rules: jobs go by themselves, and open through the same API and streams as before."""

import asyncio
from pathlib import Path

from phaseline import database
from tests.installation import Api, Viewer, api, embedded
from tests.retention.scene import settings_in
from tests.stores import sqlite_settings

BOUND_S = 60.0


async def test_an_archived_job_opens_through_the_same_api(tmp_path: Path) -> None:
    settings = sqlite_settings(tmp_path).model_copy(update={"archive": str(tmp_path / "archive")})
    rules = settings_in(settings, "completed=2s, failed=2s") | {
        "PHASELINE_RETENTION_EVERY_S": "0.5", "PHASELINE_SEAL_S": "0.2",
    }  # fmt: skip
    up = embedded(tmp_path, **rules)
    try:
        await up.start()
        async with api(up.url) as http:
            job_id = await http.submit("countdown", {"steps": 3, "step_s": 0}, tags=["mine"])
            failed = await http.submit("countdown", {"steps": 3, "step_s": 0, "fail_at": 1})
            kept = await http.submit("countdown", {"steps": 3, "step_s": 0})
            await http.post(f"/api/v1/jobs/{kept}/pin", {"reason": "the baseline"}, 200)
            seen = await Viewer(up.url, job_id).follow()
            before, events = await http.get(f"/api/v1/jobs/{job_id}"), await http.events(job_id)
            await _listed(http, [kept])

            assert await http.get(f"/api/v1/jobs/{job_id}") == before
            assert await http.events(job_id) == events
            assert (await Viewer(up.url, job_id).follow()).events == seen.events
            assert (await http.get(f"/api/v1/jobs/{job_id}?at=2"))["seq"] == 2
            refused = await http.post(f"/api/v1/jobs/{failed}/retry", {}, 409)
            assert "archived" in refused["detail"]
            await http.post(f"/api/v1/jobs/{job_id}/pin", {"reason": "too late"}, 409)
            again = await http.post(f"/api/v1/jobs/{job_id}/rerun", {}, 202)
            assert (again["rerun_of"], again["params"]) == (job_id, before["params"])
            unknown = "01a20cae-f0fd-7c5c-90af-8d1914daffc9"
            assert (await http.post(f"/api/v1/jobs/{unknown}/retry", {}, 404))["status"] == 404
    finally:
        await up.kill()
    assert await database.check(settings) == []


async def _listed(http: Api, expected: list[str]) -> None:
    async with asyncio.timeout(BOUND_S):
        while [job["id"] for job in (await http.get("/api/v1/jobs"))["jobs"]] != expected:  # noqa: ASYNC110 it is written elsewhere
            await asyncio.sleep(0.1)  # another process's pass; the bound is above
