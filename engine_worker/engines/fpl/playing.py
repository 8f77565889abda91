"""Who plays, and for how long: what fitted models say of each player, moved by how his club and league use players now.

PURE. What the models are told is in `features.py`.
"""

from collections.abc import Iterable, Mapping
from math import exp
from typing import NamedTuple

from engine_worker.engines.fpl.chances import chances
from engine_worker.engines.fpl.collecting import Collected, PlayerRow
from engine_worker.engines.fpl.features import features, log_odds
from engine_worker.engines.fpl.fitted import Fitted
from engine_worker.engines.fpl.staying import LATELY, group_of

# Share of an absentee's missing chance that returns with every further gameweek. A guess: news say little.
RECOVERY = 0.3
# Most suspensions are for one match.
_AFTER_SUSPENSION = 0.9
# Below it a chance is nothing and is not moved when a club's chances are made to add up.
_NONE = 1e-3
# Players a club fields in a match, before it has played one: eleven and most of five substitutes.
_FIELDED = 14.5
_PULLED_MAX = 2.0
_HALVINGS = 30
# Players of past seasons that the first ones of this season are counted with.
_STAYED_BEFORE = 200


class Attendance(NamedTuple):
    """The chance that a player plays in a match, and that he is on for an hour if he does."""

    p_play: float
    p_60_if_plays: float


def attendances(collected: Collected, fitted: Fitted) -> dict[tuple[int, int], Attendance]:
    """(element, gameweek) → how he is expected to be used in a match of that gameweek."""
    found: dict[tuple[int, int], Attendance] = {}
    raw = list(_raw(collected, fitted))
    for offset, gameweek in enumerate(collected.gameweeks):
        chance = {}
        for player, fit, now, _ in raw:
            told = _overridden(player, offset, gameweek)
            chance[player.element] = _then(player, fit, now, collected.ahead + offset) if told is None else fit * told
        said = {player.element for player, *_ in raw if _overridden(player, offset, gameweek) is not None}
        moved = pulled(collected, chance, fitted.club_pull, said)
        for player, _, _, hour in raw:
            found[player.element, gameweek] = Attendance(moved[player.element], hour)
    return found


def _raw(collected: Collected, fitted: Fitted) -> Iterable[tuple[PlayerRow, float, float, float]]:
    """Each player with the chance that he plays if nothing is wrong with him, the one as it stands, and that of an hour."""
    players, now, fit = zip(*features(collected), strict=True)
    drift = drifts(collected, fitted.stay)
    plays = (
        [drifted(chance, player, drift) for chance, player in zip(chances(fitted.plays, rows), players, strict=True)]
        for rows in (fit, now)
    )
    return zip(players, *plays, chances(fitted.an_hour, now), strict=True)


def drifts(collected: Collected, usual: Mapping[int, float]) -> dict[int, float]:
    """Group of `staying.py` → by how much its log-odds of playing again are above those of the seasons fitted on."""
    found = {}
    for group, share in usual.items():
        asked, came = collected.stayed.get(group, (0, 0))
        found[group] = log_odds((came + _STAYED_BEFORE * share) / (asked + _STAYED_BEFORE)) - log_odds(share)
    return found


def drifted(chance: float, player: PlayerRow, drift: Mapping[int, float]) -> float:
    """The chance of a player as his group plays now."""
    group = group_of(player.scores[:LATELY])
    return _shifted(chance, drift.get(group, 0.0)) if group else chance


def _shifted(chance: float, by: float) -> float:
    """A chance moved on its log-odds."""
    return 1 / (1 + exp(-log_odds(chance) - by)) if by else chance


def _overridden(player: PlayerRow, offset: int, gameweek: int) -> float | None:
    if player.override is None:
        return None
    chance, until = player.override
    return chance if offset == 0 or (until is not None and gameweek <= until) else None


def _then(player: PlayerRow, fit: float, now: float, offset: int) -> float:
    """The chance that he plays `offset` gameweeks after the next one."""
    if player.status in ("u", "n"):
        return 0.0
    if player.status == "s":
        return fit * _AFTER_SUSPENSION if offset else 0.0
    return fit + (min(now, fit) - fit) * (1 - RECOVERY) ** offset if player.status != "a" else now


def pulled(
    collected: Collected, chance: Mapping[int, float], share: float, said: Iterable[int] = ()
) -> dict[int, float]:
    """Chances moved, on the log-odds of each club's players, towards the number of players their club has been fielding.

    Who is out leaves his place to clubmates; and leagues differ in how many substitutes come on. `said` are left alone.
    """
    kept, by_club = set(said), dict[int, list[int]]()
    for player in collected.players:
        by_club.setdefault(player.club, []).append(player.element)
    found = dict(chance)
    for club, elements in by_club.items():
        wanted = collected.fielded.get(club, _FIELDED)
        odds = [log_odds(chance[e]) for e in elements if chance[e] > _NONE and e not in kept]
        if not odds:
            continue
        fixed = sum(chance[e] for e in elements if e in kept)
        low, high = -_PULLED_MAX, _PULLED_MAX
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if sum(1 / (1 + exp(-one - middle)) for one in odds) + fixed < wanted:
                low = middle
            else:
                high = middle
        for element in elements:
            if chance[element] > _NONE and element not in kept:
                found[element] = _shifted(chance[element], share * low)
    return found
