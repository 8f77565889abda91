"""Port: API keys, who may call and for which tenant.

A key is `pl_<id>_<secret>`: the id is public and stands in events as the actor `key:<id>`, the secret is 256 random bits
of which only the SHA-256 is stored. Nothing slower is needed against guessing: there is no word list of 2^256 entries.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from events.acts import By

Scope = Literal["submit", "read", "cancel", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_TENANT = "default"
NAME_CHARS_MAX = 100
TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ID_BYTES, _SECRET_BYTES = 8, 32
_TOKEN = re.compile(r"pl_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored. Instants in ms; `used_at` is coarse, see `Keys.touch_keys`."""

    id: str
    tenant: str
    name: str
    sha256: bytes  # of the secret
    scopes: tuple[Scope, ...]
    created_at: int
    expires_at: int | None = None
    used_at: int | None = None
    revoked_at: int | None = None

    def opens(self, sha256: bytes) -> bool:
        """Whether this is its secret's digest; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(self.sha256, sha256)

    def over(self, now_ms: int) -> str | None:
        """Why it is good for nothing any more: `revoked` or `expired`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now_ms else None


@dataclass(frozen=True, slots=True)
class Token:
    """What a caller presented: which key, and the SHA-256 of the secret."""

    key_id: str
    sha256: bytes


def token_of(text: str) -> Token | None:
    """The parts of a key as callers send it; None when it is none."""
    found = _TOKEN.fullmatch(text)
    return Token(found[1], hashlib.sha256(found[2].encode()).digest()) if found else None


def draw(
    tenant: str, name: str, scopes: Collection[Scope], *, now_ms: int, expires_at: int | None = None
) -> tuple[ApiKey, str]:
    """A new key and its text, which nobody can make again from what is stored."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    digest = hashlib.sha256(secret.encode()).digest()
    known = tuple(scope for scope in SCOPES if scope in scopes)
    return ApiKey(key_id, tenant, name, digest, known, now_ms, expires_at), f"pl_{key_id}_{secret}"


class Keys(Protocol):
    """Where keys are kept: in the log's database. Every call raises `LogUnavailable` within its deadline."""

    async def add_key(self, key: ApiKey, by: By) -> None:
        """Stores a key that was drawn. An act: see `events/acts.py`."""

    async def find_keys(self, key_ids: Sequence[str]) -> dict[str, ApiKey]:
        """The keys of these ids, whatever their state; unknown ids are absent."""

    async def keys(self, tenant: str | None = None) -> list[ApiKey]:
        """All keys, of one tenant when given, oldest first."""

    async def has_keys(self) -> bool:
        """Whether a key was ever made: from then on keys are asked for."""

    async def revoke_key(self, key_id: str, by: By) -> bool:
        """Makes a key good for nothing, for ever; False when there is none. Twice is once. An act."""

    async def tell_expired(self, by: By, limit: int) -> int:
        """Tells of keys that expired while they were good, each once whoever asks how often, up to so many; how many. Acts."""

    async def touch_keys(self, key_ids: Sequence[str]) -> None:
        """Says that these keys were used within the last minute or so."""
