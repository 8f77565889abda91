"""`phaseline fpl replay`: past seasons played again from random squads."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phaseline.cli_fpl_data import chosen, data_option, fitted_for, prepared, say, season_option, when_fitted
from phaseline.cli_options import Failure, Shape, shape_option

if TYPE_CHECKING:
    from engine_worker.engines.fpl.backtest.fitting import Prepared
    from engine_worker.engines.fpl.backtest.replays import Design, Replayed
    from engine_worker.engines.fpl.fitted import Fitted

_JOURNAL = Path(".data/phaseline/fpl/replays.jsonl")


@click.command(epilog="\b\nExample:\n  phaseline fpl replay --data ~/fpl --season 2023-24 --windows 50\n")
@data_option
@season_option
@click.option(
    "--windows",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    help="At least so many squads a season, in equal parts over its stretches.",
)
@click.option("--weeks", type=click.IntRange(1, 37), default=6, show_default=True, help="Gameweeks of a window.")
@click.option(
    "--horizon", type=click.IntRange(1, 8), default=3, show_default=True, help="Gameweeks a plan looks ahead."
)
@click.option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Solvers at once.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_JOURNAL,
    show_default=True,
    help="Where finished windows are kept: a run that was stopped goes on from them.",
)
@shape_option
def replay(
    data: Path,
    wanted: tuple[str, ...],
    windows: int,
    weeks: int,
    horizon: int,
    processes: int,
    journal: Path,
    shape: Shape,
) -> None:
    """Plays past seasons again from random legal squads: this engine against holding, form and the API's own forecasts.

    Every strategy starts from the same squads and is scored by what happened, with the game's own substitutions. Forecasts
    know what `fpl backtest` lets them know. No chips. Differences come with 95 % intervals over stretches of the season.
    """
    from engine_worker.engines.fpl.backtest.replays import Design

    design = Design(windows, weeks, horizon)
    names = [season.name for season in chosen(data, wanted)]
    ready = [prepared(season) for season in chosen(data, ())]
    found: dict[str, tuple[Fitted, list[Replayed]]] = {}
    for season in ready:
        if (name := season.season.name) in names:
            fitted = fitted_for(ready, name)
            found[name] = fitted, _replayed(season, fitted, design, processes, journal)
    say("")
    if shape == "table":
        _print_tables(found, design)
        return
    documents = [*_documents(found, design)]
    click.echo(json.dumps(documents, indent=2) if shape == "json" else "\n".join(json.dumps(one) for one in documents))


def _replayed(
    season: "Prepared", fitted: "Fitted", design: "Design", processes: int, journal: Path
) -> "list[Replayed]":
    """All windows of a season, those in the journal not played again."""
    from engine_worker.engines.fpl import VERSION
    from engine_worker.engines.fpl.backtest.replays import Journal, named, replay_all, windows_of
    from engine_worker.engines.fpl.backtest.scenes import scene_of

    name = season.season.name
    scenes = []
    for deadline, _ in season.grounds:
        say(f"{name} gameweek {deadline.gameweek}: forecasts")
        scenes.append(scene_of(season.season, deadline, fitted, design.horizon))
    book = Journal(journal, named(design, fitted.version, VERSION))
    wanted = windows_of(scenes, design)
    if not wanted:
        raise Failure(f"{name} has {len(scenes)} deadlines, a window asks for {design.weeks}")
    done = {window: replayed for window, replayed in book.read().items() if window in set(wanted)}
    todo, began, used_s = [window for window in wanted if window not in done], time.monotonic(), _processor_s()
    for count, replayed in enumerate(replay_all(scenes, todo, design, processes), start=1):
        book.add(replayed)
        done[replayed.window] = replayed
        left_s = (time.monotonic() - began) / count * (len(todo) - count)
        say(f"{name}: {len(done)} of {len(wanted)} windows, {left_s / 60:.0f} min of this season left")
    if todo:
        each_s = (_processor_s() - used_s) / len(todo)
        say("")
        click.echo(
            f"{name}: {len(todo)} windows took {each_s:.2f} s of processor each; at that all {len(wanted)} take "
            f"{each_s * len(wanted) / processes / 60:.1f} min on {processes} processors",
            err=True,
        )
    return [done[window] for window in wanted]


def _processor_s() -> float:
    """Used so far by this process and by its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _print_tables(found: "Mapping[str, tuple[Fitted, list[Replayed]]]", design: "Design") -> None:
    from rich.console import Console
    from rich.table import Table

    from engine_worker.engines.fpl.backtest.paired import OURS, ahead, made
    from engine_worker.engines.fpl.backtest.strategies import STRATEGIES

    parts = {name: replayed for name, (_, replayed) in found.items()}
    if len(parts) > 1:
        parts["all"] = [one for replayed in parts.values() for one in replayed]
    table = Table(title=f"Points in {design.weeks} gameweeks, plans over {design.horizon}", title_justify="left")
    for heading in (
        "season",
        "windows",
        "strategy",
        "points",
        "on hits",
        "transfers",
        "no proof",
        "engine ahead",
        "95 %",
        "won",
    ):
        table.add_column(heading, justify="left" if heading in ("season", "strategy") else "right")
    for part, replayed in parts.items():
        for number, strategy in enumerate(STRATEGIES):
            alone = made(replayed, strategy)
            row = [part, str(len(replayed))] if number == 0 else ["", ""]
            row += [
                strategy,
                f"{alone.points:.1f}",
                f"{alone.hit_points:.1f}",
                f"{alone.transfers:.1f}",
                str(alone.unproven),
            ]
            if strategy != OURS:
                lead = ahead(replayed, strategy)
                row += [f"{lead.mean:+.1f}", f"{lead.low:+.1f} to {lead.high:+.1f}", f"{lead.won:.0%}"]
            table.add_row(*row, end_section=number == len(STRATEGIES) - 1)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for name, (fitted, _) in found.items():
        click.echo(f"{name}: parameters {fitted.version}{when_fitted(fitted, name)}")


def _documents(found: "Mapping[str, tuple[Fitted, list[Replayed]]]", design: "Design") -> list[dict[str, Any]]:
    from engine_worker.engines.fpl.backtest.paired import OURS, ahead, made
    from engine_worker.engines.fpl.backtest.strategies import STRATEGIES

    parts = {name: (fitted.version, replayed) for name, (fitted, replayed) in found.items()}
    if len(parts) > 1:
        parts["all"] = "", [one for _, replayed in found.values() for one in replayed]
    return [
        {
            "season": part,
            "parameters": version,
            **asdict(design),
            "strategy": strategy,
            **asdict(made(replayed, strategy)),
            "engine_ahead": None if strategy == OURS else asdict(ahead(replayed, strategy)),
        }
        for part, (version, replayed) in parts.items()
        for strategy in STRATEGIES
    ]
