"""Follows one job over the full WebSocket (docs/protocol.md §3, §6): every event once, in order, whatever breaks.

A sequence is remembered only after whoever got the event is done with it: callbacks returned and the loop body of
`async for` finished. So a program that stores `after` with its own work resumes exactly where that work ended.
One task does everything; nothing is buffered here: a slow reader slows the socket, and the server reads the log
again for it later.
"""

import asyncio
import contextlib
import inspect
import logging
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

import aiohttp

from events.catalog import FINAL
from events.values import decode
from phaseline.backoff import Backoff
from phaseline.client_errors import StreamRefused, TimedOut, refused, retry_after_of
from phaseline.follow_link import CONNECT_S, Link, Lost

Event = dict[str, Any]
Connection = Literal["live", "catching_up", "waiting"]
Callback = Callable[[Event], Any]

HEARTBEAT_S = 15.0  # until the `hello` says otherwise
WATCHDOG_BEATS = 2.5
CALLBACK_S = 60.0  # an async callback that needs longer is given up and logged
FRAME_BYTES_MAX = 32 * 1024 * 1024  # a batch is 64 KiB, but one event with its result inline may be larger

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

log = logging.getLogger(__name__)


class Follow:
    """`async for event in client.follow(job_id)`: ends when the job's stream ends, never delivers a sequence twice.

    `after` is the last sequence delivered, `epoch` the lineage it belongs to, `status` the newest status known (at
    the end: the job's), `connection` is `live`, `catching_up` or `waiting`. Raises `StreamRefused`, `NotFound`, `TimedOut`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        after: int = 0,
        epoch: str | None = None,
        on_event: Sequence[Callback] = (),
        on_connection: Callable[[Connection], None] | None = None,
        on_reset: Callable[[dict[str, Any]], None] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.after = after
        self.epoch = epoch
        self.status = "queued"
        self.connection: Connection = "waiting"
        self._session = session
        self._url = url
        self._on_event = tuple(on_event)
        self._on_connection = on_connection
        self._on_reset = on_reset
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self._backoff = Backoff(random.SystemRandom().random)
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
        if self._timeout_s is not None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout_s
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
                self._show("waiting")
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
                return self._read(link, _decoded(frame.data))
            case aiohttp.WSMsgType.CLOSE if not link.dropped:
                raise self._closed(link, frame.data or 1005, frame.extra or "")
            case aiohttp.WSMsgType.ERROR if isinstance(frame.data, aiohttp.WebSocketError):
                raise StreamRefused(frame.data.code, str(frame.data))
            case _:
                raise Lost(f"connection {frame.type.name.lower()}", link.hint_s)

    def _read(self, link: Link, frame: dict[str, Any]) -> list[Event]:
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
                self._start_over(link, frame)
            case "goodbye":
                link.hint_s = frame.get("reconnect_after_ms", 0) / 1000
            case "command_error":
                link.complaint = str(frame.get("message", ""))
            case _:
                # Control frames newer than this client carry no `seq` of an event and are passed over.
                return self._unseen([frame]) if "job_id" in frame and "seq" in frame else []
        return []

    def _greet(self, link: Link, hello: dict[str, Any]) -> None:
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

    def _start_over(self, link: Link, reset: dict[str, Any]) -> None:
        """The log knows nothing of our sequence, such as after a restore: take its snapshot and go on from there."""
        snapshot: dict[str, Any] = reset.get("snapshot") or {}
        head = int(snapshot.get("seq", reset.get("head_seq", 0)))
        self.status = snapshot.get("status", self.status)
        if self._on_reset is not None:
            self._on_reset(snapshot)
        # Of a finished job the terminal event comes again, so that a reader who waits for it gets it.
        self.after = head - 1 if self.status in FINAL and head else head
        self.epoch = link.epoch

    def _closed(self, link: Link, code: int, reason: str) -> Exception:
        if code in _FINISHED:
            return _Finished()
        if code in _STOP:
            return StreamRefused(code, link.complaint or reason)
        hint = _RETRY_AFTER.search(reason)
        return Lost(f"close code {code} {reason}".strip(), float(hint[1]) if hint else link.hint_s)

    # -- delivering
    async def _tell(self, event: Event) -> None:
        for callback in self._on_event:
            try:
                answer = callback(event)
                if inspect.isawaitable(answer):
                    async with asyncio.timeout(CALLBACK_S):
                        await answer
            except Exception:
                # A reader that breaks harms no other reader and not the stream.
                log.exception("a callback of the follow failed at sequence %s", event["seq"])

    def _remember(self, link: Link, event: Event) -> None:
        self.after, self.epoch = event["seq"], link.epoch
        self.status = _STATUS_AFTER.get(event["type"], self.status)

    # -- between connections
    def _settle(self) -> None:
        if self._link is not None and self._link.settled():
            self._backoff.reset()

    async def _pause(self, lost: Lost) -> None:
        wait_s = self._backoff.next_s(lost.hint_s)
        log.debug("follow of %s waits %.2f s after sequence %d: %s", self._url, wait_s, self.after, lost)
        await asyncio.sleep(self._at_most(wait_s))

    def _at_most(self, seconds: float) -> float:
        """`seconds`, or what is left of the whole limit. Raises `TimedOut` when nothing is."""
        if self._deadline is None:
            return seconds
        left_s = self._deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise TimedOut(f"the job did not end within {self._timeout_s:g} s; it goes on", self.after)
        return min(seconds, left_s)

    def _show(self, connection: Connection) -> None:
        if connection != self.connection:
            self.connection = connection
            if self._on_connection is not None:
                self._on_connection(connection)


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
