"""Random legal squads to start a replay from."""

from typing import Any

import numpy as np

from engine_worker.engines.fpl.collecting import PlayerRow
from engine_worker.engines.fpl.rules import club_violations
from engine_worker.engines.fpl.seasons import Ruleset

# A squad leaves no more than this in the bank, in tenths: nobody keeps five million.
_BANK_MAX = 50
# Players few own are drawn as if so many percent did.
_OWNED_LEAST = 0.2
_DRAWS_MAX = 20_000


class NoSquad(Exception):
    """No legal squad came up: the players given do not make one, or hardly."""


def random_squad(rules: Ruleset, players: list[PlayerRow], seed: list[int]) -> tuple[list[PlayerRow], int]:
    """A squad within the budget, at today's prices, and what is left in the bank. Raises `NoSquad`.

    Players who are fit are drawn by how many managers own them; squads over budget, far below it or with too many of a
    club are drawn again.
    """
    rng = np.random.default_rng(seed)
    fit = [player for player in players if player.status == "a"]
    groups = [[player for player in fit if player.position == rule.position] for rule in rules.positions]
    if any(len(group) < rule.squad for group, rule in zip(groups, rules.positions, strict=True)):
        raise NoSquad("too few players who are fit")
    for _ in range(_DRAWS_MAX):
        squad = [
            one for group, rule in zip(groups, rules.positions, strict=True) for one in _drawn(rng, group, rule.squad)
        ]
        bank = rules.budget - sum(player.now_cost for player in squad)
        if 0 <= bank <= _BANK_MAX and not club_violations(rules, [player.club for player in squad]):
            return squad, bank
    raise NoSquad("no squad within budget and club limit in a great many draws")


def _drawn(rng: Any, group: list[PlayerRow], count: int) -> list[PlayerRow]:
    weight = np.array([player.owned_pct + _OWNED_LEAST for player in group])
    return [group[place] for place in rng.choice(len(group), count, replace=False, p=weight / weight.sum())]
