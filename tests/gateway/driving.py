"""What the gateway's tests drive jobs and clients with: no worker, no mock."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import BaseTestServer
from pydantic import BaseModel, Field

from events.batch import Claimed
from events.bus import Bus
from events.catalog import (
    AnyCommand,
    AttemptError,
    Checkpoint,
    Fail,
    Finish,
    Outcome,
    PhaseEnd,
    Progress,
    Ref,
    Report,
    Submit,
    Submitted,
)
from events.committer import Committer, new_command_id
from events.declaration import Engine, InvalidParams, engine
from events.log import Artifact, Log, WorkerRow

WAIT_S = 10.0  # bound of every wait; none is used up when things work
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


class TripParams(BaseModel):
    team_id: Annotated[int, Field(ge=1)]
    horizon: int = 3
    risk: float | None = None


def refuse_team_13(params: TripParams) -> None:
    if params.team_id == 13:
        raise InvalidParams((("team_id",), "team 13 is not in the data"))


@engine(
    "fpl",
    version=2,
    phases={"initializing": 10, "collecting_data": 40, "analyzing_transfers": 70, "finalizing": 100},
    check=refuse_team_13,
)
def fpl(params: TripParams, context: Any) -> dict[str, Any]:
    """An engine with the phases and the shape of the shipped one; it never runs here."""
    raise NotImplementedError


@engine("countdown", version=1, phases={"counting": 100})
def countdown(params: TripParams, context: Any) -> Any:
    """Another engine."""
    raise NotImplementedError


ENGINES: dict[str, Engine] = {"fpl": fpl, "countdown": countdown}


@dataclass
class Storage:
    """An open log and bus. Hints pass through `lose` before they are published: a test may drop or repeat them.
    `interrupt(True)` makes the log's server unreachable, `interrupt(False)` brings it back."""

    log: Log
    bus: Bus
    interrupt: Callable[[bool], None]
    lose: Callable[[list[bytes]], list[bytes]] = list


class Driver:
    """Makes jobs and moves them, as a worker would, straight through the committer."""

    def __init__(self, storage: Storage, committer: Committer) -> None:
        self.log = storage.log
        self.committer = committer
        self.worker_id = "00000000-0000-4000-8000-000000000001"

    async def submit(self, engine: str = "fpl", **fields: Any) -> str:
        submitted = Submitted(
            engine=engine,
            engine_version=ENGINES[engine].version,
            params=fields.pop("params", {"team_id": 7, "horizon": 3, "risk": None}),
            phases=tuple(PhaseEnd(name=p.name, until=p.until) for p in ENGINES[engine].phases),
            **fields,
        )
        command = Submit(command_id=new_command_id(), actor="user:anonymous", submitted=submitted)
        row, _ = await self.committer.submit(command, tenant="default")
        return row.job.id

    async def claim(self, job_id: str | None = None) -> "Attempt":
        """Claims the one due job; `job_id` says which it must be."""
        versions = {name: engine.version for name, engine in ENGINES.items()}
        worker = WorkerRow(self.worker_id, "here", 1, "test", slots=1, engines=versions)
        await self.log.beat(worker, 60.0)
        (taken,) = await self.committer.claim(self.worker_id, versions, 1, idle=True)
        assert job_id is None or taken.job.id == job_id
        return Attempt(self, taken)

    async def started(self, **fields: Any) -> "Attempt":
        return await self.claim(await self.submit(**fields))

    async def run(self, job_id: str, command: AnyCommand, *artifacts: Artifact) -> None:
        await self.committer.execute(job_id, command, artifacts=artifacts)


