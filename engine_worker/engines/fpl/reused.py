"""Which recorded phases still hold: those whose params are the same as when they were recorded.

A job taken over after a crash has them all. A rerun with other params (what if he were banned?) keeps what the change
does not touch, from whatever phase it was asked to start.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from engine_worker.engines.fpl.params import FplParams
from events.values import encode, jsonable
from phaseline import Context

# Params that what is collected and projected does not depend on. One that is missing here costs a computation; one
# that is here wrongly would cost the truth.
ANALYSIS_ONLY = frozenset(
    {
        "alternatives",
        "banned",
        "locked",
        "max_hits",
        "node_limit",
        "rel_gap",
        "risk_posture",
        "seed",
        "sensitivity_runs",
        "time_limit_s",
    }
)
_PHASES = ("collecting_data", "projecting_points", "analyzing_transfers")


class Reused:
    """The durable phases of one attempt."""

    def __init__(self, params: FplParams, engine_version: int, context: Context) -> None:
        asked = jsonable(params)
        ground = {name: value for name, value in asked.items() if name not in ANALYSIS_ONLY}
        self._basis = {name: _digest([engine_version, ground]) for name in _PHASES[:-1]}
        self._basis[_PHASES[-1]] = _digest([engine_version, asked])
        self._context = context
        # A phase after one that is computed again rests on other outputs.
        self.names: list[str] = []
        for name in _PHASES:
            if self.found(name) is None:
                break
            self.names.append(name)

    def found(self, phase: str) -> Any | None:
        """The output recorded for `phase` by params that give it again, else None."""
        recorded = self._context.recorded(phase)
        if isinstance(recorded, dict) and recorded.get("basis") == self._basis[phase]:
            return recorded["output"]
        return None

    def run(self, phase: str, compute: Callable[[], Any]) -> Any:
        """Enters `phase`; its output as plain JSON, recorded when it had to be computed."""
        self._context.phase(phase)
        if phase in self.names:
            return self.found(phase)
        output = jsonable(compute())
        self._context.checkpoint({"basis": self._basis[phase], "output": output})
        return output


def _digest(value: Any) -> str:
    return sha256(encode(value)).hexdigest()
