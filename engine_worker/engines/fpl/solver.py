"""Solves a `Problem` with HiGHS, in a thread that the caller never has to wait for.

One solver thread, a seed and no clock in its decisions: the same problem under the same limits gives the same plan,
unless time ran out or somebody stopped it. The calling thread only looks: at what was found so far, and whether to go
on. A solver deep in a cut round may answer a stop seconds later; it is left behind then, its best plan kept.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import highspy
import numpy as np

from engine_worker.engines.fpl.highs import changed_uppers, finite, prepared, program_of, status_of
from engine_worker.engines.fpl.model import Model
from engine_worker.engines.fpl.narrowing import Narrowing, narrowing
from engine_worker.engines.fpl.problem import ChipCopy, FreeHit, Moves, Plan, Problem

# Below this relative gap a plan is called optimal: a twentieth of a point on a plan of a hundred and fifty.
REL_GAP = 3e-4
# The first search among few players ends here: its plan is a floor for the proof, not the answer.
_FIRST_GAP = 2e-3
_FIRST_NODES = 1
# So close above the floor, as a share of the relaxation, a better plan is unlikely: the proof is tried at once.
_NEAR = 5e-3
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
    """The best plan with transfers in the gameweeks of `open_weeks` (indices, default all), none of `problem.instead`.

    What is done before the first gameweek differs from each of `excluded`. `start` gives the solver a plan to improve
    on. Plans worth `floor` or less are no plans: the problem is infeasible when there is no better one. `watch` is called in this thread, some twenty times a second, and ends the solve by returning False.
    """
    weeks = range(len(problem.gameweeks)) if open_weeks is None else open_weeks
    solved = _Search(Model(problem.begun_otherwise(), weeks, excluded), limits, start, floor).run(watch)
    return solved if floor is None else _above(solved, floor)


def _above(solved: Solved, floor: float) -> Solved:
    """What a solve that was cut off at `floor` proved: below it neither plans nor bounds say anything."""
    if solved.plan is not None and solved.plan.objective > floor:
        return replace(solved, bound=None if solved.bound is None else max(solved.bound, floor))
    if solved.status in ("optimal", "infeasible"):
        return replace(solved, plan=None, status="infeasible", bound=floor)
    return replace(solved, plan=None, bound=None if solved.bound is None else max(solved.bound, floor))


def with_free_hits(problem: Problem, limits: Limits, watch: Callable[[Sight], bool] = go_on) -> Problem:
    """The problem with the best squad for each gameweek a free hit may be played in; quick.

    `limits.seconds` are for all of them together, `watch` is as in `solve`. A gameweek whose squad was not found in time
    is taken from the chip's.
    """
    found: dict[int, FreeHit] = {}
    instead, began = dict(problem.instead), time.monotonic()

    def left() -> Limits:
        return replace(limits, seconds=limits.seconds - (time.monotonic() - began))

    def alone(week: int, of: Problem, selling: Mapping[int, int]) -> tuple[frozenset[int], float] | None:
        now = left()
        return _alone(of, week, selling, now, watch) if now.seconds > 0 else None

    weeks = {week for copy in problem.chips if copy.name == "freehit" for week in copy.weeks}
    if "freehit" in instead:
        # In the first gameweek it is played from the squad before the transfers that it undoes.
        weeks.discard(0)
        undone = with_free_hits(instead.pop("freehit"), left(), watch)
        if 0 in undone.free_hits:
            instead["freehit"], found[0] = undone, undone.free_hits[0]
    for week in sorted(weeks):
        cheap = alone(week, problem, problem.selling)
        risen = {e for e in problem.owned if problem.selling[e] != problem.cost[e]}
        dear = cheap
        if cheap is not None and cheap[0] & (risen | problem.banned):
            # Everybody at his full price, for the same money.
            full = {element: problem.cost[element] for element in problem.owned}
            lost = sum(full.values()) - sum(problem.selling.values())
            dear = alone(week, replace(problem, bank=problem.bank - lost), full)
        if cheap is not None and dear is not None:
            found[week] = FreeHit(*cheap, *dear)
    if "wildcard" in instead:
        # Transfers made with a wildcard stay made: the squads are the same.
        instead["wildcard"] = _hit_from(instead["wildcard"], found)
    return replace(_hit_from(problem, found), instead=instead)


def _hit_from(problem: Problem, found: Mapping[int, FreeHit]) -> Problem:
    """The problem with these squads, and a free hit in no other gameweek."""
    left = problem.keeping(lambda copy, week: copy.name != "freehit" or week in found)
    return replace(left, free_hits=found)


def _alone(
    problem: Problem, week: int, selling: Mapping[int, int], limits: Limits, watch: Callable[[Sight], bool]
) -> tuple[frozenset[int], float] | None:
    """The best squad for one gameweek out of all the money, and its points; None when the solve was ended early."""
    alone = replace(
        problem,
        gameweeks=(problem.gameweeks[week],),
        selling=selling,
        chips=(ChipCopy("wildcard", (0,)),),
        played={0: "wildcard"},
        free_hits={},
        instead={},
        given_back=0.0,
        locked=frozenset(),
        # What is left after the gameweek is not kept.
        worth=replace(problem.worth, free_transfer=0.0, bank=0.0),
    )
    solved = solve(alone, limits, watch=watch)
    if solved.plan is None or solved.status not in ("optimal", "node_limit"):
        return None
    week_alone = solved.plan.weeks[0]
    return week_alone.squad, week_alone.xp_lineup + week_alone.xp_bench


class _Search:
    """One solve in three steps, all in the solver's thread: the relaxation, a plan from few players, the proof."""

    def __init__(self, model: Model, limits: Limits, start: Plan | None, floor: float | None) -> None:
        self._began = time.monotonic()
        self._model = model
        self._limits = limits
        self._start = start
        self._floor = -inf if floor is None else floor
        self._done = threading.Event()
        self._stop = False
        # Written by the solver's thread, read by the caller's: each is replaced as a whole.
        self._found: tuple[float, Any] | None = None
        self._bound: float | None = None
        self._proving = False
        self._nodes = 0
        self._nodes_before = 0
        self._ended: Solved | None = None
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
        if self._done.is_set() and self._ended is not None:
            ended = self._ended
            return replace(ended, status=status) if status and ended.status == "interrupted" else ended
        found = self._found
        plan = None if found is None else self._model.plan(found[1])
        return self._so_far(plan, status)

    # -- in the solver's thread

    def _work(self) -> None:
        try:
            self._ended = self._solve()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._done.set()

    def _solve(self) -> Solved:
        program = program_of(self._model)
        highs = self._highs(program, [False] * len(self._model.integer), self._limits.rel_gap, None)
        self._run(highs)
        status = status_of(highs)
        if status != "optimal":
            return self._so_far(None, status)
        solution, worth = highs.getSolution(), float(highs.getInfo().objective_function_value)
        self._bound = max(worth, self._floor)
        if worth <= self._floor:
            return self._so_far(None, "infeasible")
        narrow = narrowing(self._model, worth, solution.col_value, solution.col_dual)
        plan = self._from_few(program, narrow)
        if self._stop:
            return self._so_far(plan, "interrupted")
        if plan is not None:
            gap = self._limits.rel_gap * max(abs(plan.objective), 1.0)
            self._floor = max(self._floor, plan.objective + gap)
            self._bound = max(worth, self._floor)
        if worth <= self._floor:
            return self._so_far(plan, "optimal")
        nodes = None if self._limits.nodes is None else self._limits.nodes - self._nodes
        if nodes is not None and nodes <= 0:
            return self._so_far(plan, "node_limit")
        return self._prove(program, narrow, plan, nodes)

    def _from_few(self, program: Any, narrow: Narrowing) -> Plan | None:
        """A good plan from the players it is likely made of, quickly; None where the proof is as quick without one."""
        start = self._start
        few = narrow.few({element for week in start.weeks for element in week.squad} if start is not None else ())
        near = narrow.worth - self._floor < _NEAR * max(abs(narrow.worth), 1.0)
        if near or not {element for _, element in narrow.above(self._floor)} - few:
            return None
        highs = self._highs(program, self._model.integer, max(self._limits.rel_gap, _FIRST_GAP), _FIRST_NODES)
        highs.changeColsBounds(*changed_uppers(self._model, narrow.uppers(lambda _week, element: element in few)))
        return self._searched(highs, start)

    def _prove(self, program: Any, narrow: Narrowing, plan: Plan | None, nodes: int | None) -> Solved:
        """The best plan of all, or that there is none better than the floor."""
        highs = self._highs(program, self._model.integer, self._limits.rel_gap, nodes)
        may = narrow.above(self._floor)
        highs.changeColsBounds(
            *changed_uppers(self._model, narrow.uppers(lambda week, element: (week, element) in may))
        )
        self._proving = True
        better = self._searched(highs, self._start if plan is None else None)
        status = status_of(highs)
        bound = finite(highs.getInfo().mip_dual_bound)
        if bound is not None and self._bound is not None:
            self._bound = min(self._bound, max(bound, self._floor))
        if better is not None and (plan is None or better.objective > plan.objective):
            plan = better
        elif status == "infeasible" and plan is not None:
            status, self._bound = "optimal", self._floor
        elif status == "infeasible":
            self._bound = None if self._floor == -inf else self._floor
        return self._so_far(plan, status)

    def _highs(self, program: Any, whole: Sequence[bool], gap: float, nodes: int | None) -> Any:
        left = self._limits.seconds - (time.monotonic() - self._began)
        highs = prepared(program, whole, seconds=left, gap=gap, nodes=nodes, seed=self._limits.seed)
        if self._floor > -inf:
            # HiGHS minimises inside, and takes this for its cut-off.
            highs.setOptionValue("objective_bound", -self._floor)
        return highs

    def _searched(self, highs: Any, start: Plan | None) -> Plan | None:
        if start is not None:
            solution = highspy.HighsSolution()
            solution.col_value = self._model.vector(start)
            highs.setSolution(solution)
        self._run(highs)
        info, values = highs.getInfo(), highs.getSolution().col_value
        self._nodes = self._nodes_before = self._nodes_before + max(int(info.mip_node_count), 0)
        found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible and len(values) > 0
        return self._model.plan(values) if found else None

    def _run(self, highs: Any) -> None:
        highs.cbMipInterrupt.subscribe(self._on_interrupt)
        highs.cbSimplexInterrupt.subscribe(self._on_simplex)
        highs.cbMipImprovingSolution.subscribe(self._on_improvement)
        highs.run()

    def _on_interrupt(self, event: Any) -> None:
        bound = finite(event.data_out.mip_dual_bound)
        if self._proving and bound is not None and self._bound is not None:
            self._bound = min(self._bound, max(bound, self._floor))
        self._nodes = self._nodes_before + max(int(event.data_out.mip_node_count), 0)
        if self._stop:
            event.interrupt()

    def _on_simplex(self, event: Any) -> None:
        if self._stop:
            event.interrupt()

    def _on_improvement(self, event: Any) -> None:
        out = event.data_out
        if self._found is None or out.objective_function_value > self._found[0]:
            self._found = (out.objective_function_value, np.array(out.mip_solution))

    def _so_far(self, plan: Plan | None, status: str) -> Solved:
        return Solved(plan, status, self._bound, self._nodes, time.monotonic() - self._began)
