"""The audit over HTTP: acts, the check of what is the tenant's, and its export (docs/protocol.md §2)."""

import hashlib
import json
from contextlib import ExitStack
from typing import Any

import aiohttp
import jsonschema
import pytest
from sqlalchemy import text

from events.acts import By
from events.audit import verify
from events.keys import draw
from events.seal import first_head, head_after
from events.sealer import Sealer
from gateway import audit, turns
from gateway.openapi import Description
from tests.gateway.driving import Answer, Driver, Gateway, Storage, eventually
from tests.gateway.test_full import finished

PATH = "/api/v1/audit"
ADA = By("user:ada", "203.0.113.9", "a new colleague")


@pytest.fixture
async def settings(storage: Storage) -> dict[str, Any]:
    return {"audit": storage.log, "holds": storage.log}


@pytest.fixture
def log(storage: Storage) -> Any:
    return storage.log


async def a_key(log: Any, tenant: str = "default") -> str:
    key, _ = draw(tenant, "CI", ["read"], now_ms=await log.now())
    await log.add_key(key, ADA)
    return key.id


async def sealed(log: Any) -> None:
    """Once nothing holds the feed back, all is."""
    while (await Sealer(log, log, "test").seal()) or (await verify(log)).unsealed:
        pass


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200
    return [json.loads(line) for line in answer.body.splitlines()]


