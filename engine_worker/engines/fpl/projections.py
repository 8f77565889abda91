"""Expected points of every player and gameweek: the output of the phase `projecting_points`. PURE.

For each match, with the fitted parameters of `fitted.py`:

    P(play) × (appearance points + level + slope × Σ components)

- P(play) and P(an hour, if he plays): `playing.py`; minutes follow from the two;
- goals, assists, saves, bonus, cards: a rate per 90 minutes from his own of this season, drawn to his position's mean, his
  price, and the API's index of threat or creativity; times minutes, times what his club is expected to score (or concede)
  over the average;
- clean sheet and goals conceded: Poisson, from the goals expected of the opponent;
- defensive contributions, in seasons that count them: his actions per 90 against the number asked for. No season of them
  was at hand to fit, so the prior and the Poisson are set by hand;
- level and slope: one line a position through what happened, fitted out of season.

Percentiles come from a distribution with the same mean: zero or appearance points, plus a negative binomial
rest of which a point may be taken.
"""

from collections.abc import Mapping, Sequence
from math import exp
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from engine_worker.engines.fpl.collecting import Collected, MatchRow, PlayerRow
from engine_worker.engines.fpl.fitted import Fitted, Rates, shipped
from engine_worker.engines.fpl.playing import Attendance, attendances
from engine_worker.engines.fpl.ratings import Ratings, fit_ratings
from engine_worker.engines.fpl.seasons import DEFENDER, FORWARD, GOALKEEPER, MIDFIELDER, POSITION_NAMES, Scoring

# Gameweek points beyond this have no measurable probability.
_POINTS_MAX = 40
# The price of the cheapest of any position, in tenths.
CHEAPEST = 40
# Components with a rate of their own; those of a club's attack move with its expected goals.
RATED = ("goals", "assists", "saves", "bonus", "cards")
ATTACKING = ("goals", "assists")
# Defensive actions per 90 of a position, drawn to by so many matches: about the shares of 2025/26 that reached the number
# asked for (27, 18 and 1 %).
_ACTIONS_PER_90 = {GOALKEEPER: 0.0, DEFENDER: 8.0, MIDFIELDER: 9.0, FORWARD: 5.0}
_ACTIONS_PRIOR_NINETIES = 6.0


class Components(NamedTuple):
    """Expected points of a gameweek by their source. `adjustment` is what the line of the position adds; they sum to the whole."""

    appearance: float = 0.0
    goals: float = 0.0
    assists: float = 0.0
    clean_sheet: float = 0.0
    conceded: float = 0.0
    saves: float = 0.0
    bonus: float = 0.0
    cards: float = 0.0
    defensive_contribution: float = 0.0
    adjustment: float = 0.0


class ProjectionRow(NamedTuple):
    """One player in one gameweek. `rest` is the expectation of all but appearance points, given that he plays.

    `shape` is that of its negative binomial part, `lost` the chance that a point is taken from it.
    """

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
    shape: float
    lost: float
    components: Components = Components()


class Projected(BaseModel):
    """Projections of the players a plan may use, ordered by element and gameweek; `parameters` is their version."""

    model_config = ConfigDict(frozen=True)

    ratings: Ratings
    rows: list[ProjectionRow]
    parameters: str


class Match(NamedTuple):
    """Goals expected of a player's club and of its opponent; 1.0 is the league's average for the ratios."""

    conceded: float
    scored_ratio: float
    conceded_ratio: float


def project(collected: Collected, fitted: Fitted | None = None) -> Projected:
    """Projects every collected player over the planned gameweeks; without parameters, with those of the package."""
    fitted = fitted or shipped()
    ratings = fit_ratings(sorted(collected.clubs), collected.scores, fitted.prior_matches, fitted.half_life_days)
    by_club = _fixtures_by_club(collected.fixtures)
    playing = attendances(collected, fitted)
    model = _Model(fitted, ratings, collected.rules.scoring)
    rows = []
    for player in collected.players:
        rates = model.rates(player)
        for gameweek in collected.gameweeks:
            matches = [match_of(ratings, player.club, *one) for one in by_club.get((player.club, gameweek), [])]
            rows.append(model.row(player, gameweek, playing[player.element, gameweek], rates, matches))
    return Projected(ratings=ratings, rows=rows, parameters=fitted.version)


