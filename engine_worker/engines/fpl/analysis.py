"""What the phase `analyzing_transfers` finds: its recorded output, so that a later attempt solves nothing again. PURE.

Plans are recorded as their moves; `make_plan` with the same problem gives everything else.
"""

from pydantic import BaseModel

from engine_worker.engines.fpl.problem import Moves, Plan, Problem, hold_plan, make_plan


class ChipValue(BaseModel):
    """What a copy of a chip adds to the plan without chips, by gameweek, in points.

    `solved` False: read off the lineups of that plan, so the true value may be higher.
    """

    name: str
    gains: dict[int, float]
    solved: bool


class Priced(BaseModel):
    """A choice other than the plan's, and the best that can be had with it: `objective` found, `bound` proven."""

    moves: list[Moves]
    objective: float
    bound: float
    proven: bool


class Counterfactuals(BaseModel):
    """The other choices, priced by the same solver at the plan's own chips.

    `roll`: no transfer and no chip now. `without`: each player bought now, never bought. `no_hit`: no hit in any gameweek.
    `money` half a million more, `transfer` one more free transfer: what the constraint costs.
    """

    roll: Priced | None = None
    no_hit: Priced | None = None
    without: dict[int, Priced] = {}
    money: Priced | None = None
    transfer: Priced | None = None
    alternatives: list[Priced] = []


class Agreement(BaseModel):
    """How often plans solved on noisy projections made the same first moves."""

    runs: int = 0
    agreed: int = 0
    sold: dict[int, int] = {}
    bought: dict[int, int] = {}
    captain: dict[int, int] = {}
    rolled: int = 0


class Analysis(BaseModel):
    """The best plan so far, how it was found, and what it is compared with."""

    moves: list[Moves]
    stage: str = "hold"
    status: str = "interrupted"
    bound: float | None = None
    nodes: int = 0
    chips: list[ChipValue] = []
    counterfactuals: Counterfactuals = Counterfactuals()
    sensitivity: Agreement | None = None
    # Ended by the clock or by somebody, or left something out for want of time: another run may differ.
    clocked: bool = False
    seconds: dict[str, float] = {}

    def plan(self, problem: Problem) -> Plan:
        """The best plan so far."""
        return make_plan(problem, self.moves)


def gap(plan: Plan, bound: float | None) -> float | None:
    """Relative distance to the proven bound, None when nothing is proven."""
    return None if bound is None else max(bound - plan.objective, 0.0) / max(abs(plan.objective), 1.0)


def begun(problem: Problem) -> Analysis:
    """The analysis before anything was solved: hold."""
    return Analysis(moves=list(hold_plan(problem).moves))
