"""What comes while viewers wait goes to their sockets past their tasks; what needs the task wakes it."""

import asyncio

import pytest

from events.record import seq_of
from gateway import frames
from gateway.connection import Connection
from gateway.deps import HUB
from gateway.direct import BYTES_MAX, batched, classic, parcel_of, plain
from gateway.ring import Entry
from gateway.viewer import Viewer
from tests.crowd import TEXT, peer
from tests.gateway.driving import WAIT_S, Driver, Gateway, eventually, seen

PROGRESS = (
    b'{"job_id":"a","seq":%d,"type":"progress","progress":5.0,"phase":"x","timestamp":"2026-11-29T08:00:00.000Z"}'
)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The last sequence of whatever viewers took by their tasks."""
    taken: list[int] = []
    take = Viewer._given

    def noted(self: Viewer, entries: list[Entry]) -> list[Entry]:
        chunk = take(self, entries)
        taken.append(chunk[-1].seq)
        return chunk

    monkeypatch.setattr(Viewer, "_given", noted)
    return taken


def resting(gateway: Gateway, job_id: str) -> int:
    """How many viewers of a job wait."""
    return len(gateway.app[HUB]._watched[job_id]._waiters)


async def test_only_the_end_wakes_the_tasks_of_viewers_that_wait(gateway: Gateway, driver: Driver, given: list[int]):
    attempt = await driver.started()
    full, old = f"/api/v1/jobs/{attempt.job_id}/stream", f"/api/v1/analyze/{attempt.job_id}/stream"
    async with (
        gateway.stream(full) as one,
        gateway.stream(f"{full}?batch=1&results=inline") as other,
        gateway.stream(old) as third,
    ):
        await one.until("caught_up")
        await other.until("caught_up")
        await third.frame()
        await eventually(lambda: resting(gateway, attempt.job_id) == 3)
        given.clear()
        for percent in (10, 20, 30):
            await attempt.progress(percent)
        shown = [(3, "progress"), (4, "progress"), (5, "progress")]
        assert seen([await one.frame() for _ in shown]) == shown
        assert seen(await other.events(3)) == shown
        assert [(await third.frame())["progress"] for _ in shown] == [10.0, 20.0, 30.0]
        assert given == []
        await attempt.finish({"gain": 4.0})
        ends = [(await stream.rest())[1] for stream in (one, other, third)]
        assert ends == [1000, 1000, 1000]
        assert set(given) == {7}


async def test_a_socket_that_compresses_is_left_to_its_task(gateway: Gateway, driver: Driver, given: list[int]):
    attempt = await driver.started()
    async with gateway.stream(f"/api/v1/jobs/{attempt.job_id}/stream?compress=1", compress=15) as stream:
        await stream.until("caught_up")
        await eventually(lambda: resting(gateway, attempt.job_id) == 1)
        await attempt.progress(10)
        assert seen([await stream.frame()]) == [(3, "progress")]
        assert given == [2, 3]


async def test_what_is_large_is_left_to_the_task(gateway: Gateway, driver: Driver, given: list[int]):
    attempt = await driver.started()
    async with gateway.stream(f"/api/v1/jobs/{attempt.job_id}/stream") as stream:
        await stream.until("caught_up")
        await eventually(lambda: resting(gateway, attempt.job_id) == 1)
        await attempt.progress(10, message="x" * (BYTES_MAX - 1000))
        await attempt.progress(20, message="x" * BYTES_MAX)
        assert seen([await stream.frame(), await stream.frame()]) == [(3, "progress"), (4, "progress")]
        assert given == [2, 4]


async def test_a_socket_that_is_not_empty_is_left_to_its_task(
    gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    """A viewer that does not read has one small write in its buffer at most by this way, and misses nothing later."""
    before: list[int] = []
    write = Connection.write_now

    def noted(self: Connection, wire: bytes, frames: int, size: int) -> None:
        transport = self._request.transport
        before.append(transport.get_write_buffer_size() if transport else -1)
        write(self, wire, frames, size)

    monkeypatch.setattr(Connection, "write_now", noted)
    attempt = await driver.started()
    path = f"/api/v1/jobs/{attempt.job_id}/stream"
    address = str(gateway.server.make_url("/")).rstrip("/")
    async with asyncio.timeout(WAIT_S), peer(address, path, window=4096) as slow:
        await slow.head()
        await slow.until(b'"caught_up"')
        await eventually(lambda: resting(gateway, attempt.job_id) == 1)
        numbers = range(3, 503)
        for number in numbers:
            await attempt.progress(number / 10, message="x" * (BYTES_MAX - 1000))
        await eventually(lambda: resting(gateway, attempt.job_id) == 0)
        for number in numbers:
            kind, frame = await slow.frame()
            assert (kind, seq_of(frame)) == (TEXT, number)
    assert 0 < len(before) < len(numbers)
    assert set(before) == {0}


async def test_an_event_that_cannot_be_written_ends_its_streams_and_no_other(
    gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    """A defect of ours, say in the classic form of an event."""
    attempt = await driver.started()
    full, old = f"/api/v1/jobs/{attempt.job_id}/stream", f"/api/v1/analyze/{attempt.job_id}/stream"
    async with gateway.stream(old) as broken, gateway.stream(full) as whole:
        await broken.frame()
        await whole.until("caught_up")
        await eventually(lambda: resting(gateway, attempt.job_id) == 2)

        def breaks(entry: Entry) -> bytes:
            raise ValueError(entry.seq)

        monkeypatch.setattr(frames, "classic", breaks)
        await attempt.progress(10)
        assert seen([await whole.frame()]) == [(3, "progress")]
        assert await broken.rest() == ([], 1011)


def entries(*numbers: int, kind: str = "progress") -> list[Entry]:
    return [Entry(number, kind, PROGRESS % number) for number in numbers]


def test_a_parcel_is_the_frames_as_they_stand_on_the_wire() -> None:
    lines = [PROGRESS % 1, PROGRESS % 2]
    one = parcel_of(entries(1, 2), plain)
    assert one is not None
    assert (one.last.seq, one.frames, one.size) == (2, 2, sum(map(len, lines)))
    assert one.wire == b"".join(bytes((0x81, len(line))) + line for line in lines)
    many = parcel_of(entries(1, 2), batched)
    assert many is not None
    assert (many.frames, many.wire[:2]) == (1, b"\x81\x7e")
    assert many.wire[4:] == b'{"type":"batch","events":[' + b",".join(lines) + b"]}"


def test_what_the_classic_protocol_has_not_is_an_empty_parcel() -> None:
    passed = parcel_of(entries(1, kind="log"), classic)
    assert passed is not None
    assert (passed.last.seq, passed.frames, passed.wire) == (1, 0, b"")


@pytest.mark.parametrize("kind", ["complete", "error", "cancelled"])
def test_an_end_is_no_parcel(kind: str) -> None:
    assert parcel_of([*entries(1), *entries(2, kind=kind)], plain) is None


def test_nothing_and_what_is_in_the_log_alone_is_no_parcel() -> None:
    assert parcel_of([], plain) is None
    assert parcel_of(None, plain) is None
