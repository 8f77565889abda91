"""The chance of something: a logistic model and trees together, and how this season moves what past ones taught."""

from typing import Any

import pytest

from engine_worker.engines.fpl.chances import chances
from engine_worker.engines.fpl.features import features, log_odds
from engine_worker.engines.fpl.fitted import Chance, Node, shipped
from engine_worker.engines.fpl.playing import attendances, drifts
from engine_worker.engines.fpl.staying import group_of, stayed
from tests.fpl.builders import collected


def said(node: Node, row: dict[str, float], names: list[str]) -> float:
    """What a tree says of one row, followed from its root."""
    while not isinstance(node, float):
        feature, least, low, high = node
        node = high if row.get(names[feature], 0.0) > least else low
    return node


def test_the_chance_is_the_mean_of_both_models_by_their_log_odds():
    model = Chance(
        intercept=0.5,
        weights={"price": 1.0, "started": -2.0},
        base=1.0,
        trees=[(0, 0.25, -0.5, (1, 0.5, 0.25, 0.75)), 0.125],
    )
    rows = [{"price": 0.25, "started": 1.0}, {"price": 1.0, "started": 0.5}, {"price": 1.0, "started": 0.75}, {}]
    odds = [(-1.25 + 0.625) / 2, (0.5 + 1.375) / 2, (0.0 + 1.875) / 2, (0.5 + 0.625) / 2]
    assert [log_odds(chance) for chance in chances(model, rows)] == pytest.approx(odds)


def test_each_row_comes_to_its_own_leaf_of_every_tree():
    model = shipped().plays
    rows = [fit for _, fit, _ in features(collected(1))][::7]
    together = chances(model, rows)
    for row, chance in zip(rows, together, strict=True):
        linear = model.intercept + sum(weight * row.get(name, 0.0) for name, weight in model.weights.items())
        voted = model.base + sum(said(tree, row, model.names) for tree in model.trees)
        assert log_odds(chance) == pytest.approx((linear + voted) / 2, abs=1e-9)
    # The same alone as among others, to the last digit: a decision may not hang on who else is looked at.
    assert chances(model, rows[3:4]) == together[3:4]


def test_the_parameters_know_every_feature_and_no_other():
    named = {name for _, now, _ in features(collected(1)) for name in now}
    for model in (shipped().plays, shipped().an_hour):
        assert set(model.names) == named


def test_whoever_misses_the_features_of_a_flag_has_none():
    flagged = [(now, fit) for player, now, fit in features(collected(1)) if player.status == "d"]
    assert flagged
    for now, fit in flagged:
        assert set(now) - set(fit) >= {"said_75", "doubt_age", "news"}
        assert all(fit[name] == now[name] for name in fit)


def test_rivals_are_the_clubmates_of_his_position():
    ground = collected(1)
    him = next(p for p in ground.players if p.position == 3 and p.starts > 8 and p.status == "a")
    rivals = [p for p in ground.players if (p.club, p.position) == (him.club, 3) and p.element != him.element]
    one = max(rivals, key=lambda p: p.minutes)

    def seen(**changes: Any) -> dict[str, float]:
        players = [one._replace(**changes) if p.element == one.element else p for p in ground.players]
        return next(
            fit for p, fit, _ in features(ground.model_copy(update={"players": players})) if p.element == him.element
        )

    fit = seen(status="a", chance=None)
    out, doubtful = seen(status="i", chance=0), seen(status="d", chance=75)
    assert fit["rivals_fit"] > out["rivals_fit"] == doubtful["rivals_fit"]
    assert out["rivals_out"] > fit["rivals_out"] == doubtful["rivals_out"]
    assert doubtful["rivals_doubtful"] > fit["rivals_doubtful"] == out["rivals_doubtful"]
    missed = seen(status="a", chance=None, scores=(None, 20, 20, 20, 20), played_longer=0.9)
    assert missed["rivals_back"] >= 0.9
    assert seen(club=0) | {"dearer_rivals": 0.0} != fit | {"dearer_rivals": 0.0}


