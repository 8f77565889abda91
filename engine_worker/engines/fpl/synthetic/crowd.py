"""What the API says of players beside what they did: its indices, the crowd of managers, and everybody's rank in each. PURE.

Sizes are those of 2023/24: threat to a goal and creativity to an assist of each position, transfers of a gameweek two days before
its deadline, and how much more often managers take a player in form and drop one who is out.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import exp
from random import Random
from typing import Any

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
# Points of form that make a player twice and a half as wanted, or as much less often dropped.
_WANTED, _KEPT = 4.0, 7.0
_NOBODY = 0.02
# Field → what the API calls its rank.
_RANKED = {
    "now_cost": "now_cost", "form": "form", "points_per_game": "points_per_game", "selected_by_percent": "selected",
    "influence": "influence", "creativity": "creativity", "threat": "threat", "ict_index": "ict_index",
}  # fmt: skip


def luck(chance: Random, elements: Iterable[int]) -> dict[int, tuple[float, ...]]:
    """Element → what chance made of his threat, creativity and influence, and of those who take and drop him."""
    return {element: tuple(chance.lognormvariate(0, spread) for spread in _SPREADS) for element in elements}


_SPREADS = (0.15, 0.15, 0.1, 0.6, 0.4)


def indices(position: int, expected: Mapping[str, str], bps: int, his: Sequence[float]) -> dict[str, str]:
    """The four indices, as text like the API's, of one with these expected goals and assists and this bonus score."""
    found = {
        "threat": _THREAT[position] * float(expected["expected_goals"]) * his[0],
        "creativity": _CREATIVITY[position] * float(expected["expected_assists"]) * his[1],
        "influence": max(_INFLUENCE * bps * his[2], 0.0),
    }
    return {name: f"{value:.1f}" for name, value in found.items()} | {"ict_index": f"{sum(found.values()) / 10:.1f}"}


def add_transfers(elements: Sequence[dict[str, Any]], his: Mapping[int, Sequence[float]], gameweeks: int) -> None:
    """Who was taken and dropped in the gameweek to come, and in the season; nobody before it has begun."""
    taken, dropped = ([_appeal(element, his[element["id"]], kind) for element in elements] for kind in (0, 1))
    for name, appeals in (("transfers_in", taken), ("transfers_out", dropped)):
        for element, appeal in zip(elements, appeals, strict=True):
            lately = round(_TRANSFERS * appeal / sum(appeals)) if gameweeks else 0
            element[f"{name}_event"], element[name] = lately, lately * gameweeks


def _appeal(element: Mapping[str, Any], his: Sequence[float], kind: int) -> float:
    owned, form, status = float(element["selected_by_percent"]) + _NOBODY, float(element["form"]), element["status"]
    if kind:
        return owned * exp(-form / _KEPT) * _DROPPED[status] * his[4]
    return owned * exp(form / _WANTED) * _TAKEN[status] * his[3]


def add_ranks(elements: Sequence[dict[str, Any]]) -> None:
    """Everybody's rank in each field that has one, among all and in his position; who is level shares it."""
    for field, name in _RANKED.items():
        everybody = [float(element[field]) for element in elements]
        by_type: dict[int, list[float]] = {}
        for element in elements:
            by_type.setdefault(element["element_type"], []).append(float(element[field]))
        for end, groups in (("_rank", dict.fromkeys(by_type, everybody)), ("_rank_type", by_type)):
            place = {kind: _places(values) for kind, values in groups.items()}
            for element in elements:
                element[name + end] = place[element["element_type"]][float(element[field])]


def _places(values: Sequence[float]) -> dict[float, int]:
    return {value: place for place, value in reversed([*enumerate(sorted(values, reverse=True), start=1)])}
