"""Whatever is wrong with a request is refused at submit, and the field is named."""

import json
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine_worker.engines.fpl import fpl
from engine_worker.engines.fpl.sources import source_named
from phaseline import InvalidParams
from tests.fpl.builders import a_squad, assert_within_the_rules, bootstrap, decided


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
        ({"team_id": 1, "booked_transfers": [{"sold": 1}]}, ("booked_transfers", 0, "bought")),
        ({"team_id": 1, "booked_transfers": [{"sold": 1, "bought": 2, "price": 3}]}, ("booked_transfers", 0, "price")),
        (
            {"team_id": 1, "availability_overrides": [{"element": 1, "chance": 101}]},
            ("availability_overrides", 0, "chance"),
        ),
        ({"team_id": 1, "availability_overrides": [{"element": 1, "chance": 5}] * 2}, ("availability_overrides",)),
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
        (
            {"team_id": 1, "locked": [7], "booked_transfers": [{"sold": 7, "bought": 8}]},
            r"locked and sold in booked_transfers: \[7\]",
        ),
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


@pytest.mark.parametrize(
    "change, where, text",
    [
        ({"gameweek": 9}, ("previous", "gameweek"), "gameweek 9 is not the one before the next, 12"),
        ({"gameweek": 12}, ("previous", "gameweek"), "gameweek 12 is not the one before the next, 12"),
        ({"bench": 99_999}, ("previous", "bench", 3), "no player 99999 in this source"),
        ({"keepers": 2}, ("previous", "starters"), "2 goalkeepers start, 1–1 may"),
    ],
)
def test_a_previous_decision_that_cannot_be_scored_is_refused(change, where, text):
    squad = [
        player["element"] for player in a_squad()["squad"]
    ]  # by position: keepers, defenders, midfielders, forwards
    starters = [squad[0], *squad[2:6], *squad[7:11], *squad[12:14]]
    bench = [squad[1], squad[6], squad[11], squad[14]]
    if change.get("keepers"):
        starters[-1], bench[0] = bench[0], starters[-1]
    previous = {"gameweek": change.get("gameweek", 11), "captain": starters[0], "vice": starters[1]}
    previous |= {"starters": starters, "bench": [*bench[:3], change.get("bench", bench[3])]}
    assert (where, text) in refused({"team_id": 1, "previous": previous})


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


def configured_as(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", setting)


def test_a_chip_already_played_or_out_of_its_window_is_refused(monkeypatch):
    assert refused({"team_id": 2, "available_chips": ["wildcard"]}) == [
        (("available_chips", 0), "wildcard is used: played in gameweek 7"),
    ]
    configured_as(monkeypatch, "first=synthetic:1:preseason")
    assert refused({**a_squad(), "available_chips": ["wildcard"]})[-1] == (
        ("available_chips", 0),
        "wildcard may not be played in gameweek 1",
    )


def test_two_free_hits_in_a_row_are_refused(monkeypatch):
    configured_as(monkeypatch, "spring=synthetic:1:25")
    assert refused({"team_id": 3, "available_chips": ["freehit"], "gameweek": 25}) == [
        (("available_chips", 0), "freehit is used: played in gameweek 9, 24"),
    ]


def test_a_season_that_is_over_is_refused(monkeypatch):
    configured_as(monkeypatch, "done=synthetic:1:over")
    assert refused({"team_id": 1}) == [(("gameweek",), "the season of this source is over")]


def test_more_free_transfers_than_the_season_banks_are_refused(tmp_path, monkeypatch):
    saved(tmp_path, monkeypatch, lambda body: body["game_settings"].update(max_extra_free_transfers=1))
    text = "4 free transfers, this season banks at most 2"
    assert refused({"team_id": 1, "free_transfers": 4}) == [(("free_transfers",), text)]


def test_an_override_for_nobody_is_refused():
    override = {"element": 999_999, "chance": 50}
    assert refused({"team_id": 1, "availability_overrides": [override]}) == [
        (("availability_overrides", 0, "element"), "no player 999999 in this source"),
    ]


def swap(sold: int, bought: int) -> dict[str, Any]:
    return {"team_id": 1, "booked_transfers": [{"sold": sold, "bought": bought}]}


def owned_by_position() -> dict[int, list[int]]:
    places = {element["id"]: element["element_type"] for element in bootstrap()["elements"]}
    found: dict[int, list[int]] = {}
    for player in a_squad()["squad"]:
        found.setdefault(places[player["element"]], []).append(player["element"])
    return found


def test_a_booked_transfer_must_sell_who_is_owned_and_buy_who_is_not_and_exists():
    owned = owned_by_position()[4]
    stranger = another(position=4, but=owned)
    assert refused(swap(stranger, owned[0])) == [
        (("booked_transfers", 0, "sold"), f"player {stranger} is not in the squad"),
        (("booked_transfers", 0, "bought"), f"player {owned[0]} is in the squad already"),
    ]
    assert refused(swap(owned[0], 999_999)) == [
        (("booked_transfers", 0, "bought"), "no player 999999 in this source"),
    ]


def test_a_booked_transfer_that_cannot_be_paid_or_breaks_the_squad_is_refused():
    owned = owned_by_position()
    forwards = [element for element in bootstrap()["elements"] if element["element_type"] == 4]
    dearest = max((f for f in forwards if f["id"] not in owned[4]), key=lambda f: f["now_cost"])
    (where, text), *_ = refused(swap(owned[4][0], dearest["id"]))
    assert (where, text.partition(":")[0]) == (("booked_transfers",), "cannot be paid")
    keeper = another(position=1, but=owned[1])
    texts = [text for _, text in refused(swap(owned[4][0], keeper))]
    assert texts[:2] == ["3 goalkeepers, the rules allow 2", "2 forwards, the rules ask for 3"]


def test_booked_transfers_are_in_the_squad_the_plan_starts_from():
    owned = owned_by_position()[3]
    elements = {element["id"]: element for element in bootstrap()["elements"]}
    clubs = [elements[player["element"]]["team"] for player in a_squad()["squad"]]
    cheap = next(
        element
        for element in sorted(elements.values(), key=lambda e: e["now_cost"])
        if element["element_type"] == 3 and element["id"] not in owned and clubs.count(element["team"]) < 3
    )
    # A chip in this gameweek would give back what is booked, and the squad before it.
    plain: dict[str, Any] = {"horizon": 1, "available_chips": []}
    before = decided({"team_id": 1, **plain}).decision.squad_state
    made = decided({**swap(owned[0], cheap["id"]), **plain}).decision
    sold = next(player for player in before.players if player.element == owned[0])
    state = made.squad_state
    assert cheap["id"] in {player.element for player in state.players}
    assert state.bank == before.bank + sold.selling_price - cheap["now_cost"]
    assert state.free_transfers == max(before.free_transfers - 1, 0)
    assert "booked" in {warning.code for warning in made.warnings}


def test_an_override_replaces_what_the_source_says_of_a_player():
    captain = decided({"team_id": 1, "horizon": 1}).decision.lineup.captain.element
    override = {"element": captain, "chance": 0}
    lineup = decided({"team_id": 1, "horizon": 1, "availability_overrides": [override]}).decision.lineup
    assert captain not in {player.element for player in lineup.starters}


def saved(folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], object]) -> None:
    """The made-up season as a folder, its bootstrap changed."""
    made_up = source_named("synthetic")
    for path in ("bootstrap-static", "fixtures", "entry/1/history", "entry/1/transfers", "entry/1/event/11/picks"):
        body = json.loads(json.dumps(made_up.answer(path).body))
        if path == "bootstrap-static":
            change(body)
        file = folder / f"{path}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(body))
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", f"saved=directory:{folder}")


