"""Connections to receivers are kept for what their lane is sent next: for nobody else, not for long, and never more than places."""

import asyncio
import re
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from events.webhook_sender import Sender, sender
from tests.ports import free_port
from tests.webhooks.conftest import BOUND_S, LOOPBACK, Scene
from tests.webhooks.receiver import Receiver, certificate, receiving, well

TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
LONG_S = 600.0
Says = Callable[[int, int], bytes | None]


class Lines:
    """Counts connections. `says` answers the nth request on a connection, both counted from 0; None closes it unanswered.
    `got` are (connection, body)."""

    def __init__(self, says: Says) -> None:
        self.says = says
        self.opened = 0
        self.open: set[int] = set()
        self.got: list[tuple[int, str]] = []
        self.url = ""
        self._changed = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, requests = self.opened, 0
        self.opened += 1
        self.open.add(number)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
                self.got.append((number, (await reader.readexactly(length)).decode()))
                said = self.says(number, requests)
                if said is None:
                    break
                writer.write(said)
                await writer.drain()
                requests += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(number)
            writer.close()
            async with self._changed:
                self._changed.notify_all()

    async def until_open(self, most: int) -> None:
        """Waits until no more are open than this."""
        async with asyncio.timeout(BOUND_S), self._changed:
            await self._changed.wait_for(lambda: len(self.open) <= most)

    @property
    def used(self) -> list[int]:
        return [number for number, _ in self.got]

    def lane(self, tenant: str = "default") -> tuple[str, str]:
        """What `send` is told besides the content."""
        return f"{tenant} {self.url}", f"{self.url}/hook"


def taken(_: int, __: int) -> bytes:
    return TAKEN


@asynccontextmanager
async def lines(says: Says = taken, host: str = "127.0.0.1", port: int | None = None) -> AsyncIterator[Lines]:
    made = Lines(says)
    port = port or free_port()
    made.url = f"http://{host}:{port}"
    async with await asyncio.start_server(made.serve, host, port):
        yield made
        await made.until_open(0)  # whoever connected has closed


@asynccontextmanager
async def sending(places: int = 8, timeout_s: float = 20.0) -> AsyncIterator[Sender]:
    async with sender(LOOPBACK, timeout_s, places, "phaseline/test") as sends:
        yield sends


@pytest.fixture(autouse=True)
def _kept_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, nothing ends by time but where a test says so."""
    monkeypatch.setattr("events.webhook_sender.IDLE_S", LONG_S)
    monkeypatch.setattr("events.webhook_sender.KEPT_S", LONG_S)


async def test_what_comes_one_after_the_other_has_one_connection_and_it_ends_with_the_sender():
    async with lines() as receiver:
        async with sending() as sends:
            for number in range(5):
                assert (await sends.send(*receiver.lane(), {}, f"{number}")).good
            assert receiver.open == {0}
        await receiver.until_open(0)
    assert receiver.got == [(0, f"{number}") for number in range(5)]


async def test_no_other_tenant_and_no_other_host_gets_a_lanes_connection():
    async with lines() as receiver, lines() as another, sending() as sends:
        for _ in range(2):
            for lane in (receiver.lane("a"), receiver.lane("b"), another.lane("a")):
                assert (await sends.send(*lane, {}, "")).good
    assert (receiver.used, another.used) == ([0, 1, 0, 1], [0, 0])


async def test_of_many_lanes_no_more_are_kept_than_there_are_places():
    async with lines() as receiver, sending(places=3) as sends:
        for number in range(7):
            await sends.send(*receiver.lane(f"t{number}"), {}, "")
        await receiver.until_open(3)
        assert receiver.open == {4, 5, 6}  # those used last
        await sends.send(*receiver.lane("t4"), {}, "")
        await sends.send(*receiver.lane("new"), {}, "")
        await receiver.until_open(3)
        assert receiver.open == {4, 6, 7}


async def test_of_a_lane_with_many_at_once_no_more_are_kept_than_there_are_places():
    async with lines() as receiver, sending(places=4) as sends:
        await asyncio.gather(*(sends.send(*receiver.lane("busy"), {}, "") for _ in range(4)))
        assert len(receiver.open) == 4
        await asyncio.gather(*(sends.send(*receiver.lane("busy"), {}, "") for _ in range(4)))
        assert receiver.opened == 4
        await sends.send(*receiver.lane("another"), {}, "")
        await receiver.until_open(1)
        assert receiver.open == {4}


async def test_an_unused_connection_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("events.webhook_sender.IDLE_S", 0.1)
    async with lines() as receiver, sending() as sends:
        assert (await sends.send(*receiver.lane(), {}, "")).good
        await receiver.until_open(0)


async def test_a_name_is_looked_up_again_when_its_connections_are_old_and_judged_again(monkeypatch: pytest.MonkeyPatch):
    """The name is 127.0.0.1, which is allowed here, and then 127.0.0.2, which is not."""
    now, address, asked = [0.0], ["127.0.0.1"], list[str]()
    real = socket.getaddrinfo

    def names(host: str, port: Any, *args: Any, **more: Any) -> Any:
        if host != "moving.example":
            return real(host, port, *args, **more)
        asked.append(address[0])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address[0], port))]

    monkeypatch.setattr(socket, "getaddrinfo", names)
    monkeypatch.setattr("events.webhook_sender.KEPT_S", 30.0)
    monkeypatch.setattr("events.webhook_sender.monotonic", lambda: now[0])
    async with lines() as first:
        port = int(first.url.rpartition(":")[2])
        lane = f"default http://moving.example:{port}", f"http://moving.example:{port}/hook"
        async with lines(host="127.0.0.2", port=port) as second, sending() as sends:
            assert (await sends.send(*lane, {}, "")).good
            address[0] = "127.0.0.2"
            now[0] = 29.9
            assert (await sends.send(*lane, {}, "")).good
            now[0] = 30.0
            assert (await sends.send(*lane, {}, "")).failure == "address_not_allowed"
            assert (await sends.send("other" + lane[0], lane[1], {}, "")).failure == "address_not_allowed"
            await first.until_open(0)
    assert (first.used, second.opened) == ([0, 0], 0)
    assert asked == ["127.0.0.1", "127.0.0.2", "127.0.0.2"]


@pytest.mark.parametrize(
    "said, good",
    [
        (b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 307 Elsewhere\r\nContent-Length: 0\r\nLocation: /\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nand so on", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nand\r\n", True),
        (b"no HTTP\r\n\r\n", False),
    ],
)  # fmt: skip
async def test_after_anything_but_a_whole_good_answer_a_connection_is_not_kept(said: bytes, good: bool):
    async with lines(lambda number, _: TAKEN if number else said) as receiver, sending() as sends:
        assert (await sends.send(*receiver.lane(), {}, "")).good is good
        await receiver.until_open(0)
        for _ in range(2):
            assert (await sends.send(*receiver.lane(), {}, "")).good
    assert receiver.used == [0, 1, 1]


async def test_what_fails_ends_all_connections_of_its_lane():
    bad = False
    async with (
        lines(lambda *_: b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" if bad else TAKEN) as receiver,
        sending() as sends,
    ):
        await asyncio.gather(*(sends.send(*receiver.lane(), {}, "") for _ in range(2)))
        assert len(receiver.open) == 2
        bad = True
        assert (await sends.send(*receiver.lane(), {}, "")).status == 500
        await receiver.until_open(0)


async def test_one_that_is_silent_is_given_up_and_not_used_again():
    async with (
        lines(lambda number, nth: b"" if (number, nth) == (0, 1) else TAKEN) as receiver,
        sending() as sends,
    ):
        assert (await sends.send(*receiver.lane(), {}, "")).good
        sends._timeout_s = 2.0  # of this one alone: the others may meet a machine that is slow
        assert (await sends.send(*receiver.lane(), {}, "")).failure == "timeout"
        sends._timeout_s = 20.0
        await receiver.until_open(0)
        assert (await sends.send(*receiver.lane(), {}, "")).good
    assert receiver.used == [0, 0, 1]


def sockets_to(port: int) -> int:
    """How many a process of this machine holds, closed by its own account or not."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[9] != "0" for row in rows)


