"""Promises broken on purpose, to see that the simulator notices."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from events import batch, job
from events.committer import Committer
from events.errors import LogUnavailable
from events.sweeper import Pulse, Sweeper
from gateway.ring import Ring
from gateway.viewer import Viewer


def _no_fencing() -> None:
    """A worker's command is taken whatever attempt it belongs to, as long as some attempt runs."""
    setattr(job, "_holds", lambda state, _: state.status == "running")  # noqa: B010 replaced for good


def _doubtful_again() -> None:
    """A command whose outcome is unknown is simply run again."""
    batch._answered = lambda *_: False


def _any_event_enters() -> None:
    """A ring takes whatever is newer than its head."""

    def judge(self: Ring, seq: int) -> str:
        return "repeat" if seq <= self.head else "entered"

    setattr(Ring, "_judge", judge)  # noqa: B010 a method replaced for good


def _no_pulse() -> None:
    """Leases that ended while the database stood still count at once."""
    setattr(Pulse, "steady", lambda _: True)  # noqa: B010 as above


def _unknown_is_done() -> None:
    """A commit without an answer is taken for one that succeeded."""
    transact = Committer._transact

    async def hopeful(self: Committer, *batch: Any, **options: Any) -> None:
        with suppress(LogUnavailable):
            await transact(self, *batch, **options)

    setattr(Committer, "_transact", hopeful)  # noqa: B010 as above


def _newcomers_lead() -> None:
    """As it was: a process that cannot expire anything yet keeps those from it that can."""
    expire = Sweeper.expire

    async def steadily(self: Sweeper) -> None:
        if self._pulse.steady():
            await expire(self)

    setattr(Sweeper, "_able", lambda *_: True)  # noqa: B010 as above
    setattr(Sweeper, "expire", steadily)  # noqa: B010 as above


def _caught_up_too_soon() -> None:
    """A viewer takes itself to be at the head when it has what the ring has."""
    setattr(Viewer, "head", property(lambda self: max(self._watched.head, self.seq)))  # noqa: B010 as above


SPOILT: Mapping[str, Callable[[], None]] = {
    "no fencing": _no_fencing,
    "doubtful commands run again unasked": _doubtful_again,
    "the ring takes any event": _any_event_enters,
    "no pulse": _no_pulse,
    "an unknown outcome counts as done": _unknown_is_done,
    "newcomers lead": _newcomers_lead,
    "caught up too soon": _caught_up_too_soon,
}
QUICKLY_FOUND = tuple(name for name in SPOILT if name != "newcomers lead")  # that one takes hundreds of seeds
