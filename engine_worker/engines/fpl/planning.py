"""The phase `analyzing_transfers`: a ladder of plans, each shown as soon as it is found, and what each chip would add.

hold (no transfer) → this gameweek's transfers only → the full horizon. Every rung is a legal plan, so that whoever
stops the job keeps the best one so far.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine_worker.engines.fpl.problem import Chip, Plan, Problem, hold_plan
from engine_worker.engines.fpl.rules import UNLIMITED_CHIPS, ChipWindow
from engine_worker.engines.fpl.solver import REL_GAP, Solved, solve, solve_free_hit
from phaseline import Context

# Shares of the phase each rung takes of its progress bar, in order.
_SHARES = {"hold": (0.0, 0.02), "this_gameweek": (0.02, 0.1), "horizon": (0.1, 0.75), "chip": (0.75, 1.0)}
# Valuing a chip needs no proof to the last decimal; half a per cent is about a point.
_CHIP_GAP = 5e-3
# Kept of the attempt's time to write the decision after the last solve.
_RESERVE_S = 1.0
# Between two progress calls from inside the solver, which asks hundreds of times a second.
_SPEAK_EVERY_S = 0.25


@dataclass(frozen=True)
class ChipValue:
    """What a chip adds to the plan, now and in its best gameweek of the horizon."""

    name: str
    window: ChipWindow
    value_now: float
    best_gameweek: int
    best_value: float
    use_now: bool
    reason: str


@dataclass
class Analysis:
    """The best plan so far, how it was found, and the chips."""

    problem: Problem
    hold: Plan
    plan: Plan
    stage: str = "hold"
    status: str = "interrupted"
    bound: float | None = None
    nodes: int = 0
    chips: list[ChipValue] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def gap(self) -> float | None:
        """Relative distance to the proven bound, None when nothing is proven."""
        if self.bound is None:
            return None
        return max(self.bound - self.plan.objective, 0.0) / max(abs(self.plan.objective), 1.0)


class Ladder:
    """Climbs the rungs for one attempt, within its time and until it is asked to stop."""

    def __init__(self, problem: Problem, chips: list[str], time_limit_s: float, context: Context) -> None:
        hold = hold_plan(problem)
        self.analysis = Analysis(problem, hold, hold)
        self._chips = chips
        self._context = context
        self._began = time.monotonic()
        self._limit = time_limit_s
        self._spoke = 0.0
        self._first_gap: float | None = None

    def climb(self, offer: Callable[[Analysis], None]) -> Analysis:
        """The best plan found; `offer` is called with the analysis after each rung.

        Raises `Cancelled` when the job was asked to stop, after offering the best plan so far.
        """
        self._show("hold", None)
        offer(self.analysis)
        horizon = len(self.analysis.problem.gameweeks)
        for stage, weeks in (("this_gameweek", 1), ("horizon", horizon))[: min(horizon, 2)]:
            if self._left() > 0:
                self._rung(stage, weeks)
                offer(self.analysis)
            self._context.raise_if_cancelled()
        self._value_chips()
        self._context.raise_if_cancelled()
        self._play_chip()
        self._context.raise_if_cancelled()
        return self.analysis

    def _rung(self, stage: str, transfer_weeks: int) -> None:
        analysis, self._first_gap = self.analysis, None
        spoken = self._spoke

        def improved(plan: Plan, bound: float | None) -> None:
            # The solver restates the plan it was given; and a burst of small steps would tell nobody anything.
            nonlocal spoken
            now = time.monotonic()
            if plan.objective > analysis.plan.objective + 1e-6 and now - spoken >= _SPEAK_EVERY_S:
                spoken = now
                self._say(stage, plan, bound)

        solved = solve(
            analysis.problem,
            transfer_weeks=transfer_weeks,
            time_limit_s=self._left(),
            start=analysis.plan,
            stop=lambda gap: self._watch(stage, gap),
            improved=improved,
        )
        self._take(stage, solved, transfer_weeks)
        self._show(stage, solved.bound)

    def _take(self, stage: str, solved: Solved, transfer_weeks: int) -> None:
        analysis = self.analysis
        analysis.seconds[stage] = analysis.seconds.get(stage, 0.0) + solved.seconds
        # A solve that was stopped before its first plan leaves the rung below standing.
        if solved.plan is not None and solved.plan.objective >= analysis.plan.objective - 1e-6:
            analysis.plan, analysis.stage = solved.plan, stage
        analysis.nodes += solved.nodes
        # A bound on plans with transfers in the first gameweek only says nothing of the others.
        if transfer_weeks == len(analysis.problem.gameweeks):
            analysis.status, analysis.bound = solved.status, solved.bound

    def _value_chips(self) -> None:
        for number, name in enumerate(self._chips):
            window = self.analysis.problem.rules.window(name, self.analysis.problem.gameweeks[0])
            if window is None or self._stopping():
                continue
            value = self._transfer_chip(name, window) if name in UNLIMITED_CHIPS else self._team_chip(name, window)
            if value is not None:
                self.analysis.chips.append(value)
                self._context.partial("chip_value", {"chip": name, "value_now_pts": round(value.value_now, 2)})
            self._progress("chip", (number + 1) / len(self._chips))

    def _team_chip(self, name: str, window: ChipWindow) -> ChipValue:
        """Bench boost or triple captain on the lineups of the plan, in each gameweek of the window."""
        analysis = self.analysis
        worth: dict[int, float] = {}
        for week in analysis.plan.weeks:
            xp = analysis.problem.xp[week.gameweek]
            if week.gameweek <= window.stop and week.chip is None:
                boost = sum(xp[element] for element in week.lineup.bench) - week.xp_bench
                worth[week.gameweek] = boost if name == "bboost" else xp[week.lineup.captain]
        now = analysis.problem.gameweeks[0]
        best = max(worth, key=lambda gameweek: worth[gameweek])
        if best != now:
            verdict = False, f"gameweek {best} is worth more"
        elif window.stop > analysis.problem.gameweeks[-1]:
            verdict = False, f"may be played until gameweek {window.stop}, beyond the gameweeks planned"
        else:
            verdict = True, f"the best gameweek left, the chip is lost after gameweek {window.stop}"
        return ChipValue(name, window, worth[now], best, worth[best], *verdict)

    def _transfer_chip(self, name: str, window: ChipWindow) -> ChipValue | None:
        """Wildcard or free hit now against the plan without; None when it was not solved in time."""
        if self._left() <= 0:
            return None
        solved = self._solve_chip(Chip(name), _CHIP_GAP)
        if solved.plan is None or solved.status != "optimal":
            return None
        now = self.analysis.problem.gameweeks[0]
        value = solved.plan.objective - self.analysis.plan.objective
        last = window.stop == now and value > 0
        reason = f"lost after gameweek {now}" if last else f"may be played until gameweek {window.stop}"
        return ChipValue(name, window, value, now, value, last, reason)

    def _play_chip(self) -> None:
        """Solves again with the chip that is due, if one is."""
        due = [chip for chip in self.analysis.chips if chip.use_now]
        if not due or self._left() <= 0:
            return
        chosen = max(due, key=lambda chip: chip.value_now)
        solved = self._solve_chip(Chip(chosen.name), REL_GAP)
        if solved.plan is not None and solved.plan.objective > self.analysis.plan.objective:
            self._take("chip", solved, len(self.analysis.problem.gameweeks))
            self._show("chip", self.analysis.bound)

    def _solve_chip(self, chip: Chip, gap: float) -> Solved:
        problem, left = self.analysis.problem, self._left()

        def stop(_: float | None) -> bool:
            return self._stopping()

        if chip.name == "freehit":
            solved = solve_free_hit(problem, time_limit_s=left, stop=stop)
        else:
            weeks = len(problem.gameweeks)
            solved = solve(problem, transfer_weeks=weeks, time_limit_s=left, chip=chip, rel_gap=gap, stop=stop)
        key = f"chip_{chip.name}"
        self.analysis.seconds[key] = self.analysis.seconds.get(key, 0.0) + solved.seconds
        return solved

    def _left(self) -> float:
        """Seconds the solver may still use."""
        left = self._limit - (time.monotonic() - self._began)
        return left if self._context.deadline is None else min(left, self._context.deadline - _RESERVE_S)

    def _stopping(self) -> bool:
        return self._context.cancelled or self._context.draining

    def _watch(self, stage: str, gap: float | None) -> bool:
        """Asked by the solver as it works: speaks of progress now and then, and says whether to stop."""
        now = time.monotonic()
        if gap is not None and gap > 0 and self._first_gap is None:
            self._first_gap = gap
        if now - self._spoke >= _SPEAK_EVERY_S:
            self._spoke = now
            closed = 1 - gap / self._first_gap if gap is not None and self._first_gap else 0.0
            used = 1 - self._left() / self._limit
            self._progress(stage, max(closed, used), None if gap is None else f"gap {100 * gap:.2f} %")
        return self._stopping()

    def _progress(self, stage: str, share: float, text: str | None = None) -> None:
        low, high = _SHARES[stage]
        self._context.progress(low + (high - low) * min(max(share, 0.0), 1.0), text)

    def _show(self, stage: str, bound: float | None) -> None:
        self._say(stage, self.analysis.plan, bound)
        self._progress(stage, 1.0)

    def _say(self, stage: str, plan: Plan, bound: float | None) -> None:
        # A bound below the plan is one of an earlier moment or rounding; it would be read as a negative gap.
        bound = None if bound is None else max(bound, plan.objective)
        gap = None if bound is None else (bound - plan.objective) / max(abs(plan.objective), 1.0)
        moves = [
            {"gameweek": week.gameweek, "sold": list(week.sold), "bought": list(week.bought), "hits": week.hits}
            for week in plan.weeks
            if week.bought
        ]
        value: dict[str, Any] = {
            "stage": stage,
            "objective_pts": round(plan.objective, 2),
            "bound_pts": None if bound is None else round(bound, 2),
            "gap": None if gap is None else round(gap, 5),
            "transfers": moves,
            "captain": plan.weeks[0].lineup.captain,
            "elapsed_s": round(time.monotonic() - self._began, 2),
        }
        self._context.partial("incumbent", value)
