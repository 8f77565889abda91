"""Engines that say little and in a known order, under any names: what a death leaves of them can be told exactly.

`CRASH_ENGINES` names them, so that each worker of a test claims its own jobs only.
"""

import os
import time

from pydantic import BaseModel

from phaseline import Context, NotRetryable, RetryAfter, engine

HELD_S = 100.0
PAUSE_S = 1.0  # many commits


class Course(BaseModel):
    """What the first attempt does; later ones only log and return."""

    bulk: int = 0  # bytes of a recorded phase, before the log
    hold: bool = False  # goes on until a cancel
    fail: bool = False  # is tried again
    give_up: bool = False  # is not
    pause: bool = False  # between the log and the end: the log is recorded before


def run(params: Course, context: Context) -> dict[str, int]:
    """Says `here` in each attempt."""
    first = context.attempt == 1
    if params.bulk:
        context.phase("collecting_data", lambda: "x" * params.bulk)
    context.log("here")
    if params.fail and first:
        raise RetryAfter("once more", 0.0)
    if params.give_up and first:
        raise NotRetryable("for good")
    if params.pause and first:
        time.sleep(PAUSE_S)
    until = time.monotonic() + HELD_S
    while params.hold and first and time.monotonic() < until:
        context.raise_if_cancelled()
        time.sleep(0.01)
    return {"attempt": context.attempt}


for _name in filter(None, os.environ.get("CRASH_ENGINES", "").split(",")):
    globals()[_name] = engine(_name, version=1, phases={"collecting_data": 50, "finalizing": 100})(run)