def test_transfers_are_told_by_those_of_the_whole_league():
    """All managers move more as the deadline comes: twice as many transfers of everybody say nothing of anybody."""
    ground = collected(1)
    him = max(ground.players, key=lambda p: p.owned_pct)

    def market(each: int, his: int) -> float:
        players = [
            p._replace(transfers_in=round(each * p.owned_pct * (his if p.element == him.element else 1)))
            for p in ground.players
        ]
        whole = ground.model_copy(update={"players": players})
        return next(fit["bought_usual"] for p, fit, _ in features(whole) if p.element == him.element)

    assert market(0, 1) == 0
    assert market(1000, 1) == pytest.approx(market(2000, 1), abs=0.01)
    assert market(1000, 5) > market(1000, 1) + 1


def test_one_who_left_says_nothing_of_the_others():
    """Only who owns him is shown him: forecasts may not hang on who asks."""
    ground = collected(1)
    gone = ground.players[0]._replace(element=9999, status="u", owned_pct=60.0, transfers_in=0, transfers_out=500_000)
    with_him = ground.model_copy(update={"players": [*ground.players, gone]})
    told = attendances(with_him, shipped())
    for key, attendance in attendances(ground, shipped()).items():
        assert told[key] == attendance


def test_groups_are_by_minutes_that_bonus_scores_stand_for():
    assert group_of((None, None, None)) is None
    assert group_of(()) is None
    assert group_of((0, None, None)) == 1
    assert group_of((0, 0, 0)) == group_of((30, 3, None)) == 90
    assert group_of((30, 30, 30)) == 225


def test_who_stayed_is_counted_from_the_last_matches():
    whole, short = 30.0, 0.0
    three = [{1: whole, 2: short, 3: whole}, {1: whole, 4: short}, {1: whole}]
    assert stayed([three]) == {1: (0, 0), 90: (0, 0), 225: (0, 0)}
    # Of one who was on throughout he came, of two late substitutes none, and one match of a whole one is a late one's too.
    assert stayed([[*three, {1: whole}]]) == {1: (3, 0), 90: (0, 0), 225: (1, 1)}
    assert stayed([[*three, {1: whole}], [*three, {3: whole}]]) == {1: (6, 1), 90: (0, 0), 225: (2, 1)}
    many = [{1: whole}] * 40
    assert stayed([many])[225] == (10, 10)


def test_a_season_in_which_more_come_on_again_moves_those_who_have_been_playing():
    ground, usual = collected(1), shipped().stay
    nothing = ground.model_copy(update={"stayed": {}})
    assert drifts(nothing, usual) == pytest.approx(dict.fromkeys(usual, 0.0), abs=1e-9)
    more = ground.model_copy(update={"stayed": {90: (1000, round(1000 * usual[90]) + 80)}})
    drift = drifts(more, usual)
    assert drift[90] > 0.2
    assert (drift[1], drift[225]) == pytest.approx((0, 0), abs=1e-9)
    few = ground.model_copy(update={"stayed": {90: (10, 10)}})
    assert 0 < drifts(few, usual)[90] < 0.1
    moved, before = (attendances(one, shipped()) for one in (more, nothing))
    group = {player.element: group_of(player.scores[:3]) for player in ground.players}
    difference = {key: moved[key].p_play - before[key].p_play for key in moved}
    assert sum(difference[key] for key in moved if group[key[0]] == 90) > 0.5
    # Somebody has to be left out for it: a club fields no more than before.
    assert sum(difference[key] for key in moved if group[key[0]] != 90) < 0


@pytest.mark.parametrize("odds, chance", [(5000.0, 1.0), (-5000.0, 0.0)])
def test_nothing_is_too_far_from_doubt_to_be_a_chance(odds, chance):
    """Numbers of a broken page may be of any size: the exponential of their sum has no float."""
    model = Chance(intercept=odds, weights={"price": 1.0}, base=odds, trees=[])
    assert chances(model, [{"price": 1.0}]) == [pytest.approx(chance, abs=1e-9)]
