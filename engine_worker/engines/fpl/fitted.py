"""The fitted parameters of the projections: a small file shipped with the package, written by `phaseline fpl fit`.

A version names the seasons they were fitted on and a digest of their values, so a decision says what it rests on.
"""

import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeAliasType

FILE = "parameters.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# A leaf, which says how much it adds; or a split: the place of a feature, the most it may be to go on with the first part.
Node = TypeAliasType("Node", "float | tuple[int, float, Node, Node]")


class Chance(_Frozen):
    """The log-odds are the mean of a logistic model, `intercept` plus the weighted features, and of boosted trees.

    What each of the `trees` says is added to `base`; they count the features in the order of `names`.
    """

    intercept: float
    weights: dict[str, float]
    base: float
    trees: list[Node]

    @property
    def names(self) -> list[str]:
        """The features of `features.py`, in order."""
        return list(self.weights)


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

    `stay` is the share of those of each group of `staying.py` who played again; in the seasons fitted on.
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
    stay: dict[int, float]
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


def written(fitted: Fitted) -> str:
    """The text of its file: a value a line, and a tree a line."""
    return _lines(fitted.model_dump(mode="json"), "\n") + "\n"


def _lines(value: Any, margin: str) -> str:
    inner = margin + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_lines(one, inner)}" for key, one in value.items()]
        return "{" + inner + ("," + inner).join(parts) + margin + "}"
    if isinstance(value, list) and any(isinstance(one, list) for one in value):
        return "[" + inner + ("," + inner).join(json.dumps(one, separators=(",", ":")) for one in value) + margin + "]"
    return json.dumps(value, ensure_ascii=False)


@cache
def shipped() -> Fitted:
    """The parameters of this package."""
    return Fitted.model_validate_json(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
