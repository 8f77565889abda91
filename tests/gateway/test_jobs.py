"""Jobs over HTTP (docs/protocol.md §2)."""

import asyncio
import base64
import hashlib
import json
import re
from typing import Any

import pytest

from events.catalog import Log
from events.log import PAGE_BYTES_MAX, EngineRow
from tests.gateway.driving import Answer, Driver, Gateway

JOB_FIELDS = [
    *("id", "engine", "engine_version", "status", "phase", "progress", "attempt", "failures", "losses"),
    *("max_attempts", "priority", "params", "tags", "seq", "created_at", "started_at", "finished_at", "not_before"),
    *("rerun_of", "unique_key", "concurrency", "schedule", "stream_url"),
]
NEW = {"engine": "fpl", "params": {"team_id": 7}}


async def test_a_new_job_is_accepted_and_says_where_it_is(gateway: Gateway):
    answer = await gateway.post("/api/v1/jobs", NEW)
    job = answer.json
    assert (answer.status, answer.headers["Location"]) == (202, f"/api/v1/jobs/{job['id']}")
    assert list(job) == JOB_FIELDS
    expected = {
        "engine": "fpl",
        "engine_version": 2,
        "status": "queued",
        "params": {"team_id": 7, "horizon": 3, "risk": None},
        "seq": 1,
    }
    assert job.items() >= expected.items()
    assert (await gateway.get(answer.headers["Location"])).json == job


async def test_every_field_of_a_request_reaches_the_job(gateway: Gateway):
    asked = NEW | {
        "priority": "high",
        "not_before": "2030-01-01T01:00:00+01:00",
        "max_attempts": 5,
        "timeouts": {"start_s": 60, "attempt_s": None, "stall_s": 1.5},
        "tags": ["weekly", "öl"],
    }
    job = (await gateway.post("/api/v1/jobs", asked)).json
    shown = {name: job[name] for name in ("priority", "not_before", "max_attempts", "tags")}
    assert shown == {
        "priority": "high",
        "not_before": "2030-01-01T00:00:00.000Z",
        "max_attempts": 5,
        "tags": ["weekly", "öl"],
    }
    submitted = (await gateway.get(f"/api/v1/jobs/{job['id']}/events")).json["events"][0]
    assert submitted["timeouts"] == {"start_s": 60.0, "attempt_s": None, "total_s": None, "stall_s": 1.5}
    assert submitted["actor"] == "user:anonymous"


async def test_a_job_says_whom_it_is_about_where_its_engine_declares_it(gateway: Gateway):
    schema = {"type": "object", "properties": {"team": {"type": "integer"}}, "x-subject": ["team", "source"]}
    phases = [{"name": "working", "until": 100.0}]
    await gateway.storage.log.declare([EngineRow("remote", 1, "Far away.", phases, schema, {})])
    said = []
    for asked in ({"engine": "remote", "params": {"team": 7}}, {"engine": "remote"}, NEW):
        job = (await gateway.post("/api/v1/jobs", asked)).json
        submitted = (await gateway.get(f"/api/v1/jobs/{job['id']}/events")).json["events"][0]
        row = await gateway.storage.log.job(job["id"])
        assert row is not None
        said.append((submitted.get("subject", "absent"), row.subject))
    assert said == [("[7,null]", "[7,null]"), ("absent", None), ("absent", None)]


# ---- unique keys ----------------------------------------------------------------------------------------------


TAKEN = "urn:phaseline:problem:unique_key_taken"


async def test_a_submit_with_the_unique_key_of_an_unfinished_job_is_answered_with_it(gateway: Gateway):
    asked = NEW | {"unique_key": "nightly"}
    first = await gateway.post("/api/v1/jobs", asked)
    again = await post_with_key(gateway, "k", asked | {"params": {"team_id": 8}})
    assert (first.status, again.status, again.json) == (202, 200, first.json)
    assert again.headers["Location"] == f"/api/v1/jobs/{first.json['id']}"
    assert first.json["unique_key"] == "nightly"


async def test_a_submit_that_may_not_share_a_unique_key_names_the_field_and_the_job(gateway: Gateway):
    job_id = (await gateway.post("/api/v1/jobs", NEW | {"unique_key": "nightly"})).json["id"]
    refused = await gateway.post("/api/v1/jobs", NEW | {"unique_key": "nightly", "unique_mode": "refuse"})
    assert (refused.status, refused.json["type"], refused.json["job_id"]) == (409, TAKEN, job_id)
    assert refused.json["errors"] == [{"field": "unique_key", "message": f"job {job_id} has this unique key"}]
    rerun = await gateway.post(f"/api/v1/jobs/{job_id}/rerun")
    assert (rerun.status, rerun.json["type"], rerun.json["job_id"]) == (409, TAKEN, job_id)


