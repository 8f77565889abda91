"""The choices not taken, as a decision states them: regret, break-even, alternatives, agreement under noise. PURE."""

from collections.abc import Mapping
from typing import Literal, TypedDict

from engine_worker.engines.fpl import decision as out
from engine_worker.engines.fpl.analysis import Analysis, Priced
from engine_worker.engines.fpl.cards import Cards, points
from engine_worker.engines.fpl.lineup import bench_weight
from engine_worker.engines.fpl.problem import Moves, Plan, Problem, WeekPlan

_SHARES = 8

Kind = Literal["roll", "no_hit", "without", "more_money", "more_transfers"]


class Price(TypedDict):
    """The fields of a transfer that compare it with not making it."""

    regret_pts: float
    projected_xp: float
    break_even_xp: float


class Choices:
    """What the counterfactuals of an analysis say of its plan."""

    def __init__(self, cards: Cards, problem: Problem, analysis: Analysis, plan: Plan) -> None:
        self._cards = cards
        self._problem = problem
        self._found = analysis.counterfactuals
        self._agreement = analysis.sensitivity
        self._plan = plan

    def fielded(self) -> set[tuple[int, int]]:
        """Player and gameweek of whoever the plan has in its squad then, or an alternative buys for the first."""
        planned = {(element, week.gameweek) for week in self._plan.weeks for element in week.squad}
        first = self._plan.weeks[0].gameweek
        return planned | {(e, first) for other in self._found.alternatives for e in other.moves[0].bought}

    def price(self, element: int) -> Price | dict[str, float]:
        """Regret and break-even of buying `element` now; nothing when it was not priced.

        Scaling down what he is expected to score lowers the plan by at most what he contributes to it, and leaves the
        plans without him as they are. So the plan stays the best at least until his share has fallen by the regret.
        """
        priced = self._found.without.get(element)
        if priced is None:
            return {}
        contributed, projected = self._contribution(element)
        proven_regret = max(self._plan.objective - priced.bound, 0.0)
        kept = max(1 - proven_regret / contributed, 0.0) if contributed else 1.0
        return Price(
            regret_pts=self._regret(priced), projected_xp=points(projected), break_even_xp=points(kept * projected)
        )

    def choices(self) -> list[out.Choice]:
        """Every choice that was priced."""
        found, listed = self._found, []
        for kind, priced in (("roll", found.roll), ("no_hit", found.no_hit)):
            listed += self._choice(kind, None, priced)  # type: ignore[arg-type]
        for element, priced in found.without.items():
            listed += self._choice("without", element, priced)
        return (
            listed
            + self._choice("more_money", None, found.money)
            + self._choice("more_transfers", None, found.transfer)
        )

    def alternatives(self) -> list[out.Alternative]:
        """The next best first moves."""
        ranked = sorted(self._found.alternatives, key=lambda other: -other.objective)
        return [
            out.Alternative(
                rank=rank,
                transfers=self._swaps(other.moves[0]),
                chip=other.moves[0].chip,
                objective_pts=points(other.objective),
                regret_pts=self._regret(other),
                proven=other.proven,
            )
            for rank, other in enumerate(ranked, start=2)
        ]

    def near_misses(self) -> list[out.NearMiss]:
        """Transfers of the alternatives that the plan does not make, nearest first."""
        made = set(self._cards.pairs(self._plan.weeks[0].moves))
        short: dict[tuple[int, int], float] = {}
        for other in self._found.alternatives:
            for pair in self._cards.pairs(other.moves[0]):
                if pair not in made:
                    short[pair] = min(self._regret(other), short.get(pair, float("inf")))
        ref = self._cards.ref
        return [
            out.NearMiss(sold=ref(sold), bought=ref(bought), short_by_pts=missed)
            for (sold, bought), missed in sorted(short.items(), key=lambda item: (item[1], item[0]))
        ]

    def sensitivity(self) -> out.Sensitivity | None:
        """Agreement under noise; None when nothing was solved again."""
        seen = self._agreement
        if seen is None or not seen.runs:
            return None
        return out.Sensitivity(
            runs=seen.runs,
            agree_share=round(seen.agreed / seen.runs, 3),
            rolled_share=round(seen.rolled / seen.runs, 3),
            sold=self._shares(seen.sold, seen.runs),
            bought=self._shares(seen.bought, seen.runs),
            captain=self._shares(seen.captain, seen.runs),
        )

    def _choice(self, kind: Kind, element: int | None, priced: Priced | None) -> list[out.Choice]:
        if priced is None:
            return []
        more = kind in ("more_money", "more_transfers")
        regret = self._plan.objective - priced.objective
        return [
            out.Choice(
                kind=kind,
                player=None if element is None else self._cards.ref(element),
                objective_pts=points(priced.objective),
                # More room is never worth less: a solve within its gap may fall a little short.
                regret_pts=points(min(regret, 0.0) if more else max(regret, 0.0)),
                proven=priced.proven,
            )
        ]

    def _regret(self, priced: Priced) -> float:
        return points(max(self._plan.objective - priced.objective, 0.0))

    def _contribution(self, element: int) -> tuple[float, float]:
        """What a player adds to the objective, and the points he is expected to score, in his gameweeks of the plan."""
        added = projected = 0.0
        for index, week in enumerate(self._plan.weeks):
            if element in week.squad:
                xp = self._problem.xp[week.gameweek][element]
                projected += xp
                added += self._problem.weight(index) * xp * self._times(week, element)
        return added, projected

    def _times(self, week: WeekPlan, element: int) -> float:
        if element == week.lineup.captain:
            return 3.0 if week.chip == "3xc" else 2.0
        if element in week.lineup.starters or week.chip == "bboost":
            return 1.0
        return bench_weight(self._problem.position[element])

    def _swaps(self, moves: Moves) -> list[out.Swap]:
        ref = self._cards.ref
        return [out.Swap(sold=ref(sold), bought=ref(bought)) for sold, bought in self._cards.pairs(moves)]

    def _shares(self, counts: Mapping[int, int], runs: int) -> list[out.Share]:
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_SHARES]
        return [
            out.Share(**self._cards.reference(self._cards.players[element]), share=round(count / runs, 3))
            for element, count in ranked
        ]
