"""Which players a plan has to look at, told by the linear relaxation. PURE.

At the optimum of a relaxation worth `z` a column at its lower bound with reduced cost `d ≤ 0` costs any plan that uses
it at least `−d`: no plan with it is worth more than `z + d` (reduced-cost fixing, Dantzig, Fulkerson and Johnson 1954).
A purchase uses several columns: bought, then owned until sold or to the end. What all of them cost together, the
cheapest way out taken, is what the purchase costs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from engine_worker.engines.fpl.model import Model

# Rounding of a linear program, in points: a purchase this close to the floor stays.
_SLACK = 1e-6
# A first search looks at the owned and so many others for each gameweek: enough for a plan close to the best one.
_OTHERS_A_WEEK = 5
# What a column may differ from zero and still be called unused.
_UNUSED = 1e-6


@dataclass(frozen=True)
class Narrowing:
    """What any plan with a purchase, by gameweek (index) and element, is worth at most; and who is in the relaxation."""

    model: Model
    worth: float
    most: Mapping[tuple[int, int], float]
    used: frozenset[int]

    def few(self, kept: Collection[int]) -> frozenset[int]:
        """The players to look at first: the owned, `kept`, those of the relaxation and who is nearest to them."""
        problem = self.model.problem
        core = problem.owned | self.used | frozenset(kept)
        best: dict[int, float] = {}
        for (_, element), most in self.most.items():
            best[element] = max(best.get(element, most), most)
        size = len(problem.owned) + _OTHERS_A_WEEK * len(problem.gameweeks)
        others = sorted(best.keys() - core, key=lambda element: (-best[element], element))
        return core | frozenset(others[: max(size - len(core), 0)])

    def above(self, floor: float) -> frozenset[tuple[int, int]]:
        """The purchases that a plan worth more than `floor` may make."""
        return frozenset(purchase for purchase, most in self.most.items() if most > floor - _SLACK)

    def uppers(self, may: Callable[[int, int], bool]) -> list[float]:
        """Upper bounds of all columns with no purchase but those that `may` allows, by gameweek and element."""
        model, upper = self.model, list(self.model.upper)
        owned = model.problem.owned
        bought = {element for week, element in self.most if may(week, element)}
        for (kind, week, element), column in model.player_columns():
            closed = element not in bought and element not in owned
            if closed or (kind in ("buy", "anew") and not may(week, element)):
                upper[column] = 0.0
        return upper


def narrowing(model: Model, worth: float, values: Sequence[float], reduced: Sequence[float]) -> Narrowing:
    """From a relaxation's optimum, its columns and their reduced costs (points a unit, ≤ 0 at the lower bound)."""
    weeks = range(len(model.problem.gameweeks))
    costs: dict[tuple[str, int, int], float] = {}
    used = set()
    for key, column in model.player_columns():
        costs[key] = min(float(reduced[column]), 0.0)
        if key[0] == "squad" and values[column] > _UNUSED:
            used.add(key[2])
    most: dict[tuple[int, int], float] = {}
    for element in model.problem.elements:
        after = 0.0
        for week in reversed(weeks):
            owned = costs["squad", week, element] + after
            for kind in ("buy", "anew"):
                if (kind, week, element) in costs:
                    least = worth + costs[kind, week, element] + owned
                    most[week, element] = max(most.get((week, element), least), least)
            # Owned before this gameweek he is sold now or goes on.
            sales = [costs[k, week, element] for k in ("sell", "sell_again") if (k, week, element) in costs]
            after = max([owned, *sales])
    return Narrowing(model, worth, most, frozenset(used))
