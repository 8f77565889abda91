"""Schedules over HTTP (docs/protocol.md §2)."""

from typing import Any

import pytest

from events.clock import parse_instant
from events.ticker import Ticker
from gateway.deps import ENGINES
from tests.gateway.driving import Gateway, Storage
from tests.gateway.keyring import keys_of, make

JOB = {"engine": "fpl", "params": {"team_id": 7}}
NEW = {"name": "weekly", "cron": "0 6 * * FRI", "timezone": "Europe/London", "job": JOB}
PATH = "/api/v1/schedules"


async def test_a_schedule_is_made_listed_paused_resumed_and_deleted_and_says_who_did_it(gateway: Gateway):
    made = await gateway.post(PATH, NEW)
    assert (made.status, made.headers["Location"]) == (201, f"{PATH}/weekly")
    assert made.json["job"] == {
        "engine": "fpl",
        "params": {"team_id": 7, "horizon": 3, "risk": None},
        "priority": "normal",
        "max_attempts": 3,
        "timeouts": {"start_s": None, "attempt_s": 3600.0, "total_s": None, "stall_s": None},
        "tags": [],
        "unique_key": None,
        "unique_mode": "return",
        "webhook": None,
        "concurrency": None,
    }
    now = await gateway.storage.log.now()
    assert now < parse_instant(made.json["next_at"]) <= now + 8 * 24 * 3600 * 1000
    assert (await gateway.get(PATH)).json == {"schedules": [made.json]}
    paused = [await gateway.post(f"{PATH}/weekly/pause") for _ in range(2)]
    assert [(each.status, each.json["paused"], each.json["next_at"]) for each in paused] == [(200, True, None)] * 2
    resumed = await gateway.post(f"{PATH}/weekly/resume", {})
    assert (resumed.json["paused"], resumed.json["next_at"]) == (False, made.json["next_at"])
    shown = (await gateway.get(f"{PATH}/weekly")).json
    assert [(act["act"], act["actor"]) for act in shown["acts"]] == [
        ("resumed", "user:anonymous"),
        ("paused", "user:anonymous"),
        ("created", "user:anonymous"),
    ]
    gone = await gateway.call("DELETE", f"{PATH}/weekly")
    assert (gone.status, gone.json["name"]) == (200, "weekly")
    assert (await gateway.get(f"{PATH}/weekly")).status == 404
    assert (await gateway.get(PATH)).json == {"schedules": []}


async def test_why_something_is_done_with_a_schedule_is_shown_and_told_to_the_audit(gateway: Gateway):
    assert (await gateway.post(PATH, NEW | {"reason": "as agreed"})).status == 201
    await gateway.post(f"{PATH}/weekly/pause", {"reason": "the season is over"})
    assert (await gateway.post(f"{PATH}/weekly/resume", {"reason": ""})).status == 422
    shown = (await gateway.get(f"{PATH}/weekly")).json["acts"]
    assert [act["detail"] for act in shown] == ["the season is over", "as agreed"]
    for wrong in ("", "x" * 1001, "%00"):
        refused = await gateway.call("DELETE", f"{PATH}/weekly?reason={wrong}")
        assert (refused.status, refused.json["errors"][0]["field"]) == (400, "reason")
    assert (await gateway.call("DELETE", f"{PATH}/weekly?reason=for+good")).status == 200
    acts = await gateway.storage.log.acts("default", None, 9)  # type: ignore[attr-defined]
    assert [(one.act().act, one.act().reason, one.act().address) for one in acts] == [
        ("schedule_deleted", "for good", "127.0.0.1"),
        ("schedule_paused", "the season is over", "127.0.0.1"),
        ("schedule_created", "as agreed", "127.0.0.1"),
    ]


