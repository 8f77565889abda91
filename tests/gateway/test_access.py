"""Every route and every socket, with every kind of key: nothing answers more than it should (docs/security.md).

The routes are the application's own; what each must ask for is written down here once more, so that a route nobody thought
of, or one that asks for less than before, is found.
"""

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy import event

from events.clock import Clock
from events.keys import SCOPES
from gateway import limits, websocket
from gateway.access import ACCESS
from gateway.app import make_app
from gateway.deps import DEPS
from gateway.issuer_keys import Source
from gateway.limits import Limits
from gateway.tokens import Accepted, Tokens
from tests.gateway.driving import WAIT_S, Answer, Driver, Gateway, Storage, Stream, seen
from tests.gateway.issuing import AUDIENCE, Issuer, every_kind_of_token, issuing
from tests.gateway.keyring import BAD, BY, UNKNOWN_KEY, Credential, every_kind, keys_of, make
from tests.gateway.listening import listening

UNKNOWN = "01a20cae-f0fd-7c5c-90af-8d1914daffc9"
# Beside the four scopes: "nobody" is asked, "any key" will do, a "stream" closes with a code and wants `read`.
NEEDS = {
    "nobody": "/ /jobs /jobs/{job_id} /submit /submit/{engine} /schedules /schedules/{name} /workers /live /audit /web/{name} /client/{name} /healthz /readyz "
    "/openapi.json /asyncapi.json /docs /api/v1/session",
    "any key": "/api/v1/engines",
    "read": "/api/v1/jobs /api/v1/jobs/{job_id} /api/v1/jobs/{job_id}/results /api/v1/jobs/{job_id}/artifacts/{sha256} "
    "/api/v1/jobs/{job_id}/events /api/v1/jobs/{job_id}/deliveries /api/v1/jobs/{job_id}/hold /api/v1/jobs/{job_id}/pin /api/v1/analyze/{job_id} /api/v1/events /api/v1/stats "
    "/api/v1/schedules /api/v1/schedules/{name}",
    "admin": "/api/v1/audit /api/v1/audit/check /api/v1/audit/export /api/v1/workers /api/v1/gateway /metrics",
    "stream": "/api/v1/jobs/{job_id}/stream /api/v1/analyze/{job_id}/stream /api/v1/stream",
}
POSTS = {
    "/api/v1/jobs": ("submit", {"engine": "fpl", "params": {"team_id": 7}}),
    "/api/v1/analyze": ("submit", {"team_id": 7}),
    "/api/v1/jobs/{job_id}/retry": ("submit", {}),
    "/api/v1/jobs/{job_id}/rerun": ("submit", {}),
    "/api/v1/jobs/{job_id}/cancel": ("cancel", {}),
    "/api/v1/schedules": (
        "submit",
        {"name": "nightly", "cron": "30 2 * * *", "job": {"engine": "fpl", "params": {"team_id": 7}}},
    ),
    "/api/v1/schedules/{name}/pause": ("submit", {}),
    "/api/v1/schedules/{name}/resume": ("submit", {}),
    "/api/v1/jobs/{job_id}/hold": ("admin", {"reason": "x"}),
    "/api/v1/jobs/{job_id}/pin": ("submit", {"reason": "x"}),
    "/api/v1/passes": ("read", {"feed": True}),
    "/api/v1/bulk": ("cancel", {"action": "cancel", "q": "engine:fpl"}),
}
EXPECTED = {("GET", path): need for need, paths in NEEDS.items() for path in paths.split()}
EXPECTED |= {("POST", path): need for path, (need, _) in POSTS.items()}
EXPECTED |= {("DELETE", "/api/v1/schedules/{name}"): "submit"}
EXPECTED |= {("DELETE", "/api/v1/session"): "nobody", ("POST", "/api/v1/session"): "login"}  # see TestLogin
JOBS_ROUTES = sorted({path for _, path in EXPECTED if path.startswith("/api/") and "{job_id}" in path})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as running:
        yield running


@pytest.fixture
async def settings(storage: Storage, issuer: Issuer) -> dict[str, Any]:
    tokens = Tokens(Source(issuer.url), Accepted(AUDIENCE, tenant_claim="tenant"), Clock())
    return {
        "keys": keys_of(storage),
        "tokens": tokens,
        "asks": True,
        "holds": storage.log,
        "audit": storage.log,
        "retention": storage.log,
        "webhooks": storage.log,
    }


@pytest.fixture
async def keys(storage: Storage) -> dict[str, Credential]:
    return await every_kind(storage)


@pytest.fixture(params=["keys", "tokens"])
async def credentials(request: pytest.FixtureRequest, storage: Storage, issuer: Issuer) -> dict[str, Credential]:
    """What everybody may come with: API keys, and tokens of an issuer."""
    return await every_kind(storage) if request.param == "keys" else every_kind_of_token(issuer)


def routes(gateway: Gateway) -> list[tuple[str, str]]:
    """Method and path of every route there is."""
    found = [(route.method, route.resource.canonical) for route in gateway.app.router.routes() if route.resource]
    assert len(found) > 40
    return found


def filled(path: str, job_id: str) -> str:
    return (
        path.replace("{job_id}", job_id)
        .replace("{sha256}", "0" * 64)
        .replace("{engine}", "fpl")
        .replace("{name}", "phaseline.js")
    )


async def called(gateway: Gateway, method: str, path: str, job_id: str, headers: dict[str, str]) -> Answer:
    body = POSTS[path][1] if method == "POST" else None
    return await gateway.call(method, filled(path, job_id), headers=headers, **({"json": body} if body else {}))


