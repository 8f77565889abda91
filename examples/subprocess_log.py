"""A command of the machine as a job: each line it prints is a log event, its exit code decides."""

import subprocess
import sys
from typing import Literal

from pydantic import BaseModel

from phaseline import Context, NotRetryable, engine

# Whoever may submit jobs chooses among these: never let a request name the command itself.
COMMANDS: dict[str, list[str]] = {
    "count": [sys.executable, "-u", "-c", "import time\nfor n in range(5): print('line', n); time.sleep(0.05)"],
    "wait": [sys.executable, "-u", "-c", "import time\nwhile True: print('waiting'); time.sleep(0.1)"],
    "fail": [sys.executable, "-u", "-c", "import sys\nprint('nothing to see')\nsys.exit('no such file')"],
}
LAST_LINES = 5  # of a failure's message


class Run(BaseModel):
    """Which command."""

    command: Literal["count", "wait", "fail"]


@engine("run_command", version=1, phases={"running": 100})
def run_command(params: Run, context: Context) -> dict[str, int]:
    """Runs a command and says what it prints."""
    context.phase("running")
    lines: list[str] = []
    # When this attempt ends by force, the command ends with it: it is in the engine's own session.
    with subprocess.Popen(
        COMMANDS[params.command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                context.log(lines[-1], command=params.command)
                context.raise_if_cancelled()
        finally:
            process.kill()
    if process.returncode:
        raise NotRetryable(f"exit code {process.returncode}: " + " / ".join(lines[-LAST_LINES:]))
    return {"lines": len(lines)}
