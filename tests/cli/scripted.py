"""A WebSocket server that plays what a test wrote: for frames a healthy gateway sends once in a year."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSCloseCode, web

JOB = "01900000-0000-7000-8000-000000000001"

Frame = dict[str, Any]


@dataclass(frozen=True)
class Closes:
    """The server closes in order."""

    code: int = WSCloseCode.OK
    reason: str = ""


@dataclass(frozen=True)
class Breaks:
    """The connection is cut without a word."""


@dataclass(frozen=True)
class FallsSilent:
    """Nothing comes any more, until the client gives up."""


Play = tuple[Sequence[Frame | str], Closes | Breaks | FallsSilent]  # a text is sent as it stands


@dataclass
class Scripted:
    """Plays one script per connection, the last one again and again. `queries` is what each connection asked."""

    plays: list[Play]
    url: str = ""
    queries: list[dict[str, str]] = field(default_factory=list)

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        frames, ending = self.plays[min(len(self.queries), len(self.plays) - 1)]
        self.queries.append(dict(request.query))
        for frame in frames:
            await (socket.send_str(frame) if isinstance(frame, str) else socket.send_json(frame))
        match ending:
            case Closes(code, reason):
                await socket.close(code=code, message=reason.encode())
            case Breaks():
                assert request.transport is not None
                request.transport.abort()
            case FallsSilent():
                async for _ in socket:
                    pass
        return socket


@asynccontextmanager
async def scripted(*plays: Play) -> AsyncIterator[Scripted]:
    """A server playing these scripts on a free port."""
    server = Scripted(list(plays))
    app = web.Application()
    app.router.add_get("/api/v1/jobs/{job_id}/stream", server.stream)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def hello(**fields: Any) -> Frame:
    return {"type": "hello", "status": "running", "epoch": "e1", "resume": "resumed", "heartbeat_s": 15, **fields}


def event(seq: int, kind: str = "log", **fields: Any) -> Frame:
    return {"job_id": JOB, "seq": seq, "type": kind, "attempt": 1, "timestamp": "2026-11-24T08:00:00.000Z", **fields}


def batch(*seqs: int) -> Frame:
    return {"type": "batch", "events": [event(seq) for seq in seqs]}


CAUGHT_UP: Frame = {"type": "caught_up", "seq": 0}
END: Play = ([hello(), CAUGHT_UP], Closes())
