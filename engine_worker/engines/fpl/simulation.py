"""Joint draws of everybody's points: how sure a plan is, and who tops the eleven. Independent across players."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine_worker.engines.fpl.problem import Plan, WeekPlan
from engine_worker.engines.fpl.projections import ProjectionRow, points_distribution

DRAWS = 4000
METHOD = "independent draws of each player's points in each gameweek, same draws for both plans, the bench counted with a bench boost only"


class Draws:
    """Points drawn for the players of some plans; `rows` gives their distributions by (element, gameweek)."""

    def __init__(self, rows: Mapping[tuple[int, int], ProjectionRow], plans: Sequence[Plan], seed: int) -> None:
        rng = np.random.default_rng(seed)
        wanted = sorted({(e, week.gameweek) for plan in plans for week in plan.weeks for e in _counted(week)})
        self._points: dict[tuple[int, int], Any] = {}
        for key in wanted:
            row = rows[key]
            distribution = np.array(
                points_distribution(row.p_play, row.p_60, row.rest, row.fixtures, row.shape, row.lost)
            )
            edges = np.cumsum(distribution / distribution.sum())
            self._points[key] = np.minimum(np.searchsorted(edges, rng.random(DRAWS)), len(edges) - 1)

    def beats(self, plan: Plan, other: Plan) -> float:
        """The share of draws in which `plan` scores more than `other` over its gameweeks; ties count half."""
        difference = self._total(plan) - self._total(other)
        return float(np.mean(difference > 0) + 0.5 * np.mean(difference == 0))

    def top_shares(self, gameweek: int, elements: Sequence[int]) -> dict[int, float]:
        """How often each of `elements` scored most of them in `gameweek`; ties are shared."""
        points = np.array([self._points[element, gameweek] for element in elements])
        best = points == points.max(axis=0)
        shares = (best / best.sum(axis=0)).mean(axis=1)
        return {element: float(share) for element, share in zip(elements, shares, strict=True)}

    def _total(self, plan: Plan) -> Any:
        total = np.zeros(DRAWS)
        for week in plan.weeks:
            for element in _counted(week):
                total += self._points[element, week.gameweek]
            extra = 2 if week.chip == "3xc" else 1
            total += extra * self._points[week.lineup.captain, week.gameweek]
            total -= week.hit_cost
        return total


def _counted(week: WeekPlan) -> tuple[int, ...]:
    return week.lineup.starters + (week.lineup.bench if week.chip == "bboost" else ())
