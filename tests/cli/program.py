"""Runs `phaseline` as a person does: as a process of its own, its output in pipes."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from click.testing import CliRunner

from phaseline.cli import cli

PATIENCE_S = 60.0
COMMAND = [sys.executable, "-m", "phaseline"]


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str


def phaseline(*words: str, stdin: str | None = None, **env: str) -> Run:
    """Runs one command to its end. Fails when it takes longer than a minute."""
    done = subprocess.run(
        [*COMMAND, *words],
        input=stdin,
        capture_output=True,
        text=True,
        env=env_of(env),
        timeout=PATIENCE_S,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def in_process(*words: str, stdin: str | None = None, **env: str) -> Run:
    """The same without a process of its own, for what does not turn on that: many times faster."""
    cleared = dict.fromkeys(name for name in os.environ if name.startswith("PHASELINE_"))
    done = CliRunner().invoke(cli, words, input=stdin, prog_name="phaseline", env={**cleared, **env})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Run(done.exit_code, done.stdout, done.stderr)


class Running:
    """A command that goes on beside the test, read line by line."""

    def __init__(self, process: subprocess.Popen[str], stderr: TextIO) -> None:
        self.process = process
        self._stderr = stderr

    def lines(self, wanted: int) -> list[str]:
        """The next lines of stdout; fewer when it ends before."""
        assert self.process.stdout is not None
        return [line for _ in range(wanted) if (line := self.process.stdout.readline())]

    def rest(self) -> Run:
        """Waits for the end; what was not read yet."""
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        code = self.process.wait(PATIENCE_S)
        return Run(code, out, self.errors())

    def leave(self) -> None:
        """Closes our end of its stdout, as `head` does."""
        assert self.process.stdout is not None
        self.process.stdout.close()

    def errors(self) -> str:
        """All of stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read()


@contextmanager
def running(*words: str, **env: str) -> Iterator[Running]:
    """Starts a command; killed, if it still runs, at the end of the block."""
    with (
        tempfile.TemporaryFile("w+") as stderr,
        subprocess.Popen(
            [*COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=env_of(env),
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 one system call
        ) as process,
    ):
        try:
            yield Running(process, stderr)
        finally:
            if process.poll() is None:
                process.kill()


def in_terminal(*words: str, **env: str) -> str:
    """Runs one command in a terminal; returns everything that was drawn. Fails unless it exits 0."""
    with terminal(*words, **env) as person:
        assert person.end() == 0, person.shown
        return person.shown


class Terminal:
    """A person at a terminal: what was drawn so far is `shown`, what echoes included."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.shown = ""
        self._process = process
        self._master = master

    def see(self, text: str) -> None:
        """Waits until this was drawn."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.shown}"
            assert self._read(), f"it ended without {text!r}: {self.shown}"

    def asked(self, text: str) -> None:
        """Waits until this was drawn and the command waits for an answer.

        `input` writes the end of its prompt and only then reads: a signal between the two is heard when a line comes.
        """
        self.see(text)
        deadline = time.monotonic() + PATIENCE_S
        while Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline, f"it asks {text!r} and does not wait"
            time.sleep(0.01)

    def type(self, keys: str) -> None:
        """Presses keys; the character 3 is Ctrl-C."""
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Waits for the end; the exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, f"it does not end: {self.shown}"
        return self._process.wait(timeout=PATIENCE_S)

    def _read(self) -> bool:
        """False when the command has left the terminal."""
        ready, _, _ = select.select([self._master], [], [], 1.0)
        try:
            self.shown += os.read(self._master, 65536).decode(errors="replace") if ready else ""
        except OSError:  # the other side is closed
            return False
        return True


def _hear_ctrl_c() -> None:
    """In the child, before the command: what is started in the background of a script inherits a SIGINT that is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _sit_down() -> None:
    """In the child, before the command: what a shell does for a command in the foreground of its terminal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    _hear_ctrl_c()


@contextmanager
def terminal(*words: str, **env: str) -> Iterator[Terminal]:
    """Starts a command in a terminal of its own, which sends signals for keys; killed at the end of the block."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=env_of({"COLUMNS": "120", "LINES": "50", **env}),
        start_new_session=True,
        preexec_fn=_sit_down,  # noqa: PLW1509 two system calls
    ) as process:
        os.close(slave)
        try:
            yield Terminal(process, master)
        finally:
            if process.poll() is None:
                process.kill()
            os.close(master)


class Up:
    """`phaseline up` on one data directory and one port, to be killed and started again."""

    def __init__(self, data_dir: Path, **env: str) -> None:
        self.data_dir = data_dir
        self.url = ""
        self._env = env
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "stderr").open("a") as stderr:
            self._process = subprocess.Popen(
                [*COMMAND, "up", "--port", self._port, "--data-dir", str(self.data_dir)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=env_of(self._env),
            )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://"), (self.data_dir / "stderr").read_text()
        self._port = self.url.rpartition(":")[2]

    def kill(self) -> None:
        """As a power cut would: nothing gets the chance to say goodbye."""
        self._ended(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._ended(signal.SIGTERM)

    def _ended(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        self._process.communicate(timeout=PATIENCE_S)
        code, self._process = self._process.returncode, None
        return code


def env_of(extra: dict[str, Any]) -> dict[str, str]:
    # Without the caller's own settings, and without what forces colours into pipes.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PHASELINE_", "FORCE_"))}
    return {**kept, "TERM": "xterm-256color", **extra}
