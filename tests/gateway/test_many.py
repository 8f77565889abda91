"""Many jobs on one socket (docs/protocol.md §3): each subscription is a stream of its own, none disturbs another."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from events.catalog import Cancel, Partial
from events.checker import RecordingCheck
from events.committer import new_command_id
from events.values import decode
from gateway import many
from gateway.deps import HUB
from gateway.sockets import SOCKETS
from tests.gateway.driving import Driver, Gateway, Stream, eventually, seen
from tests.gateway.test_full import CAUGHT_UP, HELLO, RESET, STREAM, finished, running

URL = "/api/v1/stream"
END, ERROR = ("end",), ("command_error",)


class Many:
    """A client's end: commands out, frames in, sorted by what they are about."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.of: dict[str, list[dict[str, Any]]] = {}

    async def say(self, op: str, **fields: Any) -> None:
        await self.stream.socket.send_str(json.dumps({"op": op, **fields}))

    async def subscribe(self, *job_ids: str, **fields: Any) -> None:
        for job_id in job_ids:
            await self.say("subscribe", job_id=job_id, **fields)

    async def frame(self) -> dict[str, Any]:
        frame = await self.stream.frame()
        about = "feed" if frame.get("feed") else frame.get("job_id", "socket")
        self.of.setdefault(about, []).append(frame)
        return frame

    async def until(self, kind: str, *about: str) -> None:
        """Reads until each of these has had a frame of this type."""
        while not all(any(frame["type"] == kind for frame in self.of.get(one, ())) for one in about):
            await self.frame()


@asynccontextmanager
async def a_socket(gateway: Gateway, query: str = "") -> AsyncIterator[Many]:
    async with gateway.stream(URL + query) as stream:
        yield Many(stream)


async def test_each_job_comes_as_on_a_socket_of_its_own(gateway: Gateway, driver: Driver):
    first, second, done = await running(driver), await running(driver), await finished(driver)
    async with a_socket(gateway) as socket:
        await socket.subscribe(first.job_id, done)
        await socket.subscribe(second.job_id, after=3, epoch=gateway.storage.log.epoch)
        await socket.until("caught_up", first.job_id, second.job_id)
        await socket.until("end", done)
        await first.finish({})
        await second.progress(30)
        await second.fail()
        await socket.until("end", first.job_id, second.job_id)
    assert seen(socket.of[done]) == [HELLO, *STREAM, CAUGHT_UP, END]
    assert seen(socket.of[first.job_id]) == [HELLO, *STREAM[:5], CAUGHT_UP, *STREAM[5:], END]
    assert seen(socket.of[second.job_id]) == [
        HELLO, *STREAM[3:5], CAUGHT_UP, (6, "progress"), (7, "error"), END,
    ]  # fmt: skip
    assert [socket.of[job][-1]["status"] for job in (done, first.job_id, second.job_id)] == [
        "completed", "completed", "failed",
    ]  # fmt: skip
    assert [socket.of[job][0]["resume"] for job in (first.job_id, second.job_id)] == ["fresh", "resumed"]


async def test_what_a_socket_was_sent_of_each_job_holds_against_the_log(gateway: Gateway, driver: Driver):
    attempts = [await driver.started() for _ in range(12)]
    checks = {attempt.job_id: RecordingCheck(attempt.job_id) for attempt in attempts}
    for job_id, check in checks.items():
        check.take(json.dumps({"type": "connected", "job_id": job_id, "after": 0}))
    gateway.storage.lose = lambda lines: lines[::-1] if len(lines) % 2 else []
    async with a_socket(gateway) as socket:
        await socket.subscribe(*checks)

        async def work() -> None:
            for number in range(30):
                for attempt in attempts:
                    await attempt.progress(10 + number, message="x" * (70_000 if number == 7 else 9))
            for attempt in attempts:
                await attempt.finish({"n": 1})

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work())
            await socket.until("end", *checks)
    assert "socket" not in socket.of
    for job_id, check in checks.items():
        log = {recorded.seq: recorded for recorded in await gateway.storage.log.read(job_id, 0, bytes_max=10**9)}
        for frame in socket.of[job_id]:
            if frame["type"] == "end":
                check.take(json.dumps({"type": "closed", "code": 1000}))
                continue
            for event in check.take(json.dumps(frame)):
                check.same(event, log[event["seq"]])
        assert check.events == 34


