"""Tokens of an OpenID Connect issuer: what is accepted, what its keys do when they change or it is away (docs/security.md)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes

from events.clock import Clock
from gateway import issuer_keys
from gateway.access import ACCESS
from gateway.deps import DEPS
from gateway.issuer_keys import IssuerAway, Source, fetched
from gateway.tokens import Accepted, Tokens
from phaseline import oidc
from phaseline.settings import Misconfigured, Settings
from tests.gateway.driving import WAIT_S, Driver, Gateway, Storage, seen
from tests.gateway.issuing import (
    AUDIENCE,
    Issuer,
    ed_key,
    hs256,
    issuing,
    jwk,
    pem,
    rsa_key,
    signature,
    signed,
)
from tests.gateway.keyring import keys_of, make
from tests.gateway.listening import listening

NEVER_S = 3600.0
JOB = {"engine": "fpl", "params": {"team_id": 7}}


class Later(Clock):
    """A clock that is ahead."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as running:
        yield running


@pytest.fixture
async def source(issuer: Issuer) -> Source:
    """By default keys are fetched once and whenever a token asks for it; a test overrides this fixture."""
    return Source(issuer.url, every_s=NEVER_S, pause_s=0.0)


@pytest.fixture
async def settings(storage: Storage, source: Source) -> dict[str, Any]:
    clock = Later()
    accepted = Accepted(AUDIENCE, frozenset({"RS256", "ES256", "Ed25519"}), tenant_claim="tenant")
    return {"keys": keys_of(storage), "clock": clock, "tokens": Tokens(source, accepted, clock)}


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def asked(gateway: Gateway, token: str) -> int:
    return (await gateway.get("/api/v1/jobs", headers=bearing(token))).status


async def test_a_token_says_who_acts_for_which_tenant(gateway: Gateway, issuer: Issuer):
    token = issuer.token(sub="ada@example.org", tenant="acme", scope="openid submit read")
    made = await gateway.post("/api/v1/jobs", JOB, headers=bearing(token))
    assert made.status == 202
    told = (await gateway.get("/api/v1/session", headers=bearing(token))).json
    assert told == {"asks": True, "tenant": "acme", "actor": "user:ada@example.org", "scopes": ["read", "submit"]}
    page = (await gateway.get(f"/api/v1/jobs/{made.json['id']}/events", headers=bearing(token))).json
    assert [event["actor"] for event in page["events"]] == ["user:ada@example.org"]
    elsewhere = issuer.token("ec", tenant="other", scope="admin")
    assert (await gateway.get(f"/api/v1/jobs/{made.json['id']}", headers=bearing(elsewhere))).status == 404
    # API keys work beside tokens.
    assert (await gateway.get("/api/v1/jobs", headers=(await make(gateway.storage, "read")).header)).status == 200


WRONG: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://issuer.example"},
    "an issuer that begins alike": {"iss": "http://127.0.0.1"},
    "another audience": {"aud": "https://other.example"},
    "other audiences": {"aud": ["https://a.example", "https://b.example"]},
    "no audience": {"aud": None},
    "no issuer": {"iss": None},
    "expired": {"exp": 1_000_000_000},
    "never expires": {"exp": None},
    "expires at a text": {"exp": "tomorrow"},
    "not yet": {"nbf": 9_000_000_000},
    "issued in the future": {"iat": 9_000_000_000},
    "nobody": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is no text": {"sub": 7},
    "a subject no log can keep": {"sub": "a\x00b"},
    "half a character": {"sub": "\ud800"},
    "who is nobody's": {"sub": "anonymous"},
    "an endless subject": {"sub": "a" * 256},
    "no tenant": {"tenant": None},
    "a tenant that is none": {"tenant": "../default"},
    "many tenants": {"tenant": ["default", "other"]},
}


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG.keys())
async def test_a_token_with_a_wrong_claim_opens_nothing(gateway: Gateway, issuer: Issuer, changed: dict[str, Any]):
    token = issuer.token(**{"tenant": "default", "scope": "admin"} | changed)
    answer = await gateway.post("/api/v1/jobs", JOB, headers=bearing(token))
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert dict((await gateway.storage.log.stats("default")).by_status) == {}


