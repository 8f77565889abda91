"""The rules of the game, season by season. PURE.

What the API says (squad size, club limit, formation bounds, budget, sell-on fee, chip windows) is read from
`bootstrap-static`; what it does not say is in `_SEASONS` below, from the rules pages published for each season.
Money is an int in tenths of a million pounds, points are ints unless they are expectations.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

GOALKEEPER, DEFENDER, MIDFIELDER, FORWARD = 1, 2, 3, 4
POSITION_NAMES = {GOALKEEPER: "GKP", DEFENDER: "DEF", MIDFIELDER: "MID", FORWARD: "FWD"}
CHIPS = ("wildcard", "freehit", "bboost", "3xc")
# Chips that suspend the count of transfers for their gameweek.
UNLIMITED_CHIPS = ("wildcard", "freehit")
LAST_GAMEWEEK = 38
# Points taken for each transfer beyond the free ones (rules page, every season).
HIT_COST_PTS = 4
# No squad is known to have grown by more than about three tenths a gameweek over a season; five leaves room for
# a record and still catches prices typed in the wrong unit.
PROFIT_PER_GAMEWEEK_MAX = 5


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class PositionRule(_Frozen):
    """How many players of one position a squad has and a starting eleven may have."""

    position: int
    squad: int
    play_min: int
    play_max: int


class ChipWindow(_Frozen):
    """One copy of a chip and the gameweeks it may be played in, both ends included."""

    name: str
    start: int
    stop: int


class Ruleset(_Frozen):
    """Everything a plan must respect in one season."""

    season: str
    squad_size: int
    eleven_size: int
    club_limit: int
    budget: int
    sell_on_fee: float
    positions: tuple[PositionRule, ...]
    chips: tuple[ChipWindow, ...]
    free_transfers_max: int
    # True: a wildcard or free hit leaves one free transfer for the next gameweek (until 2023/24).
    # False: the banked ones are kept, and none is added (since 2024/25).
    chip_resets_free_transfers: bool
    unlimited_gameweeks: tuple[int, ...] = (1,)
    # Gameweeks that begin with a set number of free transfers, whatever was banked.
    topped_up: dict[int, int] = {}
    goalkeeper_goal_pts: int = 10
    defensive_contribution: bool = True

    @property
    def version(self) -> str:
        """Names this set of rules in a decision."""
        return f"fpl-{self.season}"

    def position(self, position: int) -> PositionRule:
        """The bounds of one position. Raises `KeyError` for a position the season does not have."""
        for rule in self.positions:
            if rule.position == position:
                return rule
        raise KeyError(position)

    def window(self, chip: str, gameweek: int) -> ChipWindow | None:
        """The copy of `chip` that may be played in `gameweek`, if there is one."""
        return next((w for w in self.chips if w.name == chip and w.start <= gameweek <= w.stop), None)


# Free transfers banked at most, whether a wildcard or free hit resets them, and what a goalkeeper's goal is worth.
# 2022/23 gave unlimited transfers before GW17 (World Cup); 2025/26 set everybody to five in GW16 (Africa Cup).
_SEASONS: dict[str, dict[str, Any]] = {
    "2022-23": {"unlimited_gameweeks": (1, 17)},
    "2024-25": {"defensive_contribution": False},
    "2025-26": {"topped_up": {16: 5}},
}
_UNTIL_2023_24 = {
    "free_transfers_max": 2,
    "chip_resets_free_transfers": True,
    "goalkeeper_goal_pts": 6,
    "defensive_contribution": False,
}
_SINCE_2024_25 = {"free_transfers_max": 5, "chip_resets_free_transfers": False}
# Seasons whose API names no chips: two wildcards, the other three once.
_CHIPS_UNTIL_2024_25 = (
    ChipWindow(name="wildcard", start=2, stop=20),
    ChipWindow(name="wildcard", start=21, stop=LAST_GAMEWEEK),
    ChipWindow(name="freehit", start=2, stop=LAST_GAMEWEEK),
    ChipWindow(name="bboost", start=1, stop=LAST_GAMEWEEK),
    ChipWindow(name="3xc", start=1, stop=LAST_GAMEWEEK),
)


def season_of(bootstrap: Mapping[str, Any]) -> str:
    """The season a `bootstrap-static` belongs to, as `2026-27`, from the year of its first deadline."""
    first = min(str(event["deadline_time"]) for event in bootstrap["events"])
    year = int(first[:4])
    return f"{year}-{(year + 1) % 100:02d}"


def ruleset(bootstrap: Mapping[str, Any]) -> Ruleset:
    """The rules of the season of a `bootstrap-static`. Raises `KeyError` when it lacks its settings."""
    season, settings = season_of(bootstrap), bootstrap["game_settings"]
    table = {**(_SINCE_2024_25 if season >= "2024-25" else _UNTIL_2023_24), **_SEASONS.get(season, {})}
    # The API states the free transfers banked beyond the first since 2024/25.
    if settings.get("max_extra_free_transfers") is not None:
        table["free_transfers_max"] = int(settings["max_extra_free_transfers"]) + 1
    return Ruleset(
        season=season,
        squad_size=settings["squad_squadsize"],
        eleven_size=settings["squad_squadplay"],
        club_limit=settings["squad_team_limit"],
        budget=settings["squad_total_spend"],
        sell_on_fee=settings["transfers_sell_on_fee"],
        positions=tuple(_position_rule(kind) for kind in bootstrap["element_types"] if kind["id"] in POSITION_NAMES),
        chips=_chip_windows(bootstrap.get("chips")),
        **table,
    )


def selling_price(purchase_price: int, now_cost: int, fee: float = 0.5) -> int:
    """What a player sells for, in tenths: the fee takes half of any rise, rounded against the seller.

    Source: rules page, "Player prices"; the same for every season. A player who fell sells for what he costs now.
    """
    rise = now_cost - purchase_price
    return now_cost if rise <= 0 else purchase_price + int(rise * (1 - fee) + 1e-9)


def hits(made: int, free: int, chip: str | None = None) -> int:
    """Transfers beyond the free ones; none in the gameweek of a wildcard or free hit."""
    return 0 if chip in UNLIMITED_CHIPS else max(0, made - free)


def next_free_transfers(rules: Ruleset, gameweek: int, free: int, made: int, chip: str | None = None) -> int:
    """Free transfers at the start of the gameweek after `gameweek`, which began with `free` and saw `made`."""
    if gameweek + 1 in rules.topped_up:
        return rules.topped_up[gameweek + 1]
    if gameweek in rules.unlimited_gameweeks:
        return 1
    if chip in UNLIMITED_CHIPS:
        return 1 if rules.chip_resets_free_transfers else free
    return min(rules.free_transfers_max, max(free - made, 0) + 1)


def squad_violations(
    rules: Ruleset, players: Sequence[tuple[int, int]], club_names: Mapping[int, str] | None = None
) -> list[str]:
    """What the rules hold against a squad given as (position, club) of each player; empty when it is legal."""
    found = (
        [] if len(players) == rules.squad_size else [f"{len(players)} players, the rules ask for {rules.squad_size}"]
    )
    positions = Counter(position for position, _ in players)
    for rule in rules.positions:
        if (count := positions[rule.position]) != rule.squad:
            verb = "allow" if count > rule.squad else "ask for"
            found.append(f"{count} {_NOUNS[rule.position]}, the rules {verb} {rule.squad}")
    for club, count in sorted(Counter(club for _, club in players).items()):
        if count > rules.club_limit:
            name = (club_names or {}).get(club, f"club {club}")
            found.append(f"{count} players from {name}, the rules allow {rules.club_limit}")
    return found


def eleven_violations(rules: Ruleset, positions: Sequence[int]) -> list[str]:
    """What the rules hold against a starting eleven given by its players' positions."""
    count = Counter(positions)
    found = [] if len(positions) == rules.eleven_size else [f"{len(positions)} starters, not {rules.eleven_size}"]
    for rule in rules.positions:
        if not rule.play_min <= count[rule.position] <= rule.play_max:
            found.append(f"{count[rule.position]} {_NOUNS[rule.position]} start, {rule.play_min}–{rule.play_max} may")
    return found


