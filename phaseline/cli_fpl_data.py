"""What the commands of the engine `fpl` share: a folder of past seasons, and parameters that do not know the one they forecast."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phaseline.cli_options import Failure

if TYPE_CHECKING:
    from engine_worker.engines.fpl.backtest.fitting import Prepared
    from engine_worker.engines.fpl.backtest.history import PastSeason
    from engine_worker.engines.fpl.fitted import Fitted

data_option = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="PHASELINE_FPL_DATA",
    required=True,
    show_envvar=True,
    help="Folder with seasons/: snapshots before deadlines and what happened; docs/fpl.md has the layout.",
)
season_option = click.option(
    "--season", "wanted", multiple=True, help="Only this season, such as 2023-24; may be repeated."
)


def chosen(data: Path, wanted: tuple[str, ...]) -> "list[PastSeason]":
    """The seasons of a folder, oldest first; only these if any are named."""
    from engine_worker.engines.fpl.backtest.history import NoHistory, past_seasons

    try:
        seasons = past_seasons(data)
    except NoHistory as none:
        raise Failure(str(none)) from none
    names = [season.name for season in seasons]
    if unknown := sorted(set(wanted) - set(names)):
        raise Failure(f"no season {', '.join(unknown)}; there are {', '.join(names)}")
    return [season for season in seasons if not wanted or season.name in wanted]


def prepared(season: "PastSeason") -> "Prepared":
    """A season read, deadline by deadline."""
    from engine_worker.engines.fpl.backtest.fitting import prepare

    return prepare(season, lambda deadline: say(f"{deadline.season} gameweek {deadline.gameweek}"))


def fitted_on(seasons: "Sequence[Prepared]") -> "Fitted":
    """The parameters that suit these seasons."""
    from engine_worker.engines.fpl.backtest.fitting import NoFit, fit

    try:
        return fit(seasons)
    except ModuleNotFoundError as missing:
        raise Failure(f"fitting needs {missing.name}: pip install 'phaseline[backtest]'") from missing
    except NoFit as none:
        raise Failure(str(none)) from none


def fitted_for(ready: "Sequence[Prepared]", name: str) -> "Fitted":
    """Parameters for a season, from those before it; for the first from those after it; of this package for an only one."""
    from engine_worker.engines.fpl.fitted import shipped

    earlier = [season for season in ready if season.season.name < name]
    others = earlier or [season for season in ready if season.season.name != name]
    say(f"{name}: fitting on {', '.join(season.season.name for season in others)}")
    return fitted_on(others) if others else shipped()


def when_fitted(fitted: "Fitted", season: str) -> str:
    """What is to be said of parameters that forecast a season from the wrong side of it; empty when nothing is."""
    if season in fitted.fitted_on:
        return ", a season they were fitted on"
    return ", fitted on later seasons" if min(fitted.fitted_on) > season else ""


def say(text: str) -> None:
    """Where it is, on one line of a terminal; nothing into a pipe."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[2K{text}", nl=False, err=True)
