"""What viewers see while the solver works: better plans, bounds that come down, and progress that is real."""

import time
from collections import deque
from typing import Any

from engine_worker.engines.fpl.problem import Plan
from phaseline import Context

# At most so many `incumbent` events in any second. What comes faster waits for room, and the latest wins.
PER_SECOND = 4
_PROGRESS_EVERY_S = 0.25
# The share of the gap that a lower bound must close to be told.
_BOUND_NEWS = 0.05


class Live:
    """Speaks for one attempt. Plans only get better, and within a stage the bound only falls."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._began = time.monotonic()
        self._sent: deque[float] = deque(maxlen=PER_SECOND)
        self._waiting: dict[str, Any] | None = None
        self._stage = ""
        self._best: Plan | None = None
        self._bound: float | None = None
        self._told: dict[str, Any] | None = None
        self._progress_at = 0.0

    def show(self, stage: str, plan: Plan, bound: float | None) -> None:
        """A look at the search: its best plan and proven bound."""
        if stage != self._stage:
            self.flush()
            self._stage, self._bound = stage, None
        if self._best is None or plan.objective >= self._best.objective:
            self._best = plan
        if bound is not None:
            self._bound = bound if self._bound is None else min(self._bound, bound)
        value = self._value()
        if self._is_news(value):
            self._told, self._waiting = value, value
        self.tick()

    def tick(self) -> None:
        """Sends what waits as soon as there is room."""
        if self._waiting and self._room() <= 0:
            self._send()

    def flush(self) -> None:
        """Sends what still waits, after the moment it has to wait for room."""
        if self._waiting:
            time.sleep(max(self._room(), 0.0))
            self._send()

    def progress(self, share: float, message: str | None = None) -> None:
        """How far the phase is; calls in quick succession cost nothing."""
        now = time.monotonic()
        if share >= 1 or now - self._progress_at >= _PROGRESS_EVERY_S:
            self._progress_at = now
            self._context.progress(share, message)

    def _is_news(self, value: dict[str, Any]) -> bool:
        told = self._told
        if told is None or any(told[key] != value[key] for key in ("stage", "objective_pts", "transfers")):
            return True
        if value["bound_pts"] is None:
            return False
        if told["bound_pts"] is None:
            return True
        # A bound creeps down for seconds; what closes little of the gap is not worth an event for ever.
        left = told["bound_pts"] - value["objective_pts"]
        return bool(told["bound_pts"] - value["bound_pts"] > _BOUND_NEWS * left)

    def _room(self) -> float:
        """Seconds until one more may be sent."""
        return self._sent[0] + 1.0 - time.monotonic() if len(self._sent) == PER_SECOND else 0.0

    def _send(self) -> None:
        self._sent.append(time.monotonic())
        self._context.partial("incumbent", self._waiting)
        self._waiting = None

    def _value(self) -> dict[str, Any]:
        plan = self._best
        assert plan is not None
        # A bound below the plan is one of an earlier moment or rounding; it would be read as a negative gap.
        bound = None if self._bound is None else max(self._bound, plan.objective)
        gap = None if bound is None else (bound - plan.objective) / max(abs(plan.objective), 1.0)
        return {
            "stage": self._stage,
            "objective_pts": round(plan.objective, 2),
            "bound_pts": None if bound is None else round(bound, 2),
            "gap": None if gap is None else round(gap, 5),
            "transfers": [
                {
                    "gameweek": week.gameweek,
                    "sold": list(week.sold),
                    "bought": list(week.bought),
                    "hits": week.hits,
                    "chip": week.chip,
                }
                for week in plan.weeks
                if week.bought or week.chip
            ],
            "captain": plan.weeks[0].lineup.captain,
            "elapsed_s": round(time.monotonic() - self._began, 2),
        }
