"""The newest events of one job, encoded once and shared by all its viewers. PURE.

Sequences inside are consecutive and end at `head`: an event enters only as head + 1. Whoever needs one that is not
inside reads the log.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from events.record import Line, seq_of

EVENTS_MAX = 256
BYTES_MAX = 256 * 1024

Offer = Literal["entered", "repeat", "hole"]


@dataclass(slots=True, eq=False)
class Entry:
    """One event as it goes to clients: `line` is its JSON on any wire."""

    seq: int
    type: str
    line: bytes
    classic: bytes | None = None  # the classic frame, made by its first viewer and shared; b"" when it has none


class Ring:
    """At most `events_max` events of at most `bytes_max` in all, up to and including sequence `head`."""

    def __init__(self, head: int, *, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.head = head
        self.size = 0  # bytes held
        self._entries: deque[Entry] = deque()
        self._events_max = events_max
        self._bytes_max = bytes_max

    @property
    def start(self) -> int:
        """The sequence just below the oldest event inside: a cursor from here to the head is inside."""
        return self.head - len(self._entries)

    def offer(self, entry: Entry) -> Offer:
        """Takes the event in when it is the next one."""
        if (answer := self._judge(entry.seq)) == "entered":
            self.head = entry.seq
            self._entries.append(entry)
            self.size += len(entry.line)
            self._shrink()
        return answer

    def offer_reference(self, seq: int) -> Offer:
        """As `offer`, for an event whose bytes did not travel: it empties the ring, since nothing may be missing inside."""
        if (answer := self._judge(seq)) == "entered":
            self.skip_to(seq)
        return answer

    def skip_to(self, seq: int) -> None:
        """Moves the head on without the events on the way; viewers read them from the log."""
        self.empty()
        self.head = max(self.head, seq)

    def empty(self) -> None:
        """Gives the bytes back; the head stays."""
        self._entries.clear()
        self.size = 0

    def after(self, seq: int) -> list[Entry] | None:
        """The events after `seq`, `[]` when there is none yet, None when the next one is not inside."""
        if seq >= self.head:
            return []
        if seq < self.start:
            return None
        # From the newest back: mostly it is one event that is asked for, by each viewer in turn.
        found = list(islice(reversed(self._entries), self.head - seq))
        found.reverse()
        return found

    def _judge(self, seq: int) -> Offer:
        if seq <= self.head:
            return "repeat"
        return "entered" if seq == self.head + 1 else "hole"

    def _shrink(self) -> None:
        while len(self._entries) > self._events_max or self.size > self._bytes_max:
            self.size -= len(self._entries.popleft().line)


def entries_of(lines: Iterable[Line]) -> list[Entry]:
    """Events as the log gave them."""
    return [Entry(seq, kind, line) for seq, kind, line in lines]


def entry_of(line: bytes) -> Entry | None:
    """The event of a travelling line, by slicing; None for a reference."""
    start = line.find(_TYPE, _TYPE_FROM, _TYPE_FROM + 32)
    if start < 0:
        return None
    start += len(_TYPE)
    return Entry(seq_of(line), line[start : line.index(b'"', start)].decode(), line)


_TYPE = b',"type":"'
_TYPE_FROM = len('{"job_id":"","seq":') + 36
