"""The decision before is scored as the game scores it."""

import hashlib
import io
from typing import Any

import pytest
from rich.console import Console

from engine_worker.context import Previous
from engine_worker.engines.fpl.decision import DecisionOutput
from engine_worker.engines.fpl.lookback import LookedBack, look_back
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.seasons import ruleset
from engine_worker.engines.fpl.source import Reading
from engine_worker.engines.fpl.sources import source_named
from events.values import encode, jsonable
from phaseline import render_fpl
from tests.fpl.builders import decided, without_times


def team_of(team_id: int) -> dict[str, Any]:
    """What a made-up manager fielded in the last gameweek, as advice: before the game's substitutions."""
    picks = Reading(source_named("synthetic")).body(f"entry/{team_id}/event/11/picks")
    order = [pick["element"] for pick in sorted(picks["picks"], key=lambda pick: pick["position"])]
    for swap in picks["automatic_subs"]:
        one, other = order.index(swap["element_in"]), order.index(swap["element_out"])
        order[one], order[other] = order[other], order[one]
    return {
        "gameweek": 11,
        "starters": order[:11],
        "bench": order[11:],
        "captain": next(pick["element"] for pick in picks["picks"] if pick["is_captain"]),
        "vice": next(pick["element"] for pick in picks["picks"] if pick["is_vice_captain"]),
        "chip": picks["active_chip"],
        "hit_cost_pts": picks["entry_history"]["event_transfers_cost"],
    }


@pytest.mark.parametrize("team_id", [1, 2, 3, 4, 5, 6])
def test_advice_that_was_followed_scored_what_the_manager_scored(team_id):
    reading = Reading(source_named("synthetic"))
    params = FplParams.model_validate({"team_id": team_id, "previous": team_of(team_id)})
    seen = look_back(params, ruleset(reading.body("bootstrap-static")), reading, 12)
    assert seen is not None
    assert seen.followed
    assert seen.advised_pts == seen.actual_pts


def test_another_captain_is_other_advice():
    reading, advice = Reading(source_named("synthetic")), team_of(1)
    advice["captain"], advice["vice"] = advice["vice"], advice["captain"]
    params = FplParams.model_validate({"team_id": 1, "previous": advice})
    seen = look_back(params, ruleset(reading.body("bootstrap-static")), reading, 12)
    assert seen is not None
    assert seen.followed is False


def test_a_decision_looks_back_at_the_one_before():
    review = decided({"team_id": 1, "horizon": 1, "available_chips": [], "previous": team_of(1)}).decision.review
    assert review is not None
    assert (review.gameweek, review.followed) == (11, True)
    assert review.advice.startswith("captain ")
    assert decided({"team_id": 1, "horizon": 1, "available_chips": []}).decision.review is None


# ---- from the log

QUESTION = {"team_id": 3, "source": "season", "horizon": 1, "available_chips": []}


def season_at(monkeypatch: pytest.MonkeyPatch, gameweek: int) -> None:
    """The configured season as it stands before the deadline of `gameweek`."""
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", f"season=synthetic:7:{gameweek}")


def as_previous(decision: DecisionOutput, job_id: str) -> Previous:
    """The decision as a worker hands it to the next one."""
    result = jsonable(decision)
    return Previous(job_id, 0, hashlib.sha256(encode(result)).hexdigest(), result)


def asked(monkeypatch: pytest.MonkeyPatch, gameweek: int, previous: Previous | None, **params: Any) -> DecisionOutput:
    season_at(monkeypatch, gameweek)
    return decided(QUESTION | params, previous=previous).decision


