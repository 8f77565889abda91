"""The walk-forward knows only what was known before each deadline, and measures what it says."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from benchmarks.fpl_playing import engine_brier
from engine_worker.engines.fpl.backtest.fitting import exported, fit, prepare
from engine_worker.engines.fpl.backtest.history import NoHistory, Outcome, PastSeason, past_seasons
from engine_worker.engines.fpl.backtest.measures import brier, coverage, gain, measured
from engine_worker.engines.fpl.backtest.walk import judged, pools, walk
from engine_worker.engines.fpl.chances import chances
from engine_worker.engines.fpl.features import log_odds
from engine_worker.engines.fpl.fitted import Chance, Fitted, shipped, versioned
from engine_worker.engines.fpl.playing import attendances
from engine_worker.engines.fpl.synthetic import State, SyntheticSource
from tests.cli.program import in_process
from tests.fpl.past import BEFORE, GAMEWEEKS, NAME


@pytest.fixture(scope="module")
def season(folder: Path) -> PastSeason:
    return past_seasons(folder)[0]


def test_each_deadline_shows_the_api_as_it_stood(season):
    deadlines = list(season.deadlines())
    assert [deadline.gameweek for deadline in deadlines] == list(GAMEWEEKS)
    for deadline in deadlines:
        then = SyntheticSource(1, State.named(str(deadline.gameweek)))
        shown = then.answer("bootstrap-static").body
        for was, now in zip(shown["elements"], deadline.bootstrap["elements"], strict=True):
            assert {key: now[key] for key in now} == {key: was[key] for key in now}
        assert [event["is_next"] for event in deadline.bootstrap["events"]] == [e["is_next"] for e in shown["events"]]
        finished = {match["id"] for match in deadline.fixtures if match["finished"]}
        assert finished == {match["id"] for match in then.answer("fixtures").body if match["finished"]}
        assert all(
            match["team_h_score"] is None and not match["stats"] for match in deadline.fixtures if not match["finished"]
        )


def test_what_happened_is_the_sum_of_the_matches_of_the_gameweek(season):
    end = SyntheticSource(1, State.named("over"))
    for element in (3, 90, 400):
        rows = [row for row in end.answer(f"element-summary/{element}").body["history"] if row["round"] == 14]
        outcome = season.outcomes[element, 14]
        assert outcome.points == sum(row["total_points"] for row in rows)
        assert outcome.minutes == sum(row["minutes"] for row in rows)


def test_the_walk_judges_every_player_of_every_deadline(season):
    walked = walk(prepare(season), shipped())
    of = {name: judged(part) for name, part in pools(walked).items()}
    assert of["all"].deadlines == len(GAMEWEEKS)
    assert 1800 < of["all"].measures["engine"].n < 1960
    assert 0 < of["regulars"].measures["engine"].n < of["all"].measures["engine"].n
    assert (
        sum(of[name].measures["engine"].n for name in of if name.startswith("regulars,"))
        == of["regulars"].measures["engine"].n
    )
    # A pool nobody is in is left out: nothing can be said of it.
    defenders = pools(walked.part(walked.position == 2))
    assert {name for name in defenders if name.startswith("regulars,")} == {"regulars, DEF"}
    regulars = of["regulars"]
    assert regulars.measures["engine"].rmse < regulars.measures["ep_next"].rmse
    assert regulars.below + regulars.within + regulars.above == pytest.approx(1)


def test_a_fit_has_nothing_from_the_season_it_forecasts(two_seasons):
    before, later = (prepare(one) for one in past_seasons(two_seasons))
    alone = fit([before])
    assert alone.fitted_on == [BEFORE]
    assert alone.version.startswith(f"{BEFORE}…{BEFORE}.")
    told = in_process("fpl", "backtest", "--data", str(two_seasons), "--season", NAME, "-o", "jsonl").out.splitlines()
    assert {json.loads(line)["parameters"] for line in told} == {alone.version}
    assert fit([before, later]).version != alone.version


def test_what_could_be_told_is_held_against_parameters_that_do_not_know_the_season(two_seasons):
    """Of the first season too, which has none before it: those of the package may have been fitted on it."""
    first, later = (prepare(one) for one in past_seasons(two_seasons))
    chance = [attendances(collected, fit([later])) for _, collected in first.grounds]
    regular = [example for example in first.examples if first.regular(example)]
    told = [chance[one.ground][one.player.element, first.grounds[one.ground][0].gameweek].p_play for one in regular]
    expected = brier(np.array(told), np.array([one.outcome.minutes > 0 for one in regular]))
    assert engine_brier([first, later], 0) == expected


def test_trees_say_what_the_library_that_grew_them_says(two_seasons):
    first = prepare(past_seasons(two_seasons)[0])
    names = sorted(first.examples[0].features)
    table = np.array([[example.features[name] for name in names] for example in first.examples])
    played = [example.outcome.minutes > 0 for example in first.examples]
    grown = GradientBoostingClassifier(n_estimators=20, max_leaf_nodes=8, max_depth=None, random_state=1)
    grown.fit(table, played)
    base = log_odds(float(np.mean(played)))
    model = Chance(intercept=0.0, weights=dict.fromkeys(names, 0.0), base=base, trees=exported(grown))
    # The mean with a logistic model that says nothing.
    odds = [2 * log_odds(chance) for chance in chances(model, [example.features for example in first.examples])]
    assert odds == pytest.approx(list(grown.decision_function(table)), abs=0.01)


def test_a_fit_learns_who_plays_and_who_scores(two_seasons):
    """On the made-up seasons the parameters of one tell the other better than guessing everybody's mean."""
    before, later = (prepare(one) for one in past_seasons(two_seasons))
    walked = walk(later, fit([before]))
    of = judged(walked.part(walked.regular))
    base = float(np.mean(walked.played[walked.regular]))
    assert of.brier_play < 0.97 * base * (1 - base)
    assert of.measures["engine"].rmse < np.std(walked.happened[walked.regular])
    # Points for defensive contributions, which these seasons have, are counted once: in the fit as in the forecast.
    assert abs(of.measures["engine"].bias) < 0.15


