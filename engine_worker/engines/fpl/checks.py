"""What only the source's data can refuse: `check(params)`, run at submit. Quick: sources stay loaded per process."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from engine_worker.engines.fpl.collecting import entry_pages, has_entry, next_gameweek
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.rules import POSITION_NAMES, Ruleset, ruleset, spending_limit, squad_violations
from engine_worker.engines.fpl.sources import BrokenSource, NotThere, Reading, UnknownSource, source_named
from phaseline import InvalidParams

Problem = tuple[tuple[str | int, ...], str]


def check(params: FplParams) -> None:
    """Raises `InvalidParams` listing everything wrong with `params` given the data of its source."""
    try:
        examine(params)
    except (BrokenSource, NotThere) as broken:
        raise InvalidParams((("source",), f"cannot be read now: {broken}")) from broken


def examine(params: FplParams) -> None:
    """As `check`, but lets through what is no fault of the params. Raises `BrokenSource`, `NotThere` too."""
    try:
        reading = Reading(source_named(params.source))
    except UnknownSource as unknown:
        raise InvalidParams((("source",), str(unknown))) from unknown
    if problems := _problems(params, reading, reading.body("bootstrap-static")):
        raise InvalidParams(*problems)


def _problems(params: FplParams, reading: Reading, bootstrap: Mapping[str, Any]) -> list[Problem]:
    coming = next_gameweek(bootstrap)
    if coming is None:
        return [(("gameweek",), "the season of this source is over")]
    rules = ruleset(bootstrap)
    elements = {element["id"]: element for element in bootstrap["elements"]}
    gameweek = params.gameweek or coming
    problems: list[Problem] = []
    if gameweek < coming:
        problems.append((("gameweek",), f"gameweek {gameweek} is past, the next is {coming}"))
    owned: set[int] = set()
    if params.squad is not None:
        owned = {player.element for player in params.squad}
        problems += _squad_problems(params, rules, elements, bootstrap, max(gameweek, coming))
    elif params.team_id is not None:
        found, owned = _entry_problems(params.team_id, reading, coming, elements.keys())
        problems += found
    problems += _choice_problems(params, rules, elements, owned, gameweek)
    return problems


def _squad_problems(
    params: FplParams,
    rules: Ruleset,
    elements: Mapping[int, Mapping[str, Any]],
    bootstrap: Mapping[str, Any],
    gameweek: int,
) -> list[Problem]:
    squad, bank = params.squad or [], params.bank or 0
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


def _entry_problems(
    team_id: int, reading: Reading, coming: int, known: AbstractSet[int]
) -> tuple[list[Problem], set[int]]:
    if not has_entry(reading, team_id):
        return [(("team_id",), f"this source has no team {team_id}")], set()
    try:
        pages = entry_pages(reading, team_id, coming)
    except NotThere:
        return [(("team_id",), f"team {team_id} has no squad before gameweek {coming}; give squad instead")], set()
    owned = {pick["element"] for pick in pages.picks["picks"]}
    if strangers := sorted(owned - known):
        return [(("team_id",), f"team {team_id} owns players this source does not have: {strangers}")], owned
    return [], owned


def _choice_problems(
    params: FplParams,
    rules: Ruleset,
    elements: Mapping[int, Mapping[str, Any]],
    owned: set[int],
    gameweek: int,
) -> list[Problem]:
    problems: list[Problem] = []
    for index, element in enumerate(params.locked):
        if owned and element not in owned:
            problems.append((("locked", index), f"player {element} is not in the squad"))
    for index, element in enumerate(params.banned):
        if element not in elements:
            problems.append((("banned", index), f"no player {element} in this source"))
    for index, chip in enumerate(params.available_chips or []):
        if rules.window(chip, gameweek) is None:
            problems.append((("available_chips", index), f"{chip} may not be played in gameweek {gameweek}"))
    if params.free_transfers is not None and params.free_transfers > rules.free_transfers_max:
        text = f"{params.free_transfers} free transfers, this season banks at most {rules.free_transfers_max}"
        problems.append((("free_transfers",), text))
    return problems
