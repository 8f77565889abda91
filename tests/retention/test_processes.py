"""`phaseline up` with rules: jobs go by themselves, and open through the same API and streams as before."""

import asyncio
import json
from pathlib import Path
from typing import Any

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


async def test_the_audit_over_http_reads_archived_jobs_too(tmp_path: Path) -> None:
    settings = sqlite_settings(tmp_path).model_copy(update={"archive": str(tmp_path / "archive")})
    rules = settings_in(settings) | {"PHASELINE_RETENTION_EVERY_S": "0.5", "PHASELINE_SEAL_S": "0.2"}
    up = embedded(tmp_path, **rules)
    try:
        await up.start()
        async with api(up.url) as http:
            ids = [await http.submit("countdown", {"steps": 2, "step_s": 0}) for _ in range(3)]
            for job_id in ids:
                await Viewer(up.url, job_id).follow()
            await _listed(http, [])
            first = await _told(http, "/api/v1/audit/check")
            assert (first[-1]["complete"], first[-1]["jobs"], first[-1]["findings"]) == (True, 3, 0)
            await _told(http, f"/api/v1/audit/check?cursor=archived.{ids[1]}")
            exported = await _told(http, "/api/v1/audit/export")
            assert {line["job_id"] for line in exported if line["kind"] == "event"} > set(ids)
            for path in (tmp_path / "archive").glob("*/w*/*.gz"):
                path.write_bytes(b"")
    finally:
        await up.kill()
    try:
        await up.start()
        async with api(up.url) as http:
            told = await _told(http, "/api/v1/audit/check")
            assert {line["job_id"] for line in told if line["type"] == "finding"} == set(ids)
    finally:
        await up.kill()


async def _told(http: Api, path: str) -> list[dict[str, Any]]:
    async with http.session.get(f"{http.url}{path}") as answer:
        assert answer.status == 200, await answer.text()
        return [json.loads(line) for line in (await answer.text()).splitlines()]
