"""The problem without whole numbers, solved for one case of chips after another."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import highspy
import numpy as np

from engine_worker.engines.fpl.highs import prepared, program_of, status_of
from engine_worker.engines.fpl.model import Model
from engine_worker.engines.fpl.problem import Problem

# How often the caller is asked whether to go on.
_LOOK_S = 0.05
# Cases relaxed at a time, each on a processor.
_SOLVERS = 2


class Relaxation(NamedTuple):
    """The problem without whole numbers: nothing is worth more than `bound`; how much of each chip it plays when.

    `status` is optimal, infeasible (or worth no more than the floor, then `bound` is the floor), or how it was ended.
    No plan that plays a chip in a gameweek is worth more than `bound + reduced[chip, gameweek]`, which is ≤ 0.
    """

    status: str
    bound: float
    shares: Mapping[tuple[str, int], float]
    reduced: Mapping[tuple[str, int], float]
    basis: Any = None  # where a case like it may start from


class Asked(NamedTuple):
    """A case to relax: which chips are played (1) or not (0), and the basis of a case like it, None for the first."""

    fixed: Mapping[tuple[str, int], float]
    basis: Any


class Relaxed:
    """One linear program solved again and again with other chips fixed, each time from a basis of a case like it.

    Two cases at a time, each in the thread of its own solver. Which solver has which case does not hang on the clock, so
    the same questions in the same order have the same answers.
    """

    def __init__(self, problem: Problem) -> None:
        model = Model(problem, range(len(problem.gameweeks)))
        self._chips = {(copy.name, week): model.chip(copy.name, week) for copy in problem.chips for week in copy.weeks}
        self._lowest = {column: model.lower[column] for column in self._chips.values()}
        program = program_of(model)
        # HiGHS heeds a bound on the objective of a linear program only where it minimises.
        program.sense_, program.col_cost_ = highspy.ObjSense.kMinimize, -np.array(model.cost)
        self._solvers = [prepared(program, [False] * len(model.integer)) for _ in range(_SOLVERS)]

    def solve(
        self, cases: Sequence[Asked], floor: float, seconds: float, go_on: Callable[[], bool]
    ) -> list[Relaxation]:
        """Each case, given up as soon as it is known to be worth no more than `floor`.

        `seconds` are for all of them together; `go_on` is asked as `watch` is in `solver.solve`.
        """
        found: list[Relaxation | None] = [None] * len(cases)
        parts = [range(number, len(cases), _SOLVERS) for number in range(min(_SOLVERS, len(cases)))]
        threads = [
            threading.Thread(
                target=self._work, args=(solver, part, cases, floor, found), name="relaxation", daemon=True
            )
            for solver, part in zip(self._solvers, parts, strict=False)
        ]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        for thread in threads:
            while thread.is_alive():
                thread.join(_LOOK_S)
                status = "" if go_on() else "interrupted"
                if not status and time.monotonic() - began > seconds:
                    status = "time_limit"
                if status and thread.is_alive():
                    # The threads are left to themselves: this object is not used again.
                    return [one or Relaxation(status, inf, {}, {}) for one in found]
        return [one or Relaxation("failed", inf, {}, {}) for one in found]

    def _work(
        self, solver: Any, part: range, cases: Sequence[Asked], floor: float, found: list[Relaxation | None]
    ) -> None:
        for place in part:
            found[place] = self._solved(solver, cases[place], floor)

    def _solved(self, solver: Any, asked: Asked, floor: float) -> Relaxation:
        for key, column in self._chips.items():
            low = self._lowest[column]
            solver.changeColBounds(column, asked.fixed.get(key, low), asked.fixed.get(key, 1.0))
        solver.setOptionValue("objective_bound", -floor)
        if asked.basis is not None:
            solver.setBasis(asked.basis)
        solver.run()
        status = status_of(solver)
        if status != "optimal":
            return Relaxation(status, floor if status == "infeasible" else inf, {}, {})
        solution = solver.getSolution()
        return Relaxation(
            "optimal",
            -float(solver.getInfo().objective_function_value),
            {key: float(solution.col_value[column]) for key, column in self._chips.items()},
            {key: min(-float(solution.col_dual[column]), 0.0) for key, column in self._chips.items()},
            solver.getBasis(),
        )
