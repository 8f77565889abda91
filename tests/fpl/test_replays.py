"""Replays give every strategy the same start and the same luck, go on where they stopped, and say how sure they are."""

import json
import os
import re
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from engine_worker.engines.fpl.backtest.history import Outcome, past_seasons
from engine_worker.engines.fpl.backtest.paired import ahead, made
from engine_worker.engines.fpl.backtest.replays import (
    Design,
    Journal,
    Replayed,
    Ways,
    Window,
    replay,
    scored,
    windows_of,
)
from engine_worker.engines.fpl.backtest.scenes import ENGINE, FORM, OFFICIAL, Scene, scene_of
from engine_worker.engines.fpl.backtest.squads import NoSquad, random_squad
from engine_worker.engines.fpl.backtest.strategies import STRATEGIES, Team, greedy, hold, posed
from engine_worker.engines.fpl.fitted import shipped
from engine_worker.engines.fpl.problem import hold_plan
from engine_worker.engines.fpl.rules import squad_violations
from engine_worker.engines.fpl.solver import Limits
from tests.cli.program import PATIENCE_S, in_process, running
from tests.fpl.past import GAMEWEEKS, NAME

DESIGN = Design(windows=3, weeks=len(GAMEWEEKS), horizon=2)
LIMITS = Limits(60, 1e-3, 200)
QUICK = ("--weeks", "3", "--horizon", "1", "--windows", "2")


@pytest.fixture(scope="module")
def scenes(folder: Path) -> list[Scene]:
    season = past_seasons(folder)[0]
    return [scene_of(season, deadline, shipped(), DESIGN.horizon) for deadline in season.deadlines()]


def team_of(scene: Scene, number: int = 0) -> Team:
    squad, bank = random_squad(scene.collected.rules, scene.collected.players, [7, number])
    return Team({player.element: player.now_cost for player in squad}, bank, 1)


def test_squads_are_legal_within_budget_all_different_and_come_again(scenes):
    ground = scenes[0].collected
    squads = [random_squad(ground.rules, ground.players, [1, number]) for number in range(20)]
    for squad, bank in squads:
        assert squad_violations(ground.rules, [(player.position, player.club) for player in squad]) == []
        assert sum(player.now_cost for player in squad) + bank == ground.rules.budget
        assert 0 <= bank <= 50
    assert len({frozenset(player.element for player in squad) for squad, _ in squads}) == 20
    assert random_squad(ground.rules, ground.players, [1, 3]) == squads[3]


def test_no_squad_is_made_of_players_who_do_not_make_one(scenes, monkeypatch):
    monkeypatch.setattr("engine_worker.engines.fpl.backtest.squads._DRAWS_MAX", 200)
    ground = scenes[0].collected
    keepers = [player for player in ground.players if player.position == 1]
    with pytest.raises(NoSquad, match="too few"):
        random_squad(ground.rules, keepers, [1])
    dear = [player._replace(now_cost=120) for player in ground.players]
    with pytest.raises(NoSquad, match="budget"):
        random_squad(ground.rules, dear, [1])


def test_a_scene_believes_only_what_was_shown(scenes, folder):
    deadline = next(iter(past_seasons(folder)[0].deadlines()))
    shown = {element["id"]: element for element in deadline.bootstrap["elements"]}
    scene = scenes[0]
    assert [one.gameweek for one in scenes] == list(GAMEWEEKS)
    first, second = scene.collected.gameweeks
    for player in scene.collected.players:
        element = shown[player.element]
        assert scene.beliefs[OFFICIAL][first][player.element] == pytest.approx(float(element["ep_next"]), abs=1e-6)
        able = element["status"] in ("a", "d")
        assert scene.beliefs[FORM][second][player.element] in {0.0, able * float(element["form"])}
    assert set(scene.beliefs[ENGINE][first]) == {player.element for player in scene.collected.players}


def test_holding_makes_no_transfer_and_greed_the_swap_that_gains_most_form(scenes):
    scene = scenes[0]
    for number in range(3):
        team = team_of(scene, number)
        assert hold(scene, team, LIMITS).week.bought == ()
        problem, week = posed(scene, team, FORM, 1, cut=False), greedy(scene, team, LIMITS).week
        form = problem.xp[scene.gameweek]
        legal = [
            form[coming] - form[leaving]
            for leaving in team.paid
            for coming in problem.elements
            if problem.position[coming] == problem.position[leaving]
            and coming not in team.paid
            and problem.cost[coming] <= team.bank + problem.selling[leaving]
            and Counter(problem.club[e] for e in {*team.paid, coming} - {leaving})[problem.club[coming]] <= 3
        ]
        assert len(week.bought) == 1
        assert form[week.bought[0]] - form[week.sold[0]] == pytest.approx(max(legal))
        assert week.hits == 0


def test_every_strategy_keeps_to_the_rules_from_gameweek_to_gameweek(scenes, monkeypatch):
    seen: dict[str, list[int]] = {}
    for name, strategy in STRATEGIES.items():

        def watched(scene, team, limits, name=name, strategy=strategy):
            chosen = strategy(scene, team, limits)
            week, rules = chosen.week, scene.collected.rules
            players = {player.element: player for player in scene.collected.players} | dict(scene.gone)
            squad = [(players[e].position, players[e].club) for e in week.squad]
            assert squad_violations(rules, squad) == []
            assert week.bank >= 0
            assert week.free_transfers == team.free_transfers
            assert week.hit_cost == 4 * max(0, len(week.bought) - team.free_transfers)
            seen.setdefault(name, []).append(scene.gameweek)
            return chosen

        monkeypatch.setitem(STRATEGIES, name, watched)
    window = Window(NAME, GAMEWEEKS[0], 0)
    replayed = replay(scenes, window, DESIGN)
    assert seen == {name: list(GAMEWEEKS) for name in STRATEGIES}
    assert {name: len(ways.points) for name, ways in replayed.ways.items()} == dict.fromkeys(STRATEGIES, 3)
    assert replay(scenes, window, DESIGN) == replayed