async def test_a_submit_that_replaces_cancels_the_job_with_its_unique_key(gateway: Gateway):
    asked = NEW | {"unique_key": "nightly", "unique_mode": "replace"}
    old, new = [(await gateway.post("/api/v1/jobs", asked)).json for _ in range(2)]
    assert old["id"] != new["id"]
    assert [(await gateway.get(f"/api/v1/jobs/{job['id']}")).json["status"] for job in (old, new)] == [
        "cancelled",
        "queued",
    ]
    retried = await gateway.post(f"/api/v1/jobs/{old['id']}/retry")
    assert (retried.status, retried.json["type"], retried.json["job_id"]) == (409, TAKEN, new["id"])


async def test_a_limit_by_concurrency_key_reaches_the_job_and_its_rerun(gateway: Gateway):
    job = (await gateway.post("/api/v1/jobs", NEW | {"concurrency": {"key": "site", "limit": 2}})).json
    rerun = (await gateway.post(f"/api/v1/jobs/{job['id']}/rerun")).json
    alone = (await gateway.post("/api/v1/jobs", NEW | {"concurrency": {"key": "site"}})).json
    assert [each["concurrency"] for each in (job, rerun, alone)] == [
        {"key": "site", "limit": 2},
        {"key": "site", "limit": 2},
        {"key": "site", "limit": 1},
    ]
    submitted = (await gateway.get(f"/api/v1/jobs/{job['id']}/events")).json["events"][0]
    assert submitted["concurrency"] == {"key": "site", "limit": 2}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"concurrency": {"key": "site", "limit": 0}}, "concurrency.limit"),
        ({"concurrency": {"key": "", "limit": 1}}, "concurrency.key"),
        ({"concurrency": {"limit": 1}}, "concurrency.key"),
        ({"unique_key": ""}, "unique_key"),
        ({"unique_key": "x" * 256}, "unique_key"),
        ({"unique_key": "x", "unique_mode": "share"}, "unique_mode"),
        ({"unique_mode": "replace"}, "unique_mode"),
    ],
)
async def test_a_wrong_unique_key_is_named_and_makes_nothing(gateway: Gateway, wrong: dict[str, Any], field: str):
    refused = await gateway.post("/api/v1/jobs", NEW | wrong)
    assert refused.status == 422
    assert [error["field"] for error in refused.json["errors"]] == [field]
    assert (await gateway.get("/api/v1/jobs")).json["jobs"] == []


# ---- idempotency ----------------------------------------------------------------------------------------------


async def post_with_key(gateway: Gateway, key: str, body: Any = NEW, path: str = "/api/v1/jobs") -> Answer:
    return await gateway.post(path, body, headers={"Idempotency-Key": key})


async def test_the_same_key_and_body_give_the_same_job(gateway: Gateway, driver: Driver):
    first = await post_with_key(gateway, "monday")
    attempt = await driver.claim(first.json["id"])
    await attempt.progress(20)
    again = await post_with_key(gateway, "monday", {"params": {"team_id": 7}, "engine": "fpl"})
    assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
    assert (again.status, again.json["id"], again.json["status"]) == (202, first.json["id"], "running")


async def test_the_same_key_with_another_body_is_refused(gateway: Gateway):
    await post_with_key(gateway, "monday")
    refused = await post_with_key(gateway, "monday", NEW | {"priority": "high"})
    assert (refused.status, refused.json["type"]) == (422, "urn:phaseline:problem:key_reused")
    assert len((await gateway.get("/api/v1/jobs")).json["jobs"]) == 1


