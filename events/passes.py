"""Port: stream passes, with which a page that cannot send a key may watch a few streams.

Somebody with a key asks for one and hands it to a page. It is good for those streams, from the Origin it was asked for from,
if it is used soon; then as long as its key or token, half a day at most.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Protocol

from events.keys import Keys

FIRST_USE_MS = 60_000
LAST_MS = 12 * 3600 * 1000
LIVE_MAX = 10_000  # passes a tenant may have at a time
_PASS = re.compile(r"pp_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass as it is stored. Instants in ms. `jobs` are ids; `feed` is every job of the tenant. Asked for with a token it has
    no `key_id`, and `expires_at` is when that ends."""

    sha256: bytes  # of its text
    key_id: str
    tenant: str
    jobs: frozenset[str]
    feed: bool
    origin: str | None  # without one it is good from any that is allowed
    created_at: int
    used_at: int | None = None
    expires_at: int | None = None

    @property
    def until(self) -> int:
        """When it ends, if it is used in time."""
        last = self.created_at + LAST_MS
        return last if self.expires_at is None else min(last, self.expires_at)

    def over(self, now_ms: int) -> str | None:
        """Why it is good for nothing any more."""
        if self.used_at is None and self.created_at + FIRST_USE_MS <= now_ms:
            return "was not used within 60 s"
        if self.expires_at is not None and self.expires_at <= now_ms:
            return "has expired"
        return "is over 12 hours old" if self.created_at + LAST_MS <= now_ms else None


def digest_of(text: str) -> bytes | None:
    """What a pass is stored by; None for what is none."""
    return hashlib.sha256(text.encode()).digest() if _PASS.fullmatch(text) else None


def drawn() -> str:
    """The text of a new pass: 256 random bits."""
    return f"pp_{secrets.token_urlsafe(32)}"


class Passes(Protocol):
    """Where passes are kept. Every call raises `LogUnavailable` within its deadline."""

    async def add_pass(self, made: Pass) -> bool:
        """Stores a pass and forgets those of the tenant that are over; False when it has `LIVE_MAX` already."""

    async def use_pass(self, sha256: bytes) -> Pass | None:
        """The pass as it was before this use; the first use is noted."""


class Doors(Keys, Passes, Protocol):
    """Both ways in."""