def test_every_route_says_what_it_needs_and_it_is_what_is_written_here(gateway: Gateway):
    found = {(method, path) for method, path in routes(gateway) if method != "HEAD"}
    assert found == EXPECTED.keys()


async def test_a_route_that_says_nothing_answers_nobody(gateway: Gateway):
    async def forgotten(_: web.Request) -> web.Response:
        return web.Response(text="secret")

    app = make_app(gateway.app[DEPS])
    app.router.add_get("/api/v1/forgotten", forgotten)
    async with aiohttp.test_utils.TestClient(aiohttp.test_utils.TestServer(app)) as client:
        answer = await client.get("/api/v1/forgotten")
        assert (answer.status, "secret" in await answer.text()) == (403, False)


async def test_every_route_with_every_kind_of_key(gateway: Gateway, driver: Driver, credentials: dict[str, Credential]):
    keys = credentials
    attempt = await driver.started()
    await attempt.finish({"gain": 4.0})
    job_id = attempt.job_id
    tried = 0
    for method, path in routes(gateway):
        need = EXPECTED["GET" if method == "HEAD" else method, path]
        if need in ("stream", "login"):
            continue
        without = await called(gateway, method, path, job_id, {})
        if need == "nobody":
            assert without.status == 200, path
            for credential in keys.values():
                again = await called(gateway, method, path, job_id, credential.header)
                assert again.status == without.status
                assert path == "/api/v1/session" or len(again.body) == len(without.body)
            continue
        assert_unauthorized(without, presented=False)
        before = await driver.log.head(job_id), await jobs_made(driver)
        refusals = {name: await called(gateway, method, path, job_id, keys[name].header) for name in BAD}
        for refusal in refusals.values():
            assert_unauthorized(refusal, presented=True)
        assert refusals["wrong secret"].body == refusals["unknown id"].body == refusals["malformed"].body
        assert_unauthorized(
            await called(gateway, method, path, job_id, {"Authorization": "Basic YTpi"}), presented=True
        )
        for scope in SCOPES:
            if need != "any key" and not keys[scope].may(need):
                answer = await called(gateway, method, path, job_id, keys[scope].header)
                assert answer.status == 403, (method, path, scope, answer.body)
                assert f'scope="{need}"' in answer.headers["WWW-Authenticate"]
                assert job_id.encode() not in answer.body
        assert (await driver.log.head(job_id), await jobs_made(driver)) == before  # what was refused changed nothing
        for scope in SCOPES:
            if need == "any key" or keys[scope].may(need):
                answer = await called(gateway, method, path, job_id, keys[scope].header)
                assert answer.status in (200, 201, 202, 404, 409), (method, path, scope, answer.body)
        tried += 1
    assert tried == len(
        [
            1
            for method, path in routes(gateway)
            if EXPECTED[("GET" if method == "HEAD" else method, path)] not in ("nobody", "stream", "login")
        ]
    )


def assert_unauthorized(answer: Answer, *, presented: bool) -> None:
    assert answer.status == 401, answer.body
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="phaseline"')
    assert ("invalid_token" in challenge) == presented


async def jobs_made(driver: Driver) -> dict[str, int]:
    return dict((await driver.log.stats("default")).by_status)


@pytest.mark.parametrize("action, scope", [("cancel", "cancel"), ("retry", "submit"), ("rerun", "submit")])
async def test_bulk_needs_the_scope_of_its_action(
    gateway: Gateway, keys: dict[str, Credential], action: str, scope: str
):
    body = {"action": action, "q": "engine:fpl"}
    for name in SCOPES:
        answer = await gateway.post("/api/v1/bulk", body, headers=keys[name].header)
        assert answer.status == (200 if keys[name].may(scope) else 403), (name, answer.body)


# ---- other tenants --------------------------------------------------------------------------------------------


@contextmanager
def statements(storage: Storage, naming: str = "") -> Iterator[list[str]]:
    """Every SQL statement while the block lasts, in order; only those with this among their parameters."""
    made: list[str] = []
    log: Any = storage.log

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if naming in str(parameters):
            made.append(statement)

    def note_whole(statement: str) -> None:
        if naming in statement:  # its parameters are written into it
            made.append(statement.replace(naming, "?") if naming else statement)

    engines = (log._reader.sync_engine, log._writer.sync_engine)
    line = log._line if log.name == "sqlite" else None
    committers = (
        [line._connection] if line is not None and line._connection is not None else []
    )  # nothing committed yet
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    for connection in committers:
        connection.set_trace_callback(note_whole)
    try:
        yield made
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)
        for connection in committers:
            connection.set_trace_callback(None)


async def told(gateway: Gateway, path: str, job_id: str, key: Credential) -> Any:
    """All a caller learns of a job: the status and the bytes, or the frames and the close code."""
    if path.endswith("/stream"):
        async with gateway.stream(filled(path, job_id), headers=key.header) as stream:
            return await stream.rest()
    answer = await called(gateway, "POST" if path in POSTS else "GET", path, job_id, key.header)
    return answer.status, answer.body


@pytest.mark.parametrize("path", JOBS_ROUTES)
@pytest.mark.parametrize("watched", [False, True])
async def test_a_foreign_job_and_an_unknown_one_are_alike_by_bytes_and_by_statements(
    gateway: Gateway, driver: Driver, keys: dict[str, Credential], path: str, watched: bool
):
    attempt = await driver.started()
    foreign, other = attempt.job_id, keys["other tenant"]
    async with AsyncExitStack() as stack:
        if watched:
            viewing = gateway.stream(f"/api/v1/jobs/{foreign}/stream", headers=keys["read"].header)
            await (await stack.enter_async_context(viewing)).until("caught_up")
        with statements(gateway.storage, foreign) as of_foreign:
            answer = await told(gateway, path, foreign, other)
        with statements(gateway.storage, UNKNOWN) as of_unknown:
            assert await told(gateway, path, UNKNOWN, other) == answer
        assert await told(gateway, path, "nonsense", other) == answer
    assert answer == ([], 4004) or answer[0] == 404
    assert of_unknown
    # The hub asks now and then for the heads of what is watched, by the same statement.
    assert (set(of_foreign) == set(of_unknown)) if watched else (of_foreign == of_unknown)


