"""The walk-forward: at each past deadline the projections of the engine, and what the API itself said, against what happened."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine_worker.engines.fpl.backtest.fitting import Prepared
from engine_worker.engines.fpl.backtest.history import REGULAR_MINUTES, Deadline, PastSeason
from engine_worker.engines.fpl.backtest.measures import Gain, Measures, brier, coverage, gain, measured
from engine_worker.engines.fpl.collecting import Collected
from engine_worker.engines.fpl.fitted import Calibration, Fitted
from engine_worker.engines.fpl.projections import project
from engine_worker.engines.fpl.seasons import POSITION_NAMES

# A page this many days old at the deadline knows little of who is injured.
FRESH_DAYS = 3
FORECASTS = ("engine", "ep_next", "form", "points_per_game")


@dataclass(frozen=True)
class Walked:
    """Rows of all deadlines as arrays; `gameweek` numbers deadlines over all seasons, `forecast` has one array each.

    `early` is how many days before its deadline a row was shown.
    """

    gameweek: Any
    early: Any
    position: Any
    regular: Any
    happened: Any
    played: Any
    p_play: Any
    p10: Any
    p90: Any
    forecast: dict[str, Any]

    def part(self, rows: Any) -> "Walked":
        """Only these rows, given as a mask."""
        fields = {name: getattr(self, name)[rows] for name in self.__dataclass_fields__ if name != "forecast"}
        return Walked(**fields, forecast={name: values[rows] for name, values in self.forecast.items()})


@dataclass(frozen=True)
class Judged:
    """One pool of players: measures by forecast, the gain over `ep_next`, chances and percentiles of the engine."""

    deadlines: int
    measures: dict[str, Measures]
    gain: Gain
    brier_play: float
    below: float
    within: float
    above: float


def walk(prepared: Prepared, fitted: Fitted, number: int = 0) -> Walked:
    """All deadlines of a season, forecast with these parameters; gameweeks are numbered from `number`."""
    rows: list[tuple[float, ...]] = []
    for place, (deadline, collected) in enumerate(prepared.grounds):
        rows += _rows(number + place, prepared.season, deadline, collected, fitted)
    columns = np.array(rows).T
    names = ("gameweek", "early", "position", "regular", "happened", "played", "p_play", "p10", "p90")
    fixed = dict(zip(names, columns[: len(names)], strict=True))
    fixed["regular"] = fixed["regular"] > 0
    return Walked(**fixed, forecast=dict(zip(FORECASTS, columns[len(names) :], strict=True)))


def joined(parts: Sequence[Walked]) -> Walked:
    """Seasons together."""
    fields = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in Walked.__dataclass_fields__
        if name != "forecast"
    }
    forecast = {name: np.concatenate([part.forecast[name] for part in parts]) for name in FORECASTS}
    return Walked(**fields, forecast=forecast)


def calibration(seasons: Sequence[str], walked: Walked) -> Calibration:
    """How forecasts of regulars did, for a decision to show."""
    of = judged(walked.part(walked.regular))
    engine = of.measures["engine"]
    return Calibration(
        seasons=list(seasons),
        n=engine.n,
        rmse=round(engine.rmse, 3),
        rmse_ep_next=round(of.measures["ep_next"].rmse, 3),
        bias=round(engine.bias, 3),
        slope=round(engine.slope, 3),
        coverage=round(of.within, 3),
        brier_play=round(of.brier_play, 4),
    )


def judged(walked: Walked) -> Judged:
    """The measures of some rows."""
    below, within, above = coverage(walked.p10, walked.p90, walked.happened)
    return Judged(
        deadlines=len(np.unique(walked.gameweek)),
        measures={name: measured(values, walked.happened) for name, values in walked.forecast.items()},
        gain=gain(walked.forecast["engine"], walked.forecast["ep_next"], walked.happened, walked.gameweek),
        brier_play=brier(walked.p_play, walked.played),
        below=below,
        within=within,
        above=above,
    )


def pools(walked: Walked) -> dict[str, Walked]:
    """All players, the regulars, those whose page was fresh at the deadline, and the regulars of each position, if any."""
    regular = walked.regular
    rows = {"regulars": regular, f"regulars shown within {FRESH_DAYS} days": regular & (walked.early <= FRESH_DAYS)}
    rows |= {f"regulars, {name}": regular & (walked.position == place) for place, name in POSITION_NAMES.items()}
    return {"all": walked} | {name: walked.part(chosen) for name, chosen in rows.items() if np.any(chosen)}


def _rows(
    number: int, season: PastSeason, deadline: Deadline, collected: Collected, fitted: Fitted
) -> list[tuple[float, ...]]:
    """A row for each player who could be bought; one without a match scores nothing."""
    lately = season.minutes_lately(deadline.gameweek)
    elements = {element["id"]: element for element in deadline.bootstrap["elements"]}
    projected = {row.element: row for row in project(collected, fitted).rows}
    rows = []
    for player in collected.players:
        said, row = elements[player.element], projected[player.element]
        outcome = season.outcomes.get((player.element, deadline.gameweek))
        points, minutes = (outcome.points, outcome.minutes) if outcome else (0, 0)
        regular = lately.get(player.element, 0) >= REGULAR_MINUTES and player.status in ("a", "d")
        chance = 1 - (1 - row.p_play) ** row.fixtures
        official = [float(said[name] or 0) for name in FORECASTS[1:]]
        rows.append(
            (
                number,
                deadline.early_days,
                player.position,
                regular,
                points,
                minutes > 0,
                chance,
                row.p10,
                row.p90,
                row.xp,
                *official,
            ),
        )
    return rows
