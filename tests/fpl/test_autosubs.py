"""The expected points from the bench are those of every way the gameweek can go, each by its chance."""

import random
from itertools import product
from math import prod

import pytest

from engine_worker.engines.fpl.autosubs import chance_of_playing, expected_from_bench, expected_substitutes
from engine_worker.engines.fpl.lineup import Lineup, best_lineup
from engine_worker.engines.fpl.scoring import substitutions
from engine_worker.engines.fpl.seasons import ruleset
from engine_worker.engines.fpl.synthetic.shapes import game_settings
from tests.fpl.builders import Made

RULES = ruleset(game_settings())
POSITION = {element: 1 + (element > 2) + (element > 7) + (element > 12) for element in range(1, 16)}
# Three defenders, five midfielders, two forwards: 1; 3–5; 8–12; 13, 14. Bench: goalkeeper, two defenders, a forward.
THREE_AT_THE_BACK = Lineup((1, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14), (2, 6, 15, 7), captain=8, vice=9)
EVERYBODY = dict.fromkeys(POSITION, 1.0)


def test_nobody_comes_on_for_eleven_who_play():
    assert set(expected_substitutes(RULES, THREE_AT_THE_BACK, POSITION, EVERYBODY).values()) == {0.0}


@pytest.mark.parametrize(
    "missing, comes_on",
    [
        ({1}, {2}),  # a goalkeeper only for a goalkeeper
        ({8}, {6}),  # the first on the bench
        ({3}, {6}),
        ({8, 9}, {6, 15}),
        ({3, 8}, {6, 15}),
        ({3, 4}, {6, 7}),  # a forward in place of the fourth defender would leave two
        ({8, 9, 10, 11}, {6, 15, 7}),  # the bench is empty
    ],
)
def test_who_comes_on_is_as_the_rules_have_it(missing, comes_on):
    plays = {element: float(element not in missing) for element in POSITION}
    found = expected_substitutes(RULES, THREE_AT_THE_BACK, POSITION, plays)
    assert {element for element, chance in found.items() if chance == pytest.approx(1)} == comes_on
    assert sum(found.values()) == pytest.approx(len(comes_on))


def test_a_benched_player_counts_as_often_as_a_starter_makes_way_and_he_plays_himself():
    plays = EVERYBODY | {8: 0.75, 6: 0.5}
    found = expected_substitutes(RULES, THREE_AT_THE_BACK, POSITION, plays)
    assert found == pytest.approx({2: 0, 6: 0.25 * 0.5, 15: 0.25 * 0.5, 7: 0})
    xp = dict.fromkeys(POSITION, 3.0) | {6: 2.0}
    # Expected points count not playing as nothing: who plays half the time and is expected to score 2 scores 4 if he does.
    assert expected_from_bench(RULES, THREE_AT_THE_BACK, POSITION, plays, xp) == pytest.approx(0.125 * 4 + 0.125 * 3)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_mean_over_every_outcome(seed):
    rng = random.Random(seed)
    unsure = set(rng.sample(range(1, 16), 8))
    plays = {element: round(rng.uniform(0.1, 0.95), 2) if element in unsure else 1.0 for element in POSITION}
    xp = {element: round(rng.expovariate(0.4), 2) for element in POSITION}
    lineup = best_lineup(RULES, list(POSITION), POSITION, xp)
    expected = 0.0
    for outcome in product((True, False), repeat=len(unsure)):
        played = dict.fromkeys(POSITION, True) | dict(zip(sorted(unsure), outcome, strict=True))
        chance = prod(plays[e] if played[e] else 1 - plays[e] for e in POSITION)
        for coming, _ in substitutions(RULES, lineup.starters, lineup.bench, POSITION, played.__getitem__):
            expected += chance * xp[coming] / plays[coming]
    assert expected_from_bench(RULES, lineup, POSITION, plays, xp) == pytest.approx(expected, abs=1e-3)


def test_two_matches_are_two_chances_to_play_and_none_is_none():
    assert [chance_of_playing(0.8, count) for count in (0, 1, 2)] == pytest.approx([0, 0.8, 0.96])


def test_a_decision_says_what_its_bench_is_expected_to_add(made: Made):
    lineup = made.decision.lineup
    assert 0 < lineup.autosub_xp < sum(player.xp for player in lineup.bench)
    plain = made.decision.model_dump()
    plain["lineup"]["autosub_xp"] = 99.0
    with pytest.raises(ValueError, match="more than the whole bench"):
        type(made.decision).model_validate(plain)
