"""Plays matches of a made-up season, in one draw or in thousands at once: goals, minutes and everything that is counted.

The season that happened is one draw of this process, and what was to be expected of it is the mean of many: no second
description of the game that could differ. Arrays are indexed [draw, player], players of the home side first.
"""

from typing import Any, NamedTuple

import numpy as np

from engine_worker.engines.fpl.seasons import (
    DEFENDER,
    FORWARD,
    GOALKEEPER,
    MIDFIELDER,
    POSITION_NAMES,
    Ruleset,
)
from engine_worker.engines.fpl.synthetic.world import Club, Player

GOALS_HOME, GOALS_AWAY = 1.55, 1.25
_ASSISTED, _OWN_GOAL, _YELLOW, _RED, _SAVES = 0.72, 0.03, 0.12, 0.004, 2.6
_ROTATION = 0.12  # spread of the form that decides who starts
_SUBSTITUTES = 4
# Defensive actions in 90 minutes: 27 % of defenders, 18 % of midfielders and 1 % of forwards reach the mark, as in 2025/26.
_CONTRIBUTIONS = {GOALKEEPER: 1.0, DEFENDER: 8.4, MIDFIELDER: 9.3, FORWARD: 5.9}
# What a match counts, in the order of the columns of `Counts`.
COUNTED = (
    "minutes", "goals_scored", "assists", "clean_sheets", "goals_conceded", "own_goals", "penalties_saved",
    "penalties_missed", "yellow_cards", "red_cards", "saves", "bonus", "bps", "starts", "defensive_contribution",
    "total_points",
)  # fmt: skip
Counts = dict[str, Any]


class Side(NamedTuple):
    """One club as its matches need it; arrays over its players."""

    club: Club
    places: Any  # positions in the arrays over all players
    position: Any
    ability: Any
    threat: Any
    creation: Any

    @classmethod
    def of(cls, club: Club, players: list[Player]) -> "Side":
        """The side of `club` among all `players`."""
        places = np.array([index for index, player in enumerate(players) if player.club == club.id])
        own = [players[index] for index in places]
        return cls(
            club, places, np.array([p.position for p in own]), np.array([p.ability for p in own]),
            np.array([p.threat for p in own]), np.array([p.creation for p in own]),
        )  # fmt: skip


class _Pitch(NamedTuple):
    """Who is on the pitch, from minute `on` to minute `off`; the one who never is has both at 90."""

    starts: Any
    on: Any
    off: Any


def play_match(
    rng: np.random.Generator, rules: Ruleset, home: Side, away: Side, fit_home: Any, fit_away: Any
) -> tuple[Counts, Any]:
    """Counts by name, each [draw, player of both sides], and the score [draw, (home, away)]."""
    pitches = [_line_up(rng, side, fit) for side, fit in ((home, fit_home), (away, fit_away))]
    pitch = _Pitch(*(np.concatenate(both, axis=1) for both in zip(*pitches, strict=True)))
    size = len(home.places)
    counts: Counts = {name: np.zeros(pitch.on.shape, dtype=np.int64) for name in COUNTED}
    counts["minutes"] = pitch.off - pitch.on
    counts["starts"] = pitch.starts.astype(np.int64)
    rates = (
        GOALS_HOME * home.club.attack / away.club.defence,
        GOALS_AWAY * away.club.attack / home.club.defence,
    )
    goals = np.minimum(rng.poisson(rates, size=(len(pitch.on), 2)), 9)
    for scoring, own, theirs in ((0, slice(0, size), slice(size, None)), (1, slice(size, None), slice(0, size))):
        side = (home, away)[scoring]
        for number in range(goals[:, scoring].max(initial=0)):
            _goal(rng, side, counts, pitch, own, theirs, number < goals[:, scoring])
    position = np.concatenate((home.position, away.position))
    _count_the_rest(rng, counts, position)
    _give_bonus(rng, counts, position)
    counts["total_points"] = points_of(rules, position, counts)
    return counts, goals


