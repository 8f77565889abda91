"""An OpenID Connect issuer on this machine, with real keys. Tokens are put together here by hand, so that wrong ones can be,
and so that no library judges what it made itself."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from events.clock import Clock
from events.keys import SCOPES
from tests.gateway.keyring import BAD, Credential

AUDIENCE = "https://jobs.example"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key by this name, drawn once for all tests."""
    del name
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    del name
    return ec.generate_private_key(ec.SECP256R1())


@cache
def ed_key(name: str) -> ed25519.Ed25519PrivateKey:
    del name
    return ed25519.Ed25519PrivateKey.generate()


class Issuer:
    """`keys` are those it publishes, by kid; `extra` stands beside them as it is."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Key] = {"rsa": rsa_key("rsa"), "ec": ec_key("ec")}
        self.extra: list[dict[str, Any]] = []
        self.about: dict[str, Any] = {}  # put over what discovery says
        self.answer: Callable[[], Any] | None = None  # instead of keys
        self.fetches = 0
        self._now_s = Clock().now_ms() // 1000

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a good token; a claim changed to None is left out."""
        now = self._now_s
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "nbf": now, "exp": now + 600}
        return {name: value for name, value in (good | {"scope": "read"} | changed).items() if value is not None}

    def token(self, kid: str = "rsa", /, **changed: Any) -> str:
        """One signed with a key it publishes."""
        key = self.keys[kid]
        return signed({"alg": algorithm(key), "kid": kid}, self.claims(**changed), lambda text: signature(key, text))

    async def discover(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **self.about})

    async def publish(self, _: web.Request) -> web.StreamResponse:
        self.fetches += 1
        if self.answer is not None:
            response: web.StreamResponse = await self.answer()
            return response
        return web.json_response({"keys": [jwk(kid, key) for kid, key in self.keys.items()] + self.extra})


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", issuer.discover)
    app.router.add_get("/jwks", issuer.publish)
    async with TestServer(app) as server:
        issuer.url = str(server.make_url("")).rstrip("/")
        yield issuer


def every_kind_of_token(issuer: Issuer) -> dict[str, Credential]:
    """By the names of `keyring.every_kind`, with what for a token is nearest."""
    good: dict[str, Any] = {"scope": " ".join(SCOPES), "tenant": "default"}
    stranger = rsa_key("stranger")
    claims = issuer.claims(**good)
    texts = {
        "wrong secret": signed({"alg": "RS256", "kid": "rsa"}, claims, lambda text: signature(stranger, text)),
        "unknown id": signed({"alg": "RS256", "kid": "gone"}, claims, lambda text: signature(stranger, text)),
        "malformed": "e30.e30.e30",
        "empty": "..",
        "revoked": issuer.token(**good, aud="https://another.example"),
        "expired": issuer.token("ec", **good, exp=issuer.claims()["iat"] - 60),
    }
    assert set(texts) == set(BAD)
    scoped: dict[str, Credential] = {
        scope: Credential(issuer.token(kid, scope=f"openid {scope}", tenant="default"), frozenset((scope,)))
        for scope, kid in zip(SCOPES, ("rsa", "ec", "rsa", "ec"), strict=True)
    }
    other = Credential(issuer.token(**good | {"tenant": "other"}), frozenset(SCOPES), "other")
    return {**scoped, "other tenant": other, **{name: Credential(text) for name, text in texts.items()}}


# ---- JOSE by hand -----------------------------------------------------------------------------------------------


def signed(header: dict[str, Any], claims: Any, sign: Callable[[bytes], bytes]) -> str:
    """A JWS in its compact form (RFC 7515)."""
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(sign(text.encode()))}"


def signature(key: Key, text: bytes, digest: hashes.HashAlgorithm | None = None) -> bytes:
    """As RFC 7518 §3 and RFC 8037 write them."""
    digest = digest or hashes.SHA256()
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(text, padding.PKCS1v15(), digest)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(text)
    r, s = decode_dss_signature(key.sign(text, ec.ECDSA(digest)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda text: hmac.new(secret, text, hashlib.sha256).digest()


def pem(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def algorithm(key: Key) -> str:
    match key:
        case rsa.RSAPrivateKey():
            return "RS256"
        case ed25519.Ed25519PrivateKey():
            return "Ed25519"
        case _:
            return "ES256"


def jwk(kid: str, key: Key) -> dict[str, Any]:
    """The public key, as a set has it (RFC 7517, RFC 7518 §6)."""
    named = {"kid": kid, "use": "sig"}
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key().public_numbers()
        return named | {"kty": "RSA", "n": b64(_bytes(public.n)), "e": b64(_bytes(public.e))}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return named | {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
    point = key.public_key().public_numbers()
    x, y = (b64(coordinate.to_bytes(32, "big")) for coordinate in (point.x, point.y))
    return named | {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