def test_the_fit_command_writes_what_the_engine_reads(two_seasons, tmp_path):
    file = tmp_path / "parameters.json"
    told = in_process("fpl", "fit", "--data", str(two_seasons), "--output", str(file))
    assert told.code == 0, told.err
    written = Fitted.model_validate_json(file.read_text())
    assert written.version in told.out
    assert written.fitted_on == [BEFORE, NAME]
    assert written.calibration is not None
    assert written.calibration.seasons == [NAME]
    assert versioned(written).version == written.version
    assert file.stat().st_size < 100_000
    # A tree a line: a change of the parameters can be read.
    assert max(map(len, file.read_text().splitlines())) < 1000


def test_what_happened_is_counted_by_its_kind(season):
    end = SyntheticSource(1, State.named("over"))
    rows = [row for row in end.answer("element-summary/400").body["history"] if row["round"] == 14]
    outcome = season.outcomes.get((400, 14), Outcome())
    for name, api in (("goals", "goals_scored"), ("assists", "assists"), ("saves", "saves"), ("bonus", "bonus")):
        assert getattr(outcome, name) == sum(row[api] for row in rows)


def test_a_folder_without_seasons_is_told(tmp_path):
    with pytest.raises(NoHistory, match="has no seasons"):
        past_seasons(tmp_path)


def test_measures_of_a_worked_example():
    happened = np.array([0.0, 2.0, 4.0, 10.0])
    forecast = np.array([1.0, 2.0, 3.0, 6.0])
    of = measured(forecast, happened)
    assert (of.rmse, of.mae, of.bias) == pytest.approx((np.sqrt(18 / 4), 1.5, -1.0))
    assert of.slope == pytest.approx(2.0)
    assert brier(np.array([0.5, 1.0]), np.array([1.0, 1.0])) == pytest.approx(0.125)
    assert coverage(np.array([1, 1, 1]), np.array([3, 3, 3]), np.array([0, 3, 4])) == pytest.approx(
        (1 / 3, 1 / 3, 1 / 3)
    )


def test_a_difference_that_is_luck_has_an_interval_around_nothing():
    rng = np.random.default_rng(1)
    happened, blocks = rng.normal(size=4000), np.repeat(np.arange(40), 100)
    better, worse = happened + rng.normal(0, 0.5, 4000), happened + rng.normal(0, 1.0, 4000)
    sure = gain(better, worse, happened, blocks)
    assert 0.4 < sure.low < sure.rmse < sure.high < 0.6
    luck = gain(better, happened + rng.normal(0, 0.5, 4000), happened, blocks)
    assert luck.low < 0 < luck.high


def test_the_command_prints_the_figures(folder):
    told = in_process("fpl", "backtest", "--data", str(folder))
    assert told.code == 0, told.err
    assert "2026-27, points of a player in a gameweek" in told.out
    assert "below ep_next (95 %" in told.out
    lines = in_process("fpl", "backtest", "--data", str(folder), "-o", "jsonl").out.splitlines()
    documents = [json.loads(line) for line in lines]
    assert [document["players"] for document in documents][:2] == ["all", "regulars"]
    assert documents[0]["measures"]["engine"]["n"] > 1800


def test_the_command_says_what_is_not_there(folder, tmp_path):
    told = in_process("fpl", "backtest", "--data", str(folder), "--season", "1999-00")
    assert (told.code, told.err.strip()) == (1, "Error: no season 1999-00; there are 2026-27")
    assert in_process("fpl", "backtest", "--data", str(tmp_path)).code == 1


def test_parameters_that_could_not_be_written_are_not_fitted_first(two_seasons: Path, tmp_path):
    told = in_process("fpl", "fit", "--data", str(two_seasons), "--output", str(tmp_path / "nowhere" / "fitted.json"))
    assert told.code != 0
    assert f"{tmp_path / 'nowhere'} is no folder to write to; nothing was fitted" in told.err
