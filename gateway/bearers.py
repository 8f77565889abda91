"""What a gateway asks of bearer tokens. What judges them is in `tokens.py`, loaded only where there is an issuer: its library
is 9 MiB of a process."""

from dataclasses import dataclass
from typing import Protocol

from events.keys import Scope


class BadToken(Exception):
    """A token that is not good here; the text says why."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token names; `until` is when it ends, in ms."""

    tenant: str
    subject: str
    scopes: frozenset[Scope]
    until: int


class Bearers(Protocol):
    """Judges tokens of one issuer."""

    async def who(self, text: str) -> Bearer:
        """Whom a token names. Raises `BadToken`; `IssuerAway` while its key cannot be had."""

    async def run(self) -> None:
        """Follows the issuer's keys until cancelled."""
