"""The query box and what is done to all it finds (docs/protocol.md §2): counted first, never more than was counted."""

import asyncio
import base64
import json
from typing import Any

import pytest

from events.catalog import Cancel
from events.committer import new_command_id
from events.log import JobQuery
from gateway.search import Search, search_of
from tests.gateway.driving import Driver, Gateway
from tests.gateway.test_bad_input import assert_problem

NOW = 1_800_000_000_000
BULK = "/api/v1/bulk"
JOB = "01a20ca3-8f44-71e6-954e-9ff94174bd64"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", Search()),
        (
            "status:failed engine:fpl tag:weekly created_after:1h",
            Search(("failed",), "fpl", ("weekly",), NOW - 3_600_000),
        ),
        ("  status:queued,running   status:failed ", Search(("queued", "running", "failed"))),
        ('tag:"two words" tag:b tag:b', Search(tags=("two words", "b"))),
        ("tag:a:b", Search(tags=("a:b",))),
        ("created_after:2027-01-01T00:00:00Z", Search(created_after=1_798_761_600_000)),
        ("created_after:2w", Search(created_after=NOW - 2 * 604_800_000)),
        ("created_after:999999w", Search(created_after=0)),
        (f"rerun_of:{JOB.upper()}", Search(rerun_of=JOB)),
    ],
)
def test_a_query_is_read_as_it_says(text: str, expected: Search):
    assert search_of(text, NOW) == expected


@pytest.mark.parametrize(
    "q, said",
    [
        ("failed", "'failed' is no term"),
        ("status:done", "'done' is none of"),
        ("statuz:failed", "there is no 'statuz'"),
        ("engine:a engine:b", "engine is given twice"),
        ("rerun_of:7", "'7' is no job's id"),
        ("created_after:yesterday", "'yesterday' is no RFC 3339 time"),
        ("created_after:0h", "'0h' is no"),
        ("tag:", "'tag:' is no term"),
        ('tag:"open', None),
        ("status:failed status", "'status' is no term"),
        (" ".join(f"tag:{n}" for n in range(6)), "over 5 tags"),
        ("tag:" + "x" * 1000, "over 1000 characters"),
    ],
)
async def test_a_wrong_query_says_which_term(gateway: Gateway, q: str, said: str | None):
    answer = await gateway.get("/api/v1/jobs", params={"q": q})
    if said is None:
        assert answer.status == 200  # a quote that is never closed is part of the tag
        return
    assert_problem(answer, 400, "q")
    assert said in answer.json["detail"]


async def test_the_query_box_lists_what_the_single_parameters_do(gateway: Gateway, driver: Driver):
    for tags in (("weekly",), ("weekly", "two words"), ()):
        await driver.submit(tags=tags)
    await driver.submit("countdown", tags=("weekly",))

    async def listed(**query: str) -> list[str]:
        return [job["id"] for job in (await gateway.get("/api/v1/jobs", params=query)).json["jobs"]]

    assert len(found := await listed(q="engine:fpl tag:weekly status:queued created_after:1h")) == 2
    assert found == await listed(engine="fpl", tag="weekly", status="queued", created_after="1h")
    assert len(await listed(q='tag:weekly tag:"two words"')) == 1
    assert len(await listed(q="")) == 4
    assert_problem(await gateway.get("/api/v1/jobs?q=status:failed&tag=x"), 400, "q")


async def confirmed(gateway: Gateway, **body: Any) -> tuple[int, list[str], list[dict[str, Any]]]:
    """Counts, confirms, and goes on to the end: the count, what was done, what was refused."""
    counted = (await gateway.post(BULK, body)).json
    done: list[str] = []
    refused: list[dict[str, Any]] = []
    token = counted["confirm"]
    while token:
        answer = await gateway.post(BULK, body | {"confirm": token})
        assert answer.status == 200, answer.body
        done += answer.json["jobs"]
        refused += answer.json["refused"]
        token = answer.json["next"]
    return counted["count"], done, refused


async def statuses(gateway: Gateway) -> dict[str, str]:
    page = await gateway.storage.log.jobs(JobQuery("default", limit=200))
    return {row.job.id: row.job.status for row in page.rows}


async def apart(driver: Driver, **fields: Any) -> str:
    """A job before and after which a millisecond passes: within one, ids are in any order."""
    await passed(driver, driver.committer.new_job_id())
    job_id = await driver.submit(**fields)
    await passed(driver, job_id)
    return job_id


async def passed(driver: Driver, job_id: str) -> None:
    async with asyncio.timeout(10):
        while driver.committer.new_job_id()[:13] <= job_id[:13]:  # noqa: ASYNC110 a clock tells nobody
            await asyncio.sleep(0.001)


