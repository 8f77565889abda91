"""Attack and defence of every club from the season's own scores. PURE.

The API's strengths are zero in some seasons, so goals are all that is used: goals of a side are taken as Poisson with
mean `league mean × attack × opponent's defence`, fitted by alternating between the two (Maher, "Modelling association
football scores", 1982), each drawn to average by some matches' worth of ordinary results; older matches count for less.
"""

from collections.abc import Sequence
from math import inf

from pydantic import BaseModel, ConfigDict

from engine_worker.engines.fpl.collecting import ScoreRow

# Goals at home and away before a season has shown its own; close to every recent season's mean.
PRIOR_HOME, PRIOR_AWAY = 1.5, 1.25
_ROUNDS = 12


class Ratings(BaseModel):
    """`attack` multiplies goals scored, `defence` goals conceded; 1.0 is average, a lower defence is a better one."""

    model_config = ConfigDict(frozen=True)

    home_goals: float
    away_goals: float
    attack: dict[int, float]
    defence: dict[int, float]

    def goals(self, club: int, opponent: int, home: bool) -> float:
        """Goals `club` is expected to score against `opponent`."""
        return (self.home_goals if home else self.away_goals) * self.attack[club] * self.defence[opponent]

    @property
    def average(self) -> float:
        """Goals an average side scores, home and away alike."""
        return (self.home_goals + self.away_goals) / 2


def fit_ratings(
    clubs: Sequence[int], scores: Sequence[ScoreRow], prior_matches: float = 10.0, half_life_days: float = inf
) -> Ratings:
    """Ratings of `clubs` from the matches played; all average when there are none."""
    counts = [0.5 ** (score.days_ago / half_life_days) for score in scores]
    weight = 20.0  # matches' worth of the prior on the league's means
    home = (sum(score.home_goals for score in scores) + weight * PRIOR_HOME) / (len(scores) + weight)
    away = (sum(score.away_goals for score in scores) + weight * PRIOR_AWAY) / (len(scores) + weight)
    attack, defence = dict.fromkeys(clubs, 1.0), dict.fromkeys(clubs, 1.0)
    for _ in range(_ROUNDS):
        attack = _update(
            clubs, scores, counts, defence, prior_matches * (home + away) / 2, (home, away), attacking=True
        )
        defence = _update(
            clubs, scores, counts, attack, prior_matches * (home + away) / 2, (home, away), attacking=False
        )
    return Ratings(home_goals=home, away_goals=away, attack=attack, defence=defence)


def _update(
    clubs: Sequence[int],
    scores: Sequence[ScoreRow],
    counts: Sequence[float],
    other: dict[int, float],
    prior: float,
    means: tuple[float, float],
    *,
    attacking: bool,
) -> dict[int, float]:
    """Goals seen over goals expected of an average club, given the other side's ratings."""
    seen, expected = dict.fromkeys(clubs, prior), dict.fromkeys(clubs, prior)
    for score, count in zip(scores, counts, strict=True):
        for scorer, conceder, goals, mean in (
            (score.home, score.away, score.home_goals, means[0]),
            (score.away, score.home, score.away_goals, means[1]),
        ):
            mine, theirs = (scorer, conceder) if attacking else (conceder, scorer)
            seen[mine] += count * goals
            expected[mine] += count * mean * other[theirs]
    rated = {club: seen[club] / expected[club] for club in clubs}
    mean_rating = sum(rated.values()) / len(rated)
    return {club: rating / mean_rating for club, rating in rated.items()}
