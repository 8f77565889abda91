"""What the bench is expected to add: the game's substitutions, over everyone's chance of playing at all. PURE."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

from engine_worker.engines.fpl.lineup import Lineup
from engine_worker.engines.fpl.scoring import substitutions
from engine_worker.engines.fpl.seasons import Ruleset

# Cases less likely than this add nothing that shows in two decimals.
_NEGLIGIBLE = 1e-7


def chance_of_playing(p_play: float, fixtures: int) -> float:
    """The chance of playing in any of so many matches, each played with chance `p_play`."""
    return 1 - (1 - p_play) ** fixtures


def expected_substitutes(
    rules: Ruleset, lineup: Lineup, position: Mapping[int, int], plays: Mapping[int, float]
) -> dict[int, float]:
    """Benched element → the chance that he plays and comes on for a starter who does not.

    `plays` has everyone's chance of playing at all, independent of one another. Exact but for cases of no weight: who of
    one position is missing makes no difference to who comes on, so only how many are is told apart.
    """
    found = dict.fromkeys(lineup.bench, 0.0)
    by_position: dict[int, list[int]] = {}
    for element in lineup.starters:
        by_position.setdefault(position[element], []).append(element)
    absences = [_absences([plays[element] for element in of]) for of in by_position.values()]
    present = [[there for there in (True, False) if there or plays[element] < 1] for element in lineup.bench]
    for counts in product(*(range(len(chances)) for chances in absences)):
        missing_chance = prod(chances[count] for chances, count in zip(absences, counts, strict=True))
        if not any(counts) or missing_chance < _NEGLIGIBLE:
            continue
        missing = {e for of, count in zip(by_position.values(), counts, strict=True) for e in of[:count]}
        for there in product(*present):
            on_bench = {element for element, is_there in zip(lineup.bench, there, strict=True) if is_there}
            chance = missing_chance * prod(plays[e] if e in on_bench else 1 - plays[e] for e in lineup.bench)
            if chance < _NEGLIGIBLE:
                continue
            playing = (set(lineup.starters) - missing) | on_bench
            for coming, _ in substitutions(rules, lineup.starters, lineup.bench, position, playing.__contains__):
                found[coming] += chance
    return found


def expected_from_bench(
    rules: Ruleset,
    lineup: Lineup,
    position: Mapping[int, int],
    plays: Mapping[int, float],
    xp: Mapping[int, float],
) -> float:
    """Expected points of those who come on. `xp` counts not playing as nothing, as projections do."""
    chances = expected_substitutes(rules, lineup, position, plays)
    return sum(chance * xp[element] / plays[element] for element, chance in chances.items() if chance > 0)


def _absences(plays: Sequence[float]) -> list[float]:
    """The chances that none, one, two, … of these are missing."""
    chances = [1.0]
    for chance in plays:
        stay, miss = [one * chance for one in chances], [one * (1 - chance) for one in chances]
        chances = [a + b for a, b in zip([*stay, 0.0], [0.0, *miss], strict=True)]
    return chances
