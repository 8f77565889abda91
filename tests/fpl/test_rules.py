"""The rules themselves, season by season, against worked examples. What a real season says is in test_real_oracles.py."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.engines.fpl import rules as r
from engine_worker.engines.fpl.scoring import match_points, multipliers, substitutions
from engine_worker.engines.fpl.seasons import (
    ChipWindow,
    Ruleset,
    UnknownSeason,
    disagreements,
    known_seasons,
    ruleset,
    season_of,
    season_table,
)
from engine_worker.engines.fpl.synthetic.shapes import game_settings
from tests.fpl.builders import bootstrap

SEASONS = ("2020-21", "2021-22", "2022-23", "2023-24", "2024-25", "2025-26", "2026-27")


def season(name: str) -> Ruleset:
    return Ruleset.model_validate(season_table(name))


def an_old_bootstrap(name: str) -> dict[str, Any]:
    """A bootstrap as the API of that season gave it: nothing about chips, scoring or banked transfers before 2024/25."""
    settings = game_settings()
    if name < "2024-25":
        without = {key: value for key, value in settings["game_settings"].items() if key != "max_extra_free_transfers"}
        settings = {**settings, "game_settings": without, "chips": None, "game_config": None}
    later = int(name[:4]) - 2026
    moved = [f"{int(e['deadline_time'][:4]) + later}{e['deadline_time'][4:]}" for e in settings["events"]]
    events = [{**e, "deadline_time": time} for e, time in zip(settings["events"], moved, strict=True)]
    return {**settings, "events": events}


NEW = season("2026-27")


def test_the_table_has_every_season_from_2020_21_to_2026_27():
    assert tuple(known_seasons()) == SEASONS
    assert [season(name).version for name in SEASONS] == [f"fpl-{name}.1" for name in SEASONS]


@pytest.mark.parametrize("name", SEASONS[:4])
def test_a_season_whose_api_says_little_is_played_by_the_table(name):
    assert ruleset(an_old_bootstrap(name)) == season(name)
    assert disagreements(an_old_bootstrap(name)) == []


def test_what_the_api_states_wins_over_the_table_and_the_difference_is_named():
    stated = game_settings()
    stated["game_settings"] = {**stated["game_settings"], "squad_team_limit": 4, "max_extra_free_transfers": 2}
    scoring = {**stated["game_config"]["scoring"], "assists": 4, "goals_scored": {"GKP": 12, "MNG": 1}}
    stated["game_config"] = {"scoring": scoring}
    rules = ruleset(stated)
    assert (rules.club_limit, rules.free_transfers_max, rules.scoring.assists) == (4, 3, 4)
    assert rules.scoring.goals_scored == {"GKP": 12, "DEF": 6, "MID": 5, "FWD": 4}
    assert rules.scoring.saves_each == 3
    assert disagreements(stated) == [
        "club_limit: 3, the API says 4",
        "free_transfers_max: 5, the API says 3",
        "scoring.goals_scored.GKP: 10, the API says 12",
        "scoring.assists: 3, the API says 4",
    ]


def test_the_made_up_api_says_what_the_table_says():
    assert disagreements(bootstrap()) == []
    assert ruleset(bootstrap()) == NEW


def test_a_season_to_come_is_read_as_the_last_one_and_says_so():
    later = an_old_bootstrap("2031-32")
    assert ruleset(later).version == "fpl-2031-32.0"
    assert disagreements(later)[0] == "season 2031-32: not in the table, 2026-27 is used"


def test_a_season_before_the_first_is_refused():
    with pytest.raises(UnknownSeason, match="season 2018-19 is before 2020-21"):
        ruleset(an_old_bootstrap("2018-19"))


def test_a_season_is_named_by_its_first_deadline():
    assert season_of(bootstrap()) == "2026-27"


@pytest.mark.parametrize(
    "paid, now, sells",
    [(50, 50, 50), (50, 51, 50), (50, 52, 51), (50, 53, 51), (50, 54, 52), (50, 47, 47), (125, 138, 131)],
)
def test_a_player_sells_for_half_of_his_rise_and_all_of_his_fall(paid, now, sells):
    assert r.selling_price(paid, now) == sells


@given(st.integers(38, 150), st.integers(38, 150))
def test_nobody_sells_for_more_than_he_costs_or_less_than_both_prices(paid, now):
    assert min(paid, now) <= r.selling_price(paid, now) <= now


@pytest.mark.parametrize(
    "free, made, chip, then",
    [
        (1, 0, None, 2),
        (1, 1, None, 1),
        (1, 3, None, 1),
        (5, 0, None, 5),
        (5, 2, None, 4),
        (3, 9, "wildcard", 3),
        (2, 15, "freehit", 2),
        (2, 1, "bboost", 2),
    ],
)
@pytest.mark.parametrize("name", SEASONS[4:])
def test_since_2024_25_free_transfers_are_banked_up_to_five_and_kept_through_a_chip(name, free, made, chip, then):
    assert r.next_free_transfers(season(name), 10, free, made, chip) == then


@pytest.mark.parametrize("name", SEASONS[:4])
def test_until_2023_24_two_were_banked_and_a_wildcard_or_free_hit_left_one(name):
    old = season(name)
    assert [r.next_free_transfers(old, 10, free, made) for free, made in ((1, 0), (2, 0), (2, 2))] == [2, 2, 1]
    assert [r.next_free_transfers(old, 10, 2, 8, chip) for chip in ("wildcard", "freehit")] == [1, 1]


def test_only_2025_26_began_its_sixteenth_gameweek_with_five_for_everybody():
    assert [r.next_free_transfers(season(name), 15, 1, 1) for name in SEASONS] == [1, 1, 1, 1, 1, 5, 1]


def test_around_the_world_cup_of_2022_transfers_cost_nothing_but_were_counted():
    old = season("2022-23")
    assert [r.hit_cost(old, gameweek, 1, 11) for gameweek in (16, 17, 18)] == [40, 0, 40]
    assert [r.next_free_transfers(old, 17, 1, made) for made in (0, 1, 11)] == [2, 1, 1]
    assert [name for name in SEASONS if r.costs_nothing(season(name), 17)] == ["2022-23"]


def test_hits_are_what_goes_beyond_the_free_ones_unless_a_chip_is_played():
    assert [r.hits(3, 1), r.hits(1, 2)] == [2, 0]
    costs = [
        r.hit_cost(NEW, 9, 1, made, chip) for made, chip in ((9, "wildcard"), (9, "freehit"), (2, "3xc"), (3, None))
    ]
    assert costs == [0, 0, 4, 8]
    assert r.hit_cost(NEW, 1, 0, 15) == 0


def windows(rules: Ruleset, chip: str) -> list[tuple[int, int]]:
    return [(window.start, window.stop) for window in rules.chips if window.name == chip]


@pytest.mark.parametrize(
    "name, wildcards, free_hits, boosts",
    [
        ("2020-21", [(2, 16), (17, 38)], [(2, 38)], [(1, 38)]),
        ("2021-22", [(2, 20), (21, 38)], [(2, 38), (20, 38)], [(1, 38)]),
        ("2022-23", [(2, 16), (18, 38)], [(2, 38)], [(1, 38)]),
        ("2023-24", [(2, 20), (21, 38)], [(2, 38)], [(1, 38)]),
        ("2024-25", [(2, 19), (20, 38)], [(2, 38)], [(1, 38)]),
        ("2025-26", [(2, 19), (20, 38)], [(2, 19), (20, 38)], [(1, 19), (20, 38)]),
        ("2026-27", [(2, 19), (20, 38)], [(2, 19), (20, 38)], [(1, 19), (20, 38)]),
    ],
)
def test_each_season_has_its_chips_and_their_gameweeks(name, wildcards, free_hits, boosts):
    rules = season(name)
    assert windows(rules, "wildcard") == wildcards
    assert windows(rules, "freehit") == free_hits
    assert windows(rules, "bboost") == windows(rules, "3xc") == boosts


def test_a_chip_is_played_once_in_its_window_and_one_a_gameweek():
    assert NEW.window("freehit", 20) == ChipWindow(name="freehit", start=20, stop=38)
    assert r.chips_left(NEW, {}, 1) == ["bboost", "3xc"]
    assert r.chips_left(NEW, {9: "wildcard", 12: "bboost"}, 14) == ["freehit", "3xc"]
    assert r.chips_left(NEW, {9: "wildcard", 12: "bboost"}, 20) == ["wildcard", "freehit", "bboost", "3xc"]
    assert r.chip_problem(NEW, {9: "wildcard"}, 14, "wildcard") == "wildcard is used: played in gameweek 9"
    assert r.chip_problem(NEW, {}, 1, "freehit") == "freehit may not be played in gameweek 1"
    assert r.chip_problem(NEW, {9: "3xc"}, 9, "bboost") == "3xc is played in gameweek 9, one chip a gameweek"


def test_the_second_free_hit_of_2021_22_came_beside_the_first():
    rules = season("2021-22")
    assert r.chip_problem(rules, {}, 25, "freehit") is None
    assert r.chip_problem(rules, {25: "freehit"}, 30, "freehit") is None
    assert r.chip_problem(rules, {19: "freehit"}, 26, "freehit") is None
    assert r.chip_problem(rules, {25: "freehit"}, 26, "freehit") is not None
    assert r.chip_problem(rules, {12: "freehit"}, 18, "freehit") is not None
    assert r.chip_problem(rules, {25: "freehit", 28: "freehit"}, 31, "freehit") is not None


def test_two_free_hits_are_not_played_in_a_row():
    text = "no free hit in consecutive gameweeks: one is played in gameweek 19"
    assert r.chip_problem(NEW, {19: "freehit"}, 20, "freehit") == text
    assert r.chip_problem(NEW, {18: "freehit"}, 20, "freehit") is None


def test_a_squad_is_told_everything_that_is_wrong_with_it():
    squad = [(1, 1)] * 3 + [(2, 2)] * 5 + [(3, 3), (3, 4), (3, 5), (3, 6), (3, 7)] + [(4, 8), (4, 9)]
    found = r.squad_violations(NEW, squad, {2: "Brackwell Town"})
    assert found == [
        "3 goalkeepers, the rules allow 2",
        "2 forwards, the rules ask for 3",
        "5 players from Brackwell Town, the rules allow 3",
    ]


def match(**stats: int) -> dict[str, int]:
    names = (
        "goals_scored assists clean_sheets goals_conceded own_goals penalties_saved penalties_missed yellow_cards "
        "red_cards saves bonus defensive_contribution"
    )
    return {"minutes": 90, **dict.fromkeys(names.split(), 0), **stats}


@pytest.mark.parametrize(
    "position, stats, points",
    [
        (4, {"minutes": 0}, 0),
        (4, {"minutes": 59}, 1),
        (4, {"minutes": 60}, 2),
        (4, {"goals_scored": 2, "bonus": 3}, 13),
        (3, {"goals_scored": 1, "clean_sheets": 1, "assists": 1}, 11),
        (2, {"clean_sheets": 1, "goals_scored": 1, "yellow_cards": 1}, 11),
        (2, {"goals_conceded": 3, "defensive_contribution": 10}, 3),
        (3, {"defensive_contribution": 11}, 2),
        (4, {"defensive_contribution": 12}, 4),
        (1, {"saves": 7, "goals_conceded": 4}, 2),
        (1, {"penalties_saved": 1, "clean_sheets": 1}, 11),
        (1, {"goals_scored": 1, "defensive_contribution": 20}, 12),
        (4, {"red_cards": 1, "penalties_missed": 1, "own_goals": 1}, -5),
        (2, {"minutes": 0, "yellow_cards": 1}, -1),
    ],
)
def test_points_of_a_match_follow_the_published_table(position, stats, points):
    assert match_points(NEW, position, match(**stats)) == points


@pytest.mark.parametrize("name", SEASONS)
def test_a_keepers_goal_is_worth_ten_since_2024_25_and_defending_two_since_2025_26(name):
    rules = season(name)
    goal = match_points(rules, 1, match(goals_scored=1)) - 2
    defending = match_points(rules, 2, match(defensive_contribution=12)) - 2
    assert (goal, defending) == (10 if name >= "2024-25" else 6, 2 if name >= "2025-26" else 0)


# Elements 1–11 start, 12–15 wait: a 4-4-2 with a keeper, a defender, a midfielder and a forward on the bench.
PLACES = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 3, 7: 3, 8: 3, 9: 3, 10: 4, 11: 4, 12: 1, 13: 4, 14: 3, 15: 2}
ELEVEN, BENCH = tuple(range(1, 12)), (12, 13, 14, 15)


def swapped(*absent: int) -> list[tuple[int, int]]:
    return substitutions(NEW, ELEVEN, BENCH, PLACES, lambda element: element not in absent)


def test_the_first_on_the_bench_comes_on_for_a_starter_who_did_not_play():
    assert swapped() == []
    assert swapped(7) == [(13, 7)]
    assert swapped(7, 13) == [(14, 7)]


def test_a_keeper_only_for_a_keeper():
    assert swapped(1) == [(12, 1)]
    assert swapped(1, 12) == []


def test_the_bench_is_passed_over_where_the_eleven_would_be_illegal():
    assert swapped(4, 5) == [(13, 4), (15, 5)]
    assert swapped(2, 3, 4) == [(13, 2), (15, 3)]


def test_the_vice_captain_stands_in_for_triple_too():
    def counted(absent: int, chip: str | None) -> dict[int, int]:
        return multipliers(ELEVEN, BENCH, 10, 6, chip, lambda element: element != absent)

    assert (counted(0, None)[10], counted(10, None)[6], counted(10, "3xc")[6]) == (2, 2, 3)
    assert [counted(0, chip)[13] for chip in (None, "bboost")] == [0, 1]