def four_from_one_club(body: dict[str, Any]) -> None:
    """As after real transfers: players of the first manager have moved to one club."""
    owned = [player["element"] for player in a_squad()["squad"]]
    elements = {element["id"]: element for element in body["elements"]}
    club = elements[owned[2]]["team"]
    others = [element for element in owned if elements[element]["team"] != club]
    for element in others[: 4 - sum(elements[e]["team"] == club for e in owned)]:
        elements[element]["team"] = club


def test_four_from_one_club_after_a_real_transfer_is_a_warning(tmp_path, monkeypatch):
    saved(tmp_path, monkeypatch, four_from_one_club)
    decision = decided({"team_id": 1, "horizon": 2, "max_hits": 0}).decision
    assert "club_limit" in {warning.code for warning in decision.warnings}
    assert "club_limit" in {issue.kind for issue in decision.squad_state.issues}
    clubs = Counter(player.club for player in decision.squad_state.players)
    assert max(clubs.values()) == 4


def test_before_the_season_a_squad_is_built_from_the_whole_budget(monkeypatch):
    configured_as(monkeypatch, "first=synthetic:1:preseason")
    decision = decided({"team_id": 1, "horizon": 1}).decision
    assert decision.header.gameweek == 1
    week = decision.transfer_plan.gameweeks[0]
    assert (week.hits, week.unlimited) == (0, True)
    assert len(week.transfers) > 8
    assert 0 <= week.bank_after < 30
    assert "new_entry" in {warning.code for warning in decision.warnings}
    assert_within_the_rules(decision)


def test_before_the_season_a_later_gameweek_of_a_squad_nobody_picked_is_refused(monkeypatch):
    """The cheapest squad is a start where transfers are unlimited; taken as kept for two gameweeks it would be nobody's."""
    configured_as(monkeypatch, "first=synthetic:1:preseason")
    text = "team 1 has no squad before gameweek 1; give squad instead"
    assert refused({"team_id": 1, "gameweek": 3, "horizon": 1}) == [(("team_id",), text)]


def test_a_team_that_joins_later_has_no_squad_yet(monkeypatch):
    configured_as(monkeypatch, "third=synthetic:1:3")
    assert refused({"team_id": 7}) == [(("team_id",), "team 7 has no squad before gameweek 3; give squad instead")]


def test_a_check_is_quick_once_the_source_is_loaded():
    params = fpl.params.model_validate(a_squad())
    assert fpl.check is not None
    fpl.check(params)
    began = time.perf_counter()
    fpl.check(params)
    assert time.perf_counter() - began < 0.3


def test_a_planned_chip_must_be_left_in_its_window_and_within_the_horizon():
    def planned(team_id: int, *plan: tuple[int, str]) -> list[tuple[tuple[str | int, ...], str]]:
        chips = [{"gameweek": gameweek, "chip": chip} for gameweek, chip in plan]
        return refused({"team_id": team_id, "horizon": 3, "chip_plan": chips})

    assert planned(2, (12, "wildcard")) == [(("chip_plan", 0), "wildcard is used: played in gameweek 7")]
    assert planned(1, (15, "3xc")) == [
        (("chip_plan", 0, "gameweek"), "gameweek 15 is not among those planned, 12 and 2 after it"),
    ]
    assert planned(1, (12, "3xc"), (13, "3xc")) == [(("chip_plan", 1), "3xc is used: played in gameweek 12")]
    with pytest.raises(ValidationError, match="chip for gameweek 12 given twice"):
        planned(1, (12, "3xc"), (12, "bboost"))
