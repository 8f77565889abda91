"""What a gateway knows of engines, and how it lets them check params: neither an outage nor a check that hangs misleads it."""

import asyncio
import sys
import threading
from typing import Any

import pytest

from events.declaration import engine
from events.log import EngineRow
from gateway.engines import CHECKS_MAX, EngineBook
from gateway.problems import Problem
from tests.gateway.driving import WAIT_S, Driver, Gateway, Storage, TripParams, eventually

REMOTE = EngineRow("remote", 1, "Far away.", [{"name": "working", "until": 100.0}], {"type": "object"}, {})


async def test_an_engine_only_workers_have_is_not_unknown_because_the_log_is_away(gateway: Gateway, driver: Driver):
    """Callers take 404 for an answer, 503 for a reason to try again."""
    await driver.log.declare([REMOTE])
    body = {"engine": "remote", "params": {}}
    gateway.storage.interrupt(True)
    answer = await gateway.post("/api/v1/jobs", body)
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    listed = (await gateway.get("/api/v1/engines")).json["engines"]
    assert [row["name"] for row in listed] == ["countdown", "fpl"]  # what is installed here is known without it
    gateway.storage.interrupt(False)
    assert (await gateway.post("/api/v1/jobs", body)).status == 202
    assert (await gateway.post("/api/v1/jobs", body | {"engine": "nobody's"})).status == 404


async def test_a_check_that_hangs_keeps_its_place_and_nothing_else(storage: Storage):
    let_go = threading.Event()
    begun: list[TripParams] = []

    def hangs(params: TripParams) -> None:
        begun.append(params)
        let_go.wait(60)

    @engine("slow", version=1, phases={"working": 100}, check=hangs)
    def slow(params: TripParams, context: Any) -> None:
        """It never runs here."""

    book = EngineBook(storage.log, {"slow": slow}, check_s=0.1)
    known = await book.get("slow")

    async def kind() -> str:
        try:
            await book.accepted(known, {"team_id": 1}, root="params")
        except Problem as problem:
            return problem.kind
        return "accepted"

    try:
        for _ in range(3):
            assert await asyncio.gather(*(kind() for _ in range(CHECKS_MAX))) == ["check_timeout"] * CHECKS_MAX
        await eventually(lambda: len(begun) >= CHECKS_MAX)
        assert len(begun) == CHECKS_MAX
        async with asyncio.timeout(WAIT_S):
            await asyncio.to_thread(int)  # what resolves names, packs answers and reads archives
    finally:
        let_go.set()
    async with asyncio.timeout(WAIT_S):
        while await kind() != "accepted":
            pass


HANGING = """
import asyncio, threading
from gateway.checks import Checks
async def main():
    try:
        async with asyncio.timeout(0.1):
            await Checks(1).run(lambda _: threading.Event().wait(), None)
    except TimeoutError:
        print("given up")
asyncio.run(main())
"""


async def test_a_process_ends_although_a_check_hangs():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HANGING, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(6 * WAIT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert (said, process.returncode) == (b"given up\n", 0)


async def test_what_a_check_raises_is_told_to_who_asked_and_gives_the_place_back(storage: Storage):
    def breaks(_: TripParams) -> None:
        raise KeyError("no such thing")

    @engine("broken", version=1, phases={"working": 100}, check=breaks)
    def broken(params: TripParams, context: Any) -> None:
        """It never runs here."""

    book = EngineBook(storage.log, {"broken": broken}, check_s=WAIT_S)
    for _ in range(2 * CHECKS_MAX):
        with pytest.raises(KeyError, match="no such thing"):
            await book.accepted(await book.get("broken"), {"team_id": 1}, root="params")
