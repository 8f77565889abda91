"""Simulated engine processes: the real parent's `ChildProcess` over a simulated socket, the child's side scripted.

A child is a process of its own: it lives through its parent's freeze until the deadline it was told, and ends when
the socket does.
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from engine_worker.frames import Frame, pack, receive_frame
from engine_worker.process import ChildProcess
from events.values import decode, encode
from tests.simulation.line import Fifo, Line
from tests.simulation.loop import PROCESS, Process, SimLoop

SOCKET_BYTES = 128 * 1024
PHASES = {"collecting": 30.0, "computing": 80.0, "finishing": 100.0}
MARKS = [0.0, *PHASES.values()]


class Exited:
    """What the parent knows of the child's process: `asyncio.subprocess.Process`, as far as it is used."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        """The exit code, once it ended."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self, code: int) -> None:
        """Tells the parent."""
        self.returncode = code
        self._ended.set()


class ParentsEnd:
    """The parent's `StreamWriter`."""

    def __init__(self, to: "Engine", line: Line) -> None:
        self._to = to
        self._there = Fifo(line)
        self._closed = False

    def is_closing(self) -> bool:
        return self._closed

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._there.send(partial(self._to.told, data))

    async def drain(self) -> None:
        return None

    def close(self) -> None:
        self._closed = True
        self._there.send(self._to.told_no_more)


class SimChild(ChildProcess):
    """As its parent sees it."""

    child: "Engine"

    @property
    def alive(self) -> bool:
        return not self._killed and self._process.returncode is None and not self._reader.at_eof()

    def kill(self, number: int = 9) -> None:
        self._killed = True
        self.child.signalled(number)


