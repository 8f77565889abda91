"""What only the source's data can refuse: `check(params)`, run at submit. Quick: sources stay loaded per process."""

from collections.abc import Mapping
from typing import Any

from engine_worker.engines.fpl.bookings import Bookings
from engine_worker.engines.fpl.collecting import next_gameweek
from engine_worker.engines.fpl.entries import NoSquadYet, planned_chip, starting_state
from engine_worker.engines.fpl.params import FplParams, PlannedChip
from engine_worker.engines.fpl.rules import (
    chip_problem,
    eleven_violations,
    position_violations,
    spending_limit,
    squad_violations,
)
from engine_worker.engines.fpl.seasons import POSITION_NAMES, Ruleset, UnknownSeason, ruleset
from engine_worker.engines.fpl.source import BrokenSource, NotAtHand, NotThere, Reading
from engine_worker.engines.fpl.sources import UnknownSource, source_named
from engine_worker.engines.fpl.state import SquadState
from phaseline import InvalidParams

Problem = tuple[tuple[str | int, ...], str]
Elements = Mapping[int, Mapping[str, Any]]


def check(params: FplParams) -> None:
    """Raises `InvalidParams` listing everything wrong with `params` given the data of its source.

    A source that would have to ask the network is not waited for: the job looks at the params again when it has the data.
    """
    try:
        examine(params, opened(params, at_hand=True))
    except NotAtHand:
        return
    except BrokenSource as broken:
        raise InvalidParams((("source",), f"cannot be read now: {broken}")) from broken


def opened(params: FplParams, *, at_hand: bool = False) -> Reading:
    """The source the params name. Raises `InvalidParams` for a name this server does not have."""
    try:
        return Reading(source_named(params.source), at_hand=at_hand)
    except UnknownSource as unknown:
        raise InvalidParams((("source",), str(unknown))) from unknown


def examine(params: FplParams, reading: Reading) -> None:
    """As `check`, but lets through what is no fault of the params. Raises `BrokenSource`, `NotAtHand` too."""
    try:
        bootstrap = reading.body("bootstrap-static")
        rules = ruleset(bootstrap)
    except (NotThere, UnknownSeason) as useless:
        raise InvalidParams((("source",), f"has nothing to decide on: {useless}")) from useless
    if problems := _problems(params, reading, bootstrap, rules):
        raise InvalidParams(*problems)


def _problems(params: FplParams, reading: Reading, bootstrap: Mapping[str, Any], rules: Ruleset) -> list[Problem]:
    coming = next_gameweek(bootstrap)
    if coming is None:
        return [(("gameweek",), "the season of this source is over")]
    elements = {element["id"]: element for element in bootstrap["elements"]}
    gameweek = params.gameweek or coming
    problems: list[Problem] = []
    if gameweek < coming:
        problems.append((("gameweek",), f"gameweek {gameweek} is past, the next is {coming}"))
    found = _squad_problems(params, rules, elements, bootstrap, max(gameweek, coming))
    state: SquadState | None = None
    if not found:
        found, state = _state(params, rules, elements, reading, coming)
    problems += found
    names = {team["id"]: team["name"] for team in bootstrap["teams"]}
    if state is not None:
        bookings = Bookings(rules, elements, state, params.booked_transfers, names, max(gameweek, coming))
        problems += bookings.problems()
    problems += _previous_problems(params, rules, elements, coming)
    return problems + _choice_problems(params, rules, elements, state, max(gameweek, coming))


def _squad_problems(
    params: FplParams, rules: Ruleset, elements: Elements, bootstrap: Mapping[str, Any], gameweek: int
) -> list[Problem]:
    if params.squad is None:
        return []
    squad, bank = params.squad, params.bank or 0
    problems: list[Problem] = [
        (("squad", index, "element"), f"no player {player.element} in this source")
        for index, player in enumerate(squad)
        if player.element not in elements or elements[player.element]["element_type"] not in POSITION_NAMES
    ]
    if not problems:
        names = {team["id"]: team["name"] for team in bootstrap["teams"]}
        players = [(elements[p.element]["element_type"], elements[p.element]["team"]) for p in squad]
        problems += [(("squad",), text) for text in squad_violations(rules, players, names)]
    spent, limit = sum(player.purchase_price for player in squad) + bank, spending_limit(rules, gameweek)
    if spent > limit:
        text = f"over budget: purchase prices and bank add up to {spent}, at most {limit} is possible before gameweek"
        problems.append((("squad",), f"{text} {gameweek} (tenths of a million)"))
    return problems