def points_of(rules: Ruleset, position: Any, counts: Counts) -> Any:
    """As `scoring.match_points`, for arrays."""

    def by_position(table: dict[str, int]) -> Any:
        return np.array([0, *(table[POSITION_NAMES[place]] for place in sorted(POSITION_NAMES))])[position]

    scoring = rules.scoring
    long = counts["minutes"] >= scoring.long_play_minutes
    points = np.where(long, scoring.long_play, scoring.short_play) * (counts["minutes"] > 0)
    points = points + counts["goals_scored"] * by_position(scoring.goals_scored)
    points += long * counts["clean_sheets"] * by_position(scoring.clean_sheets)
    points += counts["goals_conceded"] // scoring.goals_conceded_each * by_position(scoring.goals_conceded)
    points += (position == GOALKEEPER) * (counts["saves"] // scoring.saves_each) * scoring.saves
    reached = counts["defensive_contribution"] >= by_position(scoring.defensive_contribution_from)
    points += reached * by_position(scoring.defensive_contribution)
    for name in ("assists", "penalties_saved", "penalties_missed", "yellow_cards", "red_cards", "own_goals", "bonus"):
        points += counts[name] * getattr(scoring, name)
    return points


def _line_up(rng: np.random.Generator, side: Side, fit: Any) -> _Pitch:
    """Eleven by ability and the form of the day, and four substitutes between minutes 52 and 88.

    When too few of a position are fit the best of the others play all the same: eleven always start.
    """
    form = side.ability * rng.lognormal(0, _ROTATION, fit.shape) - 1e3 * ~fit
    starts = np.zeros(fit.shape, dtype=bool)
    for place, count in zip((GOALKEEPER, DEFENDER, MIDFIELDER, FORWARD), (1, *side.club.shape), strict=True):
        group = np.flatnonzero(side.position == place)
        best = np.argpartition(-form[:, group], count - 1, axis=1)[:, :count]
        np.put_along_axis(starts, group[best], values=True, axis=1)
    outfield = side.position != GOALKEEPER
    coming = _first(np.where(starts | ~outfield, -np.inf, form), _SUBSTITUTES)
    leaving = _first(np.where(starts & outfield, rng.random(fit.shape), -np.inf), _SUBSTITUTES)
    minute = rng.integers(52, 89, coming.shape)
    on, off = np.where(starts, 0, 90), np.full(fit.shape, 90)
    np.put_along_axis(on, coming, minute, axis=1)
    np.put_along_axis(off, leaving, minute, axis=1)
    return _Pitch(starts, on, off)


def _first(values: Any, count: int) -> Any:
    """The places of the `count` largest of each draw."""
    return np.argpartition(-values, count - 1, axis=1)[:, :count]


def _goal(
    rng: np.random.Generator, side: Side, counts: Counts, pitch: _Pitch, own: slice, theirs: slice, scored: Any
) -> None:
    """One goal of `side` in the draws where it was `scored`: minute, scorer, and often an assist."""
    draws = len(scored)
    minute = rng.integers(1, 90, (draws, 1))
    there = (pitch.on <= minute) & (minute < pitch.off)
    mine, others = there[:, own], there[:, theirs]
    counts["goals_conceded"][:, theirs] += others & scored[:, None]
    own_goal = scored & (rng.random(draws) < _OWN_GOAL)
    _credit(counts["own_goals"][:, theirs], _choose(rng, others * 1.0), own_goal)
    scorer = _choose(rng, mine * (side.threat + 1e-3))
    _credit(counts["goals_scored"][:, own], scorer, scored & ~own_goal)
    weights = mine * (side.creation + 1e-3)
    np.put_along_axis(weights, scorer[:, None], 0.0, axis=1)
    assisted = scored & ~own_goal & (rng.random(draws) < _ASSISTED)
    _credit(counts["assists"][:, own], _choose(rng, weights), assisted)


def _choose(rng: np.random.Generator, weights: Any) -> Any:
    """One player of each draw, by weight."""
    edges = weights.cumsum(axis=1)
    return (edges <= rng.random((len(weights), 1)) * edges[:, -1:]).sum(axis=1).clip(max=weights.shape[1] - 1)


def _credit(counted: Any, chosen: Any, happened: Any) -> None:
    rows = np.flatnonzero(happened)
    counted[rows, chosen[rows]] += 1


def _count_the_rest(rng: np.random.Generator, counts: Counts, position: Any) -> None:
    share = counts["minutes"] / 90
    counts["clean_sheets"] = ((counts["minutes"] >= 60) & (counts["goals_conceded"] == 0)).astype(np.int64)
    counts["saves"] = rng.poisson(_SAVES * share * (position == GOALKEEPER))
    counts["yellow_cards"] = (rng.random(share.shape) < _YELLOW * share).astype(np.int64)
    counts["red_cards"] = (rng.random(share.shape) < _RED * share).astype(np.int64)
    actions = np.array([0.0, *(_CONTRIBUTIONS[place] for place in sorted(_CONTRIBUTIONS))])[position]
    counts["defensive_contribution"] = rng.poisson(actions * share)


def _give_bonus(rng: np.random.Generator, counts: Counts, position: Any) -> None:
    """Three, two and one points to the best three by a score like the official one; no ties, for simplicity."""
    behind = (position == GOALKEEPER) | (position == DEFENDER)
    score = np.where(counts["minutes"] >= 60, 6, 3)
    score = score + counts["goals_scored"] * np.where(behind, 12, 20) + counts["assists"] * 9 + counts["saves"] * 2
    score += 12 * counts["clean_sheets"] * behind + counts["defensive_contribution"] // 2
    score -= 3 * counts["yellow_cards"] + 9 * counts["red_cards"] + 6 * counts["own_goals"]
    played = counts["minutes"] > 0
    counts["bps"] = np.maximum(score + rng.integers(0, 6, score.shape), 1) * played
    order = np.argsort(-(counts["bps"] + rng.random(score.shape) * 0.5) + 1e6 * ~played, axis=1)[:, :3]
    np.put_along_axis(counts["bonus"], order, np.array([[3, 2, 1]]), axis=1)
