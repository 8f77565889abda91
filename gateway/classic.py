"""The classic protocol on one socket: progress, complete, error, heartbeat, and nothing else (docs/protocol.md §3)."""

from collections.abc import Sequence

from events.catalog import FINAL, TERMINAL, Ref
from events.job import Job
from gateway import frames
from gateway.artifacts import stored
from gateway.connection import Connection, Ending
from gateway.deps import Deps
from gateway.direct import Direct, classic
from gateway.ring import Entry
from gateway.viewer import Leaving, Viewer

HEARTBEAT_S = 2.0


class ClassicStream:
    """One viewer's conversation; `job` is the state at the sequence the viewer begins after."""

    def __init__(self, job: Job, viewer: Viewer, deps: Deps) -> None:
        self._job = job
        self._viewer = viewer
        self._deps = deps
        self._last: Entry | None = None  # a terminal event that is sent only if nothing follows it

    async def talk(self, connection: Connection) -> Ending:
        """Serves the stream to its end."""
        clock, job = self._deps.clock, self._job
        connection.heartbeat_s = HEARTBEAT_S
        connection.heartbeat = lambda: frames.classic_heartbeat(clock.now_ms())
        if job.status not in FINAL:
            state = frames.classic_state(job.status, job.progress, job.phase, seq=job.last_seq, now_ms=clock.now_ms())
            await connection.send(state)
        try:
            return await self._follow(connection)
        except Leaving as leaving:
            return Ending(1012, leaving.reason)

    async def _follow(self, connection: Connection) -> Ending:
        direct = Direct(self._viewer, connection, classic)
        while True:
            if status := self._viewer.over:
                if self._last is not None:
                    await self._send_last(connection, self._last)
                return Ending(1000 if status == "completed" else 4000, status)
            self._viewer.direct = direct if self._last is None else None
            await self._send(connection, await self._viewer.next(connection.wait_s()))
            await connection.tick()

    async def _send(self, connection: Connection, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._last = entry if entry.type in TERMINAL else None
            if self._last is None and (frame := frames.classic_of(entry)):
                await connection.send(frame)

    async def _send_last(self, connection: Connection, entry: Entry) -> None:
        ref = frames.ref_of(entry) if entry.type == "complete" else None
        if ref is None:
            await connection.send(frames.classic_of(entry))
        else:
            key = (self._job.id, entry.seq, "classic")
            await connection.send_large(key, ref.size, lambda: self._with_result(entry, ref))

    async def _with_result(self, entry: Entry, ref: Ref) -> bytes:
        body = await stored(self._deps.log, self._job.id, ref.sha256)
        if body is None:
            raise Ending(1011, "the result is gone")
        return frames.classic(entry, body)
