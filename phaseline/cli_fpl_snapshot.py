"""`phaseline fpl snapshot`: what decisions are made from, saved as a folder."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from phaseline.cli_options import Failure

if TYPE_CHECKING:
    from engine_worker.engines.fpl.source import Source


@click.command(
    epilog="\b\nExamples:\n"
    "  phaseline fpl snapshot --entry 7 --out ~/fpl/gw12\n"
    "  PHASELINE_FPL_SOURCES=live phaseline fpl snapshot --source live --entry 4711 --out ~/fpl/gw12\n"
    "  PHASELINE_FPL_SOURCES=gw12=directory:$HOME/fpl/gw12 phaseline up\n"
)
@click.option(
    "--source",
    "name",
    help="A source PHASELINE_FPL_SOURCES names (default: its first), or a folder of saved responses.",
)
@click.option(
    "--entry",
    "entries",
    multiple=True,
    type=click.IntRange(1, 20_000_000),
    help="A manager whose squad, transfers and chips are saved too; may be repeated.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to make. An earlier snapshot there is replaced when the new one is complete, and stays if it is not.",
)
def snapshot(name: str | None, entries: tuple[int, ...], out: Path) -> None:
    """Saves what decisions are made from, with a manifest and SHA-256 of each page, as a folder.

    The source `directory` reads it, so a decision can be made again on the same ground, on any machine, without a network.
    """
    from engine_worker.engines.fpl.entries import NoSquadYet
    from engine_worker.engines.fpl.saving import NotASnapshot, save
    from engine_worker.engines.fpl.seasons import UnknownSeason
    from engine_worker.engines.fpl.source import BrokenSource, NotThere

    source = _source(name)
    try:
        saved = save(source, entries, out.expanduser().resolve())
    except NotThere as missing:
        raise Failure(f"this source has no {missing}; nothing was written") from missing
    except (BrokenSource, NoSquadYet, UnknownSeason) as problem:
        raise Failure(f"{problem}; nothing was written") from problem
    except KeyError as stranger:
        raise Failure(
            f"an entry owns player {stranger}, whom this source does not have; nothing was written"
        ) from stranger
    except (NotASnapshot, OSError) as problem:
        raise Failure(str(problem)) from problem
    click.echo(f"{out}: {len(saved.paths)} pages of {saved.taken_at}, SHA-256 {saved.sha256}")


def _source(name: str | None) -> "Source":
    from engine_worker.engines.fpl.source_directory import DirectorySource
    from engine_worker.engines.fpl.sources import UnknownSource, configured, source_named

    try:
        if name is not None and name not in configured() and Path(name).is_dir():
            return DirectorySource(Path(name))
        return source_named(name)
    except (UnknownSource, ValueError) as problem:
        raise Failure(str(problem)) from problem
