"""`phaseline demo`: the whole product in one terminal, in under ten seconds, with nothing else running.

Starts gateway and worker in this process, submits an analysis of the shipped synthetic season, shows its phases live,
breaks its own connection half-way and resumes after the last sequence, and prints the decision.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from typing_extensions import override

from engine_worker.engines.fpl.sources import SOURCES_DEFAULT, SOURCES_VARIABLE
from phaseline.cli_options import ERROR, Failure, command, settings_of, styled
from phaseline.client import Client
from phaseline.event_types import Event
from phaseline.screens import Screen, screen_for
from phaseline.settings import Settings
from phaseline.watch import EXIT_BY_STATUS, Watching

# The solver proves its plan within some five seconds; on a slow machine the best found in eight will do.
PARAMS = {"team_id": 1, "time_limit_s": 8}
HALF_WAY = 50.0  # percent
LOG_FILE = "demo.log"
LIMIT_S = 120.0  # a machine that needs longer has a problem worth an error message


def run(data_dir: Path) -> int:
    """Runs the demo; its job stays in `data_dir`. Returns the exit code."""
    os.environ[SOURCES_VARIABLE] = SOURCES_DEFAULT  # whatever league this machine is set up for
    data_dir.mkdir(parents=True, exist_ok=True)
    wanted = {"data_dir": data_dir, "host": "127.0.0.1", "port": 0, "database_url": "", "rabbitmq_url": ""}
    with _chatter_to(data_dir / LOG_FILE):
        return asyncio.run(_demo(settings_of(wanted)))


async def _demo(settings: Settings) -> int:
    from phaseline import compose

    _say("Starting gateway and worker in this process, on SQLite and an in-process bus.")
    async with compose.serving(settings) as url, Client(url) as client:
        job = await client.submit("fpl", PARAMS, tags=["demo"])
        _say(f"Serving at {url}. Submitted job {job['id']}.\n")
        screen = screen_for("table", job)
        watching = _Dropping(client, job["id"], screen, timeout_s=LIMIT_S)
        with screen:
            await watching.to_the_end()
        ended = await client.job(job["id"])
    click.echo()
    screen.end(ended)
    _tell_the_end(watching, settings.data_dir, job["id"])
    return EXIT_BY_STATUS.get(watching.follow.status, ERROR)


class _Dropping(Watching):
    """Watches, and breaks its own connection once, half-way."""

    def __init__(self, client: Client, job_id: str, screen: Screen, *, timeout_s: float) -> None:
        super().__init__(client, job_id, screen, timeout_s=timeout_s)
        self.seen: list[int] = []

    @override
    async def shown(self, event: Event) -> None:
        self.seen.append(event["seq"])
        if not self.drops and event["type"] == "progress" and event["progress"] >= HALF_WAY:
            await self.follow.drop()


@contextlib.contextmanager
def _chatter_to(path: Path) -> Iterator[None]:
    """What engines and libraries write to stderr goes into a file: it would tear the picture apart.

    Child processes inherit the descriptor itself, so that is what moves; ours is kept as `sys.stderr`.
    """
    ours = os.dup(2)
    with path.open("ab") as file, os.fdopen(ours, "w", buffering=1) as kept, contextlib.redirect_stderr(kept):
        os.dup2(file.fileno(), 2)
        logging.basicConfig(level=logging.WARNING, stream=sys.__stderr__)
        try:
            yield
        finally:
            os.dup2(ours, 2)


def _tell_the_end(watching: _Dropping, data_dir: Path, job_id: str) -> None:
    if watching.seen != list(range(1, len(watching.seen) + 1)):
        raise Failure(f"events were lost or repeated: {watching.seen}")
    _say(
        f"\n{len(watching.seen)} events, each exactly once. The connection dropped at seq "
        f"{', '.join(map(str, watching.drops))} and resumed after it."
    )
    _say("Replay the stream, now or later, without a server:")
    click.echo(f"  {command('jobs', 'events', job_id, '--data-dir', str(data_dir))}")
    _say("Keep the server, with this data, for jobs of your own:")
    click.echo(f"  {command('up', '--data-dir', str(data_dir))}")


def _say(text: str) -> None:
    click.echo(styled(text, dim=True))
