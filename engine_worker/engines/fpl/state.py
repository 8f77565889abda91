"""A manager's position before a gameweek, rebuilt from the public pages of his entry. PURE.

The public API shows no purchase prices and no free transfers. Both follow from history: what was paid is in the list
of transfers, free transfers from a recursion over the gameweeks. Two replays show how far to trust the result: the
bank and the cost of hits, week by week, against what the API recorded.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from engine_worker.engines.fpl.rules import CHIPS, HIT_COST_PTS, Ruleset, hits, next_free_transfers, selling_price


class Holding(NamedTuple):
    """One owned player; prices in tenths."""

    element: int
    purchase_price: int
    selling_price: int


class Replay(BaseModel):
    """How many past gameweeks were derived again exactly, and which were not."""

    model_config = ConfigDict(frozen=True)

    weeks_checked: int = 0
    weeks_exact: int = 0
    mismatches: list[str] = []


class SquadState(BaseModel):
    """What a plan starts from: 15 holdings, bank in tenths, free transfers, chips that may still be played."""

    model_config = ConfigDict(frozen=True)

    holdings: list[Holding]
    bank: int
    free_transfers: int
    chips: list[str]
    replay: Replay = Replay()

    @property
    def selling_value(self) -> int:
        """What the squad would fetch, in tenths."""
        return sum(holding.selling_price for holding in self.holdings)


class EntryPages(NamedTuple):
    """Bodies of `entry/N/history`, `entry/N/transfers` and the picks of the last gameweek that counts."""

    history: Mapping[str, Any]
    transfers: Sequence[Mapping[str, Any]]
    picks: Mapping[str, Any]


def picks_gameweek(history: Mapping[str, Any], gameweek: int) -> int | None:
    """The gameweek whose picks are the squad before `gameweek`, or None when the entry played none before it.

    A free hit's squad is handed back, so its gameweek does not count.
    """
    free_hits = {chip["event"] for chip in history["chips"] if chip["name"] == "freehit"}
    weeks = [week["event"] for week in history["current"] if week["event"] < gameweek]
    return max((week for week in weeks if week not in free_hits), default=None)


def entry_state(
    rules: Ruleset, elements: Mapping[int, Mapping[str, Any]], pages: EntryPages, gameweek: int
) -> SquadState:
    """The state of an entry before `gameweek`, the next; `elements` are the bootstrap's by id.

    Raises `KeyError` for a player the bootstrap does not have.
    """
    chip_of = {chip["event"]: chip["name"] for chip in pages.history["chips"]}
    moves = [move for move in pages.transfers if chip_of.get(move["event"]) != "freehit" and move["event"] < gameweek]
    paid = _prices_paid(moves)
    owned = [pick["element"] for pick in pages.picks["picks"]]
    bought = {element: paid.get(element, _opening_price(elements[element])) for element in owned}
    weeks = [week for week in pages.history["current"] if week["event"] < gameweek]
    free, hit_mismatches = _replay_free_transfers(rules, weeks, chip_of, gameweek)
    bank_mismatches = _replay_bank(rules, elements, owned, moves, weeks, chip_of)
    wrong = {int(text.split(":")[0][2:]) for text in (*hit_mismatches, *bank_mismatches)}
    return SquadState(
        holdings=holdings(rules, elements, bought),
        bank=pages.picks["entry_history"]["bank"],
        free_transfers=free,
        chips=chips_left(rules, chip_of, gameweek),
        replay=Replay(
            weeks_checked=len(weeks),
            weeks_exact=len(weeks) - len(wrong),
            mismatches=[*hit_mismatches, *bank_mismatches][:20],
        ),
    )


def holdings(rules: Ruleset, elements: Mapping[int, Mapping[str, Any]], bought: Mapping[int, int]) -> list[Holding]:
    """The holdings of players by what was paid for them, ordered by position and id."""
    ordered = sorted(bought, key=lambda element: (elements[element]["element_type"], element))
    return [
        Holding(e, bought[e], selling_price(bought[e], elements[e]["now_cost"], rules.sell_on_fee)) for e in ordered
    ]


def chips_left(rules: Ruleset, played: Mapping[int, str], gameweek: int) -> list[str]:
    """Chips that may be played in `gameweek`, given those played (gameweek → chip)."""
    left = []
    for name in CHIPS:
        window = rules.window(name, gameweek)
        if window and not any(chip == name and window.start <= week <= window.stop for week, chip in played.items()):
            left.append(name)
    return left


def _prices_paid(moves: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """The last price paid for each player ever bought; the list's order is not relied on."""
    return {
        move["element_in"]: move["element_in_cost"] for move in sorted(moves, key=lambda m: (m["event"], m["time"]))
    }


def _opening_price(element: Mapping[str, Any]) -> int:
    return int(element["now_cost"] - element["cost_change_start"])


def _replay_free_transfers(
    rules: Ruleset, weeks: Sequence[Mapping[str, Any]], chip_of: Mapping[int, str], gameweek: int
) -> tuple[int, list[str]]:
    """Free transfers before `gameweek`, and the past gameweeks whose hits they do not explain."""
    free, mismatches = 0, []
    first = weeks[0]["event"] if weeks else gameweek
    for week in weeks:
        event, made, chip = week["event"], week["event_transfers"], chip_of.get(week["event"])
        if event == first or event in rules.unlimited_gameweeks:
            # An entry's first gameweek is its opening squad: unlimited, and worth one free transfer next.
            free = next_free_transfers(rules, event, 0, 0) if event != first else 1
            continue
        owed = HIT_COST_PTS * hits(made, free, chip)
        if owed != week["event_transfers_cost"]:
            mismatches.append(f"GW{event}: hits cost {week['event_transfers_cost']}, the rules say {owed}")
        free = next_free_transfers(rules, event, free, made, chip)
    return free, mismatches


def _replay_bank(
    rules: Ruleset,
    elements: Mapping[int, Mapping[str, Any]],
    owned: Sequence[int],
    moves: Sequence[Mapping[str, Any]],
    weeks: Sequence[Mapping[str, Any]],
    chip_of: Mapping[int, str],
) -> list[str]:
    """Gameweeks whose recorded bank is not what the opening squad and the transfers leave.

    The opening squad is today's with every transfer undone; it cost opening prices, out of the season's budget.
    """
    opening = set(owned)
    for move in sorted(moves, key=lambda m: (m["event"], m["time"]), reverse=True):
        opening = opening - {move["element_in"]} | {move["element_out"]}
    if not weeks or weeks[0]["event"] != 1 or not opening <= elements.keys():
        return []
    bank = rules.budget - sum(_opening_price(elements[element]) for element in opening)
    mismatches = []
    for week in weeks:
        made = [move for move in moves if move["event"] == week["event"]]
        bank += sum(move["element_out_cost"] - move["element_in_cost"] for move in made)
        if chip_of.get(week["event"]) != "freehit" and bank != week["bank"]:
            mismatches.append(f"GW{week['event']}: bank {week['bank']}, the transfers leave {bank}")
    return mismatches
