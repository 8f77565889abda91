"""`phaseline feed`: every event of every job, by cursor."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from phaseline.cli_options import (
    OK,
    TIMEOUT,
    both,
    closing,
    command,
    exit_with,
    refuse_lonely_timeout,
    talk,
    timeout_option,
    url_option,
)
from phaseline.client_errors import TimedOut

if TYPE_CHECKING:
    from phaseline.client import Client


@click.command(
    epilog=closing(
        "phaseline feed | wc -l                          every event there is",
        "phaseline feed --after now --follow             what happens from here on",
        "phaseline feed --after CURSOR -o jsonl >> copy  what came since",
    )
)
@click.option(
    "--after", "cursor", metavar="CURSOR", help="Go on behind this one; `now` is the end. Default: the start."
)
@click.option("--follow", is_flag=True, help="And then what comes, until Ctrl-C or --timeout.")
@click.option(
    "-o",
    "--output",
    "shape",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="table for people; jsonl: one event a line.",
)
@both(timeout_option, url_option)
def feed(cursor: str | None, follow: bool, shape: str, timeout_s: float | None, url: str) -> None:
    """Shows every event of every job. Those of one job come in their order, those of different jobs in any.

    What it says last, on stderr, is how to go on behind what was shown. Goes on across broken connections and restarts.
    """
    refuse_lonely_timeout(follow=follow, timeout_s=timeout_s)
    from phaseline.watched import line

    async def work(client: "Client") -> int:
        await client.stats()  # a server that was never there is told at once, not waited for
        feed = client.feed(cursor, follow=follow, timeout_s=timeout_s)
        try:
            async for event in feed:
                click.echo(_compact(event) if shape == "jsonl" else f"{event['job_id']} {line(event)}")
        except TimedOut:
            return TIMEOUT
        finally:
            if feed.cursor is not None:
                click.echo(f"Go on with: {command('feed', '--after', feed.cursor, url=url)}", err=True)
        return OK

    exit_with(talk(url, work))


def _compact(event: Mapping[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))