def match_of(ratings: Ratings, club: int, opponent: int, home: bool) -> Match:
    """What a match of `club` is expected to bring."""
    scored, conceded = ratings.goals(club, opponent, home), ratings.goals(opponent, club, not home)
    return Match(conceded, scored / ratings.average, conceded / ratings.average)


def own_rates(player: PlayerRow, ratings: Ratings) -> dict[str, tuple[float, float]]:
    """Component → what he did this season, of it and of the API's index for it, his club's strength taken out."""
    totals, attack = player.totals, ratings.attack[player.club]
    return {
        "goals": (totals.goals / attack, totals.threat / attack),
        "assists": (totals.assists / attack, totals.creativity / attack),
        "saves": (totals.saves / ratings.defence[player.club], 0.0),
        "bonus": (totals.bonus, totals.threat),
        "cards": (totals.deducted, 0.0),
    }


def rate_per_90(rates: Rates, player: PlayerRow, own: float, index: float) -> float:
    """A component per 90 minutes against an average opponent, of an average club."""
    nineties = player.minutes / 90 + rates.prior_nineties
    return (
        rates.base
        + rates.by_price * (player.now_cost - CHEAPEST) / 10
        + rates.by_own * (own + rates.prior_nineties * rates.prior_own) / nineties
        + rates.by_index * (index + rates.prior_nineties * rates.prior_index) / nineties
    )


def actions_per_90(player: PlayerRow) -> float:
    """Defensive actions per 90 minutes, drawn to his position's."""
    prior = _ACTIONS_PRIOR_NINETIES * _ACTIONS_PER_90[player.position]
    return (player.totals.defensive_contribution + prior) / (player.minutes / 90 + _ACTIONS_PRIOR_NINETIES)


def expected_components(
    scoring: Scoring, player: PlayerRow, rates: Mapping[str, float], match: Match, hour: float, minutes: float
) -> Components:
    """Points of a match by their source, if he plays `minutes` and is on for an hour with chance `hour`."""
    place, played = POSITION_NAMES[player.position], minutes / 90
    conceded = scoring.goals_conceded[place] * _pairs(match.conceded * played)
    saves = 0.0
    if player.position == GOALKEEPER:
        saves = scoring.saves * _full(rates["saves"] * played * match.conceded_ratio, scoring.saves_each)
    worth, asked = scoring.defensive_contribution[place], scoring.defensive_contribution_from[place]
    return Components(
        appearance=scoring.short_play + (scoring.long_play - scoring.short_play) * hour,
        goals=scoring.goals_scored[place] * rates["goals"] * played * match.scored_ratio,
        assists=scoring.assists * rates["assists"] * played * match.scored_ratio,
        clean_sheet=scoring.clean_sheets[place] * hour * exp(-match.conceded),
        conceded=conceded,
        saves=saves,
        bonus=scoring.bonus * rates["bonus"] * played,
        cards=rates["cards"] * played,
        defensive_contribution=worth * _at_least(rates["actions"] * played, asked) if worth else 0.0,
    )


