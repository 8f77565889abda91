"""One connection of a follow: what the server said on it so far, and when it counts as lost."""

import asyncio

import aiohttp

from phaseline.client_errors import ClientError

CONNECT_S = 10.0  # for the upgrade, and again for the `hello`
SETTLED_S = 5.0  # a connection that lived this long, and caught up, makes the next wait short again


class Lost(ClientError):
    """The connection is gone; come back after the last sequence, at `hint_s` when the server named it."""

    def __init__(self, cause: object, hint_s: float | None = None) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.hint_s = hint_s


class Link:
    """One connection: what the server said on it so far."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.watchdog_s = CONNECT_S
        self.greeted = False
        self.caught_up = False
        self.dropped = False
        self.epoch: str | None = None
        self.complaint = ""
        self.hint_s: float | None = None
        self._missed: int | None = None
        self._opened = asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        await self.socket.close()

    def check_dropped(self) -> None:
        """What a dropped connection had brought already is forgotten: it comes again on the next one."""
        if self.dropped:
            raise Lost("dropped")

    def settled(self) -> bool:
        return self.caught_up and asyncio.get_running_loop().time() - self._opened >= SETTLED_S

    def check_head(self, head: int, after: int) -> None:
        """Two heartbeats in a row with the same events missing: this connection lost them."""
        behind = after if head > after else None
        if behind is not None and behind == self._missed:
            raise Lost(f"the stream is at {head}, only {after} arrived")
        self._missed = behind
