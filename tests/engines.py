"""Engines for whole-system tests, found through PHASELINE_ENGINE_MODULES."""

import dataclasses
import enum
import os
import signal
import uuid
from datetime import UTC, datetime
from decimal import Decimal
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
