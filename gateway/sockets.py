"""All open streams of this process together: how many there may be, what they send, how they ended."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from aiohttp import web

from events.telemetry import CLOSES, GONE, Cap, GatewayMetrics, Transport
from gateway.large import LargeBodies
from gateway.limits import SUBSCRIPTIONS_A_CONNECTION, too_many
from gateway.problems import Problem

CONNECTIONS_MAX = 10_000
COMPRESSED_MAX = 500  # WebSockets that compress: some 100 KiB each
# Sockets over a cap, or a limit of one client, that are being told so; more hear it before the upgrade.
REFUSALS_MAX = 64
HELD_S = 10  # until another stream of an address may have ended
RETRY_AFTER_S = (2, 10)  # drawn evenly: who was refused together must not come back together
FLUSH_S = 120.0  # what is still in a transport's buffer after the close has this long to leave
LINGER_LOOK_S = 1.0


class Vanished(Exception):
    """What was to be sent is not there any more; who comes back learns why."""


def retry_after(least_s: int = 0) -> str:
    """The reason of a 4429."""
    return f"retry_after={least_s + _retry_after_s()}"


def crowded(why: str = "This gateway has as many open streams as it may; try again.") -> Problem:
    """The same before an upgrade, and where there is none."""
    return Problem(503, "overloaded", why, headers={"Retry-After": str(_retry_after_s())})


def held() -> Problem:
    """Likewise, where one address has as many open streams as it may."""
    return too_many("This address has as many open streams as it may.", HELD_S, "connections")


def _retry_after_s() -> int:
    return random.randint(*RETRY_AFTER_S)  # noqa: S311 jitter


class _Block:
    """Counts in what its block counts for. Each viewer keeps two of these, and a generator is eight times as large."""

    __slots__ = ("_compresses", "_open", "_sockets")

    def __init__(self, sockets: "Sockets", *, open_: bool = False, compresses: bool = False) -> None:
        self._sockets = sockets
        self._open = open_
        self._compresses = compresses

    def __enter__(self) -> None:
        self._sockets.open += self._open
        self._sockets.compressed += self._compresses

    def __exit__(self, *_: object) -> None:
        self._sockets.open -= self._open
        self._sockets.compressed -= self._compresses


class Sockets:
    """Counts with plain numbers: every frame of every viewer passes here."""

    def __init__(
        self, metrics: GatewayMetrics, connections_max: int = CONNECTIONS_MAX, compressed_max: int = COMPRESSED_MAX
    ) -> None:
        self.large = LargeBodies()
        self.open = 0  # from its begin until nothing of a stream is left, what the kernel has not taken included
        self.frames = 0
        self.frame_bytes = 0
        self.connections_max = connections_max
        self.turned_away = 0  # at their client's limit, and being told so
        self.compressed = 0
        self.compressed_max = compressed_max
        self.subscriptions = 0  # on sockets of many jobs
        self.subscriptions_max = SUBSCRIPTIONS_A_CONNECTION * connections_max
        self._closes = metrics.closes
        self._refused = metrics.refused
        self._opens = metrics.opens
        metrics.subscriptions.set_function(lambda: self.subscriptions)
        metrics.connections.set_function(lambda: self.open)
        metrics.large_bytes.set_function(lambda: self.large.taken)
        metrics.frames.set_function(lambda: self.frames)
        metrics.frame_bytes.set_function(lambda: self.frame_bytes)

    @property
    def full(self) -> bool:
        """No more streams now."""
        return self.open >= self.connections_max

    @property
    def overrun(self) -> bool:
        """Too many are being refused to tell another one politely."""
        return self.open >= self.connections_max + REFUSALS_MAX

    @contextmanager
    def turning_away(self) -> Iterator[bool]:
        """One more is told that its client is at a limit while the block lasts; False when too many are already."""
        if self.turned_away >= REFUSALS_MAX:
            yield False
            return
        self.turned_away += 1
        try:
            yield True
        finally:
            self.turned_away -= 1

    def counted(self, transport: Transport) -> AbstractContextManager[None]:
        """One stream is open while the block lasts."""
        self._opens.labels(transport).inc()
        return _Block(self, open_=True)

    def compressing(self, compresses: bool) -> AbstractContextManager[None]:
        """One WebSocket compresses, or not, while the block lasts."""
        return _Block(self, compresses=compresses)

    def refused(self, cap: Cap) -> None:
        """A stream was not opened for this cap."""
        self._refused.labels(cap).inc()

    def sent(self, frame: bytes) -> None:
        """One text frame went to a transport."""
        self.frames += 1
        self.frame_bytes += len(frame)

    def sent_all(self, frames: int, size: int) -> None:
        """So many text frames of so many bytes in all went to a transport."""
        self.frames += frames
        self.frame_bytes += size

    def ended(self, code: int | None) -> None:
        """One socket was closed with this code; None: the peer was gone first."""
        self._closes.labels(str(code) if str(code) in CLOSES else GONE).inc()

    def linger(self, transport: asyncio.Transport, seconds: float) -> None:
        """Lets a closing transport send what it still holds, as long as the peer takes it, then cuts it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self.open += 1

        def look() -> None:
            if transport.get_write_buffer_size() and loop.time() < until:
                loop.call_later(min(LINGER_LOOK_S, until - loop.time()), look)
            else:
                transport.abort()
                self.open -= 1

        transport.close()
        look()


SOCKETS = web.AppKey("sockets", Sockets)
