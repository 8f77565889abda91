"""The simple model behaves as it says."""

from typing import Any

import pytest

from engine_worker.engines.fpl.collecting import PlayerRow, ScoreRow
from engine_worker.engines.fpl.projections import availability, points_distribution, quantile
from engine_worker.engines.fpl.ratings import fit_ratings
from tests.fpl.builders import bootstrap, collected, projected


def a_player(**changes: Any) -> PlayerRow:
    row = PlayerRow(1, 1, "Somebody", 1, 3, 60, "a", None, 900, 10, 11, 50, 1.0, 1.0, 5.0)
    return row._replace(**changes)


def test_a_blank_is_worth_nothing_and_a_double_about_twice_a_single():
    ground, rows = collected(1, 8), projected(1, 8).rows
    clubs = {player.element: player.club for player in ground.players}
    counts = {(row.element, row.gameweek): row.fixtures for row in rows}
    assert {0, 1, 2} <= set(counts.values())
    for row in rows:
        if row.fixtures == 0:
            assert (row.xp, row.p10, row.p50, row.p90) == (0, 0, 0, 0)
    regular = next(
        r for r in rows if r.fixtures == 2 and r.p_play > 0.9 and counts[r.element, ground.gameweeks[0]] == 1
    )
    single = next(r for r in rows if r.element == regular.element and r.fixtures == 1)
    assert 1.4 < regular.xp / single.xp < 2.8
    assert clubs[regular.element]


def test_every_number_is_finite_and_the_percentiles_are_ordered():
    for row in projected(1, 8).rows:
        assert 0 <= row.p10 <= row.p50 <= row.p90 <= 40
        assert 0 <= row.p_60 <= row.p_play <= 1
        assert 0 <= row.xp < 40


@pytest.mark.parametrize("chances", [(0.95, 0.85, 3.0, 1), (0.5, 0.2, 1.0, 1), (0.9, 0.8, 2.0, 2), (0.0, 0.0, 0.0, 1)])
def test_the_distribution_has_the_mean_it_is_drawn_from(chances):
    p_play, p_60, rest, fixtures = chances
    distribution = points_distribution(*chances)
    assert sum(distribution) == pytest.approx(1, abs=0.01)
    mean = sum(points * p for points, p in enumerate(distribution))
    assert mean == pytest.approx(fixtures * (p_play + p_60 + p_play * rest), rel=0.03, abs=1e-9)


def test_percentiles_are_the_least_points_that_reach_the_share():
    assert [quantile([0.1, 0.4, 0.5], share) for share in (0.1, 0.5, 0.9)] == [0, 1, 2]


def test_a_flag_lowers_the_chance_and_time_restores_it():
    fit, doubt, out = a_player(), a_player(status="d", chance=50), a_player(status="i", chance=0)
    assert availability(fit, 0) == 1
    assert availability(out, 0) < availability(doubt, 0) < availability(a_player(status="d", chance=75), 0) < 1
    assert availability(out, 0) < availability(out, 3) < 1
    assert availability(a_player(status="s", chance=0), 0) == 0
    assert availability(a_player(status="u", chance=0), 5) == 0


def test_ratings_are_average_without_matches_and_tell_strong_from_weak_with_them():
    none = fit_ratings([1, 2], [])
    assert (none.attack, none.defence) == ({1: 1.0, 2: 1.0}, {1: 1.0, 2: 1.0})
    some = fit_ratings([1, 2, 3], [ScoreRow(1, 2, 4, 0), ScoreRow(3, 1, 0, 3), ScoreRow(2, 3, 1, 1)] * 4)
    assert some.attack[1] > 1.2 > some.attack[2]
    assert some.defence[1] < 0.8 < some.defence[2]
    assert sum(some.attack.values()) / 3 == pytest.approx(1)


def test_regulars_score_about_what_regulars_scored():
    """The model is not biased: over the gameweeks played, regulars of the season averaged about what is expected."""
    ground = collected(1, 1)
    regular = {p.element for p in ground.players if p.appearances >= 10 and p.status == "a" and p.chance is None}
    seen = [p.total_points / 11 for p in ground.players if p.element in regular]
    expected = [row.xp for row in projected(1, 1).rows if row.element in regular]
    assert sum(expected) / len(expected) == pytest.approx(sum(seen) / len(seen), rel=0.15)
    assert len(bootstrap()["elements"]) > len(regular) > 100
