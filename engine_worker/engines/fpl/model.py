"""A `Problem` as a mixed-integer linear program. PURE.

Columns per gameweek and player: in the squad, bought, sold (integer), starts, captain (continuous: with the squad
fixed the lineup is a flow and comes out whole). Per gameweek: bank, hits, free transfers, and one column per chip that
may be played. Vice captain and bench order follow from the squad (`lineup.py`).

- Free transfers need no case distinction: `hits ≥ made − free` and `free' ≤ free − made + hits + 1` are tight because a
  hit costs more than the free transfer it would save. A wildcard adds no transfer.
- An owned player whose price rose has a column for his first sale, at the locked price, and one for any later sale.
- The best squad of a free hit is known beforehand (see `FreeHit`): playing it trades the points of the kept squad for
  those of that one, and what the kept squad may put in is scaled down with it. The kept squad and the bank go on.
- A wildcard has purchases of its own, which no count of transfers sees; a bench boost a lineup of its own, of fifteen.
  With half a chip only half of each player can be bought, rest or play: the relaxation stays near the truth.
- Triple captain adds columns bounded by captain.

Restriction: a free hit has one of two squads, the one affordable as long as nobody it uses was sold before, and the
one affordable whoever was.
"""

from collections.abc import Collection, Iterator, Sequence
from math import inf

from engine_worker.engines.fpl.lineup import bench_weight
from engine_worker.engines.fpl.problem import Moves, Plan, Problem, WeekPlan, excess_clubs, make_plan

Terms = list[tuple[int, float]]

_OF_PLAYERS = frozenset(
    ("squad", "buy", "sell", "sell_again", "start", "captain", "wait", "anew", "let", "triple", "boost")
)


