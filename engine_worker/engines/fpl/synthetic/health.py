"""Who can play: a chain from gameweek to gameweek, and what the API's flags say of it. Arrays over draws and players.

Everything known of a player's fitness is in his flag, so what a reader of the flag expects is the truth; but the flags are
optimistic, as the real ones were in five seasons of snapshots.
"""

from typing import Any

import numpy as np

FIT, MINOR, EVEN, UNLIKELY, INJURED, SUSPENDED = range(6)
# Chance of playing that the API shows; none for the fit.
SHOWN = (None, 75, 50, 25, 0, 0)
STATUS = ("a", "d", "d", "d", "i", "s")
# Chance that he is available for a match of the gameweek.
TRUE_CHANCE = np.array([1.0, 0.62, 0.34, 0.23, 0.04, 0.0])
# From (row) to (column), after each gameweek. An injury lasts three gameweeks on average and ends with a doubt.
_CHAIN = np.array([
    [0.965, 0.015, 0.005, 0.003, 0.012, 0.0],
    [0.75, 0.15, 0.04, 0.02, 0.04, 0.0],
    [0.55, 0.25, 0.08, 0.05, 0.07, 0.0],
    [0.35, 0.30, 0.12, 0.10, 0.13, 0.0],
    [0.10, 0.12, 0.06, 0.05, 0.67, 0.0],
    [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
])  # fmt: skip
_EDGES = _CHAIN.cumsum(axis=1)


def available(rng: np.random.Generator, health: Any) -> Any:
    """Who of `health[draw, player]` can play this gameweek."""
    return rng.random(health.shape) < TRUE_CHANCE[health]


def after_gameweek(rng: np.random.Generator, health: Any, sent_off: Any) -> Any:
    """Health before the next gameweek; a red card costs that one."""
    drawn = rng.random(health.shape)
    after = (drawn[..., None] >= _EDGES[health]).sum(axis=-1)
    return np.where(sent_off, SUSPENDED, np.minimum(after, INJURED))
