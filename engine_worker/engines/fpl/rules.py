"""What the rules allow: prices, free transfers, chips, squads and elevens. PURE; the numbers are in `seasons.py`.

Money is an int in tenths of a million pounds, points are ints unless they are expectations.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from engine_worker.engines.fpl.seasons import CHIPS, DEFENDER, FORWARD, GOALKEEPER, MIDFIELDER, Ruleset

# Chips that suspend the count of transfers for their gameweek.
UNLIMITED_CHIPS = ("wildcard", "freehit")
# No squad is known to have grown by more than about three tenths a gameweek over a season; five leaves room for
# a record and still catches prices typed in the wrong unit.
PROFIT_PER_GAMEWEEK_MAX = 5
_NOUNS = {GOALKEEPER: "goalkeepers", DEFENDER: "defenders", MIDFIELDER: "midfielders", FORWARD: "forwards"}


def selling_price(purchase_price: int, now_cost: int, fee: float = 0.5) -> int:
    """What a player sells for, in tenths: the fee takes half of any rise, rounded against the seller.

    Source: rules page, "Player prices"; the same for every season. A player who fell sells for what he costs now.
    """
    rise = now_cost - purchase_price
    return now_cost if rise <= 0 else purchase_price + int(rise * (1 - fee) + 1e-9)


def costs_nothing(rules: Ruleset, gameweek: int, chip: str | None = None) -> bool:
    """Whether no transfer of `gameweek` costs points."""
    return chip in UNLIMITED_CHIPS or gameweek in rules.unlimited_gameweeks or gameweek in rules.free_of_charge


def hits(made: int, free: int) -> int:
    """Transfers beyond the free ones."""
    return max(0, made - free)


def hit_cost(rules: Ruleset, gameweek: int, free: int, made: int, chip: str | None = None) -> int:
    """Points taken for `made` transfers in a gameweek that began with `free`."""
    return 0 if costs_nothing(rules, gameweek, chip) else rules.hit_cost * hits(made, free)


def next_free_transfers(rules: Ruleset, gameweek: int, free: int, made: int, chip: str | None = None) -> int:
    """Free transfers at the start of the gameweek after `gameweek`, which began with `free` and saw `made`."""
    if gameweek + 1 in rules.topped_up:
        return rules.topped_up[gameweek + 1]
    if gameweek in rules.unlimited_gameweeks:
        return 1
    if chip in UNLIMITED_CHIPS:
        return 1 if rules.chip_resets_free_transfers else free
    return min(rules.free_transfers_max, max(free - made, 0) + 1)


def chips_left(rules: Ruleset, played: Mapping[int, str], gameweek: int) -> list[str]:
    """Chips that may be played in `gameweek`, given those played in other gameweeks (gameweek → chip)."""
    return [name for name in CHIPS if chip_problem(rules, played, gameweek, name) is None]


def chip_problem(rules: Ruleset, played: Mapping[int, str], gameweek: int, chip: str) -> str | None:
    """Why `chip` may not be played in `gameweek`; None when it may. `played` is as for `chips_left`."""
    if rules.window(chip, gameweek) is None:
        return f"{chip} may not be played in gameweek {gameweek}"
    if gameweek in played:
        return f"{played[gameweek]} is played in gameweek {gameweek}, one chip a gameweek"
    before = sorted(week for week, name in played.items() if name == chip)
    if not copies_fit(rules, chip, [*before, gameweek]):
        return f"{chip} is used: played in gameweek {', '.join(map(str, before))}"
    if chip == "freehit" and rules.free_hits_apart:
        beside = [week for week in before if abs(week - gameweek) == 1]
        if beside:
            return f"no free hit in consecutive gameweeks: one is played in gameweek {beside[0]}"
    return None


def copies_fit(rules: Ruleset, chip: str, gameweeks: Iterable[int]) -> bool:
    """Whether each gameweek finds a copy of its own. The copy that is lost first goes first, which is always best."""
    left = sorted((w for w in rules.chips if w.name == chip), key=lambda w: w.stop)
    for gameweek in sorted(gameweeks):
        copy = next((w for w in left if w.start <= gameweek <= w.stop), None)
        if copy is None:
            return False
        left.remove(copy)
    return True


def squad_violations(
    rules: Ruleset, players: Sequence[tuple[int, int]], club_names: Mapping[int, str] | None = None
) -> list[str]:
    """What the rules hold against a squad given as (position, club) of each player; empty when it is legal."""
    return [
        *position_violations(rules, [position for position, _ in players]),
        *club_violations(rules, [club for _, club in players], club_names),
    ]


def position_violations(rules: Ruleset, positions: Sequence[int]) -> list[str]:
    """What the rules hold against the number of players and of each position."""
    found = []
    if len(positions) != rules.squad_size:
        found.append(f"{len(positions)} players, the rules ask for {rules.squad_size}")
    count = Counter(positions)
    for rule in rules.positions:
        if (number := count[rule.position]) != rule.squad:
            verb = "allow" if number > rule.squad else "ask for"
            found.append(f"{number} {_NOUNS[rule.position]}, the rules {verb} {rule.squad}")
    return found


def club_violations(rules: Ruleset, clubs: Sequence[int], club_names: Mapping[int, str] | None = None) -> list[str]:
    """Clubs with more players than a squad may buy."""
    found = []
    for club, count in sorted(Counter(clubs).items()):
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