def forgeries(issuer: Issuer) -> dict[str, str]:
    """Tokens of good claims whose signature is worth nothing."""
    claims, mine = issuer.claims(scope="admin", tenant="default"), rsa_key("stranger")
    published, strong = issuer.keys["rsa"], rsa_key("rsa")
    header = {"alg": "RS256", "kid": "rsa"}

    def by_stranger(text: bytes) -> bytes:
        return signature(mine, text)

    good = signed(header, claims, lambda text: signature(strong, text))
    other = signed(header, claims | {"tenant": "other"}, by_stranger)
    return {
        "another's signature": signed(header, claims, by_stranger),
        "no signature": good.rpartition(".")[0] + ".",
        "no algorithm": signed({"alg": "none", "kid": "rsa"}, claims, lambda _: b""),
        "no algorithm, loudly": signed({"alg": "NONE"}, claims, lambda _: b""),
        "the public key as a secret": signed({"alg": "HS256", "kid": "rsa"}, claims, hs256(pem(published))),
        "the published text as a secret": signed(
            {"alg": "HS256", "kid": "rsa"}, claims, hs256(jwk("rsa", published)["n"].encode())
        ),
        "the secret of the set": signed({"alg": "HS256", "kid": "oct"}, claims, hs256(b"s" * 32)),
        "an algorithm that is not named": signed(
            {"alg": "RS512", "kid": "rsa"}, claims, lambda text: signature(strong, text, hashes.SHA512())
        ),
        "the algorithm of another key": signed({"alg": "ES256", "kid": "rsa"}, claims, by_stranger),
        "the kid of another key": signed({"alg": "RS256", "kid": "ec"}, claims, lambda text: signature(strong, text)),
        "a key that is too short": signed(
            {"alg": "RS256", "kid": "short"}, claims, lambda text: signature(rsa_key("short", 1024), text)
        ),
        "a key it brings along": signed({**header, "kid": "mine", "jwk": jwk("mine", mine)}, claims, by_stranger),
        "a place to fetch keys from": signed({**header, "jku": f"{issuer.url}/mine"}, claims, by_stranger),
        "an extension nobody knows": signed(
            {**header, "crit": ["x"], "x": 1}, claims, lambda text: signature(strong, text)
        ),
        "other claims": ".".join((good.split(".")[0], other.split(".")[1], good.split(".")[2])),
        "claims that are a list": signed(header, [claims], lambda text: signature(strong, text)),
        "a kid that is no text": signed({**header, "kid": {"a": 1}}, claims, by_stranger),
        "deep claims": signed(header, {}, by_stranger).split(".")[0] + ".W" + "1tb" * 2000 + ".AA",
    }


async def test_a_token_whose_signature_is_worth_nothing_opens_nothing(gateway: Gateway, issuer: Issuer):
    issuer.keys["short"] = rsa_key("short", 1024)
    secret = {"kty": "oct", "kid": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "alg": "HS256"}
    issuer.extra = [secret, {"kty": "EC"}, {"kty": 7}, {"kid": "x"}]
    assert await asked(gateway, issuer.token(tenant="default")) == 200
    told = {name: await gateway.get("/api/v1/jobs", headers=bearing(text)) for name, text in forgeries(issuer).items()}
    assert {name: answer.status for name, answer in told.items()} == dict.fromkeys(told, 401)
    assert len({answer.body for answer in told.values()}) == 1  # nothing says how near one was


async def test_a_clock_that_is_a_little_off_is_forgiven(gateway: Gateway, issuer: Issuer):
    now = issuer.claims()["iat"]
    for claim, off_s, status in (("exp", -5, 200), ("nbf", 15, 200), ("exp", -40, 401), ("nbf", 3600, 401)):
        assert await asked(gateway, issuer.token(tenant="default", **{claim: now + off_s})) == status, (claim, off_s)


# ---- the issuer's keys ----------------------------------------------------------------------------------------


async def test_a_new_key_is_fetched_when_a_token_names_it_and_one_taken_back_is_forgotten(
    gateway: Gateway, issuer: Issuer
):
    old = issuer.token(tenant="default")
    assert await asked(gateway, old) == 200
    issuer.keys = {"ed": ed_key("new")}
    fetches = issuer.fetches
    assert await asked(gateway, old) == 200  # known
    assert issuer.fetches == fetches
    assert await asked(gateway, issuer.token("ed", tenant="default")) == 200
    assert await asked(gateway, old) == 401


class TestSeldom:
    @pytest.fixture
    async def source(self, issuer: Issuer) -> Source:
        return Source(issuer.url, every_s=NEVER_S, pause_s=NEVER_S)

    async def test_a_flood_of_unknown_keys_asks_the_issuer_once(self, gateway: Gateway, issuer: Issuer):
        stranger, claims = rsa_key("stranger"), issuer.claims(tenant="default")
        flood = [
            signed({"alg": "RS256", "kid": f"k{n}"}, claims, lambda text: signature(stranger, text)) for n in range(200)
        ]
        answers = await asyncio.gather(*(asked(gateway, token) for token in flood))
        assert set(answers) == {401}
        assert issuer.fetches == 1
        assert await asked(gateway, issuer.token(tenant="default")) == 200


