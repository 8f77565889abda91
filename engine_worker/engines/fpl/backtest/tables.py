"""What the walk-forward says by parts: forecasts against outcomes by tenths, chances against shares, errors by position."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine_worker.engines.fpl.backtest.measures import measured
from engine_worker.engines.fpl.backtest.walk import Walked
from engine_worker.engines.fpl.seasons import POSITION_NAMES

_TENTHS = 10
# Half of a 95 % interval, in standard errors.
_NORMAL = 1.96


class Tenth(NamedTuple):
    """A tenth of the forecasts, the lowest first: points expected and scored on average, and half of its 95 % interval.

    The interval is over gameweeks: players of one gameweek share their luck.
    """

    season: str
    forecast: str
    tenth: int
    n: int
    expected: float
    scored: float
    give_or_take: float


class Chances(NamedTuple):
    """Players given a chance of playing from `low` up to `low` + 0.1: the mean chance, and the share that played."""

    season: str
    low: float
    n: int
    chance: float
    played: float
    give_or_take: float


class Error(NamedTuple):
    """How far the forecasts of a position were off."""

    season: str
    position: str
    forecast: str
    n: int
    rmse: float
    mae: float
    bias: float


class Tables(NamedTuple):
    """All of regulars, season by season."""

    tenths: list[Tenth]
    chances: list[Chances]
    errors: list[Error]


def tables_of(seasons: Mapping[str, Walked], forecasts: Sequence[str] = ("engine", "ep_next")) -> Tables:
    """The tables of some seasons; tenths of these forecasts, errors of all."""
    found = Tables([], [], [])
    for season, walked in seasons.items():
        of = walked.part(walked.regular)
        for name in forecasts:
            found.tenths.extend(_tenths(season, name, of.forecast[name], of))
        found.chances.extend(_chances(season, of))
        for position, place in POSITION_NAMES.items():
            of_position = of.part(of.position == position)
            for name, forecast in of_position.forecast.items():
                if len(forecast):
                    m = measured(forecast, of_position.happened)
                    found.errors.append(
                        Error(season, place, name, m.n, round(m.rmse, 3), round(m.mae, 3), round(m.bias, 3))
                    )
    return found


def _tenths(season: str, name: str, forecast: Any, of: Walked) -> list[Tenth]:
    # Equal forecasts keep the order of the rows, so that the same data gives the same table.
    parts = np.array_split(np.argsort(forecast, kind="stable"), _TENTHS)
    return [
        Tenth(season, name, number, len(rows), *_means(forecast[rows], of.happened[rows], of.gameweek[rows]))
        for number, rows in enumerate(parts, start=1)
        if len(rows)
    ]


def _chances(season: str, of: Walked) -> list[Chances]:
    tenth = np.minimum((of.p_play * _TENTHS).astype(int), _TENTHS - 1)
    return [
        Chances(
            season,
            number / _TENTHS,
            int(np.sum(tenth == number)),
            *_means(*(values[tenth == number] for values in (of.p_play, of.played, of.gameweek))),
        )
        for number in range(_TENTHS)
        if np.any(tenth == number)
    ]


def _means(forecast: Any, happened: Any, gameweek: Any) -> tuple[float, float, float]:
    """The error of the mean is that of sums over whole gameweeks (Liang and Zeger 1986), not of players one by one."""
    names, block = np.unique(gameweek, return_inverse=True)
    if len(names) < 2:
        block = np.arange(len(happened))  # of one gameweek nothing is known of how they differ
    off = np.bincount(block, happened - happened.mean())
    correction = len(off) / max(len(off) - 1, 1)
    half = _NORMAL * float(np.sqrt(correction * np.sum(off**2))) / len(happened)
    return round(float(forecast.mean()), 3), round(float(happened.mean()), 3), round(half, 3)
