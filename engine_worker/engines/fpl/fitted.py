"""The fitted parameters of the projections: a small file shipped with the package, written by `phaseline fpl fit`.

A version names the seasons they were fitted on and a digest of their values, so a decision says what it rests on.
"""

import hashlib
import json
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict

FILE = "parameters.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Chance(_Frozen):
    """A logistic model: the log-odds are `intercept` plus the weighted features of `playing.py`."""

    intercept: float
    weights: dict[str, float]


class Rates(_Frozen):
    """A component per 90 minutes, of one position: `base + by_price × £m above the cheapest + by_own × own rate + by_index × own index rate`.

    Own rates are drawn by `prior_nineties` matches to `prior_own` and `prior_index`, the position's means.
    """

    prior_nineties: float
    prior_own: float
    prior_index: float
    base: float
    by_price: float
    by_own: float
    by_index: float


class Line(_Frozen):
    """Points beyond those for appearing: `level` whenever he plays plus `slope` times the sum of the components."""

    level: float
    slope: float


class Calibration(_Frozen):
    """How forecasts of regulars did in seasons later than those their parameters were fitted on, all together.

    `slope` is that of what happened on the forecast; `coverage` the share of outcomes from P10 to P90.
    """

    seasons: list[str]
    n: int
    rmse: float
    rmse_ep_next: float
    bias: float
    slope: float
    coverage: float
    brier_play: float


class Fitted(_Frozen):
    """Everything that is fitted. Mappings by position are keyed 1–4; minutes are of those who play.

    `half_life_days` and `prior_matches` are of the goal ratings. `club_pull` is how far chances of playing are moved to
    add up, over a club, to the number of players it has been fielding: 0 not at all, 1 wholly.
    `shape` is that of the spread of points, its base and its growth with the mean; `lost` the chance that a point is taken.
    """

    version: str
    fitted_on: list[str]
    half_life_days: float
    prior_matches: float
    plays: Chance
    an_hour: Chance
    club_pull: float
    minutes_long: dict[int, float]
    minutes_short: dict[int, float]
    rates: dict[str, dict[int, Rates]]
    line: dict[int, Line]
    shape: tuple[float, float]
    lost: dict[int, float]
    calibration: Calibration | None = None


def versioned(fitted: Fitted) -> Fitted:
    """The same with the version its values give it."""
    plain = fitted.model_dump(mode="json", exclude={"version", "calibration"})
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
    return fitted.model_copy(update={"version": f"{fitted.fitted_on[0]}…{fitted.fitted_on[-1]}.{digest}"})


@cache
def shipped() -> Fitted:
    """The parameters of this package."""
    return Fitted.model_validate_json(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
