"""The problem without whole numbers, solved for one case of chips after another."""

import threading
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NamedTuple

import highspy
import numpy as np

from engine_worker.engines.fpl.highs import prepared, program_of, status_of
from engine_worker.engines.fpl.model import Model
from engine_worker.engines.fpl.problem import Problem

# How often the caller is asked whether to go on.
_LOOK_S = 0.05


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


class Relaxed:
    """One linear program solved again and again with other chips fixed, each time from a basis of a case like it."""

    def __init__(self, problem: Problem) -> None:
        model = Model(problem, range(len(problem.gameweeks)))
        self._chips = {(copy.name, week): model.chip(copy.name, week) for copy in problem.chips for week in copy.weeks}
        self._lowest = {column: model.lower[column] for column in self._chips.values()}
        program = program_of(model)
        # HiGHS heeds a bound on the objective of a linear program only where it minimises.
        program.sense_, program.col_cost_ = highspy.ObjSense.kMinimize, -np.array(model.cost)
        self._highs = prepared(program, [False] * len(model.integer))

    def solve(
        self,
        fixed: Mapping[tuple[str, int], float],
        floor: float,
        basis: Any,
        seconds: float,
        go_on: Callable[[], bool],
    ) -> Relaxation:
        """With these chips played (1) or not (0), given up as soon as it is known to be worth no more than `floor`.

        `basis` is that of a case like it, None for the first.

        `go_on` is asked as `watch` is in `solver.solve`.
        """
        for key, column in self._chips.items():
            low = self._lowest[column]
            self._highs.changeColBounds(column, fixed.get(key, low), fixed.get(key, 1.0))
        self._highs.setOptionValue("objective_bound", -floor)
        if basis is not None:
            self._highs.setBasis(basis)
        done, began, status = threading.Event(), time.monotonic(), ""
        threading.Thread(target=self._work, args=(done,), name="relaxation", daemon=True).start()
        while not done.wait(_LOOK_S):
            if not go_on():
                status = "interrupted"
            elif time.monotonic() - began > seconds:
                status = "time_limit"
            if status:
                # The thread is left to itself: this object is not used again.
                return Relaxation(status, inf, {}, {})
        status = status_of(self._highs)
        if status != "optimal":
            return Relaxation(status, floor if status == "infeasible" else inf, {}, {})
        solution = self._highs.getSolution()
        return Relaxation(
            "optimal",
            -float(self._highs.getInfo().objective_function_value),
            {key: float(solution.col_value[column]) for key, column in self._chips.items()},
            {key: min(-float(solution.col_dual[column]), 0.0) for key, column in self._chips.items()},
            self._highs.getBasis(),
        )

    def _work(self, done: threading.Event) -> None:
        try:
            self._highs.run()
        finally:
            done.set()
