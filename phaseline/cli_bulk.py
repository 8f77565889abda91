"""`phaseline jobs bulk`: cancels, retries or reruns every job a query finds, after its count was seen."""

import asyncio
import sys
from typing import Any

import click

from phaseline.cli_options import QUERY_HELP, Failure, Shape, api_key, closing, server_options, show
from phaseline.plain import plain

_ACTIONS = ("cancel", "retry", "rerun")


@click.command(
    epilog=QUERY_HELP
    + "\n"
    + closing(
        "phaseline jobs bulk cancel tag:nightly status:queued",
        "phaseline jobs bulk retry status:failed engine:fpl created_after:1h --yes",
        "phaseline jobs bulk rerun tag:weekly status:completed --from-phase evaluating --yes -o jsonl",
    )
)
@click.argument("action", type=click.Choice(_ACTIONS))
@click.argument("query", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask: for scripts.")
@click.option("--reason", help="Recorded in the jobs' streams (cancel, retry).")
@click.option("--grace", "grace_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Killed after (cancel).")
@click.option("--from-phase", help="Reuse what was recorded before this phase (rerun).")
@server_options
def bulk(action: Any, query: tuple[str, ...], yes: bool, shape: Shape, url: str, **how: Any) -> None:
    """Does ACTION to every job QUERY finds and the action can take. Says how many that is and asks.

    Exactly the jobs counted are touched, none that was made meanwhile. Printed are the ids of those changed, for a rerun
    of the new ones.
    """
    if not (yes or sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked: look with `phaseline jobs list`, then add --yes")

    from phaseline.client import Client

    # In one loop, but asked between its runs: inside one, Ctrl-C would wait for the answer.
    with asyncio.Runner() as runner:
        client = Client(url, token=api_key())
        try:
            counted = runner.run(client.bulk(action, " ".join(query), **how))
            click.echo(f"{counted.count} jobs to {action}", err=True)
            if counted.count and not yes and not click.confirm(f"{action.capitalize()} them?", err=True):
                raise Failure("nothing was changed")
            jobs, refused = runner.run(counted.do())
        finally:
            runner.run(client.close())
    done = {"action": action, "count": counted.count, "jobs": jobs, "refused": refused}
    for refusal in refused:
        click.echo(plain(f"left as it is: {refusal['job_id']}: {refusal['detail']}"), err=True)
    show(shape, done, lambda _: click.echo("".join(f"{job_id}\n" for job_id in jobs), nl=False))
