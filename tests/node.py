"""What the tests take from npm: a few packages of exact versions, installed once beside the file that names them."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

INSTALL_S = 300.0


def installed(folder: Path) -> Path:
    """The `node_modules` of a folder with a `package.json`, installed when it is missing or older than that file."""
    modules = folder / "node_modules"
    mark = modules / ".installed"
    wanted = (folder / "package.json").stat().st_mtime
    with (Path(tempfile.gettempdir()) / "phaseline-tests-npm.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # test processes of one run, one at a time
        if not mark.exists() or mark.stat().st_mtime < wanted:
            _npm("install", "--prefix", str(folder), "--no-package-lock", "--no-audit", "--no-fund", "--silent")
            mark.touch()
    return modules


def node(*words: str, cwd: Path, within_s: float, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs node to its end; stdout and stderr in one."""
    return subprocess.run(
        [_program("node"), *words],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=within_s,
        check=False,
        text=True,
    )


def _npm(*words: str) -> None:
    done = subprocess.run(
        [_program("npm"), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=INSTALL_S,
        check=False,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"npm {words[0]} failed: {done.stdout[-500:]}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"These tests need Node.js 20 or later with npm; there is no {name} on PATH.")
    return found
