"""Port: legal holds. While a job is held nothing of it may go, whoever asks: an erasure is refused.

Each change is an act with its actor and reason, kept for ever beside the job; the newest one says whether it is held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

REASON_CHARS_MAX = 1000


@dataclass(frozen=True, slots=True)
class HoldAct:
    """Somebody held a job, or let it go. `at` in ms."""

    job_id: str
    tenant: str
    held: bool
    at: int
    actor: str
    address: str | None
    reason: str


class Holds(Protocol):
    """Where they are kept: in the log's database. Every call raises `LogUnavailable` within its deadline."""

    async def hold(self, act: HoldAct) -> None:
        """Keeps an act, at the database's time, also in the tenant's audit stream (`events/acts.py`). Waits for an erasure of
        the job that is under way, or for retention; raises `JobArchived` when that discarded it."""

    async def hold_acts(self, job_id: str) -> list[HoldAct]:
        """A job's, the oldest first."""


def is_held(acts: Sequence[HoldAct]) -> bool:
    """Whether a job with these acts is held."""
    return bool(acts) and acts[-1].held
