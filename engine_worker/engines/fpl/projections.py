"""Expected points of every player and gameweek: the output of the phase `projecting_points`. PURE.

A simple, open model, for each fixture:

    P(play) × (appearance points + other points per 90 × minutes/90 × fixture factor)

- P(play): how often he played of his club's last 3 (weight 0.6) and last 10 matches (0.4), read off a curve of what
  such players did, times what his flag means;
- other points per 90: his season's without appearance points, drawn by `PRIOR_NINETIES` matches to what his position
  and price promise, a line fitted on the same snapshot;
- fixture factor: goals expected of his club for an attacker, of the opponent for a defender, over the average.

On the 33 gameweeks of 2023/24, not used to choose a constant, the root mean squared error over players who played
lately was 2.91 against 3.21 of the API's own `ep_next`, slope 0.98 against 0.47, bias −0.12.

Percentiles come from a distribution with the same mean: zero or appearance points, plus a negative binomial rest
whose spread was chosen so that a player expected to score four has P10/P50/P90 near 1/2/8. P10 to P90 held 80 % of
what happened in 2020/21 to 2022/23.
"""

from collections.abc import Mapping, Sequence
from math import exp
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from engine_worker.engines.fpl.collecting import Collected, MatchRow, PlayerRow
from engine_worker.engines.fpl.ratings import Ratings, fit_ratings
from engine_worker.engines.fpl.rules import DEFENDER, FORWARD, GOALKEEPER, MIDFIELDER

RECENT_WEIGHT = 0.6
# With a weaker prior the model spreads players too widely. On 96 gameweeks of 2020/21 to 2022/23 the slope of truth on
# forecast rose from 0.84 to 0.90 by this, `_FIXTURE_SWING` and the prior of `ratings.py`; chosen there, not on 2023/24.
PRIOR_NINETIES = 20.0
# How often players with a flag played, relative to those without: five seasons of snapshots before the deadline.
AVAILABILITY = {100: 1.0, 75: 0.62, 50: 0.34, 25: 0.23, 0: 0.04}
# Share of an absentee's missing availability that returns with every further gameweek. A guess: news say little.
RECOVERY = 0.3
# Share of a position's other points that moves with goals for (the rest moves with clean sheets).
_ATTACKING_SHARE = {GOALKEEPER: 0.0, DEFENDER: 0.3, MIDFIELDER: 0.8, FORWARD: 1.0}
# Fixtures explain less than goals alone suggest: half of the swing is kept.
_FIXTURE_SWING = 0.5
# Shape of the negative binomial rest: a base, and its growth with the mean (high forecasts spread relatively less).
REST_SHAPE, REST_SHAPE_SLOPE = 0.25, 0.15
# Other points per 90 where a season has not shown enough to fit the line: at the price of an ordinary starter, and
# per tenth above it.
_REST_PRIOR = {
    GOALKEEPER: (1.7, 45, 0.02),
    DEFENDER: (1.3, 45, 0.03),
    MIDFIELDER: (1.5, 55, 0.025),
    FORWARD: (1.8, 60, 0.025),
}
_FIT_MINUTES_MIN = 270
_FIT_PLAYERS_MIN = 12
# Gameweek points beyond this have no measurable probability.
_POINTS_MAX = 40


class ProjectionRow(NamedTuple):
    """One player in one gameweek. `rest` is the expectation of all but appearance points, given that he plays."""

    element: int
    gameweek: int
    xp: float
    p10: int
    p50: int
    p90: int
    p_play: float
    p_60: float
    rest: float
    fixtures: int


class Projected(BaseModel):
    """Projections of the players a plan may use, ordered by element and gameweek."""

    model_config = ConfigDict(frozen=True)

    ratings: Ratings
    rows: list[ProjectionRow]


class Minutes(NamedTuple):
    """One player in any match he is fit for."""

    p_play: float
    p_60_if_plays: float
    minutes_if_plays: float