class _Model:
    def __init__(self, fitted: Fitted, ratings: Ratings, scoring: Scoring) -> None:
        self._fitted, self._ratings, self._scoring = fitted, ratings, scoring

    def rates(self, player: PlayerRow) -> dict[str, float]:
        own = own_rates(player, self._ratings)
        found = {
            name: rate_per_90(by_position[player.position], player, *own[name])
            for name, by_position in self._fitted.rates.items()
        }
        return found | {"actions": actions_per_90(player)}

    def row(
        self,
        player: PlayerRow,
        gameweek: int,
        attendance: Attendance,
        rates: Mapping[str, float],
        matches: Sequence[Match],
    ) -> ProjectionRow:
        """One player in one gameweek."""
        count, p_play, hour = len(matches), attendance.p_play, attendance.p_60_if_plays
        minutes = minutes_if_plays(self._fitted, player.position, hour)
        each = [expected_components(self._scoring, player, rates, match, hour, minutes) for match in matches]
        line = self._fitted.line[player.position]
        seen = Components(*(sum(one) / count for one in zip(*each, strict=True))) if count else Components()
        rest = max(line.level + line.slope * (sum(seen) - seen.appearance), 0.0) if count else 0.0
        p_60 = p_play * hour
        shape, lost = spread(self._fitted, player.position, rest)
        distribution = points_distribution(p_play, p_60, rest, count, shape, lost)
        low, middle, high = (quantile(distribution, share) for share in (0.1, 0.5, 0.9))
        whole = Components(*(count * p_play * one for one in seen))
        xp = count * p_play * (seen.appearance + rest)
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
            round(shape, 4),
            lost,
            Components(*(round(one, 3) for one in whole._replace(adjustment=xp - sum(whole)))),
        )


def spread(fitted: Fitted, position: int, rest: float) -> tuple[float, float]:
    """Shape and chance of a loss of the points of one expected to score `rest` beyond those for appearing."""
    return fitted.shape[0] + fitted.shape[1] * rest, fitted.lost[position]


def minutes_if_plays(fitted: Fitted, position: int, hour: float) -> float:
    """Minutes of one who plays, on for an hour with this chance."""
    return hour * fitted.minutes_long[position] + (1 - hour) * fitted.minutes_short[position]


def _pairs(goals: float) -> float:
    """Expectation of half the goals, rounded down, of a Poisson mean."""
    return goals / 2 - (1 - exp(-2 * goals)) / 4


def _full(mean: float, each: int) -> float:
    """Expectation of the full `each`es of a Poisson mean."""
    return sum(_at_least(mean, each * times) for times in range(1, 6))


def _at_least(mean: float, count: int) -> float:
    """The chance that a Poisson variable reaches `count`."""
    term, below = exp(-mean), 0.0
    for number in range(count):
        below += term
        term *= mean / (number + 1)
    return max(1 - below, 0.0)


def points_distribution(
    p_play: float, p_60: float, rest: float, fixtures: int, shape: float, lost: float
) -> list[float]:
    """Probability of 0, 1, … `_POINTS_MAX` points in a gameweek of `fixtures` matches, each with these chances."""
    if fixtures == 0:
        return [1.0] + [0.0] * _POINTS_MAX
    one = _match_distribution(p_play, p_60, rest, shape, lost)
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


def _fixtures_by_club(fixtures: Sequence[MatchRow]) -> dict[tuple[int, int], list[tuple[int, bool]]]:
    found: dict[tuple[int, int], list[tuple[int, bool]]] = {}
    for match in fixtures:
        found.setdefault((match.home, match.gameweek), []).append((match.away, True))
        found.setdefault((match.away, match.gameweek), []).append((match.home, False))
    return found


def _match_distribution(p_play: float, p_60: float, rest: float, shape: float, lost: float) -> list[float]:
    distribution = [0.0] * (_POINTS_MAX + 1)
    distribution[0] = 1 - p_play
    mean = rest + lost
    probability = (shape / (shape + mean)) ** shape
    for extra in range(_POINTS_MAX - 1):
        for appearance, chance in ((1, p_play - p_60), (2, p_60)):
            distribution[extra + appearance] += chance * probability * (1 - lost)
            distribution[extra + appearance - 1] += chance * probability * lost
        probability *= (extra + shape) / (extra + 1) * mean / (shape + mean)
    return distribution


def _convolved(first: Sequence[float], second: Sequence[float]) -> list[float]:
    total = [0.0] * (_POINTS_MAX + 1)
    for i, p in enumerate(first):
        if p > 1e-9:
            for j in range(_POINTS_MAX + 1 - i):
                total[i + j] += p * second[j]
    return total