class Attempt:
    """A running attempt and what its engine says."""

    def __init__(self, driver: Driver, taken: Claimed) -> None:
        self.driver = driver
        self.job_id = taken.job.id
        self.number = taken.job.attempt
        self._fence = {
            "attempt": taken.job.attempt,
            "lease_id": taken.job.lease_id,
            "actor": f"worker:{driver.worker_id}",
        }

    def _command(self, cls: type[Any], **fields: Any) -> Any:
        return cls(command_id=new_command_id(), **self._fence, **fields)

    async def say(self, *said: Any) -> None:
        await self.driver.run(self.job_id, self._command(Report, said=said))

    async def progress(self, percent: float, phase: str = "collecting_data", **fields: Any) -> None:
        await self.say(Progress(progress=percent, phase=phase, **fields))

    async def checkpoint(self, phase: str, output: Any) -> None:
        await self.say(Checkpoint(phase=phase, output=output, digest="0" * 64, duration_ms=1))

    async def checkpoint_apart(self, phase: str, body: bytes, sha256: str) -> None:
        ref = Ref(url=f"/api/v1/jobs/{self.job_id}/artifacts/{sha256}", sha256=sha256, size=len(body))
        said = Checkpoint(phase=phase, output_ref=ref, digest=sha256, duration_ms=1)
        await self.driver.run(self.job_id, self._command(Report, said=(said,)), Artifact(self.job_id, sha256, body))

    async def finish(self, results: Any) -> None:
        await self.driver.run(self.job_id, self._command(Finish, outcome=Outcome(value=results)))

    async def finish_apart(self, body: bytes, sha256: str) -> None:
        ref = Ref(url=f"/api/v1/jobs/{self.job_id}/results", sha256=sha256, size=len(body))
        command = self._command(Finish, outcome=Outcome(ref=ref))
        await self.driver.run(self.job_id, command, Artifact(self.job_id, sha256, body))

    async def fail(self, message: str = "no data") -> None:
        error = AttemptError(type="ValueError", message=message, code="engine_error", retryable=False)
        await self.driver.run(self.job_id, self._command(Fail, error=error, draw=0.0))


@dataclass
class Gateway:
    """A running gateway and a client for it."""

    server: BaseTestServer
    session: aiohttp.ClientSession
    app: web.Application
    driver: Driver
    storage: Storage

    async def call(self, method: str, path: str, **asked: Any) -> "Answer":
        async with self.session.request(method, self.server.make_url(path), **asked) as response:
            body = await response.read()
            return Answer(response.status, response.headers, body)

    async def get(self, path: str, **asked: Any) -> "Answer":
        return await self.call("GET", path, **asked)

    async def post(self, path: str, body: Any = None, **asked: Any) -> "Answer":
        return await self.call("POST", path, **({"json": body} if body is not None else {}), **asked)

    @asynccontextmanager
    async def stream(self, path: str, **asked: Any) -> AsyncIterator["Stream"]:
        async with self.session.ws_connect(self.server.make_url(path), max_msg_size=0, **asked) as socket:
            yield Stream(socket)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Frames:
    """What a client reads off a stream, whatever carries it."""

    async def frame(self) -> dict[str, Any]:
        """The next frame."""
        raise NotImplementedError

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Frames up to and including the first of this type."""
        frames = [await self.frame()]
        while frames[-1]["type"] != kind:
            frames.append(await self.frame())
        return frames

    async def events(self, count: int) -> list[dict[str, Any]]:
        """The next events, control frames left out, batches opened."""
        events: list[dict[str, Any]] = []
        while len(events) < count:
            frame = await self.frame()
            events += frame["events"] if frame["type"] == "batch" else [frame] if "attempt" in frame else []
        return events


class Stream(Frames):
    """A client's end of a WebSocket: frames as JSON values."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.text: list[str] = []

    async def frame(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, (message, self.text)
        self.text.append(message.data)
        frame: dict[str, Any] = json.loads(message.data)
        return frame

    async def rest(self) -> tuple[list[dict[str, Any]], int | None]:
        """Every frame up to the close, and its code; None when the connection ended without one."""
        frames = []
        async with asyncio.timeout(WAIT_S):
            while (message := await self.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                self.text.append(message.data)
                frames.append(json.loads(message.data))
        return frames, message.data if message.type is aiohttp.WSMsgType.CLOSE else None


def seen(frames: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What a full stream showed: (seq, type) of events, (type,) of control frames."""
    flat = [event for frame in frames for event in (frame["events"] if frame["type"] == "batch" else [frame])]
    return [(f["seq"], f["type"]) if "attempt" in f else (f["type"],) for f in flat]


def normal(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Classic frames with their times checked and replaced, extra fields the protocol allows left out."""
    for frame in frames:
        assert _TIME.match(frame["timestamp"]), frame
    return [{**{k: v for k, v in f.items() if k != "seq"}, "timestamp": "TIME"} for f in frames]


async def eventually(holds: Callable[[], bool]) -> None:
    """Waits, with a bound, for something no event tells of."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 nothing signals the end of a server's closing handshake
            await asyncio.sleep(0.005)