def project(collected: Collected) -> Projected:
    """Projects every collected player over the planned gameweeks."""
    ratings = fit_ratings(sorted(collected.clubs), collected.scores)
    lines = _price_lines(collected.players)
    by_club = _fixtures_by_club(collected.fixtures)
    rows = []
    for player in collected.players:
        minutes, rest90 = expected_minutes(player, collected.scores), rest_per_90(player, lines)
        for offset, gameweek in enumerate(collected.gameweeks):
            factors = [
                fixture_factor(ratings, player.position, player.club, opponent, home)
                for opponent, home in by_club.get((player.club, gameweek), [])
            ]
            rows.append(_project_one(player, gameweek, minutes, rest90, availability(player, offset), factors))
    return Projected(ratings=ratings, rows=rows)


def availability(player: PlayerRow, offset: int) -> float:
    """The chance that his flag leaves him, `offset` gameweeks after the next one, relative to a player without."""
    if player.status in ("u", "n"):
        return 0.0
    if player.status == "a" and player.chance is None:
        return 1.0
    if player.status == "s":
        # Most suspensions are for one match.
        return 0.0 if offset == 0 else 0.9
    now = AVAILABILITY.get(100 if player.chance is None and player.status == "a" else player.chance or 0, 0.04)
    return 1 - (1 - now) * (1 - RECOVERY) ** offset


def expected_minutes(player: PlayerRow, scores: Sequence[object]) -> Minutes:
    """How much he plays when fit. Without matches to look at, last season's minutes stand in."""
    nineties = player.minutes / 90
    if scores:
        share = RECENT_WEIGHT * player.played_recent + (1 - RECENT_WEIGHT) * player.played_longer
    else:
        share = min(nineties / 38, 1.0)
    appearances = player.appearances
    from_start = (player.starts + 1.0) / (appearances + 2.0) if appearances else 0.3
    # Two appearances' worth of an ordinary hour keep a single cameo from deciding.
    length = (player.minutes + 2 * 60) / (appearances + 2)
    return Minutes(chance_to_play(share), min(0.92 * from_start + 0.03, 0.97), min(length, 90.0))


def chance_to_play(share: float) -> float:
    """P(play) of a fit player who appeared in this share of his club's recent matches.

    A curve through what happened in three seasons: nobody is certain, and few are out for good.
    """
    if share < 0.05:
        return 0.06
    return 0.2 + share - 0.27 * share * share


def rest_per_90(player: PlayerRow, lines: Mapping[int, tuple[float, float]]) -> float:
    """Points per 90 minutes beyond those for appearing, drawn to his position's line over price."""
    level, slope = lines[player.position]
    prior = level + slope * player.now_cost
    nineties = player.minutes / 90
    return (_rest_points(player) + PRIOR_NINETIES * prior) / (nineties + PRIOR_NINETIES)


def fixture_factor(ratings: Ratings, position: int, club: int, opponent: int, home: bool) -> float:
    """What a fixture does to other points: 1.0 is an average fixture."""
    scored = ratings.goals(club, opponent, home) / ratings.average
    conceded = ratings.goals(opponent, club, not home)
    clean_sheet = exp(-conceded) / exp(-ratings.average)
    share = _ATTACKING_SHARE[position]
    return 1 + _FIXTURE_SWING * (share * scored + (1 - share) * clean_sheet - 1)


def points_distribution(p_play: float, p_60: float, rest: float, fixtures: int) -> list[float]:
    """Probability of 0, 1, … `_POINTS_MAX` points in a gameweek of `fixtures` matches, each with these chances."""
    if fixtures == 0:
        return [1.0] + [0.0] * _POINTS_MAX
    one = _match_distribution(p_play, p_60, rest)
    total = one
    for _ in range(fixtures - 1):
        total = _convolved(total, one)
    return total


