"""Toy leagues of some twenty players, and the best plan in them found by looking at every one.

The search shares nothing with the model but the rules: it walks states (squad, bank, free transfers, who was sold at
his locked price, chips left) gameweek by gameweek and keeps the best way to each.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations, product
from typing import Any, NamedTuple

from engine_worker.engines.fpl.lineup import bench_weight, best_lineup, formations
from engine_worker.engines.fpl.problem import ChipCopy, Problem
from engine_worker.engines.fpl.rules import next_free_transfers
from engine_worker.engines.fpl.seasons import ruleset
from engine_worker.engines.fpl.synthetic.shapes import game_settings

RULES = ruleset(game_settings())
SQUAD = {1: 2, 2: 5, 3: 5, 4: 3}


def toy(seed: int, weeks: int, spare: tuple[int, int, int, int] = (1, 3, 3, 3), **changes: Any) -> Problem:
    """A squad of 15 and `spare` more of each position; ten clubs, so that the limit of three binds now and then."""
    rng = random.Random(seed)
    position: dict[int, int] = {}
    owned: list[int] = []
    for place, more in zip(SQUAD, spare, strict=True):
        for number in range(SQUAD[place] + more):
            element = len(position) + 1
            position[element] = place
            if number < SQUAD[place]:
                owned.append(element)
    elements = tuple(position)
    club = {element: 1 + (element * 7 + seed) % 10 for element in elements}
    for element in owned:
        # Three of a club at most, as the owner had to.
        while sum(club[other] == club[element] for other in owned) > 3:
            club[element] = rng.randint(1, 10)
    cost = {element: rng.randint(40, 90) for element in elements}
    gameweeks = tuple(range(20, 20 + weeks))
    base = {element: rng.expovariate(0.35) for element in elements}
    xp = {
        gameweek: {e: round(base[e] * rng.choice((0.0, 0.8, 1.0, 1.2, 2.0)), 3) for e in elements}
        for gameweek in gameweeks
    }
    problem = Problem(
        rules=RULES,
        gameweeks=gameweeks,
        elements=elements,
        position=position,
        club=club,
        cost=cost,
        selling={element: cost[element] - rng.choice((0, 0, 1, 3)) for element in owned},
        xp=xp,
        bank=rng.randint(0, 25),
        free_transfers=rng.randint(0, 2),
        max_hits=0,
    )
    return replace(problem, **changes)


class _State(NamedTuple):
    squad: frozenset[int]
    bank: int
    free: int
    sold: frozenset[int]  # of the owned, at their locked price
    chips: tuple[ChipCopy, ...]


@dataclass
class Search:
    """Every plan of a toy problem, at most `transfers` a gameweek but for wildcard and free hit."""

    problem: Problem
    transfers: int
    _near: dict[tuple[frozenset[int], int], list[frozenset[int]]] = field(default_factory=dict)
    _all: list[frozenset[int]] = field(default_factory=list)

    def best(self) -> float:
        """The best objective."""
        problem, worth = self.problem, self.problem.worth
        states = {_State(problem.owned, problem.bank, problem.free_transfers, frozenset(), problem.chips): 0.0}
        for index in range(len(problem.gameweeks)):
            reached: dict[_State, float] = {}
            for state, so_far in states.items():
                for after, gained in self._moves(state, index):
                    value = so_far + gained
                    if value > reached.get(after, float("-inf")):
                        reached[after] = value
            states = reached
        return max(v + worth.free_transfer * s.free + worth.bank * s.bank for s, v in states.items())

    def _moves(self, state: _State, index: int) -> Iterator[tuple[_State, float]]:
        few = self._swapped(state.squad, min(self.transfers, state.free + self.problem.max_hits))
        fixed = self.problem.played.get(index)
        if fixed is None:
            yield from self._played(state, index, None, few)
        for copy in state.chips:
            if index in copy.weeks and fixed in (None, copy.name):
                anything = copy.name in ("wildcard", "freehit")
                yield from self._played(state, index, copy, self._squads() if anything else few)

    def _played(self, state: _State, index: int, copy: ChipCopy | None, squads: Any) -> Iterator[tuple[_State, float]]:
        problem, chip = self.problem, copy.name if copy else None
        weight = problem.worth.decay**index
        left = tuple(other for other in state.chips if other is not copy)
        for squad in squads:
            out, into = state.squad - squad, squad - state.squad
            bank = state.bank + sum(self._price(state, e) for e in out) - sum(problem.cost[e] for e in into)
            hits = 0 if chip in ("wildcard", "freehit") else max(len(into) - state.free, 0)
            if bank < 0 or hits > problem.max_hits or into & problem.banned or out & problem.locked - state.sold:
                continue
            gained = weight * (self._points(squad, index, chip) - (copy.kept if copy else 0.0))
            gained -= hits * (RULES.hit_cost + problem.worth.hit_margin)
            free = next_free_transfers(RULES, problem.gameweeks[index], state.free, len(into), chip)
            if chip == "freehit":
                yield _State(state.squad, state.bank, free, state.sold, left), gained
            else:
                risen = {e for e in out & problem.owned if problem.selling[e] != problem.cost[e]}
                yield _State(squad, bank, free, state.sold | risen, left), gained

    def _price(self, state: _State, element: int) -> int:
        locked = element in self.problem.owned and element not in state.sold
        return self.problem.selling[element] if locked else self.problem.cost[element]

    def _swapped(self, squad: frozenset[int], most: int) -> list[frozenset[int]]:
        """Squads at most `most` transfers away."""
        if (squad, most) not in self._near:
            position = self.problem.position
            others = [element for element in self.problem.elements if element not in squad]
            one = [(sold, bought) for bought in others for sold in squad if position[sold] == position[bought]]
            found = {squad}
            for count in range(1, most + 1):
                for chosen in combinations(one, count):
                    sold, bought = {a for a, _ in chosen}, {b for _, b in chosen}
                    if len(sold) == len(bought) == count:
                        found.add(squad - sold | bought)
            self._near[squad, most] = [near for near in found if self._fair(near)]
        return self._near[squad, most]

    def _squads(self) -> list[frozenset[int]]:
        if not self._all:
            groups = [
                combinations([e for e in self.problem.elements if self.problem.position[e] == place], count)
                for place, count in SQUAD.items()
            ]
            squads = (frozenset(element for group in chosen for element in group) for chosen in product(*groups))
            self._all = [squad for squad in squads if self._fair(squad)]
        return self._all

    def _fair(self, squad: frozenset[int]) -> bool:
        clubs = [self.problem.club[element] for element in squad]
        return all(clubs.count(club) <= RULES.club_limit for club in set(clubs))

    def _points(self, squad: frozenset[int], index: int, chip: str | None) -> float:
        starters, bench, captain = self._lineup(squad, index)
        if chip == "bboost":
            bench = self._whole_bench(squad, index)
        return starters + bench + captain * (2 if chip == "3xc" else 1)

    def _lineup(self, squad: frozenset[int], index: int) -> tuple[float, float, float]:
        return _lineup(self._key(index), squad)

    def _whole_bench(self, squad: frozenset[int], index: int) -> float:
        xp = self.problem.xp[self.problem.gameweeks[index]]
        return sum(xp[element] for element in squad) - self._lineup(squad, index)[0]

    def _key(self, index: int) -> tuple[tuple[tuple[int, float], ...], tuple[tuple[int, int], ...]]:
        xp = self.problem.xp[self.problem.gameweeks[index]]
        return tuple(xp.items()), tuple(self.problem.position.items())


@cache
def _lineup(key: tuple[Any, Any], squad: frozenset[int]) -> tuple[float, float, float]:
    xp, position = _mappings(key)
    lineup = best_lineup(RULES, sorted(squad), position, xp, _SHAPES)
    bench = sum(xp[element] * bench_weight(position[element]) for element in lineup.bench)
    return sum(xp[element] for element in lineup.starters), bench, xp[lineup.captain]


@cache
def _mappings(key: tuple[Any, Any]) -> tuple[dict[int, float], dict[int, int]]:
    return dict(key[0]), dict(key[1])


_SHAPES = formations(RULES)
