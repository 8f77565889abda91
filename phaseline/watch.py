"""Follows a job on a screen, tells of every broken connection, and turns the end into an exit code."""

import asyncio
from collections.abc import Callable
from typing import Any

import click

from phaseline.cli_options import CANCELLED, DEFAULT_URL, ERROR, FAILED, OK, TIMEOUT, Shape, command
from phaseline.client import Client
from phaseline.client_errors import TimedOut
from phaseline.event_types import Event
from phaseline.follow import Follow
from phaseline.reading import Connection
from phaseline.screens import Screen, screen_for

EXIT_BY_STATUS = {"completed": OK, "failed": FAILED, "cancelled": CANCELLED}


async def watch(
    client: Client,
    job: dict[str, Any],
    shape: Shape,
    *,
    after: int = 0,
    timeout_s: float | None = None,
    on_line: Callable[[str], None] | None = None,
) -> int:
    """Shows the job's events after `after` until it ends. Returns the exit code."""
    screen = screen_for(shape, job)
    if after and shape == "table":
        async for submitted in client.events(job["id"], limit=1):
            screen.introduce(submitted)
    watching = Watching(client, job["id"], screen, after=after, timeout_s=timeout_s, on_line=on_line)
    try:
        with screen:
            await watching.to_the_end()
    except TimedOut as late:
        click.echo(f"{late}. {watching.resume()}", err=True)
        return TIMEOUT
    except asyncio.CancelledError:
        click.echo(f"\nStopped watching; the job goes on. {watching.resume()}", err=True)
        raise
    ended = await client.job(job["id"])
    screen.end(ended)
    # Reopened meanwhile, the job has another status now: what counts is the end that was shown.
    return EXIT_BY_STATUS.get(watching.follow.status, ERROR)


class Watching:
    """A follow shown on a screen. `follow` knows the last sequence; `drops` the sequences connections broke after."""

    def __init__(
        self,
        client: Client,
        job_id: str,
        screen: Screen,
        *,
        after: int = 0,
        timeout_s: float | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._client, self._job_id, self._screen = client, job_id, screen
        self._broken = False
        self.drops: list[int] = []
        self.follow: Follow = client.follow(
            job_id, after, on_connection=self._connection, on_reset=screen.reset, on_line=on_line, timeout_s=timeout_s
        )

    async def to_the_end(self) -> None:
        async for event in self.follow:
            self._screen.event(event)
            await self.shown(event)

    async def shown(self, event: Event) -> None:
        """Called after each event was shown."""

    def resume(self) -> str:
        """What to type to go on where this ended."""
        url = self._client.base_url
        words = command("follow", self._job_id, "--after", str(self.follow.after), url=url or DEFAULT_URL)
        return f"Resume with: {words}"

    def _connection(self, connection: Connection) -> None:
        after = self.follow.after
        if connection == "waiting":
            self._broken = True
            self.drops.append(after)
            self._screen.notice(f"connection dropped at seq {after}, reconnecting")
        elif connection == "catching_up" and self._broken:
            self._broken = False
            self._screen.notice(f"resumed after seq {after}")