async def test_lists_counts_and_the_feed_show_a_tenants_own(
    gateway: Gateway, driver: Driver, keys: dict[str, Credential]
):
    foreign = await driver.submit(tags=("secret-tag",))
    other = keys["other tenant"].header
    mine = (await gateway.post("/api/v1/jobs", {"engine": "fpl", "params": {"team_id": 8}}, headers=other)).json["id"]
    for path in ("/api/v1/jobs", "/api/v1/events", "/api/v1/jobs?tag=secret-tag", "/api/v1/stats", "/api/v1/engines"):
        body = (await gateway.get(path, headers=other)).body.decode()
        assert foreign not in body
        assert (mine in body) == (path in ("/api/v1/jobs", "/api/v1/events"))
    ndjson = await gateway.get("/api/v1/events", headers={**other, "Accept": "application/x-ndjson"})
    rows = [json.loads(line) for line in ndjson.body.splitlines()]
    assert {row["job_id"] for row in rows if row["type"] != "administered"} == {mine}
    assert {row["target"] for row in rows if row["type"] == "administered"} == {keys["other tenant"].id}
    assert (await gateway.get("/api/v1/stats", headers=other)).json["jobs"] == {"queued": 1}


async def test_who_may_change_a_job_but_not_read_sees_nothing_of_it(gateway: Gateway, keys: dict[str, Credential]):
    """Not by a unique key that is guessed, by a rerun, a retry, a cancellation, nor by a schedule."""
    secret = {"engine": "fpl", "params": {"team_id": 4711}, "tags": ["private"], "unique_key": "customer-42"}
    schedule = {"name": "nightly", "cron": "30 2 * * *", "job": {"engine": "fpl", "params": {"team_id": 4711}}}
    owner = keys["admin"].header
    job_id = (await gateway.post("/api/v1/jobs", secret, headers=owner)).json["id"]
    assert (await gateway.post("/api/v1/schedules", schedule, headers=owner)).status == 201
    mine = {"engine": "fpl", "params": {"team_id": 7}}
    submit, path = keys["submit"].header, f"/api/v1/jobs/{job_id}"
    answers = [
        await gateway.post("/api/v1/jobs", mine | {"unique_key": "customer-42"}, headers=submit),
        await gateway.post(f"{path}/cancel", {}, headers=keys["cancel"].header),
        await gateway.post(f"{path}/retry", {}, headers=submit),
        await gateway.post(f"{path}/cancel", {}, headers=keys["cancel"].header),
        await gateway.post(f"{path}/rerun", {}, headers=submit | {"Idempotency-Key": "a"}),
        await gateway.post(f"{path}/rerun", {}, headers=submit | {"Idempotency-Key": "a"}),
        await gateway.post("/api/v1/schedules/nightly/pause", {}, headers=submit),
        await gateway.post("/api/v1/schedules/nightly/resume", {}, headers=submit),
        await gateway.call("DELETE", "/api/v1/schedules/nightly", headers=submit),
    ]
    assert [answer.status for answer in answers] == [200, 200, 202, 200, 202, 202, 200, 200, 200]
    assert [answer for answer in answers if b"4711" in answer.body or b"private" in answer.body] == []
    assert answers[0].json["id"] == job_id
    seen_whole = await gateway.post(f"{path}/cancel", {}, headers=owner)
    assert (seen_whole.json["params"], seen_whole.json["tags"]) == (
        {"team_id": 4711, "horizon": 3, "risk": None},
        ["private"],
    )
    own = await gateway.post("/api/v1/jobs", mine, headers=submit)
    assert own.json["params"]["team_id"] == 7  # what one sent oneself


async def test_what_counts_everybodys_is_told_to_operators_only(gateway: Gateway, keys: dict[str, Credential]):
    told = (await gateway.get("/api/v1/stats", headers=keys["read"].header)).json
    assert told.keys() == {"jobs", "oldest_due_ms"}
    assert told.keys() < (await gateway.get("/api/v1/stats", headers=keys["admin"].header)).json.keys()


async def test_an_idempotency_key_of_one_tenant_says_nothing_to_another(gateway: Gateway, keys: dict[str, Credential]):
    body = {"engine": "fpl", "params": {"team_id": 7}}
    made = [
        await gateway.post("/api/v1/jobs", body, headers={**keys[name].header, "Idempotency-Key": "same"})
        for name in ("submit", "other tenant")
    ]
    assert [answer.status for answer in made] == [202, 202]
    assert made[0].json["id"] != made[1].json["id"]
    assert "Idempotency-Replayed" not in made[1].headers


async def test_events_name_the_key_that_caused_them(gateway: Gateway, keys: dict[str, Credential]):
    made = await gateway.post(
        "/api/v1/jobs", {"engine": "fpl", "params": {"team_id": 7}}, headers=keys["submit"].header
    )
    job_id = made.json["id"]
    await gateway.post(f"/api/v1/jobs/{job_id}/cancel", {}, headers=keys["cancel"].header)
    page = (await gateway.get(f"/api/v1/jobs/{job_id}/events", headers=keys["read"].header)).json
    assert [e["actor"] for e in page["events"]] == [f"key:{keys['submit'].id}", f"key:{keys['cancel'].id}"]


