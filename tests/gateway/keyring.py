"""Keys of every kind, in a log, for tests of who may do what."""

from dataclasses import dataclass
from typing import Any

from events.acts import By
from events.clock import Clock
from events.keys import SCOPES, Scope, draw
from tests.gateway.driving import Storage

WRONG_SECRET = "A" * 43
BY = By("user:ada")
UNKNOWN_KEY = f"pl_{'0' * 16}_{WRONG_SECRET}"
# What never opens anything; the first two must not be told apart.
BAD = ("wrong secret", "unknown id", "malformed", "empty", "revoked", "expired")


@dataclass(frozen=True)
class Credential:
    """A key's text, and what it may."""

    text: str
    scopes: frozenset[str] = frozenset()
    tenant: str = "default"

    @property
    def id(self) -> str:
        return self.text.split("_")[1]

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.text}"}

    def may(self, scope: str) -> bool:
        return bool({scope, "admin"} & self.scopes)


async def make(storage: Storage, *scopes: Scope, tenant: str = "default", expires_at: int | None = None) -> Credential:
    """A key that was just made."""
    key, text = draw(tenant, "", scopes, now_ms=Clock().now_ms(), expires_at=expires_at)
    await keys_of(storage).add_key(key, BY)
    return Credential(text, frozenset(scopes), tenant)


def keys_of(storage: Storage) -> Any:
    """The keys of this storage: its log keeps them."""
    return storage.log


async def every_kind(storage: Storage) -> dict[str, Credential]:
    """By name: one key a scope, an operator's of another tenant, and what is no good."""
    good = await make(storage, *SCOPES)
    revoked = await make(storage, *SCOPES)
    assert await keys_of(storage).revoke_key(revoked.id, BY)
    expired = await make(storage, *SCOPES, expires_at=Clock().now_ms() - 1)
    scoped: dict[str, Credential] = {scope: await make(storage, scope) for scope in SCOPES}
    return {
        **scoped,
        "other tenant": await make(storage, *SCOPES, tenant="other"),
        "wrong secret": Credential(f"pl_{good.id}_{WRONG_SECRET}"),
        "unknown id": Credential(UNKNOWN_KEY),
        "malformed": Credential("pl_x_y"),
        "empty": Credential("pl_"),
        "revoked": Credential(revoked.text),
        "expired": Credential(expired.text),
    }
