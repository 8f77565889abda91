"""What the API says of players beside what they did: its indices, the crowd of managers, and everybody's rank in each. PURE.

Sizes are those of 2023/24: threat to a goal and creativity to an assist of each position, transfers of a gameweek two days before
its deadline, and how much more often managers take a player in form and drop one who is out.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import exp
from random import Random
from typing import Any, NamedTuple

from engine_worker.engines.fpl.seasons import DEFENDER, FORWARD, GOALKEEPER, MIDFIELDER

# Index points to an expected goal and to an expected assist, which come easier here than goals and assists do.
_THREAT = {GOALKEEPER: 80, DEFENDER: 101, MIDFIELDER: 78, FORWARD: 57}
_CREATIVITY = {GOALKEEPER: 60, DEFENDER: 114, MIDFIELDER: 94, FORWARD: 62}
# … and to a point of the bonus score.
_INFLUENCE = 1.3
# Transfers of all managers together in a gameweek.
_TRANSFERS = 4_800_000
# Beside a fit player as many owners have, how often one of each status is taken and dropped.
_TAKEN = {"a": 1.0, "d": 0.7, "i": 0.06, "s": 0.2}
_DROPPED = {"a": 1.0, "d": 2.0, "i": 4.0, "s": 5.0}
# Points of form that make a player e times as wanted, or as much less often dropped.
_WANTED, _KEPT = 4.0, 7.0
_NOBODY = 0.02
# Field → what the API calls its rank.
_RANKED = {
    "now_cost": "now_cost", "form": "form", "points_per_game": "points_per_game", "selected_by_percent": "selected",
    "influence": "influence", "creativity": "creativity", "threat": "threat", "ict_index": "ict_index",
}  # fmt: skip


class Luck(NamedTuple):
    """What chance makes of a player's indices, and of how many take and drop him: factors."""

    threat: float
    creativity: float
    influence: float
    taken: float
    dropped: float


# How far each factor spreads, as a standard deviation of its logarithm.
_SPREADS = Luck(0.15, 0.15, 0.1, 0.6, 0.4)


def luck(chance: Random, elements: Iterable[int]) -> dict[int, Luck]:
    """That of each element."""
    return {element: Luck(*(chance.lognormvariate(0, spread) for spread in _SPREADS)) for element in elements}


def indices(position: int, expected: Mapping[str, str], bps: int, his: Luck) -> dict[str, str]:
    """The four indices, as text like the API's, of one with these expected goals and assists and this bonus score."""
    found = {
        "threat": _THREAT[position] * float(expected["expected_goals"]) * his.threat,
        "creativity": _CREATIVITY[position] * float(expected["expected_assists"]) * his.creativity,
        "influence": max(_INFLUENCE * bps * his.influence, 0.0),
    }
    return {name: f"{value:.1f}" for name, value in found.items()} | {"ict_index": f"{sum(found.values()) / 10:.1f}"}


def add_transfers(elements: Sequence[dict[str, Any]], his: Mapping[int, Luck], gameweeks: int) -> None:
    """Who was taken and dropped in the gameweek to come, and in the season; nobody before it has begun."""
    for name, appeal_of in (("transfers_in", _taken), ("transfers_out", _dropped)):
        appeals = [appeal_of(element, his[element["id"]]) for element in elements]
        whole = sum(appeals)
        for element, appeal in zip(elements, appeals, strict=True):
            lately = round(_TRANSFERS * appeal / whole) if gameweeks else 0
            element[f"{name}_event"], element[name] = lately, lately * gameweeks


def _taken(element: Mapping[str, Any], his: Luck) -> float:
    return _owned(element) * exp(float(element["form"]) / _WANTED) * _TAKEN[element["status"]] * his.taken


def _dropped(element: Mapping[str, Any], his: Luck) -> float:
    return _owned(element) * exp(-float(element["form"]) / _KEPT) * _DROPPED[element["status"]] * his.dropped


def _owned(element: Mapping[str, Any]) -> float:
    return float(element["selected_by_percent"]) + _NOBODY


def add_ranks(elements: Sequence[dict[str, Any]]) -> None:
    """Everybody's rank in each field that has one, among all and in his position; who is level shares it."""
    by_type: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for element in elements:
        by_type[element["element_type"]].append(element)
    for field, name in _RANKED.items():
        _rank(elements, field, f"{name}_rank")
        for of_type in by_type.values():
            _rank(of_type, field, f"{name}_rank_type")


def _rank(elements: Sequence[dict[str, Any]], field: str, rank: str) -> None:
    values = sorted((float(element[field]) for element in elements), reverse=True)
    # The first place of each value: later ones are written first.
    places = {value: place for place, value in reversed([*enumerate(values, start=1)])}
    for element in elements:
        element[rank] = places[float(element[field])]
