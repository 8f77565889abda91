"""What every peer's program shares: it is asked for jobs and answers with what they took. Standard library only.

`python -m benchmarks.peers.NAME` is the load generator; it starts `… NAME worker` as its child. A job's code says that
it runs, in ns since 1970, over a Unix datagram: the cheapest way to hear of it that is the same for all peers.
"""

import abc
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WORKER_READY_S = 60.0
BURST_S = 120.0
IDLE_S = 0.03  # between two jobs of an idle system
SUBMITTING_MAX = 32

DATABASE_URL = os.environ.get("BENCH_DATABASE_URL", "")
RABBITMQ_URL = os.environ.get("BENCH_RABBITMQ_URL", "")
_TOLD = "BENCH_TOLD"
_mouth: socket.socket | None = None


def tell() -> None:
    """Said by a job's first line: it runs now."""
    global _mouth  # noqa: PLW0603 one socket a worker process, opened by its first job
    if _mouth is None:
        _mouth = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        _mouth.connect(os.environ[_TOLD])
    _mouth.send(str(time.time_ns()).encode())


class Driven(abc.ABC):
    """A peer's load generator. `name` is its module."""

    name: str
    keeps_state = True  # False: nothing to query, a job has ended when it said that it ran
    arguments: tuple[str, ...] = ()  # of the worker's command, after the interpreter's; by default this module

    def __init__(self) -> None:
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = Path(os.environ["BENCH_FOLDER"]) / f"{self.name}.{os.getpid()}"
        self.ear.bind(str(path))
        self.ear.setblocking(False)
        os.environ[_TOLD] = str(path)
        self.worker: subprocess.Popen[bytes] | None = None

    async def prepare(self) -> None:  # noqa: B027 not every peer needs it
        """Makes its tables and queues."""

    async def connect(self) -> None:  # noqa: B027 not every peer needs it
        """Connects the submitting side, once the worker was started."""

    @abc.abstractmethod
    async def submit(self, kind: str) -> None:
        """Submits one job: `telling` (that it runs), `noop` or `fivephase`."""

    async def ended(self) -> int:
        """How many jobs ever ended, as the peer's own state tells."""
        raise NotImplementedError

    async def open(self) -> dict[str, Any]:
        """Everything up and warm: a first job has run."""
        await self.prepare()
        self.start_worker()
        await self.connect()
        async with asyncio.timeout(WORKER_READY_S):
            await self.submit("telling")
            await self.told()
        return {"ready": True}

    def start_worker(self) -> None:
        """In this process's group: whoever freezes it freezes both."""
        arguments = self.arguments or ("-m", f"benchmarks.peers.{self.name}", "worker")
        self.worker = subprocess.Popen([sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=sys.stderr)

    async def told(self) -> int:
        """When the next job to say so began, in ns since 1970."""
        return int(await asyncio.get_running_loop().sock_recv(self.ear, 64))

    async def start(self, jobs: int, seconds: float) -> dict[str, Any]:
        """Milliseconds from before the submit to the job's first line, one at a time on an idle system, for so many
        seconds at most."""
        await self._one()  # whatever slept while it was frozen is awake
        waits: list[float] = []
        enough = time.monotonic() + seconds
        while len(waits) < jobs and time.monotonic() < enough:
            await asyncio.sleep(IDLE_S)
            waits.append(await self._one())
        return {"values": waits}

    async def _one(self) -> float:
        async with asyncio.timeout(BURST_S):
            sent = time.time_ns()
            await self.submit("telling")
            return (await self.told() - sent) / 1e6

    async def burst(self, kind: str, jobs: int) -> dict[str, Any]:
        """Seconds from the first submit of many until the last has ended and its end can be queried."""
        await self._one()
        before = await self._settled() if self.keeps_state else 0
        began = time.monotonic()
        async with asyncio.timeout(BURST_S):
            if not self.keeps_state:
                await asyncio.gather(self.submit_many("telling", jobs), self._all_told(jobs))
            else:
                await self.submit_many(kind, jobs)
                while await self.ended() < before + jobs:  # noqa: ASYNC110 another process's state
                    await asyncio.sleep(0.01)
        return {"seconds": time.monotonic() - began}

    async def submit_many(self, kind: str, jobs: int) -> None:
        """Submits so many, some at a time."""
        left = iter(range(jobs))

        async def some() -> None:
            for _ in left:
                await self.submit(kind)

        await asyncio.gather(*(some() for _ in range(SUBMITTING_MAX)))

    async def _all_told(self, jobs: int) -> None:
        for _ in range(jobs):
            await self.told()

    async def _settled(self) -> int:
        """How many had ended before, once that number stands still."""
        known = -1
        while (now := await self.ended()) != known:
            known = now
            await asyncio.sleep(0.05)
        return known

    async def close(self) -> None:
        """Ends the worker."""
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()


async def drive(driven: Driven) -> None:
    """Answers commands until standard input ends. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            asked = json.loads(line)
            try:
                answer = await getattr(driven, asked.pop("do"))(**asked)
            except Exception as failure:
                answer = {"failed": f"{type(failure).__name__}: {failure}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        await driven.close()
