"""Solves a `Problem` to proven optimality with HiGHS, streaming what it finds and stopping when asked.

Columns per gameweek and player: in the squad, bought, sold (integer), starts, captain (continuous: with the squad
fixed the lineup is a flow and comes out whole). Per gameweek: bank, hits, free transfers. Free transfers need no
case distinction: `hits ≥ made − free` and `free' ≤ free − made + hits + 1` are tight because a hit costs more than
the free transfer it would save. Vice captain and bench order follow from the squad (`lineup.py`).

Restriction: an owned player is sold at most once over the horizon, so that his locked price is paid once.
One thread and a fixed seed: the same problem gives the same plan.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np

from engine_worker.engines.fpl.lineup import bench_weight
from engine_worker.engines.fpl.problem import (
    BANK_VALUE_PTS, FREE_TRANSFER_VALUE_PTS, HIT_MARGIN_PTS, Chip, Plan, Problem, chip_at, excess_clubs, hold_plan,
    make_plan, unlimited,
)  # fmt: skip
from engine_worker.engines.fpl.rules import HIT_COST_PTS, UNLIMITED_CHIPS

_INFINITY = highspy.kHighsInf
_SEED = 1
# Below this relative gap a plan is called optimal: a twentieth of a point on a plan of a hundred and fifty.
REL_GAP = 3e-4
_INTEGER_KINDS = ("squad", "buy", "sell")

Improved = Callable[[Plan, float | None], None]


@dataclass(frozen=True)
class Solved:
    """How a solve ended. `status` is optimal, time_limit, interrupted or infeasible; `bound` in points, None when
    unknown; `plan` None when there is none."""

    plan: Plan | None
    status: str
    bound: float | None
    nodes: int
    seconds: float


def solve(
    problem: Problem,
    *,
    transfer_weeks: int,
    time_limit_s: float,
    chip: Chip | None = None,
    start: Plan | None = None,
    rel_gap: float = REL_GAP,
    stop: Callable[[float | None], bool] = lambda gap: False,
    improved: Improved = lambda plan, bound: None,
) -> Solved:
    """The best plan with transfers in the first `transfer_weeks` gameweeks only.

    `start` gives the solver a plan to improve on; `stop` is asked often while it works, told the gap if
    there is one, and ends it when true; `improved` is called with each better plan and the proven bound.
    """
    began = time.monotonic()
    model = _Model(problem, transfer_weeks, chip)
    highs = _prepared(model, time_limit_s, rel_gap)
    if start is not None:
        highs.setSolution(model.vector(start))
    _listen(highs, model, stop, improved)
    highs.run()
    return _outcome(highs, model, time.monotonic() - began)


class _Model:
    """The columns and rows of one problem, kept as triplets until HiGHS takes them."""

    def __init__(self, problem: Problem, transfer_weeks: int, chip: Chip | None) -> None:
        self.problem, self.chip = problem, chip
        self._transfer_weeks = transfer_weeks
        self._weeks = range(len(problem.gameweeks))
        self._index: dict[tuple[str, int, int], int] = {}
        self.cost: list[float] = []
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.integer: list[bool] = []
        self.rows: list[tuple[float, float]] = []
        self.entries: list[tuple[int, int, float]] = []
        self._add_columns()
        for week in self._weeks:
            self._add_squad_rows(week)
            self._add_lineup_rows(week)
            self._add_money_rows(week)
            self._add_transfer_rows(week)
        self._add_locked_price_rows()
        self._add_club_rows()

    def column(self, kind: str, week: int, element: int = 0) -> int:
        """The column of a variable."""
        return self._index[kind, week, element]

    def swaps(self, values: Sequence[float]) -> list[tuple[list[int], list[int]]]:
        """The transfers of a solution, (sold, bought) per gameweek."""

        def chosen(kind: str, week: int) -> list[int]:
            return [e for e in self.problem.elements if values[self.column(kind, week, e)] > 0.5]

        return [(chosen("sell", week), chosen("buy", week)) for week in self._weeks]

    def plan(self, values: Sequence[float]) -> Plan:
        """The plan of a solution."""
        return make_plan(self.problem, self.swaps(values), self.chip)

    def vector(self, plan: Plan) -> Any:
        """A plan as a starting solution. Free transfers are what they are; nothing else is left to guess."""
        values = np.zeros(len(self.cost))
        for week, planned in enumerate(plan.weeks):
            for kind, elements in (
                ("squad", planned.squad),
                ("buy", planned.bought),
                ("sell", planned.sold),
                ("start", planned.lineup.starters),
                ("captain", (planned.lineup.captain,)),
            ):
                for element in elements:
                    values[self.column(kind, week, element)] = 1.0
            values[self.column("bank", week)] = planned.bank
            values[self.column("hit", week)] = planned.hits
            values[self.column("free", week)] = planned.free_transfers
        values[self.column("free", len(plan.weeks))] = plan.free_transfers_after
        for club in excess_clubs(self.problem):
            for week, planned in enumerate(plan.weeks):
                if any(earlier.bought for earlier in plan.weeks[: week + 1]):
                    values[self.column("moved", week, club)] = 1.0
        solution = highspy.HighsSolution()
        solution.col_value = list(values)
        return solution

    def _new(self, kind: str, week: int, element: int, cost: float, low: float, high: float, whole: bool) -> None:
        self._index[kind, week, element] = len(self.cost)
        self.cost.append(cost)
        self.lower.append(low)
        self.upper.append(high)
        self.integer.append(whole)

    def _row(self, low: float, high: float, terms: Sequence[tuple[int, float]]) -> None:
        row = len(self.rows)
        self.rows.append((low, high))
        self.entries += [(row, column, value) for column, value in terms]

    def _add_columns(self) -> None:
        problem = self.problem
        for week in self._weeks:
            weight, played = problem.weight(week), chip_at(self.chip, week)
            captain = 2.0 if played == "3xc" else 1.0
            for element in problem.elements:
                points = weight * problem.xp[problem.gameweeks[week]][element]
                benched = points * (1.0 if played == "bboost" else bench_weight(problem.position[element]))
                may_buy, may_sell = self._may_trade(week, element)
                held = float(element in problem.locked)
                self._new("squad", week, element, benched, held, 1, True)
                self._new("buy", week, element, 0, 0, float(may_buy), True)
                self._new("sell", week, element, 0, 0, float(may_sell), True)
                self._new("start", week, element, points - benched, 0, 1, False)
                self._new("captain", week, element, captain * points, 0, 1, False)
            last = week == self._weeks[-1]
            self._new("bank", week, 0, BANK_VALUE_PTS if last else 0, 0, _INFINITY, False)
            self._new("hit", week, 0, -HIT_COST_PTS - HIT_MARGIN_PTS, 0, problem.max_hits, True)
            free = problem.free_transfers
            self._new("free", week, 0, 0, free if week == 0 else 0, free if week == 0 else self._most_free, True)
        self._new("free", len(self._weeks), 0, FREE_TRANSFER_VALUE_PTS, 0, self._most_free, True)

    @property
    def _most_free(self) -> int:
        # A chip that keeps the banked transfers keeps even more than could be earned, were a caller to claim them.
        return max(self.problem.rules.free_transfers_max, self.problem.free_transfers)

    def _may_trade(self, week: int, element: int) -> tuple[bool, bool]:
        problem = self.problem
        if week >= self._transfer_weeks:
            return False, False
        owned_at_start = week == 0 and element in problem.owned
        may_buy = element not in problem.banned and not owned_at_start
        may_sell = element not in problem.locked and (week > 0 or element in problem.owned)
        return may_buy, may_sell

    def _add_squad_rows(self, week: int) -> None:
        problem = self.problem
        for element in problem.elements:
            terms = [(self.column("squad", week, element), 1.0)]
            terms += [(self.column("buy", week, element), -1.0), (self.column("sell", week, element), 1.0)]
            before = float(element in problem.owned)
            if week > 0:
                terms.append((self.column("squad", week - 1, element), -1.0))
                before = 0.0
            self._row(before, before, terms)
        for rule in problem.rules.positions:
            group = [e for e in problem.elements if problem.position[e] == rule.position]
            self._row(rule.squad, rule.squad, self._sum("squad", week, group))
            self._row(rule.play_min, rule.play_max, self._sum("start", week, group))

    def _add_lineup_rows(self, week: int) -> None:
        for element in self.problem.elements:
            squad, start = self.column("squad", week, element), self.column("start", week, element)
            self._row(-_INFINITY, 0, [(start, 1), (squad, -1)])
            self._row(-_INFINITY, 0, [(self.column("captain", week, element), 1), (start, -1)])
        eleven = self.problem.rules.eleven_size
        self._row(eleven, eleven, self._sum("start", week, self.problem.elements))
        self._row(1, 1, self._sum("captain", week, self.problem.elements))

    def _add_money_rows(self, week: int) -> None:
        problem = self.problem
        terms = [(self.column("bank", week), 1.0)]
        for element in problem.elements:
            terms.append((self.column("buy", week, element), float(problem.cost[element])))
            worth = problem.selling.get(element, problem.cost[element])
            terms.append((self.column("sell", week, element), -float(worth)))
        before = float(problem.bank)
        if week > 0:
            terms.append((self.column("bank", week - 1), -1.0))
            before = 0.0
        self._row(before, before, terms)

    def _add_transfer_rows(self, week: int) -> None:
        problem, rules = self.problem, self.problem.rules
        free, after, hit = self.column("free", week), self.column("free", week + 1), self.column("hit", week)
        made = self._sum("buy", week, problem.elements)
        if problem.gameweeks[week] + 1 in rules.topped_up:
            topped = rules.topped_up[problem.gameweeks[week] + 1]
            self._row(topped, topped, [(after, 1.0)])
        elif unlimited(problem, week, self.chip):
            kept = chip_at(self.chip, week) in UNLIMITED_CHIPS and not rules.chip_resets_free_transfers
            self._row(0 if kept else 1, 0 if kept else 1, [(after, 1.0)] + ([(free, -1.0)] if kept else []))
        else:
            self._row(-_INFINITY, rules.free_transfers_max, [(after, 1.0)])
            self._row(-_INFINITY, 1, [(after, 1.0), (free, -1.0), (hit, -1.0), *made])
        if not unlimited(problem, week, self.chip):
            self._row(0, _INFINITY, [(hit, 1.0), (free, 1.0), *[(column, -1.0) for column, _ in made]])

    def _add_locked_price_rows(self) -> None:
        for element in sorted(self.problem.owned):
            self._row(-_INFINITY, 1, [(self.column("sell", week, element), 1.0) for week in self._weeks])

    def _add_club_rows(self) -> None:
        """At most three of a club. A squad that a real transfer took above may stay so until its next transfer."""
        problem, limit = self.problem, self.problem.rules.club_limit
        excess = excess_clubs(problem)
        for club in sorted(set(problem.club.values())):
            group = [e for e in problem.elements if problem.club[e] == club]
            over = sum(e in problem.owned for e in group) - limit
            for week in self._weeks:
                terms = self._sum("squad", week, group)
                if club in excess:
                    self._new("moved", week, club, 0, 0, 1, True)
                    moved = self.column("moved", week, club)
                    terms.append((moved, float(over)))
                    for earlier in range(week + 1):
                        for element in problem.elements:
                            self._row(-_INFINITY, 0, [(self.column("buy", earlier, element), 1.0), (moved, -1.0)])
                self._row(-_INFINITY, limit + max(over, 0), terms)

    def _sum(self, kind: str, week: int, elements: Sequence[int]) -> list[tuple[int, float]]:
        return [(self.column(kind, week, element), 1.0) for element in elements]


def _prepared(model: _Model, time_limit_s: float, rel_gap: float) -> Any:
    lp = highspy.HighsLp()
    rows, columns, values = (np.array(part) for part in zip(*model.entries, strict=True))
    order = np.lexsort((rows, columns))
    counts = np.bincount(columns.astype(np.int32), minlength=len(model.cost))
    lp.num_col_, lp.num_row_ = len(model.cost), len(model.rows)
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = (np.array(v, dtype=float) for v in (model.cost, model.lower, model.upper))
    lp.row_lower_ = np.array([low for low, _ in model.rows], dtype=float)
    lp.row_upper_ = np.array([high for _, high in model.rows], dtype=float)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    lp.a_matrix_.index_ = rows[order].astype(np.int32)
    lp.a_matrix_.value_ = values[order].astype(float)
    kinds = highspy.HighsVarType
    lp.integrality_ = [kinds.kInteger if whole else kinds.kContinuous for whole in model.integer]
    highs = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", _SEED),
        ("mip_rel_gap", rel_gap),
        ("time_limit", max(time_limit_s, 0.05)),
    ):
        highs.setOptionValue(option, value)
    highs.passModel(lp)
    return highs


def _listen(highs: Any, model: _Model, stop: Callable[[float | None], bool], improved: Improved) -> None:
    def on_interrupt(event: Any) -> None:
        if stop(_finite(event.data_out.mip_gap)):
            event.interrupt()

    def on_simplex(event: Any) -> None:
        if stop(None):
            event.interrupt()

    def on_improvement(event: Any) -> None:
        out = event.data_out
        improved(model.plan(list(out.mip_solution)), _finite(out.mip_dual_bound))

    highs.cbMipInterrupt.subscribe(on_interrupt)
    highs.cbSimplexInterrupt.subscribe(on_simplex)
    highs.cbMipImprovingSolution.subscribe(on_improvement)


def _outcome(highs: Any, model: _Model, seconds: float) -> Solved:
    status, info = highs.getModelStatus(), highs.getInfo()
    names = highspy.HighsModelStatus
    ended = {
        names.kOptimal: "optimal",
        names.kTimeLimit: "time_limit",
        names.kInterrupt: "interrupted",
        names.kInfeasible: "infeasible",
    }.get(status, "failed")
    solution = highs.getSolution()
    found = info.primal_solution_status == 2 and len(solution.col_value) > 0
    plan = model.plan(list(solution.col_value)) if found and ended != "infeasible" else None
    return Solved(plan, ended, _finite(info.mip_dual_bound), max(int(info.mip_node_count), 0), seconds)


def solve_free_hit(problem: Problem, *, time_limit_s: float, stop: Callable[[float | None], bool]) -> Solved:
    """The best plan with a free hit in the first gameweek: its squad is bought for one gameweek and handed back, so
    that gameweek and the others are two problems of their own."""
    began = time.monotonic()
    chip = Chip("freehit")
    now = solve(problem.part(0, 1), transfer_weeks=1, time_limit_s=time_limit_s, chip=chip, stop=stop)
    swaps = [(week.sold, week.bought) for week in now.plan.weeks] if now.plan else []
    status = now.status
    if len(problem.gameweeks) > 1 and now.plan:
        later = replace(problem.part(1, len(problem.gameweeks)), free_transfers=now.plan.free_transfers_after)
        left = max(time_limit_s - now.seconds, 0.1)
        rest = solve(later, transfer_weeks=len(later.gameweeks), time_limit_s=left, stop=stop)
        swaps += [(week.sold, week.bought) for week in (rest.plan or hold_plan(later)).weeks]
        status = status if status != "optimal" else rest.status
    plan = make_plan(problem, swaps, chip) if now.plan else None
    return Solved(plan, status, None, now.nodes, time.monotonic() - began)


def _finite(value: float) -> float | None:
    return float(value) if abs(value) < 1e15 else None  # also refuses NaN: no comparison with it is true