@pytest.mark.filterwarnings(
    "ignore:Sending a large body:ResourceWarning"
)  # more than buffers hold, and than any webhook
@pytest.mark.skipif(sys.platform != "linux", reason="the bound is Linux's")
async def test_what_a_receiver_never_reads_holds_no_socket_of_ours():
    with socket.create_server(("127.0.0.1", free_port())) as listening:
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with sending(timeout_s=2.0) as sends:
            assert (await sends.send(f"default {url}", url, {}, "x" * 8_000_000)).failure == "timeout"
            accepted, _ = listening.accept()
            with accepted:
                async with asyncio.timeout(BOUND_S):
                    while sockets_to(port):  # noqa: ASYNC110 the system ends it, and tells nobody
                        await asyncio.sleep(0.02)


async def test_what_met_a_connection_that_was_just_closed_is_sent_once_more_on_a_new_one():
    async with lines(lambda number, nth: TAKEN if number == 2 or nth == 0 else None) as receiver, sending() as sends:
        await asyncio.gather(*(sends.send(*receiver.lane(), {}, "first") for _ in range(2)))
        assert (await sends.send(*receiver.lane(), {}, "second")).good
        await receiver.until_open(1)  # nor is the other one trusted
    assert [body for _, body in receiver.got] == ["first", "first", "second", "second"]
    assert receiver.used[2] in (0, 1)
    assert receiver.used[3] == 2


async def test_what_a_new_connection_does_not_answer_has_failed():
    async with lines(lambda number, nth: TAKEN if (number, nth) == (0, 0) else None) as receiver, sending() as sends:
        assert (await sends.send(*receiver.lane(), {}, "")).good
        for _ in range(2):
            assert (await sends.send(*receiver.lane(), {}, "")).failure == "broken"
    assert receiver.used == [0, 0, 1, 2]  # the kept one and a new one; then a new one alone


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_deliveries_of_a_lane_share_a_connection(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
):
    tls, authority = certificate(tmp_path)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=str(authority)))
    peers: list[Any] = []

    async def noting(receiver: Receiver, request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return await well(receiver, request)

    await scene.sign()
    await scene.sign(tenant="other")
    async with receiving(noting, tls=tls if secure else None) as receiver, scene.delivering():
        for tenant in ("default", "other", "default", "other", "default"):
            owed = await scene.settled(await scene.completed(receiver.url, tenant=tenant))
            assert [one.status for one in owed.tried] == [204]
        receiver.verified(scene.secret)
    assert len(set(peers)) == 2
    assert peers == [peers[0], peers[1]] * 2 + [peers[0]]
