"""How old events are when they are handed to a stream that waited for them: from commit to socket, by sample.

An event's time is the database's, read in its transaction, so what is measured holds the commit too, and the clocks of
the two machines against each other. One event in `SAMPLE_S` is looked at, whoever its viewer is: the rest pay one
comparison.
"""

import asyncio
from collections import deque

from prometheus_client import Histogram

from events.clock import Clock, parse_instant

SAMPLE_S = 0.02
KEPT = 1000
RECENT_S = 300.0  # what lies longer back says nothing about now
TIMESTAMP = b'"timestamp":"'
TIMESTAMP_BYTES = len("2026-11-24T08:00:00.000Z")


class Lag:
    """The newest samples of one process."""

    def __init__(self, clock: Clock, histogram: Histogram) -> None:
        self._clock = clock
        self._histogram = histogram
        self._due = 0.0
        self._samples: deque[tuple[float, int]] = deque(maxlen=KEPT)  # when by the loop's clock, and ms

    def take(self, line: bytes) -> None:
        """An event's line goes to a stream that was waiting for it."""
        now = asyncio.get_running_loop().time()
        if now < self._due:
            return
        self._due = now + SAMPLE_S
        start = line.find(TIMESTAMP) + len(TIMESTAMP)
        committed = parse_instant(line[start : start + TIMESTAMP_BYTES].decode())
        lag_ms = max(self._clock.now_ms() - committed, 0)
        self._histogram.observe(lag_ms / 1000)
        self._samples.append((now, lag_ms))

    def recent_ms(self) -> list[int]:
        """The samples of the last five minutes, at most a thousand, least first."""
        since = asyncio.get_running_loop().time() - RECENT_S
        return sorted(lag_ms for at, lag_ms in self._samples if at >= since)
