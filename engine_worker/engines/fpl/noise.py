"""Projections that err together: how often the same first moves come out of other draws of the same beliefs.

A player's error lasts the whole horizon, and players of a club share a part of it, so that a transfer is not judged by
errors that cancel over the gameweeks.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from engine_worker.engines.fpl.analysis import Agreement
from engine_worker.engines.fpl.problem import Plan, Problem, week_points

# Standard deviations of the error, relative to a player's expected points: his own, and his club's.
PLAYER_ERROR, CLUB_ERROR = 0.15, 0.08
# Players of each position kept for a solve besides those the plan uses: few, because it is solved many times.
_KEPT = {1: 4, 2: 10, 3: 10, 4: 6}


class Noise:
    """Noisy problems around a plan, and the count of what they decide."""

    def __init__(self, problem: Problem, plan: Plan, seed: int) -> None:
        self._problem = problem
        self._plan = plan
        self._seed = seed
        self.agreement = Agreement()

    def problem(self, run: int) -> Problem:
        """The problem of one run; the same run is the same noise."""
        problem = self._problem
        rng = np.random.default_rng([self._seed, run])
        clubs = {club: CLUB_ERROR * rng.standard_normal() for club in sorted(set(problem.club.values()))}
        factor = {
            e: max(1 + clubs[problem.club[e]] + PLAYER_ERROR * float(rng.standard_normal()), 0.0)
            for e in problem.elements
        }
        xp = {
            gameweek: {element: points[element] * factor[element] for element in problem.elements}
            for gameweek, points in problem.xp.items()
        }
        used = problem.owned | {element for week in self._plan.weeks for element in (*week.bought, *week.squad)}
        used |= {element for hit in problem.free_hits.values() for element in hit.squad | hit.dear_squad}
        noisy = replace(problem, xp=xp, elements=_kept(problem, xp, used))
        hits = {
            index: hit._replace(
                points=week_points(noisy, hit.squad, index), dear_points=week_points(noisy, hit.dear_squad, index)
            )
            for index, hit in problem.free_hits.items()
        }
        return replace(noisy, free_hits=hits)

    def count(self, plan: Plan) -> None:
        """Adds what a run decided."""
        first, own, seen = plan.weeks[0], self._plan.weeks[0], self.agreement
        seen.runs += 1
        seen.agreed += (first.sold, first.bought, first.chip) == (own.sold, own.bought, own.chip)
        seen.rolled += not first.bought and not first.chip
        for element in first.sold:
            seen.sold[element] = seen.sold.get(element, 0) + 1
        for element in first.bought:
            seen.bought[element] = seen.bought.get(element, 0) + 1
        seen.captain[first.lineup.captain] = seen.captain.get(first.lineup.captain, 0) + 1


def _kept(problem: Problem, xp: Mapping[int, Mapping[int, float]], used: frozenset[int] | set[int]) -> tuple[int, ...]:
    total = {
        e: sum(problem.weight(i) * xp[week][e] for i, week in enumerate(problem.gameweeks)) for e in problem.elements
    }
    kept = set(used)
    for position, count in _KEPT.items():
        group = [element for element in problem.elements if problem.position[element] == position]
        kept |= set(sorted(group, key=lambda e: (-total[e], e))[:count])
        kept |= set(sorted(group, key=lambda e: (-total[e] / problem.cost[e], e))[: count // 2])
    return tuple(element for element in problem.elements if element in kept)
