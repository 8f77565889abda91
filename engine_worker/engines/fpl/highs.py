"""Programs and settings as HiGHS takes them. One solver thread, a seed: the same program ends the same way."""

import os
import sys
from collections.abc import Sequence
from functools import cache
from math import inf
from typing import Any

import highspy
import numpy as np

from engine_worker.engines.fpl.model import Model


def status_of(highs: Any) -> str:
    """How a run ended, in the words of `solver.Solved`."""
    names = highspy.HighsModelStatus
    return {
        names.kOptimal: "optimal",
        names.kTimeLimit: "time_limit",
        names.kInterrupt: "interrupted",
        names.kSolutionLimit: "node_limit",
        names.kInfeasible: "infeasible",
        names.kUnboundedOrInfeasible: "infeasible",  # nothing here is unbounded
        names.kObjectiveBound: "infeasible",
    }.get(highs.getModelStatus(), "failed")


def changed_uppers(model: Model, upper: Sequence[float]) -> tuple[Any, ...]:
    """The columns whose upper bound is another than in the model, as HiGHS takes them."""
    changed = [column for column, (old, new) in enumerate(zip(model.upper, upper, strict=True)) if old != new]
    lower = [model.lower[column] for column in changed]
    return len(changed), np.array(changed, np.int32), np.array(lower), np.array([upper[c] for c in changed])


def program_of(model: Model) -> Any:
    """The model as HiGHS takes it, without saying which columns are whole."""
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
    return lp


def prepared(
    program: Any,
    whole: Sequence[bool],
    *,
    seconds: float = inf,
    gap: float = 0.0,
    nodes: int | None = None,
    seed: int = 1,
) -> Any:
    """A solver of the program with these columns whole; it ends by itself at the limits given, relative `gap` among them."""
    kinds = highspy.HighsVarType
    program.integrality_ = [kinds.kInteger if one else kinds.kContinuous for one in whole]
    highs = _silent()
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", seed),
        ("mip_rel_gap", gap),
        ("time_limit", max(seconds, 0.05)),
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
    if nodes is not None:
        highs.setOptionValue("mip_max_nodes", nodes)
    highs.passModel(program)
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


def finite(value: float) -> float | None:
    """None for what HiGHS calls infinite."""
    return float(value) if abs(value) < 1e15 else None  # also refuses NaN: no comparison with it is true
