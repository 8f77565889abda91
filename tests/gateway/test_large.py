"""A tenant that reads large answers slowly does not keep other tenants' from being sent (`gateway/large.py`)."""

import asyncio
import hashlib
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.large import LargeBodies, TooSlow
from gateway.sockets import SOCKETS
from tests.crowd import peer
from tests.gateway.driving import Driver, Gateway, Storage, eventually
from tests.gateway.keyring import Credential, keys_of, make


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.large.PATIENCE_S", 0.05)  # `READ_S` stays a minute: it ends nothing here


class Readers:
    """Who reads a body until it is told to stop, and what became of it."""

    def __init__(self, large: LargeBodies, tasks: asyncio.TaskGroup) -> None:
        self.large = large
        self.tasks = tasks
        self.reading: list[str] = []  # in the order they began
        self.sent_away: list[str] = []
        self._done: dict[str, asyncio.Event] = {}

    def begin(self, name: str, size: int) -> None:
        """`name` is the tenant and a number."""
        self._done[name] = asyncio.Event()
        self.tasks.create_task(self._read(name, size))

    def end(self, *names: str) -> None:
        for name in names:
            self._done[name].set()

    async def _read(self, name: str, size: int) -> None:
        async def body() -> bytes:
            return b"x" * size

        try:
            async with self.large.body(name[0], name, size, body):
                self.reading.append(name)
                await self._done[name].wait()
        except TooSlow:
            self.sent_away.append(name)


async def test_who_has_more_than_its_share_makes_room_for_another_tenant_that_waits():
    async with asyncio.TaskGroup() as tasks:
        readers = Readers(LargeBodies(100), tasks)
        for n in range(5):
            readers.begin(f"a{n}", 25)  # the last one waits
        await eventually(lambda: readers.reading == ["a0", "a1", "a2", "a3"])
        readers.begin("b0", 40)
        await eventually(lambda: readers.reading[4:] == ["b0"])
        assert readers.sent_away == ["a0", "a1"]  # those that read longest, and no more than it takes
        readers.begin("b1", 40)  # would be more than the half of two: waits for its turn as everybody
        readers.begin("c0", 30)
        await eventually(lambda: readers.reading[5:] == ["c0"])  # a third may have a third
        assert readers.sent_away == ["a0", "a1", "a2"]
        readers.end("a3", "b0", "c0")
        await eventually(lambda: set(readers.reading[6:]) == {"a4", "b1"})
        readers.end("a4", "b1")
    assert readers.sent_away == ["a0", "a1", "a2"]
    assert readers.large.taken == 0


async def test_a_tenant_alone_may_take_all_and_one_body_of_each_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.large.PATIENCE_S", 0.01)
    async with asyncio.TaskGroup() as tasks:
        readers = Readers(LargeBodies(100), tasks)
        readers.begin("a0", 100)
        await eventually(lambda: readers.reading == ["a0"])
        readers.begin("b0", 10)
        readers.begin("c0", 10)
        looks = 0
        made_way = readers.large._make_way

        def look(tenant: str, size: int) -> None:
            nonlocal looks
            made_way(tenant, size)
            looks += 1

        monkeypatch.setattr(readers.large, "_make_way", look)
        await eventually(lambda: looks >= 6)  # whom the first sent away would be gone by the last
        assert (readers.reading, readers.sent_away) == (["a0"], [])
        readers.end("a0")
        await eventually(lambda: readers.reading == ["a0", "b0", "c0"])
        readers.end("b0", "c0")
    assert readers.sent_away == []


async def test_turns_go_to_the_tenant_that_holds_least():
    async with asyncio.TaskGroup() as tasks:
        readers = Readers(LargeBodies(100), tasks)
        for name, size in (("a0", 60), ("b0", 40)):
            readers.begin(name, size)
        await eventually(lambda: readers.reading == ["a0", "b0"])
        for name in ("a1", "a2", "b1", "c0"):
            readers.begin(name, 30)
            await asyncio.sleep(0)
        readers.end("b0")
        await eventually(lambda: readers.reading[2:] == ["b1"])  # b holds nothing, as c, and came before it
        readers.end("a0")
        await eventually(lambda: readers.reading[3:] == ["a1", "c0"])
        readers.end("b1", "c0", "a1")
        await eventually(lambda: readers.reading[5:] == ["a2"])
        readers.end("a2")
    assert readers.sent_away == []
    assert readers.large.taken == 0


class TestOverHttp:
    @pytest.fixture
    async def settings(self, storage: Storage) -> dict[str, Any]:
        return {"keys": keys_of(storage), "asks": True}

    async def finished(self, gateway: Gateway, driver: Driver, key: Credential, body: bytes) -> str:
        job = await gateway.post("/api/v1/jobs", {"engine": "fpl", "params": {"team_id": 7}}, headers=key.header)
        attempt = await driver.claim(job.json["id"])
        await attempt.finish_apart(body, hashlib.sha256(body).hexdigest())
        return f"/api/v1/jobs/{attempt.job_id}/results"

    async def test_a_tenant_gets_its_result_while_another_reads_all_there_is_room_for(
        self, gateway: Gateway, driver: Driver, storage: Storage
    ):
        slow, other = [await make(storage, "read", "submit", tenant=tenant) for tenant in ("slow", "other")]
        body = b'"%s"' % (b"x" * 7_000_000)
        paths = [await self.finished(gateway, driver, slow, body) for _ in range(3)]
        wanted = await self.finished(gateway, driver, other, body)
        large = gateway.app[SOCKETS].large = LargeBodies(22_000_000)  # room for three
        address = str(gateway.server.make_url("/")).rstrip("/")
        async with AsyncExitStack() as stack:
            for path in paths:
                reader = await stack.enter_async_context(peer(address, window=4096))
                reader.say(f"GET {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {slow.text}\r\n\r\n".encode())
                await reader.head()
            assert large.taken == 3 * len(body)
            answer = await gateway.get(wanted, headers=other.header)
            assert (answer.status, answer.body == body) == (200, True)
            assert large.taken == 2 * len(body)  # the others read on