class Model:
    """The columns and rows of one problem, kept as triplets until HiGHS takes them.

    Transfers are made in the gameweeks of `open_weeks` (indices). What is done first differs from each of `excluded`.
    """

    def __init__(self, problem: Problem, open_weeks: Collection[int], excluded: Sequence[Moves] = ()) -> None:
        self.problem = problem
        self._open = frozenset(open_weeks)
        self._weeks = range(len(problem.gameweeks))
        # Of these first sale and later sales fetch different prices.
        self._risen = frozenset(e for e, price in problem.selling.items() if price != problem.cost[e])
        self._index: dict[tuple[str, int, int], int] = {}
        self.cost: list[float] = []
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.integer: list[bool] = []
        self.rows: list[tuple[float, float]] = []
        self.entries: list[tuple[int, int, float]] = []
        for week in self._weeks:
            self._add_columns(week)
            self._add_chip_columns(week)
        self._new("free", len(self._weeks), 0, problem.worth.free_transfer, 0, problem.rules.free_transfers_max, True)
        for week in self._weeks:
            self._add_squad_rows(week)
            self._add_lineup_rows(week)
            self._add_money_rows(week)
            self._add_transfer_rows(week)
            self._add_chip_rows(week)
        self._add_locked_price_rows()
        self._add_copy_rows()
        self._add_club_rows()
        for moves in excluded:
            self._add_exclusion(moves)

    def chip(self, name: str, week: int) -> int:
        """The column of a chip played in the gameweek at `week`."""
        return self._at(name, week)

    def player_columns(self) -> Iterator[tuple[tuple[str, int, int], int]]:
        """Every column that belongs to a player: its kind, gameweek (index) and element, and where it is."""
        return ((key, column) for key, column in self._index.items() if key[0] in _OF_PLAYERS)

    def plan(self, values: Sequence[float]) -> Plan:
        """The plan of a solution."""
        moves = []
        for week in self._weeks:
            chip = next((name for name in self._chips(week) if values[self._at(name, week)] > 0.5), None)
            if chip == "freehit":
                kept, known = self._chosen(values, week, "squad"), self.problem.free_hits[week]
                hit = known.dear_squad if values[self._at("dear", week)] > 0.5 else known.squad
                moves.append(Moves(tuple(sorted(kept - hit)), tuple(sorted(hit - kept)), chip))
            else:
                sold = self._chosen(values, week, "sell", "sell_again")
                bought = self._chosen(values, week, "buy", "anew")
                # Sold and bought at once, at one price, is nothing done.
                moves.append(Moves(tuple(sorted(sold - bought)), tuple(sorted(bought - sold)), chip))
        return make_plan(self.problem, moves)

    def vector(self, plan: Plan) -> list[float]:
        """A plan as a starting solution. Free transfers are what they are; nothing else is left to guess."""
        values = [0.0] * len(self.cost)
        squad, bank, gone = set(self.problem.owned), self.problem.bank, set[int]()
        for week, planned in enumerate(plan.weeks):
            free_hit = planned.chip == "freehit"
            if not free_hit:
                self._put_team(values, week, planned, gone)
                squad, bank = set(planned.squad), planned.bank
                gone |= set(planned.sold) & self._risen
            elif planned.squad != self.problem.free_hits[week].squad:
                self._put(values, "dear", week)
            if planned.chip:
                self._put(values, planned.chip, week)
            for element in squad:
                self._put(values, "squad", week, element)
            self._put(values, "bank", week, value=bank)
            self._put(values, "hit", week, value=planned.hits)
            self._put(values, "free", week, value=planned.free_transfers)
            self._put(values, "banked", week, value=float(planned.free_transfers > len(planned.bought)))
        self._put(values, "free", len(plan.weeks), value=plan.free_transfers_after)
        for club in excess_clubs(self.problem):
            for week in range(len(plan.weeks)):
                if any(earlier.bought and earlier.chip != "freehit" for earlier in plan.weeks[: week + 1]):
                    self._put(values, "moved", week, club)
        return values

    def _put_team(self, values: list[float], week: int, planned: WeekPlan, gone: set[int]) -> None:
        """The transfers and the lineup of a gameweek without a free hit."""
        for element in planned.sold:
            self._put(values, "sell_again" if element in gone else "sell", week, element)
            self._put(values, "let", week, element, float(planned.chip == "wildcard"))
        for element in planned.bought:
            self._put(values, "anew" if planned.chip == "wildcard" else "buy", week, element)
        boosted = planned.chip == "bboost"
        for element in planned.lineup.starters:
            self._put(values, "boost" if boosted else "start", week, element)
        self._put(values, "captain", week, planned.lineup.captain)
        self._put(values, "triple", week, planned.lineup.captain, float(planned.chip == "3xc"))
        for element in planned.lineup.bench:
            self._put(values, "boost" if boosted else "wait", week, element)

    def _put(self, values: list[float], kind: str, week: int, element: int = 0, value: float = 1.0) -> None:
        # A plan of a wider model may do what this one has no column for: then it is only a hint.
        if (column := self._index.get((kind, week, element))) is not None:
            values[column] = value

    def _chosen(self, values: Sequence[float], week: int, *kinds: str) -> set[int]:
        columns = ((e, self._index.get((kind, week, e))) for kind in kinds for e in self.problem.elements)
        return {e for e, column in columns if column is not None and values[column] > 0.5}

    # -- columns

    def _new(self, kind: str, week: int, element: int, cost: float, low: float, high: float, whole: bool) -> None:
        self._index[kind, week, element] = len(self.cost)
        self.cost.append(cost)
        self.lower.append(low)
        self.upper.append(high)
        self.integer.append(whole)

    def _at(self, kind: str, week: int, element: int = 0) -> int:
        return self._index[kind, week, element]

    def _chips(self, week: int) -> list[str]:
        return [copy.name for copy in self.problem.chips if week in copy.weeks]

    def _points(self, week: int, element: int) -> tuple[float, float]:
        """Weighted points of a starter, and of the same player on the bench."""
        points = self.problem.weight(week) * self.problem.xp[self.problem.gameweeks[week]][element]
        return points, points * bench_weight(self.problem.position[element])

    def _add_columns(self, week: int) -> None:
        problem, may_hit = self.problem, "freehit" in self._chips(week)
        for element in problem.elements:
            points, benched = self._points(week, element)
            self._new("squad", week, element, 0 if may_hit else benched, float(element in problem.locked), 1, True)
            may_buy, may_sell = self._may_trade(week, element)
            self._new("buy", week, element, 0, 0, float(may_buy), True)
            self._new("sell", week, element, 0, 0, float(may_sell), True)
            if element in self._risen and week > 0:
                self._new("sell_again", week, element, 0, 0, float(may_sell), True)
            if may_hit:
                self._new("wait", week, element, benched, 0, 1, False)
            self._new("start", week, element, points if may_hit else points - benched, 0, 1, False)
            self._new("captain", week, element, points, 0, 1, False)
        last = week == self._weeks[-1]
        self._new("bank", week, 0, problem.worth.bank if last else 0, 0, inf, False)
        price = problem.rules.hit_cost + problem.worth.hit_margin
        self._new("hit", week, 0, -price, 0, problem.max_hits, True)
        free = problem.free_transfers
        most = problem.rules.free_transfers_max
        self._new("free", week, 0, 0, free if week == 0 else 0, free if week == 0 else most, True)

    def _may_trade(self, week: int, element: int) -> tuple[bool, bool]:
        problem = self.problem
        if week not in self._open:
            return False, False
        owned_at_start = week == 0 and element in problem.owned
        may_buy = element not in problem.banned and not owned_at_start
        may_sell = element not in problem.locked and (week > 0 or element in problem.owned)
        return may_buy, may_sell

    def _add_chip_columns(self, week: int) -> None:
        problem, chips = self.problem, self._chips(week)
        for name in chips:
            points = problem.weight(week) * problem.free_hits[week].points if name == "freehit" else 0.0
            if week == 0 and problem.played.get(0) == name:
                points += problem.given_back
            self._new(
                name, week, 0, points - problem.chip_cost(name, week), float(problem.played.get(week) == name), 1, True
            )
        if "freehit" in chips:
            lost = problem.free_hits[week].points - problem.free_hits[week].dear_points
            self._new("dear", week, 0, -problem.weight(week) * lost, 0, 1, True)
        for element in problem.elements:
            points, benched = self._points(week, element)
            if "wildcard" in chips:
                self._new("anew", week, element, 0, 0, float(self._may_trade(week, element)[0]), True)
                self._new("let", week, element, 0, 0, 1, False)
            if "3xc" in chips:
                self._new("triple", week, element, points, 0, 1, False)
            if "bboost" in chips:
                self._new("boost", week, element, points if "freehit" in chips else points - benched, 0, 1, False)

    # -- rows

    def _row(self, low: float, high: float, terms: Terms) -> None:
        row = len(self.rows)
        self.rows.append((low, high))
        self.entries += [(row, column, value) for column, value in terms]

    def _sum(self, kind: str, week: int, elements: Collection[int], value: float = 1.0) -> Terms:
        found = ((kind, week, element) for element in elements)
        return [(self._index[key], value) for key in found if key in self._index]

    def _sales(self, week: int, elements: Collection[int], value: float = 1.0) -> Terms:
        return self._sum("sell", week, elements, value) + self._sum("sell_again", week, elements, value)

    def _bought(self, week: int, elements: Collection[int], value: float = 1.0) -> Terms:
        return self._sum("buy", week, elements, value) + self._sum("anew", week, elements, value)

    def _group(self, position: int) -> list[int]:
        return [e for e in self.problem.elements if self.problem.position[e] == position]

    def _add_squad_rows(self, week: int) -> None:
        problem = self.problem
        for element in problem.elements:
            one = (element,)
            terms = self._sum("squad", week, one) + self._bought(week, one, -1.0) + self._sales(week, one)
            before = float(element in problem.owned)
            if week > 0:
                terms += self._sum("squad", week - 1, one, -1.0)
                before = 0.0
            self._row(before, before, terms)
        for rule in problem.rules.positions:
            self._row(rule.squad, rule.squad, self._sum("squad", week, self._group(rule.position)))

    def _add_lineup_rows(self, week: int) -> None:
        rules, everyone = self.problem.rules, self.problem.elements
        for element in everyone:
            one = (element,)
            owned, start = self._sum("squad", week, one, -1.0), self._sum("start", week, one)
            boost = self._sum("boost", week, one)
            self._row(-inf, 0, start + boost + self._sum("wait", week, one) + owned)
            self._row(-inf, 0, self._sum("captain", week, one) + [(column, -1.0) for column, _ in start + boost])
        # With a free hit the kept squad fields nobody, with a bench boost everybody.
        eleven, away = rules.eleven_size, ("freehit", "bboost")
        self._fielded(week, self._sum("start", week, everyone), eleven, eleven, away)
        self._fielded(week, self._sum("captain", week, everyone), 1, 1, ("freehit",))
        for rule in rules.positions:
            terms = self._sum("start", week, self._group(rule.position))
            self._fielded(week, terms, rule.play_min, rule.play_max, away)

    def _fielded(self, week: int, terms: Terms, low: float, high: float, chips: Collection[str]) -> None:
        """`low ≤ terms ≤ high`, scaled down to zero as one of the chips is played."""
        played = [self._at(name, week) for name in chips if name in self._chips(week)]
        if not played or low == high:
            self._row(low, high, [*terms, *[(column, high) for column in played]])
        else:
            self._row(-inf, high, [*terms, *[(column, high) for column in played]])
            self._row(low, inf, [*terms, *[(column, low) for column in played]])

    def _add_money_rows(self, week: int) -> None:
        problem = self.problem
        terms = [(self._at("bank", week), 1.0), *self._spending(week)]
        before = float(problem.bank)
        if week > 0:
            terms.append((self._at("bank", week - 1), -1.0))
            before = 0.0
        self._row(before, before, terms)

    def _spending(self, week: int) -> Terms:
        problem, terms = self.problem, []
        for element in problem.elements:
            cost, one = float(problem.cost[element]), (element,)
            terms += self._bought(week, one, cost)
            terms += self._sum("sell", week, one, -float(problem.selling.get(element, cost)))
            terms += self._sum("sell_again", week, one, -cost)
        return terms

    def _add_transfer_rows(self, week: int) -> None:
        problem, rules = self.problem, self.problem.rules
        free, after, hit = self._at("free", week), self._at("free", week + 1), self._at("hit", week)
        chips = self._chips(week)
        if problem.gameweeks[week] in rules.unlimited_gameweeks:
            self._row(1, 1, [(after, 1.0)])
            return
        made = self._sum("buy", week, problem.elements)
        free_of_charge = problem.gameweeks[week] in rules.free_of_charge
        if not free_of_charge:
            self._row(0, inf, [(hit, 1.0), (free, 1.0), *[(column, -1.0) for column, _ in made]])
            free_now = problem.free_transfers + week  # at most
            paused = [(self._at(name, week), 1.0) for name in ("wildcard", "freehit") if name in chips]
            if paused:
                # Said again for the relaxation: a chip half played leaves room for half the transfers.
                most = float(rules.free_transfers_max if rules.topped_up else min(free_now, rules.free_transfers_max))
                self._row(-inf, most, [*made, (hit, -1.0), *[(column, most) for column, _ in paused]])
                most = float(problem.max_hits)
                self._row(-inf, most, [(hit, 1.0), *[(column, most) for column, _ in paused]])
        topped = rules.topped_up.get(problem.gameweeks[week] + 1)
        if topped is not None:
            self._row(topped, topped, [(after, 1.0)])
            return
        resetting = [(self._at(name, week), 1.0) for name in ("wildcard", "freehit") if name in chips]
        kept = [(after, 1.0), (free, -1.0), (hit, -1.0), *made]
        if rules.chip_resets_free_transfers:
            # One free transfer follows the chip, whatever was banked; a free hit's own transfers are not counted.
            most = float(rules.free_transfers_max)
            self._row(-inf, most, [(after, 1.0), *[(column, most - 1) for column, _ in resetting]])
        else:
            kept += resetting
        if free_of_charge:
            # `free' ≤ max(free − made, 0) + 1` is tight by the price of a hit; without a price it is a choice.
            self._new("banked", week, 0, 0, 0, 1, True)
            banked, most = self._at("banked", week), float(rules.squad_size)
            self._row(-inf, 1, [(after, 1.0), (banked, -most)])
            self._row(-inf, 1 + most, [*kept, (banked, most)])
        else:
            self._row(-inf, 1, kept)

    def _add_chip_rows(self, week: int) -> None:
        chips, everyone = self._chips(week), self.problem.elements
        self._row(-inf, 1, [(self._at(name, week), 1.0) for name in chips])
        if "3xc" in chips:
            for element in everyone:
                one = (element,)
                self._row(-inf, 0, self._sum("triple", week, one) + self._sum("captain", week, one, -1.0))
            self._row(-inf, 0, [*self._sum("triple", week, everyone), (self._at("3xc", week), -1.0)])
        if "bboost" in chips:
            played = self._at("bboost", week)
            for element in everyone:
                one = (element,)
                self._row(-inf, 0, [*self._sum("boost", week, one), (played, -1.0)])
                if "freehit" not in chips:
                    self._row(-inf, 1, [*self._sum("start", week, one), (played, 1.0)])
            for rule in self.problem.rules.positions:
                self._row(0, 0, [*self._sum("boost", week, self._group(rule.position)), (played, -float(rule.squad))])
        if "wildcard" in chips:
            self._add_wildcard_rows(week)
        if "freehit" in chips:
            self._add_free_hit_rows(week)

    def _add_wildcard_rows(self, week: int) -> None:
        """Bought `anew` with the chip, as many `let` go for them: a chip half played exchanges half of each player."""
        played = (self._at("wildcard", week), -1.0)
        for element in self.problem.elements:
            one = (element,)
            self._row(-inf, 0, [*self._sum("anew", week, one), played])
            self._row(-inf, 0, [*self._sum("let", week, one), played])
            self._row(-inf, 0, [*self._sum("let", week, one), *self._sales(week, one, -1.0)])
        for rule in self.problem.rules.positions:
            group = self._group(rule.position)
            self._row(0, 0, [*self._sum("let", week, group), *self._sum("anew", week, group, -1.0)])

    def _add_free_hit_rows(self, week: int) -> None:
        problem, played = self.problem, self._at("freehit", week)
        bench = float(problem.rules.squad_size - problem.rules.eleven_size)
        off = [(self._at(name, week), 1.0) for name in ("freehit", "bboost") if name in self._chips(week)]
        self._row(-inf, bench, [*self._sum("wait", week, problem.elements), *[(column, bench) for column, _ in off]])
        for element in problem.elements:
            # Without this a half-played free hit would leave the best half of the kept squad.
            one = (element,)
            self._row(-inf, 1, [*self._sum("start", week, one), *self._sum("wait", week, one), *off])
            # The kept squad rests.
            self._row(-inf, 1, [*self._bought(week, one), (played, 1.0)])
        for element in sorted(problem.free_hits[week].squad & (self._risen | problem.banned) & problem.owned):
            sales = [term for earlier in range(week) for term in self._sum("sell", earlier, (element,))]
            self._row(-inf, 1, [*sales, (played, 1.0), (self._at("dear", week), -1.0)])

    def _add_locked_price_rows(self) -> None:
        for element in sorted(self._risen):
            first = [self._at("sell", week, element) for week in self._weeks]
            self._row(-inf, 1, [(column, 1.0) for column in first])
            for week in self._weeks[1:]:
                again = self._at("sell_again", week, element)
                self._row(-inf, 0, [(again, 1.0), *[(column, -1.0) for column in first[:week]]])

    def _add_copy_rows(self) -> None:
        """Each copy is played once; in most seasons a free hit may not follow another."""
        for copy in self.problem.chips:
            self._row(-inf, 1, [(self._at(copy.name, week), 1.0) for week in copy.weeks])
        hits = [week for week in self._weeks if "freehit" in self._chips(week)]
        for week in hits:
            if week + 1 in hits and self.problem.rules.free_hits_apart:
                self._row(-inf, 1, [(self._at("freehit", week), 1.0), (self._at("freehit", week + 1), 1.0)])

    def _add_club_rows(self) -> None:
        """At most three of a club. A squad that a real transfer took above may stay so until its next transfer."""
        problem, limit = self.problem, self.problem.rules.club_limit
        excess = excess_clubs(problem)
        for club in sorted(set(problem.club.values())):
            group = [e for e in problem.elements if problem.club[e] == club]
            over = max(sum(e in problem.owned for e in group) - limit, 0)
            for week in self._weeks:
                terms = self._sum("squad", week, group)
                if club in excess:
                    self._new("moved", week, club, 0, 0, 1, True)
                    moved = self._at("moved", week, club)
                    terms.append((moved, float(over)))
                    for earlier in range(week + 1):
                        for element in problem.elements:
                            self._row(-inf, 0, [*self._bought(earlier, (element,)), (moved, -1.0)])
                self._row(-inf, limit + over, terms)

    def _add_exclusion(self, moves: Moves) -> None:
        """At least one thing done before the first gameweek is different. A free hit's squad is what it is."""
        swap = moves.chip == "freehit"
        terms: Terms = []
        fixed = 0
        for element in self.problem.elements:
            for columns, done in (
                (self._bought(0, (element,)), element in moves.bought),
                (self._sum("sell", 0, (element,)), element in moves.sold),
            ):
                terms += [(column, -1.0 if done and not swap else 1.0) for column, _ in columns]
                fixed += done and not swap
        terms += [(self._at(name, 0), -1.0 if name == moves.chip else 1.0) for name in self._chips(0)]
        fixed += moves.chip in self._chips(0)
        self._row(1 - fixed, inf, terms)
