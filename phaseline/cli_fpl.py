"""Commands of the engine `fpl` that need no server: how good its projections have been, and what it decides on."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phaseline.cli_fpl_data import chosen, data_option, fitted_for, fitted_on, prepared, say, season_option, when_fitted
from phaseline.cli_fpl_replay import replay
from phaseline.cli_fpl_snapshot import snapshot
from phaseline.cli_options import Failure, Shape, shape_option

if TYPE_CHECKING:
    from engine_worker.engines.fpl.backtest.walk import Judged, Walked
    from engine_worker.engines.fpl.fitted import Fitted

# Gameweeks of different seasons get different numbers.
_GAMEWEEKS_APART = 100


@click.group()
def fpl() -> None:
    """Looks into the Fantasy Premier League engine."""


@fpl.command(epilog="\b\nExample:\n  phaseline fpl backtest --data ~/fpl --season 2022-23 --season 2023-24\n")
@data_option
@season_option
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for tables (CSV) and drawings (SVG) of calibration and of errors by position (needs matplotlib).",
)
@shape_option
def backtest(data: Path, wanted: tuple[str, ...], plots: Path | None, shape: Shape) -> None:
    """Walks past seasons deadline by deadline: the projections against what happened, beside the API's own.

    Each forecast knows only what the API showed before its deadline, and its parameters are fitted on the seasons of the
    folder before its own (needs scikit-learn), for the first season on those after it. The parameters of this package are
    used for an only season.
    """
    from engine_worker.engines.fpl.backtest.walk import judged, pools, walk

    names = [season.name for season in chosen(data, wanted)]
    ready = [prepared(season) for season in chosen(data, ())]
    found: dict[str, tuple[Fitted, dict[str, Judged]]] = {}
    walks: dict[str, Walked] = {}
    for season in ready:
        if season.season.name in names:
            fitted = fitted_for(ready, season.season.name)
            walked = walks[season.season.name] = walk(season, fitted)
            found[season.season.name] = fitted, {name: judged(part) for name, part in pools(walked).items()}
    say("")
    if plots is not None:
        _draw(walks, plots)
    if shape == "table":
        for name, (fitted, of_pools) in found.items():
            _print_table(name, of_pools)
            click.echo(f"parameters {fitted.version}{when_fitted(fitted, name)}")
        return
    documents = [
        {"season": name, "parameters": fitted.version, "fitted_on": fitted.fitted_on, **_plain(pool, of)}
        for name, (fitted, of_pools) in found.items()
        for pool, of in of_pools.items()
    ]
    click.echo(json.dumps(documents, indent=2) if shape == "json" else "\n".join(json.dumps(one) for one in documents))


fpl.add_command(replay)
fpl.add_command(snapshot)


@fpl.command(epilog="\b\nExample:\n  phaseline fpl fit --data ~/fpl --output fitted.json\n")
@data_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write them; by default into this package, for a checkout.",
)
def fit(data: Path, output: Path | None) -> None:
    """Fits the parameters of the projections on all seasons of a folder and writes them as JSON (needs scikit-learn).

    Their calibration is that of every season but the first, each forecast with parameters of the seasons before it.
    """
    from engine_worker.engines.fpl import fitted as package
    from engine_worker.engines.fpl.backtest.walk import calibration, joined, walk

    file = output or Path(package.__file__).with_name(package.FILE)
    if not os.access(file.parent, os.W_OK):
        raise Failure(f"{file.parent} is no folder to write to; nothing was fitted")
    ready = [prepared(season) for season in chosen(data, ())]
    walked = []
    for number, season in enumerate(ready[1:], start=1):
        say(f"{season.season.name} by the seasons before it")
        walked.append(walk(season, fitted_on(ready[:number]), number * _GAMEWEEKS_APART))
    say("all seasons")
    found = fitted_on(ready)
    if walked:
        names = [season.season.name for season in ready[1:]]
        found = found.model_copy(update={"calibration": calibration(names, joined(walked))})
    say("")
    file.write_text(package.written(found), encoding="utf-8")
    click.echo(f"{file}: parameters {found.version}")


def _draw(walks: "dict[str, Walked]", folder: Path) -> None:
    from engine_worker.engines.fpl.backtest.plots import write
    from engine_worker.engines.fpl.backtest.tables import tables_of

    try:
        written = write(tables_of(walks), folder)
    except ModuleNotFoundError as missing:
        raise Failure(f"drawing needs {missing.name}: pip install 'phaseline[backtest]'") from missing
    click.echo(f"written: {', '.join(map(str, written))}", err=True)


def _print_table(season: str, of_pools: "dict[str, Judged]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{season}, points of a player in a gameweek", title_justify="left")
    for heading in ("players", "n", "forecast", "RMSE", "MAE", "bias", "slope", "corr."):
        table.add_column(heading, justify="left" if heading in ("players", "forecast") else "right")
    console = Console(width=None if sys.stdout.isatty() else 100)
    for pool, of in of_pools.items():
        for number, (forecast, m) in enumerate(of.measures.items()):
            table.add_row(
                pool if number == 0 else "", str(m.n) if number == 0 else "", forecast, f"{m.rmse:.3f}", f"{m.mae:.3f}",
                f"{m.bias:+.3f}", f"{m.slope:.3f}", f"{m.correlation:.3f}", end_section=number == len(of.measures) - 1,
            )  # fmt: skip
    console.print(table)
    for pool, of in of_pools.items():
        console.print(
            f"{pool}: RMSE {of.gain.rmse:.3f} below ep_next (95 % {of.gain.low:.3f} to {of.gain.high:.3f}, "
            f"{of.deadlines} gameweeks); P10–P90 held {of.within:.1%}, {of.below:.1%} fell below, {of.above:.1%} above; "
            f"Brier of P(play) {of.brier_play:.4f}",
            highlight=False,
        )


def _plain(pool: str, of: "Judged") -> dict[str, Any]:
    from dataclasses import asdict

    return {"players": pool, **asdict(of)}
