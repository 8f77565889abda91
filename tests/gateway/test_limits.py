"""One client cannot keep the others out: each limit says 429 or 4429 and when to come back, and holds that client only."""

import asyncio
import ipaddress
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from events.catalog import Cancel
from events.committer import new_command_id
from events.log import JobQuery
from events.telemetry import Telemetry
from gateway import bodies, limits, sockets
from gateway.limits import LIMITER, Limits
from gateway.sockets import SOCKETS
from tests.gateway.driving import Driver, Gateway, Storage, eventually
from tests.gateway.keyring import Credential, keys_of, make
from tests.gateway.listening import listening
from tests.gateway.test_caps import UPGRADE, upgrade_and_stay

BULK = "/api/v1/bulk"
JOB = {"engine": "fpl", "params": {"team_id": 7}}
A, B = {"X-Forwarded-For": "198.51.100.1"}, {"X-Forwarded-For": "198.51.100.2"}
STREAM = {"Accept": "text/event-stream"}
UNKNOWN = "01a20cae-f0fd-7c5c-90af-8d1914daffc9"
WINDOW_S = 1000.0  # a machine that stalls gives no client its rate back within a test
BURST = 5  # at 0.005 a second


@pytest.fixture
async def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def settings(
    telemetry: Telemetry, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The limits a test names, behind a proxy on this machine."""
    monkeypatch.setattr(limits, "WINDOW_S", WINDOW_S)
    wanted = request.node.get_closest_marker("limits").kwargs
    local = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8"))
    return {"telemetry": telemetry, "limits": Limits(**wanted), "trusted_proxies": local}


@pytest.mark.limits(submits_per_s=0.005)
async def test_who_submits_too_fast_is_told_when_to_come_back_and_others_are_served(
    gateway: Gateway, telemetry: Telemetry
):
    answers = [await gateway.post("/api/v1/jobs", JOB, headers=A) for _ in range(BURST + 1)]
    assert [answer.status for answer in answers] == [202] * BURST + [429]
    assert int(answers[-1].headers["Retry-After"]) == 200
    assert answers[-1].json["type"] == "urn:phaseline:problem:too_many"
    assert (await gateway.post("/api/v1/jobs", JOB, headers=B)).status == 202
    # What a client claims of itself stands further left, and counts for nothing.
    forged = {"X-Forwarded-For": "203.0.113.9, 198.51.100.1, 10.1.2.3"}
    assert (await gateway.post("/api/v1/jobs", JOB, headers=forged)).status == 429
    assert len((await gateway.get("/api/v1/jobs")).json["jobs"]) == BURST + 1
    assert telemetry.value("phaseline_limited_total", limit="submits") == 2


@pytest.mark.limits(submits_per_s=0.005)
async def test_a_job_that_was_made_already_is_answered_whatever_the_limit(gateway: Gateway):
    keyed = A | {"Idempotency-Key": "once"}
    first = await gateway.post("/api/v1/jobs", JOB, headers=keyed)
    assert [(await gateway.post("/api/v1/jobs", JOB, headers=A)).status for _ in range(BURST)][-1] == 429
    again = await gateway.post("/api/v1/jobs", JOB, headers=keyed)
    assert (again.status, again.json["id"]) == (202, first.json["id"])


@pytest.mark.limits(submits_per_s=0.005, upgrades_per_s=0.005, connections_per_address=1)
async def test_who_comes_from_this_machine_is_not_limited(gateway: Gateway, driver: Driver):
    assert {(await gateway.post("/api/v1/jobs", JOB)).status for _ in range(2 * BURST)} == {202}
    job_id = await driver.submit()
    async with AsyncExitStack() as stack:
        for _ in range(2 * BURST):
            stream = await stack.enter_async_context(gateway.stream(f"/api/v1/jobs/{job_id}/stream"))
            await stream.until("caught_up")


@pytest.mark.limits(reads_per_s=0.005)
async def test_who_reads_too_fast_is_told_when_to_come_back_and_others_are_served(
    gateway: Gateway, driver: Driver, telemetry: Telemetry
):
    job = f"/api/v1/jobs/{await driver.submit()}"
    paths = (job, f"{job}/events", "/api/v1/jobs", "/api/v1/stats", "/api/v1/engines")
    assert [(await gateway.get(path, headers=A)).status for path in paths] == [200] * BURST
    for path in (*paths, f"{job}/events?limit=nonsense", "/api/v1/jobs/unknown"):  # before anything is looked up
        refused = await gateway.get(path, headers=A)
        assert (refused.status, refused.json["limit"], refused.headers["Retry-After"]) == (429, "reads", "200")
        assert refused.json["type"] == "urn:phaseline:problem:too_many"
    assert telemetry.value("phaseline_limited_total", limit="reads") == len(paths) + 2
    # Nobody else is held for it, nor what is no such read.
    assert (await gateway.get(job, headers=B)).status == 200
    assert {(await gateway.get(job)).status for _ in range(2 * BURST)} == {200}
    for path in ("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/api/v1/session"):
        assert (await gateway.get(path, headers=A)).status == 200, path
    assert (await gateway.post("/api/v1/jobs", JOB, headers=A)).status == 202
    async with gateway.stream(f"{job}/stream", headers=A) as stream:
        await stream.until("caught_up")
    for path in (f"{job}/events", "/api/v1/events"):
        async with listening(gateway, path, headers=A | STREAM) as listener:
            await listener.until("caught_up")
    # What somebody says it accepts makes no other read a stream.
    assert (await gateway.get("/api/v1/jobs", headers=A | STREAM)).status == 429


class TestWithKeys:
    @pytest.fixture
    async def settings(self, settings: dict[str, Any], storage: Storage) -> dict[str, Any]:
        return settings | {"keys": keys_of(storage), "asks": True}

    @pytest.mark.limits(reads_per_s=0.005)
    async def test_a_key_reads_so_fast_wherever_it_comes_from(self, gateway: Gateway, storage: Storage):
        one, other = await make(storage, "read"), await make(storage, "read")
        from_somewhere = [one.header, one.header | A, one.header | B] * BURST
        statuses = [(await gateway.get("/api/v1/jobs", headers=headers)).status for headers in from_somewhere]
        assert statuses == [200] * BURST + [429] * (2 * BURST)
        assert (await gateway.get("/api/v1/jobs", headers=other.header)).status == 200

    @pytest.mark.limits
    async def test_of_what_waits_to_be_written_a_tenant_has_its_part_and_others_theirs(
        self, gateway: Gateway, driver: Driver, storage: Storage, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
    ):
        one, two = await make(storage, "submit", "cancel"), await make(storage, "submit", tenant="other")
        monkeypatch.setattr(limits, "WAITING_COMMANDS_MAX", 3)
        limiter = gateway.app[LIMITER]
        await driver.submit()
        confirmed = await counted(gateway, {"action": "cancel", "q": "engine:fpl"}, one)

        async def submitted(key: Credential) -> int:
            return (await gateway.post("/api/v1/jobs", JOB, headers=key.header)).status

        storage.interrupt(True)
        async with asyncio.TaskGroup() as tasks:
            taken = [tasks.create_task(submitted(one)) for _ in range(3)]
            await eventually(lambda: limiter.waiting_commands == {"default": 3})
            assert limiter.waiting_bytes == {"default": 3 * len(json.dumps(JOB))}
            for path, body in (("jobs", JOB), (f"jobs/{UNKNOWN}/cancel", {}), (f"jobs/{UNKNOWN}/retry", {})):
                refused = await gateway.post(f"/api/v1/{path}", body, headers=one.header)
                assert (refused.status, refused.json["limit"], refused.headers["Retry-After"]) == (429, "waiting", "1")
            taken.append(tasks.create_task(submitted(two)))
            await eventually(lambda: limiter.waiting_commands == {"default": 3, "other": 1})
            storage.interrupt(False)
        assert [task.result() for task in taken] == [202] * 4
        assert (limiter.waiting_commands, limiter.waiting_bytes) == ({}, {})
        with limiter.waiting(make_mocked_request("POST", "/"), "default", 3):
            refused = await gateway.post(BULK, confirmed, headers=one.header)
            assert (refused.status, refused.json["limit"]) == (429, "waiting")
        assert (await gateway.post(BULK, confirmed, headers=one.header)).status == 200
        monkeypatch.setattr(limits, "WAITING_BYTES_MAX", 100)
        refused = await gateway.post("/api/v1/jobs", JOB | {"tags": ["x" * 60]}, headers=one.header)
        assert (refused.status, refused.json["limit"]) == (429, "waiting")
        assert telemetry.value("phaseline_limited_total", limit="waiting") == 5


@pytest.mark.limits(submits_per_s=0.005)
async def test_all_of_an_ipv6_network_of_64_bits_is_one_client(gateway: Gateway):
    def of(host: str) -> dict[str, str]:
        return {"X-Forwarded-For": host}

    statuses = [
        (await gateway.post("/api/v1/jobs", JOB, headers=of(f"2001:db8:1:1::{n:x}"))).status for n in range(BURST + 1)
    ]
    assert statuses == [202] * BURST + [429]
    assert (await gateway.post("/api/v1/jobs", JOB, headers=of("2001:db8:1:2::1"))).status == 202
    assert [
        (await gateway.post("/api/v1/jobs", JOB, headers=of(host))).status
        for host in ["::ffff:198.51.100.7"] * BURST + ["198.51.100.7"]
    ] == [202] * BURST + [429]


@pytest.mark.limits(body_bytes_per_s=1)
async def test_who_sends_too_many_bytes_is_told_when_to_come_back(gateway: Gateway, telemetry: Telemetry):
    large = JOB | {"tags": ["x" * 64] * 9}
    assert (await gateway.post("/api/v1/jobs", large, headers=A)).status == 202
    refused = await gateway.post("/api/v1/jobs", large, headers=A)
    assert (refused.status, 1 <= int(refused.headers["Retry-After"]) <= 1000) == (429, True)
    assert (await gateway.post("/api/v1/jobs", large, headers=B)).status == 202
    assert telemetry.value("phaseline_limited_total", limit="body_bytes") == 1


@pytest.mark.limits(upgrades_per_s=0.005)
async def test_who_opens_streams_too_fast_is_told_when_to_come_back_in_words_a_browser_hears(
    gateway: Gateway, driver: Driver, telemetry: Telemetry
):
    url = f"/api/v1/jobs/{await driver.submit()}/stream"
    for _ in range(BURST):
        async with gateway.stream(url, headers=A) as stream:
            await stream.until("caught_up")
    async with gateway.stream(url, headers=A) as refused:
        message = await refused.socket.receive(timeout=5)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4429)
    assert 202 <= int(str(message.extra).removeprefix("retry_after=")) <= 210  # not all at once
    async with gateway.stream(url, headers=B) as stream:
        await stream.until("caught_up")
    assert telemetry.value("phaseline_limited_total", limit="upgrades") == 1


@pytest.mark.limits(upgrades_per_s=0.005)
async def test_many_who_open_streams_too_fast_are_told_so_before_the_upgrade(
    gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sockets, "REFUSALS_MAX", 1)
    url = f"/api/v1/jobs/{await driver.submit()}/stream"
    for _ in range(BURST):
        async with gateway.stream(url, headers=A) as stream:
            await stream.until("caught_up")
    async with asyncio.TaskGroup() as tasks:
        deaf = tasks.create_task(upgrade_and_stay(gateway, url, UPGRADE | A))
        await eventually(lambda: gateway.app[SOCKETS].turned_away == 1)
        answer = await gateway.get(url, headers=UPGRADE | A)
        assert (answer.status, int(answer.headers["Retry-After"])) == (429, 200)
        deaf.cancel()
    await eventually(lambda: gateway.app[SOCKETS].turned_away == 0)


@pytest.mark.limits(upgrades_per_s=0.005)
async def test_a_browser_that_comes_back_too_fast_is_told_to_come_later_instead_of_429(
    gateway: Gateway, driver: Driver, telemetry: Telemetry
):
    """After a 429 an EventSource never tries again, and its page shows nothing new for ever."""
    paths = (f"/api/v1/jobs/{await driver.submit()}/events", "/api/v1/events")
    ids = []
    for path in paths:
        async with listening(gateway, path, headers=STREAM) as listener:
            await listener.events(1)
            ids.append(listener.last_event_id)
    for _ in range(BURST):
        async with listening(gateway, paths[0], headers=A | STREAM) as listener:
            await listener.until("caught_up")
    for path, last in zip(paths, ids, strict=True):
        assert (await gateway.get(path, headers=A | STREAM)).status == 429
        async with listening(gateway, path, last, headers=A | STREAM) as listener:
            (goodbye,) = await listener.rest()
        assert (goodbye["type"], goodbye["reason"]) == ("goodbye", "too_many")
        assert listener.retries == [goodbye["reconnect_after_ms"]]
        assert goodbye["reconnect_after_ms"] > 200_000
    assert telemetry.value("phaseline_limited_total", limit="upgrades") == 4


@pytest.mark.limits(connections_per_address=2)
async def test_one_address_has_so_many_streams_and_another_fits_once_one_left(
    gateway: Gateway, driver: Driver, telemetry: Telemetry
):
    job_id = await driver.submit()
    url = f"/api/v1/jobs/{job_id}/stream"
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await (await stack.enter_async_context(gateway.stream(url, headers=A))).until("caught_up")
        async with gateway.stream(url, headers=A) as refused:
            message = await refused.socket.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4429)
        assert str(message.extra).startswith("retry_after=")
        events = await gateway.get(f"/api/v1/jobs/{job_id}/events", headers=A | {"Accept": "text/event-stream"})
        assert (events.status, "Retry-After" in events.headers) == (429, True)
        for path in (
            f"/api/v1/jobs/{job_id}/events",
            "/api/v1/events",
        ):  # whoever reads them slowly holds them for long
            lines = await gateway.get(path, headers=A | {"Accept": "application/x-ndjson"})
            assert (lines.status, lines.json["limit"]) == (429, "connections")
            assert (await gateway.get(path, headers=B | {"Accept": "application/x-ndjson"})).status == 200
        async with gateway.stream(url, headers=B) as stream:
            await stream.until("caught_up")
    await eventually(lambda: not gateway.app[LIMITER]._open)
    async with gateway.stream(url, headers=A) as stream:
        await stream.until("caught_up")
    assert telemetry.value("phaseline_limited_total", limit="connections") == 4


@pytest.mark.limits(connections_per_address=2)
async def test_one_address_follows_so_many_jobs_however_few_sockets_it_needs(
    gateway: Gateway, driver: Driver, telemetry: Telemetry
):
    jobs = [await driver.submit() for _ in range(5)]
    async with gateway.stream("/api/v1/stream", headers=A) as one, gateway.stream("/api/v1/stream", headers=A) as two:
        for stream, job_id in ((one, jobs[0]), (one, jobs[1]), (two, jobs[2]), (two, jobs[3])):
            await stream.socket.send_json({"op": "subscribe", "job_id": job_id})
            await stream.until("caught_up")
        await two.socket.send_json({"op": "subscribe", "job_id": jobs[4]})
        refused = await two.frame()
        assert (refused["type"], refused["code"], refused["job_id"]) == (
            "command_error",
            "too_many_subscriptions",
            jobs[4],
        )
        async with gateway.stream("/api/v1/stream", headers=B) as other:
            await other.socket.send_json({"op": "subscribe", "job_id": jobs[4]})
            await other.until("caught_up")
        await one.socket.send_json({"op": "unsubscribe", "job_id": jobs[0]})
        await eventually(lambda: gateway.app[SOCKETS].subscriptions == 3)
        await two.socket.send_json({"op": "subscribe", "job_id": jobs[4]})
        await two.until("caught_up")
    await eventually(lambda: not gateway.app[LIMITER]._followed)
    assert telemetry.value("phaseline_limited_total", limit="connections") == 1


@pytest.mark.limits(queued_jobs_max=3)
async def test_a_queue_that_is_full_takes_no_more_until_a_worker_takes_some(
    gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    statuses = [(await gateway.post("/api/v1/jobs", JOB)).status for _ in range(4)]
    assert statuses == [202] * 3 + [429]
    monkeypatch.setattr(limits, "COUNTED_S", 0.0)
    refused = await gateway.post("/api/v1/jobs", JOB)
    assert (refused.status, int(refused.headers["Retry-After"])) == (429, 5)
    assert refused.json["limit"] == "queued_jobs"
    await driver.claim()
    assert (await gateway.post("/api/v1/jobs", JOB)).status == 202


@pytest.mark.limits(queued_jobs_max=3)
@pytest.mark.parametrize("counted_s", [0.0, 1000.0])
async def test_of_jobs_that_come_at_once_no_more_are_taken_than_fit(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, counted_s: float
):
    monkeypatch.setattr(limits, "COUNTED_S", counted_s)
    begun, come, count = asyncio.Event(), asyncio.Event(), gateway.storage.log.count

    async def counting(query: JobQuery) -> int:
        begun.set()
        await come.wait()
        return await count(query)

    monkeypatch.setattr(gateway.storage.log, "count", counting)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(gateway.post("/api/v1/jobs", JOB)) for _ in range(12)]
        await begun.wait()
        for _ in range(100):  # by then those before are there, or come later: either way no more are taken
            await gateway.get("/healthz")
        come.set()
    answers = [task.result() for task in asking]
    taken = [answer.status for answer in answers].count(202)
    assert 1 <= taken <= 3 if counted_s == 0 else taken == 3
    assert {answer.status for answer in answers} == {202, 429}
    assert len((await gateway.get("/api/v1/jobs")).json["jobs"]) == taken


@pytest.mark.limits(queued_jobs_max=3)
async def test_what_is_refused_for_itself_takes_no_place(gateway: Gateway):
    for _ in range(5):
        assert (await gateway.post("/api/v1/jobs", {"engine": "fpl", "params": {"team_id": 13}})).status == 422
    assert [(await gateway.post("/api/v1/jobs", JOB)).status for _ in range(4)] == [202] * 3 + [429]


async def counted(gateway: Gateway, body: dict[str, Any], key: Credential | None = None) -> dict[str, Any]:
    answer = await gateway.post(BULK, body, headers=key.header if key else {})
    return body | {"confirm": answer.json["confirm"]}


@pytest.mark.limits(submits_per_s=0.005)
async def test_a_bulk_of_reruns_ends_where_the_limit_does_and_goes_on_there(gateway: Gateway, driver: Driver):
    sources = [await driver.submit(tags=("a",)) for _ in range(BURST + 3)]
    body = await counted(gateway, {"action": "rerun", "q": "tag:a"})
    part = await gateway.post(BULK, body, headers=A)
    assert (part.status, len(part.json["jobs"]), part.json["refused"]) == (200, BURST, [])
    assert int(part.headers["Retry-After"]) == 200
    body["confirm"] = part.json["next"]
    full = await gateway.post(BULK, body, headers=A)
    assert (full.status, full.json["limit"], int(full.headers["Retry-After"])) == (429, "submits", 200)
    gateway.app[LIMITER]._submits._buckets.clear()  # as time does
    rest = await gateway.post(BULK, body, headers=A)
    assert (rest.status, rest.json["refused"], rest.json["next"]) == (200, [], None)
    made = part.json["jobs"] + rest.json["jobs"]
    jobs = [(await gateway.get(f"/api/v1/jobs/{job_id}")).json for job_id in made]
    assert sorted(job["rerun_of"] for job in jobs) == sorted(sources)


@pytest.mark.limits(queued_jobs_max=3)
async def test_jobs_tried_again_wait_with_the_others(gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "COUNTED_S", 0.0)
    sources = [await driver.submit(tags=("a",)) for _ in range(5)]
    for job_id in sources:
        await driver.run(job_id, Cancel(command_id=new_command_id(), actor="user:a"))
    body = await counted(gateway, {"action": "retry", "q": "tag:a"})
    part = await gateway.post(BULK, body)
    assert (part.status, len(part.json["jobs"]), part.json["refused"], part.headers["Retry-After"]) == (200, 3, [], "5")
    waiting, left = part.json["jobs"], sorted(set(sources) - set(part.json["jobs"]))
    body["confirm"] = part.json["next"]
    for refused in (await gateway.post(BULK, body), await gateway.post(f"/api/v1/jobs/{left[0]}/retry")):
        assert (refused.status, refused.json["limit"]) == (429, "queued_jobs")
    await driver.claim()
    assert (await gateway.post(f"/api/v1/jobs/{waiting[0]}/retry")).status == 409
    assert (await gateway.post(f"/api/v1/jobs/{left[0]}/retry")).status == 202
    await driver.claim()
    rest = await gateway.post(BULK, body)
    assert (rest.json["jobs"], rest.json["next"]) == ([left[1]], None)


@pytest.mark.limits(submits_per_s=0.005)
async def test_what_is_remembered_of_clients_is_bounded(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "CLIENTS_MAX", 3)
    for last in range(9):
        assert (await gateway.post("/api/v1/jobs", JOB, headers={"X-Forwarded-For": f"192.0.2.{last}"})).status == 202
    assert len(gateway.app[LIMITER]._submits._buckets) == 3


@pytest.mark.limits
async def test_a_body_that_does_not_arrive_in_time_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "BODY_S", 0.3)
    assert gateway.server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
    writer.write(b"POST /api/v1/jobs HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(30):
        assert (await reader.readline()).split()[1] == b"408"
    writer.transport.abort()
    assert (await gateway.get("/api/v1/jobs")).json["jobs"] == []


async def part_of_a_body(gateway: Gateway, path: str, size: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """All but the end of a body, which does not come."""
    assert gateway.server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {size + 1}\r\n\r\n".encode() + b" " * size)
    return reader, writer


@pytest.mark.limits
async def test_bodies_that_arrive_in_part_hold_so_much_of_a_tenant_and_so_much_in_all(
    gateway: Gateway, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "ARRIVING_BYTES_MAX", 100_000)
    limiter = gateway.app[LIMITER]
    _, holds = await part_of_a_body(gateway, "/api/v1/jobs", 90_000)
    await eventually(lambda: limiter.arriving_bytes == {"default": 90_000})
    large = JOB | {"tags": ["x" * 60] * 300}
    refused = await gateway.post("/api/v1/jobs", large)
    assert (refused.status, refused.json["limit"], refused.headers["Retry-After"]) == (429, "body_bytes", "1")
    assert telemetry.value("phaseline_limited_total", limit="body_bytes") == 1
    assert (await gateway.post("/api/v1/jobs", JOB)).status == 202  # there is room for that
    with limiter.arriving("other") as more:
        more(100_000)  # another tenant has its own
        monkeypatch.setattr(limits, "ALL_ARRIVING_BYTES_MAX", 190_000)
        assert (await gateway.post("/api/v1/jobs", JOB)).status == 503
    assert (await gateway.post("/api/v1/jobs", JOB)).status == 202
    holds.transport.abort()
    await eventually(lambda: limiter.arriving_bytes == {})


@pytest.mark.limits
async def test_who_is_not_known_yet_holds_little(gateway: Gateway):
    reader, writer = await part_of_a_body(gateway, "/api/v1/session", 20_000)
    async with asyncio.timeout(30):
        assert (await reader.readline()).split()[1] == b"413"
    writer.transport.abort()
    assert gateway.app[LIMITER].arriving_bytes == {}
