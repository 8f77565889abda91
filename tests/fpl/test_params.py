"""Whatever is wrong with a request is refused at submit, and the field is named."""

import time
from collections.abc import Collection
from typing import Any

import pytest
from pydantic import ValidationError

from engine_worker.engines.fpl import fpl
from phaseline import InvalidParams
from tests.fpl.builders import a_squad, bootstrap


def refused(params: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """The (location, message) pairs that `check` raises."""
    assert fpl.check is not None
    with pytest.raises(InvalidParams) as caught:
        fpl.check(fpl.params.model_validate(params))
    return list(caught.value.problems)


def another(*, position: int | None = None, club: int | None = None, but: Collection[int] = ()) -> int:
    """A player of this position or club who is not among `but`."""
    found: int = next(
        element["id"]
        for element in bootstrap()["elements"]
        if element["id"] not in but and position in (None, element["element_type"]) and club in (None, element["team"])
    )
    return found


def replaced(squad: dict[str, Any], index: int, element: int) -> dict[str, Any]:
    players = [dict(player) for player in squad["squad"]]
    players[index]["element"] = element
    return {**squad, "squad": players}


@pytest.mark.parametrize(
    "params, location",
    [
        ({"team_id": 0}, ("team_id",)),
        ({"team_id": 20_000_001}, ("team_id",)),
        ({"team_id": "1"}, ("team_id",)),
        ({"team_id": 1.0}, ("team_id",)),
        ({"team_id": 1, "gameweek": 39}, ("gameweek",)),
        ({"team_id": 1, "horizon": 0}, ("horizon",)),
        ({"team_id": 1, "horizon": 9}, ("horizon",)),
        ({"team_id": 1, "max_hits": 6}, ("max_hits",)),
        ({"team_id": 1, "time_limit_s": 0}, ("time_limit_s",)),
        ({"team_id": 1, "available_chips": ["manager"]}, ("available_chips", 0)),
        ({"team_id": 1, "available_chips": ["3xc", "3xc"]}, ("available_chips",)),
        ({"team_id": 1, "path": "/etc"}, ("path",)),
        ({"squad": [], "bank": 0, "free_transfers": 1}, ("squad",)),
        ({**a_squad(), "bank": -1}, ("bank",)),
        ({**a_squad(), "free_transfers": 6}, ("free_transfers",)),
    ],
)
def test_a_value_out_of_shape_is_named(params, location):
    with pytest.raises(ValidationError) as caught:
        fpl.params.model_validate(params)
    assert location in [error["loc"] for error in caught.value.errors()]


@pytest.mark.parametrize(
    "params, message",
    [
        ({}, "either team_id or squad"),
        ({"team_id": 1, **a_squad()}, "either team_id or squad"),
        ({"team_id": 1, "bank": 3}, "bank belongs to squad"),
        ({"squad": a_squad()["squad"]}, "squad needs bank and free_transfers"),
        ({"team_id": 1, "locked": [7], "banned": [7]}, r"locked and banned both name \[7\]"),
    ],
)
def test_fields_that_contradict_each_other_are_named(params, message):
    with pytest.raises(ValidationError, match=message):
        fpl.params.model_validate(params)


def test_a_player_given_twice_is_named():
    squad = a_squad()
    twice = squad["squad"][3]["element"]
    with pytest.raises(ValidationError, match=f"player {twice} given twice") as caught:
        fpl.params.model_validate(replaced(squad, 4, twice))
    assert caught.value.errors()[0]["loc"] == ("squad",)


def test_a_good_squad_and_a_good_team_pass():
    assert fpl.check is not None
    fpl.check(fpl.params.model_validate(a_squad()))
    fpl.check(fpl.params.model_validate({"team_id": 6, "gameweek": 12}))


def test_a_third_goalkeeper_is_refused_with_what_he_displaced():
    squad = a_squad()
    owned = {player["element"] for player in squad["squad"]}
    problems = refused(replaced(squad, 14, another(position=1, but=owned)))
    assert (("squad",), "3 goalkeepers, the rules allow 2") in problems
    assert (("squad",), "2 forwards, the rules ask for 3") in problems


def test_a_fourth_player_of_a_club_is_refused():
    squad = a_squad()
    elements = {element["id"]: element for element in bootstrap()["elements"]}
    club = elements[squad["squad"][0]["element"]]["team"]
    name = next(team["name"] for team in bootstrap()["teams"] if team["id"] == club)
    for index in range(2, 15):
        place = elements[squad["squad"][index]["element"]]["element_type"]
        owned = {player["element"] for player in squad["squad"]}
        if sum(elements[element]["team"] == club for element in owned) < 4:
            squad = replaced(squad, index, another(position=place, club=club, but=owned))
    assert (("squad",), f"4 players from {name}, the rules allow 3") in refused(squad)


def test_an_unknown_player_is_named_by_his_place_in_the_request():
    assert refused(replaced(a_squad(), 5, 999_999)) == [
        (("squad", 5, "element"), "no player 999999 in this source"),
    ]


def test_a_squad_nobody_could_have_paid_for_is_refused():
    squad = a_squad()
    squad["bank"] = 200
    problems = refused(squad)
    assert [location for location, _ in problems] == [("squad",)]
    assert problems[0][1].startswith("over budget: purchase prices and bank add up to")


def test_a_gameweek_gone_by_is_refused():
    assert refused({"team_id": 1, "gameweek": 11}) == [(("gameweek",), "gameweek 11 is past, the next is 12")]


def test_an_unknown_source_is_refused():
    assert refused({"team_id": 1, "source": "live"}) == [
        (("source",), "unknown source 'live', this server has synthetic"),
    ]


def test_an_unknown_team_is_refused():
    assert refused({"team_id": 4711}) == [(("team_id",), "this source has no team 4711")]


def test_a_broken_source_is_refused_for_what_it_is(tmp_path, monkeypatch):
    (tmp_path / "bootstrap-static.json").write_text("<html>")
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", f"saved=directory:{tmp_path}")
    (location, message), *_ = refused({"team_id": 1})
    assert location == ("source",)
    assert "a web page, not JSON" in message


def test_everything_wrong_is_listed_at_once():
    problems = refused({"team_id": 4711, "gameweek": 3, "banned": [999_999], "available_chips": ["wildcard"]})
    assert [location for location, _ in problems] == [("gameweek",), ("team_id",), ("banned", 0)]


def test_a_locked_player_must_be_owned_and_a_chip_in_its_window():
    stranger = another(but={player["element"] for player in a_squad()["squad"]})
    assert refused({**a_squad(), "locked": [stranger]}) == [
        (("locked", 0), f"player {stranger} is not in the squad"),
    ]


def test_a_check_is_quick_once_the_source_is_loaded():
    params = fpl.params.model_validate(a_squad())
    assert fpl.check is not None
    fpl.check(params)
    began = time.perf_counter()
    fpl.check(params)
    assert time.perf_counter() - began < 0.3
