"""The full protocol on one socket: hello, every event once and in order, caught up, the end (docs/protocol.md §3)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from events.catalog import FINAL
from events.log import Head
from gateway import frames
from gateway.artifacts import stored
from gateway.connection import Connection, Ending
from gateway.deps import Deps
from gateway.problems import bad_parameter
from gateway.queries import Query
from gateway.ring import Entry
from gateway.splice import with_results
from gateway.viewer import Leaving, Viewer

HEARTBEAT_S = (2, 30)
PARAMETERS = ("after", "last", "batch", "epoch", "heartbeat", "results")
RECONNECT_MS = (500, 5000)  # where a planned close sends clients, drawn evenly


@dataclass(frozen=True, slots=True)
class FullQuery:
    """What a client asked for. `last` is None when it asked with `after`."""

    after: int
    last: int | None
    epoch: str | None
    batch: bool
    inline: bool
    heartbeat_s: float

    @classmethod
    def of(cls, request: web.Request, heartbeat_s: float) -> "FullQuery":
        """Reads the query. Raises the `Problem` naming the parameter that is wrong."""
        query = Query(request, *PARAMETERS)
        if "after" in query and "last" in query:
            raise bad_parameter("last", "cannot be given together with after")
        asked_s = query.number("heartbeat", 0, least=HEARTBEAT_S[0], most=HEARTBEAT_S[1])
        return cls(
            after=query.number("after", 0),
            last=query.number("last", 0) if "last" in query else None,
            epoch=query.text("epoch"),
            batch=query.flag("batch"),
            inline=query.choice("results", ("inline", "ref"), "ref") == "inline",
            heartbeat_s=float(asked_s or heartbeat_s),
        )

    def unusable(self, head: Head, epoch: str) -> str | None:
        """Why `after` cannot be served. From the start anything can."""
        if self.after and self.epoch is not None and self.epoch != epoch:
            return "epoch_changed"
        return "seq_ahead" if self.after > head.seq else None

    def start(self, head: Head, *, reset: bool) -> int:
        """After which sequence to begin. After a reset of a finished job its terminal event is sent again."""
        if reset:
            return head.seq - (head.status in FINAL)
        return self.after if self.last is None else max(head.seq - self.last, 0)

    def resume(self, *, reset: bool) -> str:
        """The word for `hello`."""
        return "reset" if reset else "resumed" if self.after else "fresh"


class FullStream:
    """One viewer's conversation. `snapshot` is the `reset` frame when `after` could not be served."""

    def __init__(
        self, job_id: str, query: FullQuery, head: Head, viewer: Viewer, deps: Deps, snapshot: bytes | None
    ) -> None:
        self._job_id = job_id
        self._query = query
        self._head = head
        self._viewer = viewer
        self._deps = deps
        self._snapshot = snapshot

    async def talk(self, connection: Connection) -> Ending:
        """Serves the stream to its end."""
        connection.heartbeat_s = self._query.heartbeat_s
        connection.heartbeat = lambda: frames.heartbeat(self._viewer.head)
        await connection.send(self._hello())
        if self._snapshot is not None:
            await connection.send(self._snapshot)
        try:
            return await self._follow(connection)
        except Leaving as leaving:
            await connection.send(frames.goodbye(leaving.reason, random.randint(*RECONNECT_MS)))  # noqa: S311 jitter
            return Ending(1012, leaving.reason)

    async def _follow(self, connection: Connection) -> Ending:
        viewer = self._viewer
        told = False
        while True:
            if not told and viewer.caught_up:
                told = True
                await connection.send(frames.caught_up(viewer.seq))
            if status := viewer.over:
                return Ending(4000 if status == "failed" else 1000, status)
            await self._send(connection, await viewer.next(connection.wait_s()))
            await connection.tick()

    async def _send(self, connection: Connection, entries: Sequence[Entry]) -> None:
        lines: list[bytes] = []
        for entry in entries:
            if self._query.inline and (ref := frames.ref_of(entry)) is not None:
                await self._send_lines(connection, lines)
                lines = []
                await connection.send_large(ref.size, lambda e=entry, sha=ref.sha256: self._inlined(e, sha))  # type: ignore[misc]
            else:
                lines.append(entry.line)
        await self._send_lines(connection, lines)

    async def _send_lines(self, connection: Connection, lines: list[bytes]) -> None:
        if self._query.batch and lines:
            await connection.send(frames.batch(lines))
        elif lines:
            for line in lines:
                await connection.send(line)

    async def _inlined(self, entry: Entry, sha256: str) -> bytes:
        body = await stored(self._deps.log, self._job_id, sha256)
        line = entry.line if body is None else with_results(entry.line, body)
        return frames.batch([line]) if self._query.batch else line

    def _hello(self) -> bytes:
        return frames.hello(
            self._job_id,
            self._head,
            epoch=self._deps.log.epoch,
            resume=self._query.resume(reset=self._snapshot is not None),
            heartbeat_s=self._query.heartbeat_s,
            now_ms=self._deps.clock.now_ms(),
        )
