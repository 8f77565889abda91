"""The decision as an optimisation problem, before any solver: what is known, what is wanted, what a plan is. PURE."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine_worker.engines.fpl.collecting import Collected
from engine_worker.engines.fpl.lineup import Lineup, best_lineup, formations
from engine_worker.engines.fpl.projections import ProjectionRow
from engine_worker.engines.fpl.rules import (
    HIT_COST_PTS,
    UNLIMITED_CHIPS,
    Ruleset,
    hits,
    next_free_transfers,
)  # fmt: skip

# Each gameweek further off counts this much less: squads, injuries and forecasts change before it comes.
DECAY = 0.9
# Asked of a hit beyond its four points, because an optimiser picks the forecasts that err upwards.
HIT_MARGIN_PTS = 2.0
# What one more free transfer is worth after the horizon, and a tenth in the bank: small, so that a transfer is made
# for points and not for having been free.
FREE_TRANSFER_VALUE_PTS = 1.2
BANK_VALUE_PTS = 0.01


@dataclass(frozen=True)
class Problem:
    """Players of the pool by ascending element; `xp[gameweek][element]`; money in tenths."""

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
    first_index: int = 0  # place of the first gameweek in the horizon this problem is a part of

    @property
    def owned(self) -> frozenset[int]:
        """The squad before the first gameweek."""
        return frozenset(self.selling)

    def weight(self, index: int) -> float:
        """How much the points of the gameweek at `index` count."""
        return DECAY ** (self.first_index + index)

    def part(self, start: int, stop: int) -> "Problem":
        """The same squad asked about only the gameweeks from index `start` up to `stop`."""
        return replace(self, gameweeks=self.gameweeks[start:stop], first_index=self.first_index + start)


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
    chip: str | None
    bank: int
    lineup: Lineup
    xp_lineup: float
    xp_bench: float


@dataclass(frozen=True)
class Terms:
    """The parts of an objective, in points; their sum is what the solver maximised."""

    xp: float
    bench: float
    hits: float
    hit_margin: float
    free_transfers: float
    bank: float

    @property
    def total(self) -> float:
        """The objective."""
        return self.xp + self.bench + self.hits + self.hit_margin + self.free_transfers + self.bank


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


@dataclass(frozen=True)
class Chip:
    """A chip fixed to the gameweek at `index` of the horizon."""

    name: str
    index: int = 0


@dataclass
class _Walk:
    squad: set[int]
    bank: int
    free: int
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("xp", "bench", "hits"), 0.0))


def build_problem(
    collected: Collected, rows: Sequence[ProjectionRow], max_hits: int, locked: Sequence[int], banned: Sequence[int]
) -> Problem:
    """The problem over the players that have `rows`, the owned among them."""
    xp: dict[int, dict[int, float]] = {gameweek: {} for gameweek in collected.gameweeks}
    for row in rows:
        xp[row.gameweek][row.element] = row.xp
    selling = {holding.element: holding.selling_price for holding in collected.squad.holdings}
    projected = xp[collected.gameweeks[0]]
    pool = sorted((player for player in collected.players if player.element in projected), key=lambda p: p.element)
    return Problem(
        rules=collected.rules,
        gameweeks=tuple(collected.gameweeks),
        elements=tuple(player.element for player in pool),
        position={player.element: player.position for player in pool},
        club={player.element: player.club for player in pool},
        cost={player.element: player.now_cost for player in pool},
        selling=selling,
        xp=xp,
        bank=collected.squad.bank,
        free_transfers=collected.squad.free_transfers,
        max_hits=max_hits,
        locked=frozenset(locked),
        banned=frozenset(banned),
    )


def hold_plan(problem: Problem) -> Plan:
    """The plan that makes no transfer at all; always legal, and what every other plan is compared with."""
    return make_plan(problem, [((), ())] * len(problem.gameweeks))


def make_plan(problem: Problem, swaps: Sequence[tuple[Sequence[int], Sequence[int]]], chip: Chip | None = None) -> Plan:
    """The plan that makes these transfers, (sold, bought) per gameweek, with the best lineup of each squad.

    The points are added up here from the transfers alone, so that a plan never rests on a solver's arithmetic.
    """
    walk = _Walk(set(problem.owned), problem.bank, problem.free_transfers)
    legal = formations(problem.rules)
    seen: set[int] = set()
    weeks = []
    for index, (sold, bought) in enumerate(swaps):
        weeks.append(_week(problem, walk, index, sorted(sold), sorted(bought), chip, seen, legal))
    terms = Terms(
        xp=walk.sums["xp"],
        bench=walk.sums["bench"],
        hits=-HIT_COST_PTS * walk.sums["hits"],
        hit_margin=-HIT_MARGIN_PTS * walk.sums["hits"],
        free_transfers=FREE_TRANSFER_VALUE_PTS * walk.free,
        bank=BANK_VALUE_PTS * walk.bank,
    )
    return Plan(tuple(weeks), terms, walk.free)


def chip_at(chip: Chip | None, index: int) -> str | None:
    """The chip played in the gameweek at `index`."""
    return chip.name if chip is not None and chip.index == index else None


def unlimited(problem: Problem, index: int, chip: Chip | None) -> bool:
    """Whether transfers in the gameweek at `index` cost nothing."""
    return chip_at(chip, index) in UNLIMITED_CHIPS or problem.gameweeks[index] in problem.rules.unlimited_gameweeks


def excess_clubs(problem: Problem) -> list[int]:
    """Clubs with more players in the squad than allowed, as a real transfer can bring about."""
    count = Counter(problem.club[element] for element in problem.owned)
    return sorted(club for club, number in count.items() if number > problem.rules.club_limit)


def _week(
    problem: Problem,
    walk: _Walk,
    index: int,
    sold: list[int],
    bought: list[int],
    chip: Chip | None,
    seen: set[int],
    legal: Sequence[Mapping[int, int]],
) -> WeekPlan:
    gameweek, played, free = problem.gameweeks[index], chip_at(chip, index), walk.free
    kept = (walk.squad, walk.bank)
    walk.squad = walk.squad - set(sold) | set(bought)
    # An owned player sells at his locked price the first time only; bought again he is worth what he costs.
    sold_for = tuple(problem.cost[e] if e in seen else problem.selling.get(e, problem.cost[e]) for e in sold)
    walk.bank += sum(sold_for) - sum(problem.cost[e] for e in bought)
    if played != "freehit":
        seen.update(sold)
    taken = 0 if unlimited(problem, index, chip) else hits(len(bought), free, played)
    walk.free = next_free_transfers(problem.rules, gameweek, free, len(bought), played)
    xp = problem.xp[gameweek]
    lineup = best_lineup(problem.rules, sorted(walk.squad), problem.position, xp, legal)
    points = lineup.points(xp, 3 if played == "3xc" else 2)
    bench = sum(xp[e] for e in lineup.bench) if played == "bboost" else lineup.bench_points(xp, problem.position)
    walk.sums["xp"] += problem.weight(index) * points
    walk.sums["bench"] += problem.weight(index) * bench
    walk.sums["hits"] += taken
    week = WeekPlan(
        gameweek,
        frozenset(walk.squad),
        tuple(sold),
        sold_for,
        tuple(bought),
        free,
        taken,
        played,
        walk.bank,
        lineup,
        points,
        bench,
    )
    if played == "freehit":
        # The squad of a free hit is handed back after its gameweek.
        walk.squad, walk.bank = kept
    return week