async def test_the_same_key_at_the_same_instant_makes_one_job(gateway: Gateway):
    answers = await asyncio.gather(*(post_with_key(gateway, "monday") for _ in range(20)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    other = await asyncio.gather(*(post_with_key(gateway, "tuesday", NEW | {"max_attempts": n}) for n in range(1, 9)))
    assert sorted(answer.status for answer in other) == [202] + [422] * 7


async def test_a_key_is_for_one_call(gateway: Gateway, driver: Driver):
    job_id = (await post_with_key(gateway, "k")).json["id"]
    assert (await post_with_key(gateway, "k", {"team_id": 7}, "/api/v1/analyze")).status == 422
    assert (await post_with_key(gateway, "k", {}, f"/api/v1/jobs/{job_id}/rerun")).status == 422
    first = await post_with_key(gateway, "r", {}, f"/api/v1/jobs/{job_id}/rerun")
    again = await post_with_key(gateway, "r", {}, f"/api/v1/jobs/{job_id}/rerun")
    assert (first.status, again.json["id"]) == (202, first.json["id"])


@pytest.mark.parametrize("length, status", [(255, 202), (256, 400)])
async def test_a_key_has_at_most_255_characters(gateway: Gateway, length: int, status: int):
    answer = await post_with_key(gateway, "k" * length)
    assert answer.status == status
    if status == 400:
        assert answer.json["errors"][0]["field"] == "Idempotency-Key"


# ---- list -----------------------------------------------------------------------------------------------------


async def ids(gateway: Gateway, query: str = "") -> list[str]:
    answer = await gateway.get(f"/api/v1/jobs{query}")
    assert answer.status == 200, answer.body
    return [job["id"] for job in answer.json["jobs"]]


async def test_a_list_is_paged_newest_first_and_new_jobs_do_not_shift_it(gateway: Gateway, driver: Driver):
    made = sorted([await driver.submit() for _ in range(7)])  # ids of one millisecond are in any order
    pages, cursor = [], ""
    while True:
        page = (await gateway.get(f"/api/v1/jobs?limit=3{cursor}")).json
        pages.append([job["id"] for job in page["jobs"]])
        await driver.submit()
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    newest = made[::-1]
    assert pages == [newest[:3], newest[3:6], newest[6:]]
    assert made[0] not in cursor, "a cursor is opaque"


async def test_a_list_of_large_jobs_is_paged_by_bytes(gateway: Gateway, driver: Driver):
    params = {"team_id": 7, "text": "x" * (PAGE_BYTES_MAX // 2 - 200)}
    made = sorted([await driver.submit(params=params) for _ in range(5)], reverse=True)
    pages, cursor, more = [], "", True
    while more:
        answer = await gateway.get(f"/api/v1/jobs?limit=200{cursor}")
        pages.append([job["id"] for job in answer.json["jobs"]])
        assert len(answer.body) < PAGE_BYTES_MAX + 8 * 1024
        more, cursor = answer.json["next_cursor"] is not None, f"&cursor={answer.json['next_cursor']}"
    assert pages == [made[:2], made[2:4], made[4:]]


async def test_a_list_is_filtered(gateway: Gateway, driver: Driver):
    done = await driver.started()
    await done.finish({})
    failed = await driver.started(tags=("weekly",))
    await failed.fail()
    other = await driver.submit(engine="countdown", tags=("weekly", "demo"))
    queued = await driver.submit()
    assert await ids(gateway, "?status=queued") == sorted([queued, other], reverse=True)
    assert await ids(gateway, "?status=completed,failed") == [failed.job_id, done.job_id]
    assert await ids(gateway, "?status=completed&status=queued&engine=fpl") == [queued, done.job_id]
    assert await ids(gateway, "?tag=weekly") == [other, failed.job_id]
    assert await ids(gateway, "?engine=nobody") == []
    created = (await gateway.get(f"/api/v1/jobs/{queued}")).json["created_at"]
    assert await ids(gateway, f"?created_after={created}") == []
    assert len(await ids(gateway, "?created_after=2020-01-01T00:00:00Z")) == 4
    listed = {job["id"]: job for job in (await gateway.get("/api/v1/jobs")).json["jobs"]}
    assert listed[failed.job_id]["error"] == {"message": "no data", "code": "engine_error"}
    assert "results" not in listed[done.job_id]


# ---- one job --------------------------------------------------------------------------------------------------


async def test_a_finished_job_carries_its_result_and_a_failed_one_its_error(gateway: Gateway, driver: Driver):
    done, failed = await driver.started(), None
    await done.finish({"gain": 4.0, "moves": []})
    assert (await gateway.get(f"/api/v1/jobs/{done.job_id}")).json["results"] == {"gain": 4.0, "moves": []}
    failed = await driver.started()
    await failed.fail("no data")
    error = (await gateway.get(f"/api/v1/jobs/{failed.job_id}")).json["error"]
    assert (error["code"], error["message"], error["details"]["type"]) == ("engine_error", "no data", "ValueError")


@pytest.mark.parametrize("value", [None, [], 0, "", False, {"a": 1e100, "ü": "東京", "n": 12345678901234567890}])
async def test_results_are_the_exact_bytes_with_their_digest(gateway: Gateway, driver: Driver, value: Any):
    attempt = await driver.started()
    early = await gateway.get(f"/api/v1/jobs/{attempt.job_id}/results")
    assert (early.status, early.json["job_status"]) == (409, "running")
    await attempt.finish(value)
    answer = await gateway.get(f"/api/v1/jobs/{attempt.job_id}/results")
    assert (answer.status, answer.headers["Content-Type"], answer.json) == (200, "application/json", value)
    line = (await gateway.get(f"/api/v1/jobs/{attempt.job_id}/events?after=3")).body
    assert b'"results":' + answer.body + b"}" in line
    digest = hashlib.sha256(answer.body)
    assert answer.headers["ETag"] == f'"{digest.hexdigest()}"'
    assert base64.b64encode(digest.digest()).decode() in answer.headers["Repr-Digest"]
    same = await gateway.get(
        f"/api/v1/jobs/{attempt.job_id}/results", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert (same.status, same.body) == (304, b"")


async def test_a_result_stored_apart_is_referred_to_served_and_inlined_on_request(gateway: Gateway, driver: Driver):
    body = b'{"spaces" : "' + b"x" * 300_000 + b'"}'
    sha256 = hashlib.sha256(body).hexdigest()
    attempt = await driver.started()
    await attempt.finish_apart(body, sha256)
    job = (await gateway.get(f"/api/v1/jobs/{attempt.job_id}")).json
    assert ("results" in job, job["results_ref"]["sha256"], job["results_ref"]["size"]) == (False, sha256, len(body))
    assert (await gateway.get(job["results_ref"]["url"])).body == body
    assert (await gateway.get(f"/api/v1/jobs/{attempt.job_id}/artifacts/{sha256}")).body == body
    assert (await gateway.get(f"/api/v1/jobs/{attempt.job_id}/artifacts/{'0' * 64}")).status == 404
    any_version = {"If-None-Match": "*"}
    assert (await gateway.get(f"/api/v1/jobs/{attempt.job_id}/artifacts/{sha256}", headers=any_version)).status == 304
    assert (await gateway.get(f"/api/v1/jobs/{attempt.job_id}/artifacts/{'0' * 64}", headers=any_version)).status == 404
    inline = await gateway.get(f"/api/v1/jobs/{attempt.job_id}?results=inline")
    assert body in inline.body
    assert "results_ref" not in inline.json


async def test_a_failed_job_without_a_best_result_has_none(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    await attempt.fail()
    answer = await gateway.get(f"/api/v1/jobs/{attempt.job_id}/results")
    assert (answer.status, answer.json["type"]) == (404, "urn:phaseline:problem:no_result")


async def test_a_job_can_be_read_as_of_every_sequence(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    await attempt.progress(20)
    await attempt.finish({"gain": 1.0})
    path = f"/api/v1/jobs/{attempt.job_id}"
    states = [(await gateway.get(f"{path}?at={seq}")).json for seq in range(1, 6)]
    shown = [(state["seq"], state["status"], state["progress"], state.get("results")) for state in states]
    assert shown == [
        (1, "queued", 0.0, None),
        (2, "running", 0.0, None),
        (3, "running", 20.0, None),
        (4, "running", 100.0, None),
        (5, "completed", 100.0, {"gain": 1.0}),
    ]
    assert states[-1] == (await gateway.get(path)).json
    beyond = await gateway.get(f"{path}?at=6")
    assert (beyond.status, beyond.json["head_seq"]) == (404, 5)


# ---- change ---------------------------------------------------------------------------------------------------


async def test_a_queued_job_is_cancelled_at_once_and_again(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    first = await gateway.post(f"/api/v1/jobs/{job_id}/cancel", {"reason": "wrong team"})
    again = await gateway.post(f"/api/v1/jobs/{job_id}/cancel")
    assert [(a.status, a.json["status"], a.json["seq"]) for a in (first, again)] == [(200, "cancelled", 2)] * 2


async def test_a_running_job_is_asked_to_stop(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    body = {"mode": "graceful", "grace_s": 5, "reason": "late"}
    answer = await gateway.post(f"/api/v1/jobs/{attempt.job_id}/cancel", body)
    assert (answer.status, answer.json["status"]) == (200, "running")
    asked = (await gateway.get(f"/api/v1/jobs/{attempt.job_id}/events?after=2")).json["events"][0]
    assert (asked["type"], asked["grace_s"], asked["reason"]) == ("cancel_requested", 5.0, "late")
    forced = await gateway.post(f"/api/v1/jobs/{attempt.job_id}/cancel", {"mode": "force"})
    assert (forced.status, forced.json["status"]) == (200, "cancelled")


async def test_a_finished_job_can_be_neither_cancelled_nor_retried(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    await attempt.finish({})
    for call in ("cancel", "retry"):
        answer = await gateway.post(f"/api/v1/jobs/{attempt.job_id}/{call}")
        assert (answer.status, answer.json["job_status"]) == (409, "completed")


async def test_a_failed_job_is_retried_under_its_id(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    await attempt.fail()
    answer = await gateway.post(f"/api/v1/jobs/{attempt.job_id}/retry", {"reason": "data is there now"})
    assert (answer.status, answer.json["id"], answer.json["status"]) == (202, attempt.job_id, "queued")
    assert "error" not in answer.json


async def test_a_rerun_is_a_new_job_with_the_old_request(gateway: Gateway, driver: Driver):
    old = await driver.started(priority="high", max_attempts=7, tags=("weekly",))
    await old.finish({})
    answer = await gateway.post(f"/api/v1/jobs/{old.job_id}/rerun")
    job = answer.json
    assert (answer.status, answer.headers["Location"]) == (202, f"/api/v1/jobs/{job['id']}")
    assert job["id"] != old.job_id
    shown = {name: job[name] for name in ("rerun_of", "priority", "max_attempts", "tags", "params", "seq")}
    assert shown == {
        "rerun_of": old.job_id, "priority": "high", "max_attempts": 7, "tags": ["weekly"],
        "params": {"team_id": 7, "horizon": 3, "risk": None}, "seq": 1,
    }  # fmt: skip


async def test_a_rerun_from_a_phase_reuses_what_the_phases_before_it_recorded(gateway: Gateway, driver: Driver):
    old = await driver.started()
    await old.checkpoint("initializing", {"v": 1})
    await old.say(Log(level="info", message="between"))
    await old.checkpoint("initializing", {"v": 2})
    await old.checkpoint("analyzing_transfers", {"later": True})
    await old.fail()
    asked = {"from_phase": "analyzing_transfers", "params": {"team_id": 8}}
    new = (await gateway.post(f"/api/v1/jobs/{old.job_id}/rerun", asked)).json
    events = (await gateway.get(f"/api/v1/jobs/{new['id']}/events")).json["events"]
    assert [(event["type"], event.get("phase"), event.get("output")) for event in events] == [
        ("submitted", None, None),
        ("checkpoint", "initializing", {"v": 2}),
    ]
    assert (events[0]["from_phase"], new["params"]) == (
        "analyzing_transfers",
        {"team_id": 8, "horizon": 3, "risk": None},
    )
    attempt = await driver.claim(new["id"])
    started = (await gateway.get(f"/api/v1/jobs/{attempt.job_id}/events?after=2")).json["events"][0]
    assert (started["reused_phases"], started["progress"]) == (["initializing"], 10.0)


async def test_a_rerun_copies_outputs_that_are_stored_apart(gateway: Gateway, driver: Driver):
    body = b'"' + b"x" * 300_000 + b'"'
    sha256 = hashlib.sha256(body).hexdigest()
    old = await driver.started()
    await old.checkpoint_apart("initializing", body, sha256)
    await old.finish({})
    new = (await gateway.post(f"/api/v1/jobs/{old.job_id}/rerun", {"from_phase": "collecting_data"})).json
    checkpoint = (await gateway.get(f"/api/v1/jobs/{new['id']}/events?after=1")).json["events"][0]
    assert checkpoint["output_ref"]["sha256"] == sha256
    assert (await gateway.get(f"/api/v1/jobs/{new['id']}/artifacts/{sha256}")).body == body


async def test_a_rerun_from_a_phase_nobody_declared_is_refused(gateway: Gateway, driver: Driver):
    answer = await gateway.post(f"/api/v1/jobs/{await driver.submit()}/rerun", {"from_phase": "dreaming"})
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "from_phase")
    assert "'dreaming'" in answer.json["detail"]
    assert len(await ids(gateway)) == 1


# ---- events ---------------------------------------------------------------------------------------------------


async def test_events_are_paged_in_both_directions(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    for percent in range(10, 40):
        await attempt.progress(percent)
    path = f"/api/v1/jobs/{attempt.job_id}/events"
    for order, expected in (("asc", list(range(1, 33))), ("desc", list(range(32, 0, -1)))):
        given: list[int] = []
        query = f"?order={order}&limit=20"
        while page := (await gateway.get(path + query)).json["events"]:
            given += [event["seq"] for event in page]
            query = f"?order={order}&limit=20&after={given[-1]}"
        assert given == expected
    page = (await gateway.get(f"{path}?after=32")).json
    assert page == {"job_id": attempt.job_id, "head_seq": 32, "next_after": 32, "events": []}
    beyond = await gateway.get(f"{path}?after=33")
    assert (beyond.status, beyond.json["head_seq"]) == (409, 32)


async def test_ndjson_goes_up_to_the_head_page_by_page(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    for percent in range(10, 25):
        await attempt.progress(percent, message="x" * 50_000)
    path = f"/api/v1/jobs/{attempt.job_id}/events"
    headers = {"Accept": "application/x-ndjson"}
    answer = await gateway.get(path, headers=headers)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line)["seq"] for line in answer.body.splitlines()] == list(range(1, 18))
    some = await gateway.get(f"{path}?after=3&limit=4", headers=headers)
    assert [json.loads(line)["seq"] for line in some.body.splitlines()] == [4, 5, 6, 7]
    assert (await gateway.get(f"{path}?after=17", headers=headers)).body == b""


# ---- analyze --------------------------------------------------------------------------------------------------


async def test_an_analysis_is_a_job_of_the_engine_fpl(gateway: Gateway, driver: Driver):
    answer = await gateway.post("/api/v1/analyze", {"team_id": 7, "horizon": 5})
    analysis_id = answer.json["analysis_id"]
    stream_url = f"/api/v1/analyze/{analysis_id}/stream"
    assert answer.status == 202
    assert answer.json == {"analysis_id": analysis_id, "status": "queued", "stream_url": stream_url}
    shown = (await gateway.get(answer.headers["Location"])).json
    job = (await gateway.get(f"/api/v1/jobs/{analysis_id}")).json
    assert shown == job | {"analysis_id": analysis_id, "stream_url": stream_url}
    assert job["params"] == {"team_id": 7, "horizon": 5, "risk": None}


async def test_an_analysis_names_bad_params_by_their_own_names(gateway: Gateway):
    for body, field in (({}, "team_id"), ({"team_id": 13}, "team_id"), ({"team_id": "x"}, "team_id")):
        answer = await gateway.post("/api/v1/analyze", body)
        assert (answer.status, answer.json["errors"][0]["field"]) == (422, field)


# ---- the rest -------------------------------------------------------------------------------------------------


async def test_engines_describe_themselves_without_a_worker(gateway: Gateway):
    engines = (await gateway.get("/api/v1/engines")).json["engines"]
    assert [(engine["name"], engine["version"]) for engine in engines] == [("countdown", 1), ("fpl", 2)]
    assert engines[1]["params_schema"]["properties"]["team_id"]["minimum"] == 1
    assert engines[1]["phases"][0] == {"name": "initializing", "until": 10.0}


async def test_workers_and_stats_count(gateway: Gateway, driver: Driver):
    await driver.started()
    await driver.submit()
    (worker,) = (await gateway.get("/api/v1/workers")).json["workers"]
    assert (worker["host"], worker["slots"], worker["running"]) == ("here", 1, 1)
    assert re.fullmatch(r"\d{4}-.*Z", worker["beat_at"])
    stats = (await gateway.get("/api/v1/stats")).json
    assert stats["jobs"] == {"running": 1, "queued": 1}
    assert (stats["workers"], stats["slots"], stats["running"]) == (1, 1, 1)


async def test_readiness_follows_the_log_and_liveness_does_not(gateway: Gateway):
    ready = await gateway.get("/readyz")
    assert (ready.status, ready.json["bus"]["connected"]) == (200, True)
    gateway.storage.interrupt(True)
    assert (await gateway.get("/readyz")).status == 503
    assert (await gateway.get("/healthz")).json == {"status": "alive"}
