"""The best eleven is the best of all legal ones."""

import random
from itertools import combinations

import pytest

from engine_worker.engines.fpl.lineup import bench_weight, best_lineup, formations
from engine_worker.engines.fpl.rules import eleven_violations
from engine_worker.engines.fpl.seasons import ruleset
from engine_worker.engines.fpl.synthetic.shapes import game_settings

RULES = ruleset(game_settings())
POSITION = {element: 1 + (element > 2) + (element > 7) + (element > 12) for element in range(1, 16)}


def test_there_are_eight_formations():
    assert len(formations(RULES)) == 8


@pytest.mark.parametrize("seed", range(8))
def test_the_lineup_is_the_best_of_every_legal_eleven(seed):
    rng = random.Random(seed)
    xp = {element: round(rng.expovariate(0.4), 2) for element in POSITION}
    chosen = best_lineup(RULES, list(POSITION), POSITION, xp)

    def worth(starters: tuple[int, ...]) -> float:
        bench = sum(xp[e] * bench_weight(POSITION[e]) for e in POSITION if e not in starters)
        return sum(xp[e] for e in starters) + max(xp[e] for e in starters) + bench

    legal = [s for s in combinations(POSITION, 11) if not eleven_violations(RULES, [POSITION[e] for e in s])]
    assert worth(chosen.starters) == pytest.approx(max(map(worth, legal)))
    assert xp[chosen.captain] == max(xp[element] for element in chosen.starters)


def test_the_bench_begins_with_its_goalkeeper_and_falls_in_points():
    xp = {element: float(element) for element in POSITION}
    bench = best_lineup(RULES, list(POSITION), POSITION, xp).bench
    assert POSITION[bench[0]] == 1
    assert [xp[element] for element in bench[1:]] == sorted((xp[e] for e in bench[1:]), reverse=True)
