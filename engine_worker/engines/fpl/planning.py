"""The phase `analyzing_transfers`: a ladder of plans, each shown as soon as it is found, then what they compare with.

hold → this gameweek's transfers only → the full horizon → the horizon with chips → what each chip adds → the choices
not taken → noise. Every rung is a legal plan, so that whoever stops the job keeps the best one so far.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from engine_worker.engines.fpl.analysis import Analysis, ChipValue, Priced, begun
from engine_worker.engines.fpl.chip_search import solve_with_chips
from engine_worker.engines.fpl.noise import Noise
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.problem import ChipCopy, Moves, Plan, Problem, hold_plan, make_plan
from engine_worker.engines.fpl.shown import Live
from engine_worker.engines.fpl.solver import Limits, Sight, Solved, solve, with_free_hits
from phaseline import Context

# Where each rung ends on the phase's progress bar, and the share of the time left that it may use.
_RUNGS = {
    "hold": (0.01, 1.0),
    "this_gameweek": (0.05, 0.5),
    "horizon": (0.35, 0.6),
    "chips": (0.6, 0.75),
    "chip_values": (0.7, 0.4),
    "counterfactuals": (0.88, 0.7),
    "sensitivity": (1.0, 1.0),
}
# The rungs that look for a better plan: one left out leaves the plan without a proof.
_PLANNING = ("this_gameweek", "horizon", "chips")
# Valuing a chip needs no proof to the last decimal.
_VALUE_GAP = 1e-3
_NOISE_GAP = 2e-3
# Kept of the attempt's time to write the decision after the last solve.
_RESERVE_S = 1.0
# A better plan found inside a long solve is offered as a whole decision no more often than this.
_OFFER_EVERY_S = 2.0
# What half a million is, in tenths: the price step a manager thinks in.
_MONEY_STEP = 5


class Ladder:
    """Climbs the rungs for one attempt, within its time and until it is asked to stop."""

    def __init__(self, problem: Problem, params: FplParams, context: Context) -> None:
        self.problem = problem  # with the squads of free hits once they are known
        self.analysis = begun(problem)
        self._best = hold_plan(problem)
        self._params = params
        self._context = context
        self._live = Live(context)
        self._began = time.monotonic()
        self._offered = self._began
        self._offer: Callable[[Analysis], None] = lambda _analysis: None
        self._rung = "hold"
        # A free hit may be worth playing in a gameweek that was not looked at.
        self._left_out = False

    def climb(self, offer: Callable[[Analysis], None]) -> Analysis:
        """The best plan found; `offer` is called with the analysis after each rung and better plan.

        Raises `Cancelled` when the job was asked to stop, after offering the best plan so far.
        """
        self._offer = offer
        self._live.show("hold", self._best, None)
        offer(self.analysis)
        self._context.raise_if_cancelled()
        if "freehit" in self.problem.played.values():
            self._find_free_hits()
            if not all(i in self.problem.free_hits for i, chip in self.problem.played.items() if chip == "freehit"):
                # No plan but holding is known to be legal without the squad of the chip that was asked for.
                self._context.raise_if_cancelled()
                self.analysis.status = self._ran_out()
                return self.analysis
        self._climb_to("this_gameweek", self._this_gameweek)
        if len(self.problem.gameweeks) > 1:
            self._climb_to("horizon", self._horizon)
        if self.problem.free_copies():
            plain = self._best
            self._climb_to("chips", self._with_chips)
            self._climb_to("chip_values", lambda: self._chip_values(plain))
        self._climb_to("counterfactuals", self._price_choices)
        self._climb_to("sensitivity", self._add_noise)
        self._live.flush()
        return self.analysis

    def _climb_to(self, rung: str, step: Callable[[], None]) -> None:
        self._rung = rung
        if self._left() > 0:
            began = time.monotonic()
            step()
            self.analysis.seconds[rung] = time.monotonic() - began
            self._offer(self.analysis)
        else:
            self.analysis.clocked = True
            if rung in _PLANNING:
                self.analysis.status = "time_limit"
        self._context.raise_if_cancelled()

    # -- rungs

    def _this_gameweek(self) -> None:
        self._improve(self.problem.without_chips(), (0,))

    def _horizon(self) -> None:
        self._improve(self.problem.without_chips(), None)

    def _find_free_hits(self) -> None:
        """Adds the squads of free hits; a gameweek is left out when there was no time for its squad."""
        if not self.problem.free_hits:
            wanted = _free_hit_weeks(self.problem)
            self.problem = with_free_hits(self.problem, self._limits(_VALUE_GAP), lambda _: not self._stopping())
            if _free_hit_weeks(self.problem) != wanted:
                # With a limit on nodes that may have been all, and is the same in every run.
                self._left_out = True
                self.analysis.clocked |= self._params.node_limit is None or self._left() <= 0 or self._stopping()

    def _with_chips(self) -> None:
        self._find_free_hits()
        self._improve(self.problem, None, chips=True)
        if self._left_out:
            self.analysis.status, self.analysis.bound = self._ran_out(), None

    def _improve(self, problem: Problem, open_weeks: Collection[int] | None, *, chips: bool = False) -> None:
        """Looks for a better plan; a solve stopped before its first one leaves the rung below standing."""
        # A bound on plans with transfers in the first gameweek only, or without chips, says nothing of the others.
        whole = (open_weeks is None or len(problem.gameweeks) == 1) and (chips or not self.problem.free_copies())
        solved = self._solve(problem, open_weeks=open_weeks, start=self._best, shown=True, chips=chips, whole=whole)
        if solved.plan is not None:
            self._take(solved.plan)
        self.analysis.nodes += solved.nodes
        if whole:
            self.analysis.status, self.analysis.bound = solved.status, solved.bound
        self._live.show(self._rung, self._best, solved.bound)
        self._progress(1.0)

    def _take(self, plan: Plan) -> None:
        if plan.objective >= self._best.objective - 1e-6:
            self._best = plan
            self.analysis.moves, self.analysis.stage = list(plan.moves), self._rung

    def _chip_values(self, base: Plan) -> None:
        self._find_free_hits()
        copies = self.problem.free_copies()
        for done, copy in enumerate(copies):
            free = [index for index in copy.weeks if index not in self.problem.played]
            value = (
                self._wildcard(copy, free, base)
                if copy.name == "wildcard"
                else ChipValue(
                    name=copy.name,
                    gains={
                        self.problem.gameweeks[i]: gain for i in free if (gain := self._read(copy, i, base)) is not None
                    },
                    solved=False,
                )
            )
            if value.gains:
                self.analysis.chips.append(value)
                best = max(value.gains, key=lambda gameweek: value.gains[gameweek])
                shown = {"chip": copy.name, "best_gameweek": best, "value_pts": round(value.gains[best], 2)}
                self._context.partial("chip_value", shown)
            self._progress((done + 1) / len(copies))
            if self._stopping():
                return

    def _wildcard(self, copy: ChipCopy, free: Sequence[int], base: Plan) -> ChipValue:
        """What it adds in each gameweek, solved again with the chip fixed there."""
        gains = {}
        for index in free:
            if (gain := self._solved_value(copy, index, base)) is None:
                break
            gains[self.problem.gameweeks[index]] = gain
        return ChipValue(name=copy.name, gains=gains, solved=True)

    def _read(self, copy: ChipCopy, index: int, base: Plan) -> float | None:
        """What it adds to the lineups of the plan; solved where the plan begins otherwise with it."""
        if index == 0 and copy.name in self.problem.instead:
            return self._solved_value(copy, index, base)
        return _read_off(self.problem, base, copy.name, index)

    def _solved_value(self, copy: ChipCopy, index: int, base: Plan) -> float | None:
        """What the best plan with the chip there and no other is worth more than `base`; None for want of time."""
        name = copy.name
        if index == 0 and name in self.problem.instead:
            fixed = self.problem.instead[name].without_chips()
            start = hold_plan(fixed)
        else:
            began = self.problem.without_chips()
            chips, played = (*began.chips, copy._replace(weeks=(index,))), {**began.played, index: name}
            fixed = replace(began, chips=chips, played=played)
            start = _with_chip(fixed, base, index, name)
        solved = self._solve(fixed, gap=_VALUE_GAP, start=start)
        if solved.plan is None or solved.status not in ("optimal", "node_limit"):
            return None
        if solved.plan.objective > self._best.objective:
            self._take(solved.plan)
        return solved.plan.objective + fixed.chip_cost(name, index) - base.objective

    def _price_choices(self) -> None:
        """What is given up by each other choice, at the chips of the plan: a chip is its own question."""
        problem, plan, found = self._settled(), self._best, self.analysis.counterfactuals
        first = plan.weeks[0].moves
        if first.bought or first.chip not in (None, self.problem.played.get(0)):
            later = {index: chip for index, chip in problem.played.items() if index or 0 in self.problem.played}
            rolled = replace(self.problem, played=later).without_chips()
            found.roll = self._price(rolled, open_weeks=range(1, len(problem.gameweeks)))
        if plan.weeks[0].hits:
            found.no_hit = self._price(replace(problem, max_hits=0))
        if not first.chip:
            for element in first.bought:
                if priced := self._price(replace(problem, banned=problem.banned | {element})):
                    found.without[element] = priced
                self._progress(0.5 * len(found.without) / len(first.bought))
        excluded = [first]
        for count in range(self._params.alternatives):
            if (priced := self._price(problem, excluded=excluded)) is None:
                break
            found.alternatives.append(priced)
            excluded.append(Moves(*priced.moves[0]))
            self._progress(0.5 + 0.4 * (count + 1) / self._params.alternatives)
        found.money = self._price(replace(problem, bank=problem.bank + _MONEY_STEP))
        if problem.free_transfers < problem.rules.free_transfers_max:
            found.transfer = self._price(replace(problem, free_transfers=problem.free_transfers + 1))

    def _settled(self) -> Problem:
        """The problem with its chips fixed where the plan plays them."""
        played = {index: week.chip for index, week in enumerate(self._best.weeks) if week.chip}
        return replace(self.problem.begun_with(self._best.weeks[0].chip), played=played).without_chips()

    def _price(
        self, problem: Problem, *, open_weeks: Collection[int] | None = None, excluded: Sequence[Moves] = ()
    ) -> Priced | None:
        """The best plan under another choice, None when there is none or no time to look."""
        if self._stopping() or self._left() <= 0:
            self.analysis.clocked = True
            return None
        solved = self._solve(problem, open_weeks=open_weeks, excluded=excluded)
        if solved.plan is None:
            return None
        return Priced(
            moves=list(solved.plan.moves),
            objective=solved.plan.objective,
            bound=max(solved.bound if solved.bound is not None else solved.plan.objective, solved.plan.objective),
            proven=solved.status == "optimal",
        )

    def _add_noise(self) -> None:
        noise = Noise(self._settled(), self._best, self._params.seed)
        for run in range(self._params.sensitivity_runs):
            if self._stopping() or self._left() <= 0:
                self.analysis.clocked = True
                return
            solved = self._solve(noise.problem(run), gap=_NOISE_GAP)
            if solved.plan is not None and solved.status in ("optimal", "node_limit"):
                noise.count(solved.plan)
                self.analysis.sensitivity = noise.agreement
                self._context.partial("sensitivity", {"runs": noise.agreement.runs, "agreed": noise.agreement.agreed})
            self._progress((run + 1) / self._params.sensitivity_runs)

    # -- solving

    def _solve(
        self,
        problem: Problem,
        *,
        open_weeks: Collection[int] | None = None,
        excluded: Sequence[Moves] = (),
        start: Plan | None = None,
        gap: float | None = None,
        shown: bool = False,
        chips: bool = False,
        whole: bool = False,
    ) -> Solved:
        """A solve within the rung's time. `shown` tells viewers what is found; `whole` takes its bound for the plan's."""
        limits = self._limits(self._params.rel_gap if gap is None else max(gap, self._params.rel_gap))
        began, first_gap = time.monotonic(), [0.0]

        def watch(sight: Sight) -> bool:
            if whole:
                self.analysis.bound = sight.bound
            if shown:
                self._watched(sight, first_gap, (time.monotonic() - began) / limits.seconds)
            self._live.tick()
            return not self._stopping()

        if chips:
            solved = solve_with_chips(problem, limits, start=start or self._best, watch=watch)
        else:
            solved = solve(problem, limits, open_weeks=open_weeks, excluded=excluded, start=start, watch=watch)
        if solved.status not in ("optimal", "node_limit", "infeasible"):
            self.analysis.clocked = True
        return solved

    def _watched(self, sight: Sight, first_gap: list[float], used: float) -> None:
        """Keeps and shows what is new. Progress is the part of the first gap that is closed, or of the time used."""
        if sight.plan is not None and sight.plan.objective > self._best.objective:
            self._take(sight.plan)
            if time.monotonic() - self._offered >= _OFFER_EVERY_S:
                self._offered = time.monotonic()
                self._offer(self.analysis)
        self._live.show(self._rung, self._best, sight.bound)
        closed, text = 0.0, None
        if sight.bound is not None:
            gap = max(sight.bound - self._best.objective, 0.0)
            first_gap[0] = max(first_gap[0], gap)
            closed = 1 - gap / first_gap[0] if first_gap[0] else 0.0
            text = f"gap {100 * gap / max(abs(self._best.objective), 1.0):.2f} %"
        self._progress(max(closed, used), text)

    def _limits(self, gap: float) -> Limits:
        params = self._params
        # With a limit on nodes the clock decides nothing but the whole.
        share = 1.0 if params.node_limit is not None else _RUNGS[self._rung][1]
        return Limits(max(self._left() * share, 0.05), gap, params.node_limit, params.seed)

    def _left(self) -> float:
        """Seconds the solver may still use."""
        left = self._params.time_limit_s - (time.monotonic() - self._began)
        return left if self._context.deadline is None else min(left, self._context.deadline - _RESERVE_S)

    def _ran_out(self) -> str:
        return "time_limit" if self.analysis.clocked else "node_limit"

    def _stopping(self) -> bool:
        return self._context.cancelled or self._context.draining

    def _progress(self, share: float, text: str | None = None) -> None:
        rungs = list(_RUNGS)
        low = _RUNGS[rungs[rungs.index(self._rung) - 1]][0]
        high = _RUNGS[self._rung][0]
        self._live.progress(low + (high - low) * min(max(share, 0.0), 1.0), text)


def _read_off(problem: Problem, plan: Plan, chip: str, index: int) -> float:
    """What a chip adds to a gameweek of a plan that stays as it is, in unweighted points."""
    week = plan.weeks[index]
    xp = problem.xp[week.gameweek]
    match chip:
        case "3xc":
            return xp[week.lineup.captain]
        case "bboost":
            return sum(xp[element] for element in week.lineup.bench) - week.xp_bench
        case _:
            return problem.free_hits[index].points - week.xp_lineup - week.xp_bench


def _free_hit_weeks(problem: Problem) -> set[tuple[str, int]]:
    """The gameweeks a free hit may be played in, by how the plan begins."""
    ways = {"": problem, **problem.instead}
    copies = [(way, copy) for way, of in ways.items() for copy in of.chips if copy.name == "freehit"]
    return {(way, week) for way, copy in copies for week in copy.weeks}


def _with_chip(problem: Problem, plan: Plan, index: int, chip: str) -> Plan:
    """The same transfers with the chip, as a start."""
    moves = [moves._replace(chip=chip) if i == index else moves for i, moves in enumerate(plan.moves)]
    return make_plan(problem, moves)