async def test_counting_changes_nothing_and_the_confirm_does_what_was_counted(gateway: Gateway, driver: Driver):
    jobs = [await driver.submit(tags=("weekly",)) for _ in range(7)]
    other = await apart(driver)
    body = {"action": "cancel", "q": "tag:weekly", "reason": "no more", "limit": 3}
    counted = (await gateway.post(BULK, body)).json
    assert (counted["count"], set((await statuses(gateway)).values())) == (7, {"queued"})
    late = await apart(driver, tags=("weekly",))
    count, done, refused = await confirmed(gateway, **body)
    assert (count, len(done), refused) == (8, 8, [])
    assert await statuses(gateway) == dict.fromkeys([*jobs, late], "cancelled") | {other: "queued"}


async def test_a_job_made_after_the_count_is_left_alone(gateway: Gateway, driver: Driver):
    first = await apart(driver, tags=("weekly",))
    body = {"action": "cancel", "q": "tag:weekly"}
    counted = (await gateway.post(BULK, body)).json
    late = await apart(driver, tags=("weekly",))
    answer = (await gateway.post(BULK, body | {"confirm": counted["confirm"]})).json
    assert (answer["jobs"], answer["next"]) == ([first], None)
    assert (await statuses(gateway))[late] == "queued"
    again = (await gateway.post(BULK, body | {"confirm": counted["confirm"]})).json
    assert (again["jobs"], again["refused"]) == ([], [])  # it no longer stands where a cancel would do something


async def test_retry_takes_what_failed_or_was_cancelled_only(gateway: Gateway, driver: Driver):
    queued, cancelled = await driver.submit(tags=("a",)), await driver.submit(tags=("a",))
    await driver.run(cancelled, Cancel(command_id=new_command_id(), actor="user:a"))
    assert await confirmed(gateway, action="retry", q="tag:a") == (1, [cancelled], [])
    assert set((await statuses(gateway)).values()) == {"queued"}
    assert (await gateway.post(BULK, {"action": "retry", "q": "status:queued"})).json["count"] == 0
    assert queued in await statuses(gateway)


async def test_a_repeated_rerun_makes_no_job_twice(gateway: Gateway, driver: Driver):
    attempt = await driver.started(tags=("a",))
    await attempt.finish({})
    body = {"action": "rerun", "q": "tag:a status:completed"}
    token = (await gateway.post(BULK, body)).json["confirm"]
    made = [(await gateway.post(BULK, body | {"confirm": token})).json["jobs"] for _ in range(3)]
    assert made[0] == made[1] == made[2]
    assert (await gateway.get(f"/api/v1/jobs/{made[0][0]}")).json["rerun_of"] == attempt.job_id
    assert len(await statuses(gateway)) == 2


async def test_what_cannot_be_done_is_said_job_by_job(gateway: Gateway, driver: Driver):
    job_id = await driver.submit(tags=("a",))
    count, done, refused = await confirmed(gateway, action="rerun", q="tag:a", from_phase="nowhere")
    assert (count, done, [(each["job_id"], "nowhere" in each["detail"]) for each in refused]) == (
        1,
        [],
        [(job_id, True)],
    )


@pytest.mark.parametrize(
    "change, field",
    [
        ({"q": "  "}, "q"),
        ({"q": "failed"}, "q"),
        ({"action": "delete"}, "action"),
        ({"limit": 0}, "limit"),
        ({"confirm": "x"}, "confirm"),
        ({"confirm": "e30"}, "confirm"),
        ({"sure": True}, "sure"),
        ({"q": "tag:b", "confirm": True}, "confirm"),
        *(
            ({"confirm": forged}, "confirm")
            for forged in (
                {"at": "soon"},
                {"at": 1.5},
                {"at": 10**30},
                {"created_after": "x"},
                {"created_after": 2**63},
                {"up_to": "x"},
                {"before": 7},
                {"nonce": "\ud800"},
                {"count": None},
                {"more": 1},
            )
        ),
    ],
)
async def test_a_wrong_request_is_422_and_changes_nothing(
    gateway: Gateway, driver: Driver, change: dict[str, Any], field: str
):
    await driver.submit(tags=("a",))
    body = {"action": "cancel", "q": "tag:a"}
    if change.get("confirm") is True:  # a real one, for another query
        change = change | {"confirm": (await gateway.post(BULK, body)).json["confirm"]}
    elif isinstance(change.get("confirm"), dict):  # a real one, changed
        token = (await gateway.post(BULK, body)).json["confirm"]
        parts = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        forged = json.dumps(parts | change["confirm"]).encode()
        change = {"confirm": base64.urlsafe_b64encode(forged).decode().rstrip("=")}
    assert_problem(await gateway.post(BULK, body | change), 422, field)
    assert set((await statuses(gateway)).values()) == {"queued"}


async def test_an_outage_is_503_and_the_call_can_be_repeated(gateway: Gateway, driver: Driver):
    await driver.submit(tags=("a",))
    body = {"action": "cancel", "q": "tag:a"}
    token = (await gateway.post(BULK, body)).json["confirm"]
    gateway.storage.interrupt(True)
    assert_problem(await gateway.post(BULK, body | {"confirm": token}), 503)
    gateway.storage.interrupt(False)
    assert len((await gateway.post(BULK, body | {"confirm": token})).json["jobs"]) == 1
