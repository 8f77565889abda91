"""Engines that behave badly on purpose, and some that behave well."""

import asyncio
import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from phaseline import Context, InvalidParams, NotRetryable, RetryAfter, engine

PHASES = {"first": 50, "second": 100}


class Params(BaseModel):
    """What each engine makes of them is its own affair."""

    number: int = 0
    path: str = ""
    kind: str = ""


@engine("well_behaved_async", version=1, phases=PHASES)
async def well_behaved_async(params: Params, context: Context) -> dict[str, int]:
    """Awaits something."""
    context.phase("first")
    await asyncio.sleep(0)
    return {"number": params.number}


@engine("stubborn", version=1, phases=PHASES)
def stubborn(params: Params, context: Context) -> None:
    """Hears nothing and never ends."""
    context.phase("first")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


@engine("chatty", version=1, phases=PHASES)
def chatty(params: Params, context: Context) -> int:
    """Says `number` partials as fast as it can, and how many seconds that took."""
    context.phase("first")
    began = time.monotonic()
    for index in range(params.number):
        context.partial("line", {"index": index, "text": "x" * 1000})
    return int(time.monotonic() - began)


@engine("resuming", version=1, phases=PHASES)
def resuming(params: Params, context: Context) -> dict[str, Any]:
    """Records its first phase, then dies in its second, once."""
    first = context.phase("first", lambda: {"made_in": context.attempt, "bulk": "x" * params.number})
    context.phase("second")
    if context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"made_in": first["made_in"], "size": len(first["bulk"])}


@engine("remembering", version=1, phases=PHASES, subject=("kind", "path"))
def remembering(params: Params, context: Context) -> dict[str, Any]:
    """Says what it knows of the job before; `number` letters of bulk. Dies once when that is negative."""
    context.phase("first")
    before = context.previous
    known = None if before is None else {"job_id": before.job_id, "sha256": before.sha256, "result": before.result}
    if params.number < 0 and context.attempt == 1:
        context.partial("before", known)
        os.kill(os.getpid(), signal.SIGKILL)
    bulk = "x" * max(params.number, 0)
    return {"before": known if known is None or not bulk else known["job_id"], "bulk": bulk}


@engine("big", version=1, phases=PHASES)
def big(params: Params, context: Context) -> str:
    """Returns a string of `number` letters."""
    context.phase("first")
    return "x" * params.number


class Odd:
    """No serialiser knows it."""


def _say_too_much(context: Context) -> Any:
    context.phase("first")
    context.partial("flood", "x" * 1_100_000)


def _raise(problem: BaseException) -> Callable[[Context], Any]:
    def throw(context: Context) -> Any:
        raise problem

    return throw


BADLY: dict[str, Callable[[Context], Any]] = {
    "nan": lambda context: {"rows": [{"points": 1.0}, {"points": math.nan}]},
    "object": lambda context: {"rows": (Odd(),)},
    "surrogate": lambda context: {"name": "\ud800"},
    "undeclared": lambda context: context.phase("third"),
    "too_much": _say_too_much,
    "invalid": _raise(InvalidParams((("number",), "no such number"))),
    "final": _raise(NotRetryable("never mind")),
    "later": _raise(RetryAfter("busy", 3600.0)),
    "memory": _raise(MemoryError()),
    "exit": lambda context: sys.exit(3),
    "hard_exit": lambda context: os._exit(7),
    "message": _raise(ValueError("a \x00 and a \ud800")),
    "garbage": lambda context: os.write(_our_socket(), b"\xff" * 64),
}


def _our_socket() -> int:
    return int(sys.argv[1])


@engine("badly", version=1, phases=PHASES)
def badly(params: Params, context: Context) -> Any:
    """Ends in the way `kind` names."""
    return BADLY[params.kind](context)


@engine("best_effort", version=1, phases=PHASES)
def best_effort(params: Params, context: Context) -> None:
    """Offers a best result of `number` letters, then waits to be stopped."""
    context.phase("first")
    context.best("x" * params.number)
    context.log("offered")
    while True:
        context.raise_if_cancelled()
        time.sleep(0.01)


@engine("parent", version=1, phases=PHASES)
def parent(params: Params, context: Context) -> None:
    """Starts a process of its own that would outlive it, says which, and waits."""
    context.phase("first")
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    context.partial("processes", [os.getpid(), started.pid])
    time.sleep(600)


@engine("printing", version=1, phases=PHASES)
def printing(params: Params, context: Context) -> int:
    """Prints on both outputs; returns what ran where."""
    print("to stdout", flush=True)  # noqa: T201
    print("to stderr", file=sys.stderr, flush=True)  # noqa: T201
    context.phase("first")
    return os.getpid()


@engine("flag", version=1, phases=PHASES)
def flag(params: Params, context: Context) -> str:
    """Ends once a file exists: how a test lets it go on."""
    context.phase("first")
    while not Path(params.path).exists():
        time.sleep(0.01)
    return "draining" if context.draining else "working"


@engine("gil_holder", version=1, phases=PHASES)
def gil_holder(params: Params, context: Context) -> None:
    """Stands still in C and lets no other thread of its process run."""
    context.phase("first")
    ctypes.PyDLL(None).sleep(600)
