"""A few made-up managers who played the season by the rules: squads, transfers, chips, points. PURE."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from engine_worker.engines.fpl.lineup import Lineup, best_lineup
from engine_worker.engines.fpl.rules import UNLIMITED_CHIPS, hit_cost, next_free_transfers, selling_price
from engine_worker.engines.fpl.scoring import multipliers, substitutions
from engine_worker.engines.fpl.seasons import Ruleset
from engine_worker.engines.fpl.synthetic.health import FIT
from engine_worker.engines.fpl.synthetic.season import Played
from engine_worker.engines.fpl.synthetic.world import Player

# Entry id → chips played, gameweek → chip. Between them they cover every rule about chips.
MANAGERS: dict[int, dict[int, str]] = {
    1: {22: "bboost"},
    2: {7: "wildcard", 30: "wildcard"},
    3: {9: "freehit", 24: "freehit"},
    4: {6: "bboost", 34: "3xc"},
    5: {8: "3xc", 5: "wildcard"},
    6: {},
    7: {8: "wildcard"},
}
# Entry id → its first gameweek, where it is not the season's.
JOINED = {7: 4}
NAMES = ("Harbour Lights", "Second Wind", "Nine Lives", "Deep Bench", "Long Shots", "Quiet Money", "Late Again")


@dataclass
class Manager:
    """One entry as the API would tell it; `weeks`, `moves` and `picks` hold bodies of the API."""

    id: int
    name: str
    squad: dict[int, int] = field(default_factory=dict)  # element → purchase price
    bank: int = 0
    free_transfers: int = 0
    points: int = 0
    weeks: list[dict[str, Any]] = field(default_factory=list)
    moves: list[dict[str, Any]] = field(default_factory=list)
    picks: dict[int, dict[str, Any]] = field(default_factory=dict)
    chips: list[dict[str, Any]] = field(default_factory=list)


class Desk:
    """What one manager sees of the season, and the decisions he makes with it."""

    def __init__(self, rng: Random, rules: Ruleset, players: list[Player], played: Played) -> None:
        self._rng = rng
        self._rules = rules
        self._players = {player.id: player for player in players}
        self._played = played
        self._position = {player.id: player.position for player in players}
        self._first_choices = _first_choices(players)

    def season(self, entry: int, gameweeks: int) -> Manager:
        """Plays the first `gameweeks` for one entry of `MANAGERS`."""
        manager = Manager(entry, NAMES[entry - 1])
        for gameweek in range(JOINED.get(entry, 1), gameweeks + 1):
            self._week(manager, gameweek, MANAGERS[entry].get(gameweek))
        return manager

    def _week(self, manager: Manager, gameweek: int, chip: str | None) -> None:
        opinion = self._opinion(gameweek)
        kept = (dict(manager.squad), manager.bank)
        before = len(manager.moves)
        first = not manager.weeks
        if first:
            self._start(manager, opinion, gameweek)
        elif chip in UNLIMITED_CHIPS:
            self._trade(manager, gameweek, opinion, 7)
        else:
            self._trade(manager, gameweek, opinion, self._appetite(manager))
        made = len(manager.moves) - before
        cost = 0 if first else hit_cost(self._rules, gameweek, manager.free_transfers, made, chip)
        # Transfers of a wildcard or free hit are listed but not counted.
        self._score(manager, gameweek, opinion, chip, (0 if chip in UNLIMITED_CHIPS else made, cost))
        if chip:
            manager.chips.append({"name": chip, "time": f"2026-10-01T12:00:{gameweek:02d}Z", "event": gameweek})
        if chip == "freehit":
            manager.squad, manager.bank = kept
            # The API records the bank of the squad that is handed back.
            manager.weeks[-1]["bank"] = manager.bank
        after = next_free_transfers(self._rules, gameweek, manager.free_transfers, made, chip)
        manager.free_transfers = 1 if first else after

    def _opinion(self, gameweek: int) -> dict[int, float]:
        """What a manager expects of each player: points of late, his price, a place in the team, and a hunch."""
        regulars = self._first_choices if gameweek < 4 else {p for p in self._players if self._late(p, gameweek) > 1}
        return {
            player.id: (
                0.5 * self._late(player.id, gameweek)
                + 0.03 * player.cost[gameweek - 1]
                + 1.5 * (player.id in regulars)
                - 0.5 * player.health[gameweek - 1] * (player.health[gameweek - 1] != FIT)
                + self._rng.gauss(0, 0.5)
            )
            for player in self._players.values()
        }

    def _late(self, player: int, gameweek: int) -> float:
        """Points a gameweek over the last four, matches missed counting zero."""
        weeks = range(max(gameweek - 4, 1), gameweek)
        return sum(self._played.points(player, week) for week in weeks) / max(len(weeks), 1)

    def _appetite(self, manager: Manager) -> int:
        """Transfers wanted this week: often one, sometimes none so as to bank it, seldom one too many."""
        return min(self._rng.choices((0, 1, manager.free_transfers, 2), (35, 45, 15, 5))[0], manager.free_transfers + 1)

    def _start(self, manager: Manager, opinion: dict[int, float], gameweek: int) -> None:
        """The cheapest legal squad, improved one player at a time while there is money."""
        manager.bank = self._rules.budget
        for rule in self._rules.positions:
            cheapest = sorted(
                (p for p in self._players.values() if p.position == rule.position),
                key=lambda p: (p.cost[gameweek - 1], p.id),
            )
            for player in cheapest:
                if self._count(manager, rule.position) < rule.squad and self._room(manager, player.club):
                    manager.squad[player.id] = player.cost[gameweek - 1]
                    manager.bank -= player.cost[gameweek - 1]
        for _ in range(80):
            leaving = self._rng.choice(sorted(manager.squad))
            coming = self._replacement(manager, leaving, gameweek, opinion, margin=0.1)
            if coming is not None:
                self._swap(manager, leaving, coming, gameweek)
        manager.moves.clear()

    def _trade(self, manager: Manager, gameweek: int, opinion: dict[int, float], wanted: int) -> None:
        made = 0
        for leaving in sorted(manager.squad, key=lambda element: opinion[element]):
            coming = self._replacement(manager, leaving, gameweek, opinion, margin=0.3) if made < wanted else None
            if coming is not None:
                self._swap(manager, leaving, coming, gameweek)
                made += 1

    def _replacement(
        self, manager: Manager, leaving: int, gameweek: int, opinion: dict[int, float], margin: float
    ) -> int | None:
        money = manager.bank + self._sells_for(manager, leaving, gameweek)
        club = self._players[leaving].club
        fits = [
            player.id
            for player in self._players.values()
            if player.position == self._position[leaving]
            and player.id not in manager.squad
            and player.cost[gameweek - 1] <= money
            and (player.club == club or self._room(manager, player.club))
            and opinion[player.id] > opinion[leaving] + margin
        ]
        return max(fits, key=lambda element: opinion[element], default=None)

    def _swap(self, manager: Manager, leaving: int, coming: int, gameweek: int) -> None:
        sold, bought = self._sells_for(manager, leaving, gameweek), self._players[coming].cost[gameweek - 1]
        manager.bank += sold - bought
        del manager.squad[leaving]
        manager.squad[coming] = bought
        move = {"element_in": coming, "element_in_cost": bought, "element_out": leaving, "element_out_cost": sold}
        stamp = f"2026-09-01T12:{gameweek:02d}:{len(manager.moves) % 60:02d}Z"
        manager.moves.append({**move, "entry": manager.id, "event": gameweek, "time": stamp})

    def _sells_for(self, manager: Manager, element: int, gameweek: int) -> int:
        now = self._players[element].cost[gameweek - 1]
        return selling_price(manager.squad[element], now, self._rules.sell_on_fee)

    def _count(self, manager: Manager, position: int) -> int:
        return sum(self._position[element] == position for element in manager.squad)

    def _room(self, manager: Manager, club: int) -> bool:
        return sum(self._players[element].club == club for element in manager.squad) < self._rules.club_limit

    def _score(
        self, manager: Manager, gameweek: int, opinion: dict[int, float], chip: str | None, transfers: tuple[int, int]
    ) -> None:
        lineup = best_lineup(self._rules, sorted(manager.squad), self._position, opinion)
        starters, bench, swaps = self._autosubs(lineup, gameweek)
        played = self._appeared(gameweek)
        times = multipliers(starters, bench, lineup.captain, lineup.vice, chip, played)
        points = sum(self._played.points(element, gameweek) * count for element, count in times.items())
        manager.points += points - transfers[1]
        value = manager.bank + sum(self._players[element].cost[gameweek - 1] for element in manager.squad)
        week = {"event": gameweek, "points": points, "total_points": manager.points, "rank": None}
        week |= {"overall_rank": None, "bank": manager.bank, "value": value, "event_transfers": transfers[0]}
        week |= {"event_transfers_cost": transfers[1], "points_on_bench": self._bench_points(bench, gameweek)}
        manager.weeks.append(week)
        picks = [
            {"element": element, "position": place, "multiplier": times[element],
             "is_captain": element == lineup.captain, "is_vice_captain": element == lineup.vice}
            for place, element in enumerate([*starters, *bench], start=1)
        ]  # fmt: skip
        manager.picks[gameweek] = {
            "active_chip": chip, "automatic_subs": swaps, "entry_history": week, "picks": picks,
        }  # fmt: skip

    def _bench_points(self, bench: list[int], gameweek: int) -> int:
        return sum(self._played.points(element, gameweek) for element in bench)

    def _appeared(self, gameweek: int) -> Callable[[int], bool]:
        return lambda element: self._played.minutes(element, gameweek) > 0

    def _autosubs(self, lineup: Lineup, gameweek: int) -> tuple[list[int], list[int], list[dict[str, int]]]:
        """Starters and bench after the game's substitutions, and those as the API lists them."""
        starters, bench, swaps = list(lineup.starters), list(lineup.bench), []
        made = substitutions(self._rules, starters, bench, self._position, self._appeared(gameweek))
        for coming, leaving in made:
            starters[starters.index(leaving)], bench[bench.index(coming)] = coming, leaving
            swaps.append({"element_in": coming, "element_out": leaving})
        return starters, bench, swaps


def _first_choices(players: list[Player]) -> set[int]:
    """Who is known to start before a ball is kicked: the ablest of each club and position."""
    places: dict[tuple[int, int], list[Player]] = {}
    for player in players:
        places.setdefault((player.club, player.position), []).append(player)
    count = {1: 1, 2: 4, 3: 4, 4: 2}
    return {
        player.id
        for (_, position), group in places.items()
        for player in sorted(group, key=lambda p: -p.ability)[: count[position]]
    }
