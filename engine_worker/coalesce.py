"""Progress, thinned: viewers need to see movement, not every tick. PURE: the time is passed in.

Of each phase the first and the last progress pass, marks always, and in between at most one each 250 ms: the latest.
"""

from events.catalog import Progress

INTERVAL_S = 0.25


class Coalescer:
    """Holds back at most one progress event."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._held: Progress | None = None
        self._phase: str | None = None
        self._passed_at = 0.0

    def offer(self, event: Progress, now: float, *, mark: bool = False) -> list[Progress]:
        """What may pass now: nothing while `event` is held back, else what was held of an earlier phase and it."""
        if not mark and event.phase == self._phase and now < self._passed_at + self._interval_s:
            self._held = event
            return []
        # Held progress of the same phase is overtaken by this one; of another phase it was that phase's last.
        before = self.flush(now) if mark or event.phase != self._phase else []
        self._held = None
        self._phase = event.phase
        self._passed_at = now
        return [*before, event]

    def flush(self, now: float) -> list[Progress]:
        """What is held back: before any other event, and at the end."""
        if self._held is None:
            return []
        held, self._held = self._held, None
        self._passed_at = now
        return [held]

    def due_at(self) -> float | None:
        """When what is held back may pass, None when nothing is."""
        return None if self._held is None else self._passed_at + self._interval_s
