"""A bar for each followed job, on stderr: a callback to hand to a follow, a wait or the feed."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from phaseline.event_types import Event
from phaseline.plain import plain

JOBS_MAX = 100  # bars at once; of more jobs the first are shown


class ProgressBar:
    """`with ProgressBar() as bar: job = await client.wait(job_id, on_event=bar)`.

    One may be given to several follows: each job gets a line of its own. Where no person watches stderr it prints the
    lines once, when it is left.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[said]}", markup=False, table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
        )
        self._of: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Takes an event of any job."""
        job_id = event["job_id"]
        if job_id not in self._of:
            if len(self._of) >= JOBS_MAX:
                return
            self._of[job_id] = self._bars.add_task(job_id, total=100.0, said="")
        if shown := _shown(event):
            self._bars.update(self._of[job_id], **shown)


def _shown(event: Event) -> dict[str, Any]:
    match event["type"]:
        case "submitted":
            return {"description": f"{event['engine']} {event['job_id']}", "said": "queued"}
        case "started":
            return {"completed": event.get("progress", 0.0), "said": "started"}
        case "progress":
            return {"completed": event["progress"], "said": event["phase"]}
        case "complete":
            return {"completed": 100.0, "said": "completed"}
        case "error":
            return {"said": plain(" ".join(f"failed: {event['message']}".split()))}
        case "retry" | "interrupted" | "cancelled" | "reopened" as kind:
            return {"said": kind}
        case _:
            return {}