def spending_limit(rules: Ruleset, gameweek: int) -> int:
    """The most that purchase prices and bank can add up to before `gameweek`, in tenths.

    Buying moves money between the two, so their sum is the opening budget plus the profit realised by sales. The
    profit is not in the request; it is bounded by `PROFIT_PER_GAMEWEEK_MAX` for each gameweek gone.
    """
    return rules.budget + PROFIT_PER_GAMEWEEK_MAX * max(gameweek - 1, 0)


def match_points(rules: Ruleset, position: int, stats: Mapping[str, int]) -> int:
    """Points of one player in one match, by the published scoring table; `stats` has the API's names."""
    minutes = stats["minutes"]
    if minutes == 0:
        return 0
    points = (2 if minutes >= 60 else 1) + stats["goals_scored"] * _goal_points(rules, position)
    points += 3 * stats["assists"] + 5 * stats["penalties_saved"] - 2 * stats["penalties_missed"]
    points += stats["bonus"] - stats["yellow_cards"] - 3 * stats["red_cards"] - 2 * stats["own_goals"]
    if minutes >= 60:
        points += stats["clean_sheets"] * {GOALKEEPER: 4, DEFENDER: 4, MIDFIELDER: 1, FORWARD: 0}[position]
    if position == GOALKEEPER:
        points += stats["saves"] // 3
    if position in (GOALKEEPER, DEFENDER):
        points -= stats["goals_conceded"] // 2
    if rules.defensive_contribution and stats["defensive_contribution"] >= _CONTRIBUTIONS[position]:
        points += 2
    return points


# Defensive actions that earn two points, once a match: tackles and the like for a defender, recoveries too for
# those ahead of him; a goalkeeper earns none.
_CONTRIBUTIONS = {GOALKEEPER: 10_000, DEFENDER: 10, MIDFIELDER: 12, FORWARD: 12}
_NOUNS = {GOALKEEPER: "goalkeepers", DEFENDER: "defenders", MIDFIELDER: "midfielders", FORWARD: "forwards"}


def _goal_points(rules: Ruleset, position: int) -> int:
    return {GOALKEEPER: rules.goalkeeper_goal_pts, DEFENDER: 6, MIDFIELDER: 5, FORWARD: 4}[position]


def _position_rule(kind: Mapping[str, Any]) -> PositionRule:
    return PositionRule(
        position=kind["id"],
        squad=kind["squad_select"],
        play_min=kind["squad_min_play"],
        play_max=kind["squad_max_play"],
    )


def _chip_windows(chips: Any) -> tuple[ChipWindow, ...]:
    if not chips:
        return _CHIPS_UNTIL_2024_25
    return tuple(
        ChipWindow(name=chip["name"], start=chip["start_event"], stop=chip["stop_event"])
        for chip in chips
        if chip["name"] in CHIPS
    )
