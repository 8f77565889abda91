"""Where a plan starts: the squad of an entry or of the request, as the source and the request tell it."""

from collections.abc import Mapping
from typing import Any

from engine_worker.engines.fpl.params import BookedTransfer, FplParams
from engine_worker.engines.fpl.replay import replayed
from engine_worker.engines.fpl.rules import (
    UNLIMITED_CHIPS,
    chips_left,
    club_violations,
    costs_nothing,
    hit_cost,
    next_free_transfers,
)
from engine_worker.engines.fpl.seasons import Ruleset
from engine_worker.engines.fpl.source import BrokenSource, NotThere, Reading
from engine_worker.engines.fpl.state import (
    EntryPages,
    Holding,
    Replay,
    SquadState,
    entry_state,
    holdings,
    opening_squad,
    picks_gameweek,
)

Elements = Mapping[int, Mapping[str, Any]]


class NoSquadYet(LookupError):
    """The entry has picked no squad before the gameweek asked about."""


def entry_pages(reading: Reading, team_id: int, coming: int) -> EntryPages:
    """The pages an entry's state before `coming`, the next gameweek, is rebuilt from.

    Raises `NotThere` for an unknown entry, `NoSquadYet`, and `BrokenSource` while the gameweek under way is missing.
    """
    history = reading.body(f"entry/{team_id}/history")
    weeks = [week["event"] for week in history["current"] if week["event"] < coming]
    picked = picks_gameweek(history, coming)
    if picked is None:
        raise NoSquadYet(f"team {team_id} has no squad before gameweek {coming}")
    if max(weeks) < coming - 1:
        text = f"entry/{team_id}: its pages end with gameweek {max(weeks)}, gameweek {coming - 1} is not there yet"
        raise BrokenSource(text)
    try:
        picks = reading.body(f"entry/{team_id}/event/{picked}/picks")
        pages = EntryPages(history, reading.body(f"entry/{team_id}/transfers"), picks)
    except NotThere as missing:
        raise BrokenSource(f"{missing} is not there, though the entry's history is") from missing
    if min(weeks) > 1:
        return pages._replace(first_prices=_first_prices(reading, opening_squad(pages, coming), min(weeks)))
    return pages


def starting_state(params: FplParams, rules: Ruleset, elements: Elements, reading: Reading, coming: int) -> SquadState:
    """The state before `params.gameweek` and before booked transfers; gameweeks from `coming`, the next, to it are rolled.

    Raises as `entry_pages`, but `NoSquadYet` only where no squad can be built from the whole budget: after the first gameweek.
    """
    gameweek = params.gameweek or coming
    if params.squad is not None:
        bought = {player.element: player.purchase_price for player in params.squad}
        return SquadState(
            holdings=holdings(rules, elements, bought),
            bank=params.bank or 0,
            free_transfers=params.free_transfers or 0,
            chips=list(params.available_chips or []),
        )
    assert params.team_id is not None
    try:
        pages = entry_pages(reading, params.team_id, coming)
    except NoSquadYet:
        # Only where its first transfers are unlimited is a squad nobody picked as good as any other.
        if coming not in rules.unlimited_gameweeks or gameweek != coming:
            raise
        state = cheapest_squad(rules, elements, coming)
    else:
        state = entry_state(rules, elements, pages, coming, replayed(rules, elements, pages, coming))
    free = state.free_transfers
    for week in range(coming, gameweek):
        free = next_free_transfers(rules, week, free, 0)
    chips, asked = chips_left(rules, state.played, gameweek), params.available_chips
    changes = {
        "free_transfers": free if params.free_transfers is None else params.free_transfers,
        "chips": chips if asked is None else list(asked),
    }
    return state.model_copy(update=changes)


def booked_states(
    params: FplParams, rules: Ruleset, elements: Elements, state: SquadState, gameweek: int
) -> tuple[SquadState, dict[str, SquadState]]:
    """The state after booked transfers, and what it is instead if one of these chips is played in `gameweek`.

    Source of the rule: the game's help, "Chips". A wildcard makes what was transferred earlier in its gameweek free as
    well; a free hit hands back the squad from the start of its gameweek.
    """
    asked, made = planned_chip(params, gameweek), params.booked_transfers
    after = booked(rules, elements, state, made, gameweek, asked)
    if not made or asked is not None:
        return after, {}
    instead = {}
    for chip in UNLIMITED_CHIPS:
        if chip in state.chips:
            other = booked(rules, elements, state, made, gameweek, chip)
            instead[chip] = other.model_copy(update={"given_back": after.booked_hit_cost})
    return after, instead


def planned_chip(params: FplParams, gameweek: int) -> str | None:
    """The chip asked for in `gameweek`."""
    return next((planned.chip for planned in params.chip_plan if planned.gameweek == gameweek), None)


def cheapest_squad(rules: Ruleset, elements: Elements, gameweek: int) -> SquadState:
    """A legal squad for as little as possible, with the rest of the budget in the bank: where a new entry starts.

    Transfers of its first gameweek are unlimited, so any squad the budget allows can be reached from it.
    """
    bought: dict[int, int] = {}
    clubs: list[int] = []
    for rule in rules.positions:
        group = [e for e in elements.values() if e["element_type"] == rule.position and e["status"] not in ("u", "n")]
        for element in sorted(group, key=lambda e: (e["now_cost"], e["id"])):
            count = sum(elements[one]["element_type"] == rule.position for one in bought)
            if count < rule.squad and not club_violations(rules, [*clubs, element["team"]]):
                bought[element["id"]] = element["now_cost"]
                clubs.append(element["team"])
    return SquadState(
        holdings=holdings(rules, elements, bought),
        bank=rules.budget - sum(bought.values()),
        free_transfers=0,
        chips=chips_left(rules, {}, gameweek),
        replay=Replay(),
    )


def booked(
    rules: Ruleset,
    elements: Elements,
    state: SquadState,
    transfers: list[BookedTransfer],
    gameweek: int,
    chip: str | None = None,
) -> SquadState:
    """The state after transfers already made for `gameweek`: their hits are paid, whatever is decided now.

    With a wildcard they cost nothing and no free transfer. Those of a free hit are undone after the gameweek, and until
    its deadline they may be made otherwise: the squad is the one that comes back.
    """
    if chip == "freehit":
        return state
    owned, bank = {holding.element: holding for holding in state.holdings}, state.bank
    for transfer in transfers:
        price = int(elements[transfer.bought]["now_cost"])
        bank += owned.pop(transfer.sold).selling_price - price
        owned[transfer.bought] = Holding(transfer.bought, price, price)
    free, cost = state.free_transfers, hit_cost(rules, gameweek, state.free_transfers, len(transfers), chip)
    if not costs_nothing(rules, gameweek, chip):
        free = max(free - len(transfers), 0)
    ordered = sorted(owned.values(), key=lambda h: (elements[h.element]["element_type"], h.element))
    changes = {"holdings": ordered, "bank": bank, "free_transfers": free, "booked_hit_cost": cost}
    return state.model_copy(update=changes)


def _first_prices(reading: Reading, opening: set[int], gameweek: int) -> dict[int, int]:
    """What the opening squad of an entry that joined in `gameweek` cost then, from the players' own pages.

    Of a player without a match in it the price at his match before counts. A source without those pages gives nothing.
    """
    prices = {}
    for element in sorted(opening):
        try:
            rows = reading.body(f"element-summary/{element}")["history"]
        except NotThere:
            continue
        before = [row for row in rows if row["round"] <= gameweek] or rows[:1]
        if before:
            prices[element] = int(max(before, key=lambda row: row["round"])["value"])
    return prices