class Engine:
    """The child's side: what `engine_worker/child.py` does, with a script in place of an engine."""

    def __init__(self, loop: SimLoop, parent: Process, number: int, rng: random.Random) -> None:
        self.process = Process(f"{parent.name}/{number}")
        self.parent = parent
        self.exited = Exited(number)
        self.up = asyncio.StreamReader()  # what the parent reads
        self.down = asyncio.StreamReader()  # what we read
        self.rng = rng
        self.on_poison: Callable[[Process], None] = lambda _: None
        self._loop = loop
        self._line = Line(rng, (0.00005, 0.001))
        self._there = Fifo(self._line)
        self._travelling = 0
        self._parent_gone = False
        self._deadline: asyncio.TimerHandle | None = None
        self._cancelled = self._draining = self._deaf = False
        self._script: asyncio.Task[None] | None = None
        self._told = asyncio.Event()

    # -- its end

    def signalled(self, number: int) -> None:
        """A signal of the parent's."""
        if self.process.alive and not (number == 15 and self._deaf):
            self._line.carry(partial(self.die, -number))

    def parent_died(self) -> None:
        """The kernel closes the dead parent's end of the socket."""
        self._line.carry(self.told_no_more)

    def told(self, data: bytes) -> None:
        """Bytes of the parent."""
        if not self._parent_gone:
            self.down.feed_data(data)

    def told_no_more(self) -> None:
        """The parent's end is closed."""
        if not self._parent_gone:
            self._parent_gone = True
            self.down.feed_eof()

    def die(self, code: int) -> None:
        """Ends this process; what it said before still arrives."""
        if self.process.alive:
            self._loop.kill(self.process)
            self._there.send(self._gone)
            self._there.send(partial(self.exited.end, code))

    def _gone(self) -> None:
        if not self.up.at_eof():
            self.up.feed_eof()

    async def _exit(self, code: int) -> NoReturn:
        self.die(code)
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    # -- its life

    async def serve(self) -> None:
        """Runs attempts until the parent closes the socket."""
        try:
            await receive_frame(self.down.readexactly)
            await asyncio.sleep(self.rng.uniform(0.05, 0.4))  # imports
            await self._say({"op": "ready"})
            while True:
                await self._heard(await receive_frame(self.down.readexactly))
        except asyncio.IncompleteReadError:
            self.die(-9)

    async def _heard(self, frame: Frame) -> None:
        match frame.op:
            case "run":
                self._cancelled = self._draining = False
                self._script = asyncio.get_running_loop().create_task(self._attempt(frame))
                self._script.add_done_callback(self._ended)
            case "lease":
                if self._deadline:
                    self._deadline.cancel()
                self._deadline = self._loop.call_at(frame.fields["until"], self.die, -9)
            case "cancel":
                self._cancelled = True
                self._told.set()
            case "drain":
                self._draining = True
                self._told.set()
            case _:
                raise AssertionError(frame.op)

    def _ended(self, script: asyncio.Task[None]) -> None:
        if not script.cancelled() and (problem := script.exception()) is not None:
            self._loop.problems.append((self.process, "the script broke", problem))

    async def _say(self, fields: dict[str, Any], body: bytes = b"") -> None:
        data = pack(fields, body)
        while self._travelling and self._travelling + len(self.up._buffer) > SOCKET_BYTES:  # type: ignore[attr-defined]  # noqa: ASYNC110 nobody tells the writer of a simulated socket
            await asyncio.sleep(0.05)  # a full socket: the child looks again as the kernel would
        self._travelling += len(data)

        def arrive() -> None:
            self._travelling -= len(data)
            self.up.feed_data(data)

        self._there.send(arrive)

    # -- the script

    async def _attempt(self, run: Frame) -> None:
        """What is said is counted, so that what is missing, doubled or out of order shows in the stream."""
        params, attempt = run.fields["params"], run.fields["attempt"]
        recorded = decode(run.body) if run.body else {}
        rng = random.Random(f"{run.fields['job_id']} {attempt}")
        plan = params["plan"]
        self._deaf = plan == "deaf"
        said = 0

        def numbered() -> dict[str, int]:
            nonlocal said
            said += 1
            return {"a": attempt, "n": said}

        for index, phase in enumerate(PHASES):
            await self._say({"op": "progress", "phase": phase, "progress": MARKS[index], "mark": True})
            if phase in recorded:
                if recorded[phase]["phase"] != phase:
                    raise AssertionError(f"recorded outputs are mixed up: {recorded}")
                continue
            for step in range(rng.randint(1, params["steps"])):
                await self._pause(rng.uniform(0.02, params["step_s"]))
                if (self._cancelled or self._draining) and not self._deaf:
                    await self._say({"op": "stopped", "rss_bytes": 1})
                    return
                if index == 1 and await self._trouble(plan, attempt, said):
                    return
                await self._speak(rng, phase, index, step, numbered, params["bytes"])
            if rng.random() < 0.6:
                output = encode({"phase": phase, **numbered()})
                await self._say({"op": "checkpoint", "phase": phase, "duration_ms": 1}, output)
        result = {"a": attempt, "n": said} | ({"large": "x" * 300_000} if plan == "large" else {})
        await self._say({"op": "result", "rss_bytes": 1}, encode(result))

    async def _speak(
        self, rng: random.Random, phase: str, index: int, step: int, numbered: Callable[[], dict[str, int]], size: int
    ) -> None:
        match rng.randrange(4):
            case 0:
                await self._say({"op": "log", "level": "info", "message": "step", "fields": numbered()})
            case 1:
                value = numbered() | {"filling": "y" * rng.randrange(size)}
                await self._say({"op": "partial", "phase": phase, "name": "value", "value": value})
            case 2:
                await self._say({"op": "best", "results": None}, encode({"best": step}))
            case _:
                span = MARKS[index + 1] - MARKS[index]
                percent = round(MARKS[index] + span * rng.random() * 0.9, 2)
                await self._say({"op": "progress", "phase": phase, "progress": percent})

    async def _pause(self, seconds: float) -> None:
        """Wakes early when something was said, unless it does not listen."""
        self._told.clear()
        try:
            async with asyncio.timeout(seconds):
                await (asyncio.Event() if self._deaf else self._told).wait()
        except TimeoutError:
            return

    async def _trouble(self, plan: str, attempt: int, said: int) -> bool:
        """Whether the script ends here."""
        match plan:
            case "flaky" if attempt == 1:
                await self._failed(said, retryable=True)
            case "doomed":
                await self._failed(said, retryable=False)
            case "hang":
                await asyncio.Event().wait()
            case "killed" if attempt == 1:
                await self._exit(self.rng.choice((-9, -11, 3)))
            case "poison" if attempt <= self.rng.randint(1, 3):
                self.on_poison(self.parent)
                await self._exit(-9)
            case _:
                return False
        return True

    async def _failed(self, said: int, *, retryable: bool) -> None:
        error = {"type": "ValueError", "message": f"failed after {said}", "code": "engine_error"}
        await self._say({
            "op": "failed", "error": error | {"retryable": retryable}, "retry_after_s": None, "rss_bytes": 1,
        })  # fmt: skip


async def start(
    loop: SimLoop, number: int, rng: random.Random, made: Callable[[Engine], None], setup: dict[str, Any]
) -> ChildProcess:
    """`ChildProcess.start`, simulated."""
    engine = Engine(loop, PROCESS.get(), number, rng)
    made(engine)
    line = Line(rng, (0.00005, 0.001))
    child = SimChild(engine.exited, engine.up, ParentsEnd(engine, line))  # type: ignore[arg-type]
    child.child = engine
    loop.spawn(engine.process, engine.serve())
    try:
        await child.send(setup)
        await child.receive()
    except BaseException:
        await child.end(term_s=0)
        raise
    return child
