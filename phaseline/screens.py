"""Shows a followed job: `Lines` for pipes and logs, `JsonLines`, `JsonAtEnd` for programs; for terminals `live.py`.

Events go to stdout, what happens to the connection goes to stderr, so a pipe carries events only.
"""

import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

import click

from phaseline.cli_options import Shape, is_terminal
from phaseline.watched import Event, line, unknown_place

Job = dict[str, Any]


class Screen(Protocol):
    """Where a followed job is shown; entered while it is followed."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def introduce(self, submitted: Event) -> None:
        """Takes the stream's first event, when watching begins after it."""

    def event(self, event: Event) -> None:
        """Shows the next event."""

    def notice(self, text: str) -> None:
        """Shows what happened to the connection."""

    def reset(self, snapshot: Job) -> None:
        """Goes on from the snapshot: the log has no such sequence as was seen, for instance after a restore."""

    def end(self, job: Job) -> None:
        """Shows the job as it ended; called after the screen was left."""


class Plain:
    """What the screens for pipes have in common: nothing to open, notices on stderr."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def introduce(self, submitted: Event) -> None:
        pass

    def notice(self, text: str) -> None:
        click.echo(text, err=True)

    def reset(self, snapshot: Job) -> None:
        self.notice(unknown_place(snapshot))


class Lines(Plain):
    """One plain line an event, then the outcome."""

    def __init__(self, outcome: Callable[[Job], None]) -> None:
        self._outcome = outcome

    def event(self, event: Event) -> None:
        click.echo(line(event))

    def end(self, job: Job) -> None:
        self._outcome(job)


class JsonLines(Plain):
    """The events as they came, one JSON object a line."""

    def event(self, event: Event) -> None:
        click.echo(json.dumps(event, ensure_ascii=False, separators=(",", ":")))

    def end(self, job: Job) -> None:
        pass


class JsonAtEnd(Plain):
    """Nothing until the end, then the job as one JSON document."""

    def event(self, event: Event) -> None:
        pass

    def end(self, job: Job) -> None:
        click.echo(json.dumps(job, indent=2, ensure_ascii=False))


def screen_for(shape: Shape, job: Job) -> Screen:
    """The screen for this output shape, moving only when a person watches."""
    if shape == "jsonl":
        return JsonLines()
    if shape == "json":
        return JsonAtEnd()
    from phaseline.render import outcome

    if not is_terminal():
        return Lines(outcome)
    from phaseline.live import Live

    return Live(job["id"], outcome)
