"""What a child says, as the event it becomes. PURE."""

from engine_worker.frames import Frame
from engine_worker.outbox import ENTRY_BYTES, Entry
from engine_worker.outcome import checkpoint_of
from events.catalog import Log, Partial, Progress


def entry_of(job_id: str, frame: Frame) -> Entry:
    """The event a frame carries. Raises `ValueError`, `KeyError` or `TypeError` when it carries none."""
    fields = {name: value for name, value in frame.fields.items() if name not in {"op", "mark"}}
    match frame.op:
        case "progress":
            return Entry(Progress(**fields), ENTRY_BYTES)
        case "partial":
            return Entry(Partial(**fields), frame.size)
        case "log":
            return Entry(Log(**fields), frame.size)
        case "checkpoint":
            event, artifact = checkpoint_of(job_id, fields["phase"], fields["duration_ms"], frame.body)
            return Entry(event, frame.size, artifact)
        case _:
            raise ValueError(f"a child says {frame.op!r}")
