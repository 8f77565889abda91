"""Writes the tables of the walk-forward as CSV and as drawings. Drawing needs matplotlib, which nothing else does."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine_worker.engines.fpl.backtest.tables import Tables

# Distinguishable in print and by the colour-blind.
_COLOURS = {"engine": "#0072b2", "ep_next": "#d55e00", "form": "#999999", "points_per_game": "#cccccc"}
_GREY = "#777777"
# The same data gives the same bytes; letters stay letters, which any browser draws.
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "phaseline",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write(tables: Tables, folder: Path) -> list[Path]:
    """Writes `tenths`, `chances` and `errors`, each as `.csv` and `.svg`; the files in that order.

    The folder is made if it is missing. Raises `ModuleNotFoundError` without matplotlib, before anything is written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with rc_context(_STYLE):
        for name, rows, draw in (
            ("tenths", tables.tenths, _draw_tenths),
            ("chances", tables.chances, _draw_chances),
            ("errors", tables.errors, _draw_errors),
        ):
            table, picture = folder / f"{name}.csv", folder / f"{name}.svg"
            _write_csv(rows, table)
            seasons = list(dict.fromkeys(row.season for row in rows))
            figure = Figure(figsize=(3.2 * len(seasons), 3.4), layout="constrained")
            for axes, season in zip(
                figure.subplots(1, len(seasons), squeeze=False, sharey=True)[0], seasons, strict=True
            ):
                draw(axes, [row for row in rows if row.season == season])
                axes.set_title(season)
            figure.savefig(picture, format="svg", metadata={"Date": None})
            written += [table, picture]
    return written


def _write_csv(rows: Sequence[NamedTuple], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(rows[0]._fields if rows else ())
        writer.writerows(rows)


def _draw_tenths(axes: Any, rows: Sequence[Any]) -> None:
    axes.axline((0, 0), slope=1, color=_GREY, linewidth=0.8, linestyle="--")
    for forecast in dict.fromkeys(row.forecast for row in rows):
        _draw_means(
            axes, [row for row in rows if row.forecast == forecast], lambda row: (row.expected, row.scored), forecast
        )
    axes.set_xlabel("points expected, tenths of regulars")
    axes.set_ylabel("points scored, mean and 95 %")
    axes.legend(frameon=False)


def _draw_chances(axes: Any, rows: Sequence[Any]) -> None:
    axes.axline((0, 0), slope=1, color=_GREY, linewidth=0.8, linestyle="--")
    _draw_means(axes, rows, lambda row: (row.chance, row.played), "engine")
    for row in rows:
        axes.annotate(
            str(row.n), (row.chance, row.played), xytext=(4, -9), textcoords="offset points", fontsize=6.5, color=_GREY
        )
    axes.set_xlabel("chance of playing, regulars")
    axes.set_ylabel("share that played, and 95 %")


def _draw_means(axes: Any, rows: Sequence[Any], point: Callable[[Any], tuple[float, float]], forecast: str) -> None:
    across, up = zip(*(point(row) for row in rows), strict=True)
    half = [row.give_or_take for row in rows]
    axes.errorbar(
        across, up, yerr=half, color=_COLOURS[forecast], marker="o", markersize=3, linewidth=1, label=forecast
    )


def _draw_errors(axes: Any, rows: Sequence[Any]) -> None:
    places = list(dict.fromkeys(row.position for row in rows))
    forecasts = list(dict.fromkeys(row.forecast for row in rows))
    width = 0.8 / len(forecasts)
    for number, forecast in enumerate(forecasts):
        of = {row.position: row.rmse for row in rows if row.forecast == forecast}
        across = [place + (number - (len(forecasts) - 1) / 2) * width for place in range(len(places))]
        axes.bar(across, [of[place] for place in places], width, color=_COLOURS[forecast], label=forecast)
    axes.set_xticks(range(len(places)), places)
    axes.set_ylabel("RMSE, points of a regular in a gameweek")
    axes.legend(frameon=False, fontsize=7, ncols=2, loc="upper left")
    axes.set_ylim(0, 1.25 * max(row.rmse for row in rows))
