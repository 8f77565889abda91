"""Phaseline's processes, forked from one that has imported everything: each costs two seconds of CPU less.

They are processes like any other, with signals, an exit code and output of their own. When the test run is killed they
go with it.
"""

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM, SIGUSR1, Signals
from signal import signal as on_signal
from types import FrameType
from typing import Any

TELL_S = 2.0

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["phaseline.cli", "phaseline.cli_server", "phaseline.compose", "aio_pika", "asyncpg", "aiosqlite", "tests.forked"]
)


class Forked:
    """`phaseline` with these words on its command line; what it prints goes to `output`."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        self.output = output
        self._process = _forks.Process(target=_run, args=(tuple(words), dict(environment), str(output)), daemon=True)
        self._process.start()

    @property
    def running(self) -> bool:
        """False once it ended."""
        return self._process.is_alive()

    def signal(self, number: Signals = SIGTERM) -> None:
        """Sends a signal; nothing happens when the process has ended."""
        if self.running and self._process.pid is not None:
            os.kill(self._process.pid, number)

    async def ended(self, within_s: float = 60.0) -> int:
        """Waits for its end; the exit code, negative for a signal. Raises `TimeoutError`."""
        await self._over(within_s)
        if self._process.exitcode is None:
            self.signal(SIGUSR1)  # it says where every task stands
            await self._over(TELL_S)
            raise TimeoutError(f"still running after {within_s:g} s: {self.said[-20000:]}")
        return self._process.exitcode

    async def _over(self, within_s: float) -> None:
        """Waits for the end in a thread and asks for the exit code here: of two threads that ask at once, the second
        finds it read and takes it for 255."""
        await asyncio.to_thread(multiprocessing.connection.wait, [self._process.sentinel], within_s)

    async def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        self._process.kill()
        await self.ended()

    # -- as `asyncio.subprocess.Process` has it

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends a signal; nothing happens when the process has ended."""
        self.signal(Signals(number))

    async def wait(self) -> int:
        """As `ended`."""
        return await self.ended()

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with these settings and no other of Phaseline's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PHASELINE_")} | settings


def _run(words: tuple[str, ...], environment: dict[str, str], output: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(said, descriptor)
    threading.Thread(target=_follow_the_run, name="test run", daemon=True).start()
    on_signal(SIGUSR1, _tell)
    os.setpgid(0, 0)  # Ctrl-C in a terminal ends the tests, and they end this
    sys.argv = ["phaseline", *words]
    from phaseline.cli import cli

    cli.main(list(words), prog_name="phaseline")


def _tell(_number: int, frame: FrameType | None) -> None:
    """Prints where the process and each of its tasks stand."""
    traceback.print_stack(frame)
    with contextlib.suppress(RuntimeError):
        for task in asyncio.all_tasks(asyncio.get_running_loop()):
            sys.stderr.write("\n  ".join([f"{task!r:.200}", *_awaited(task.get_coro())]) + "\n")


def _awaited(waits: Any) -> Iterator[str]:
    """Where a coroutine stands, and what it awaits, down to the future."""
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "ag_frame", None) or getattr(waits, "gi_frame", None)
        yield f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else f"{waits!r:.200}"
        waits = (
            getattr(waits, "cr_await", None) or getattr(waits, "ag_await", None) or getattr(waits, "gi_yieldfrom", None)
        )


def _follow_the_run() -> None:
    run = multiprocessing.parent_process()
    assert run is not None
    multiprocessing.connection.wait([run.sentinel])
    os.kill(os.getpid(), SIGKILL)