def test_a_gameweek_is_scored_with_substitutes_vice_captain_and_hits(scenes):
    scene = scenes[0]
    week = hold_plan(posed(scene, team_of(scene), ENGINE, 1)).weeks[0]
    lineup = week.lineup
    everyone = dict.fromkeys(week.squad, Outcome(points=2, minutes=90))

    def points(changed: dict[int, Outcome] | None = None) -> int:
        return scored(replace(scene, outcomes=everyone | (changed or {})), week)

    assert points() == 24
    vice = {lineup.vice: Outcome(points=9, minutes=90)}
    assert points(vice) == 31
    # The captain is away: a substitute comes on, and the vice-captain counts twice.
    assert points({**vice, lineup.captain: Outcome()}) == 9 * 2 + 9 * 2 + 2
    # The whole bench stays away too: ten men.
    assert points({**dict.fromkeys(lineup.bench, Outcome()), lineup.captain: Outcome()}) == 22


def test_windows_of_a_season_fill_stretches_that_do_not_overlap(scenes):
    assert windows_of(scenes, DESIGN) == [Window(NAME, GAMEWEEKS[0], number) for number in range(3)]
    assert windows_of(scenes, Design(windows=4, weeks=1)) == [
        Window(NAME, gameweek, number) for number in range(2) for gameweek in GAMEWEEKS
    ]
    assert windows_of(scenes, Design(weeks=4)) == []


def a_window(stretch: int, number: int, lead: int) -> Replayed:
    ways = {name: Ways([50, 50], 0, 2, 0) for name in STRATEGIES}
    ways["engine"] = Ways([50 + lead, 50], 4, 3, 1)
    return Replayed(Window(NAME, stretch, number), ways)


def test_more_squads_in_one_stretch_do_not_make_it_surer():
    leads = {2: 30, 8: -10, 14: 25, 20: 5}
    few = ahead([a_window(stretch, 0, lead) for stretch, lead in leads.items()], "hold")
    many = ahead([a_window(stretch, n, lead) for stretch, lead in leads.items() for n in range(50)], "hold")
    assert (few.mean, few.low, few.high) == pytest.approx((many.mean, many.low, many.high))
    assert few.mean == pytest.approx(12.5)
    assert few.low < 0 < few.high
    assert (many.windows, many.stretches, many.won) == (200, 4, 0.75)
    sure = ahead([a_window(stretch, 0, 20 + stretch) for stretch in range(2, 30)], "hold")
    assert 0 < sure.low < sure.mean < sure.high
    alone = made([a_window(2, 0, 10), a_window(2, 1, 20)], "engine")
    assert (alone.points, alone.hit_points, alone.transfers, alone.unproven) == (115, 4, 3, 2)


def test_a_journal_takes_no_half_line_and_nothing_of_another_design(tmp_path):
    file = tmp_path / "sub" / "journal.jsonl"
    one, two, three = (a_window(2, number, number) for number in range(3))
    assert Journal(file, "a").read() == {}
    Journal(file, "a").add(one)
    Journal(file, "b").add(two)
    with file.open("ab") as out:
        out.write(b'{"under": "a", "window"')
    assert Journal(file, "a").read() == {one.window: one}
    Journal(file, "a").add(three)
    assert Journal(file, "a").read() == {one.window: one, three.window: three}
    assert Journal(file, "b").read() == {two.window: two}


def test_the_command_killed_on_its_way_goes_on_and_says_the_same(folder, tmp_path):
    journal = tmp_path / "journal.jsonl"
    words = ("fpl", "replay", "--data", str(folder), *QUICK, "--processes", "2", "-o", "json")
    with running(*words, "--journal", str(journal)) as command:
        deadline = time.monotonic() + PATIENCE_S
        while not (journal.exists() and journal.read_bytes().count(b"\n")):
            assert command.process.poll() is None, command.errors()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = psutil.Process(command.process.pid).children(recursive=True)
        os.kill(command.process.pid, signal.SIGKILL)
        _, left = psutil.wait_procs(children, timeout=10)
        assert left == []
    before = journal.read_bytes()
    resumed = in_process(*words, "--journal", str(journal))
    assert resumed.code == 0, resumed.err
    assert journal.read_bytes().startswith(before)
    whole = in_process(*words, "--journal", str(tmp_path / "another.jsonl"))
    assert resumed.out == whole.out
    assert re.search(r"2 windows took \d+\.\d\d s of processor each; at that all 2 take \d+\.\d min on 2", whole.err)
    told = json.loads(whole.out)
    assert [document["strategy"] for document in told] == list(STRATEGIES)
    assert told[0]["engine_ahead"] is None
    assert {document["engine_ahead"]["windows"] for document in told[1:]} == {2}


def test_the_command_says_when_a_season_is_too_short(folder, tmp_path):
    told = in_process("fpl", "replay", "--data", str(folder), "--journal", str(tmp_path / "j"))
    assert (told.code, told.err.strip()) == (1, f"Error: {NAME} has 3 deadlines, a window asks for 6")
