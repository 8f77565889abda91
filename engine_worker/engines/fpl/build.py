"""From what was collected and projected to the `Problem` a request asks about. PURE."""

from collections.abc import Sequence
from dataclasses import replace

from engine_worker.engines.fpl.collecting import Collected
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.problem import ChipCopy, Problem, Worth
from engine_worker.engines.fpl.projections import ProjectionRow
from engine_worker.engines.fpl.rules import chip_problem, copies_fit
from engine_worker.engines.fpl.seasons import CHIPS, ChipWindow

# How much is asked of a hit, and how dear a saved transfer is, by posture: a careful manager wants more for a hit.
POSTURES = {
    "conservative": Worth(hit_margin=6.0, free_transfer=1.5),
    "balanced": Worth(hit_margin=3.0, free_transfer=1.2),
    "aggressive": Worth(hit_margin=1.5, free_transfer=0.9),
}
# What a chip brings when there is time to wait for its gameweek: a double for a captain or a bench, a blank for a free
# hit. Set by hand; the part of it given up by playing now grows with the gameweeks that are left after the horizon.
CHIP_PATIENCE_PTS = {"wildcard": 16.0, "freehit": 14.0, "bboost": 13.0, "3xc": 9.0}
_PATIENCE_DECAY = 0.75


def build_problem(collected: Collected, rows: Sequence[ProjectionRow], params: FplParams) -> Problem:
    """The problem over the players that have `rows`, the owned among them."""
    xp: dict[int, dict[int, float]] = {gameweek: {} for gameweek in collected.gameweeks}
    for row in rows:
        xp[row.gameweek][row.element] = row.xp
    selling = {holding.element: holding.selling_price for holding in collected.squad.holdings}
    projected = xp[collected.gameweeks[0]]
    pool = sorted((player for player in collected.players if player.element in projected), key=lambda p: p.element)
    planned = _planned(params)
    problem = Problem(
        rules=collected.rules,
        gameweeks=tuple(collected.gameweeks),
        elements=tuple(player.element for player in pool),
        position={player.element: player.position for player in pool},
        club={player.element: player.club for player in pool},
        cost={player.element: player.now_cost for player in pool},
        selling=selling,
        xp=xp,
        bank=collected.squad.bank,
        free_transfers=collected.squad.free_transfers,
        max_hits=params.max_hits,
        locked=frozenset(params.locked),
        banned=frozenset(params.banned),
        chips=_copies(collected, params),
        played={i: planned[week] for i, week in enumerate(collected.gameweeks) if week in planned},
        worth=POSTURES[params.risk_posture],
    )
    return _with_other_beginnings(problem, collected)


def _with_other_beginnings(problem: Problem, collected: Collected) -> Problem:
    """The problem, with those of the plans that begin with a chip which makes something else of booked transfers."""
    instead: dict[str, Problem] = {}
    for chip, squad in collected.instead.items():
        selling = {holding.element: holding.selling_price for holding in squad.holdings}
        # Who must stay and was bought by a transfer that the chip undoes: it cannot be played now.
        if problem.locked <= selling.keys() and problem.first_copy(chip) is not None:
            instead[chip] = problem.beginning_with(
                chip,
                selling=selling,
                bank=squad.bank,
                free_transfers=squad.free_transfers,
                given_back=float(squad.given_back),
            )
    shut = collected.instead.keys() - instead.keys()
    return replace(problem.keeping(lambda copy, week: week > 0 or copy.name not in shut), instead=instead)


def kept_worth(window: ChipWindow, last_gameweek: int) -> float:
    """What a copy is worth after the horizon: nothing when its window ends with it."""
    after = max(window.stop - last_gameweek, 0)
    return CHIP_PATIENCE_PTS[window.name] * (1 - _PATIENCE_DECAY**after)


def _copies(collected: Collected, params: FplParams) -> tuple[ChipCopy, ...]:
    """The copies left, and those of a window that opens within the horizon: nobody can have played them yet."""
    gameweeks, left, planned = collected.gameweeks, set(collected.squad.chips), _planned(params)
    played, rules = collected.squad.played, collected.rules
    copies = []
    # Where windows overlap, each copy played before takes one away whichever it was.
    taken = {name: [week for week, chip in played.items() if chip == name] for name in CHIPS}
    for window in rules.chips:
        weeks = tuple(
            index
            for index, week in enumerate(gameweeks)
            if window.start <= week <= window.stop and chip_problem(rules, played, week, window.name) is None
        )
        now = window.start <= gameweeks[0]
        known = window.name in left if now else params.available_chips is None and params.team_id is not None
        asked = any(planned.get(gameweeks[index]) == window.name for index in weeks)
        if weeks and (known or asked) and copies_fit(rules, window.name, [*taken[window.name], gameweeks[weeks[0]]]):
            taken[window.name].append(gameweeks[weeks[0]])
            copies.append(ChipCopy(window.name, weeks, round(kept_worth(window, gameweeks[-1]), 4)))
    return tuple(copies)


def _planned(params: FplParams) -> dict[int, str]:
    return {planned.gameweek: planned.chip for planned in params.chip_plan}
