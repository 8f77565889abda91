"""Engines that do nothing, so that only Phaseline is measured."""

import time

from pydantic import BaseModel

from phaseline import Context, engine

FIVE = {"initializing": 20, "collecting_data": 40, "counting": 60, "evaluating": 80, "finalizing": 100}


class Nothing(BaseModel):
    """No params."""


class Amount(BaseModel):
    """How many events, or how many bytes."""

    count: int = 1
    pause_s: float = 0.0


@engine("noop", version=1, phases={"working": 100})
def noop(params: Nothing, context: Context) -> int:
    """Says when its code began to run, in ns since 1970. Records three events: submitted, started, complete."""
    del params, context
    return time.time_ns()


@engine("fivephase", version=1, phases=FIVE)
def fivephase(params: Nothing, context: Context) -> int:
    """Enters five phases: nine events with `submitted`, `started`, the progress of the end and `complete`."""
    del params
    began = time.time_ns()
    for name in FIVE:
        context.phase(name)
    return began


@engine("saying", version=1, phases={"working": 100})
def saying(params: Amount, context: Context) -> None:
    """Says when it says it, in ns since 1970, so often, with pauses."""
    context.phase("working")
    for _ in range(params.count):
        context.partial("said", {"at_ns": time.time_ns()})
        time.sleep(params.pause_s)
