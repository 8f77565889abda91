"""What comes while a viewer waits goes to its socket where it comes, without waking the viewer's task: of a thousand
viewers of a job each costs a write and little else.

Only what is small and goes on behind itself is written so, to a socket from which everything has left. Whatever else
there is to do, from the end of a job to a peer that reads slowly, is the task's, which is woken for it as ever.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from events.catalog import TERMINAL
from gateway import frames
from gateway.connection import Connection, head_of
from gateway.ring import Entry

BYTES_MAX = 16 * 1024  # far below what makes a transport pause, so that nothing is left to wait for

Form = Callable[[Sequence[Entry]], Sequence[bytes]]  # the frames of these events


@dataclass(frozen=True, slots=True)
class Parcel:
    """Events as they stand on the wire, made once for all viewers at one place in one form. `size` is that of the frames
    without their heads, in bytes."""

    last: Entry
    wire: bytes
    frames: int
    size: int


def parcel_of(entries: Sequence[Entry] | None, form: Form) -> Parcel | None:
    """None for what a viewer's task has to see to."""
    if not entries or any(entry.type in TERMINAL for entry in entries):
        return None
    made = form(entries)
    size = sum(map(len, made))
    if size > BYTES_MAX:
        return None
    wire = b"".join([part for frame in made for part in (head_of(len(frame)), frame)])
    return Parcel(entries[-1], wire, len(made), size)


def plain(entries: Sequence[Entry]) -> Sequence[bytes]:
    """A frame an event."""
    return [entry.line for entry in entries]


def batched(entries: Sequence[Entry]) -> Sequence[bytes]:
    """One frame."""
    return [frames.batch([entry.line for entry in entries])]


def classic(entries: Sequence[Entry]) -> Sequence[bytes]:
    """Those the classic protocol has."""
    return [frame for entry in entries if (frame := frames.classic_of(entry))]


class Waiting(Protocol):
    """A viewer, as what goes past its task needs it."""

    seq: int

    @property
    def stays(self) -> bool:
        """False once it was told to leave."""

    def went_on(self, last: Entry) -> None:
        """Its socket was given everything up to this event while it waited."""


class Direct:
    """A viewer's socket, once nothing but events in this form is due on it."""

    __slots__ = ("_connection", "_viewer", "form")

    def __init__(self, viewer: Waiting, connection: Connection, form: Form) -> None:
        self.form = form
        self._viewer = viewer
        self._connection = connection

    @property
    def seq(self) -> int:
        """The last sequence the viewer was given."""
        return self._viewer.seq

    @property
    def ready(self) -> bool:
        """Whether it may be written to now."""
        return self._connection.clear and self._viewer.stays

    def take(self, parcel: Parcel) -> None:
        """Writes what follows `seq`."""
        if parcel.wire:
            self._connection.write_now(parcel.wire, parcel.frames, parcel.size)
        self._viewer.went_on(parcel.last)
