"""The best plan when chips may be played: a search over when each is played, then one solve for each case left.

A solver left alone with chips branches for minutes: half a free hit and half a bench boost look far better than any
whole one. Deciding the chips first is quick, because a case whose linear relaxation is worth no more than a plan
already found needs no solve, and there are a few hundred cases at most of which a handful survive. What comes out is
the optimum of the whole problem, with its proof: the bound is the largest of what is still open.

No clock decides anything unless time runs out, so a search repeats as a single solve does.
"""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from math import inf
from typing import NamedTuple

from engine_worker.engines.fpl.problem import ChipCopy, Plan, Problem
from engine_worker.engines.fpl.relaxation import Asked, Relaxation, Relaxed
from engine_worker.engines.fpl.solver import Limits, Sight, Solved, go_on, solve

_NOTHING = -inf
# Nodes a case may use at its first try: a good plan found in one case ends the long search of another.
_FEW_NODES = 20
# The first case is solved for a good plan only, see `_dive`.
_FIRST_NODES = 1
# Chips by how much of a plan hangs on them: deciding the first ones first leaves the fewest cases open.
_DECIDES = ("wildcard", "freehit", "bboost", "3xc")
# A share of a chip this near to 0 or 1 is whole.
_WHOLE = 1e-6
# A copy of a chip by its index -> the gameweek it is played in (index), None for not at all.
Case = Mapping[int, int | None]


class _Root(NamedTuple):
    """The plans that begin in one way (see `Problem.instead`): their problem, the copies left to decide by index."""

    problem: Problem
    free: Mapping[int, ChipCopy]
    relaxed: Relaxed


