"""What people do to the installation: submit, cancel, retry, rerun, watch. They run in the world, and remember."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

from tests.simulation import wire
from tests.simulation.wire import ClientSide, Lost, Refused
from tests.simulation.world import World

FINAL_TYPES = {"complete", "error", "cancelled"}
PAUSE_S = (0.1, 1.5)
HEARTBEAT_S = 2


@dataclass
class Asked:
    """One job somebody asked for, and what is known of it."""

    mark: str  # its tag, by which the log is searched
    body: dict[str, Any]
    key: str | None
    job_id: str | None = None  # once acknowledged
    sent: int = 0  # submits that went out


@dataclass
class Memory:
    """Everything clients were promised or saw."""

    asked: list[Asked] = field(default_factory=list)
    requests: int = 0
    frames: int = 0
    events_seen: int = 0
    connections: int = 0
    watched_to_the_end: int = 0
    recordings: dict[str, list[bytes]] = field(default_factory=dict)  # what each viewer was sent, for `verify`
    gaps_s: list[float] = field(default_factory=list)  # from a lost connection to the next frame

    @property
    def acknowledged(self) -> list[str]:
        """Ids of the jobs somebody was told of."""
        return [asked.job_id for asked in self.asked if asked.job_id]


class Clients:
    """All clients of one run."""

    def __init__(self, world: World, memory: Memory) -> None:
        self.world = world
        self.memory = memory
        self.rng = random.Random(f"{world.seed} clients")
        self.stopping = False  # no new wishes; what was begun is brought to its end

    # -- HTTP

    async def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """One request to some gateway. Raises `Lost` (outcome unknown) or `Refused` (nothing happened)."""
        connection = self.world.connect(self._some_gateway())
        self.memory.requests += 1
        if self.rng.random() < 0.02:
            self.world.later(self.rng.uniform(0.0, 0.1), connection.reset)
        status, answer = await wire.request(connection, method, path, body, **headers)
        if status >= 500 and status != 503:
            self.world.wrong(f"{method} {path} was answered with {status}: {answer}")
        return status, answer

    def _some_gateway(self) -> str:
        names = [node.name for node in self.world.nodes if node.name.startswith("g")]
        return self.rng.choice(names)

    async def submit(self, asked: Asked) -> None:
        """With a key until it is acknowledged; without one once, and then nobody knows."""
        self.memory.asked.append(asked)
        headers = {"Idempotency_Key": asked.key} if asked.key else {}
        while True:
            try:
                asked.sent += 1
                status, answer = await self.call("POST", "/api/v1/jobs", asked.body, **headers)
            except Refused:
                asked.sent -= 1
            except Lost:
                if asked.key is None:
                    return
            else:
                if status == 202:
                    asked.job_id = answer["id"]
                    self.world.note(f"client has job {asked.job_id[-4:]} ({asked.mark} {asked.body['params']['plan']})")
                    return
                if status != 503:
                    self.world.wrong(f"a submit was answered with {status}: {answer}")
                    return
                if asked.key is None:
                    return  # a 503 may hide a commit: asked again without a key it could be there twice
            await asyncio.sleep(self.rng.uniform(*PAUSE_S))

    async def wish(self) -> None:
        """Cancels, retries or reruns some job; whatever the answer, nothing else may break."""
        job_id = self.rng.choice(self.memory.acknowledged)
        what = self.rng.choice(("cancel", "cancel", "force", "retry", "rerun", "read"))
        try:
            match what:
                case "cancel":
                    grace_s = self.rng.choice((0.5, 2.0, 5.0))
                    answer = await self.call("POST", f"/api/v1/jobs/{job_id}/cancel", {"grace_s": grace_s})
                case "force":
                    answer = await self.call("POST", f"/api/v1/jobs/{job_id}/cancel", {"mode": "force"})
                case "retry":
                    answer = await self.call("POST", f"/api/v1/jobs/{job_id}/retry", {})
                case "rerun":
                    body = {"from_phase": self.rng.choice(("computing", "finishing"))}
                    answer = await self.call("POST", f"/api/v1/jobs/{job_id}/rerun", body)
                    if answer[0] == 202:
                        self.memory.asked.append(Asked("", {}, None, answer[1]["id"]))
                case _:
                    answer = await self.call("GET", f"/api/v1/jobs/{job_id}?results=inline")
        except (Lost, Refused):
            self.world.note(f"client asked to {what} {job_id[-4:]} and heard nothing")
        else:
            self.world.note(f"client asked to {what} {job_id[-4:]}: {answer[0]}")
            if answer[0] not in (200, 202, 409, 503):
                self.world.wrong(f"{what} of {job_id} was answered with {answer}")

    # -- streams

    async def watch(self, job_id: str) -> None:
        """Follows a job to its end over as many connections as it takes; every frame is checked."""
        viewer = Watcher(self, job_id)
        while not await viewer.connect():  # noqa: ASYNC110 a client's pause between two connections
            await asyncio.sleep(self.rng.uniform(*PAUSE_S))
        self.memory.watched_to_the_end += 1


class Watcher:
    """One person watching one job."""

    def __init__(self, clients: Clients, job_id: str) -> None:
        self._clients = clients
        self._world = clients.world
        self._rng = clients.rng
        self._job_id = job_id
        self._seq = 0
        self._epoch = ""
        self._batch = self._rng.random() < 0.5
        self._slow_s = self._rng.choice((0.0, 0.0, 0.0, 0.3))
        self._lost_at: float | None = None
        name = f"viewer {len(clients.memory.recordings) + 1} of {job_id[-4:]}"
        self._record = clients.memory.recordings[name] = []
        self._last_type = ""

    async def connect(self) -> bool:
        """One connection; True when the stream is over."""
        path = f"/api/v1/jobs/{self._job_id}/stream?after={self._seq}&heartbeat={HEARTBEAT_S}"
        path += ("&batch=1" if self._batch else "") + (f"&epoch={self._epoch}" if self._epoch else "")
        over = False
        try:
            connection = self._world.connect(self._clients._some_gateway())
        except Refused:
            return False
        self._clients.memory.connections += 1
        self._record.append(json.dumps({"type": "connected", "job_id": self._job_id, "after": self._seq}).encode())
        try:
            status = await wire.upgrade(connection, path)
            if status == 101:
                if self._rng.random() < 0.3:
                    self._world.later(self._rng.uniform(0.0, 10.0), connection.reset)
                over = await self._follow(connection)
            elif status != 503:
                self._wrong(f"the stream was answered with {status}")
        except (Lost, TimeoutError):
            pass
        finally:
            connection.close()
        if self._lost_at is None:
            self._lost_at = self._world.now
        return over

    async def _follow(self, connection: ClientSide) -> bool:
        hello: dict[str, Any] | None = None
        while True:
            async with asyncio.timeout(2.5 * HEARTBEAT_S):
                opcode, payload = await wire.frame(connection)
            if self._slow_s:
                await asyncio.sleep(self._slow_s * self._rng.random())
            if opcode == wire.PING:
                wire.send_frame(connection, wire.PONG, payload)
            elif opcode == wire.CLOSE:
                code = int.from_bytes(payload[:2], "big")
                self._record.append(json.dumps({"type": "closed", "code": code}).encode())
                return self._closed(code)
            else:
                self._record.append(payload)
                self._clients.memory.frames += 1
                hello = self._heard(json.loads(payload), payload, hello)

    def _heard(self, said: dict[str, Any], payload: bytes, hello: dict[str, Any] | None) -> dict[str, Any]:
        kind = said["type"]
        if hello is None:
            if kind != "hello":
                self._wrong(f"a connection began with {said}")
            resume = "resumed" if self._seq else "fresh"
            if said.get("resume") != resume or said.get("head_seq", 0) > self._head or said["head_seq"] < self._seq:
                self._wrong(f"after {self._seq}, head {self._head}: {said}")
            self._epoch = said["epoch"]
            return said
        if self._lost_at is not None:
            self._clients.memory.gaps_s.append(self._world.now - self._lost_at)
            self._lost_at = None
        match kind:
            case "caught_up":
                if said["seq"] != self._seq or self._seq < hello["head_seq"]:
                    self._wrong(f"at {self._seq}, head was {hello['head_seq']}: {said}")
            case "heartbeat":
                if said["seq"] > self._head:
                    self._wrong(f"head is {self._head}: {said}")
            case "goodbye":
                pass
            case "batch":
                for event in said["events"]:
                    self._event(event)
            case "hello" | "reset" | "command_error":
                self._wrong(f"unexpected {said}")
            case _:
                self._event(said, payload)
        return hello

    def _event(self, event: dict[str, Any], line: bytes | None = None) -> None:
        self._clients.memory.events_seen += 1
        if event["seq"] != self._seq + 1:
            self._wrong(f"after {self._seq} came {event['seq']}")
        self._seq = event["seq"]
        self._last_type = event["type"]
        recorded = self._world.database.events.get(self._job_id, [])
        if self._seq > len(recorded):
            self._wrong(f"was shown {event}, which is not committed")
        elif line is not None and recorded[self._seq - 1].line() != line:
            self._wrong(f"was shown {line!r}, recorded is {recorded[self._seq - 1].line()!r}")

    @property
    def _head(self) -> int:
        return len(self._world.database.events.get(self._job_id, []))

    def _closed(self, code: int) -> bool:
        if code not in (1000, 4000):
            if code not in (1012, 1011, 4508):
                self._wrong(f"the stream was closed with {code}")
            if code == 1011:
                self._wrong("the stream broke inside the gateway")
            return False
        events = self._world.database.events.get(self._job_id, [])
        follows = events[self._seq].type if self._seq < len(events) else "reopened"
        expected = {"complete": 1000, "cancelled": 1000, "error": 4000}.get(self._last_type)
        if expected != code or follows != "reopened":
            self._wrong(f"closed with {code} after {self._seq} ({self._last_type}); then comes {follows}")
        return True

    def _wrong(self, what: str) -> None:
        self._world.wrong(f"viewer of {self._job_id[-4:]}: {what}")
