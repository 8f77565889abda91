"""What stays of an event whose payload was erased: everything its stream is folded from, nothing anybody put in. PURE.

Gone are params, outputs, results, values, messages, fields and addresses. What remains holds no payload, so erasing it again
changes nothing: that is how an audit tells an erased event from a changed one.
"""

from typing import Any

from events.catalog import EVENT_TYPES
from events.errors import Unstorable
from events.record import Recorded, encode_event

# type -> fields and what they become
_GONE: dict[str, dict[str, Any]] = {
    "submitted": {"params": {}, "subject": None, "webhook": None, "address": None},
    "progress": {"message": None},
    "checkpoint": {"output": None, "output_ref": None},
    "partial": {"value": None},
    "log": {"message": "", "fields": {}},
    "complete": {"results": None, "results_ref": None},
    "error": {"message": "", "results": None, "results_ref": None},
    "cancelled": {"results": None, "results_ref": None, "address": None},
    "cancel_requested": {"address": None},
    "reopened": {"address": None},
}


def redacted(recorded: Recorded) -> str:
    """The JSON text to keep of an event. Raises `Unstorable` for an event of a newer build, whose payload is unknown here."""
    known = EVENT_TYPES.get(recorded.type)
    if known is None or recorded.version != known.version:
        raise Unstorable(f"event {recorded.seq} is a {recorded.type} of version {recorded.version}, unknown here")
    event = recorded.event()
    changes = dict(_GONE.get(recorded.type, {}))
    for name in ("error", "details"):
        if (error := getattr(event, name, None)) is not None:
            changes[name] = error.model_copy(update={"message": ""})
    return encode_event(event.model_copy(update=changes))
