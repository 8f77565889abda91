"""Each row of docs/protocol.md §6: bad input changes nothing and gets an answer that names the field."""

import io
from typing import Any

import pytest

from events.log import EngineRow
from events.values import DEPTH_MAX
from tests.gateway.driving import Answer, Driver, Gateway, normal

UNKNOWN = "01a20cae-f0fd-7c5c-90af-8d1914daffc9"
NEW = {"engine": "fpl", "params": {"team_id": 7}}
BAD_AFTER = ["-1", "+1", "01", "1.0", "1e3", "", "x", "9007199254740992", "99999999999999999999", "٣", "1%20", "0x1"]


def assert_problem(answer: Answer, status: int, *fields: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json
    assert document["status"] == status
    assert {"type", "title", "detail", "errors"} <= document.keys()
    if fields:
        assert [error["field"] for error in document["errors"]] == list(fields)
    assert "Traceback" not in answer.body.decode()


@pytest.mark.parametrize("after", BAD_AFTER)
async def test_after_is_a_plain_decimal(gateway: Gateway, driver: Driver, after: str):
    job_id = await driver.submit()
    assert_problem(await gateway.get(f"/api/v1/jobs/{job_id}/events?after={after}"), 400, "after")
    async with gateway.stream(f"/api/v1/jobs/{job_id}/stream?after={after}") as stream:
        frames, code = await stream.rest()
    assert ([(frame["type"], frame["field"]) for frame in frames], code) == ([("command_error", "after")], 4400)


@pytest.mark.parametrize(
    "query, field",
    [
        ("after=1&after=1", "after"),
        ("after=1&last=2", "last"),
        ("last=-1", "last"),
        ("afterr=1", "afterr"),
        ("since=1", "since"),
        ("batch=yes", "batch"),
        ("heartbeat=1", "heartbeat"),
        ("heartbeat=31", "heartbeat"),
        ("heartbeat=2.5", "heartbeat"),
        ("results=all", "results"),
    ],
)
async def test_a_bad_query_of_a_full_stream_is_accepted_answered_and_closed(
    gateway: Gateway, driver: Driver, query: str, field: str
):
    job_id = await driver.submit()
    for path in (f"/api/v1/jobs/{job_id}/stream?{query}", f"/api/v1/analyze/{job_id}/stream?epoch=x&{query}"):
        async with gateway.stream(path) as stream:
            frames, code = await stream.rest()
        assert ([(frame["type"], frame["field"]) for frame in frames], code) == ([("command_error", field)], 4400)


@pytest.mark.parametrize(
    "path, field",
    [
        ("/api/v1/jobs?stat=queued", "stat"),
        ("/api/v1/jobs?status=done", "status"),
        ("/api/v1/jobs?limit=0", "limit"),
        ("/api/v1/jobs?limit=201", "limit"),
        ("/api/v1/jobs?cursor=abc", "cursor"),
        ("/api/v1/jobs?cursor=%C3%BC", "cursor"),
        ("/api/v1/jobs?created_after=yesterday", "created_after"),
        ("/api/v1/jobs?created_after=2026-01-01T00:00:00", "created_after"),
        ("/api/v1/jobs/{id}?at=0", "at"),
        ("/api/v1/jobs/{id}?at=x", "at"),
        ("/api/v1/jobs/{id}/events?order=up", "order"),
        ("/api/v1/jobs/{id}/events?limit=501", "limit"),
        ("/api/v1/engines?x=1", "x"),
    ],
)
async def test_a_bad_query_over_http_names_the_parameter(gateway: Gateway, driver: Driver, path: str, field: str):
    assert_problem(await gateway.get(path.replace("{id}", await driver.submit())), 400, field)


@pytest.mark.parametrize("job_id", [UNKNOWN, "x", UNKNOWN.upper(), "%00", "1' OR '1'='1"])
async def test_every_unknown_id_is_answered_alike(gateway: Gateway, job_id: str):
    calls = [("GET", ""), ("GET", "/results"), ("GET", "/events")]
    calls += [("POST", "/cancel"), ("POST", "/retry"), ("POST", "/rerun")]
    answers = [await gateway.call(method, f"/api/v1/jobs/{job_id}{part}") for method, part in calls]
    answers.append(await gateway.get(f"/api/v1/analyze/{job_id}"))
    for answer in answers:
        assert_problem(answer, 404)
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"engine": NaN}',
        b"\xff\xfe",
        b'{"engine":"\xc3"}',
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
async def test_a_body_that_is_no_json_is_400(gateway: Gateway, body: bytes):
    for path in ("/api/v1/jobs", "/api/v1/analyze"):
        assert_problem(await gateway.call("POST", path, data=body), 400)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_one_mib_is_413(gateway: Gateway, chunked: bool):
    fits = b'{"engine":"fpl","params":{"team_id":7},"tags":[' + b" " * (1024 * 1024 - 49) + b"]}"
    assert len(fits) == 1024 * 1024

    async def chunks(body: bytes) -> Any:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    def sent(body: bytes) -> Any:
        return chunks(body) if chunked else io.BytesIO(body)

    assert (await gateway.call("POST", "/api/v1/jobs", data=sent(fits))).status == 202
    assert_problem(await gateway.call("POST", "/api/v1/jobs", data=sent(fits + b" ")), 413)


