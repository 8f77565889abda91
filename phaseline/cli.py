"""The command `phaseline`: what runs servers here, what talks to them in `cli_jobs.py`."""

import importlib
from pathlib import Path

import click
from typing_extensions import override

from phaseline.cli_options import EXIT_CODES, FrontDoor, closing, exit_with

EPILOG = f"""\b
Examples:
  phaseline demo                                  see it work, with nothing else running
  phaseline up                                    everything in one process
  phaseline submit countdown -p steps=50 --follow
  phaseline follow JOB_ID --after 7               go on where you left off
  phaseline jobs list status:failed engine:fpl
  phaseline feed --follow -o jsonl                every event of every job
  eval "$(phaseline completion bash)"             complete commands with Tab

{EXIT_CODES}"""


# Which module has which commands. It is loaded when one of them is asked for: a server does without what talks to one.
MODULES = {
    "cli_server": ("up", "gateway", "worker", "db", "verify", "doctor"),
    "cli_keys": ("keys",),
    "cli_webhooks": ("webhooks",),
    "cli_retention": ("retention",),
    "cli_audit": ("audit",),
    "cli_watch": ("submit", "follow"),
    "cli_jobs": ("jobs",),
    "cli_schedules": ("schedules",),
    "cli_feed": ("feed",),
    "cli_fleet": ("engines", "workers", "stats"),
    "cli_fpl": ("fpl",),
    "cli_completion": ("completion",),
}
_MODULE_OF = {name: module for module, names in MODULES.items() for name in names}


class Commands(FrontDoor):
    """All commands, each loaded when it is asked for."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_MODULE_OF})

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _MODULE_OF and cmd_name not in self.commands:
            module = importlib.import_module(f"phaseline.{_MODULE_OF[cmd_name]}")
            self.add_command(getattr(module, cmd_name))
        return super().get_command(ctx, cmd_name)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="phaseline")
def cli() -> None:
    """Runs long jobs in named phases and lets anyone watch them, from any point, at any time."""


@cli.command(epilog=closing("phaseline demo", "phaseline demo --data-dir /tmp/demo"))
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".data/demo",
    show_default=True,
    help="Where the demo keeps its job, so that the stream can be replayed later.",
)
def demo(data_dir: Path) -> None:
    """Runs a Fantasy Premier League analysis here and shows it live, a broken connection included.

    Needs no server and no network: the season is synthetic and shipped with Phaseline.
    """
    from phaseline.demo import run

    exit_with(run(data_dir))


def main() -> None:
    """Entry point of the command."""
    cli(prog_name="phaseline")