async def test_batches_resets_and_heartbeats_say_whose_they_are(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with a_socket(gateway, "?batch=1&heartbeat=2") as socket:
        await socket.subscribe(attempt.job_id, after=99)
        await socket.until("heartbeat", attempt.job_id)
        frames = socket.of[attempt.job_id]
        assert seen(frames) == [HELLO, RESET, CAUGHT_UP, ("heartbeat",)]
        assert frames[-1] == {"type": "heartbeat", "job_id": attempt.job_id, "seq": 5}
        await attempt.finish({})
        await socket.until("end", attempt.job_id)
        (batch,) = [frame for frame in frames if frame["type"] == "batch"]
        assert ([event["seq"] for event in batch["events"]], batch["job_id"]) == ([6, 7], attempt.job_id)
    assert set(socket.of) <= {attempt.job_id, "socket"}  # its own heartbeats, if the end was long in coming


async def test_results_inline_holds_for_all_of_them(gateway: Gateway, driver: Driver):
    body = json.dumps({"rows": ["x" * 1000] * 400}).encode()
    attempt = await driver.started()
    await attempt.finish_apart(body, hashlib.sha256(body).hexdigest())
    async with a_socket(gateway, "?results=inline") as socket:
        await socket.subscribe(attempt.job_id, after=3)
        await socket.until("end", attempt.job_id)
    assert socket.of[attempt.job_id][1]["results"] == json.loads(body)


async def test_after_an_unsubscribe_nothing_of_the_job_comes_until_it_is_subscribed_again(
    gateway: Gateway, driver: Driver
):
    attempt = await running(driver)
    other = await driver.started()
    async with a_socket(gateway) as socket:
        await socket.subscribe(attempt.job_id, other.job_id)
        await socket.until("caught_up", attempt.job_id, other.job_id)
        await socket.say("unsubscribe", job_id=attempt.job_id)
        await eventually(lambda: gateway.app[HUB].viewers == 1)
        await attempt.progress(30)
        await other.finish({})
        await socket.until("end", other.job_id)
        assert seen(socket.of.pop(attempt.job_id)) == [HELLO, *STREAM[:5], CAUGHT_UP]
        await socket.subscribe(attempt.job_id, after=5)
        await socket.until("caught_up", attempt.job_id)
        assert seen(socket.of[attempt.job_id]) == [HELLO, (6, "progress"), CAUGHT_UP]


async def test_a_job_whose_end_was_sent_may_be_subscribed_again(gateway: Gateway, driver: Driver):
    job_id = await finished(driver)
    async with a_socket(gateway) as socket:
        for _ in range(2):
            await socket.subscribe(job_id, after=6)
            await socket.until("end", job_id)
            assert seen(socket.of.pop(job_id)) == [HELLO, (7, "complete"), CAUGHT_UP, END]
    await eventually(lambda: gateway.app[SOCKETS].subscriptions == 0)


@pytest.mark.parametrize(
    "command, code, field",
    [
        ("no json", "bad_command", ""),
        ("[]", "bad_command", ""),
        ('{"op":"follow"}', "bad_command", "op"),
        ('{"op":["subscribe"]}', "bad_command", "op"),
        ('{"op":"subscribe"}', "bad_command", "job_id"),
        ('{"op":"subscribe","job_id":7}', "bad_command", "job_id"),
        ('{"op":"subscribe","job_id":"x","after":-1}', "bad_command", "after"),
        ('{"op":"subscribe","job_id":"x","after":"1"}', "bad_command", "after"),
        ('{"op":"subscribe","job_id":"x","after":9007199254740992}', "bad_command", "after"),
        ('{"op":"subscribe","job_id":"x","since":1}', "bad_command", "since"),
        ('{"op":"subscribe","feed":false}', "bad_command", "feed"),
        ('{"op":"subscribe","feed":true,"job_id":"x"}', "bad_command", "job_id"),
        ('{"op":"subscribe","feed":true,"cursor":"x"}', "bad_parameter", None),
        ('{"op":"subscribe","job_id":"x"}', "unknown_job", None),
        ('{"op":"subscribe","job_id":"01a20cae-f0fd-7c5c-90af-8d1914daffc9"}', "unknown_job", None),
        ('{"op":"subscribe","job_id":"01A20CAE-F0FD-7C5C-90AF-8D1914DAFFC9"}', "unknown_job", None),
        ('{"op":"unsubscribe","job_id":"x"}', "not_subscribed", None),
        ('{"op":"unsubscribe"}', "not_subscribed", None),
    ],
)
async def test_a_bad_command_is_answered_and_the_socket_lives(
    gateway: Gateway, driver: Driver, command: str, code: str, field: str | None
):
    job_id = await finished(driver)
    async with a_socket(gateway) as socket:
        await socket.stream.socket.send_str(command)
        error = await socket.stream.frame()
        assert (error["type"], error["code"], error.get("field")) == ("command_error", code, field)
        await socket.subscribe(job_id)
        await socket.until("end", job_id)


async def test_a_second_subscription_to_a_job_is_refused_and_the_first_goes_on(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with a_socket(gateway) as socket:
        await socket.subscribe(attempt.job_id, attempt.job_id)
        await socket.until("command_error", attempt.job_id)
        await attempt.finish({})
        await socket.until("end", attempt.job_id)
    (error,) = [frame for frame in socket.of[attempt.job_id] if frame["type"] == "command_error"]
    assert error["code"] == "already_subscribed"
    events = [one for one in seen(socket.of[attempt.job_id]) if len(one) == 2]
    assert events == STREAM


async def test_over_ten_bad_commands_in_ten_seconds_close_with_4400(gateway: Gateway):
    async with a_socket(gateway) as socket:
        for _ in range(11):
            await socket.stream.socket.send_str("nonsense")
        frames, code = await socket.stream.rest()
    assert ([frame["type"] for frame in frames], code) == (["command_error"] * 11, 4400)


async def test_too_many_commands_close_with_4429(gateway: Gateway):
    async with a_socket(gateway) as socket:
        for _ in range(many.COMMANDS[0] + 1):
            await socket.say("auth", token="x")
        assert await socket.stream.rest() == ([], 4429)


async def test_a_bad_query_is_4400_naming_it(gateway: Gateway):
    for query, field in (("?after=1", "after"), ("?batch=2", "batch"), ("?heartbeat=1", "heartbeat")):
        async with a_socket(gateway, query) as socket:
            frames, code = await socket.stream.rest()
        assert ([frame["field"] for frame in frames], code) == ([field], 4400)


async def test_subscriptions_are_bounded(gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(many, "SUBSCRIPTIONS_MAX", 2)
    jobs = [await driver.submit() for _ in range(3)]
    async with a_socket(gateway) as socket:
        await socket.subscribe(*jobs)
        await socket.until("caught_up", *jobs[:2])
        await socket.until("command_error", jobs[2])
        assert socket.of[jobs[2]][0]["code"] == "too_many_subscriptions"
        gateway.app[SOCKETS].subscriptions_max = 2
        async with a_socket(gateway) as second:
            await second.subscribe(jobs[2])
            assert (await second.frame())["code"] == "overloaded"
        await socket.say("unsubscribe", job_id=jobs[0])
        await eventually(lambda: gateway.app[SOCKETS].subscriptions == 1)
        await socket.subscribe(jobs[2])
        await socket.until("caught_up", jobs[2])


async def test_a_socket_that_follows_nothing_stays_alive_and_is_told_of_a_shutdown(gateway: Gateway):
    async with a_socket(gateway, "?heartbeat=2") as socket:
        assert await socket.frame() == {"type": "heartbeat"}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(gateway.app.shutdown())
            frames, code = await socket.stream.rest()
    assert ([frame["type"] for frame in frames], frames[0]["reason"], code) == (["goodbye"], "restarting", 1012)


async def test_at_shutdown_a_socket_of_many_hears_one_goodbye(gateway: Gateway, driver: Driver):
    jobs = [await driver.submit() for _ in range(5)]
    async with a_socket(gateway) as socket:
        await socket.subscribe(*jobs)
        await socket.say("subscribe", feed=True)
        await socket.until("caught_up", *jobs, "feed")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(gateway.app.shutdown())
            frames, code = await socket.stream.rest()
    assert ([frame["type"] for frame in frames], code) == (["goodbye"], 1012)


async def test_while_the_log_is_away_the_socket_lives_and_says_so(gateway: Gateway, driver: Driver):
    attempt, other = await running(driver), await driver.submit()
    async with a_socket(gateway) as socket:
        await socket.subscribe(attempt.job_id)
        await socket.until("caught_up", attempt.job_id)
        gateway.storage.interrupt(True)
        await socket.subscribe(other)
        await socket.until("command_error", other)
        assert socket.of[other][0]["code"] == "unavailable"
        gateway.storage.interrupt(False)
        await attempt.finish({})
        await socket.until("end", attempt.job_id)
        assert seen(socket.of[attempt.job_id])[-3:] == [*STREAM[5:], END]


async def test_a_busy_job_starves_no_other_and_a_slow_reader_holds_a_few_chunks_only(gateway: Gateway, driver: Driver):
    large = [await driver.started() for _ in range(8)]
    for attempt in large:
        for _ in range(40):
            await attempt.say(Partial(phase="collecting_data", name="much", value="x" * 60_000))
    small = await driver.submit()
    await driver.run(small, Cancel(command_id=new_command_id(), actor="user:a"))
    async with a_socket(gateway) as socket:
        await socket.subscribe(*(attempt.job_id for attempt in large), small)
        await socket.until("end", small)
        behind = [len(socket.of.get(attempt.job_id, ())) for attempt in large]
        assert sum(behind) < 8 * 40  # the small job did not wait for the large ones
        await socket.until("caught_up", *(attempt.job_id for attempt in large))
    for attempt in large:
        assert [frame["seq"] for frame in socket.of[attempt.job_id] if "attempt" in frame] == list(range(1, 43))


class TestDeaf:
    @pytest.fixture
    async def settings(self) -> dict[str, Any]:
        return {"stall_s": 0.5}

    async def test_a_peer_that_takes_nothing_is_closed_and_everything_it_held_is_given_back(
        self, gateway: Gateway, driver: Driver
    ):
        attempts = [await driver.started() for _ in range(6)]
        for attempt in attempts:
            for _ in range(8):
                await attempt.say(Partial(phase="collecting_data", name="much", value="x" * 250_000))
        async with a_socket(gateway) as socket:
            await socket.subscribe(*(attempt.job_id for attempt in attempts))
            await eventually(lambda: gateway.app[HUB].viewers == 6)
            socket.stream.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
            await eventually(lambda: gateway.app[HUB].viewers == 0)
            assert gateway.app[SOCKETS].subscriptions == 0
            socket.stream.socket._response.close()


async def test_commands_and_frames_are_what_the_models_say(gateway: Gateway, driver: Driver):
    job_id = await finished(driver)
    async with a_socket(gateway) as socket:
        await socket.subscribe(job_id)
        await socket.until("end", job_id)
    assert all(decode(text)["job_id"] == job_id for text in socket.stream.text)
