"""The made-up season looks like the real API and agrees with itself."""

import json
from collections import Counter

import pytest

from engine_worker.engines.fpl.collecting import entry_pages
from engine_worker.engines.fpl.rules import ruleset, squad_violations
from engine_worker.engines.fpl.sources import NotThere, Reading
from engine_worker.engines.fpl.state import entry_state, picks_gameweek
from engine_worker.engines.fpl.synthetic import SyntheticSource
from engine_worker.engines.fpl.synthetic.world import PLAYED
from tests.fpl.builders import MANAGERS

SEASON = SyntheticSource(1)
BOOTSTRAP = SEASON.answer("bootstrap-static").body
FIXTURES = SEASON.answer("fixtures").body
ELEMENTS = {element["id"]: element for element in BOOTSTRAP["elements"]}
PATHS = ("bootstrap-static", "fixtures", "entry/3/history", "entry/3/transfers", "entry/3/event/9/picks")


def rows(element: int) -> list[dict[str, int]]:
    history: list[dict[str, int]] = SEASON.answer(f"element-summary/{element}").body["history"]
    return history


def test_the_same_seed_gives_the_same_season_and_another_seed_another():
    again, other = SyntheticSource(1), SyntheticSource(2)
    for path in PATHS:
        assert again.answer(path).sha256 == SEASON.answer(path).sha256
    assert other.answer("fixtures").sha256 != SEASON.answer("fixtures").sha256


def test_it_has_the_size_of_a_real_season():
    assert len(BOOTSTRAP["teams"]) == 20
    assert 640 <= len(ELEMENTS) <= 660
    assert len(FIXTURES) == 380
    assert [event["id"] for event in BOOTSTRAP["events"] if event["is_next"]] == [PLAYED + 1]
    assert len({element["web_name"] for element in ELEMENTS.values()}) == len(ELEMENTS)


@pytest.mark.parametrize("field", ["form", "points_per_game", "ep_next", "selected_by_percent", "expected_goals"])
def test_numbers_that_are_text_in_the_api_are_text_here(field):
    assert all(isinstance(element[field], str) and float(element[field]) >= -5 for element in ELEMENTS.values())


def test_totals_are_the_sums_of_the_matches():
    for element in ELEMENTS.values():
        for field in ("minutes", "goals_scored", "total_points", "bonus", "starts", "saves"):
            assert element[field] == sum(row[field] for row in rows(element["id"]))


def test_goals_of_a_match_are_those_of_its_scorers_and_own_goals():
    for match in (match for match in FIXTURES if match["finished"]):
        stats = {stat["identifier"]: stat for stat in match["stats"]}
        scored = [sum(one["value"] for one in stats["goals_scored"][side]) for side in "ha"]
        own = [sum(one["value"] for one in stats["own_goals"][side]) for side in "ah"]
        assert [match["team_h_score"], match["team_a_score"]] == [a + b for a, b in zip(scored, own, strict=True)]


def test_eleven_start_for_each_side_of_every_match():
    starts = Counter(
        (row["fixture"], row["was_home"]) for element in ELEMENTS for row in rows(element) if row["starts"]
    )
    assert set(starts.values()) == {11}


def test_a_blank_and_a_double_lie_ahead_and_one_match_has_no_date():
    matches = Counter(
        (club, match["event"]) for match in FIXTURES if match["event"] for club in (match["team_h"], match["team_a"])
    )
    ahead = range(PLAYED + 1, PLAYED + 9)
    counts = {matches[club, gameweek] for club in range(1, 21) for gameweek in ahead}
    assert counts == {0, 1, 2}
    assert sum(match["event"] is None for match in FIXTURES) == 1


@pytest.mark.parametrize("entry", MANAGERS)
def test_a_made_up_manager_has_a_legal_squad_every_gameweek(entry):
    rules = ruleset(BOOTSTRAP)
    for gameweek in range(1, PLAYED + 1):
        picks = SEASON.answer(f"entry/{entry}/event/{gameweek}/picks").body["picks"]
        players = [(ELEMENTS[pick["element"]]["element_type"], ELEMENTS[pick["element"]]["team"]) for pick in picks]
        assert squad_violations(rules, players) == []


@pytest.mark.parametrize("entry", MANAGERS)
def test_his_points_are_those_of_his_picks(entry):
    points = {(row["element"], row["event"]): 0 for element in ELEMENTS for row in rows(element)}
    for element in ELEMENTS:
        for row in rows(element):
            points[element, row["event"]] += row["total_points"]
    for week in SEASON.answer(f"entry/{entry}/history").body["current"]:
        picks = SEASON.answer(f"entry/{entry}/event/{week['event']}/picks").body["picks"]
        assert week["points"] == sum(p["multiplier"] * points.get((p["element"], week["event"]), 0) for p in picks)


@pytest.mark.parametrize("entry", MANAGERS)
def test_what_is_rebuilt_from_his_public_pages_is_what_he_really_has(entry):
    truth = SEASON._season.managers[entry]
    reading = Reading(SEASON)
    state = entry_state(ruleset(BOOTSTRAP), ELEMENTS, entry_pages(reading, entry, PLAYED + 1), PLAYED + 1)
    assert {holding.element: holding.purchase_price for holding in state.holdings} == truth.squad
    assert (state.bank, state.free_transfers) == (truth.bank, truth.free_transfers)
    assert (state.replay.weeks_exact, state.replay.mismatches) == (PLAYED, [])


def test_a_free_hit_just_played_is_not_the_squad():
    history = SEASON.answer("entry/3/history").body
    assert picks_gameweek(history, 10) == 8


def test_a_wrong_bank_or_a_wrong_hit_is_named_by_its_gameweek():
    reading = Reading(SEASON)
    pages = entry_pages(reading, 1, PLAYED + 1)
    history = json.loads(json.dumps(pages.history))
    history["current"][4]["bank"] += 3
    history["current"][6]["event_transfers_cost"] += 4
    state = entry_state(ruleset(BOOTSTRAP), ELEMENTS, pages._replace(history=history), PLAYED + 1)
    assert state.replay.weeks_exact == PLAYED - 2
    assert [text.split(":")[0] for text in state.replay.mismatches] == ["GW7", "GW5"]


@pytest.mark.parametrize("path", ["entry/7", "entry/1/event/12/picks", "element-summary/9999", "live"])
def test_what_it_does_not_have_it_says_so(path):
    with pytest.raises(NotThere):
        SEASON.answer(path)