class _Open(NamedTuple):
    """A case not decided yet, ordered by what it may be worth, the best first."""

    negated_bound: float
    number: int
    root: _Root
    case: Case
    relaxed: Relaxation
    tried: bool = False


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
        self._limits = limits
        self._best = start
        self._watch = watch
        self._roots = [_root(of) for of in (problem.begun_otherwise(), *problem.instead.values())]
        self._open: list[_Open] = []
        self._number = count()
        self._nodes = 0
        # What the case at hand may still be worth, and what is left of those that were solved within their gap.
        self._current = inf
        self._left_open = _NOTHING
        self._status = ""

    def run(self) -> Solved:
        for root in self._roots:
            if not self._status:
                self._relax(root, [{}], None)
        if not self._status:
            self._current = _NOTHING
            if self._open:
                self._dive(self._open[0])
        while self._open and not self._status:
            node = heapq.heappop(self._open)
            self._current = -node.negated_bound
            if not self._promising(self._current):
                break  # nor is any other; it is no more than the gap above the best
            if len(node.case) == len(node.root.free):
                self._decide(node)
            else:
                self._branch(node)
            if not self._status:
                self._current = _NOTHING
        bound = self._worth_at_most()
        seconds = time.monotonic() - self._began
        return Solved(self._best, self._status or "optimal", None if bound == inf else bound, self._nodes, seconds)

    def _dive(self, node: _Open) -> None:
        """A good plan at once: the chips where the relaxation has most of them, one after the other."""
        found: _Open | None = node
        while found is not None and not self._status and len(found.case) < len(found.root.free):
            node, chosen = found, self._surest(found)
            found = next(iter(self._relax(node.root, [{**node.case, chosen[0]: chosen[1]}], node, keep=False)), None)
        if found is not None and not self._status:
            solved = self._solve(found, _FIRST_NODES)
            if solved.status not in ("optimal", "infeasible", "node_limit"):
                self._stop(solved.status)
            self._count()

    def _surest(self, node: _Open) -> tuple[int, int | None]:
        """The chip and the gameweek, None for not played, that the relaxation is surest of."""
        choices: list[tuple[float, int, int | None]] = []
        for index, copy in node.root.free.items():
            if index not in node.case:
                shares = {week: node.relaxed.shares[copy.name, week] for week in copy.weeks}
                choices.append((1 - sum(shares.values()), -index, None))
                choices += [(share, -index, week) for week, share in shares.items()]
        _, index, week = max(choices, key=lambda choice: choice[:2])
        return -index, week

    def _branch(self, node: _Open) -> None:
        """Every gameweek for the chip that decides most of those the relaxation is unsure of."""
        free = node.root.free
        undecided = [index for index in free if index not in node.case]
        unsure = [index for index in undecided if _unsure(free[index], node.relaxed.shares)]
        index = min(unsure or undecided, key=lambda index: (_DECIDES.index(free[index].name), index))
        name = free[index].name
        cases: list[Case] = []
        for week in (*free[index].weeks, None):
            if week is None or (week not in node.case.values() and week not in node.root.problem.played):
                most = node.relaxed.bound + (0.0 if week is None else node.relaxed.reduced[name, week])
                if self._promising(most):
                    cases.append({**node.case, index: week})
                else:
                    self._left_open = max(self._left_open, most)
        self._relax(node.root, cases, node)

    def _relax(self, root: _Root, cases: Sequence[Case], parent: _Open | None, *, keep: bool = True) -> list[_Open]:
        """Those of the cases that may hold a better plan than the best; with `keep` they are among the open ones."""
        asked = [Asked(_fixed(root, case), parent and parent.relaxed.basis) for case in cases]
        found = []
        for case, relaxed in zip(
            cases, root.relaxed.solve(asked, self._floor(), self._left_s(), self._look), strict=True
        ):
            if self._status:
                break  # what is left may be worth what their parent may, which counts as open still
            self._nodes += 1
            if relaxed.status == "optimal" and self._promising(relaxed.bound):
                node = _Open(-relaxed.bound, next(self._number), root, case, relaxed)
                found.append(node)
                if keep:
                    heapq.heappush(self._open, node)
            elif relaxed.status in ("optimal", "infeasible"):
                self._left_open = max(self._left_open, relaxed.bound)
            else:
                self._stop(relaxed.status)
            self._count()
        return found

    def _count(self) -> None:
        if self._limits.nodes is not None and self._nodes >= self._limits.nodes:
            self._stop("node_limit")

    def _decide(self, node: _Open) -> None:
        """The best plan of a case whose chips are all decided, if it is better than the best."""
        solved = self._solve(node, None if node.tried else _FEW_NODES)
        if solved.bound is not None:
            self._current = min(self._current, solved.bound)
        if solved.status == "node_limit" and not node.tried:
            again = node._replace(negated_bound=-self._current, number=next(self._number), tried=True)
            heapq.heappush(self._open, again)
        else:
            self._left_open = max(self._left_open, self._current)
            if solved.status not in ("optimal", "infeasible"):
                self._stop(solved.status)
        self._count()

    def _solve(self, node: _Open, at_most: int | None) -> Solved:
        """A case whose chips are all decided, with that many nodes; keeps its plan if it is the best."""
        problem, free = node.root.problem, node.root.free
        weeks = {week: free[index].name for index, week in node.case.items() if week is not None}
        fixed = replace(problem, played={**problem.played, **weeks}).without_chips()
        left = [] if self._limits.nodes is None else [self._limits.nodes - self._nodes]
        nodes = min([*left, *([] if at_most is None else [at_most])], default=None)
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
        return solved

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


def _root(problem: Problem) -> _Root:
    left = problem.free_copies()
    return _Root(problem, {i: copy for i, copy in enumerate(problem.chips) if copy in left}, Relaxed(problem))


def _fixed(root: _Root, case: Case) -> dict[tuple[str, int], float]:
    """Which chips are played when in a case, and which not."""
    played = {(root.free[index].name, week) for index, week in case.items() if week is not None}
    decided = {(copy.name, week) for index in case for copy in [root.free[index]] for week in copy.weeks}
    return {**dict.fromkeys(decided, 0.0), **dict.fromkeys(played, 1.0)}


def _unsure(copy: ChipCopy, shares: Mapping[tuple[str, int], float]) -> bool:
    played = [shares[copy.name, week] for week in copy.weeks]
    return any(_WHOLE < share < 1 - _WHOLE for share in played)
