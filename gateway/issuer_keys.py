"""The public keys of an issuer of tokens, by OpenID Connect Discovery 1.0 and RFC 7517.

One task fetches them, every `every_s` and when a token names one that is not known; between two fetches lie `pause_s` at
least, whatever tokens say. An issuer that is away changes nothing: the keys it had go on working.
"""

import asyncio
import ipaddress
import json
import logging
import warnings
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import JWKRegistry, Key, KeySet

from events.errors import Unavailable

DISCOVERY = "/.well-known/openid-configuration"
FETCH_S = 5.0  # for both documents
WAIT_S = 6.0  # how long a request waits for keys it does not know
DOCUMENT_BYTES_MAX = 256 * 1024
KEYS_MAX = 100
KEY_TYPES = ("RSA", "EC", "OKP")  # a set may hold symmetric keys too: never used, or a public text would sign

log = logging.getLogger(__name__)


class IssuerAway(Unavailable):
    """The issuer of tokens does not answer as it should, and this token's key is not known yet. Try again."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where keys come from. Raises `ValueError` for what is neither https nor on this machine."""

    issuer: str
    every_s: float = 300.0  # so long a key the issuer took back may still be good
    pause_s: float = 10.0

    def __post_init__(self) -> None:
        _check_url(self.issuer)


class IssuerKeys:
    """One per gateway process; `run` must be alive."""

    def __init__(self, source: Source) -> None:
        self.known = KeySet([])
        self.fetches = 0
        self._source = source
        self._away: IssuerAway | None = None
        self._fetching = False
        self._wanted = asyncio.Event()
        self._round = asyncio.Event()  # set at the end of the fetch that is next or under way
        self._not_before = 0.0

    async def newer(self, than: KeySet) -> KeySet | None:
        """Keys fetched after those; None when these were fetched a moment ago. Raises `IssuerAway`."""
        if self.known is not than:
            return self.known
        if self._fetching or asyncio.get_running_loop().time() >= self._not_before:
            self._wanted.set()
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._round.wait()
            except TimeoutError:
                raise IssuerAway from None
        if self._away is not None:
            raise self._away
        return self.known if self.known is not than else None

    async def run(self) -> None:
        """Fetches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._wanted.clear()
            self._fetching = True
            await self._fetch()
            self._fetching, self._not_before = False, loop.time() + self._source.pause_s
            self._round.set()
            self._round = asyncio.Event()
            await asyncio.sleep(self._source.pause_s)
            if self._away is None:
                try:
                    async with asyncio.timeout(max(self._source.every_s - self._source.pause_s, 0)):
                        await self._wanted.wait()
                except TimeoutError:
                    continue

    async def _fetch(self) -> None:
        self.fetches += 1
        try:
            self.known = await fetched(self._source.issuer)
        except IssuerAway as away:
            log.log(logging.DEBUG if self._away else logging.WARNING, "known keys of tokens go on working: %s", away)
            self._away = away
        else:
            if self._away is not None:
                log.info("%s answers again", self._source.issuer)
            self._away = None


async def fetched(issuer: str) -> KeySet:
    """The keys an issuer signs with now. Raises `IssuerAway`."""
    try:
        async with (
            asyncio.timeout(FETCH_S),
            aiohttp.ClientSession(headers={"Accept": "application/json"}) as session,
        ):
            about = await _document(session, issuer.rstrip("/") + DISCOVERY)
            if about.get("issuer") != issuer:
                raise IssuerAway(f"{issuer} says it is the issuer {about.get('issuer')!r:.200}")
            held = await _document(session, str(about.get("jwks_uri")))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as problem:
        raise IssuerAway(f"{issuer} does not give its keys: {type(problem).__name__} {problem!s:.200}") from problem
    keys = held.get("keys")
    found = [key for entry in (keys[:KEYS_MAX] if isinstance(keys, list) else []) if (key := _key(entry)) is not None]
    if not found:
        raise IssuerAway(f"{issuer} has no key that can be used here")
    return KeySet(found)


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    _check_url(url)
    async with session.get(url, allow_redirects=False) as response:  # a redirect would lead past `_check_url`
        if response.status != 200:
            raise ValueError(f"{url} answers {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > DOCUMENT_BYTES_MAX:
                raise ValueError(f"{url} answers over {DOCUMENT_BYTES_MAX} bytes")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} is no JSON object")
    return document


def _key(entry: Any) -> Key | None:
    """A key of a set that verifies signatures; None for any other, and for what is none."""
    if not isinstance(entry, dict) or entry.get("kty") not in KEY_TYPES or entry.get("use", "sig") != "sig":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SecurityWarning)  # RSA under 2048 bits
            key = JWKRegistry.import_key(entry)
            key.check_key_op("verify")
    except (JoseError, SecurityWarning, ValueError, TypeError, KeyError) as problem:
        log.warning("a key of the issuer is left out: %s", problem)
        return None
    return key


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or not _is_here(parts.hostname or ""):
        raise ValueError(f"{url!r} must be an https URL, or http on this machine")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
