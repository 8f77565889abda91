"""How good a forecast was: errors, calibration, and how sure a difference is."""

from dataclasses import dataclass
from typing import Any

import numpy as np

_RESAMPLES = 2000
_SEED = 20_260_801


@dataclass(frozen=True)
class Measures:
    """Of `n` forecasts of a gameweek's points. `slope` is that of what happened on the forecast: 1 is calibrated."""

    n: int
    rmse: float
    mae: float
    bias: float
    slope: float
    correlation: float


@dataclass(frozen=True)
class Gain:
    """RMSE of a baseline less that of the forecast, with its 95 % interval over resampled gameweeks."""

    rmse: float
    low: float
    high: float


def measured(forecast: Any, happened: Any) -> Measures:
    """The measures of arrays of the same length."""
    error = forecast - happened
    spread = np.var(forecast)
    covariance = np.mean((forecast - forecast.mean()) * (happened - happened.mean()))
    return Measures(
        n=len(forecast),
        rmse=float(np.sqrt(np.mean(error**2))),
        mae=float(np.mean(np.abs(error))),
        bias=float(error.mean()),
        slope=float(covariance / spread) if spread else 0.0,
        correlation=float(np.corrcoef(forecast, happened)[0, 1]) if spread else 0.0,
    )


def gain(forecast: Any, baseline: Any, happened: Any, blocks: Any) -> Gain:
    """`blocks` names the gameweek of each row: whole gameweeks are resampled, since their rows share their luck."""
    _, block = np.unique(blocks, return_inverse=True)
    size = np.bincount(block).astype(float)
    ours, theirs = (np.bincount(block, (guess - happened) ** 2) for guess in (forecast, baseline))
    drawn = np.random.default_rng(_SEED).integers(0, len(size), (_RESAMPLES, len(size)))
    rows = size[drawn].sum(axis=1)
    gains = np.sqrt(theirs[drawn].sum(axis=1) / rows) - np.sqrt(ours[drawn].sum(axis=1) / rows)
    low, high = np.quantile(gains, (0.025, 0.975))
    total = size.sum()
    return Gain(float(np.sqrt(theirs.sum() / total) - np.sqrt(ours.sum() / total)), float(low), float(high))


def brier(chance: Any, came: Any) -> float:
    """Mean squared error of chances between 0 and 1."""
    return float(np.mean((chance - came) ** 2))


def coverage(low: Any, high: Any, happened: Any) -> tuple[float, float, float]:
    """Shares below, within and above the bounds, both of which count as within."""
    return (
        float(np.mean(happened < low)),
        float(np.mean((happened >= low) & (happened <= high))),
        float(np.mean(happened > high)),
    )
