"""The engine `fpl` with a brake: its first attempt halts at a named moment until somebody kills it."""

import time
from typing import Any, Literal

from pydantic import Field

from engine_worker.engines.fpl import PHASES, fpl
from engine_worker.engines.fpl.decision import DecisionOutput
from engine_worker.engines.fpl.params import FplParams
from phaseline import Context, engine

Moment = Literal[
    "initializing", "collecting_data", "projecting_points", "analyzing_transfers", "an incumbent", "finalizing", "never"
]


class Halting(FplParams):
    """What `fpl` asks for, and where to halt: as a phase begins, or when a plan over the horizon is found."""

    halt_at: Moment = Field(default="never", description="the moment")


@engine("fpl_halting", version=1, phases=PHASES, subject=fpl.subject)
def fpl_halting(params: Halting, context: Context) -> DecisionOutput:
    """Decides as `fpl` does, in the second attempt at the latest."""
    entered, shown = context.phase, context.partial

    def halt(moment: str) -> None:
        if context.attempt == 1 and moment == params.halt_at:
            context.log("halted")
            while True:
                time.sleep(1)

    def phase(name: str, compute: Any = None) -> Any:
        entered(name)
        halt(name)
        return entered(name, compute) if compute else None

    def partial(name: str, value: Any) -> None:
        shown(name, value)
        if name == "incumbent" and value["stage"] == "horizon":
            halt("an incumbent")

    context.phase, context.partial = phase, partial  # type: ignore[method-assign]
    plain = FplParams.model_validate(params.model_dump(exclude={"halt_at"}))
    decision: DecisionOutput = fpl.run(plain, context)
    return decision
