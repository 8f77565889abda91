"""What a person watching a job sees of it so far: a fold of its events for displays. PURE."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from events.clock import parse_instant
from phaseline.plain import plain

Event = Mapping[str, Any]  # of any version, as it came or as it was recorded
LOGS_KEPT = 4
ITEMS_SHOWN = 5  # a longer list is shown by its length


@dataclass
class PhaseView:
    """One declared phase: its share of the whole, when it ran (ms), what it last said."""

    name: str
    low: float
    until: float
    began: int | None = None
    ended: int | None = None
    reused: bool = False
    message: str = ""
    fraction: float = 0.0


@dataclass
class Watched:
    """A job as its events so far tell it."""

    job_id: str
    engine: str = ""
    status: str = "queued"
    attempt: int = 0
    seq: int = 0
    progress: float = 0.0
    phases: list[PhaseView] = field(default_factory=list)
    partials: dict[str, Any] = field(default_factory=dict)
    logs: deque[str] = field(default_factory=lambda: deque(maxlen=LOGS_KEPT))
    trouble: str = ""
    first_at: int | None = None
    last_at: int | None = None

    def see(self, event: Event) -> None:
        """Takes the next event in."""
        self.seq, self.attempt = event["seq"], event["attempt"]
        self.last_at = parse_instant(event["timestamp"])
        self.first_at = self.first_at or self.last_at
        match event["type"]:
            case "submitted":
                self.introduce(event)
            case "started":
                self._begin(event)
            case "progress":
                self._move(event)
            case "partial":
                self.partials[plain(event["name"])] = event["value"]
            case "log":
                self.logs.append(plain(f"{event['level']}: {event['message']}"))
            case "retry":
                self.status = "queued"
                self.trouble = plain(f"attempt {self.attempt} failed: {event['error']['message']}")
            case "interrupted":
                self.status, self.trouble = "queued", f"attempt {self.attempt} was {event['reason']}"
            case "cancel_requested":
                self.trouble = "asked to stop"
            case "complete" | "error" | "cancelled" as kind:
                self._end(kind, event)
            case "reopened":
                self.status, self.trouble = "queued", ""
            case _:
                pass

    def introduce(self, submitted: Event) -> None:
        """Takes engine and phases from a `submitted` event, also when watching began later in the stream."""
        self.engine = submitted["engine"]
        ends = [0.0, *(phase["until"] for phase in submitted["phases"])]
        self.phases = [
            PhaseView(phase["name"], low, phase["until"]) for low, phase in zip(ends, submitted["phases"], strict=False)
        ]

    @property
    def current(self) -> PhaseView | None:
        """The phase that is running."""
        return next((phase for phase in self.phases if phase.began is not None and phase.ended is None), None)

    def _begin(self, event: Event) -> None:
        self.status, self.trouble, self.progress = "running", "", event.get("progress", 0.0)
        for phase in self.phases:
            phase.began = phase.ended = None
            phase.message, phase.fraction = "", 0.0
            phase.reused = phase.name in event["reused_phases"]

    def _move(self, event: Event) -> None:
        self.progress = event["progress"]
        names = [phase.name for phase in self.phases]
        if event["phase"] not in names:
            return
        index = names.index(event["phase"])
        self._leave(self.phases[:index])
        phase = self.phases[index]
        phase.began = phase.began or self.last_at
        phase.message = _said(event) or phase.message
        phase.fraction = min(max((self.progress - phase.low) / (phase.until - phase.low), 0.0), 1.0)
        if self.progress >= phase.until:
            phase.fraction = 1.0

    def _end(self, kind: str, event: Event) -> None:
        self.status = {"complete": "completed", "error": "failed", "cancelled": "cancelled"}[kind]
        if kind == "complete":
            self.trouble, self.progress = "", 100.0
            self._leave(self.phases)
        else:
            self.trouble = plain(event.get("message") or event.get("reason") or "")

    def _leave(self, phases: list[PhaseView]) -> None:
        for phase in phases:
            phase.fraction = 1.0
            if phase.began is not None and phase.ended is None:
                phase.ended, phase.message = self.last_at, ""


def _said(event: Event) -> str:
    parts = [event.get("message") or ""]
    if event.get("done") is not None:
        of = f"/{event['total']:g}" if event.get("total") is not None else ""
        parts.append(f"{event['done']:g}{of} {event.get('unit') or ''}".strip())
    return plain(" ".join(part for part in parts if part))


def line(event: Event) -> str:
    """One event as one plain line: sequence, time of day, type, what it says."""
    said = plain(" ".join(_words(event).splitlines()))
    return f"{event['seq']:>5}  {event['timestamp'][11:23]}  {event['type']:<16}  {said}".rstrip()


def unknown_place(snapshot: dict[str, Any]) -> str:
    """What to tell when the sequence seen last is not in the log."""
    return f"the stream has no such sequence; going on from seq {snapshot.get('seq', 0)} ({snapshot.get('status')})"


def _words(event: Event) -> str:
    match event["type"]:
        case "submitted":
            return f"{event['engine']} version {event['engine_version']}"
        case "started":
            reused = f", reuses {', '.join(event['reused_phases'])}" if event["reused_phases"] else ""
            return f"attempt {event['attempt']}{reused}"
        case "progress":
            return f"{event['progress']:5.1f} %  {event['phase']}  {_said(event)}"
        case "checkpoint":
            return f"{event['phase']} recorded after {event['duration_ms'] / 1000:.2f} s"
        case "partial":
            return f"{event['phase']}  {event['name']} = {brief(event['value'])}"
        case "log":
            return f"{event['level']}: {event['message']}"
        case "retry":
            return f"{event['error']['message']}; attempt {event['next_attempt']} not before {event['not_before']}"
        case "error":
            return f"{event['code']}: {event['message']}"
        case "administered":
            why = f": {event['reason']}" if event.get("reason") else ""
            return f"{deed(event)}{why}"
        case _:
            return str(event.get("reason") or event.get("mode") or "")


def deed(event: Mapping[str, Any]) -> str:
    """What an administrative act did: its name, to what, and what it made of it."""
    made = brief(
        {name: value for name, value in event["changed"].items() if value not in (None, "") and name != "sha256"}
    )
    return f"{event['act']} {event['target']}" + (f" ({made})" if made else "")


def brief(value: Any, chars_max: int = 120) -> str:
    """A JSON value on one line: the plain facts of an object, the size of what is large."""
    if isinstance(value, dict):
        text = ", ".join(f"{name} {_inner(item)}" for name, item in value.items() if item is not None)
    else:
        text = _inner(value)
    return plain(text if len(text) <= chars_max else text[: chars_max - 1] + "…")


def _inner(value: Any) -> str:
    match value:
        case dict():
            return f"{{{len(value)}}}"
        case list() if len(value) > ITEMS_SHOWN or any(isinstance(item, dict | list) for item in value):
            return f"[{len(value)}]"
        case list():
            return " ".join(_inner(item) for item in value) or "none"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)
