"""One job some viewer follows in this process: its ring, what is known to be missing, and whom to wake."""

import asyncio
import logging
from typing import TYPE_CHECKING

from events.record import seq_of
from gateway.direct import Direct, Form, Parcel, parcel_of
from gateway.ring import Ring, entry_of

if TYPE_CHECKING:
    from gateway.viewer import Viewer

log = logging.getLogger(__name__)


class Watched:
    """The ring exists from the first head read from the log on; hints that come before are remembered as missing."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.ring: Ring | None = None
        self.beyond = 0  # the highest sequence known to exist; over the ring's head the job is stale
        self.uses = 0
        self.viewers: dict[Viewer, None] = {}  # in the order they came
        self.mending = False
        self._accounted = 0
        self._waking = False
        self._waiters: dict[asyncio.Future[None], Direct | None] = {}

    @property
    def head(self) -> int:
        """The last sequence this process has seen in order."""
        return self.ring.head if self.ring is not None else 0

    @property
    def stale(self) -> bool:
        """True while the log is known to hold more than the ring."""
        return self.ring is not None and self.beyond > self.ring.head

    def admit(self, head: int) -> None:
        """Takes a head read from the log after the watch began."""
        if self.ring is None:
            self.ring = Ring(head)
        self.hear_of(head)

    def hear_of(self, seq: int) -> None:
        """Notes that this sequence exists."""
        self.beyond = max(self.beyond, seq)

    def take(self, line: bytes) -> None:
        """A line that travelled: the next event, or a sign that something is missing. Raises `ValueError`."""
        entry = entry_of(line)
        seq = entry.seq if entry is not None else seq_of(line)
        self.hear_of(seq)
        if self.ring is None:
            return
        if entry is not None:
            self.ring.offer(entry)
        else:
            self.ring.offer_reference(seq)

    def grown(self) -> int:
        """By how many bytes the ring changed since the last call."""
        size = self.ring.size if self.ring is not None else 0
        change, self._accounted = size - self._accounted, size
        return change

    def wake_soon(self) -> None:
        """As `wake`, once for all that comes in this turn of the loop."""
        if not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self.wake)

    def wake(self) -> None:
        """Gives every waiting viewer what came, or lets it look again."""
        self._waking = False
        parcels: dict[tuple[int, Form], Parcel | None] = {}
        for waiter, direct in self._waiters.items():
            if waiter.done():
                continue
            try:
                taken = direct is not None and self._given(direct, parcels)
            except Exception:  # a boundary: others wait too, and the viewer's own task tells its peer
                log.exception("an event of job %s could not be written", self.job_id)
                taken = False
            if not taken:
                waiter.set_result(None)

    def _given(self, direct: Direct, parcels: dict[tuple[int, Form], Parcel | None]) -> bool:
        if self.ring is None or not direct.ready:
            return False
        place = (direct.seq, direct.form)
        if place not in parcels:
            parcels[place] = parcel_of(self.ring.after(direct.seq), direct.form)
        parcel = parcels[place]
        if parcel is not None:
            direct.take(parcel)
        return parcel is not None

    async def news(self, wait_s: float, direct: Direct | None = None) -> None:
        """Returns at the next `wake` that leaves something to do, at the latest after `wait_s`. What comes goes to `direct`
        as far as that takes it."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(wait_s, _set, waiter)
        self._waiters[waiter] = direct
        try:
            await waiter
        finally:
            timer.cancel()
            del self._waiters[waiter]


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
