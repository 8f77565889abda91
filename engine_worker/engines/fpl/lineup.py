"""The best eleven, captain and bench order of a squad for one gameweek. PURE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from engine_worker.engines.fpl.seasons import GOALKEEPER, Ruleset

# What a point expected from the bench is worth, by the chance that it comes on: seldom for the goalkeeper, about
# one gameweek in eight for each of the others. One weight for the three keeps the model small; the order of the
# bench, best first, is the best order for any weights that fall.
BENCH_WEIGHT_GOALKEEPER = 0.03
BENCH_WEIGHT = 0.12


@dataclass(frozen=True, slots=True)
class Lineup:
    """Element ids: starters by position, bench with its goalkeeper first and the others in the order they come on."""

    starters: tuple[int, ...]
    bench: tuple[int, ...]
    captain: int
    vice: int

    def points(self, xp: Mapping[int, float], captain_times: int = 2) -> float:
        """Expected points of the eleven with its captain counted `captain_times`."""
        return sum(xp[e] for e in self.starters) + (captain_times - 1) * xp[self.captain]

    def bench_points(self, xp: Mapping[int, float], position: Mapping[int, int]) -> float:
        """Expected points of the bench, each weighted by the chance that he comes on."""
        return sum(xp[e] * bench_weight(position[e]) for e in self.bench)


def bench_weight(position: int) -> float:
    """The share of a benched player's expected points that counts."""
    return BENCH_WEIGHT_GOALKEEPER if position == GOALKEEPER else BENCH_WEIGHT


def formations(rules: Ruleset) -> list[dict[int, int]]:
    """Every legal number of starters by position."""
    spans = [range(rule.play_min, rule.play_max + 1) for rule in rules.positions]
    places = [rule.position for rule in rules.positions]
    return [dict(zip(places, counts, strict=True)) for counts in product(*spans) if sum(counts) == rules.eleven_size]


def best_lineup(
    rules: Ruleset,
    squad: Sequence[int],
    position: Mapping[int, int],
    xp: Mapping[int, float],
    legal: Sequence[Mapping[int, int]] | None = None,
) -> Lineup:
    """The lineup with the most expected points; ties go to the lower element id.

    `squad` must be legal. `legal` saves recomputing `formations(rules)` in a loop.
    """
    ranked = {
        rule.position: sorted((e for e in squad if position[e] == rule.position), key=lambda e: (-xp[e], e))
        for rule in rules.positions
    }
    shapes = formations(rules) if legal is None else legal
    # A starter is worth what he adds over waiting on the bench.
    shape = max(shapes, key=lambda s: sum(_worth(ranked[p][:n], p, xp) for p, n in s.items()))
    starters = [e for p, n in shape.items() for e in ranked[p][:n]]
    first, second = sorted(starters, key=lambda e: (-xp[e], e))[:2]
    waiting = sorted(set(squad) - set(starters), key=lambda e: (position[e] != GOALKEEPER, -xp[e], e))
    return Lineup(tuple(starters), tuple(waiting), first, second)


def _worth(elements: Sequence[int], position: int, xp: Mapping[int, float]) -> float:
    return (1 - bench_weight(position)) * sum(xp[e] for e in elements)
