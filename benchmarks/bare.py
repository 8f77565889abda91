"""The floor of every fan-out: an aiohttp server that sends the same texts to all its sockets, and nothing else.

Run as `python -m benchmarks.bare`, asked as the crowd is (see asked.py).
"""

import asyncio
import json
import sys
import time
from typing import Any

from aiohttp import WSCloseCode, web

_BODY = ',"type":"partial","attempt":1,"timestamp":"2026-11-24T08:00:00.123Z","actor":"worker:bench","phase":"working",'


class Bare:
    """The sockets, and a loop over them."""

    def __init__(self) -> None:
        self._sockets: list[web.WebSocketResponse] = []
        self._runner: web.AppRunner | None = None

    async def listen(self) -> dict[str, Any]:
        """Opens the server."""
        app = web.Application()
        app.router.add_get("/", self._accept)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=4096).start()
        return {"url": f"http://127.0.0.1:{self._runner.addresses[0][1]}"}

    async def send(self, start: int, events: int, size: int) -> dict[str, Any]:
        """So many texts of about this size to everyone, from sequence `start` on; `began_ns` is on the system's monotonic clock."""
        texts = [_text(seq, size) for seq in range(start, start + events)]
        began = time.perf_counter_ns()
        for text in texts:
            for socket in self._sockets:
                await socket.send_str(text)
        return {"began_ns": began, "sockets": len(self._sockets)}

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await socket.send_str('{"type":"caught_up","seq":0}')
        self._sockets.append(socket)
        try:
            async for _ in socket:
                pass
        finally:
            self._sockets.remove(socket)
            await socket.close(code=WSCloseCode.GOING_AWAY)
        return socket


def _text(seq: int, size: int) -> str:
    said = f'{{"job_id":"01a20ca3-8f44-71e6-954e-9ff94174bd64","seq":{seq}{_BODY}"text":"'
    return said + "x" * max(size - len(said) - 2, 0) + '"}'


async def serve() -> None:
    """Answers commands until standard input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    bare = Bare()
    while line := await reader.readline():
        asked = json.loads(line)
        answer = await getattr(bare, asked.pop("do"))(**asked)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve())
