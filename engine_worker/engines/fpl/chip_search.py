"""The best plan when chips may be played: a search over when each is played, then one solve for each case left.

A solver left alone with chips branches for minutes: half a free hit and half a bench boost look far better than any
whole one. Deciding the chips first is quick, because a case whose linear relaxation is worth no more than a plan
already found needs no solve, and there are a few hundred cases at most of which a handful survive. What comes out is
the optimum of the whole problem, with its proof: the bound is the largest of what is still open.

No clock decides anything unless time runs out, so a search repeats as a single solve does.
"""

import heapq
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from math import inf
from typing import NamedTuple

from engine_worker.engines.fpl.problem import ChipCopy, Plan, Problem
from engine_worker.engines.fpl.solver import Limits, Relaxed, Sight, Solved, go_on, solve

_NOTHING = -inf
# Nodes a case may use at its first tries: a good plan found in one case ends the long search of another.
_NODES = (1, 20, 100)
# A copy of a chip by its index -> the gameweek it is played in (index), None for not at all.
Case = Mapping[int, int | None]


class _Open(NamedTuple):
    """A case not decided yet, ordered by what it may be worth, the best first."""

    negated_bound: float
    number: int
    case: Case
    shares: Mapping[tuple[str, int], float]
    tries: int = 0


def solve_with_chips(
    problem: Problem, limits: Limits, *, start: Plan, watch: Callable[[Sight], bool] = go_on
) -> Solved:
    """The best plan with every chip free to be played or kept; `start` is any legal plan.

    As `solver.solve`: `watch` may end it, `nodes` bounds relaxations and nodes together, the rest is in `Solved`.
    """
    return _ChipSearch(problem, limits, start, watch).run()


class _ChipSearch:
    def __init__(self, problem: Problem, limits: Limits, start: Plan, watch: Callable[[Sight], bool]) -> None:
        self._began = time.monotonic()
        self._problem = problem
        self._limits = limits
        self._best = start
        self._watch = watch
        self._free = {
            index: copy
            for index, copy in enumerate(problem.chips)
            if not any(problem.played.get(week) == copy.name for week in copy.weeks)
        }
        self._relaxed = Relaxed(problem)
        self._open: list[_Open] = []
        self._number = count()
        self._nodes = 0
        # What the case at hand may still be worth, and what is left of those that were solved within their gap.
        self._current = inf
        self._left_open = _NOTHING
        self._status = ""

    def run(self) -> Solved:
        self._relax({})
        if not self._status:
            self._current = _NOTHING
        while self._open and not self._status:
            node = heapq.heappop(self._open)
            self._current = -node.negated_bound
            if not self._promising(self._current):
                break  # nor is any other; it is no more than the gap above the best
            if len(node.case) == len(self._free):
                self._decide(node)
            else:
                self._branch(node)
            if not self._status:
                self._current = _NOTHING
        bound = self._worth_at_most()
        seconds = time.monotonic() - self._began
        return Solved(self._best, self._status or "optimal", None if bound == inf else bound, self._nodes, seconds)

    def _branch(self, node: _Open) -> None:
        """Every gameweek for the chip the relaxation is least sure of."""
        undecided = [index for index in self._free if index not in node.case]
        index = max(undecided, key=lambda index: (_unsure(self._free[index], node.shares), -index))
        for week in (*self._free[index].weeks, None):
            if week is None or (week not in node.case.values() and week not in self._problem.played):
                self._relax({**node.case, index: week})
            if self._status:
                return

    def _relax(self, case: Case) -> None:
        """Keeps the case if it may hold a better plan than the best."""
        self._nodes += 1
        played = {(self._free[index].name, week) for index, week in case.items() if week is not None}
        kept = {(copy.name, week) for index in case for copy in [self._free[index]] for week in copy.weeks}
        found = self._relaxed.solve(
            {**dict.fromkeys(kept, 0.0), **dict.fromkeys(played, 1.0)}, self._left_s(), self._look
        )
        if found.status == "optimal":
            if self._promising(found.bound):
                heapq.heappush(self._open, _Open(-found.bound, next(self._number), case, found.shares))
            else:
                self._left_open = max(self._left_open, found.bound)
        elif found.status != "infeasible":
            self._stop(found.status)
        self._count()

    def _count(self) -> None:
        if self._limits.nodes is not None and self._nodes >= self._limits.nodes:
            self._stop("node_limit")

    def _decide(self, node: _Open) -> None:
        """The best plan of a case whose chips are all decided, if it is better than the best."""
        weeks = {week: self._free[index].name for index, week in node.case.items() if week is not None}
        fixed = replace(self._problem, played={**self._problem.played, **weeks}).without_chips()
        left = [] if self._limits.nodes is None else [self._limits.nodes - self._nodes]
        nodes = min([*left, *_NODES[node.tries : node.tries + 1]], default=None)
        limits = replace(self._limits, seconds=self._left_s(), nodes=nodes)

        floor = self._floor()

        def watch(sight: Sight) -> bool:
            if sight.bound is not None:
                self._current = min(self._current, max(sight.bound, floor))
            # Below the floor the solver is cut off: what it passes on its way there depends on the moment.
            return self._look(sight.plan if sight.plan is not None and sight.plan.objective > floor else None)

        solved = solve(fixed, limits, floor=floor, watch=watch)
        self._nodes += solved.nodes
        if solved.plan is not None and solved.plan.objective > self._best.objective:
            self._best = solved.plan
        if solved.bound is not None:
            self._current = min(self._current, solved.bound)
        if solved.status == "node_limit" and node.tries < len(_NODES):
            again = node._replace(negated_bound=-self._current, number=next(self._number), tries=node.tries + 1)
            heapq.heappush(self._open, again)
        else:
            self._left_open = max(self._left_open, self._current)
            if solved.status not in ("optimal", "infeasible"):
                self._stop(solved.status)
        self._count()

    def _look(self, plan: Plan | None = None) -> bool:
        """Whether to go on."""
        news = plan if plan is not None and plan.objective > self._best.objective else None
        self._best = news or self._best
        bound = self._worth_at_most()
        return self._watch(Sight(news, None if bound == inf else bound))

    def _worth_at_most(self) -> float:
        """No plan is worth more."""
        best_open = -self._open[0].negated_bound if self._open else _NOTHING
        return max(self._current, self._left_open, best_open, self._best.objective)

    def _floor(self) -> float:
        """Worth less than this a plan is no news: the best one so far, and the gap called optimal."""
        return self._best.objective + self._limits.rel_gap * max(abs(self._best.objective), 1.0)

    def _promising(self, bound: float) -> bool:
        return bound > self._floor()

    def _left_s(self) -> float:
        return max(self._limits.seconds - (time.monotonic() - self._began), 0.05)

    def _stop(self, status: str) -> None:
        self._status = self._status or status


def _unsure(copy: ChipCopy, shares: Mapping[tuple[str, int], float]) -> float:
    return max(min(shares[copy.name, week], 1 - shares[copy.name, week]) for week in copy.weeks)
