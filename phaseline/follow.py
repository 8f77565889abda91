"""Follows one job over the full WebSocket (docs/protocol.md §3, §6): every event once, in order, whatever breaks.

A sequence is remembered only after whoever got the event is done with it: callbacks returned and the loop body of
`async for` finished. So a program that stores `after` with its own work resumes exactly where that work ended.
One task does everything; nothing is buffered here: a slow reader slows the socket, and the server reads the log
again for it later.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
from typing_extensions import override

from events.catalog import FINAL
from events.values import decode, encode
from phaseline.client_errors import StreamRefused, TimedOut, refused, retry_after_of
from phaseline.event_types import Event
from phaseline.follow_link import CONNECT_S, Link, Lost
from phaseline.reading import FRAME_BYTES_MAX, HEARTBEAT_S, WATCHDOG_BEATS, Listeners, Reading

_FINISHED = frozenset({1000, 4000})
_STOP = frozenset({4004, 4400, 4401, 4403, 1002, 1003, 1007, 1009})
_STATUS_AFTER = {
    "submitted": "queued",
    "started": "running",
    "retry": "queued",
    "interrupted": "queued",
    "complete": "completed",
    "error": "failed",
    "cancelled": "cancelled",
    "reopened": "queued",
}
_CLOSING = aiohttp.ClientWSTimeout(ws_close=1.0)  # a frozen server does not hold the next connection up
_RETRY_AFTER = re.compile(r"retry_after=(\d+(?:\.\d+)?)")


class Follow(Reading):
    """`async for event in client.follow(job_id)`: ends when the job's stream ends, never delivers a sequence twice.

    `after` is the last sequence delivered, `epoch` the lineage it belongs to, `status` the newest status known (at
    the end: the job's), `connection` is `live`, `catching_up` or `waiting`. Raises `StreamRefused`, `NotFound`, `TimedOut`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        listeners: Listeners,
        *,
        after: int = 0,
        epoch: str | None = None,
        on_reset: Callable[[dict[str, Any]], Any] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(listeners, timeout_s)
        self.after = after
        self.epoch = epoch
        self.status = "queued"
        self.on_line: Callable[[str], None] | None = None  # gets the lines of a recording (docs/cli.md)
        self._session = session
        self._url = url
        self._on_reset = on_reset
        self._link: Link | None = None

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def wait(self) -> str:
        """Follows to the end for the callbacks' sake; returns the status at the end."""
        async for _ in self:
            pass
        return self.status

    async def drop(self) -> None:
        """Gives the connection up, as a broken network would; the follow reconnects after the last sequence."""
        if self._link is not None:
            self._link.dropped = True
            await self._link.socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)

    async def _events(self) -> AsyncIterator[Event]:
        self._begin()
        while True:
            try:
                async with contextlib.aclosing(await self._open()) as link:
                    while True:
                        for event in await self._receive(link):
                            await self._tell(event)
                            yield event
                            self._remember(link, event)
                            link.check_dropped()
            except Lost as lost:
                self._settle()
                await self._pause(lost)
            except _Finished:
                return
            finally:
                self._link = None

    # -- one connection
    async def _open(self) -> Link:
        query = {"after": str(self.after), "batch": "1"} | ({"epoch": self.epoch} if self.epoch else {})
        try:
            async with asyncio.timeout(self._at_most(CONNECT_S)):
                socket = await self._session.ws_connect(
                    self._url, params=query, max_msg_size=FRAME_BYTES_MAX, timeout=_CLOSING
                )
        except aiohttp.WSServerHandshakeError as refusal:
            if 400 <= refusal.status < 500 and refusal.status not in {408, 425, 429}:
                raise refused(refusal.status, f"the stream was refused with HTTP {refusal.status}") from refusal
            raise Lost(f"HTTP {refusal.status}", retry_after_of(refusal.headers or {})) from refusal
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            raise Lost(failure) from failure
        self._link = Link(socket)
        self._mark({"type": "connected", "job_id": self._url.split("/")[-2], "after": self.after})
        return self._link

    async def _receive(self, link: Link) -> list[Event]:
        """The events of the next frame; `[]` for a control frame. Raises `_Finished` or `Lost` at the end."""
        limit_s = link.watchdog_s
        try:
            async with asyncio.timeout(self._at_most(limit_s)):
                frame = await link.socket.receive()
        except TimeoutError as silence:
            self._at_most(limit_s)  # raises when it is the caller's time that is over, not the connection
            raise Lost(f"nothing arrived for {limit_s:.0f} s") from silence
        match frame.type:
            case aiohttp.WSMsgType.TEXT:
                if self.on_line is not None:
                    self.on_line(frame.data)
                return await self._read(link, _decoded(frame.data))
            case aiohttp.WSMsgType.CLOSE if not link.dropped:
                self._mark({"type": "closed", "code": frame.data or 1005})
                raise self._closed(link, frame.data or 1005, frame.extra or "")
            case aiohttp.WSMsgType.ERROR if isinstance(frame.data, aiohttp.WebSocketError):
                raise StreamRefused(frame.data.code, str(frame.data))
            case _:
                raise Lost(f"connection {frame.type.name.lower()}", link.hint_s)

    async def _read(self, link: Link, frame: dict[str, Any]) -> list[Event]:
        match frame.get("type"):
            case "batch":
                return self._unseen(frame["events"])
            case "hello":
                self._greet(link, frame)
            case "caught_up":
                link.caught_up = True
                self._show("live")
            case "heartbeat":
                link.check_head(frame.get("seq", 0), self.after)
            case "reset":
                await self._start_over(link, frame)
            case "goodbye":
                link.hint_s = frame.get("reconnect_after_ms", 0) / 1000
            case "command_error":
                link.complaint = str(frame.get("message", ""))
            case _:
                # Control frames newer than this client carry no `seq` of an event and are passed over.
                return self._unseen([cast(Event, frame)]) if "job_id" in frame and "seq" in frame else []
        return []

    def _greet(self, link: Link, hello: dict[str, Any]) -> None:
        link.greeted = True
        link.epoch = hello.get("epoch")
        if hello.get("resume") != "reset":
            self.epoch = link.epoch  # after a reset ours stays with our sequence until the snapshot is taken
        self.status = hello.get("status", self.status)
        link.watchdog_s = WATCHDOG_BEATS * float(hello.get("heartbeat_s", HEARTBEAT_S))
        self._show("catching_up")

    def _unseen(self, events: list[Event]) -> list[Event]:
        fresh = [event for event in events if event["seq"] > self.after]
        if [event["seq"] for event in fresh] != list(range(self.after + 1, self.after + 1 + len(fresh))):
            raise Lost("a sequence is missing")
        return fresh

    async def _start_over(self, link: Link, reset: dict[str, Any]) -> None:
        """The log knows nothing of our sequence, such as after a restore: take its snapshot and go on from there."""
        snapshot: dict[str, Any] = reset.get("snapshot") or {}
        head = int(snapshot.get("seq", reset.get("head_seq", 0)))
        self.status = snapshot.get("status", self.status)
        if self._on_reset is not None:
            await self._heed(self._on_reset, snapshot)  # before the next event
        # Of a finished job the terminal event comes again, so that a reader who waits for it gets it.
        self.after = head - 1 if self.status in FINAL and head else head
        self.epoch = link.epoch

    def _closed(self, link: Link, code: int, reason: str) -> Exception:
        if code in _FINISHED and link.greeted:  # before its `hello` it was something in between that closed
            return _Finished()
        if code in _STOP:
            return StreamRefused(code, link.complaint or reason)
        hint = _RETRY_AFTER.search(reason)
        return Lost(f"close code {code} {reason}".strip(), float(hint[1]) if hint else link.hint_s)

    def _mark(self, marker: dict[str, Any]) -> None:
        if self.on_line is not None:
            self.on_line(encode(marker).decode())

    # -- delivering
    def _remember(self, link: Link, event: Event) -> None:
        self.after, self.epoch = event["seq"], link.epoch
        self.status = _STATUS_AFTER.get(event["type"], self.status)

    # -- between connections
    def _settle(self) -> None:
        if self._link is not None and self._link.settled():
            self._backoff.reset()

    @override
    def _late(self, limit_s: float) -> TimedOut:
        return TimedOut(f"the job did not end within {limit_s:g} s; it goes on", self.after)

    def __repr__(self) -> str:
        return f"<Follow of {self._url} after sequence {self.after}>"


def _decoded(text: str) -> dict[str, Any]:
    try:
        frame = decode(text)
    except ValueError:
        frame = None
    if not isinstance(frame, dict):
        raise StreamRefused(aiohttp.WSCloseCode.PROTOCOL_ERROR, "a frame was no JSON object; is this Phaseline?")
    return frame


class _Finished(Exception):
    """The stream's end was sent."""
