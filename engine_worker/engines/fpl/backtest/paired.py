"""How sure one strategy is ahead of another: differences between windows of the same squad, with their interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine_worker.engines.fpl.backtest.replays import Replayed, by_stretch

OURS = "engine"
_RESAMPLES = 10_000
_SEED = 20_260_801


@dataclass(frozen=True)
class Made:
    """A strategy by itself, each a mean over windows; `unproven` counts plans without a proof in all of them."""

    points: float
    hit_points: float
    transfers: float
    unproven: int


@dataclass(frozen=True)
class Ahead:
    """Points a window of ours less a baseline's: the mean, its 95 % interval, and the share of windows won (ties half).

    Whole stretches are drawn again, since the squads of one share its luck: ten squads do not make one month ten.
    """

    mean: float
    low: float
    high: float
    won: float
    windows: int
    stretches: int


def made(replayed: Sequence[Replayed], strategy: str) -> Made:
    """What a strategy came to. There is at least one window."""
    ways = [one.ways[strategy] for one in replayed]
    return Made(
        points=float(np.mean([sum(way.points) for way in ways])),
        hit_points=float(np.mean([way.hit_points for way in ways])),
        transfers=float(np.mean([way.transfers for way in ways])),
        unproven=sum(way.unproven for way in ways),
    )


def ahead(replayed: Sequence[Replayed], baseline: str) -> Ahead:
    """How far ours is ahead of `baseline`. There is at least one window."""
    stretches = [
        np.array([one.total(OURS) - one.total(baseline) for one in group], dtype=float)
        for group in by_stretch(replayed).values()
    ]
    size, total = np.array([len(one) for one in stretches]), np.array([one.sum() for one in stretches])
    drawn = np.random.default_rng(_SEED).integers(0, len(size), (_RESAMPLES, len(size)))
    means = total[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    every = np.concatenate(stretches)
    return Ahead(
        mean=float(every.mean()),
        low=float(low),
        high=float(high),
        won=float(np.mean((every > 0) + 0.5 * (every == 0))),
        windows=len(every),
        stretches=len(stretches),
    )