# ---- sockets --------------------------------------------------------------------------------------------------

SOCKETS = NEEDS["stream"].split()
WAYS = ("header", "subprotocol", "first frame")


async def opened(
    gateway: Gateway, path: str, way: str, key: Credential | None
) -> tuple[list[dict[str, Any]], int | None]:
    """Presents a key in one of the ways; the first frame there is, and the code it was closed with, if it was."""
    asked: dict[str, Any] = {}
    if key is not None and way == "header":
        asked = {"headers": key.header}
    elif key is not None and way == "subprotocol":
        asked = {"protocols": [f"bearer.{key.text}"]}
    async with gateway.stream(path, **asked) as stream:
        if key is not None and way == "first frame":
            await stream.socket.send_json({"op": "auth", "token": key.text})
        if path == "/api/v1/stream":
            await stream.socket.send_json({"op": "unsubscribe", "job_id": "none"})
        return await first_frame_or_close(stream)


async def first_frame_or_close(stream: Stream) -> tuple[list[dict[str, Any]], int | None]:
    async with asyncio.timeout(WAIT_S):
        message = await stream.socket.receive()
    if message.type is aiohttp.WSMsgType.TEXT:
        return [json.loads(message.data)], None
    return [], message.data


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", SOCKETS)
async def test_every_socket_with_every_kind_of_key(
    gateway: Gateway, driver: Driver, credentials: dict[str, Credential], path: str, way: str
):
    keys = credentials
    attempt = await driver.started()
    url = filled(path, attempt.job_id)
    for name, key in keys.items():
        frames, code = await opened(gateway, url, way, key)
        if name in BAD:
            assert (frames, code) == ([], 4401), name
        elif not key.may("read"):
            assert (frames, code) == ([], 4403), name
        elif name == "other tenant" and "{job_id}" in path:
            assert (frames, code) == ([], 4004)
        else:
            assert code is None, name
            assert frames[0]["type"] in ("hello", "progress", "command_error")


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_socket_that_does_not_say_who_it_is_gets_nothing_and_is_closed(
    gateway: Gateway, driver: Driver, path: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(websocket, "AUTH_S", 0.2)
    url = filled(path, await driver.submit())
    async with gateway.stream(url) as stream:
        assert await stream.rest() == ([], 4408)
    async with gateway.stream(url) as stream:
        await stream.socket.send_json({"op": "subscribe", "feed": True})
        assert await stream.rest() == ([], 4401)


async def test_what_is_said_right_behind_the_first_frame_is_heard(
    gateway: Gateway, driver: Driver, keys: dict[str, Credential]
):
    job_id = await driver.submit()
    async with gateway.stream("/api/v1/stream") as stream:
        await stream.socket.send_json({"op": "auth", "token": keys["read"].text})
        await stream.socket.send_json({"op": "subscribe", "job_id": job_id})
        frames = await stream.until("caught_up")
    assert {frame["job_id"] for frame in frames} == {job_id}


async def test_a_subscription_to_a_foreign_job_is_one_to_an_unknown_one(
    gateway: Gateway, driver: Driver, keys: dict[str, Credential]
):
    foreign = await driver.submit()
    answers = []
    async with gateway.stream("/api/v1/stream", headers=keys["other tenant"].header) as stream:
        for job_id in (foreign, UNKNOWN):
            with statements(gateway.storage) as made:
                await stream.socket.send_json({"op": "subscribe", "job_id": job_id})
                frame = await stream.frame()
            answers.append((stream.text[-1].replace(job_id, "ID"), made, frame["code"]))
    assert answers[0] == answers[1]
    assert answers[0][2] == "unknown_job"


async def test_an_open_socket_is_closed_when_its_key_is_revoked(
    gateway: Gateway, driver: Driver, keys: dict[str, Credential]
):
    attempt = await driver.started()
    async with (
        gateway.stream(f"/api/v1/jobs/{attempt.job_id}/stream", headers=keys["read"].header) as reader,
        gateway.stream(f"/api/v1/jobs/{attempt.job_id}/stream", headers=keys["admin"].header) as other,
        gateway.stream("/api/v1/stream", headers=keys["read"].header) as many,
        listening(gateway, f"/api/v1/jobs/{attempt.job_id}/events", headers=keys["read"].header) as listener,
    ):
        for stream in (reader, other, listener):
            await stream.until("caught_up")
        await keys_of(gateway.storage).revoke_key(keys["read"].id, BY)
        await gateway.app[ACCESS].look()
        assert await reader.rest() == ([], 4401)
        assert await many.rest() == ([], 4401)
        assert await listener.rest() == []
        assert (await gateway.get("/api/v1/jobs", headers=keys["read"].header)).status == 401
        await attempt.finish({"gain": 4.0})  # the other key goes on
        frames, code = await other.rest()
    assert (seen(frames)[-1][1], code) == ("complete", 1000)


class Later(Clock):
    """A clock that is ahead."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class TestExpiry:
    @pytest.fixture
    async def settings(self, storage: Storage) -> dict[str, Any]:
        return {"keys": keys_of(storage), "asks": True, "clock": Later()}

    async def test_an_open_socket_is_closed_at_its_keys_expiry_unless_a_newer_key_came(
        self, gateway: Gateway, driver: Driver
    ):
        clock: Any = gateway.app[DEPS].clock
        soon = await make(gateway.storage, "read", expires_at=Clock().now_ms() + 60_000)
        newer = await make(gateway.storage, "read")
        attempt = await driver.started()
        url = f"/api/v1/jobs/{attempt.job_id}/stream"
        async with (
            gateway.stream(url, headers=soon.header) as ends,
            gateway.stream(url, headers=soon.header) as renewed,
            gateway.stream("/api/v1/stream", headers=soon.header) as many,
        ):
            await ends.until("caught_up")
            await renewed.until("caught_up")
            for stream in (renewed, many):
                await stream.socket.send_json({"op": "auth", "token": newer.text})
            await many.socket.send_json({"op": "unsubscribe", "job_id": "none"})
            await many.frame()  # what was said before was heard
            await renewed_all(gateway, newer.id, 2)
            clock.ahead_ms = 61_000
            await gateway.app[ACCESS].look()
            assert await ends.rest() == ([], 4401)
            await attempt.finish({"gain": 4.0})
            frames, code = await renewed.rest()
            assert (seen(frames)[-1][1], code) == ("complete", 1000)
            assert not many.socket.closed

    async def test_a_newer_key_of_another_tenant_ends_the_socket(self, gateway: Gateway, driver: Driver):
        first, foreign = await make(gateway.storage, "read"), await make(gateway.storage, "read", tenant="other")
        async with gateway.stream(f"/api/v1/jobs/{await driver.submit()}/stream", headers=first.header) as stream:
            await stream.until("caught_up")
            await stream.socket.send_json({"op": "auth", "token": foreign.text})
            assert (await stream.rest())[1] == 4403


async def renewed_all(gateway: Gateway, key_id: str, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while sum(guest.who.key_id == key_id for guest in gateway.app[ACCESS]._guests) < count:  # noqa: ASYNC110 no signal
            await asyncio.sleep(0.01)


# ---- stream passes --------------------------------------------------------------------------------------------


class TestPasses:
    @pytest.fixture
    async def settings(self, storage: Storage) -> dict[str, Any]:
        return {"keys": keys_of(storage), "asks": True, "clock": Later()}

    async def made(self, gateway: Gateway, key: Credential, body: Any, **headers: str) -> str:
        answer = await gateway.post("/api/v1/passes", body, headers={**key.header, **headers})
        assert answer.status == 201, answer.body
        text: str = answer.json["pass"]
        return text

    async def test_a_pass_opens_its_jobs_streams_and_nothing_else(
        self, gateway: Gateway, driver: Driver, keys: dict[str, Credential]
    ):
        mine, other = await driver.submit(), await driver.submit()
        query = f"?pass={await self.made(gateway, keys['read'], {'jobs': [mine]})}"
        for path in (path for path in SOCKETS if "{job_id}" in path):
            for _ in range(2):  # reconnects are what it is for
                frames, code = await opened(gateway, filled(path, mine) + query, "none", None)
                assert (frames[0]["type"] in ("hello", "progress"), code) == (True, None)
            assert await opened(gateway, filled(path, other) + query, "none", None) == ([], 4004)
        async with gateway.stream(f"/api/v1/stream{query}") as stream:
            answers = []
            for asked in ({"job_id": mine}, {"job_id": other}, {"feed": True}):
                await stream.socket.send_json({"op": "subscribe", **asked})
                answers.append(await stream.frame())
                if asked == {"job_id": mine}:
                    await stream.until("caught_up")
        assert [frame.get("code", frame["type"]) for frame in answers] == ["hello", "unknown_job", "forbidden"]
        async with listening(gateway, f"/api/v1/jobs/{mine}/events{query}") as listener:
            assert (await listener.frame())["type"] == "hello"
        assert (await gateway.get(f"/api/v1/jobs/{other}/events{query}")).status == 404
        assert (await gateway.get(f"/api/v1/events{query}")).status == 404
        for method, path in routes(gateway):
            if EXPECTED.get((method, path)) in (*SCOPES, "any key") and not path.endswith("/events"):
                answer = await called(gateway, method, path + query, mine, {}) if method == "GET" else None
                assert answer is None or answer.status == 401, path
        assert (await gateway.post(f"/api/v1/jobs/{mine}/cancel{query}", {})).status == 401

    async def test_a_pass_for_the_feed_shows_the_tenants_own(
        self, gateway: Gateway, driver: Driver, keys: dict[str, Credential]
    ):
        job_id = await driver.submit()
        for name, seen_there in (("read", True), ("other tenant", False)):
            text = await self.made(gateway, keys[name], {"feed": True})
            page = await gateway.get(f"/api/v1/events?pass={text}")
            assert (page.status, job_id in page.body.decode()) == (200, seen_there)

    async def test_a_pass_is_good_from_its_origin_only(
        self, gateway: Gateway, driver: Driver, keys: dict[str, Credential]
    ):
        job_id = await driver.submit()
        origin = "http://localhost:3000"
        text = await self.made(gateway, keys["read"], {"jobs": [job_id]}, Origin=origin)
        for sent, opens in (({"Origin": origin}, True), ({"Origin": "http://localhost:3001"}, False), ({}, False)):
            async with gateway.stream(f"/api/v1/jobs/{job_id}/stream?pass={text}", headers=sent) as stream:
                if opens:
                    assert (await stream.frame())["type"] == "hello"
                else:
                    assert await stream.rest() == ([], 4401)

    async def test_a_pass_ends_unused_after_a_minute_and_used_after_half_a_day_or_with_its_key(
        self, gateway: Gateway, driver: Driver, keys: dict[str, Credential]
    ):
        clock: Any = gateway.app[DEPS].clock
        url = f"/api/v1/jobs/{await driver.submit()}/stream?pass="
        body: dict[str, Any] = {"feed": True}
        unused, used, orphan = [await self.made(gateway, keys[name], body) for name in ("read", "read", "admin")]
        async with gateway.stream(url + used) as long, gateway.stream(url + orphan) as of_revoked:
            await long.until("caught_up")
            await of_revoked.until("caught_up")
            await keys_of(gateway.storage).revoke_key(keys["admin"].id, BY)
            await gateway.app[ACCESS].look()
            assert await of_revoked.rest() == ([], 4401)
            assert await opened(gateway, url + orphan, "none", None) == ([], 4401)
            clock.ahead_ms = 61_000
            assert await opened(gateway, url + unused, "none", None) == ([], 4401)
            frames, code = await opened(gateway, url + used, "none", None)
            assert (frames[0]["type"], code) == ("hello", None)
            clock.ahead_ms = 12 * 3600 * 1000
            await gateway.app[ACCESS].look()
            assert await long.rest() == ([], 4401)
            assert await opened(gateway, url + used, "none", None) == ([], 4401)

    async def test_nobody_makes_a_pass_for_a_foreign_job(
        self, gateway: Gateway, driver: Driver, keys: dict[str, Credential]
    ):
        foreign = await driver.submit()
        told = [
            await gateway.post("/api/v1/passes", {"jobs": [job_id]}, headers=keys["other tenant"].header)
            for job_id in (foreign, UNKNOWN, "nonsense")
        ]
        assert {(answer.status, answer.body) for answer in told} == {(404, told[0].body)}
        nothing: list[dict[str, Any]] = [{}, {"jobs": []}, {"jobs": [foreign], "feed": True}]
        for body in nothing:
            assert (await gateway.post("/api/v1/passes", body, headers=keys["read"].header)).status == 422


# ---- the pages' login -----------------------------------------------------------------------------------------


class TestLogin:
    """The key in a cookie, which a browser sends along whoever's page asks."""

    @pytest.fixture
    async def cookie(self, gateway: Gateway, keys: dict[str, Credential]) -> dict[str, str]:
        answer = await gateway.post("/api/v1/session", {"key": keys["admin"].text})
        assert (answer.status, answer.json["actor"]) == (200, f"key:{keys['admin'].id}")
        name, _, flags = answer.headers["Set-Cookie"].partition(";")
        assert {flag.strip() for flag in flags.split(";")} == {"HttpOnly", "Path=/", "SameSite=Strict"}
        gateway.session.cookie_jar.clear()  # each test sends it itself
        return {"Cookie": name}

    async def test_a_bad_key_gets_no_cookie(self, gateway: Gateway, keys: dict[str, Credential]):
        for name in BAD:
            answer = await gateway.post("/api/v1/session", {"key": keys[name].text})
            assert_unauthorized(answer, presented=True)
            assert "Set-Cookie" not in answer.headers

    async def test_it_tells_who_is_asking(self, gateway: Gateway, cookie: dict[str, str], keys: dict[str, Credential]):
        nobody: dict[str, Any] = {"asks": True, "tenant": None, "actor": None, "scopes": []}
        assert (await gateway.get("/api/v1/session")).json == nobody
        known = await gateway.get("/api/v1/session", headers=cookie)
        assert known.json == {
            "asks": True,
            "tenant": "default",
            "actor": f"key:{keys['admin'].id}",
            "scopes": ["admin"],
        }
        left = await gateway.call("DELETE", "/api/v1/session", headers=cookie)
        assert (left.json, "Max-Age=0" in left.headers["Set-Cookie"]) == (nobody, True)

    @pytest.mark.parametrize(
        "sent, status",
        [
            ({}, 200),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            ({"Sec-Fetch-Site": "none"}, 200),
            ({"Origin": "OWN"}, 200),
            ({"Sec-Fetch-Site": "same-site"}, 401),  # another port of this machine
            ({"Sec-Fetch-Site": "cross-site"}, 401),
            ({"Origin": "http://127.0.0.1:1"}, 401),
            ({"Origin": "null"}, 401),
        ],
    )
    async def test_it_reads_for_pages_of_this_gateway_only(
        self, gateway: Gateway, cookie: dict[str, str], sent: dict[str, str], status: int
    ):
        assert (await gateway.get("/api/v1/jobs", headers={**cookie, **own(gateway, sent)})).status == status

    @pytest.mark.parametrize(
        "sent, status",
        [
            ({"Origin": "OWN"}, 202),
            ({}, 401),
            ({"Sec-Fetch-Site": "same-origin"}, 401),
            ({"Origin": "http://127.0.0.1:1"}, 401),
            ({"Origin": "https://evil.example"}, 403),
        ],
    )
    async def test_it_changes_for_pages_of_this_gateway_only(
        self, gateway: Gateway, driver: Driver, cookie: dict[str, str], sent: dict[str, str], status: int
    ):
        body = {"engine": "fpl", "params": {"team_id": 7}}
        answer = await gateway.post("/api/v1/jobs", body, headers={**cookie, **own(gateway, sent)})
        assert answer.status == status
        assert await jobs_made(driver) == ({"queued": 1} if status == 202 else {})

    @pytest.mark.parametrize("path", SOCKETS)
    async def test_it_opens_streams_for_pages_of_this_gateway_only(
        self, gateway: Gateway, driver: Driver, cookie: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(websocket, "AUTH_S", 0.2)
        url = filled(path, await driver.submit())
        async with gateway.stream(url, headers={**cookie, **own(gateway, {"Origin": "OWN"})}) as stream:
            if path == "/api/v1/stream":
                await stream.socket.send_json({"op": "unsubscribe", "job_id": "none"})
            assert (await stream.frame())["type"] in ("hello", "progress", "command_error")
        for sent in ({}, {"Origin": "http://127.0.0.1:1"}):
            async with gateway.stream(url, headers={**cookie, **sent}) as stream:
                assert await stream.rest() == ([], 4408)


def own(gateway: Gateway, sent: dict[str, str]) -> dict[str, str]:
    """These headers, the gateway's own origin put in."""
    origin = str(gateway.server.make_url("")).rstrip("/")
    return {name: value.replace("OWN", origin) for name, value in sent.items()}


# ---- guessing ---------------------------------------------------------------------------------------------------

A, B = {"X-Forwarded-For": "198.51.100.1"}, {"X-Forwarded-For": "198.51.100.2"}


class TestGuessing:
    """Five that are not good from one address, and no more for a long time."""

    @pytest.fixture
    async def settings(self, storage: Storage, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setattr(limits, "WINDOW_S", 1000.0)  # a machine that stalls gives nobody room within a test
        tokens = Tokens(Source(issuer.url), Accepted(AUDIENCE, tenant_claim="tenant"), Clock())
        local = (ipaddress.ip_network("127.0.0.0/8"),)
        given = {"limits": Limits(refusals_per_s=0.005), "trusted_proxies": local}
        return {"keys": keys_of(storage), "asks": True, "tokens": tokens, **given}

    async def test_who_sends_keys_that_are_not_good_is_told_to_wait_and_others_are_served(
        self, gateway: Gateway, keys: dict[str, Credential], issuer: Issuer
    ):
        assert (await gateway.get("/api/v1/jobs", headers=keys["read"].header | A)).status == 200
        wrong = [keys[name].header for name in ("unknown id", "wrong secret", "malformed", "expired")]
        wrong.append({"Authorization": f"Bearer {issuer.token(aud='another')}"})
        statuses = [(await gateway.get("/api/v1/jobs", headers=header | A)).status for header in wrong]
        assert statuses == [401] * 5
        unseen = keys["other tenant"].header  # not even one that would be good is looked up
        with statements(gateway.storage, UNKNOWN_KEY.split("_")[1]) as made:
            for header in (keys["unknown id"].header, keys["malformed"].header, wrong[-1], unseen):
                over = await gateway.get("/api/v1/jobs", headers=header | A)
                assert (over.status, int(over.headers["Retry-After"])) == (429, 200), header
        assert made == []
        assert (await gateway.get("/api/v1/jobs", headers=keys["read"].header | A)).status == 200  # it was seen before
        token = {"Authorization": f"Bearer {issuer.token(tenant='default')}"}
        assert (await gateway.get("/api/v1/jobs", headers=token | A)).status == 200
        assert (await gateway.get("/api/v1/jobs", headers=unseen | B)).status == 200
        assert (await gateway.get("/api/v1/jobs", headers=A)).status == 401  # who sends none guesses none

    async def test_logins_first_frames_and_passes_are_guesses_too(
        self, gateway: Gateway, driver: Driver, keys: dict[str, Credential]
    ):
        url, wrong = f"/api/v1/jobs/{await driver.submit()}/stream", keys["unknown id"].text

        async def login() -> Any:
            return (await gateway.post("/api/v1/session", {"key": wrong}, headers=A)).status

        async def passed() -> Any:
            async with gateway.stream(f"{url}?pass=pp_{'x' * 43}", headers=A) as stream:
                return (await stream.rest())[1]

        async def framed() -> Any:
            async with gateway.stream(url, headers=A) as stream:
                await stream.socket.send_json({"op": "auth", "token": wrong})
                return (await stream.rest())[1]

        assert [await guess() for guess in (login, passed, framed, login, passed)] == [401, 4401, 4401, 401, 4401]
        assert [await guess() for guess in (login, passed, framed)] == [429, 4429, 4429]


# ---- cost, and the open door ----------------------------------------------------------------------------------


async def test_a_key_is_read_once_however_many_requests_carry_it(gateway: Gateway, keys: dict[str, Credential]):
    with statements(gateway.storage) as made:
        answers = [await gateway.get("/api/v1/jobs", headers=keys["read"].header) for _ in range(30)]
    assert {answer.status for answer in answers} == {200}
    assert len([statement for statement in made if "api_keys" in statement]) <= 2  # twice if 5 s passed
    assert not [statement for statement in made if statement.startswith("UPDATE")]


class TestOpenDoor:
    @pytest.fixture
    async def settings(self, storage: Storage) -> dict[str, Any]:
        return {"keys": keys_of(storage)}

    async def test_without_a_key_nobody_is_asked_and_with_the_first_everybody_is(
        self, gateway: Gateway, driver: Driver
    ):
        job_id = await driver.submit()
        async with gateway.stream(f"/api/v1/jobs/{job_id}/stream") as stream:
            await stream.until("caught_up")
            assert (await gateway.get("/api/v1/jobs")).status == 200
            key = await make(gateway.storage, "read")
            await gateway.app[ACCESS].look()
            assert (await gateway.get("/api/v1/jobs")).status == 401
            assert (await gateway.get("/api/v1/jobs", headers=key.header)).status == 200
            assert await stream.rest() == ([], 4401)
        await keys_of(gateway.storage).revoke_key(key.id, BY)
        await gateway.app[ACCESS].look()
        assert (await gateway.get("/api/v1/jobs")).status == 401  # a door once closed stays closed

    async def test_a_pass_made_before_there_was_a_key_is_over_with_the_first(self, gateway: Gateway, driver: Driver):
        url = f"/api/v1/jobs/{await driver.submit()}/stream?pass="
        text = (await gateway.post("/api/v1/passes", {"feed": True})).json["pass"]
        async with gateway.stream(url + text) as stream:
            await stream.until("caught_up")
            await make(gateway.storage, "read")
            await gateway.app[ACCESS].look()
            assert await stream.rest() == ([], 4401)
        assert await opened(gateway, url + text, "none", None) == ([], 4401)

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
    @pytest.mark.parametrize("path", sorted(POSTS))
    async def test_a_foreign_page_changes_nothing(self, gateway: Gateway, driver: Driver, path: str, origin: str):
        job_id = await driver.submit()
        before = await driver.log.head(job_id), await jobs_made(driver)
        answer = await called(gateway, "POST", path, job_id, {"Origin": origin})
        assert (answer.status, answer.json["errors"][0]["field"]) == (403, "Origin")
        assert (await driver.log.head(job_id), await jobs_made(driver)) == before

    @pytest.mark.parametrize("host", ["rebound.example", "rebound.example:8000", "127.0.0.1.rebound.example"])
    async def test_a_foreign_name_that_was_led_here_reads_nothing(self, gateway: Gateway, driver: Driver, host: str):
        """Rebinding: to the browser that page is of the same origin, and its reads carry no `Origin`."""
        job_id = await driver.submit()
        for path in (path for (method, path), need in EXPECTED.items() if method == "GET" and need != "nobody"):
            for accept in ("application/json", "text/event-stream"):
                answer = await called(gateway, "GET", path, job_id, {"Host": host, "Accept": accept})
                assert (answer.status, answer.json["errors"][0]["field"]) == (403, "Host"), path
        answer = await gateway.post("/api/v1/jobs", {"engine": "fpl", "params": {"team_id": 1}}, headers={"Host": host})
        assert (answer.status, await jobs_made(driver)) == (403, {"queued": 1})
        await make(gateway.storage, "read")  # from here on a key says who may
        await gateway.app[ACCESS].look()
        assert (await gateway.get("/api/v1/jobs", headers={"Host": host})).status == 401

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "[::1]:8000", "localhost:8000", "gateway:8000", "a.localhost", "10.1.2.3"]
    )
    async def test_a_name_of_this_machine_or_network_is_answered(self, gateway: Gateway, host: str):
        assert (await gateway.get("/api/v1/jobs", headers={"Host": host})).status == 200


class TestActs:
    """Administrative acts are in the feed of operators, and nowhere else."""

    async def made(self, storage: Storage, gateway: Gateway, admin: Credential) -> str:
        """The stream id of an act, as an operator sees it."""
        key = await make(storage, "read")
        page = (await gateway.get("/api/v1/events?limit=500", headers=admin.header)).json["events"]
        return next(event["job_id"] for event in page if event["type"] == "administered" and event["target"] == key.id)

    async def test_pages_lines_and_event_streams_show_acts_to_operators_only(
        self, gateway: Gateway, driver: Driver, storage: Storage, keys: dict[str, Credential]
    ):
        job_id = await driver.submit()
        act_id = await self.made(storage, gateway, keys["admin"])
        last = await driver.submit()
        for name, sees in (("admin", True), ("read", False)):
            header = keys[name].header
            page = (await gateway.get("/api/v1/events?limit=500", headers=header)).json["events"]
            lines = await gateway.get("/api/v1/events", headers=header | {"Accept": "application/x-ndjson"})
            rows = [json.loads(line) for line in lines.body.splitlines()]
            async with listening(gateway, "/api/v1/events", headers=header) as listener:
                streamed = []
                while (frame := await listener.frame())["type"] != "caught_up":
                    streamed.append(frame)
            for shown in (page, rows, streamed):
                assert (act_id in [event.get("job_id") for event in shown]) is sees
                assert {job_id, last} <= {event.get("job_id") for event in shown}
                assert any(event["type"] == "administered" for event in shown) is sees
        other = (await gateway.get("/api/v1/events?limit=500", headers=keys["other tenant"].header)).json["events"]
        assert {event["type"] for event in other} == {"administered"}  # its own key's
        assert act_id not in [event["job_id"] for event in other]

    async def test_sockets_and_passes_show_acts_to_operators_only(
        self, gateway: Gateway, driver: Driver, storage: Storage, keys: dict[str, Credential]
    ):
        await driver.submit()
        await self.made(storage, gateway, keys["admin"])
        text = (await gateway.post("/api/v1/passes", {"feed": True}, headers=keys["admin"].header)).json["pass"]
        for query, header, sees in (
            ("", keys["admin"].header, True),
            ("", keys["read"].header, False),
            (f"?pass={text}", {}, False),  # whoever asked for it
        ):
            async with gateway.stream(f"/api/v1/stream{query}", headers=header) as stream:
                await stream.socket.send_json({"op": "subscribe", "feed": True})
                types: set[str] = set()
                while (frame := await stream.frame())["type"] != "caught_up":
                    types |= {event["type"] for event in frame.get("events", ())}
            assert "submitted" in types
            assert ("administered" in types) is sees

    async def test_an_act_is_as_unknown_as_a_job_that_never_was(
        self, gateway: Gateway, storage: Storage, keys: dict[str, Credential]
    ):
        act_id = await self.made(storage, gateway, keys["admin"])
        header = keys["admin"].header
        for path in JOBS_ROUTES:
            if ("GET", path) in EXPECTED and EXPECTED["GET", path] != "stream":
                answer = await gateway.get(filled(path, act_id), headers=header)
                unknown = await gateway.get(filled(path, UNKNOWN), headers=header)
                assert (answer.status, answer.json) == (404, unknown.json)
        assert (await gateway.get("/api/v1/jobs", headers=header)).json["jobs"] == []

    async def test_a_socket_that_shows_acts_goes_on_with_no_lesser_key(
        self, gateway: Gateway, keys: dict[str, Credential]
    ):
        async with gateway.stream("/api/v1/stream", headers=keys["admin"].header) as stream:
            await stream.socket.send_json({"op": "auth", "token": keys["read"].text})
            await stream.rest()
            assert stream.socket.close_code == 4403
