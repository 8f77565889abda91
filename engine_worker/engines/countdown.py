"""The smallest engine with everything in it: phases, progress, a partial, a log line, a checkpoint, obedience.

For demonstrations and tests: it takes as long as told, and fails or dies at the step told.
"""

import os
import signal
import time

from pydantic import BaseModel, ConfigDict, Field

from phaseline import Context, engine

PHASES = {"initializing": 10, "collecting_data": 25, "counting": 50, "evaluating": 90, "finalizing": 100}


class Countdown(BaseModel):
    """`steps` of `step_s` seconds each, spread over the phases."""

    model_config = ConfigDict(extra="forbid", strict=True)
    steps: int = Field(10, ge=1, le=100_000, description="how many steps to count down")
    step_s: float = Field(0.1, ge=0, le=3600, description="seconds each step takes")
    fail_at: int | None = Field(None, ge=1, description="the step at which the engine raises")
    crash_at: int | None = Field(None, ge=1, description="the step at which the engine kills its own process")


class Counted(BaseModel):
    """How far it came."""

    steps: int
    seconds: float


@engine("countdown", version=1, phases=PHASES)
def countdown(params: Countdown, context: Context) -> Counted:
    """Counts down, slowly, and says so."""
    began = time.monotonic()
    names = list(PHASES)
    for index, name in enumerate(names):
        context.phase(name)
        first, last = _share(index, params.steps), _share(index + 1, params.steps)
        for step in range(first + 1, last + 1):
            _take(step, params, context)
            context.best(Counted(steps=step, seconds=_since(began)))
            if step < last:  # the next phase says that this one is done
                context.progress((step - first) / (last - first), done=step, total=params.steps, unit="steps")
            context.raise_if_cancelled()
        context.partial("left", params.steps - last)
    context.log("counted down", steps=params.steps)
    return Counted(steps=params.steps, seconds=_since(began))


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _share(index: int, steps: int) -> int:
    """The steps done before phase `index`."""
    return steps * index // len(PHASES)


def _take(step: int, params: Countdown, context: Context) -> None:
    if step == params.fail_at:
        raise RuntimeError(f"told to fail at step {step}")
    if step == params.crash_at:
        os.kill(os.getpid(), signal.SIGKILL)
    end = time.monotonic() + params.step_s
    # In short sleeps, so that a cancel is obeyed well within a long step.
    while (left_s := end - time.monotonic()) > 0:
        time.sleep(min(left_s, 0.05))
        context.raise_if_cancelled()
