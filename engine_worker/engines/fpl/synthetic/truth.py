"""What was truly to be expected: the mean over many draws of the process the season is one draw of."""

from dataclasses import dataclass

import numpy as np

from engine_worker.engines.fpl.synthetic.season import Stage

_BATCH = 500


@dataclass(frozen=True)
class Truth:
    """Expected points by (element, gameweek) as known before the next deadline, and how exactly they are known."""

    expected: dict[tuple[int, int], float]
    standard_error: dict[tuple[int, int], float]
    p_play: dict[tuple[int, int], float]
    draws: int


def true_expectation(stage: Stage, seed: int, gameweeks: range, draws: int) -> Truth:
    """Plays `gameweeks`, the first of them next, from everybody's health now, `draws` times (rounded up to 500s)."""
    size, weeks = len(stage.players), len(gameweeks)
    total, squares, played = (np.zeros((weeks, size)) for _ in range(3))
    batches = -(-draws // _BATCH)
    rng = np.random.default_rng([seed, 7])
    for _ in range(batches):
        health = np.tile([player.health[-1] for player in stage.players], (_BATCH, 1))
        for week, gameweek in enumerate(gameweeks):
            matches, health = stage.gameweek(rng, gameweek, health)
            points, minutes = (np.zeros((_BATCH, size)) for _ in range(2))
            for match, counts, _ in matches:
                places = stage.places(match)
                points[:, places] += counts["total_points"]
                minutes[:, places] += counts["minutes"]
            total[week] += points.sum(axis=0)
            squares[week] += (points**2).sum(axis=0)
            played[week] += (minutes > 0).sum(axis=0)
    drawn = batches * _BATCH
    mean = total / drawn
    error = np.sqrt(np.maximum(squares / drawn - mean**2, 0) / drawn)

    def by_key(values: np.ndarray) -> dict[tuple[int, int], float]:
        return {
            (player.id, gameweek): float(values[week, index])
            for week, gameweek in enumerate(gameweeks)
            for index, player in enumerate(stage.players)
        }

    return Truth(by_key(mean), by_key(error), by_key(played / drawn), drawn)
