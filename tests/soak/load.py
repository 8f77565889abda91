"""People at work during a soak: they submit, cancel, retry and rerun jobs of every kind, and watch them."""

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import aiohttp

from phaseline import Client
from phaseline.client_errors import ClientError
from tests.soak.fleet import Fleet, Program

STORIES_MAX = 24  # jobs somebody cares for at once
VIEWERS_MAX = 40
SUBMIT_EVERY_S = 0.7
RETRIES_MAX = 8
CALL_S = 12.0
HEARTBEAT_S = 2
WATCHDOG_S = 3 * HEARTBEAT_S + 1
OVER = frozenset({1000, 4000})
# What a job is -> how often, its engine, its params. `patience` below says what somebody does about it.
STORIES: dict[str, tuple[float, str, dict[str, Any]]] = {
    "no-op": (5, "sized", {"size": 10}),
    "large result": (1, "sized", {"size": 400_000}),
    "phased": (3, "phased", {"bulk": 20_000}),
    "large checkpoints": (1, "phased", {"bulk": 300_000}),
    "short": (5, "countdown", {"steps": 20, "step_s": 0.05}),
    "steady": (3, "countdown", {"steps": 60, "step_s": 0.1}),
    "failing": (2, "countdown", {"steps": 6, "step_s": 0.02, "fail_at": 4}),
    "suicidal": (2, "suicidal", {}),
    "long": (3, "countdown", {"steps": 10_000, "step_s": 0.1}),
}


@dataclass
class Told:
    """What clients were told, to be held against the log afterwards."""

    accepted: dict[str, str] = field(default_factory=dict)  # job id -> its story
    by_key: dict[str, set[str]] = field(default_factory=dict)  # idempotency key -> job ids answered
    reopened: Counter[str] = field(default_factory=Counter)  # job id -> retries answered with 2xx
    cancels: int = 0
    reruns: int = 0
    unknown: int = 0  # calls without an answer
    unavailable: int = 0  # 503 and the like


@dataclass
class Gap:
    """A viewer lost its connection and was caught up again. Instants of the loop's clock."""

    lost_at: float
    back_at: float


