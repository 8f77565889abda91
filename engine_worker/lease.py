"""A worker's lease: renewed by beats; when it cannot be, its children end before the log's patience does."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from engine_worker.options import WorkerOptions
from events import crash_points
from events.clock import monotonic
from events.errors import Unavailable
from events.log import BeatReply, Log, WorkerRow

BEAT_S = 1.5  # for one round trip
AGAIN_S = 0.8  # after a beat without an answer: beats are tried at least every second

_log = logging.getLogger(__name__)


class Lease:
    """`run` beats until cancelled. All times are monotonic seconds."""

    def __init__(
        self,
        log: Log,
        options: WorkerOptions,
        *,
        row: Callable[[], WorkerRow],
        beating: Callable[[], Callable[[BeatReply, float], None]],
        on_silence: Callable[[], None],
        on_over: Callable[[], None],
        probe: Callable[[], Awaitable[bool]],
    ) -> None:
        """`beating` is called as a beat leaves and returns who hears the reply (with the beat's time), `on_silence`
        when a beat has no answer, `on_over` when the children may live no longer. `probe` asks whether the committer
        answers."""
        self.beats_failed = 0
        self._store = log
        self._options = options
        self._row = row
        self._beating = beating
        self._on_silence = on_silence
        self._on_over = on_over
        self._probe = probe
        self._suspended = False
        self._soon = asyncio.Event()
        self._until = monotonic() + options.lease_s  # the database may end the lease at this moment

    @property
    def children_until(self) -> float:
        """When children end by themselves unless they hear otherwise."""
        return self._until + self._options.outage_grace_s

    @property
    def over(self) -> bool:
        """Whether that moment has passed."""
        return monotonic() >= self.children_until

    def soon(self) -> None:
        """Beats at once: there is news to tell, or to ask for."""
        self._soon.set()

    def suspend(self) -> None:
        """Beats no more until the committer answers: a worker that can renew but not report must lose its jobs."""
        self._suspended = True

    async def run(self) -> None:
        """Beats for ever."""
        while True:
            pause_s = self._options.beat_s if await self._renewed() else min(AGAIN_S, self._options.beat_s)
            await self._pause(pause_s * random.uniform(0.9, 1.1))  # noqa: S311 jitter

    async def _renewed(self) -> bool:
        try:
            if not self._suspended or await self._probe():
                self._suspended = False
                await self._beat()
                return True
        except (Unavailable, TimeoutError) as silence:
            self.beats_failed += 1
            _log.warning("no answer to a beat: %s", str(silence) or f"none within {BEAT_S:g} s")
        self._on_silence()
        if self.over:
            self._on_over()
        return False

    async def _beat(self) -> None:
        sent_at = monotonic()
        hear = self._beating()
        async with asyncio.timeout(BEAT_S):
            reply = await self._store.beat(self._row(), self._options.lease_s)
        crash_points.reached("beat.answered")
        # The database took its time after the beat left, so its lease ends no earlier than this.
        self._until = sent_at + (reply.lease_until - reply.now) / 1000
        hear(reply, sent_at)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._soon.wait()
        except TimeoutError:
            return
        finally:
            self._soon.clear()