@pytest.fixture(scope="module")
def before() -> DecisionOutput:
    """The decision for gameweek 12."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return asked(monkeypatch, 12, None)


def happened(gameweek: int) -> dict[int, int]:
    """Points of every player in a gameweek of the season."""
    page = Reading(source_named("season")).body(f"event/{gameweek}/live")
    return {row["id"]: row["stats"]["total_points"] for row in page["elements"]}


def told_in(gameweek: int, advice: dict[str, Any]) -> LookedBack:
    """The look back at what the caller sent."""
    reading = Reading(source_named("season"))
    params = FplParams.model_validate(QUESTION | {"previous": advice})
    seen = look_back(params, ruleset(reading.body("bootstrap-static")), reading, gameweek)
    assert seen is not None
    return seen


def test_the_result_of_the_job_before_is_scored_when_its_gameweek_is_over(before, monkeypatch):
    previous = as_previous(before, "job-12")
    decision = asked(monkeypatch, 13, previous)
    review = decision.review
    assert review is not None
    assert (review.gameweek, review.job_id, review.result_sha256) == (12, "job-12", previous.sha256)
    assert decision.receipt is not None
    assert decision.receipt.previous_sha256 == previous.sha256
    points, lineup, week = happened(12), before.lineup, before.transfer_plan.gameweeks[0]
    assert review.expected_pts == pytest.approx(lineup.xp_total + lineup.autosub_xp - week.hit_cost_pts, abs=0.01)
    assert review.captain_pts == points[lineup.captain.element]
    assert week.transfers
    assert [(moved.sold_pts, moved.bought_pts) for moved in review.transfers] == [
        (points[transfer.sold.element], points[transfer.bought.element]) for transfer in week.transfers
    ]
    # Told once more by the caller, the same team scores the same.
    told = told_in(13, review.decided.advice.model_dump())
    assert (told.advised_pts, told.actual_pts) == (review.advised_pts, review.actual_pts)
    held = review.decided.held
    assert held is not None
    assert {*held.starters, *held.bench} == {player.element for player in before.squad_state.players}
    assert told_in(13, held.model_dump()).advised_pts == review.hold_pts


@pytest.mark.parametrize("chip, cost", [("wildcard", 8), ("freehit", 0)])
def test_holding_would_have_cost_what_only_the_chip_gave_back(before, monkeypatch, chip, cost):
    """Transfers made before a wildcard stay without it and cost their points; those of a free hit are not in its squad."""
    first = before.transfer_plan.gameweeks[0].model_copy(update={"chip": chip, "hit_cost_pts": 0})
    plan = before.transfer_plan.model_copy(update={"gameweeks": [first]})
    squad = before.squad_state.model_copy(update={"given_back_pts": 8})
    played = before.model_copy(update={"transfer_plan": plan, "squad_state": squad})
    review = asked(monkeypatch, 13, as_previous(played, "job-12")).review
    assert review is not None
    assert review.decided.held is not None
    assert (review.decided.advice.hit_cost_pts, review.decided.held.hit_cost_pts) == (0, cost)


def test_the_command_line_shows_the_look_back(before, monkeypatch):
    decision = asked(monkeypatch, 13, as_previous(before, "job-12"))
    console = Console(width=200, record=True, file=io.StringIO())
    render_fpl.decision(console, decision.model_dump(mode="json"))
    review = decision.review
    assert review is not None
    text = f"Gameweek 12 as advised ({review.advice}): {review.advised_pts} points, expected {review.expected_pts:g}, "
    assert f"{text}holding {review.hold_pts}, the manager {review.actual_pts}" in console.export_text()


def test_a_second_decision_for_a_gameweek_looks_back_at_the_same_one(before, monkeypatch):
    first = asked(monkeypatch, 13, as_previous(before, "job-12"))
    second = asked(monkeypatch, 13, as_previous(first, "job-13"), banned=[1])
    assert first.review == second.review
    assert second.review is not None
    assert second.review.job_id == "job-12"


def test_a_decision_of_some_gameweeks_ago_is_scored_too(before, monkeypatch):
    near, far = (asked(monkeypatch, gameweek, as_previous(before, "job-12")).review for gameweek in (13, 15))
    assert near is not None
    assert far is not None
    assert far.advised_pts is not None
    assert (far.advised_pts, far.hold_pts, far.actual_pts) == (near.advised_pts, near.hold_pts, near.actual_pts)


def test_before_its_gameweek_is_over_a_decision_is_carried_on_without_points(before, monkeypatch):
    season_at(monkeypatch, 13)
    reading = Reading(source_named("season"))
    bootstrap = reading.body("bootstrap-static")
    under_way = [event | {"finished": event["id"] < 12} for event in bootstrap["events"]]
    monkeypatch.setitem(bootstrap, "events", under_way)
    params = FplParams.model_validate(QUESTION)
    seen = look_back(params, ruleset(bootstrap), reading, 13, "season", as_previous(before, "job-12"))
    assert seen is not None
    assert (seen.decided.job_id, seen.advised_pts, seen.actual_pts, seen.transfers) == ("job-12", None, None, [])


@pytest.mark.parametrize("spoilt", [{"lineup": {}}, {"review": {"gameweek": 3}, "header": None}, {}])
def test_a_result_of_another_shape_is_not_looked_back_at(before, monkeypatch, spoilt):
    result = as_previous(before, "job").result | spoilt if spoilt else "text"
    decision = asked(monkeypatch, 13, Previous("job", 0, "00", result))
    assert decision.review is None
    assert decision.receipt is not None
    assert decision.receipt.previous_sha256 is None


def test_another_team_source_or_season_is_not_looked_back_at(before, monkeypatch):
    for name, other in (("team_id", 4), ("source", "other"), ("season", "2019-20")):
        header = before.header.model_copy(update={name: other})
        previous = as_previous(before.model_copy(update={"header": header}), "job")
        assert asked(monkeypatch, 13, previous).review is None


def test_without_a_job_before_a_decision_is_the_same_but_for_the_look_back(before, monkeypatch):
    alone, after = (asked(monkeypatch, 13, previous) for previous in (None, as_previous(before, "job-12")))
    assert alone.review is None
    assert without_times(alone) | {"review": None} == without_times(after) | {"review": None}
