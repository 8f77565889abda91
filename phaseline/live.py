"""A followed job in a terminal: its phases with bars, intermediate results, what happened to the connection."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live as Refreshing
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from phaseline.watched import Event, PhaseView, Watched, brief, unknown_place

REFRESH_HZ = 12
PARTIALS_SHOWN = 6
STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "queued": "blue"}


class Live:
    """A screen (see `screens.py`) that redraws itself in place and leaves its last picture behind."""

    def __init__(self, job_id: str, outcome: Callable[[dict[str, Any]], None], console: Console | None = None) -> None:
        self._watched = Watched(job_id)
        self._outcome = outcome
        self._console = console or Console(highlight=False)
        self._refreshing = Refreshing(
            console=self._console, refresh_per_second=REFRESH_HZ, get_renderable=self._picture, transient=False
        )

    def __enter__(self) -> Self:
        self._refreshing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._refreshing.stop()

    def introduce(self, submitted: Event) -> None:
        self._watched.introduce(submitted)

    def event(self, event: Event) -> None:
        self._watched.see(event)

    def notice(self, text: str) -> None:
        self._refreshing.console.print(Text(text, style="yellow"))

    def reset(self, snapshot: dict[str, Any]) -> None:
        self.notice(unknown_place(snapshot))
        self._watched = Watched(snapshot["id"], engine=snapshot.get("engine", ""), status=snapshot.get("status", ""))

    def end(self, job: dict[str, Any]) -> None:
        self._outcome(job)

    def _picture(self) -> RenderableType:
        return picture(self._watched)


def picture(watched: Watched) -> RenderableType:
    """The job as far as its events were seen."""
    parts: list[RenderableType] = [_headline(watched), _phases(watched)]
    parts += _partials(watched)
    parts += [Text(f"  {said}", style="dim", no_wrap=True, overflow="ellipsis") for said in watched.logs]
    if watched.trouble:
        parts.append(Text(f"  {watched.trouble}", style="yellow"))
    return Group(*parts)


def _headline(watched: Watched) -> Text:
    text = Text()
    text.append(watched.engine or "job", style="bold")
    text.append(f"  {watched.job_id}  ", style="dim")
    text.append(watched.status, style=STYLES.get(watched.status, ""))
    text.append(f"  {watched.progress:.0f} %")
    if watched.attempt > 1:
        text.append(f"  attempt {watched.attempt}", style="yellow")
    if watched.first_at is not None and watched.last_at is not None:
        text.append(f"  {(watched.last_at - watched.first_at) / 1000:.1f} s", style="dim")
    text.append(f"  seq {watched.seq}", style="dim")
    return text


def _phases(watched: Watched) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=3, justify="right")
    table.add_column(no_wrap=True)
    table.add_column(width=30)
    table.add_column(justify="right", width=7)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for phase in watched.phases:
        sign, style = _sign(phase, watched)
        bar = ProgressBar(total=1.0, completed=phase.fraction, width=30)
        table.add_row(Text(sign, style), Text(phase.name, style), bar, _took(phase), Text(phase.message, "dim"))
    return table


def _sign(phase: PhaseView, watched: Watched) -> tuple[str, str]:
    if phase.reused:
        return "↺", "green"
    if phase.ended is not None:
        return "✓", "green"
    if phase.began is None:
        return "·", "dim"
    return ("✗", "red") if watched.status in {"failed", "cancelled"} else ("▸", "cyan")


def _took(phase: PhaseView) -> Text:
    if phase.began is None or phase.ended is None:
        return Text("")
    return Text(f"{(phase.ended - phase.began) / 1000:.2f} s", "dim")


def _partials(watched: Watched) -> list[Text]:
    shown = list(watched.partials.items())[-PARTIALS_SHOWN:]
    width = max((len(name) for name, _ in shown), default=0)
    # Each on one line, cut off at the terminal's edge: a picture that changes its height would jump.
    lines = [Text(f"  {name:<{width}}  ", "magenta", no_wrap=True, overflow="ellipsis") for name, _ in shown]
    return [line.append(brief(value), "default") for line, (_, value) in zip(lines, shown, strict=True)]
