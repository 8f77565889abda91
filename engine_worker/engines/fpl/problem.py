"""The decision as an optimisation problem, before any solver: what is known, what is wanted, what a plan is. PURE."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from engine_worker.engines.fpl.lineup import Lineup, best_lineup, formations
from engine_worker.engines.fpl.rules import costs_nothing, hits, next_free_transfers
from engine_worker.engines.fpl.seasons import Ruleset


@dataclass(frozen=True)
class Worth:
    """What counts besides points, in points.

    `decay`: each gameweek further off counts this much less, because squads, injuries and forecasts change before it
    comes. `hit_margin`: asked of a hit beyond its four points, because an optimiser picks the forecasts that err
    upwards. `free_transfer`: one more of them after the horizon. `bank`: a tenth of a million left, just enough to
    prefer the cheaper of two equals.
    """

    decay: float = 0.9
    hit_margin: float = 3.0
    free_transfer: float = 1.2
    bank: float = 0.01


class ChipCopy(NamedTuple):
    """One copy of a chip: indices of the gameweeks it may be played in, and what it is worth unplayed, in points."""

    name: str
    weeks: tuple[int, ...]
    kept: float = 0.0


class Moves(NamedTuple):
    """What is done before one gameweek. With a free hit the transfers are undone after it."""

    sold: tuple[int, ...] = ()
    bought: tuple[int, ...] = ()
    chip: str | None = None


class FreeHit(NamedTuple):
    """The best squad for one gameweek alone and its unweighted points, eleven with captain and bench.

    What a squad may cost does not depend on the transfers before: bank plus selling prices stay the same through every
    sale and purchase. Only a player whose price rose costs more once he was sold; the `dear` squad pays that for all.
    """

    squad: frozenset[int]
    points: float
    dear_squad: frozenset[int]
    dear_points: float


@dataclass(frozen=True)
class Problem:
    """Players of the pool by ascending element; `xp[gameweek][element]`; money in tenths.

    `played` are chips fixed to a gameweek, by its index; each is one of `chips`.
    `free_hits` has a squad for each gameweek a free hit may be played in; see `solver.with_free_hits`.
    `instead` has the problem of the plans that begin with a chip, where that makes something else of transfers already
    made; the chip is fixed there. `given_back` are the points of theirs that it gives back.
    """

    rules: Ruleset
    gameweeks: tuple[int, ...]
    elements: tuple[int, ...]
    position: Mapping[int, int]
    club: Mapping[int, int]
    cost: Mapping[int, int]
    selling: Mapping[int, int]  # of the owned
    xp: Mapping[int, Mapping[int, float]]
    bank: int
    free_transfers: int
    max_hits: int
    locked: frozenset[int] = frozenset()
    banned: frozenset[int] = frozenset()
    chips: tuple[ChipCopy, ...] = ()
    played: Mapping[int, str] = field(default_factory=dict)
    free_hits: Mapping[int, FreeHit] = field(default_factory=dict)
    worth: Worth = Worth()
    instead: Mapping[str, "Problem"] = field(default_factory=dict)
    given_back: float = 0.0

    @property
    def owned(self) -> frozenset[int]:
        """The squad before the first gameweek."""
        return frozenset(self.selling)

    def weight(self, index: int) -> float:
        """How much the points of the gameweek at `index` count."""
        return self.worth.decay**index

    def chip_cost(self, chip: str | None, index: int) -> float:
        """What playing `chip` at `index` gives up: its worth if kept, weighted like the points it brings."""
        if chip is None:
            return 0.0
        kept = next((copy.kept for copy in self.chips if copy.name == chip and index in copy.weeks), 0.0)
        return self.weight(index) * kept

    def without_chips(self) -> "Problem":
        """The same with no chip but those fixed."""
        return replace(self.keeping(lambda copy, week: self.played.get(week) == copy.name), instead={})

    def begun_with(self, chip: str | None) -> "Problem":
        """The problem that a plan solves which plays `chip` in the first gameweek."""
        return self if chip is None else self.instead.get(chip, self)

    def begun_otherwise(self) -> "Problem":
        """The same without the plans of `instead`."""
        return replace(self.keeping(lambda copy, week: week > 0 or copy.name not in self.instead), instead={})

    def first_copy(self, chip: str) -> ChipCopy | None:
        """The copy that may be played in the first gameweek and is fixed to no gameweek."""
        return next((copy for copy in self.free_copies() if copy.name == chip and 0 in copy.weeks), None)

    def free_copies(self) -> list[ChipCopy]:
        """The copies that are not fixed to a gameweek already."""
        return [copy for copy in self.chips if not any(self.played.get(week) == copy.name for week in copy.weeks)]

    def beginning_with(self, chip: str, **changes: Any) -> "Problem":
        """The same with `chip`, of which there must be a `first_copy`, fixed to the first gameweek, and with `changes`."""
        played = self.first_copy(chip)
        fixed = self.keeping(lambda copy, week: (week == 0) == (copy is played))
        return replace(fixed, played={**self.played, 0: chip}, **changes)

    def keeping(self, may: Callable[[ChipCopy, int], bool]) -> "Problem":
        """The same with each copy of a chip only in the gameweeks, by index, that `may` allows."""
        copies = [copy._replace(weeks=tuple(week for week in copy.weeks if may(copy, week))) for copy in self.chips]
        return replace(self, chips=tuple(copy for copy in copies if copy.weeks))


@dataclass(frozen=True)
class WeekPlan:
    """One gameweek of a plan. `sold` and `bought` are ascending elements, `sold_for` what each fetched; money in tenths."""

    gameweek: int
    squad: frozenset[int]
    sold: tuple[int, ...]
    sold_for: tuple[int, ...]
    bought: tuple[int, ...]
    free_transfers: int
    hits: int
    hit_cost: int
    chip: str | None
    bank: int
    lineup: Lineup
    xp_lineup: float
    xp_bench: float

    @property
    def xp_counted(self) -> float:
        """Expected points of everybody who counts: the eleven with its captain, with a bench boost the bench as well."""
        return self.xp_lineup + (self.xp_bench if self.chip == "bboost" else 0.0)

    @property
    def moves(self) -> Moves:
        """What is done before this gameweek."""
        return Moves(self.sold, self.bought, self.chip)


@dataclass(frozen=True)
class Terms:
    """The parts of an objective, in points; their sum is what the solver maximised."""

    xp: float
    bench: float
    hits: float
    hit_margin: float
    free_transfers: float
    bank: float
    chips: float

    @property
    def total(self) -> float:
        """The objective."""
        return self.xp + self.bench + self.hits + self.hit_margin + self.free_transfers + self.bank + self.chips


@dataclass(frozen=True)
class Plan:
    """A legal plan over the horizon and its worth."""

    weeks: tuple[WeekPlan, ...]
    terms: Terms
    free_transfers_after: int

    @property
    def objective(self) -> float:
        """Points, see `Terms`."""
        return self.terms.total

    @property
    def moves(self) -> tuple[Moves, ...]:
        """All that is done; with the problem it makes the plan again."""
        return tuple(week.moves for week in self.weeks)


@dataclass
class _Walk:
    squad: set[int]
    bank: int
    free: int
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("xp", "bench", "hits", "chips"), 0.0))


def hold_plan(problem: Problem) -> Plan:
    """The plan that makes no transfer; always legal, and what every other plan is compared with."""
    return make_plan(problem, [Moves(chip=problem.played.get(index)) for index in range(len(problem.gameweeks))])


def make_plan(problem: Problem, moves: Sequence[Moves]) -> Plan:
    """The plan that makes these moves, with the best lineup of each squad.

    The points are added up here from the moves alone, so that a plan never rests on a solver's arithmetic.
    """
    problem = problem.begun_with(moves[0].chip)
    walk = _Walk(set(problem.owned), problem.bank, problem.free_transfers)
    legal = formations(problem.rules)
    seen: set[int] = set()
    weeks = [_week(problem, walk, index, done, seen, legal) for index, done in enumerate(moves)]
    terms = Terms(
        xp=walk.sums["xp"],
        bench=walk.sums["bench"],
        hits=problem.given_back - problem.rules.hit_cost * walk.sums["hits"],
        hit_margin=-problem.worth.hit_margin * walk.sums["hits"],
        free_transfers=problem.worth.free_transfer * walk.free,
        bank=problem.worth.bank * walk.bank,
        chips=-walk.sums["chips"],
    )
    return Plan(tuple(weeks), terms, walk.free)


def week_points(problem: Problem, squad: Collection[int], index: int) -> float:
    """Unweighted points of a squad in the gameweek at `index`: eleven with captain, and bench."""
    xp = problem.xp[problem.gameweeks[index]]
    lineup = best_lineup(problem.rules, sorted(squad), problem.position, xp)
    return lineup.points(xp) + lineup.bench_points(xp, problem.position)


def unlimited(problem: Problem, index: int, chip: str | None) -> bool:
    """Whether transfers in the gameweek at `index` cost nothing."""
    return costs_nothing(problem.rules, problem.gameweeks[index], chip)


def excess_clubs(problem: Problem) -> list[int]:
    """Clubs with more players in the squad than allowed, as a real transfer can bring about."""
    count = Counter(problem.club[element] for element in problem.owned)
    return sorted(club for club, number in count.items() if number > problem.rules.club_limit)


def _week(
    problem: Problem, walk: _Walk, index: int, done: Moves, seen: set[int], legal: Sequence[Mapping[int, int]]
) -> WeekPlan:
    gameweek, free = problem.gameweeks[index], walk.free
    sold, bought, chip = tuple(sorted(done.sold)), tuple(sorted(done.bought)), done.chip
    kept = (walk.squad, walk.bank)
    walk.squad = walk.squad - set(sold) | set(bought)
    # An owned player sells at his locked price the first time only; bought again he is worth what he costs.
    sold_for = tuple(problem.cost[e] if e in seen else problem.selling.get(e, problem.cost[e]) for e in sold)
    walk.bank += sum(sold_for) - sum(problem.cost[e] for e in bought)
    if chip != "freehit":
        seen.update(sold)
    taken = 0 if unlimited(problem, index, chip) else hits(len(bought), free)
    walk.free = next_free_transfers(problem.rules, gameweek, free, len(bought), chip)
    xp = problem.xp[gameweek]
    lineup = best_lineup(problem.rules, sorted(walk.squad), problem.position, xp, legal)
    points = lineup.points(xp, 3 if chip == "3xc" else 2)
    bench = sum(xp[e] for e in lineup.bench) if chip == "bboost" else lineup.bench_points(xp, problem.position)
    walk.sums["xp"] += problem.weight(index) * points
    walk.sums["bench"] += problem.weight(index) * bench
    walk.sums["hits"] += taken
    walk.sums["chips"] += problem.chip_cost(chip, index)
    week = WeekPlan(
        gameweek,
        frozenset(walk.squad),
        sold,
        sold_for,
        bought,
        free,
        taken,
        problem.rules.hit_cost * taken,
        chip,
        walk.bank,
        lineup,
        points,
        bench,
    )
    if chip == "freehit":
        # The squad of a free hit is handed back after its gameweek.
        walk.squad, walk.bank = kept
    return week
