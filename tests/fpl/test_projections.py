"""The simple model behaves as it says."""

from typing import Any

import pytest

from engine_worker.engines.fpl.collecting import ScoreRow
from engine_worker.engines.fpl.fitted import shipped, versioned
from engine_worker.engines.fpl.playing import Attendance, attendances, pulled
from engine_worker.engines.fpl.projections import points_distribution, project, quantile
from engine_worker.engines.fpl.ratings import fit_ratings
from tests.fpl.builders import bootstrap, collected, projected


def used(offset: int = 0, ahead: int = 0, **changes: Any) -> Attendance:
    """How a regular of the made-up season would be used if these facts about him were others."""
    ground = collected(1, 4)
    regular = next(p for p in ground.players if p.starts >= 10 and p.status == "a" and p.chance is None)
    others = [regular._replace(**changes) if p.element == regular.element else p for p in ground.players]
    found = attendances(ground.model_copy(update={"players": others, "ahead": ahead}), shipped())
    return found[regular.element, ground.gameweeks[offset]]


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


@pytest.mark.parametrize("lost", [0.0, 0.3])
@pytest.mark.parametrize("chances", [(0.95, 0.85, 3.0, 1), (0.5, 0.2, 1.0, 1), (0.9, 0.8, 2.0, 2), (0.0, 0.0, 0.0, 1)])
def test_the_distribution_has_the_mean_it_is_drawn_from(chances, lost):
    p_play, p_60, rest, fixtures = chances
    distribution = points_distribution(p_play, p_60, rest, fixtures, 0.25 + 0.15 * rest, lost)
    assert sum(distribution) == pytest.approx(1, abs=0.01)
    mean = sum(points * p for points, p in enumerate(distribution))
    assert mean == pytest.approx(fixtures * (p_play + p_60 + p_play * rest), rel=0.03, abs=1e-9)


def test_percentiles_are_the_least_points_that_reach_the_share():
    assert [quantile([0.1, 0.4, 0.5], share) for share in (0.1, 0.5, 0.9)] == [0, 1, 2]


def test_a_flag_lowers_the_chance_and_time_restores_it():
    doubt, out = dict[str, Any](status="d", chance=50), dict[str, Any](status="i", chance=0)
    fit = used().p_play
    assert fit > 0.8
    assert used(**out).p_play < used(**doubt).p_play < used(status="d", chance=75).p_play < fit
    assert used(**out).p_play < used(3, **out).p_play < fit
    assert used(status="s", chance=0).p_play == 0
    assert used(1, status="s", chance=0).p_play > 0.7 * fit
    assert used(3, status="u", chance=0).p_play == 0


def test_flags_are_of_the_next_gameweek_also_where_a_later_one_is_decided():
    assert (collected(1, 1).ahead, collected(1, 1, gameweek=15).ahead) == (0, 3)
    out = dict[str, Any](status="s", chance=0)
    assert used(ahead=1, **out).p_play == used(1, **out).p_play > 0


def test_late_substitutes_are_less_sure_to_play_than_those_who_stay_on():
    whole, late, never = (used(minutes_each=(minutes,) * 5) for minutes in (90, 15, 0))
    assert whole.p_play > late.p_play > never.p_play
    assert whole.p_60_if_plays > late.p_60_if_plays + 0.1
    # A page that lacks a match changes little: its bonus score stands in.
    assert used(minutes_each=()).p_play == pytest.approx(whole.p_play, abs=0.1)


def test_what_the_caller_says_of_a_player_stands_whatever_his_club_needs():
    ground = collected(1, 4)
    assert used(override=(0.0, None)).p_play == 0
    assert used(1, override=(0.0, None)).p_play > 0.5
    assert used(1, override=(0.0, ground.gameweeks[1])).p_play == 0


