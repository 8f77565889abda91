"""Solves a `Problem` with HiGHS, in a thread that the caller never has to wait for.

One solver thread, a seed and no clock in its decisions: the same problem under the same limits gives the same plan,
unless time ran out or somebody stopped it. The calling thread only looks: at what was found so far, and whether to go
on. A solver deep in a cut round may answer a stop seconds later; it is left behind then, its best plan kept.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import highspy
import numpy as np

from engine_worker.engines.fpl.model import Model
from engine_worker.engines.fpl.problem import ChipCopy, FreeHit, Moves, Plan, Problem

# Below this relative gap a plan is called optimal: a twentieth of a point on a plan of a hundred and fifty.
REL_GAP = 3e-4
# How often the caller looks at the solver.
_LOOK_S = 0.05
# What a solver asked to stop, or over its time, is given to say where it was.
_GRACE_S = 0.3


@dataclass(frozen=True)
class Limits:
    """When a solve ends by itself. `nodes` None is no limit; `seconds` is wall time."""

    seconds: float
    rel_gap: float = REL_GAP
    nodes: int | None = None
    seed: int = 1


@dataclass(frozen=True)
class Solved:
    """How a solve ended. `status` is optimal, node_limit, time_limit, interrupted, infeasible or failed; `bound` in
    points, None when unknown; `plan` None when there is none."""

    plan: Plan | None
    status: str
    bound: float | None
    nodes: int
    seconds: float


@dataclass(frozen=True)
class Sight:
    """A look at a solver at work: the best plan if it is new since the last look, the bound, None before the first."""

    plan: Plan | None
    bound: float | None


def go_on(_sight: Sight) -> bool:
    """Watches nothing and stops nothing."""
    return True


def solve(
    problem: Problem,
    limits: Limits,
    *,
    open_weeks: Collection[int] | None = None,
    excluded: Sequence[Moves] = (),
    start: Plan | None = None,
    floor: float | None = None,
    watch: Callable[[Sight], bool] = go_on,
) -> Solved:
    """The best plan with transfers in the gameweeks of `open_weeks` (indices, default all).

    What is done before the first gameweek differs from each of `excluded`. `start` gives the solver a plan to improve
    on. Plans worth `floor` or less are no plans: the problem is infeasible when there is no better one. `watch` is called in this thread, some twenty times a second, and ends the solve by returning False.
    """
    weeks = range(len(problem.gameweeks)) if open_weeks is None else open_weeks
    solved = _Search(Model(problem, weeks, excluded), limits, start, floor).run(watch)
    return solved if floor is None else _above(solved, floor)


def _above(solved: Solved, floor: float) -> Solved:
    """What a solve that was cut off at `floor` proved: below it neither plans nor bounds say anything."""
    if solved.plan is not None and solved.plan.objective > floor:
        return replace(solved, bound=None if solved.bound is None else max(solved.bound, floor))
    if solved.status in ("optimal", "infeasible"):
        return replace(solved, plan=None, status="infeasible", bound=floor)
    return replace(solved, plan=None, bound=None if solved.bound is None else max(solved.bound, floor))


class Relaxation(NamedTuple):
    """The problem without whole numbers: nothing is worth more than `bound`; how much of each chip it plays when."""

    status: str
    bound: float
    shares: Mapping[tuple[str, int], float]


class Relaxed:
    """One linear program solved again and again with other chips fixed, each time from where the last one ended."""

    def __init__(self, problem: Problem) -> None:
        model = Model(problem, range(len(problem.gameweeks)))
        model.integer = [False] * len(model.integer)
        self._chips = {(copy.name, week): model.chip(copy.name, week) for copy in problem.chips for week in copy.weeks}
        self._lowest = {column: model.lower[column] for column in self._chips.values()}
        self._highs = _prepared(model, Limits(float("inf")))

    def solve(self, fixed: Mapping[tuple[str, int], float], seconds: float, go_on: Callable[[], bool]) -> Relaxation:
        """With these chips played (1) or not (0). `go_on` is asked as `watch` is in `solve`."""
        for key, column in self._chips.items():
            low = self._lowest[column]
            self._highs.changeColBounds(column, fixed.get(key, low), fixed.get(key, 1.0))
        done, began, status = threading.Event(), time.monotonic(), ""
        threading.Thread(target=self._work, args=(done,), name="relaxation", daemon=True).start()
        while not done.wait(_LOOK_S):
            if not go_on():
                status = "interrupted"
            elif time.monotonic() - began > seconds:
                status = "time_limit"
            if status:
                # The thread is left to itself: this object is not used again.
                return Relaxation(status, float("inf"), {})
        names = highspy.HighsModelStatus
        found = self._highs.getModelStatus()
        if found == names.kOptimal:
            values = self._highs.getSolution().col_value
            shares = {key: float(values[column]) for key, column in self._chips.items()}
            return Relaxation("optimal", float(self._highs.getInfo().objective_function_value), shares)
        impossible = found in (names.kInfeasible, names.kUnboundedOrInfeasible)
        return Relaxation("infeasible" if impossible else "failed", float("inf"), {})

    def _work(self, done: threading.Event) -> None:
        try:
            self._highs.run()
        finally:
            done.set()


def with_free_hits(problem: Problem, limits: Limits) -> Problem:
    """The problem with the best squad for each gameweek a free hit may be played in; quick.

    A gameweek whose squad was not found in time is taken from the chip's.
    """
    found = {}
    for week in sorted({week for copy in problem.chips if copy.name == "freehit" for week in copy.weeks}):
        cheap = _alone(problem, week, problem.selling, limits)
        risen = {e for e in problem.owned if problem.selling[e] != problem.cost[e]}
        dear = cheap
        if cheap is not None and cheap[0] & (risen | problem.banned):
            # Everybody at his full price, for the same money.
            full = {element: problem.cost[element] for element in problem.owned}
            lost = sum(full.values()) - sum(problem.selling.values())
            dear = _alone(replace(problem, bank=problem.bank - lost), week, full, limits)
        if cheap is not None and dear is not None:
            found[week] = FreeHit(*cheap, *dear)
    copies = (
        copy._replace(weeks=tuple(w for w in copy.weeks if copy.name != "freehit" or w in found))
        for copy in problem.chips
    )
    return replace(problem, chips=tuple(copy for copy in copies if copy.weeks), free_hits=found)


def _alone(
    problem: Problem, week: int, selling: Mapping[int, int], limits: Limits
) -> tuple[frozenset[int], float] | None:
    """The best squad for one gameweek out of all the money, and its points."""
    alone = replace(
        problem,
        gameweeks=(problem.gameweeks[week],),
        selling=selling,
        chips=(ChipCopy("wildcard", (0,)),),
        played={0: "wildcard"},
        free_hits={},
        locked=frozenset(),
        # What is left after the gameweek is not kept.
        worth=replace(problem.worth, free_transfer=0.0, bank=0.0),
    )
    plan = solve(alone, limits).plan
    return None if plan is None else (plan.weeks[0].squad, plan.weeks[0].xp_lineup + plan.weeks[0].xp_bench)


class _Search:
    def __init__(self, model: Model, limits: Limits, start: Plan | None, floor: float | None) -> None:
        self._began = time.monotonic()
        self._model = model
        self._limits = limits
        self._highs = _prepared(model, limits)
        if floor is not None:
            # HiGHS minimises inside, and takes this for its cut-off.
            self._highs.setOptionValue("objective_bound", -floor)
        if start is not None:
            solution = highspy.HighsSolution()
            solution.col_value = model.vector(start)
            self._highs.setSolution(solution)
        self._done = threading.Event()
        self._stop = False
        # Written by the solver's thread, read by the caller's: each is replaced as a whole.
        self._found: tuple[float, Any] | None = None
        self._bound: float | None = None
        self._nodes = 0
        self._failure: BaseException | None = None

    def run(self, watch: Callable[[Sight], bool]) -> Solved:
        thread = threading.Thread(target=self._work, name="solver", daemon=True)
        thread.start()
        status, known = "", None
        while not self._done.wait(_LOOK_S):
            found = self._found
            plan = None if found is None or found is known else self._model.plan(found[1])
            known = found
            if not watch(Sight(plan, self._bound)):
                status = "interrupted"
            elif time.monotonic() - self._began > self._limits.seconds + _GRACE_S:
                status = "time_limit"
            if status:
                self._stop = True
                self._done.wait(_GRACE_S)
                break
        if self._failure is not None:
            raise self._failure
        if self._done.is_set():
            return self._outcome(status)
        found = self._found
        plan = None if found is None else self._model.plan(found[1])
        return Solved(plan, status, self._bound, self._nodes, time.monotonic() - self._began)

    def _work(self) -> None:
        try:
            self._highs.cbMipInterrupt.subscribe(self._on_interrupt)
            self._highs.cbSimplexInterrupt.subscribe(self._on_simplex)
            self._highs.cbMipImprovingSolution.subscribe(self._on_improvement)
            self._highs.run()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._done.set()

    def _on_interrupt(self, event: Any) -> None:
        bound = _finite(event.data_out.mip_dual_bound)
        if bound is not None:
            self._bound = bound
        self._nodes = max(int(event.data_out.mip_node_count), 0)
        if self._stop:
            event.interrupt()

    def _on_simplex(self, event: Any) -> None:
        if self._stop:
            event.interrupt()

    def _on_improvement(self, event: Any) -> None:
        out = event.data_out
        self._found = (out.objective_function_value, np.array(out.mip_solution))

    def _outcome(self, asked: str) -> Solved:
        highs, names = self._highs, highspy.HighsModelStatus
        info = highs.getInfo()
        status = {
            names.kOptimal: "optimal",
            names.kTimeLimit: "time_limit",
            names.kInterrupt: asked or "interrupted",
            names.kSolutionLimit: "node_limit",
            names.kInfeasible: "infeasible",
            names.kUnboundedOrInfeasible: "infeasible",  # nothing here is unbounded
            names.kObjectiveBound: "infeasible",
        }.get(highs.getModelStatus(), "failed")
        values = highs.getSolution().col_value
        found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible and len(values) > 0
        plan = self._model.plan(values) if found else None
        seconds = time.monotonic() - self._began
        return Solved(plan, status, _finite(info.mip_dual_bound), max(int(info.mip_node_count), 0), seconds)


def _prepared(model: Model, limits: Limits) -> Any:
    lp = highspy.HighsLp()
    rows, columns, values = (np.array(part) for part in zip(*model.entries, strict=True))
    order = np.lexsort((rows, columns))
    counts = np.bincount(columns.astype(np.int32), minlength=len(model.cost))
    lp.num_col_, lp.num_row_ = len(model.cost), len(model.rows)
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = (
        np.array(v, dtype=float) for v in (model.cost, model.lower, model.upper)
    )
    lp.row_lower_ = np.array([low for low, _ in model.rows], dtype=float)
    lp.row_upper_ = np.array([high for _, high in model.rows], dtype=float)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    lp.a_matrix_.index_ = rows[order].astype(np.int32)
    lp.a_matrix_.value_ = values[order].astype(float)
    kinds = highspy.HighsVarType
    lp.integrality_ = [kinds.kInteger if whole else kinds.kContinuous for whole in model.integer]
    highs = _silent()
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", limits.seed),
        ("mip_rel_gap", limits.rel_gap),
        ("time_limit", max(limits.seconds, 0.05)),
        # Starting from the plan of the rung below, sub-problem searches and restarts cost a quarter of the time and
        # find nothing (measured on all made-up managers, horizons 2, 3 and 5).
        ("mip_heuristic_run_rins", False),
        ("mip_heuristic_run_rens", False),
        ("mip_allow_restart", False),
        # The formulation is tight: most cuts cost more than they close (a third of the time, on the same).
        ("mip_allow_cut_separation_at_nodes", False),
        ("mip_pool_soft_limit", 50),
    ):
        highs.setOptionValue(option, value)
    if limits.nodes is not None:
        highs.setOptionValue("mip_max_nodes", limits.nodes)
    highs.passModel(lp)
    return highs


@cache
def _banner_taken() -> None:
    """The first solver of a process prints a banner, before any option could tell it not to: it goes nowhere."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _silent() -> Any:
    _banner_taken()
    return highspy.Highs()


def _finite(value: float) -> float | None:
    return float(value) if abs(value) < 1e15 else None  # also refuses NaN: no comparison with it is true