def _state(
    params: FplParams, rules: Ruleset, elements: Elements, reading: Reading, coming: int
) -> tuple[list[Problem], SquadState | None]:
    """Where the plan would start, before booked transfers. More than three of a club are no problem if the game has
    it so: after a real transfer the squad stands until its next transfer."""
    try:
        return [], starting_state(params, rules, elements, reading, coming)
    except NotThere:
        return [(("team_id",), f"this source has no team {params.team_id}")], None
    except NoSquadYet as none:
        return [(("team_id",), f"{none}; give squad instead")], None
    except KeyError as stranger:
        return [(("team_id",), f"team {params.team_id} owns player {stranger}, whom this source does not have")], None


def _previous_problems(params: FplParams, rules: Ruleset, elements: Elements, coming: int) -> list[Problem]:
    """What keeps `previous` from being scored."""
    if (previous := params.previous) is None:
        return []
    problems: list[Problem] = []
    if previous.gameweek != coming - 1:
        text = f"gameweek {previous.gameweek} is not the one before the next, {coming}"
        problems.append((("previous", "gameweek"), text))
    strangers: list[Problem] = [
        (("previous", name, index), f"no player {element} in this source")
        for name in ("starters", "bench")
        for index, element in enumerate(getattr(previous, name))
        if element not in elements
    ]
    if not strangers:
        eleven = [elements[element]["element_type"] for element in previous.starters]
        everyone = eleven + [elements[element]["element_type"] for element in previous.bench]
        strangers += [(("previous", "starters"), text) for text in eleven_violations(rules, eleven)]
        strangers += [(("previous",), text) for text in position_violations(rules, everyone)]
    return problems + strangers


def _denied(params: FplParams, rules: Ruleset, planned: PlannedChip, gameweek: int) -> bool:
    """Whether `available_chips` leaves the chip out. It speaks of the copies of now, not of a window that opens later."""
    window = rules.window(planned.chip, planned.gameweek)
    said = params.available_chips
    return said is not None and planned.chip not in said and window is not None and window.start <= gameweek


def _choice_problems(
    params: FplParams, rules: Ruleset, elements: Elements, state: SquadState | None, gameweek: int
) -> list[Problem]:
    problems: list[Problem] = []
    owned = {holding.element for holding in state.holdings} if state else None
    if owned is not None:
        # The squad of a free hit is handed back: nobody bought with it can be kept.
        undone = planned_chip(params, gameweek) == "freehit"
        booked = set() if undone else {transfer.bought for transfer in params.booked_transfers}
        for index, element in enumerate(params.locked):
            if element not in owned | booked:
                problems.append((("locked", index), f"player {element} is not in the squad"))
    for index, element in enumerate(params.banned):
        if element not in elements:
            problems.append((("banned", index), f"no player {element} in this source"))
    for index, override in enumerate(params.availability_overrides):
        if override.element not in elements:
            text = f"no player {override.element} in this source"
            problems.append((("availability_overrides", index, "element"), text))
        if override.until_gameweek is not None and override.until_gameweek < gameweek:
            text = f"gameweek {override.until_gameweek} is before {gameweek}, the one to decide"
            problems.append((("availability_overrides", index, "until_gameweek"), text))
    problems += _chip_problems(params, rules, state, gameweek)
    if params.free_transfers is not None and params.free_transfers > rules.free_transfers_max:
        text = f"{params.free_transfers} free transfers, this season banks at most {rules.free_transfers_max}"
        problems.append((("free_transfers",), text))
    return problems


def _chip_problems(params: FplParams, rules: Ruleset, state: SquadState | None, gameweek: int) -> list[Problem]:
    problems: list[Problem] = []
    for index, chip in enumerate(params.available_chips or []):
        if refusal := chip_problem(rules, state.played if state else {}, gameweek, chip):
            problems.append((("available_chips", index), refusal))
    played = dict(state.played) if state else {}
    for index, planned in enumerate(params.chip_plan):
        if not gameweek <= planned.gameweek < gameweek + params.horizon:
            text = (
                f"gameweek {planned.gameweek} is not among those planned, {gameweek} and {params.horizon - 1} after it"
            )
            problems.append((("chip_plan", index, "gameweek"), text))
        elif refusal := chip_problem(rules, played, planned.gameweek, planned.chip):
            problems.append((("chip_plan", index), refusal))
        elif _denied(params, rules, planned, gameweek):
            problems.append((("chip_plan", index), f"{planned.chip} is not among available_chips"))
        else:
            played[planned.gameweek] = planned.chip
    return problems
