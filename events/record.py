"""Recorded events: the codec between an event, its row and its bytes on any wire. PURE.

An event is encoded once, at append. Its row keeps `data`, the JSON text of its own fields; its line on every wire
(hints, WebSocket, NDJSON) is the envelope followed by exactly those bytes, so a replay ten months later is the
same bytes as the live frame.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from events.catalog import EVENTS, RECORDED_TYPES, Administered, AnyEvent, Event
from events.clock import rfc3339
from events.errors import Unstorable
from events.values import DATA_BYTES_MAX, decode, encode

# (type, version) -> fields of that version to fields of the next. Stored rows are never rewritten.
UPCASTERS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}

Line = tuple[int, str, bytes]  # sequence, type, and the event's JSON as every client gets it


class Recorded(NamedTuple):
    """An event as the log returned it. `at` is in ms, `data` the JSON text of the event's fields. A tuple, because a process
    makes one for each event it writes: a frozen dataclass takes four times as long."""

    job_id: str
    seq: int
    type: str
    version: int
    attempt: int
    actor: str
    tenant: str
    at: int
    command_id: str
    data: str

    @property
    def digest(self) -> bytes:
        """SHA-256 of the exact bytes of `data`."""
        return hashlib.sha256(self.data.encode()).digest()

    def line(self) -> bytes:
        """The event as every client gets it, one line of JSON, `job_id` first so that a reader can slice it."""
        return line_of(self.job_id, self.seq, self.type, self.version, self.attempt, self.actor, self.at, self.data)

    def event(self) -> AnyEvent:
        """The typed event of a job. Raises pydantic's `ValidationError` when the row is not what its type says. A field that a
        newer build added is left out: during a rollout old processes read what new ones append."""
        recorded = upcast(self)
        return EVENTS.validate_python({"type": recorded.type, **decode(recorded.data)}, extra="ignore")

    def act(self) -> Administered:
        """The typed administrative act. Raises as `event`."""
        recorded = upcast(self)
        return Administered.model_validate({"type": recorded.type, **decode(recorded.data)}, extra="ignore")


def encode_event(event: Event) -> str:
    """The JSON text of an event's own fields. Raises `Unstorable` over 1 MiB or when no UTF-8 can hold it."""
    try:
        text = event.__pydantic_serializer__.to_json(event, exclude={"type"}).decode()
    except ValueError as failure:
        raise Unstorable(f"the event cannot be written as JSON: {failure}") from failure
    if len(text) > DATA_BYTES_MAX // 4 and len(text.encode()) > DATA_BYTES_MAX:
        kind = type(event).__name__.lower()
        raise Unstorable(f"a {kind} event is {len(text)} bytes, at most {DATA_BYTES_MAX} fit", too_large=True)
    return text


def line_of(job_id: str, seq: int, kind: str, version: int, attempt: int, actor: str, at: int, data: str) -> bytes:
    """`Recorded.line` of these columns: a replay makes a hundred thousand of them and needs nothing else."""
    known = RECORDED_TYPES.get(kind)
    if known is not None and version < known.version:
        data = _upcast(kind, version, known.version, data)
    head = (
        f'{{"job_id":"{job_id}","seq":{seq},"type":"{kind}",'
        f'"attempt":{attempt},"timestamp":"{rfc3339(at)}","actor":{_quoted(actor)}'
    )
    return (f"{head},{data[1:]}" if len(data) > 2 else head + "}").encode()


def upcast(recorded: Recorded) -> Recorded:
    """The event in its type's current version; the same object when it already is, and when it comes from a newer
    build: a type or version unknown here goes out as it is."""
    known = RECORDED_TYPES.get(recorded.type)
    if known is None or recorded.version >= known.version:
        return recorded
    data = _upcast(recorded.type, recorded.version, known.version, recorded.data)
    return recorded._replace(version=known.version, data=data)


def _upcast(kind: str, version: int, current: int, data: str) -> str:
    fields = decode(data)
    for old in range(version, current):
        fields = UPCASTERS[kind, old](fields)
    return encode(fields).decode()


def job_id_of(line: bytes) -> str:
    """The job id of a line made by `Recorded.line`, by slicing. Raises `ValueError` for any other bytes."""
    if not line.startswith(_LINE_START) or line[_ID_END : _ID_END + 1] != b'"':
        raise ValueError("not an event line")
    return line[len(_LINE_START) : _ID_END].decode()


def seq_of(line: bytes) -> int:
    """The sequence of a line made by `Recorded.line`, by slicing."""
    start = _ID_END + len(b'","seq":')
    return int(line[start : line.index(b",", start)])


_LINE_START = b'{"job_id":"'
_ID_END = len(_LINE_START) + 36


@lru_cache(maxsize=512)  # a stream has few actors
def _quoted(text: str) -> str:
    # Actors are plain words in all but odd cases; `encode` costs ten times the f-string.
    return (
        f'"{text}"'
        if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text
        else encode(text).decode()
    )