@dataclass
class Crowd:
    """Everybody who uses the fleet. `leave` makes them stop making jobs; viewers go on to the end of their streams."""

    fleet: Fleet
    folder: Path
    seed: int
    told: Told = field(default_factory=Told)
    gaps: list[Gap] = field(default_factory=list)
    connections: int = 0
    breaks: int = 0
    recordings: list[Path] = field(default_factory=list)
    watching: set[str] = field(default_factory=set)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"people of {self.seed}")
        self._stories = asyncio.Semaphore(STORIES_MAX)
        self._viewers = asyncio.Semaphore(VIEWERS_MAX)

    async def work(self, group: asyncio.TaskGroup) -> None:
        """Begins one story after another until `over`; the tasks of `group` carry them on."""
        kinds = list(STORIES)
        weights = [weight for weight, _, _ in STORIES.values()]
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(CALL_S)) as session,
            asyncio.TaskGroup() as stories,
        ):
            while not await self._over_within(self.chance.expovariate(1 / SUBMIT_EVERY_S)):
                if not self._stories.locked():
                    kind = self.chance.choices(kinds, weights)[0]
                    stories.create_task(self._story(kind, session, group, self.chance.random()))

    async def _over_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()
        return self.over.is_set()

    async def _story(self, kind: str, session: aiohttp.ClientSession, group: asyncio.TaskGroup, draw: float) -> None:
        chance = random.Random(draw)
        async with self._stories:
            job_id = await self._submitted(kind, session, chance)
            if job_id is None:
                return
            for _ in range(chance.choice((0, 0, 1, 1, 2))):
                if not self._viewers.locked():
                    group.create_task(self._watch(job_id, chance.random()))
            if kind == "long" or chance.random() < 0.1:
                await self._over_within(chance.uniform(1.0, 8.0))
                await self._cancelled(job_id, session, chance)
            elif kind == "failing" and chance.random() < 0.6:
                await self._retried(job_id, session, chance)
            elif kind == "phased" and chance.random() < 0.4:
                await self._rerun(job_id, session, chance)

    # -- calls

    async def _submitted(self, kind: str, session: aiohttp.ClientSession, chance: random.Random) -> str | None:
        """With a key it is sent until it is answered, as a client library does, and sometimes once more; without one
        it is sent once. None when it was never answered."""
        _, engine, params = STORIES[kind]
        body = {"engine": engine, "params": params, "max_attempts": 2 if kind == "failing" else 3}
        key = str(uuid.UUID(int=chance.getrandbits(128))) if chance.random() < 0.7 else None
        headers = {"Idempotency-Key": key} if key else {}
        answers = 0
        wanted = 2 if key and chance.random() < 0.2 else 1
        job_id: str | None = None
        while answers < wanted:
            job = await self._call(session, chance, "/api/v1/jobs", body, headers)
            if job is not None:
                answers += 1
                job_id = job["id"]
                self.told.accepted[job["id"]] = kind
                if key:
                    self.told.by_key.setdefault(key, set()).add(job["id"])
            elif key is None or await self._over_within(chance.uniform(0.2, 1.0)):
                break
        return job_id

    async def _cancelled(self, job_id: str, session: aiohttp.ClientSession, chance: random.Random) -> None:
        body = {"mode": chance.choice(("graceful", "force")), "grace_s": 3}
        if await self._insist(session, chance, f"/api/v1/jobs/{job_id}/cancel", body) is not None:
            self.told.cancels += 1

    async def _retried(self, job_id: str, session: aiohttp.ClientSession, chance: random.Random) -> None:
        """Until it has failed and is retried, or nobody waits for that any more."""
        for _ in range(RETRIES_MAX):
            if await self._over_within(chance.uniform(1.0, 5.0)):
                return
            answer = await self._call(session, chance, f"/api/v1/jobs/{job_id}/retry", {})
            if answer is not None and "id" in answer:
                self.told.reopened[job_id] += 1
                return

    async def _rerun(self, job_id: str, session: aiohttp.ClientSession, chance: random.Random) -> None:
        if not await self._over_within(chance.uniform(1.0, 4.0)):
            body = chance.choice(({}, {"from_phase": "analyzing"}))
            answer = await self._call(session, chance, f"/api/v1/jobs/{job_id}/rerun", body)
            if answer is not None and "id" in answer:
                self.told.accepted[answer["id"]] = "rerun"
                self.told.reruns += 1

    async def _insist(
        self, session: aiohttp.ClientSession, chance: random.Random, path: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Sends what may be repeated until it is answered, or everybody leaves."""
        while (answer := await self._call(session, chance, path, body)) is None:
            if await self._over_within(chance.uniform(0.2, 1.0)):
                break
        return answer

    async def _call(
        self,
        session: aiohttp.ClientSession,
        chance: random.Random,
        path: str,
        body: dict[str, Any],
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | None:
        """What a gateway answered: the job, or the refusal; None when there was no answer that can be relied on."""
        gateway = chance.choice(self.fleet.gateways)
        try:
            async with session.post(f"{gateway.url}{path}", json=body, headers=headers) as answer:
                said: dict[str, Any] = await answer.json()
                if answer.status in {200, 202}:
                    return said
                if answer.status == 409:
                    return {"refused": said}
                assert answer.status == 503, f"{path} was answered {answer.status}: {said}"
                assert "Retry-After" in answer.headers, said
                self.told.unavailable += 1
        except (aiohttp.ClientError, OSError, TimeoutError):
            self.told.unknown += 1
        return None

    # -- viewers

    async def _watch(self, job_id: str, draw: float) -> None:
        chance = random.Random(draw)
        path = self.folder / f"viewer{len(self.recordings)}.ndjson"
        self.recordings.append(path)
        name = f"{path.name} of {job_id}"
        self.watching.add(name)
        async with self._viewers:
            with path.open("w", encoding="utf-8") as file:
                if chance.random() < 0.3:
                    await self._by_the_client(job_id, chance, file)
                else:
                    await _Watcher(self, job_id, chance, file).to_the_end()
        self.watching.discard(name)

    async def _by_the_client(self, job_id: str, chance: random.Random, file: TextIO) -> None:
        """With our own client library, which changes the gateway only when the follow itself gives up."""
        after = 0

        def on_line(line: str) -> None:
            file.write(f"{line}\n")
            self.connections += line.startswith('{"type":"connected"')

        while True:
            gateway = chance.choice(self.fleet.gateways)
            async with Client(gateway.url) as client:
                follow = client.follow(job_id, after, on_line=on_line)
                with contextlib.suppress(ClientError):
                    async for event in follow:
                        assert event["seq"] == after + 1, f"{job_id}: after {after} came {event['seq']}"
                        after = event["seq"]
                        if chance.random() < 0.02:
                            await follow.drop()
                    return
            await asyncio.sleep(chance.uniform(0.2, 1.0))


class _Watcher:
    """A client of the protocol that reads as it likes: steadily, slowly, with long pauses, or hardly at all."""

    def __init__(self, crowd: Crowd, job_id: str, chance: random.Random, file: TextIO) -> None:
        self._crowd = crowd
        self._job_id = job_id
        self._chance = chance
        self._file = file
        self._after = 0
        self._frame_at = time.monotonic()
        self._lost_at: float | None = None

    async def to_the_end(self) -> None:
        """Reconnects after the last sequence until the stream is over."""
        read = self._reader(self._chance.choice(("steady", "steady", "slow", "pausing", "restless")))
        async with aiohttp.ClientSession() as session:
            while True:
                gateway = self._chance.choice(self._crowd.fleet.gateways)
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    if await self._connected(session, gateway, read) in OVER:
                        return
                if self._lost_at is None:
                    self._lost_at = self._frame_at
                    self._crowd.breaks += 1
                await asyncio.sleep(self._chance.uniform(0.05, 0.3))

    def _reader(self, mood: str) -> Callable[[], Awaitable[bool]]:
        """What it does between two frames; True to leave without a word."""

        async def between() -> bool:
            if mood == "slow":
                await asyncio.sleep(0.05)
            elif mood == "pausing" and self._chance.random() < 0.05:
                await asyncio.sleep(self._chance.uniform(1.0, 4.0))
            return mood == "restless" and self._chance.random() < 0.05

        return between

    async def _connected(
        self, session: aiohttp.ClientSession, gateway: Program, read: Callable[[], Awaitable[bool]]
    ) -> int | None:
        query = f"after={self._after}&heartbeat={HEARTBEAT_S}&batch={self._chance.randint(0, 1)}"
        address = f"{gateway.url.replace('http', 'ws', 1)}/api/v1/jobs/{self._job_id}/stream?{query}"
        async with asyncio.timeout(WATCHDOG_S):
            socket = await session.ws_connect(address, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=0.5))
        async with contextlib.aclosing(_Closing(socket)):
            self._crowd.connections += 1
            self._write({"type": "connected", "job_id": self._job_id, "after": self._after})
            while True:
                async with asyncio.timeout(WATCHDOG_S):
                    frame = await socket.receive()
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    if frame.type is aiohttp.WSMsgType.CLOSE:
                        self._write({"type": "closed", "code": frame.data})
                        code: int | None = frame.data
                        return code
                    return None
                self._take(frame.data)
                if await read():
                    self._frame_at = time.monotonic()  # it left of its own will
                    return None

    def _take(self, text: str) -> None:
        self._frame_at = time.monotonic()
        self._file.write(f"{text}\n")
        frame = json.loads(text)
        if frame["type"] == "caught_up" and self._lost_at is not None:
            self._crowd.gaps.append(Gap(self._lost_at, self._frame_at))
            self._lost_at = None
        for event in frame.get("events", [frame]):
            if "seq" in event and "actor" in event:
                self._after = event["seq"]

    def _write(self, marker: dict[str, Any]) -> None:
        self._file.write(f"{json.dumps(marker)}\n")


class _Closing:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def aclose(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            await self._socket.close()


def mismatches(told: Told, openings: dict[str, int]) -> Sequence[str]:
    """How what clients were told differs from the log: `openings` is the number of `reopened` by job in the log."""
    lost = [
        f"job {job_id} ({story}) was accepted and is not in the log"
        for job_id, story in told.accepted.items()
        if job_id not in openings
    ]
    doubled = [
        f"key {key} was answered with jobs {', '.join(sorted(ids))}" for key, ids in told.by_key.items() if len(ids) > 1
    ]
    retries = [
        f"job {job_id} was reopened {openings.get(job_id, 0)} times, {count} retries were accepted"
        for job_id, count in told.reopened.items()
        if openings.get(job_id, 0) < count
    ]
    return [*lost, *doubled, *retries]
