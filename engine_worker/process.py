"""A child process as its parent sees it: started ahead of need, spoken to over a socket, ended with all it started."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from typing import Any

from engine_worker.endings import Exit
from engine_worker.frames import Frame, pack, receive_frame
from events.clock import monotonic

READY_S = 60.0  # to import our code and the engines' declarations on a machine under load
TERM_S = 0.5  # between SIGTERM, for engines that clean up, and SIGKILL
EXIT_S = 5.0  # after SIGKILL: longer only while the kernel cannot end a process
SEND_S = 30.0  # for a child to take a run's params and recorded outputs


class ChildFailed(Exception):
    """An engine process could not be started."""


class ChildProcess:
    """One running child. Made by `start`; whoever made it awaits `end`."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._killed = False  # its end may not have been heard of yet
        self.attempts = 0

    @classmethod
    async def start(cls, setup: dict[str, Any]) -> "ChildProcess":
        """Starts a process and waits until it can run an engine. Raises `ChildFailed`."""
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                process = await _spawn(theirs.fileno())
            except BaseException as problem:
                writer.close()
                if isinstance(problem, OSError):
                    raise ChildFailed(f"no engine process could be started: {problem}") from problem
                raise
        child = cls(process, reader, writer)
        try:
            async with asyncio.timeout(READY_S):
                await child.send(setup | {"until": monotonic() + READY_S})
                if await child.receive() is None:
                    raise ChildFailed("an engine process ended before it was ready; its output says why")
        except BaseException as problem:
            await child.end(term_s=0)
            if isinstance(problem, TimeoutError):
                raise ChildFailed(f"an engine process was not ready within {READY_S:g} s") from problem
            raise
        return child

    @property
    def pid(self) -> int:
        """Also the id of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once it ended, closed its socket or was killed. Asks the kernel: the loop may not have heard yet, and
        an attempt handed to a dead child would be blamed for its death."""
        if self._killed or self._process.returncode is not None or self._reader.at_eof():
            return False
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:  # reaped between our look and now
            return False

    async def receive(self) -> Frame | None:
        """The next frame; None once the process is gone. What it said before it died still comes first.

        Raises `Garbled` when an engine wrote into our socket."""
        try:
            return await receive_frame(self._reader.readexactly)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def tell(self, **fields: Any) -> None:
        """A short word to the child; never waits."""
        if not self._writer.is_closing():
            self._writer.write(pack(fields))

    async def send(self, fields: dict[str, Any], body: bytes = b"") -> None:
        """A longer one; waits until the child took it. A child that is gone says so at the next `receive`."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(SEND_S):
                self._writer.write(pack(fields, body))
                await self._writer.drain()

    async def watch(self) -> None:
        """Returns when the process ended. What it forked may still hold its end of the socket, so it goes too."""
        await self._process.wait()  # as long as an engine runs; whoever asks cancels
        self.kill()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signals the child and everything it started; returns at once."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def stop(self, term_s: float = TERM_S) -> None:
        """Ends the child and everything it started. What it said before can still be received."""
        try:
            if term_s and self._process.returncode is None:
                self.kill(signal.SIGTERM)
                async with asyncio.timeout(term_s):
                    await self._process.wait()
        except TimeoutError:
            pass  # its own handler took too long
        finally:
            self.kill()

    async def end(self, term_s: float = TERM_S) -> None:
        """Ends the child, if it still runs, and gives back what it occupied here."""
        try:
            await self.stop(term_s)
            await self.exited()
        except asyncio.CancelledError:
            await self.exited()  # it is killed by now, and must not outlive the loop that hears of its end
            raise
        finally:
            self._writer.close()

    async def exited(self) -> Exit:
        """Waits for the end of a process that was ended or is gone. Raises `TimeoutError` for one that will not."""
        async with asyncio.timeout(EXIT_S):
            code = await self._process.wait()
        return Exit(code=code) if code >= 0 else Exit(signal=_signal_name(-code))


async def _spawn(fd: int) -> Process:
    # -P: a file in the current folder must not stand in for a module of the standard library.
    command: Sequence[str] = (sys.executable, "-P", "-m", "engine_worker.child", str(fd))
    # What engines print goes to our stderr. An own session: a signal to its group reaches whatever it started, and
    # Ctrl-C in a terminal reaches only us.
    return await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=2, pass_fds=(fd,), start_new_session=True
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
