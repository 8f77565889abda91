"""When an attempt has to end, whatever its engine thinks. PURE: all times are monotonic seconds, passed in.

Measured from the claim's answer: a moment later than the database's own `attempt_at`, so never too early for it.
"""

from typing import Literal

from events.job import Job

Limit = Literal["attempt_timeout", "stall_timeout", "total_timeout", "cancelled"]


class Limits:
    """The four that can pass while an attempt runs; `start_timeout` cannot."""

    def __init__(self, job: Job, claimed_at: float) -> None:
        spent_s = ((job.attempt_at or job.opened_at) - job.opened_at) / 1000
        self._attempt_at = None if job.attempt_s is None else claimed_at + job.attempt_s
        self._total_at = None if job.total_s is None else claimed_at + job.total_s - spent_s
        self._stall_s = job.stall_s
        self._said_at = claimed_at
        self._cancel_at: float | None = None

    @property
    def deadline(self) -> float | None:
        """When the engine will be stopped even if all goes well."""
        return min((at for at in (self._attempt_at, self._total_at) if at is not None), default=None)

    @property
    def cancelled(self) -> bool:
        """Whether a cancel was asked."""
        return self._cancel_at is not None

    def said(self, now: float) -> None:
        """The engine gave a sign of life, or the log took one."""
        self._said_at = now

    def cancel(self, until: float) -> bool:
        """A cancel was asked, its grace ends at `until`. False when that was known; the earlier end counts."""
        first = self._cancel_at is None
        self._cancel_at = until if self._cancel_at is None else min(self._cancel_at, until)
        return first

    def next(self, now: float, *, busy: bool) -> tuple[Limit, float] | None:
        """The limit that passes first, and when; None for none. While `busy` (the log owes an answer) an engine may
        be waiting for us: its silence does not count."""
        limits: list[tuple[Limit, float | None]] = [
            ("cancelled", self._cancel_at),
            ("total_timeout", self._total_at),
            ("attempt_timeout", self._attempt_at),
            ("stall_timeout", self._stall_s and (now if busy else self._said_at) + self._stall_s),
        ]
        return min(((limit, at) for limit, at in limits if at is not None), key=lambda pair: pair[1], default=None)