class TestOften:
    @pytest.fixture
    async def source(self, issuer: Issuer) -> Source:
        return Source(issuer.url, every_s=0.0, pause_s=0.05)

    async def test_a_key_taken_back_is_forgotten_without_a_token_that_asks(self, gateway: Gateway, issuer: Issuer):
        token = issuer.token(tenant="default")
        assert await asked(gateway, token) == 200
        issuer.keys = {"ec": issuer.keys["ec"]}
        async with asyncio.timeout(WAIT_S):
            while await asked(gateway, token) == 200:
                pass


async def test_an_issuer_that_hangs_holds_up_nobody_whose_key_is_known(
    gateway: Gateway, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(issuer_keys, "FETCH_S", NEVER_S)  # this machine may stall for seconds
    monkeypatch.setattr(issuer_keys, "WAIT_S", NEVER_S)
    known, unknown = issuer.token(tenant="default"), issuer.token("ec", tenant="default")
    issuer.keys = {"rsa": issuer.keys["rsa"]}
    assert await asked(gateway, known) == 200
    hangs, goes_on = asyncio.Event(), asyncio.Event()

    async def hang() -> web.StreamResponse:
        hangs.set()
        await goes_on.wait()
        return web.Response(status=503)

    issuer.answer = hang
    waiting = asyncio.ensure_future(gateway.get("/api/v1/jobs", headers=bearing(unknown)))
    async with asyncio.timeout(WAIT_S):
        await hangs.wait()
    assert [await asked(gateway, known) for _ in range(20)] == [200] * 20
    assert not waiting.done()
    goes_on.set()
    answer = await waiting  # it cannot be judged, which is not the token's fault
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    assert await asked(gateway, known) == 200
    issuer.answer, issuer.keys["ec"] = None, Issuer().keys["ec"]
    async with asyncio.timeout(WAIT_S):
        while await asked(gateway, unknown) != 200:
            pass


async def test_what_an_issuer_should_not_say_gives_no_keys(issuer: Issuer):
    assert len((await fetched(issuer.url)).keys) == 2

    async def redirect() -> web.StreamResponse:
        raise web.HTTPFound(f"{issuer.url}/jwks")

    async def endless() -> web.StreamResponse:
        return web.Response(body=b'{"keys": [' + b" " * 300_000 + b"]}")

    async def no_json() -> web.StreamResponse:
        return web.Response(text="<html>")

    for answer in (redirect, endless, no_json):
        issuer.answer = answer
        with pytest.raises(IssuerAway):
            await fetched(issuer.url)
    issuer.answer = None
    abouts: list[dict[str, Any]] = [
        {"issuer": "https://another.example"},
        {"jwks_uri": "http://169.254.169.254/keys"},
        {"jwks_uri": None},
        {"jwks_uri": "file:///etc/passwd"},
    ]
    for about in abouts:
        issuer.about = about
        with pytest.raises(IssuerAway):
            await fetched(issuer.url)
    issuer.about, issuer.keys = {}, {}
    with pytest.raises(IssuerAway, match="no key"):
        await fetched(issuer.url)


# ---- open streams ---------------------------------------------------------------------------------------------


async def test_open_streams_end_when_their_token_does_unless_a_newer_one_came(
    gateway: Gateway, issuer: Issuer, driver: Driver
):
    clock: Any = gateway.app[DEPS].clock
    soon = issuer.token(tenant="default", exp=issuer.claims()["iat"] + 60)
    newer = issuer.token("ec", tenant="default")
    attempt = await driver.started()
    url = f"/api/v1/jobs/{attempt.job_id}/stream"
    async with (
        gateway.stream(url, protocols=[f"bearer.{soon}"]) as ends,
        gateway.stream(url) as renewed,
        listening(gateway, f"/api/v1/jobs/{attempt.job_id}/events", headers=bearing(soon)) as listener,
    ):
        await renewed.socket.send_json({"op": "auth", "token": soon})
        for stream in (ends, renewed, listener):
            await stream.until("caught_up")
        await renewed.socket.send_json({"op": "auth", "token": newer})
        async with asyncio.timeout(WAIT_S):
            until = issuer.claims()["exp"] * 1000
            while not any(guest.who.until >= until for guest in gateway.app[ACCESS]._guests):  # noqa: ASYNC110 no signal
                await asyncio.sleep(0.01)
        clock.ahead_ms = 95_000  # with what a clock may be off
        await gateway.app[ACCESS].look()
        assert await ends.rest() == ([], 4401)
        assert await listener.rest() == []
        await attempt.finish({"gain": 4.0})
        frames, code = await renewed.rest()
    assert (seen(frames)[-1][1], code) == ("complete", 1000)


async def test_a_pass_asked_for_with_a_token_ends_with_it(gateway: Gateway, issuer: Issuer, driver: Driver):
    clock: Any = gateway.app[DEPS].clock
    url = f"/api/v1/jobs/{await driver.submit()}/stream?pass="
    soon = issuer.token(tenant="default", exp=issuer.claims()["iat"] + 600)
    made = await gateway.post("/api/v1/passes", {"feed": True}, headers=bearing(soon))
    assert made.status == 201
    text = made.json["pass"]
    async with gateway.stream(url + text) as stream:
        await stream.until("caught_up")
        clock.ahead_ms = 500_000
        await gateway.app[ACCESS].look()
        async with gateway.stream(url + text) as again:
            await again.until("caught_up")
        clock.ahead_ms = 700_000  # with what a clock may be off
        await gateway.app[ACCESS].look()
        assert await stream.rest() == ([], 4401)
    async with gateway.stream(url + text) as late:
        assert await late.rest() == ([], 4401)
    endless = issuer.token(tenant="default", exp=10**30)  # more than a database counts
    assert (await gateway.post("/api/v1/passes", {"feed": True}, headers=bearing(endless))).status == 201


# ---- settings -------------------------------------------------------------------------------------------------


def configured(**given: Any) -> Settings:
    return Settings(**{"oidc_issuer": "https://issuer.example", "oidc_audience": AUDIENCE} | given)


@pytest.mark.parametrize(
    "given, named",
    [
        ({"oidc_issuer": "http://issuer.example"}, "PHASELINE_OIDC_ISSUER"),
        ({"oidc_issuer": "issuer.example"}, "PHASELINE_OIDC_ISSUER"),
        ({"oidc_audience": ""}, "PHASELINE_OIDC_AUDIENCE"),
        ({"oidc_algorithms": "RS256,none"}, "PHASELINE_OIDC_ALGORITHMS: none"),
        ({"oidc_algorithms": "HS256"}, "PHASELINE_OIDC_ALGORITHMS: HS256"),
        ({"oidc_algorithms": ""}, "PHASELINE_OIDC_ALGORITHMS"),
        ({"oidc_scopes": "ops=root"}, "PHASELINE_OIDC_SCOPES: ops=root"),
        ({"oidc_scopes": "admin"}, "PHASELINE_OIDC_SCOPES: admin"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(given: dict[str, Any], named: str):
    with pytest.raises(Misconfigured, match=named):
        oidc.tokens(configured(**given))
    assert oidc.tokens(Settings()) is None


async def test_words_of_an_issuer_become_scopes_of_ours(issuer: Issuer):
    given = {
        "oidc_scope_claim": "groups",
        "oidc_scopes": "ops=admin,https://x.example/jobs=read,https://x.example/jobs=submit",
    }
    tokens = oidc.tokens(configured(oidc_issuer=issuer.url, **given))
    assert tokens is not None
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(tokens.keys.run())
        for groups, scopes in (
            (["staff", "ops"], {"admin"}),
            ("https://x.example/jobs", {"read", "submit"}),
            (["admin", 7, None], set()),
            ({"admin": True}, set()),
            (None, set()),
        ):
            assert (await tokens.who(issuer.token(groups=groups))).scopes == scopes
        running.cancel()


async def test_doctor_says_whether_the_issuer_gives_keys(issuer: Issuer):
    found = await oidc.examined(configured(oidc_issuer=issuer.url))
    assert (found.state, "2 keys" in found.detail) == ("ok", True)
    issuer.keys, issuer.extra = {}, [jwk("ed", ed_key("new")) | {"alg": "Ed25519"}]
    found = await oidc.examined(configured(oidc_issuer=issuer.url))
    assert (found.state, "PHASELINE_OIDC_ALGORITHMS=Ed25519" in found.cure) == ("failed", True)
    issuer.about = {"issuer": "https://another.example"}
    found = await oidc.examined(configured(oidc_issuer=issuer.url))
    assert (found.state, "another.example" in found.detail) == ("failed", True)
    found = await oidc.examined(configured(oidc_issuer=issuer.url, oidc_audience=""))
    assert (found.state, "PHASELINE_OIDC_AUDIENCE" in found.detail) == ("failed", True)
