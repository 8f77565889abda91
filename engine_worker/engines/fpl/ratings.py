"""Attack and defence of every club from the season's own scores. PURE.

The API's strengths are zero in some seasons, so goals are all that is used: goals of a side are taken as Poisson with
mean `league mean × attack × opponent's defence`, fitted by alternating between the two (Maher, "Modelling association
football scores", 1982), each drawn to average by `PRIOR_MATCHES` matches' worth of ordinary results.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from engine_worker.engines.fpl.collecting import ScoreRow

PRIOR_MATCHES = 10.0
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


def fit_ratings(clubs: Sequence[int], scores: Sequence[ScoreRow]) -> Ratings:
    """Ratings of `clubs` from the matches played; all average when there are none."""
    weight = 20.0  # matches' worth of the prior on the league's means
    home = (sum(score.home_goals for score in scores) + weight * PRIOR_HOME) / (len(scores) + weight)
    away = (sum(score.away_goals for score in scores) + weight * PRIOR_AWAY) / (len(scores) + weight)
    attack, defence = dict.fromkeys(clubs, 1.0), dict.fromkeys(clubs, 1.0)
    for _ in range(_ROUNDS):
        attack = _update(clubs, scores, defence, home, away, attacking=True)
        defence = _update(clubs, scores, attack, home, away, attacking=False)
    return Ratings(home_goals=home, away_goals=away, attack=attack, defence=defence)


def _update(
    clubs: Sequence[int],
    scores: Sequence[ScoreRow],
    other: dict[int, float],
    home: float,
    away: float,
    *,
    attacking: bool,
) -> dict[int, float]:
    """Goals seen over goals expected of an average club, given the other side's ratings."""
    prior = PRIOR_MATCHES * (home + away) / 2
    seen, expected = dict.fromkeys(clubs, prior), dict.fromkeys(clubs, prior)
    for score in scores:
        for scorer, conceder, goals, mean in (
            (score.home, score.away, score.home_goals, home),
            (score.away, score.home, score.away_goals, away),
        ):
            mine, theirs = (scorer, conceder) if attacking else (conceder, scorer)
            seen[mine] += goals
            expected[mine] += mean * other[theirs]
    rated = {club: seen[club] / expected[club] for club in clubs}
    mean_rating = sum(rated.values()) / len(rated)
    return {club: rating / mean_rating for club, rating in rated.items()}
