"""The players a plan may use: about a hundred of the six hundred for sale. PURE."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from engine_worker.engines.fpl.collecting import Collected, PlayerRow
from engine_worker.engines.fpl.projections import Projected, project
from engine_worker.engines.fpl.seasons import DEFENDER, FORWARD, GOALKEEPER, MIDFIELDER

# Players kept by position: so many best over the horizon, best for their price, and best in any one
# gameweek. The pool of about a hundred had the optimum of all 600 on every squad measured; one of 65 had not.
_POOL = {GOALKEEPER: (8, 6, 6), DEFENDER: (25, 12, 12), MIDFIELDER: (28, 12, 12), FORWARD: (16, 8, 8)}
# A gameweek further off counts for this much less in choosing them.
_DECAY = 0.9


def project_pool(collected: Collected) -> Projected:
    """Projections of the pool only: what is recorded stays small, and nothing later needs the others."""
    projected = project(collected)
    xp: dict[int, dict[int, float]] = {gameweek: {} for gameweek in collected.gameweeks}
    for row in projected.rows:
        xp[row.gameweek][row.element] = row.xp
    states = (collected.squad, *collected.instead.values())
    owned = {holding.element for state in states for holding in state.holdings}
    kept = {player.element for player in cut_pool(collected.players, list(xp.values()), owned)}
    return projected.model_copy(update={"rows": [row for row in projected.rows if row.element in kept]})


def cut_pool(players: Sequence[PlayerRow], xp: Sequence[Mapping[int, float]], owned: set[int]) -> list[PlayerRow]:
    """The owned, and the players of each position that `_POOL` keeps, with the two cheapest; by element.

    `xp` has one mapping from element to points for each gameweek of the horizon.
    """
    total = {p.element: sum(_DECAY**i * week[p.element] for i, week in enumerate(xp)) for p in players}
    kept = set(owned)
    for position, (best, value, once) in _POOL.items():
        group = [player for player in players if player.position == position]
        kept |= _top(group, best, lambda p: total[p.element])
        kept |= _top(group, value, lambda p: total[p.element] / p.now_cost)
        kept |= _top(group, 2, lambda p: -p.now_cost + 0.01 * total[p.element])
        for week in xp:
            kept |= _top(group, once, partial(_points_in, week))
    return sorted((player for player in players if player.element in kept), key=lambda p: p.element)


def _points_in(week: Mapping[int, float], player: PlayerRow) -> float:
    return week[player.element]


def _top(group: Sequence[PlayerRow], count: int, key: Callable[[PlayerRow], float]) -> set[int]:
    ranked = sorted(group, key=lambda player: (-key(player), player.element))
    return {player.element for player in ranked[:count]}
