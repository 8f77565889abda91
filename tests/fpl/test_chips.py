"""A chip in the sums of a decision: what counts with it, what is said of it, what it makes of transfers already made."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from engine_worker.engines.fpl.build import build_problem
from engine_worker.engines.fpl.cards import Cards
from engine_worker.engines.fpl.collecting import collect
from engine_worker.engines.fpl.decision import DecisionOutput
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.problem import Moves, hold_plan, make_plan
from engine_worker.engines.fpl.simulation import Draws
from engine_worker.engines.fpl.source import Reading
from engine_worker.engines.fpl.sources import source_named
from phaseline import render_fpl
from tests.fpl.builders import MANAGERS, a_problem, collected, decided, projected


def last_chance(chip: str) -> DecisionOutput:
    """The decision of a gameweek after which the chip is lost: it is played."""
    decision = decided({"team_id": 1, "gameweek": 19, "horizon": 1, "available_chips": [chip]}).decision
    assert decision.transfer_plan.gameweeks[0].chip == chip
    return decision


def printed(decision: DecisionOutput) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    render_fpl.decision(console, decision.model_dump(mode="json"))
    return console.export_text()


def test_a_boosted_bench_counts_in_what_the_team_is_expected_to_score():
    decision = last_chance("bboost")
    lineup, made = decision.lineup, decision.decision
    captain = next(player.xp for player in lineup.starters if player.element == lineup.captain.element)
    everybody = sum(player.xp for player in (*lineup.starters, *lineup.bench))
    assert lineup.xp_total == pytest.approx(everybody + captain, abs=0.1)
    held = decision.hold_plan.xp_this_gameweek
    assert made.gain_this_gameweek_pts == pytest.approx(lineup.xp_total - held - made.hit_cost_pts, abs=0.02)
    assert "the bench's as well" in printed(decision)


def test_a_bench_boost_alone_beats_holding_in_most_draws():
    problems = [a_problem(team_id, 1) for team_id in MANAGERS]
    number, boosted = max(
        enumerate(make_plan(problem, [Moves(chip="bboost")]) for problem in problems),
        key=lambda one: one[1].terms.bench,
    )
    assert boosted.terms.bench > 3
    hold = hold_plan(problems[number])
    rows = {(row.element, row.gameweek): row for row in projected(MANAGERS[number], 1).rows}
    assert Draws(rows, [boosted, hold], 1).beats(boosted, hold) > 0.8


def test_a_triple_captain_is_given_up_at_twice_the_difference():
    decision = last_chance("3xc")
    first, second, *_ = decision.captaincy.candidates
    assert second.regret_pts == pytest.approx(2 * (first.xp - second.xp), abs=0.03)
    text = next(one.text for one in decision.explanations if one.topic == "captain")
    assert f"{second.regret_pts / 2:.2f} more than {second.name}" in text
    assert "the captain's counted three times" in printed(decision)


def test_a_chip_that_was_asked_for_is_not_valued_at_nothing():
    plan = [{"gameweek": 12, "chip": "bboost"}]
    decision = decided({"team_id": 1, "horizon": 1, "available_chips": ["bboost"], "chip_plan": plan}).decision
    (card,) = decision.chips
    assert (card.use_now, card.gains, card.value_now_pts, card.best_value_pts) == (True, [], None, None)
    assert "Play bboost: played in gameweek 12 as asked" in printed(decision)


# ---- transfers already made with a chip


def three_made(**params: object) -> DecisionOutput:
    """A decision after three like-for-like transfers at most as dear."""
    ground = collected(1, 1)
    players = {player.element: player for player in ground.players}
    owned, clubs = {holding.element for holding in ground.squad.holdings}, set[int]()
    made = []
    for holding in ground.squad.holdings[2:5]:
        sold = players[holding.element]
        bought = next(
            p
            for p in ground.players
            if p.position == sold.position
            and p.now_cost <= holding.selling_price
            and p.element not in owned
            and p.club not in {players[e].club for e in owned} | clubs
        )
        clubs.add(bought.club)
        made.append({"sold": sold.element, "bought": bought.element})
    asked = {"team_id": 1, "horizon": 2, "available_chips": [], "max_hits": 0, "free_transfers": 1}
    return decided({**asked, "booked_transfers": made, **params}).decision


def test_transfers_already_made_cost_what_goes_beyond_the_free_ones():
    decision = three_made()
    squad, weeks = decision.squad_state, decision.transfer_plan.gameweeks
    assert (squad.booked_hit_cost_pts, squad.free_transfers) == (8, 0)
    assert [week.free_transfers_before for week in weeks] == [0, 1]


def test_transfers_already_made_with_a_wildcard_cost_nothing():
    decision = three_made(available_chips=["wildcard"], chip_plan=[{"gameweek": 12, "chip": "wildcard"}])
    squad, weeks = decision.squad_state, decision.transfer_plan.gameweeks
    assert (squad.booked_hit_cost_pts, squad.free_transfers) == (0, 1)
    assert [week.free_transfers_before for week in weeks] == [1, 1]
    assert weeks[0].chip == "wildcard"


def test_the_squad_before_a_free_hit_comes_back_after_it():
    decision = three_made(available_chips=["freehit"], chip_plan=[{"gameweek": 12, "chip": "freehit"}])
    squad = decision.squad_state
    assert {player.element for player in squad.players} == {h.element for h in collected(1, 1).squad.holdings}
    assert (squad.booked_hit_cost_pts, squad.free_transfers) == (0, 1)
    (told,) = [warning.message for warning in decision.warnings if warning.code == "booked"]
    assert "comes back" in told


def last_made(chip: str, **params: object) -> DecisionOutput:
    """A decision after three transfers in the gameweek after which the chip is lost: it is played."""
    return three_made(gameweek=19, horizon=1, available_chips=[chip], **params)


def test_a_wildcard_the_engine_finds_gives_back_what_transfers_have_cost():
    found = last_made("wildcard")
    asked = last_made("wildcard", chip_plan=[{"gameweek": 19, "chip": "wildcard"}])
    squad, (week,) = found.squad_state, found.transfer_plan.gameweeks
    assert (squad.booked_hit_cost_pts, squad.given_back_pts, squad.free_transfers) == (0, 8, 1)
    assert (week.chip, week.hit_cost_pts, week.free_transfers_before) == ("wildcard", 0, 1)
    # The plan asked for, told from before the decision to play the chip.
    assert found.lineup == asked.lineup
    assert found.transfer_plan.objective_pts == pytest.approx(asked.transfer_plan.objective_pts + 8, abs=0.01)
    assert found.transfer_plan.objective_terms.hits == 8
    assert found.decision.gain_this_gameweek_pts == pytest.approx(
        found.lineup.xp_total - found.hold_plan.xp_this_gameweek + 8, abs=0.02
    )
    (card,) = found.chips
    assert card.value_now_pts == pytest.approx(found.decision.expected_gain_pts, abs=0.3)
    assert "wildcard gives back the 8 points of transfers already made." in [one.text for one in found.explanations]
    (told,) = [warning.message for warning in found.warnings if warning.code == "booked"]
    assert "gives their 8 points back" in told


def test_a_free_hit_the_engine_finds_hands_back_the_squad_before_the_transfers():
    found = last_made("freehit")
    asked = last_made("freehit", chip_plan=[{"gameweek": 19, "chip": "freehit"}])
    squad, (week,) = found.squad_state, found.transfer_plan.gameweeks
    assert {player.element for player in squad.players} == {h.element for h in collected(1, 1).squad.holdings}
    assert (squad.booked_hit_cost_pts, squad.given_back_pts, squad.free_transfers) == (0, 8, 1)
    assert week.chip == "freehit"
    assert found.lineup == asked.lineup
    assert found.decision.expected_gain_pts > 8


def test_the_chips_that_are_not_played_leave_transfers_as_dear_as_they_were():
    decision = three_made(available_chips=["bboost", "3xc"])
    assert (decision.squad_state.booked_hit_cost_pts, decision.squad_state.given_back_pts) == (8, 0)
    assert decision.transfer_plan.objective_terms.hits == 0


def test_a_free_hit_is_not_played_when_it_would_undo_a_transfer_that_must_stay():
    bought = {player.element for player in three_made().squad_state.players}
    bought -= {holding.element for holding in collected(1, 1).squad.holdings}
    kept = last_made("freehit", locked=[min(bought)])
    assert kept.transfer_plan.gameweeks[0].chip is None
    assert min(bought) in {player.element for player in (*kept.lineup.starters, *kept.lineup.bench)}


# ---- copies


def test_one_of_two_copies_with_overlapping_windows_is_left_when_one_is_played(monkeypatch):
    """2021/22: a free hit of the whole season, and a second one from gameweek 20 on."""
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", "late=synthetic:1:25")
    params = FplParams(team_id=1, source="late", horizon=3, available_chips=["freehit"])
    ground = collect(params, "late", Reading(source_named("late")))
    both = tuple(window.model_copy(update={"stop": 38}) for window in ground.rules.chips)
    rules = ground.rules.model_copy(update={"chips": both, "free_hits_apart": False})
    for played, copies in (({}, 2), ({10: "freehit"}, 1)):
        squad = ground.squad.model_copy(update={"played": played, "chips": ["freehit"]})
        problem = build_problem(ground.model_copy(update={"rules": rules, "squad": squad}), [], params)
        assert len(problem.chips) == copies


# ---- who comes on


def test_only_who_keeps_the_eleven_legal_comes_on_for_a_doubtful_starter():
    """Three defenders start and the first on the bench is none: for a defender the game takes the next one who is."""
    ground, rows = collected(1, 1), projected(1, 1).rows
    problem = a_problem(1, 1)
    squad = sorted(problem.owned)
    place = {element: problem.position[element] for element in squad}
    of = {number: [e for e in squad if place[e] == number] for number in (1, 2, 3, 4)}
    # Three defenders, five midfielders, two forwards; the forward on the bench is the best of it.
    likes = [of[1][0], *of[2][:3], *of[3], *of[4][:2]]
    xp = {e: 5.0 if e in likes else 2.0 if e == of[4][2] else 1.0 for e in squad}
    doubtful = of[2][0]
    made_up = [
        row._replace(xp=xp[row.element], p_play=0.5 if row.element == doubtful else 1.0, fixtures=1)
        for row in rows
        if row.element in xp
    ]
    everybody = dict.fromkeys(problem.elements, 0.0) | xp
    week = make_plan(replace(problem, xp={problem.gameweeks[0]: everybody}), [Moves()]).weeks[0]
    assert week.lineup.bench[1] == of[4][2]
    (risk,) = Cards(ground, made_up).risks(week)
    names = {player.element: player.name for player in ground.players}
    assert risk.mitigation == f"{names[week.lineup.bench[2]]} comes on from the bench"
    assert risk.probability == 0.5
    assert risk.loss_pts == pytest.approx(5.0 / 0.5 - 1.0)
