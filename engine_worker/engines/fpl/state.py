"""A manager's position before a gameweek, rebuilt from the public pages of his entry. PURE.

The public API shows no purchase prices and no free transfers. Both follow from history: what was paid is in the list
of transfers, free transfers from a recursion over the gameweeks. `replay.py` shows how far to trust the result.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from engine_worker.engines.fpl.params import SQUAD_SIZE
from engine_worker.engines.fpl.rules import chips_left, next_free_transfers, selling_price
from engine_worker.engines.fpl.seasons import Ruleset


class Holding(NamedTuple):
    """One owned player; prices in tenths."""

    element: int
    purchase_price: int
    selling_price: int


class Replay(BaseModel):
    """The replay certificate: how many past gameweeks were derived again exactly, and which were not."""

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
    # Gameweek → chip, of all chips played so far.
    played: dict[int, str] = {}
    # Points that transfers already made for the gameweek have cost.
    booked_hit_cost: int = 0
    # What they would have cost without the chip that this state begins with.
    given_back: int = 0
    replay: Replay = Replay()

    @property
    def selling_value(self) -> int:
        """What the squad would fetch, in tenths."""
        return sum(holding.selling_price for holding in self.holdings)


class EntryPages(NamedTuple):
    """Bodies of `entry/N/history`, `entry/N/transfers` and the picks of the last gameweek that counts.

    `first_prices` are those of an entry that joined after the first gameweek: element → price at its first deadline.
    """

    history: Mapping[str, Any]
    transfers: Sequence[Mapping[str, Any]]
    picks: Mapping[str, Any]
    first_prices: Mapping[int, int] = {}


def chips_played(history: Mapping[str, Any]) -> dict[int, str]:
    """Gameweek → chip."""
    return {chip["event"]: chip["name"] for chip in history["chips"]}


def picks_gameweek(history: Mapping[str, Any], gameweek: int) -> int | None:
    """The gameweek whose picks are the squad before `gameweek`, or None when the entry played none before it.

    A free hit's squad is handed back, so its gameweek does not count.
    """
    played = chips_played(history)
    weeks = [week["event"] for week in history["current"] if week["event"] < gameweek]
    return max((week for week in weeks if played.get(week) != "freehit"), default=None)


def lasting_moves(pages: EntryPages, gameweek: int) -> list[Mapping[str, Any]]:
    """Transfers before `gameweek` in the order they were made, without those a free hit undid."""
    played = chips_played(pages.history)
    moves = [move for move in pages.transfers if move["event"] < gameweek and played.get(move["event"]) != "freehit"]
    return sorted(moves, key=lambda move: (move["event"], move["time"]))


def opening_squad(pages: EntryPages, gameweek: int) -> set[int]:
    """The squad of the entry's first gameweek: the last one with every transfer undone."""
    squad = set(_picked(pages))
    for move in reversed(lasting_moves(pages, gameweek)):
        squad = squad - {move["element_in"]} | {move["element_out"]}
    return squad


def _picked(pages: EntryPages) -> list[int]:
    """The squad; the assistant manager of 2024/25 has a place of his own after it, and is gone when his chip is over."""
    return [pick["element"] for pick in pages.picks["picks"] if pick["position"] <= SQUAD_SIZE]


def first_price(elements: Mapping[int, Mapping[str, Any]], pages: EntryPages, element: int) -> int:
    """What a player of the opening squad cost. Raises `KeyError` for a player the bootstrap does not have."""
    known = elements[element]
    return pages.first_prices.get(element, int(known["now_cost"] - known["cost_change_start"]))


def prices_paid(elements: Mapping[int, Mapping[str, Any]], pages: EntryPages, gameweek: int) -> dict[int, int]:
    """Owned element → purchase price. Raises `KeyError` for a player the bootstrap does not have."""
    paid = {move["element_in"]: move["element_in_cost"] for move in lasting_moves(pages, gameweek)}
    return {
        element: paid[element] if element in paid else first_price(elements, pages, element)
        for element in _picked(pages)
    }


def free_transfers_by_week(rules: Ruleset, history: Mapping[str, Any], gameweek: int) -> dict[int, int]:
    """Free transfers at the start of each of the entry's gameweeks before `gameweek`, and of the one after them."""
    played = chips_played(history)
    weeks = [week for week in history["current"] if week["event"] < gameweek]
    free: dict[int, int] = {}
    for index, week in enumerate(weeks):
        event = week["event"]
        before = free.setdefault(event, 0)
        # An entry's first gameweek is its opening squad, whenever that is: unlimited, and one free transfer next.
        after = next_free_transfers(rules, event, before, week["event_transfers"], played.get(event))
        free[event + 1] = 1 if index == 0 and event + 1 not in rules.topped_up else after
    return free


def entry_state(
    rules: Ruleset, elements: Mapping[int, Mapping[str, Any]], pages: EntryPages, gameweek: int, replay: Replay
) -> SquadState:
    """The state of an entry before `gameweek`, the next; `elements` are the bootstrap's by id.

    Raises `KeyError` for a player the bootstrap does not have.
    """
    played = chips_played(pages.history)
    return SquadState(
        holdings=holdings(rules, elements, prices_paid(elements, pages, gameweek)),
        bank=pages.picks["entry_history"]["bank"],
        free_transfers=free_transfers_by_week(rules, pages.history, gameweek).get(gameweek, 0),
        chips=chips_left(rules, played, gameweek),
        played=played,
        replay=replay,
    )


def holdings(rules: Ruleset, elements: Mapping[int, Mapping[str, Any]], bought: Mapping[int, int]) -> list[Holding]:
    """The holdings of players by what was paid for them, ordered by position and id."""
    ordered = sorted(bought, key=lambda element: (elements[element]["element_type"], element))
    return [
        Holding(e, bought[e], selling_price(bought[e], elements[e]["now_cost"], rules.sell_on_fee)) for e in ordered
    ]
