"""How well P(play) could be told: boosted trees that may look where a forecast may not, beside the engine's model.

`python -m benchmarks.fpl_playing --data FOLDER`. The trees have the engine's features, minutes by match among them, and
learn from every other season, later ones too, and from the other gameweeks of the season itself. What they still miss is
hardly in what the API shows before a deadline. Needs scikit-learn.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine_worker.engines.fpl.backtest.fitting import Prepared, prepare
from engine_worker.engines.fpl.backtest.history import past_seasons
from engine_worker.engines.fpl.backtest.measures import brier
from engine_worker.engines.fpl.playing import attendances
from phaseline.cli_fpl_data import fitted_for

FOLDS = 6


def rows_of(season: Prepared) -> tuple[Any, Any, Any]:
    """Of each regular before a deadline with exactly one match: features, whether he played, the place of the deadline."""
    regular = [example for example in season.examples if season.regular(example)]
    table = np.array([[example.features[name] for name in sorted(example.features)] for example in regular])
    played = np.array([example.outcome.minutes > 0 for example in regular])
    return table, played, np.array([example.ground for example in regular])


def engine_brier(seasons: Sequence[Prepared], place: int) -> float:
    """The engine's, by parameters that do not know the season: as `phaseline fpl backtest` has them."""
    season = seasons[place]
    fitted = fitted_for(seasons, season.season.name)
    chances = [attendances(collected, fitted) for _, collected in season.grounds]
    regular = [example for example in season.examples if season.regular(example)]
    told = [chances[one.ground][one.player.element, season.grounds[one.ground][0].gameweek].p_play for one in regular]
    return brier(np.array(told), np.array([one.outcome.minutes > 0 for one in regular]))


def reachable(rows: Sequence[tuple[Any, Any, Any]], place: int) -> float:
    """The trees', each gameweek told by those that did not see it."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    table, played, ground = rows[place]
    others = [one for number, one in enumerate(rows) if number != place]
    told = np.zeros(len(played))
    for fold in range(FOLDS):
        unseen = ground % FOLDS == fold
        trees = HistGradientBoostingClassifier(
            max_iter=250,
            learning_rate=0.04,
            max_leaf_nodes=15,
            min_samples_leaf=60,
            l2_regularization=5.0,
            random_state=1,
        )
        known = np.concatenate([*(one[0] for one in others), table[~unseen]])
        trees.fit(known, np.concatenate([*(one[1] for one in others), played[~unseen]]))
        told[unseen] = trees.predict_proba(table[unseen])[:, 1]
    return brier(told, played)


def main() -> None:
    """Prints a line a season."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    seasons = [prepare(season) for season in past_seasons(parser.parse_args().data)]
    rows = [rows_of(season) for season in seasons]
    print("season   regulars  played  Brier: share alone  engine  reachable")
    for place, season in enumerate(seasons):
        played = rows[place][1]
        base = float(np.mean(played))
        print(
            f"{season.season.name}  {len(played):8d}  {base:6.3f}  {base * (1 - base):18.4f}  "
            f"{engine_brier(seasons, place):6.4f}  {reachable(rows, place):9.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
