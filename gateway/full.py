"""The full protocol on one socket: hello, every event once and in order, caught up, the end (docs/protocol.md §3)."""

from collections.abc import Sequence
from functools import partial

from events import crash_points
from gateway import frames
from gateway.artifacts import inlined
from gateway.connection import Connection, Ending
from gateway.deps import Deps
from gateway.direct import Direct, batched, plain
from gateway.following import RESET_BYTES_MAX, FullQuery, Place, reconnect_ms
from gateway.ring import Entry
from gateway.traced import FrameTrace, frame_trace
from gateway.viewer import Leaving


class FullStream:
    """One viewer's conversation."""

    __slots__ = ("_deps", "_place", "_query", "_trace", "_viewer")

    def __init__(self, place: Place, query: FullQuery, deps: Deps) -> None:
        self._place = place
        self._query = query
        self._viewer = place.viewer
        self._deps = deps
        self._trace: FrameTrace | None = None

    async def talk(self, connection: Connection) -> Ending:
        """Serves the stream to its end."""
        connection.heartbeat_s = self._query.heartbeat_s
        connection.heartbeat = self._heartbeat
        await self._greet(connection)
        self._trace = await frame_trace(self._deps, self._place.job_id)
        viewer = self._viewer
        told = False
        while True:
            if not told and viewer.caught_up:
                told = True
                await connection.send(self._place.caught_up())
                if self._trace is None:
                    viewer.direct = Direct(viewer, connection, batched if self._query.batch else plain)
            if status := viewer.over:
                crash_points.reached("stream.ended")
                return Ending(4000 if status == "failed" else 1000, status)
            try:
                entries = await viewer.next(connection.wait_s())
            except Leaving as leaving:
                await connection.send(frames.goodbye(leaving.reason, reconnect_ms()))
                return Ending(1012, leaving.reason)
            await self._send(connection, entries)
            if self._trace is not None:
                self._trace.sent(entries)
            del entries  # or an idle viewer would keep them from the ring
            if not told and not viewer.caught_up:
                crash_points.reached("stream.replaying")
            await connection.tick()

    async def _greet(self, connection: Connection) -> None:
        place = self._place
        await connection.send(place.hello(self._query, self._deps))
        if place.reason is not None:
            await connection.send_large(place.reset_key, RESET_BYTES_MAX, partial(place.reset, self._deps.log))

    def _heartbeat(self) -> bytes:
        return frames.heartbeat(self._viewer.head)

    async def _send(self, connection: Connection, entries: Sequence[Entry]) -> None:
        lines: list[bytes] = []
        for entry in entries:
            if self._query.inline and (ref := frames.ref_of(entry)) is not None:
                await self._send_lines(connection, lines)
                lines = []
                key = (self._place.job_id, entry.seq, self._query.batch)
                make = partial(self._inlined, entry, ref.sha256)
                await connection.send_large(key, ref.size, make)
            else:
                lines.append(entry.line)
        await self._send_lines(connection, lines)

    async def _send_lines(self, connection: Connection, lines: list[bytes]) -> None:
        if self._query.batch and lines:
            await connection.send(frames.batch(lines))
        else:
            await connection.send_all(lines)

    async def _inlined(self, entry: Entry, sha256: str) -> bytes:
        line = await inlined(self._deps.log, self._place.job_id, entry, sha256)
        return frames.batch([line]) if self._query.batch else line