@pytest.mark.parametrize(
    "body, field",
    [
        ([], ""),
        ("text", ""),
        ({}, "engine"),
        (NEW | {"engine": 7}, "engine"),
        (NEW | {"enginee": "fpl"}, "enginee"),
        (NEW | {"params": []}, "params"),
        (NEW | {"priority": "urgent"}, "priority"),
        (NEW | {"max_attempts": 0}, "max_attempts"),
        (NEW | {"max_attempts": 101}, "max_attempts"),
        (NEW | {"max_attempts": "3"}, "max_attempts"),
        (NEW | {"max_attempts": True}, "max_attempts"),
        (NEW | {"not_before": "tomorrow"}, "not_before"),
        (NEW | {"not_before": "2030-01-01T00:00:00"}, "not_before"),
        (NEW | {"not_before": 10**20}, "not_before"),
        (NEW | {"timeouts": {"stall_s": 0}}, "timeouts.stall_s"),
        (NEW | {"timeouts": {"attempts_s": 1}}, "timeouts.attempts_s"),
        (NEW | {"tags": ["x"] * 21}, "tags"),
        (NEW | {"tags": ["ok", "x" * 65]}, "tags[1]"),
        (NEW | {"params": {"team_id": 0}}, "params.team_id"),
        (NEW | {"params": {"team_id": 13}}, "params.team_id"),
        (NEW | {"params": {}}, "params.team_id"),
        (NEW | {"params": {"team_id": 7, "risk": "inf"}}, "params.risk"),
    ],
)
async def test_a_wrong_field_is_422_with_its_path_and_stores_nothing(gateway: Gateway, body: Any, field: str):
    assert_problem(await gateway.post("/api/v1/jobs", body), 422, field)
    assert (await gateway.get("/api/v1/jobs")).json["jobs"] == []


@pytest.mark.parametrize(
    "body, field",
    [
        (rb'{"engine":"fpl","params":{"team_id":7,"notes":["ok",{"x":"a\u0000"}]}}', "params.notes[1].x"),
        (rb'{"engine":"fpl","params":{"team_id":7,"notes":"\ud800"}}', "params.notes"),
        (rb'{"engine":"fpl","params":{"team_id":7},"tags":["\u0000"]}', "tags[0]"),
        (
            b'{"engine":"fpl","params":{"team_id":7,"deep":' + b"[" * 300 + b"]" * 300 + b"}}",
            "params.deep" + "[0]" * (DEPTH_MAX - 1),
        ),
    ],
)
async def test_what_no_log_can_keep_is_422_with_its_path(gateway: Gateway, body: bytes, field: str):
    assert_problem(await gateway.call("POST", "/api/v1/jobs", data=body), 422, field)


