"""RFC 6455 by cases nobody here wrote: those of the Autobahn test suite, run by kosoku.

They are played against an echo with the sockets of our streams, and against one with aiohttp's own: what we set must
break nothing that works without it.
"""

from collections.abc import Callable

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from kosoku import FailureError, run_fuzzingclient

from gateway.connection import socket_of

# Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, fragments made of a large message. Not the cases of
# group 9, messages of up to 16 MiB: ours end at 64 KiB; nor 12 and 13, a thousand compressed messages each.
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
COUNT = 247
# docs/protocol.md lists them. 7.9.5: aiohttp answers the close code 1006, which must never be on a wire.
AIOHTTP_FAILS = {"7.9.5"}
AT_ONCE = 4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("compress", [False, True])
async def test_our_sockets_fail_no_case_of_rfc_6455_but_what_aiohttp_itself_fails(compress: bool):
    ours = await failed(lambda: socket_of(compress=compress))
    bare = await failed(lambda: web.WebSocketResponse(autoping=False, compress=compress))
    assert ours == bare == AIOHTTP_FAILS


async def failed(make: Callable[[], web.WebSocketResponse]) -> set[str]:
    """The cases that such a socket fails."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = make()
        await socket.prepare(request)
        async for frame in socket:
            match frame.type:
                case WSMsgType.TEXT:
                    await socket.send_str(frame.data)
                case WSMsgType.BINARY:
                    await socket.send_bytes(frame.data)
                case WSMsgType.PING:
                    await socket.pong(frame.data)
                case _:
                    pass
        return socket

    app = web.Application()
    app.add_routes([web.get("/", echo)])
    async with TestServer(app) as server:
        try:
            results = await run_fuzzingclient(f"ws://127.0.0.1:{server.port}/", CASES, concurrency=AT_ONCE)
        except FailureError as failure:
            results = failure.results
    assert len(results) == COUNT
    return {one.case_id for one in results if one.behavior.value in {"FAILED", "ERROR", "UNIMPLEMENTED"}}