async def test_a_job_of_a_schedule_names_it(gateway: Gateway):
    await gateway.post(PATH, NEW | {"cron": "* * * * *"})
    log: Any = gateway.storage.log
    schedule = await log.schedule("default", "weekly")
    tick = await log.now() // 60_000 * 60_000
    await log.set_schedule(schedule.id, tick, (await log.schedule_acts(schedule.id, 1))[0])
    await log.declare([(await gateway.app[ENGINES].get("fpl")).row])
    await Ticker(log, log, gateway.driver.committer).tick()
    [job] = (await gateway.get("/api/v1/jobs")).json["jobs"]
    assert job["schedule"] == "weekly"
    assert (await gateway.get(f"{PATH}/weekly")).json["last_job_id"] == job["id"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"cron": "daily"}, "cron"),
        ({"cron": "0 0 31 2 *"}, "cron"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"catch_up": "some"}, "catch_up"),
        ({"catch_up_max": 0}, "catch_up_max"),
        ({"catch_up_max": 101}, "catch_up_max"),
        ({"every": "hour"}, "every"),
        ({"job": JOB | {"not_before": "2030-01-01T00:00:00Z"}}, "job.not_before"),
        ({"job": JOB | {"params": {}}}, "job.params.team_id"),
        ({"job": JOB | {"unique_mode": "replace"}}, "job.unique_mode"),
        ({"job": JOB | {"webhook": "http://127.0.0.1/"}}, "job.webhook"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_stored(gateway: Gateway, wrong: dict[str, Any], field: str):
    refused = await gateway.post(PATH, NEW | wrong)
    assert (refused.status, [error["field"] for error in refused.json["errors"]]) == (422, [field])
    assert (await gateway.get(PATH)).json == {"schedules": []}


async def test_a_name_that_is_taken_and_an_engine_nobody_knows_are_refused(gateway: Gateway):
    await gateway.post(PATH, NEW)
    again = await gateway.post(PATH, NEW | {"cron": "0 7 * * FRI"})
    assert (again.status, again.json["errors"][0]["field"]) == (409, "name")
    unknown = await gateway.post(PATH, NEW | {"name": "other", "job": JOB | {"engine": "gone"}})
    assert unknown.status == 404
    assert [each["cron"] for each in (await gateway.get(PATH)).json["schedules"]] == ["0 6 * * FRI"]


class TestWithKeys:
    @pytest.fixture
    async def settings(self, storage: Storage) -> dict[str, Any]:
        return {"keys": keys_of(storage), "asks": True}

    async def test_a_tenant_never_learns_of_anothers_schedules(self, gateway: Gateway, storage: Storage):
        ours = await make(storage, "submit", "read", tenant="ours")
        theirs = await make(storage, "submit", "read", tenant="theirs")
        assert (await gateway.post(PATH, NEW, headers=theirs.header)).status == 201
        unknown = await gateway.get(f"{PATH}/nobody", headers=ours.header)
        for method, path in (
            ("GET", f"{PATH}/weekly"),
            ("POST", f"{PATH}/weekly/pause"),
            ("POST", f"{PATH}/weekly/resume"),
            ("DELETE", f"{PATH}/weekly"),
        ):
            answer = await gateway.call(method, path, headers=ours.header)
            assert (answer.status, answer.body) == (unknown.status, unknown.body)
        assert (await gateway.get(PATH, headers=ours.header)).json == {"schedules": []}
        assert (await gateway.post(PATH, NEW, headers=ours.header)).status == 201
        assert (await gateway.get(f"{PATH}/weekly", headers=theirs.header)).json["paused"] is False

    async def test_a_schedule_that_replaces_jobs_needs_the_scope_that_cancels_them(
        self, gateway: Gateway, storage: Storage
    ):
        key = await make(storage, "submit", tenant="ours")
        job = JOB | {"unique_key": "weekly", "unique_mode": "replace"}
        for path, body in ((PATH, NEW | {"job": job}), ("/api/v1/jobs", job)):
            refused = await gateway.post(path, body, headers=key.header)
            assert refused.status == 403
            assert 'scope="cancel"' in refused.headers["WWW-Authenticate"]
