"""Solves a `Problem` to proven optimality with HiGHS, streaming what it finds and stopping when asked.

One thread and a fixed seed: the same problem gives the same plan.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np

from engine_worker.engines.fpl.model import Model
from engine_worker.engines.fpl.problem import (
    Chip,
    Plan,
    Problem,
    hold_plan,
    make_plan,
)  # fmt: skip

_SEED = 1
# Below this relative gap a plan is called optimal: a twentieth of a point on a plan of a hundred and fifty.
REL_GAP = 3e-4

Improved = Callable[[Plan, float | None], None]


@dataclass(frozen=True)
class Solved:
    """How a solve ended. `status` is optimal, time_limit, interrupted or failed; `bound` in points, None when
    unknown; `plan` None when there is none."""

    plan: Plan | None
    status: str
    bound: float | None
    nodes: int
    seconds: float


def _never_stop(_gap: float | None) -> bool:
    return False


def _say_nothing(_plan: Plan, _bound: float | None) -> None:
    pass


def solve(
    problem: Problem,
    *,
    transfer_weeks: int,
    time_limit_s: float,
    chip: Chip | None = None,
    start: Plan | None = None,
    rel_gap: float = REL_GAP,
    stop: Callable[[float | None], bool] = _never_stop,
    improved: Improved = _say_nothing,
) -> Solved:
    """The best plan with transfers in the first `transfer_weeks` gameweeks only.

    `start` gives the solver a plan to improve on; `stop` is asked often while it works, told the gap if
    there is one, and ends it when true; `improved` is called with each better plan and the proven bound.
    """
    began = time.monotonic()
    model = Model(problem, transfer_weeks, chip)
    highs = _prepared(model, time_limit_s, rel_gap)
    if start is not None:
        solution = highspy.HighsSolution()
        solution.col_value = model.vector(start)
        highs.setSolution(solution)
    _listen(highs, model, stop, improved)
    highs.run()
    return _outcome(highs, model, time.monotonic() - began)


def _prepared(model: Model, time_limit_s: float, rel_gap: float) -> Any:
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
    highs = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", _SEED),
        ("mip_rel_gap", rel_gap),
        ("time_limit", max(time_limit_s, 0.05)),
        # Starting from the plan of the rung below, sub-problem searches and restarts cost a quarter of the time and
        # find nothing (measured on all made-up managers, horizons 2, 3 and 5).
        ("mip_heuristic_run_rins", False),
        ("mip_heuristic_run_rens", False),
        ("mip_allow_restart", False),
    ):
        highs.setOptionValue(option, value)
    highs.passModel(lp)
    return highs


def _listen(highs: Any, model: Model, stop: Callable[[float | None], bool], improved: Improved) -> None:
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


def _outcome(highs: Any, model: Model, seconds: float) -> Solved:
    status, info = highs.getModelStatus(), highs.getInfo()
    names = highspy.HighsModelStatus
    ended = {
        names.kOptimal: "optimal",
        names.kTimeLimit: "time_limit",
        names.kInterrupt: "interrupted",
    }.get(status, "failed")
    solution = highs.getSolution()
    found = info.primal_solution_status == 2 and len(solution.col_value) > 0
    plan = model.plan(list(solution.col_value)) if found else None
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
