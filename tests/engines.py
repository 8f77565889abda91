"""Engines for whole-system tests, found through PHASELINE_ENGINE_MODULES."""

import dataclasses
import enum
import itertools
import os
import signal
import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from phaseline import Context, engine

PHASES = {"collecting_data": 30, "analyzing": 80, "finalizing": 100}


class Sized(BaseModel):
    """How large the result is, in bytes."""

    size: int = 10


@engine("sized", version=1, phases=PHASES)
def sized(params: Sized, context: Context) -> str:
    """Returns a string of the size asked for."""
    context.phase("collecting_data")
    return "x" * params.size


class Colour(enum.Enum):
    """An enumeration inside a result."""

    RED = "red"


@dataclasses.dataclass
class Row:
    """A dataclass inside a result."""

    when: datetime
    amount: Decimal


class Nested(BaseModel):
    """A result with every kind of value."""

    rows: list[Row]
    by_id: dict[str, tuple[uuid.UUID, ...]]
    colours: set[Colour]
    extra: dict[str, Any]


class Poison(BaseModel):
    """Whether the result holds a NaN."""

    nan: bool = False


@engine("nested", version=1, phases=PHASES)
def nested(params: Poison, context: Context) -> Nested:
    """Returns a deep value."""
    context.phase("collecting_data")
    deep: Any = float("nan") if params.nan else 1.5
    return Nested(
        rows=[Row(datetime(2026, 11, 24, 8, tzinfo=UTC), Decimal("1.50"))],
        by_id={"a": (uuid.UUID(int=1),)},
        colours={Colour.RED},
        extra={"levels": [{"deeper": [deep]}]},
    )


class Counted(BaseModel):
    """A number to go on from, and how much the first phase records."""

    start: int = 1
    bulk: int = 0


@engine("phased", version=1, phases=PHASES)
def phased(params: Counted, context: Context) -> dict[str, Any]:
    """Records two phases; each says in which attempt and job it was computed."""

    def made() -> dict[str, Any]:
        bulk = "x" * params.bulk
        return {"job": context.job_id, "attempt": context.attempt, "start": params.start, "bulk": bulk}

    first = context.phase("collecting_data", made)
    second = context.phase("analyzing", made)
    context.phase("finalizing")
    sizes = [len(first.pop("bulk")), len(second.pop("bulk"))]
    return {"first": first, "second": second, "start": params.start, "sizes": sizes}


@engine("suicidal", version=1, phases=PHASES)
def suicidal(params: Counted, context: Context) -> dict[str, Any]:
    """Kills its own process in its first attempt, after its first phase was recorded."""
    first = context.phase("collecting_data", lambda: {"attempt": context.attempt})
    context.phase("analyzing")
    if context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"first": first, "attempt": context.attempt}


class Held(BaseModel):
    """The file whose appearance lets the engine go on, and whether it obeys a cancel."""

    path: str
    obedient: bool = True


@engine("held", version=1, phases=PHASES)
def held(params: Held, context: Context) -> dict[str, int]:
    """Talks until its file exists: a test decides how long it runs. Says in which attempt it ended."""
    context.phase("collecting_data")
    said = 0
    while not Path(params.path).exists():
        said += 1
        context.partial("said", {"attempt": context.attempt, "count": said})
        if params.obedient:
            context.raise_if_cancelled()
        time.sleep(0.05)
    return {"attempt": context.attempt}


@engine("quiet", version=1, phases=PHASES)
def quiet(params: Held, context: Context) -> dict[str, int]:
    """Says one thing and waits in silence until its file exists."""
    context.log("here")
    while not Path(params.path).exists():
        context.raise_if_cancelled()
        time.sleep(0.02)
    return {"attempt": context.attempt}


@engine("moving", version=1, phases=PHASES)
def moving(params: Held, context: Context) -> None:
    """Begins its second phase when its file exists, and makes progress in it until it is cancelled."""
    context.phase("collecting_data")
    while not Path(params.path).exists():
        context.raise_if_cancelled()
        time.sleep(0.02)
    context.phase("analyzing")
    for done in itertools.count(1):
        context.progress(done / 5000, done=done)
        context.raise_if_cancelled()
        time.sleep(0.05)


class Ending(BaseModel):
    """The signal it sends itself, or the memory it takes, in its first attempts."""

    signal: int = 0
    memory_bytes: int = 0
    attempts: int = 1


@engine("ending", version=1, phases=PHASES)
def ending(params: Ending, context: Context) -> dict[str, int]:
    """Ends its own process, or takes memory until none is left."""
    context.phase("collecting_data")
    if context.attempt <= params.attempts:
        context.log("ending")
        if params.signal:
            os.kill(os.getpid(), params.signal)
            time.sleep(60)
        taken = [bytearray(1024 * 1024) for _ in range(params.memory_bytes // (1024 * 1024))]
        return {"attempt": context.attempt, "taken": len(taken)}
    return {"attempt": context.attempt}


@engine("parricide", version=1, phases=PHASES)
def parricide(params: Counted, context: Context) -> None:
    """Takes its worker down with it, each time."""
    context.phase("collecting_data")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


class Talk(BaseModel):
    """How many events, and how much each says."""

    events: int
    size: int = 100
    result: int = 0


@engine("chatty", version=1, phases=PHASES)
def chatty(params: Talk, context: Context) -> str:
    """Says many things, as fast as they are taken, then returns a string of the size asked for."""
    context.phase("collecting_data")
    for number in range(params.events):
        context.log("x" * params.size, number=number)
    context.phase("finalizing")
    return "x" * params.result


class Said(BaseModel):
    """A text to say everywhere, and whether to fail with it; `{attempt}` in it is the attempt that failed."""

    text: str
    fail: bool = False


@engine("echo", version=1, phases=PHASES)
def echo(params: Said, context: Context) -> dict[str, Any]:
    """Says its text as progress, log, partial, result and error."""
    context.phase("collecting_data")
    context.progress(0.5, params.text)
    context.log(params.text, said=params.text)
    context.partial(params.text[:60], {params.text: params.text})
    context.best({params.text: [params.text]})
    context.phase("analyzing", lambda: params.text)
    if params.fail:
        raise RuntimeError(params.text.replace("{attempt}", str(context.attempt)))
    return {params.text: [params.text]}


class Unsure(BaseModel):
    """Params that may be left open, and then are not their default."""

    steps: int | None = 5
    sure: bool | None = None


@engine("unsure", version=1, phases=PHASES)
def unsure(params: Unsure, context: Context) -> dict[str, Any]:
    """Says what it was given."""
    context.phase("finalizing")
    return params.model_dump()