def quantile(distribution: Sequence[float], share: float) -> int:
    """The least number of points with at least `share` of the probability at or below it."""
    below = 0.0
    for points, probability in enumerate(distribution):
        below += probability
        if below >= share - 1e-9:
            return points
    return len(distribution) - 1


def _project_one(
    player: PlayerRow, gameweek: int, minutes: Minutes, rest90: float, fit: float, factors: Sequence[float]
) -> ProjectionRow:
    p_play = minutes.p_play * fit
    p_60 = p_play * minutes.p_60_if_plays
    factor = sum(factors) / len(factors) if factors else 0.0
    rest = max(rest90 * factor * minutes.minutes_if_plays / 90, 0.0)
    count = len(factors)
    xp = count * (p_play + p_60 + p_play * rest)
    distribution = points_distribution(p_play, p_60, rest, count)
    low, middle, high = (quantile(distribution, share) for share in (0.1, 0.5, 0.9))
    return ProjectionRow(
        player.element,
        gameweek,
        round(xp, 4),
        low,
        middle,
        high,
        round(p_play, 4),
        round(p_60, 4),
        round(rest, 4),
        count,
    )


def _rest_points(player: PlayerRow) -> float:
    """Season points less those for appearing: two for an hour, one for less."""
    from_start = min(player.starts, player.appearances)
    return player.total_points - (2 * 0.93 + 0.07) * from_start - (player.appearances - from_start)


def _price_lines(players: Sequence[PlayerRow]) -> dict[int, tuple[float, float]]:
    """Level and slope of other points per 90 over price, by position: least squares weighted by minutes."""
    lines = {}
    for position, (level, price, slope) in _REST_PRIOR.items():
        regulars = [p for p in players if p.position == position and p.minutes >= _FIT_MINUTES_MIN]
        lines[position] = _fitted(regulars) or (level - slope * price, slope)
    return lines


def _fitted(regulars: Sequence[PlayerRow]) -> tuple[float, float] | None:
    if len(regulars) < _FIT_PLAYERS_MIN:
        return None
    weight = sum(p.minutes for p in regulars)
    price = sum(p.minutes * p.now_cost for p in regulars) / weight
    rest = sum(90 * _rest_points(p) for p in regulars) / weight
    spread = sum(p.minutes * (p.now_cost - price) ** 2 for p in regulars)
    joint = sum((90 * _rest_points(p) - p.minutes * rest) * (p.now_cost - price) for p in regulars)
    # A falling line would be noise: dearer players are not expected to score less.
    slope = max(joint / spread, 0.0) if spread else 0.0
    return rest - slope * price, slope


def _fixtures_by_club(fixtures: Sequence[MatchRow]) -> dict[tuple[int, int], list[tuple[int, bool]]]:
    found: dict[tuple[int, int], list[tuple[int, bool]]] = {}
    for match in fixtures:
        found.setdefault((match.home, match.gameweek), []).append((match.away, True))
        found.setdefault((match.away, match.gameweek), []).append((match.home, False))
    return found


def _match_distribution(p_play: float, p_60: float, rest: float) -> list[float]:
    distribution = [0.0] * (_POINTS_MAX + 1)
    distribution[0] = 1 - p_play
    shape = REST_SHAPE + REST_SHAPE_SLOPE * rest
    probability = (shape / (shape + rest)) ** shape
    for extra in range(_POINTS_MAX - 1):
        distribution[extra + 1] += (p_play - p_60) * probability
        distribution[extra + 2] += p_60 * probability
        probability *= (extra + shape) / (extra + 1) * rest / (shape + rest)
    return distribution


def _convolved(first: Sequence[float], second: Sequence[float]) -> list[float]:
    total = [0.0] * (_POINTS_MAX + 1)
    for i, p in enumerate(first):
        if p > 1e-9:
            for j in range(_POINTS_MAX + 1 - i):
                total[i + j] += p * second[j]
    return total
