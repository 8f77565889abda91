"""The made-up season looks like the real API, agrees with itself, and knows what was to be expected."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from engine_worker.engines.fpl.entries import entry_pages
from engine_worker.engines.fpl.replay import replayed
from engine_worker.engines.fpl.rules import squad_violations
from engine_worker.engines.fpl.scoring import match_points
from engine_worker.engines.fpl.seasons import ruleset
from engine_worker.engines.fpl.source import NotThere, Reading
from engine_worker.engines.fpl.state import entry_state, picks_gameweek
from engine_worker.engines.fpl.synthetic import State, SyntheticSource
from engine_worker.engines.fpl.synthetic.managers import JOINED
from tests.fpl.builders import MANAGERS

PLAYED = State().played
SEASON = SyntheticSource(1)
BOOTSTRAP = SEASON.answer("bootstrap-static").body
FIXTURES = SEASON.answer("fixtures").body
ELEMENTS = {element["id"]: element for element in BOOTSTRAP["elements"]}
PATHS = ("bootstrap-static", "fixtures", "entry/3/history", "entry/3/transfers", "entry/3/event/9/picks")
PRESEASON, OVER = SyntheticSource(1, State.named("preseason")), SyntheticSource(1, State.named("over"))


def rows(element: int, season: SyntheticSource = SEASON) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = season.answer(f"element-summary/{element}").body["history"]
    return history


def next_gameweeks(season: SyntheticSource) -> list[int]:
    return [event["id"] for event in season.answer("bootstrap-static").body["events"] if event["is_next"]]


def test_the_same_seed_gives_the_same_season_and_another_seed_another():
    again, other = SyntheticSource(1), SyntheticSource(2)
    for path in reversed(PATHS):
        assert again.answer(path).sha256 == SEASON.answer(path).sha256
    assert other.answer("fixtures").sha256 != SEASON.answer("fixtures").sha256


def test_a_later_moment_is_the_same_season_gone_on():
    later = SyntheticSource(1, State.named("14"))
    assert next_gameweeks(later) == [14]
    scores = {
        match["id"]: match["team_h_score"] for match in later.answer("fixtures").body if match["event"] in range(1, 12)
    }
    assert scores == {match["id"]: match["team_h_score"] for match in FIXTURES if match["event"] in range(1, 12)}
    history = later.answer("entry/3/history").body["current"]
    assert history[:PLAYED] == SEASON.answer("entry/3/history").body["current"]


def test_it_has_the_size_of_a_real_season():
    assert len(BOOTSTRAP["teams"]) == 20
    assert 640 <= len(ELEMENTS) <= 660
    assert len(FIXTURES) == 380
    assert next_gameweeks(SEASON) == [PLAYED + 1]
    assert len({element["web_name"] for element in ELEMENTS.values()}) == len(ELEMENTS)


TEXT = [
    "form",
    "points_per_game",
    "ep_next",
    "selected_by_percent",
    "expected_goals",
    "expected_assists",
    "price_change_percent",
]


@pytest.mark.parametrize("field", TEXT)
def test_numbers_that_are_text_in_the_api_are_text_here(field):
    assert all(isinstance(element[field], str) and float(element[field]) >= -5 for element in ELEMENTS.values())


def test_the_crowd_takes_who_is_in_form_and_drops_who_is_out():
    owned = [one for one in ELEMENTS.values() if float(one["selected_by_percent"]) > 0.5]

    def each_owner(field: str, of: list[dict[str, Any]]) -> float:
        return sum(one[field] for one in of) / sum(float(one["selected_by_percent"]) for one in of)

    fit = [one for one in owned if one["status"] == "a"]
    out = [one for one in owned if one["status"] == "i"]
    good, bad = ([one for one in fit if (float(one["form"]) > 3) == high] for high in (True, False))
    assert each_owner("transfers_in_event", good) > 1.3 * each_owner("transfers_in_event", bad)
    assert each_owner("transfers_in_event", out) < 0.2 * each_owner("transfers_in_event", fit)
    assert each_owner("transfers_out_event", out) > 2 * each_owner("transfers_out_event", fit)
    bought, sold = (sum(one[f"transfers_{way}_event"] for one in ELEMENTS.values()) for way in ("in", "out"))
    assert bought == pytest.approx(sold, rel=0.001)
    assert not any(one["transfers_in_event"] for one in PRESEASON.answer("bootstrap-static").body["elements"])


def test_ranks_are_among_all_and_among_those_of_a_position():
    for field, rank in (
        ("threat", "threat_rank"),
        ("now_cost", "now_cost_rank"),
        ("selected_by_percent", "selected_rank"),
    ):
        for one in list(ELEMENTS.values())[::40]:
            better = [other for other in ELEMENTS.values() if float(other[field]) > float(one[field])]
            assert one[rank] == 1 + len(better)
            of_type = [other for other in better if other["element_type"] == one["element_type"]]
            assert one[f"{rank}_type"] == 1 + len(of_type)


def test_the_indices_tell_who_threatens_and_who_creates():
    often = [one for one in ELEMENTS.values() if one["minutes"] > 500]
    for index, what in (("threat", "expected_goals"), ("creativity", "expected_assists")):
        told, expected = ([float(one[field]) for one in often] for field in (index, what))
        assert 0.8 < np.corrcoef(told, expected)[0, 1] < 1
    one = often[0]
    whole = sum(float(one[name]) for name in ("influence", "creativity", "threat"))
    assert float(one["ict_index"]) == pytest.approx(whole / 10, abs=0.06)


def test_the_fit_have_no_chance_and_the_flagged_have_one_and_news():
    shown = {(e["status"], e["chance_of_playing_next_round"]) for e in ELEMENTS.values()}
    assert shown >= {("a", None), ("d", 75), ("i", 0)}
    assert all(bool(e["news"]) == (e["status"] != "a") for e in ELEMENTS.values())


def test_strengths_are_zero_as_in_the_api_of_this_season():
    strengths = {
        value for team in BOOTSTRAP["teams"] for key, value in team.items() if key.startswith("strength_attack")
    }
    assert strengths == {0}
    assert {team["strength"] for team in BOOTSTRAP["teams"]} == {None}


def test_totals_are_the_sums_of_the_matches():
    for element in ELEMENTS.values():
        for field in ("minutes", "goals_scored", "total_points", "bonus", "starts", "saves"):
            assert element[field] == sum(row[field] for row in rows(element["id"]))


def test_points_of_every_match_are_those_of_the_scoring_table():
    rules = ruleset(BOOTSTRAP)
    for element in ELEMENTS.values():
        for row in rows(element["id"]):
            assert row["total_points"] == match_points(rules, element["element_type"], row)


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


def test_before_the_season_nobody_has_played_but_totals_are_those_of_the_last_one():
    body = PRESEASON.answer("bootstrap-static").body
    assert next_gameweeks(PRESEASON) == [1]
    assert not any(event["is_current"] or event["is_previous"] for event in body["events"])
    assert {element["ep_this"] for element in body["elements"]} == {None}
    assert {element["form"] for element in body["elements"]} == {"0.0"}
    with_minutes = sum(element["minutes"] > 0 for element in body["elements"])
    assert 250 < with_minutes < 500
    assert not any(match["finished"] for match in PRESEASON.answer("fixtures").body)
    assert PRESEASON.answer("entry/1/history").body["current"] == []
    with pytest.raises(NotThere):
        PRESEASON.answer("entry/1/event/1/picks")


def test_after_the_season_no_gameweek_is_next_and_every_match_is_played():
    assert next_gameweeks(OVER) == []
    assert all(match["finished"] for match in OVER.answer("fixtures").body)


@pytest.mark.parametrize("entry", MANAGERS)
def test_a_made_up_manager_has_a_legal_squad_every_gameweek(entry):
    rules = ruleset(BOOTSTRAP)
    for gameweek in range(JOINED.get(entry, 1), PLAYED + 1):
        picks = SEASON.answer(f"entry/{entry}/event/{gameweek}/picks").body["picks"]
        players = [(ELEMENTS[pick["element"]]["element_type"], ELEMENTS[pick["element"]]["team"]) for pick in picks]
        assert squad_violations(rules, players) == []


@pytest.mark.parametrize("entry", MANAGERS)
def test_his_points_are_those_of_his_picks(entry):
    points: Counter[tuple[int, int]] = Counter()
    for element in ELEMENTS:
        for row in rows(element):
            points[element, row["round"]] += row["total_points"]
    for week in SEASON.answer(f"entry/{entry}/history").body["current"]:
        picks = SEASON.answer(f"entry/{entry}/event/{week['event']}/picks").body["picks"]
        assert week["points"] == sum(p["multiplier"] * points[p["element"], week["event"]] for p in picks)


@pytest.mark.parametrize("entry", MANAGERS)
@pytest.mark.parametrize("season", [SEASON, OVER], ids=["in November", "at the end"])
def test_what_is_rebuilt_from_his_public_pages_is_what_he_really_has(entry, season):
    """Purchase prices, bank and free transfers, through wildcards and free hits, for one who joined late too."""
    truth, body = season.manager(entry), season.answer("bootstrap-static").body
    coming = len([event for event in body["events"] if event["finished"]]) + 1
    rules, elements = ruleset(body), {element["id"]: element for element in body["elements"]}
    pages = entry_pages(Reading(season), entry, coming)
    replay = replayed(rules, elements, pages, coming)
    state = entry_state(rules, elements, pages, coming, replay)
    assert {holding.element: holding.purchase_price for holding in state.holdings} == truth.squad
    assert (state.bank, state.free_transfers) == (truth.bank, truth.free_transfers)
    assert (replay.weeks_exact, replay.mismatches) == (coming - JOINED.get(entry, 1), [])


def test_a_free_hit_just_played_is_not_the_squad():
    history = SEASON.answer("entry/3/history").body
    assert picks_gameweek(history, 10) == 8


def tampered(gameweek: int, field: str, by: int) -> list[str]:
    """Mismatches of a manager whose recorded history was changed in one place."""
    reading = Reading(SEASON)
    pages = entry_pages(reading, 1, PLAYED + 1)
    history = json.loads(json.dumps(pages.history))
    history["current"][gameweek - 1][field] += by
    replay = replayed(ruleset(BOOTSTRAP), ELEMENTS, pages._replace(history=history), PLAYED + 1)
    assert replay.weeks_exact == PLAYED - len({text.split(":")[0] for text in replay.mismatches})
    return replay.mismatches


def test_what_does_not_come_out_again_is_named_by_its_gameweek():
    week = SEASON.answer("entry/1/history").body["current"][4]
    bank, cost, count = week["bank"], week["event_transfers_cost"], week["event_transfers"]
    assert tampered(5, "bank", 3) == [f"GW5: bank {bank + 3}, the transfers leave {bank}"]
    assert f"GW5: hits cost {cost + 4}, the rules say {cost}" in tampered(5, "event_transfers_cost", 4)
    assert f"GW5: {count + 1} transfers counted, {count} listed" in tampered(5, "event_transfers", 1)
    assert tampered(5, "points", 1)[0].startswith("GW5: ")


def test_a_transfer_that_does_not_fit_the_squad_is_named():
    pages = entry_pages(Reading(SEASON), 1, PLAYED + 1)
    moves = json.loads(json.dumps(pages.transfers))
    stranger = next(
        element for element in ELEMENTS if element not in {pick["element"] for pick in pages.picks["picks"]}
    )
    last = max(moves, key=lambda move: (move["event"], move["time"]))
    last["element_in"] = stranger
    replay = replayed(ruleset(BOOTSTRAP), ELEMENTS, pages._replace(transfers=moves), PLAYED + 1)
    assert any("does not fit the squad" in text or "opening squad" in text for text in replay.mismatches)


@pytest.mark.parametrize("path", ["entry/8", "entry/1/event/12/picks", "element-summary/9999", "live"])
def test_what_it_does_not_have_it_says_so(path):
    with pytest.raises(NotThere):
        SEASON.answer(path)


def test_what_was_to_be_expected_is_known_and_how_exactly():
    truth = SEASON.truth(2, draws=500)
    assert truth.expected.keys() == {(element, gameweek) for element in ELEMENTS for gameweek in (12, 13)}
    assert max(truth.expected.values()) > 5
    assert max(truth.standard_error.values()) < 0.4
    again = SyntheticSource(1).truth(2, draws=1000)
    apart = [
        abs(truth.expected[key] - again.expected[key]) / (again.standard_error[key] + 0.02) for key in truth.expected
    ]
    assert np.quantile(apart, 0.95) < 2.5


def test_flags_promise_more_than_is_true():
    season = SyntheticSource(3)
    truth = season.truth(1, draws=500)
    elements = season.answer("bootstrap-static").body["elements"]
    played: dict[int | None, list[float]] = {}
    for element in (element for element in elements if element["starts"] >= 6):
        chance = element["chance_of_playing_next_round"]
        played.setdefault(chance, []).append(truth.p_play[element["id"], 12])
    assert np.mean(played[None]) > 0.85
    assert np.mean(played[75]) < 0.7
    assert np.mean(played[0]) < 0.15


def test_what_happened_is_one_draw_of_what_was_to_be_expected():
    """Points of the next gameweek on their expectation, over three seasons: level, and slope one."""
    expected, happened = [], []
    for seed in range(1, 4):
        truth = SyntheticSource(seed).truth(1, draws=500)
        season = SyntheticSource(seed, State.named("13"))._season
        expected += [truth.expected[player.id, 12] for player in season.stage.players]
        happened += [season.played.points(player.id, 12) for player in season.stage.players]
    slope = np.cov(expected, happened)[0, 1] / np.var(expected)
    assert abs(np.mean(happened) - np.mean(expected)) < 0.1
    assert 0.9 < slope < 1.1
    assert len(happened) > 1900


def test_threads_that_ask_at_once_are_told_the_same():
    def told(season: SyntheticSource) -> list[str]:
        paths = [f"entry/{entry}/history" for entry in MANAGERS]
        with ThreadPoolExecutor(len(paths)) as pool:
            return [answer.sha256 for answer in pool.map(season.answer, paths)]

    assert told(SyntheticSource(1)) == [SEASON.answer(f"entry/{entry}/history").sha256 for entry in MANAGERS]