async def checked(gateway: Gateway) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The findings of a whole check, and its last `done`."""
    findings, cursor = [], ""
    while True:
        *said, done = lines_of(await gateway.get(f"{PATH}/check{cursor}"))
        findings += [line for line in said if line["type"] == "finding"]
        assert done["type"] == "done"
        if done["complete"]:
            return findings, done
        cursor = f"?cursor={done['next_cursor']}"


async def tampered(log: Any, *statements: str, **values: Any) -> None:
    """As the owner of the database."""
    async with log._writing(5.0) as connection:
        if log.name == "postgresql":
            await connection.execute(text("SET LOCAL session_replication_role = 'replica'"))
        else:
            found = await connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
            for (name,) in found.all():
                await connection.execute(text(f"DROP TRIGGER {name}"))
        for statement in statements:
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            assert (await connection.execute(text(statement), used)).rowcount, statement


async def test_acts_are_shown_newest_first_by_pages(gateway: Gateway, log: Any):
    keys = [await a_key(log) for _ in range(3)]
    await a_key(log, "other")
    first = (await gateway.get(f"{PATH}?limit=2")).json
    rest = (await gateway.get(f"{PATH}?limit=2&cursor={first['next_cursor']}")).json
    assert [act["target"] for act in (*first["events"], *rest["events"])] == keys[::-1]
    assert rest["next_cursor"] is None
    assert (first["events"][0]["actor"], first["events"][0]["reason"]) == ("user:ada", "a new colleague")
    schemas = Description("1").document()["components"]
    jsonschema.Draft202012Validator({"$ref": "#/components/schemas/ActPage", "components": schemas}).validate(first)


@pytest.mark.parametrize(
    "query",
    [
        "?cursor=x",
        "?cursor=",
        "?limit=0",
        "?nonsense=1",
        "/check?cursor=seal.",
        "/check?cursor=job.x",
        "/export?limit=1",
    ],
)
async def test_bad_input_is_400_naming_it(gateway: Gateway, query: str):
    refused = await gateway.get(PATH + query)
    assert refused.status == 400
    assert refused.json["errors"][0]["field"] in query


async def test_a_check_of_an_untouched_log_finds_nothing_whatever_its_pieces(
    gateway: Gateway, driver: Driver, log: Any, monkeypatch: pytest.MonkeyPatch
):
    for _ in range(2):
        await a_key(log)
        await finished(driver)
        await sealed(log)
    monkeypatch.setattr(audit, "IDS_PAGE", 1)
    findings, done = await checked(gateway)
    assert findings == []
    assert (done["acts"], done["jobs"], done["events"], done["unsealed"]) == (2, 2, 16, 0)
    assert done["seals"] >= 2
    monkeypatch.setattr(audit, "EVENTS_MAX", 0)  # one seal, act or job each time
    findings, done = await checked(gateway)
    assert findings == []


async def test_the_first_wrong_event_is_named_of_jobs_and_of_acts(gateway: Gateway, driver: Driver, log: Any):
    await a_key(log)
    job_id = await finished(driver)
    await sealed(log)
    [act] = await log.acts("default", None, 9)
    await tampered(log, "UPDATE events SET at = at - 1 WHERE job_id = :job AND seq >= 3", job=job_id)
    await tampered(log, "UPDATE events SET actor = 'user:eve' WHERE job_id = :act", act=act.job_id)
    findings, done = await checked(gateway)
    first: dict[str, tuple[str, int]] = {}
    for finding in findings:
        first.setdefault(finding["job_id"], (finding["what"], finding["seq"]))
    assert first == {act.job_id: ("changed", 1), job_id: ("changed", 3)}
    assert done["findings"] == len(findings) == 6


async def test_what_could_not_be_read_is_counted(gateway: Gateway, driver: Driver, log: Any):
    job_id = await finished(driver)
    await sealed(log)
    assert (await checked(gateway))[1]["unread"] == 0
    columns = "job_id, tenant, engine, status, last_seq, finished_at, at, place, start, length"
    await tampered(
        log,
        f"INSERT INTO archived ({columns}) SELECT id, tenant, engine, status, last_seq, finished_at, finished_at, "
        "'somewhere', 0, 9 FROM jobs WHERE id = :job",
        "DELETE FROM jobs WHERE id = :job",
        "DELETE FROM events WHERE job_id = :job",
        job=job_id,
    )
    findings, done = await checked(gateway)
    assert (findings, done["unread"], done["jobs"]) == ([], 1, 1)


async def test_of_a_foreign_job_only_the_seal_is_named(gateway: Gateway, driver: Driver, log: Any):
    mine = await finished(driver)
    await a_key(log, "other")
    await sealed(log)
    [foreign] = await log.acts("other", None, 9)
    for stream_id in (mine, foreign.job_id):
        await tampered(log, "DELETE FROM sealed WHERE job_id = :id", id=stream_id)
    await tampered(log, "UPDATE events SET actor = 'user:eve' WHERE job_id = :id", id=foreign.job_id)
    findings, _ = await checked(gateway)
    assert foreign.job_id not in json.dumps(findings)
    assert {finding["job_id"] for finding in findings} == {mine, None}
    [gone] = [finding for finding in findings if finding["job_id"] is None]
    assert gone["what"] == "seal"
    assert gone["seal"] >= 1


def nobody_is_cut() -> None:
    raise AssertionError


async def test_one_check_or_export_of_a_tenant_at_a_time_and_few_of_all(gateway: Gateway):
    take = gateway.app[audit.TURNS].take
    for tenants in (["default"], ["a", "b"]):
        with ExitStack() as stack:
            assert all(stack.enter_context(take(tenant, nobody_is_cut)) for tenant in tenants)
            for path in ("check", "export"):
                busy = await gateway.get(f"{PATH}/{path}")
                assert (busy.status, busy.headers["Retry-After"]) == (503, "5")
    with take("other", nobody_is_cut):
        assert lines_of(await gateway.get(f"{PATH}/check"))[-1]["complete"]


async def test_a_slow_reader_keeps_its_turn_until_another_tenant_wants_it(
    gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(turns, "AT_ONCE", 1)
    for _ in range(16):
        await driver.submit(params={"text": "x" * 1_000_000})
    ours = gateway.app[audit.TURNS]
    url, plain = gateway.server.make_url(f"{PATH}/export"), {"Accept-Encoding": "identity"}
    async with gateway.session.get(url, headers=plain) as slow:  # and nothing is read
        await eventually(lambda: ours._taken["default"].waited_s() > 0.5)
        with ours.take("other", nobody_is_cut) as turn:
            assert turn is None
        monkeypatch.setattr(turns, "PATIENCE_S", 0.0)
        with ours.take("default", nobody_is_cut) as turn:
            assert turn is None
        with ours.take("other", nobody_is_cut) as turn:
            assert turn is not None
            with pytest.raises(aiohttp.ClientError):
                await slow.read()
        assert lines_of(await gateway.get(f"{PATH}/export"))[-1]["kind"] == "end"


async def test_an_export_holds_what_proves_each_event(gateway: Gateway, driver: Driver, log: Any):
    await a_key(log)
    await a_key(log, "other")
    job_id = await finished(driver)
    await sealed(log)
    exported = await gateway.get(f"{PATH}/export")
    assert "attachment" in exported.headers["Content-Disposition"]
    *rows, end = lines_of(exported)
    events = [row for row in rows if row["kind"] == "event"]
    [act] = await log.acts("default", None, 9)
    assert {row["job_id"] for row in rows} == {job_id, act.job_id}
    assert (end["kind"], end["events"], end["sealed"]) == ("end", len(events), len(rows) - len(events))
    for stream_id in (job_id, act.job_id):
        own = [row for row in events if row["job_id"] == stream_id]
        assert [row["digest"] for row in own] == [hashlib.sha256(row["data"].encode()).hexdigest() for row in own]
        leaves = b"".join(bytes.fromhex(row["leaf"]) for row in own)
        head = [row["head"] for row in rows if row["kind"] == "sealed" and row["job_id"] == stream_id][-1]
        assert head_after(first_head(stream_id), leaves).hex() == head
