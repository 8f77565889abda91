"""Ends what a test run started when the run itself no longer can: killed with -9, or gone in any other way.

Runs as a process of its own in its own session, so that Ctrl-C does not reach it, and reads lines from a pipe that
closes with the test run: `own PATH` (a folder to remove), `watch PID SIGNAL` (a process group to end, and how),
`forget PID`. Uses nothing but the standard library: it starts in 20 ms.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

GRACE_S = 5.0


def _send(group: int, number: int) -> bool:
    """False when the group is gone."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    folders: list[str] = []
    groups: dict[int, int] = {}
    for line in sys.stdin:
        match line.rstrip("\n").split(" ", 1):
            case ["own", folder]:
                folders.append(folder)
            case ["watch", rest]:
                group, number = rest.split()
                groups[int(group)] = int(number)
            case ["forget", group]:
                groups.pop(int(group), None)
            case _:
                raise ValueError(f"not understood: {line!r}")
    # Last started, first ended.
    for group, number in reversed(groups.items()):
        _send(group, number)
    deadline = time.monotonic() + GRACE_S
    while any(_send(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        _send(group, signal.SIGKILL)
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
