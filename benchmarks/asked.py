"""Processes that are asked: one JSON command a line in, one JSON answer a line out. The crowd and every peer are such."""

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ANSWER_S = 240.0
ANSWER_BYTES_MAX = 256 * 1024 * 1024
END_S = 10.0


class Failed(Exception):
    """The other process could not do it; the message says why."""


class Asked:
    """A running process, first of a group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Of the process itself."""
        return self._process.pid

    async def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """One command. Raises `Failed` when it fails, ends or takes too long."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_S):
                process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except (TimeoutError, OSError) as failure:
            raise Failed(f"{do}: no answer ({type(failure).__name__}); {self._tail()}") from failure
        if not line:
            raise Failed(f"{do}: it ended; {self._tail()}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Failed(f"{do}: {answer['failed']}")
        return answer

    def freeze(self) -> None:
        """Stops the whole group: it costs nothing while others are measured."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return re.sub(r"\S*/", "", lines[-1]) if lines else "it said nothing"  # where a file lies is nobody's matter


@asynccontextmanager
async def asked(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Asked]:
    """Starts a process for the block; what it says on stderr goes to `log`. Its whole group ends with the block."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            env={**os.environ, **(environment or {})},
            limit=ANSWER_BYTES_MAX,
            start_new_session=True,
        )
    try:
        yield Asked(process, log)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Its input ends, so it ends by itself; whoever of its group does not is killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
