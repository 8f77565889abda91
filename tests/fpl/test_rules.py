"""The rules themselves, against worked examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.engines.fpl import rules as r
from engine_worker.engines.fpl.synthetic.shapes import game_settings
from tests.fpl.builders import bootstrap

NEW = r.ruleset(game_settings())


def the_rules_of(first_year: int) -> r.Ruleset:
    settings = game_settings()
    if first_year < 2024:
        settings["game_settings"] = {**settings["game_settings"], "max_extra_free_transfers": None}
    if first_year < 2025:
        settings["chips"] = None
    settings["events"] = [
        {**event, "deadline_time": event["deadline_time"].replace("2026", str(first_year))}
        for event in settings["events"]
    ]
    return r.ruleset(settings)


@pytest.mark.parametrize(
    "paid, now, sells",
    [(50, 50, 50), (50, 51, 50), (50, 52, 51), (50, 53, 51), (50, 54, 52), (50, 47, 47), (125, 138, 131)],
)
def test_a_player_sells_for_half_of_his_rise_and_all_of_his_fall(paid, now, sells):
    assert r.selling_price(paid, now) == sells


@given(st.integers(38, 150), st.integers(38, 150))
def test_nobody_sells_for_more_than_he_costs_or_less_than_both_prices(paid, now):
    assert min(paid, now) <= r.selling_price(paid, now) <= now


def test_a_season_is_named_by_its_first_deadline():
    assert r.season_of(bootstrap()) == "2026-27"
    assert NEW.version == "fpl-2026-27"


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
def test_free_transfers_are_banked_up_to_five_and_kept_through_a_chip(free, made, chip, then):
    assert r.next_free_transfers(NEW, 10, free, made, chip) == then


def test_until_2023_24_two_were_banked_and_a_wildcard_left_one():
    old = the_rules_of(2023)
    assert old.free_transfers_max == 2
    assert r.next_free_transfers(old, 10, 2, 0) == 2
    assert r.next_free_transfers(old, 10, 2, 8, "wildcard") == 1
    assert old.goalkeeper_goal_pts == 6


def test_2025_26_began_its_sixteenth_gameweek_with_five_for_everybody():
    assert r.next_free_transfers(the_rules_of(2025), 15, 1, 1) == 5


def test_2022_23_had_free_changes_before_its_seventeenth_gameweek():
    season = the_rules_of(2022)
    assert season.unlimited_gameweeks == (1, 17)
    assert r.next_free_transfers(season, 17, 2, 11) == 1


def test_hits_are_what_goes_beyond_the_free_ones_unless_a_chip_is_played():
    assert [r.hits(3, 1), r.hits(1, 2), r.hits(9, 1, "wildcard"), r.hits(2, 1, "3xc")] == [2, 0, 0, 1]


def test_each_half_of_the_season_has_its_own_chips():
    window = NEW.window("bboost", 19)
    assert window is not None
    assert (window.start, window.stop) == (1, 19)
    assert NEW.window("wildcard", 1) is None
    assert NEW.window("freehit", 20) == r.ChipWindow(name="freehit", start=20, stop=38)


def test_a_season_without_chips_in_the_api_has_two_wildcards_and_one_of_the_others():
    names = [chip.name for chip in the_rules_of(2023).chips]
    assert sorted(names) == ["3xc", "bboost", "freehit", "wildcard", "wildcard"]


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
        (4, {"goals_scored": 2, "bonus": 3}, 13),
        (3, {"goals_scored": 1, "clean_sheets": 1, "assists": 1}, 11),
        (2, {"clean_sheets": 1, "goals_scored": 1, "yellow_cards": 1}, 11),
        (2, {"goals_conceded": 3, "defensive_contribution": 10}, 3),
        (3, {"defensive_contribution": 11}, 2),
        (1, {"saves": 7, "goals_conceded": 4}, 2),
        (1, {"penalties_saved": 1, "clean_sheets": 1}, 11),
        (1, {"goals_scored": 1, "defensive_contribution": 20}, 12),
        (4, {"red_cards": 1, "penalties_missed": 1, "own_goals": 1}, -5),
    ],
)
def test_points_of_a_match_follow_the_published_table(position, stats, points):
    assert r.match_points(NEW, position, match(**stats)) == points
