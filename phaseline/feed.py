"""Reads the feed, every event of every job, across broken connections (docs/protocol.md §2).

As with a follow, an event counts as read once its callbacks returned and the loop body finished: only then `cursor` moves
behind it. What was read but not counted comes again, so nothing is lost; nothing counted ever comes again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
from typing_extensions import override

from events.values import decode
from phaseline.client_errors import ClientError, Invalid, NotAllowed, NotFound, TimedOut, problem_of
from phaseline.event_stream import EventStream
from phaseline.event_types import Event
from phaseline.follow_link import CONNECT_S, SETTLED_S, Lost
from phaseline.reading import HEARTBEAT_S, WATCHDOG_BEATS, Listeners, Reading

_STOP = (Invalid, NotAllowed, NotFound)  # another attempt would be answered the same


class Feed(Reading):
    """`async for event in client.feed(cursor)`: goes on for ever, or without `follow` up to what there was.

    `cursor` is opaque, behind the last event that counts, None before the first; keep it with your own work and give it
    to go on. Events of one job come in their order, of different jobs in any. Raises `Invalid` for a cursor this service
    did not give out, `TimedOut` after `timeout_s`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        listeners: Listeners,
        *,
        cursor: str | None = None,
        follow: bool = True,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(listeners, timeout_s)
        self.cursor = cursor
        self.epoch: str | None = None  # of the log; another one after it was restored from a backup
        self._session = session
        self._url = url
        self._follow = follow
        self._watchdog_s = CONNECT_S
        self._caught_up_at: float | None = None

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        self._begin()
        while True:
            try:
                async with contextlib.aclosing(await self._open()) as stream:
                    while True:
                        identity, frame = await self._receive(stream)
                        if identity is not None:
                            event = cast(Event, frame)
                            await self._tell(event)
                            yield event
                            self.cursor = identity
                        elif self._control(stream, frame):
                            return
            except Lost as lost:
                self._settle()
                await self._pause(lost)

    async def _open(self) -> EventStream:
        self._watchdog_s, self._caught_up_at = CONNECT_S, None
        query = {} if self.cursor is None else {"cursor": self.cursor}
        try:
            async with asyncio.timeout(self._at_most(CONNECT_S)):
                response = await self._session.get(self._url, params=query, headers={"Accept": "text/event-stream"})
                if response.status == 200 and response.content_type == "text/event-stream":
                    return EventStream(response)
                async with response:
                    if response.status < 400:
                        raise ClientError(f"{self._url} is no feed; is it a Phaseline server?")
                    problem = problem_of(response.status, await response.read(), response.headers)
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            raise Lost(failure) from failure
        if isinstance(problem, _STOP):
            raise problem
        raise Lost(problem, problem.retry_after_s)

    async def _receive(self, stream: EventStream) -> tuple[str | None, dict[str, Any]]:
        limit_s = self._watchdog_s
        try:
            async with asyncio.timeout(self._at_most(limit_s)):
                identity, text = await stream.next()
        except TimeoutError as silence:
            self._at_most(limit_s)  # raises when it is the caller's time that is over, not the connection
            raise Lost(f"nothing arrived for {limit_s:.0f} s") from silence
        try:
            frame = decode(text)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            raise ClientError(f"{self._url} sent a frame that is no JSON object; is it a Phaseline server?")
        return identity, frame

    def _control(self, stream: EventStream, frame: dict[str, Any]) -> bool:
        """Whether this was the end."""
        match frame.get("type"):
            case "hello":
                self.epoch = frame.get("epoch")
                self._watchdog_s = WATCHDOG_BEATS * float(frame.get("heartbeat_s", HEARTBEAT_S))
                self._show("catching_up")
            case "caught_up":
                self.cursor = frame.get("cursor", self.cursor)
                self._caught_up_at = asyncio.get_running_loop().time()
                self._show("live")
                return not self._follow
            case "heartbeat":
                self.cursor = frame.get("cursor", self.cursor)
            case "goodbye":
                raise Lost("the server restarts", frame.get("reconnect_after_ms", 0) / 1000 or stream.retry_s)
            case _:
                pass  # a control frame newer than this client
        return False

    def _settle(self) -> None:
        caught_up = self._caught_up_at
        if caught_up is not None and asyncio.get_running_loop().time() - caught_up >= SETTLED_S:
            self._backoff.reset()

    @override
    def _late(self, limit_s: float) -> TimedOut:
        return TimedOut(f"the limit of {limit_s:g} s has passed; go on with the cursor {self.cursor}")

    def __repr__(self) -> str:
        return f"<Feed of {self._url} after {self.cursor}>"
