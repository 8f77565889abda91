"""A child ends by itself when nobody may want it any more, whatever its engine does."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine_worker import process
from engine_worker.context import Context
from engine_worker.endings import Exit
from engine_worker.frames import FIELDS_BYTES_MAX, LENGTHS, Frame, Garbled, pack, read_frame
from engine_worker.process import ChildFailed, ChildProcess
from events.declaration import Phase
from tests.worker.scene import MODULES, gone

SETUP = {"op": "setup", "engines": [], "modules": MODULES, "path": sys.path, "result_bytes_max": 1000}
RUN = {"op": "run", "job_id": "j", "version": 1, "attempt": 1, "params": {}, "deadline": None}


@asynccontextmanager
async def a_child(engine: str) -> AsyncIterator[ChildProcess]:
    """A child whose engine has begun."""
    child = await ChildProcess.start(SETUP)
    try:
        await child.send(RUN | {"engine": engine})
        assert await child.receive()  # the mark of its first phase
        yield child
    finally:
        await child.end(term_s=0)


async def test_a_child_ends_when_its_lease_does():
    async with a_child("stubborn") as child:
        child.tell(op="lease", until=time.monotonic() + 0.2)
        assert await child.receive() is None


async def test_a_child_whose_engine_holds_the_gil_ends_with_its_lease():
    child = await ChildProcess.start(SETUP)
    try:
        child.tell(op="lease", until=time.monotonic() + 2)
        await child.send(RUN | {"engine": "gil_holder"})
        while await child.receive():
            pass
        assert await child.exited() == Exit(code=1)
    finally:
        await child.end(term_s=0)


async def test_a_child_nobody_tells_of_a_lease_ends_by_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "READY_S", 5.0)
    child = await ChildProcess.start(SETUP)
    try:
        async with asyncio.timeout(30):
            assert await child.receive() is None
    finally:
        await child.end(term_s=0)


async def test_a_beat_prolongs_a_childs_life():
    child = await ChildProcess.start(SETUP)
    try:
        child.tell(op="lease", until=time.monotonic() + 0.2)
        child.tell(op="lease", until=time.monotonic() + 60)
        await child.send(RUN | {"engine": "big", "params": {"number": 3}})
        frames = [await child.receive() for _ in range(2)]
        assert [frame.op for frame in frames if frame] == ["progress", "result"]
    finally:
        await child.end(term_s=0)


async def test_a_child_ends_when_its_socket_does():
    async with a_child("stubborn") as child:
        child._writer.close()
        await gone(child.pid)


async def test_a_child_that_cannot_begin_says_so():
    with pytest.raises(ChildFailed):
        await ChildProcess.start(SETUP | {"op": "setup", "result_bytes_max": None, "path": None})


def test_a_frame_comes_back_as_it_was_sent():
    bytes_ = pack({"op": "best", "text": "ü"}, b'{"a":1}')
    rest = memoryview(bytes_)

    def read(size: int) -> bytes:
        nonlocal rest
        part, rest = bytes(rest[:size]), rest[size:]
        return part

    assert read_frame(read) == Frame({"op": "best", "text": "ü"}, b'{"a":1}', len(bytes_) - LENGTHS.size)


@pytest.mark.parametrize(
    "bytes_", [LENGTHS.pack(FIELDS_BYTES_MAX + 1, 0), LENGTHS.pack(2, 0) + b"[]", LENGTHS.pack(1, 0) + b"{"]
)
def test_what_is_no_frame_is_refused(bytes_: bytes):
    rest = memoryview(bytes_)

    def read(size: int) -> bytes:
        nonlocal rest
        part, rest = bytes(rest[:size]), rest[size:]
        return part

    with pytest.raises(Garbled):
        read_frame(read)


# -- the context


def a_context(said: list[dict[str, object]]) -> Context:
    """A context that says into a list."""
    return Context((Phase("first", 50), Phase("second", 100)), said.append)


def test_a_hundred_percent_is_left_to_the_end():
    said: list[dict[str, object]] = []
    context = a_context(said)
    context.phase("second")
    context.progress(1.0)
    assert [fields["progress"] for fields in said] == [50.0, 99.99]


@pytest.mark.parametrize("fraction, done", [(float("nan"), None), (0.5, float("inf"))])
def test_progress_that_is_no_number_is_refused_where_it_is_said(fraction: float, done: float | None):
    context = a_context([])
    context.phase("first")
    with pytest.raises(ValueError, match="must be finite"):
        context.progress(fraction, done=done)


def test_odd_characters_in_texts_are_replaced():
    said: list[dict[str, object]] = []
    context = a_context(said)
    context.phase("first")
    context.log("a \x00 b \ud800")
    context.progress(0.5, "c \x00")
    context.partial("d \x00", 1)
    assert [fields.get("message", fields.get("name")) for fields in said[1:]] == [
        "a \ufffd b \ufffd",
        "c \ufffd",
        "d \ufffd",
    ]