async def test_a_lone_surrogate_in_a_reason_changes_nothing(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    answer = await gateway.call("POST", f"/api/v1/jobs/{job_id}/cancel", data=rb'{"reason":"\udfff"}')
    assert_problem(answer, 422, "reason")
    assert (await gateway.get(f"/api/v1/jobs/{job_id}")).json["status"] == "queued"


@pytest.mark.parametrize(
    "call, body, field",
    [
        ("cancel", {"mode": "softly"}, "mode"),
        ("cancel", {"grace_s": -1}, "grace_s"),
        ("cancel", {"why": "x"}, "why"),
        ("cancel", {"reason": "x" * 1001}, "reason"),
        ("retry", {"from_phase": "x"}, "from_phase"),
        ("rerun", {"params": 7}, "params"),
        ("rerun", {"params": {"team_id": 0}}, "params.team_id"),
    ],
)
async def test_a_wrong_command_is_422_and_changes_nothing(
    gateway: Gateway, driver: Driver, call: str, body: Any, field: str
):
    job_id = await driver.submit()
    assert_problem(await gateway.post(f"/api/v1/jobs/{job_id}/{call}", body), 422, field)
    assert (await gateway.get(f"/api/v1/jobs/{job_id}/events")).json["head_seq"] == 1


async def test_events_in_a_form_nobody_serves_are_406(gateway: Gateway, driver: Driver):
    path = f"/api/v1/jobs/{await driver.submit()}/events"
    for accept in ("text/csv", "text/html"):
        assert_problem(await gateway.get(path, headers={"Accept": accept}), 406)
    assert (await gateway.get(path, headers={"Accept": "text/html, */*;q=0.1"})).status == 200


async def test_an_unknown_engine_is_404_with_the_known_ones(gateway: Gateway):
    answer = await gateway.post("/api/v1/jobs", NEW | {"engine": "flp"})
    assert_problem(answer, 404, "engine")
    assert answer.json["known"] == ["countdown", "fpl"]


async def test_an_engine_only_workers_know_is_checked_by_its_schema(gateway: Gateway):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    phases = [{"name": "working", "until": 100.0}]
    await gateway.storage.log.declare([EngineRow("remote", 4, "Far away.", phases, schema, {})])
    assert_problem(await gateway.post("/api/v1/jobs", {"engine": "remote", "params": {"n": "x"}}), 422, "params.n")
    job = (await gateway.post("/api/v1/jobs", {"engine": "remote", "params": {"n": 1}})).json
    assert (job["engine_version"], job["params"]) == (4, {"n": 1})


async def test_routes_and_methods_that_do_not_exist_are_problems(gateway: Gateway):
    for path in ("/api/v1/tickets", "/api/v1/eventz", "/api/v2/jobs"):
        assert_problem(await gateway.get(path), 404)
    answer = await gateway.call("DELETE", "/api/v1/jobs")
    assert_problem(answer, 405)
    assert answer.headers["Allow"] == "GET,HEAD,POST"


async def test_a_database_that_is_away_is_503_with_retry_after(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    gateway.storage.interrupt(True)
    for path in ("", f"/{job_id}", f"/{job_id}/events", f"/{job_id}/results"):
        answer = await gateway.get(f"/api/v1/jobs{path}")
        assert_problem(answer, 503)
        assert answer.headers["Retry-After"] == "1"


async def test_a_mistake_here_is_500_and_shows_nothing(
    gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("gateway.jobs.job_fields", broken)
    answer = await gateway.get("/api/v1/jobs/" + await driver.submit())
    assert_problem(answer, 500)
    assert b"secret" not in answer.body


async def test_a_path_writes_no_line_of_its_own_into_the_log(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("gateway.schedules._named", broken)
    path = "/api/v1/schedules/a%0A2026-11-29%20ERROR%20somebody%20else"
    answer = await gateway.get(path)
    assert_problem(answer, 500)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"GET {path} failed"


async def test_a_bad_query_is_nothing_to_a_classic_stream(gateway: Gateway, driver: Driver):
    async with gateway.stream(f"/api/v1/analyze/{await driver.submit()}/stream?heartbeat=x") as stream:
        (frame,) = normal([await stream.frame()])
    assert frame["phase"] == "queued"


async def test_a_body_that_does_not_unpack_is_refused(gateway: Gateway):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert_problem(await gateway.call("POST", "/api/v1/jobs", data=b"not gzip", headers=headers), 400)


async def test_a_head_request_gets_no_body(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    path = f"/api/v1/jobs/{job_id}"
    answer = await gateway.call("HEAD", f"{path}/events", headers={"Accept": "application/x-ndjson"})
    assert (answer.status, answer.body) == (200, b"")
    assert (await gateway.get(path)).status == 200