def test_who_is_out_leaves_his_place_to_his_clubmates():
    ground = collected(1, 1)
    club = ground.players[0].club
    fielded = {**ground.fielded, club: 14.0}
    chance = {player.element: 0.5 for player in ground.players}
    mine = [player.element for player in ground.players if player.club == club]
    absent = {**chance, mine[0]: 0.0, mine[1]: 0.0}
    all_there = pulled(ground.model_copy(update={"fielded": fielded}), chance, 1.0)
    two_out = pulled(ground.model_copy(update={"fielded": fielded}), absent, 1.0)
    assert sum(all_there[element] for element in mine) == pytest.approx(14, abs=0.01)
    assert sum(two_out[element] for element in mine) == pytest.approx(14, abs=0.01)
    assert two_out[mine[0]] == 0
    assert two_out[mine[2]] > all_there[mine[2]]
    assert pulled(ground, absent, 0.0) == pytest.approx(absent)


def test_the_parameters_shipped_are_the_ones_their_version_names():
    """A file edited by hand, or written by another fit, would carry a wrong name."""
    fitted = shipped()
    assert versioned(fitted).version == fitted.version == projected(1, 1).parameters
    assert fitted.calibration is not None
    assert not set(fitted.calibration.seasons) - set(fitted.fitted_on)


def test_components_add_up_to_the_expectation_and_go_to_whom_they_belong():
    positions = {player.element: player.position for player in collected(1, 8).players}
    for row in projected(1, 8).rows:
        assert sum(row.components) == pytest.approx(row.xp, abs=0.01)
        parts = row.components
        assert parts.cards <= 0
        assert (parts.saves > 0) == (positions[row.element] == 1 and row.xp > 0) or row.xp < 0.02
        if positions[row.element] == 4:
            assert parts.clean_sheet == parts.conceded == 0


def test_other_parameters_give_other_points_and_are_named():
    fitted = shipped()
    flat = {place: line.model_copy(update={"level": 0.0, "slope": 0.0}) for place, line in fitted.line.items()}
    other = versioned(fitted.model_copy(update={"line": flat}))
    made = project(collected(1, 1), other)
    assert made.parameters == other.version != fitted.version
    for row in made.rows:
        assert row.xp == pytest.approx(row.p_play * row.fixtures + row.p_60 * row.fixtures, abs=1e-3)


def test_ratings_are_average_without_matches_and_tell_strong_from_weak_with_them():
    none = fit_ratings([1, 2], [])
    assert (none.attack, none.defence) == ({1: 1.0, 2: 1.0}, {1: 1.0, 2: 1.0})
    some = fit_ratings([1, 2, 3], [ScoreRow(1, 2, 4, 0), ScoreRow(3, 1, 0, 3), ScoreRow(2, 3, 1, 1)] * 4)
    assert some.attack[1] > 1.2 > some.attack[2]
    assert some.defence[1] < 0.8 < some.defence[2]
    assert sum(some.attack.values()) / 3 == pytest.approx(1)


def test_older_matches_count_for_less():
    long_ago, lately = ScoreRow(1, 2, 5, 0, 200.0), ScoreRow(1, 2, 0, 2, 0.0)
    even, fading = (fit_ratings([1, 2], [long_ago, lately], half_life_days=days) for days in (1e9, 50.0))
    assert fading.attack[1] < even.attack[1]
    assert fading.defence[1] > even.defence[1]


def test_regulars_score_about_what_regulars_scored():
    """The model is not biased: over the gameweeks played, regulars of the season averaged about what is expected."""
    ground = collected(1, 1)
    regular = {p.element for p in ground.players if p.appearances >= 10 and p.status == "a" and p.chance is None}
    seen = [p.total_points / 11 for p in ground.players if p.element in regular]
    expected = [row.xp for row in projected(1, 1).rows if row.element in regular]
    assert sum(expected) / len(expected) == pytest.approx(sum(seen) / len(seen), rel=0.15)
    assert len(bootstrap()["elements"]) > len(regular) > 100
