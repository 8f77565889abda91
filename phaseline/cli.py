"""The command `phaseline`: what runs servers here, what talks to them in `cli_jobs.py`."""

from pathlib import Path

import click

from phaseline.cli_audit import audit
from phaseline.cli_completion import completion
from phaseline.cli_feed import feed
from phaseline.cli_fleet import engines, stats, workers
from phaseline.cli_fpl import fpl
from phaseline.cli_jobs import jobs
from phaseline.cli_keys import keys
from phaseline.cli_options import EXIT_CODES, FrontDoor, closing, exit_with
from phaseline.cli_retention import retention
from phaseline.cli_schedules import schedules
from phaseline.cli_server import db, doctor, gateway, up, verify, worker
from phaseline.cli_watch import follow, submit
from phaseline.cli_webhooks import webhooks

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


@click.group(cls=FrontDoor, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
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


for command in (
    up,
    gateway,
    worker,
    db,
    keys,
    webhooks,
    retention,
    verify,
    audit,
    doctor,
    submit,
    follow,
    jobs,
    schedules,
    feed,
    engines,
    workers,
    stats,
    fpl,
    completion,
):
    cli.add_command(command)


def main() -> None:
    """Entry point of the command."""
    cli(prog_name="phaseline")
