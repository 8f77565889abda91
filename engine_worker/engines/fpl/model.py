"""A `Problem` as a mixed-integer linear program. PURE.

Columns per gameweek and player: in the squad, bought, sold (integer), starts, captain (continuous: with the squad
fixed the lineup is a flow and comes out whole). Per gameweek: bank, hits, free transfers. Free transfers need no
case distinction: `hits ≥ made − free` and `free' ≤ free − made + hits + 1` are tight because a hit costs more than
the free transfer it would save. Vice captain and bench order follow from the squad (`lineup.py`).

Restriction: an owned player is sold at most once over the horizon, so that his locked price is paid once.
"""

from collections.abc import Sequence
from math import inf

from engine_worker.engines.fpl.lineup import bench_weight
from engine_worker.engines.fpl.problem import (
    BANK_VALUE_PTS,
    FREE_TRANSFER_VALUE_PTS,
    HIT_MARGIN_PTS,
    Chip,
    Plan,
    Problem,
    chip_at,
    excess_clubs,
    make_plan,
    unlimited,
)
from engine_worker.engines.fpl.rules import HIT_COST_PTS, UNLIMITED_CHIPS


class Model:
    """The columns and rows of one problem, kept as triplets until HiGHS takes them."""

    def __init__(self, problem: Problem, transfer_weeks: int, chip: Chip | None) -> None:
        self.problem, self.chip = problem, chip
        self._transfer_weeks = transfer_weeks
        self._weeks = range(len(problem.gameweeks))
        self._index: dict[tuple[str, int, int], int] = {}
        self.cost: list[float] = []
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.integer: list[bool] = []
        self.rows: list[tuple[float, float]] = []
        self.entries: list[tuple[int, int, float]] = []
        self._add_columns()
        for week in self._weeks:
            self._add_squad_rows(week)
            self._add_lineup_rows(week)
            self._add_money_rows(week)
            self._add_transfer_rows(week)
        self._add_locked_price_rows()
        self._add_club_rows()

    def column(self, kind: str, week: int, element: int = 0) -> int:
        """The column of a variable."""
        return self._index[kind, week, element]

    def swaps(self, values: Sequence[float]) -> list[tuple[list[int], list[int]]]:
        """The transfers of a solution, (sold, bought) per gameweek."""

        def chosen(kind: str, week: int) -> list[int]:
            return [e for e in self.problem.elements if values[self.column(kind, week, e)] > 0.5]

        return [(chosen("sell", week), chosen("buy", week)) for week in self._weeks]

    def plan(self, values: Sequence[float]) -> Plan:
        """The plan of a solution."""
        return make_plan(self.problem, self.swaps(values), self.chip)

    def vector(self, plan: Plan) -> list[float]:
        """A plan as a starting solution. Free transfers are what they are; nothing else is left to guess."""
        values = [0.0] * len(self.cost)
        for week, planned in enumerate(plan.weeks):
            for kind, elements in (
                ("squad", planned.squad),
                ("buy", planned.bought),
                ("sell", planned.sold),
                ("start", planned.lineup.starters),
                ("captain", (planned.lineup.captain,)),
            ):
                for element in elements:
                    values[self.column(kind, week, element)] = 1.0
            values[self.column("bank", week)] = planned.bank
            values[self.column("hit", week)] = planned.hits
            values[self.column("free", week)] = planned.free_transfers
        values[self.column("free", len(plan.weeks))] = plan.free_transfers_after
        for club in excess_clubs(self.problem):
            for week in range(len(plan.weeks)):
                if any(earlier.bought for earlier in plan.weeks[: week + 1]):
                    values[self.column("moved", week, club)] = 1.0
        return values

    def _new(self, kind: str, week: int, element: int, cost: float, low: float, high: float, whole: bool) -> None:
        self._index[kind, week, element] = len(self.cost)
        self.cost.append(cost)
        self.lower.append(low)
        self.upper.append(high)
        self.integer.append(whole)

    def _row(self, low: float, high: float, terms: Sequence[tuple[int, float]]) -> None:
        row = len(self.rows)
        self.rows.append((low, high))
        self.entries += [(row, column, value) for column, value in terms]

    def _add_columns(self) -> None:
        problem = self.problem
        for week in self._weeks:
            weight, played = problem.weight(week), chip_at(self.chip, week)
            captain = 2.0 if played == "3xc" else 1.0
            for element in problem.elements:
                points = weight * problem.xp[problem.gameweeks[week]][element]
                benched = points * (1.0 if played == "bboost" else bench_weight(problem.position[element]))
                may_buy, may_sell = self._may_trade(week, element)
                held = float(element in problem.locked)
                self._new("squad", week, element, benched, held, 1, True)
                self._new("buy", week, element, 0, 0, float(may_buy), True)
                self._new("sell", week, element, 0, 0, float(may_sell), True)
                self._new("start", week, element, points - benched, 0, 1, False)
                self._new("captain", week, element, captain * points, 0, 1, False)
            last = week == self._weeks[-1]
            self._new("bank", week, 0, BANK_VALUE_PTS if last else 0, 0, inf, False)
            self._new("hit", week, 0, -HIT_COST_PTS - HIT_MARGIN_PTS, 0, problem.max_hits, True)
            free = problem.free_transfers
            self._new("free", week, 0, 0, free if week == 0 else 0, free if week == 0 else self._most_free, True)
        self._new("free", len(self._weeks), 0, FREE_TRANSFER_VALUE_PTS, 0, self._most_free, True)

    @property
    def _most_free(self) -> int:
        # A chip that keeps the banked transfers keeps even more than could be earned, were a caller to claim them.
        return max(self.problem.rules.free_transfers_max, self.problem.free_transfers)

    def _may_trade(self, week: int, element: int) -> tuple[bool, bool]:
        problem = self.problem
        if week >= self._transfer_weeks:
            return False, False
        owned_at_start = week == 0 and element in problem.owned
        may_buy = element not in problem.banned and not owned_at_start
        may_sell = element not in problem.locked and (week > 0 or element in problem.owned)
        return may_buy, may_sell

    def _add_squad_rows(self, week: int) -> None:
        problem = self.problem
        for element in problem.elements:
            terms = [(self.column("squad", week, element), 1.0)]
            terms += [(self.column("buy", week, element), -1.0), (self.column("sell", week, element), 1.0)]
            before = float(element in problem.owned)
            if week > 0:
                terms.append((self.column("squad", week - 1, element), -1.0))
                before = 0.0
            self._row(before, before, terms)
        for rule in problem.rules.positions:
            group = [e for e in problem.elements if problem.position[e] == rule.position]
            self._row(rule.squad, rule.squad, self._sum("squad", week, group))
            self._row(rule.play_min, rule.play_max, self._sum("start", week, group))

    def _add_lineup_rows(self, week: int) -> None:
        for element in self.problem.elements:
            squad, start = self.column("squad", week, element), self.column("start", week, element)
            self._row(-inf, 0, [(start, 1), (squad, -1)])
            self._row(-inf, 0, [(self.column("captain", week, element), 1), (start, -1)])
        eleven = self.problem.rules.eleven_size
        self._row(eleven, eleven, self._sum("start", week, self.problem.elements))
        self._row(1, 1, self._sum("captain", week, self.problem.elements))

    def _add_money_rows(self, week: int) -> None:
        problem = self.problem
        terms = [(self.column("bank", week), 1.0)]
        for element in problem.elements:
            terms.append((self.column("buy", week, element), float(problem.cost[element])))
            worth = problem.selling.get(element, problem.cost[element])
            terms.append((self.column("sell", week, element), -float(worth)))
        before = float(problem.bank)
        if week > 0:
            terms.append((self.column("bank", week - 1), -1.0))
            before = 0.0
        self._row(before, before, terms)

    def _add_transfer_rows(self, week: int) -> None:
        problem, rules = self.problem, self.problem.rules
        free, after, hit = self.column("free", week), self.column("free", week + 1), self.column("hit", week)
        made = self._sum("buy", week, problem.elements)
        if problem.gameweeks[week] + 1 in rules.topped_up:
            topped = rules.topped_up[problem.gameweeks[week] + 1]
            self._row(topped, topped, [(after, 1.0)])
        elif unlimited(problem, week, self.chip):
            kept = chip_at(self.chip, week) in UNLIMITED_CHIPS and not rules.chip_resets_free_transfers
            self._row(0 if kept else 1, 0 if kept else 1, [(after, 1.0)] + ([(free, -1.0)] if kept else []))
        else:
            self._row(-inf, rules.free_transfers_max, [(after, 1.0)])
            self._row(-inf, 1, [(after, 1.0), (free, -1.0), (hit, -1.0), *made])
        if not unlimited(problem, week, self.chip):
            self._row(0, inf, [(hit, 1.0), (free, 1.0), *[(column, -1.0) for column, _ in made]])

    def _add_locked_price_rows(self) -> None:
        for element in sorted(self.problem.owned):
            self._row(-inf, 1, [(self.column("sell", week, element), 1.0) for week in self._weeks])

    def _add_club_rows(self) -> None:
        """At most three of a club. A squad that a real transfer took above may stay so until its next transfer."""
        problem, limit = self.problem, self.problem.rules.club_limit
        excess = excess_clubs(problem)
        for club in sorted(set(problem.club.values())):
            group = [e for e in problem.elements if problem.club[e] == club]
            over = sum(e in problem.owned for e in group) - limit
            for week in self._weeks:
                terms = self._sum("squad", week, group)
                if club in excess:
                    self._new("moved", week, club, 0, 0, 1, True)
                    moved = self.column("moved", week, club)
                    terms.append((moved, float(over)))
                    for earlier in range(week + 1):
                        for element in problem.elements:
                            self._row(-inf, 0, [(self.column("buy", earlier, element), 1.0), (moved, -1.0)])
                self._row(-inf, limit + max(over, 0), terms)

    def _sum(self, kind: str, week: int, elements: Sequence[int]) -> list[tuple[int, float]]:
        return [(self.column(kind, week, element), 1.0) for element in elements]
