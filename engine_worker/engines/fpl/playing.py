"""Who plays, and for how long: logistic models on what the API shows before a deadline. PURE.

Minutes in his club's last matches are on a page for each gameweek. Where a source lacks it, presence and bonus score stand
in: a match lists a bonus score for everyone who appeared, and that of a player who was on for an hour is higher by three.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import exp, log, log1p, tanh
from typing import NamedTuple

from engine_worker.engines.fpl.collecting import Collected, PlayerRow
from engine_worker.engines.fpl.fitted import Chance, Fitted
from engine_worker.engines.fpl.seasons import DEFENDER, GOALKEEPER, MIDFIELDER

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
# What a share of past matches counts for before the season, in matches.
_LAST_SEASON = 10.0
_ORDINARY_SCORE = 10.0
# The chances that the API gives, of a hundred.
_CHANCES = (0, 25, 50, 75, 100)
# Minutes of a whole match, of what is nearly one, of what earns the second point, and of a late substitute.
_WHOLE, _NEARLY, _HOUR, _SHORT = 90, 85, 60, 30


class Attendance(NamedTuple):
    """The chance that a player plays in a match, and that he is on for an hour if he does."""

    p_play: float
    p_60_if_plays: float


def attendances(collected: Collected, fitted: Fitted) -> dict[tuple[int, int], Attendance]:
    """(element, gameweek) → how he is expected to be used in a match of that gameweek."""
    found: dict[tuple[int, int], Attendance] = {}
    raw = [(player, *chances) for player, chances in _raw(collected, fitted)]
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


def _raw(collected: Collected, fitted: Fitted) -> Iterable[tuple[PlayerRow, tuple[float, float, float]]]:
    for player, now, fit in features(collected):
        yield player, (_chance(fitted.plays, fit), _chance(fitted.plays, now), _chance(fitted.an_hour, now))


def features(collected: Collected) -> Iterable[tuple[PlayerRow, dict[str, float], dict[str, float]]]:
    """Each player with his features, and with what they would be without a flag."""
    matches: dict[int, int] = {}
    for score in collected.scores:
        for club in (score.home, score.away):
            matches[club] = matches.get(club, 0) + 1
    rivals: dict[tuple[int, int], list[int]] = {}
    for player in collected.players:
        if player.status in ("a", "d"):
            rivals.setdefault((player.club, player.position), []).append(player.now_cost)
    for player in collected.players:
        dearer = sum(cost > player.now_cost for cost in rivals.get((player.club, player.position), []))
        fit = _of_player(player, matches.get(player.club, 0), dearer)
        yield player, fit | _of_flag(player), fit


def _of_player(player: PlayerRow, matches: int, dearer: int) -> dict[str, float]:
    # Before a club's first match the totals are last season's.
    last_season = min(player.minutes / 90 / 38, 1.0)
    recent = player.played_recent if matches else last_season
    longer = player.played_longer if matches else last_season
    few, many = (min(matches, 3), min(matches, 10)) if matches else (_LAST_SEASON, _LAST_SEASON)
    # Somebody who played so large a share of it: as if he had been in as many matches, with an ordinary score.
    seen = [None if score is None else float(score) for score in player.scores]
    if not matches:
        seen = [2 + _ORDINARY_SCORE * last_season] * 5
    minutes = _minutes(player, seen)
    first, second, third = (_present(seen, place, longer) if matches else last_season for place in range(3))
    started = (player.starts + 0.5) / ((matches or 38) + 1)
    share = 0.6 * recent + 0.4 * longer
    keeper = float(player.position == GOALKEEPER)
    lately = _mean([one / _WHOLE for one in minutes])
    moved = player.transfers_in - player.transfers_out
    early = 1 / (1 + max(matches, 1))  # no season was seen before its first match
    owners = log1p(player.owned_pct)
    bought = tanh(moved / (player.transfers_in + player.transfers_out + 2000))
    deserted = log((player.transfers_out + 200) / (player.owned_pct * 50_000 + 5000))
    return {
        "recent": _log_odds((recent * few + 0.5) / (few + 1)),
        "longer": _log_odds((longer * many + 0.5) / (many + 1)),
        "share_squared": share * share,
        "last": first,
        "last_two": first * second,
        "last_three": first * second * third,
        "long_last": _long(seen, 0),
        "long_before": _long(seen, 1),
        "long_both": _long(seen, 0) * _long(seen, 1),
        "long_lately": sum(_long(seen, place) for place in range(5)) / 5,
        "scored_lately": sum(min(one or 0.0, 30.0) for one in seen) / max(len(seen), 1) / 10,
        **_of_minutes([one / _WHOLE for one in minutes]),
        "absences": next((place for place, one in enumerate(seen) if one is not None), len(seen)) / 5,
        "started": started,
        "started_last": started * first,
        "started_squared": started * started,
        **_of_position("defender", player.position == DEFENDER, started, lately),
        **_of_position("midfielder", player.position == MIDFIELDER, started, lately),
        "points": log1p(max(player.total_points, 0) / (matches or 38)),
        "length": player.minutes / max(player.appearances, 1) / 90,
        "keeper": keeper,
        "keeper_started": keeper * started,
        "keeper_owned": keeper * owners,
        "owned": owners,
        "price": log(player.now_cost / 50),
        "dearer_rivals": min(dearer, 6) / 6,
        "bought": bought,
        "deserted": deserted,
        "bought_last": bought * first,
        "deserted_last": deserted * first,
        "early": early,
        "early_price": early * log(player.now_cost / 50),
    }


def _of_position(name: str, his: bool, started: float, lately: float) -> dict[str, float]:
    """Forwards, of whom these are nothing, and midfielders are rested and replaced more often than defenders."""
    return {name: float(his), f"{name}_started": his * started, f"{name}_minutes": his * lately}


def _of_minutes(shares: Sequence[float]) -> dict[str, float]:
    """Features of minutes in the last matches, the newest first, as shares of ninety; nothing before there are any."""
    last, before = (shares[place] if place < len(shares) else 0.0 for place in (0, 1))
    three = shares[:3] or [0.0]
    lately = _mean(shares)
    return {
        "minutes_last": last,
        "minutes_before": before,
        "minutes_both": last * before,
        "minutes_three": sum(three) / len(three),
        "minutes_least": min(three),
        "minutes_lately": lately,
        "minutes_squared": lately * lately,
        "hours_lately": sum(one >= _HOUR / _WHOLE for one in shares) / max(len(shares), 1),
        "whole_lately": sum(one > _NEARLY / _WHOLE for one in shares) / max(len(shares), 1),
        "whole_last": float(last > _NEARLY / _WHOLE),
        "hour_last": float(_HOUR / _WHOLE <= last <= _NEARLY / _WHOLE),
        "short_last": float(0 < last < _SHORT / _WHOLE),
    }


def _of_flag(player: PlayerRow) -> dict[str, float]:
    flagged = player.status != "a"
    chance = player.chance
    age = min(player.news_days or 0.0, 30.0) / 30
    return {
        **{f"before_{said}": float(player.chance_before == said) for said in _CHANCES},
        "said_75": float(flagged and chance == 75),
        "said_50": float(flagged and chance == 50),
        "said_25": float(flagged and chance == 25),
        "said_0": float(flagged and not chance),
        "cleared": float(not flagged and chance == 100),
        "doubt_age": age * float(flagged and bool(chance)),
        "absent_age": age * float(flagged and not chance),
    }


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / max(len(shares), 1)


def _present(seen: Sequence[float | None], place: int, otherwise: float) -> float:
    return float(seen[place] is not None) if place < len(seen) else otherwise


def _minutes(player: PlayerRow, seen: Sequence[float | None]) -> list[float]:
    """Minutes in the last matches, from the bonus score where they are not known."""
    known = player.minutes_each or (None,) * len(seen)
    return [
        _guessed(seen, place) if said is None else float(min(said, _WHOLE))
        for place, said in enumerate(known[: len(seen)])
    ]


def _guessed(seen: Sequence[float | None], place: int) -> float:
    return 0.0 if seen[place] is None else _SHORT + (_NEARLY - _SHORT) * _long(seen, place)


def _long(seen: Sequence[float | None], place: int) -> float:
    """From 0 to 1: whether his bonus score was that of someone who was on for an hour."""
    score = seen[place] if place < len(seen) else None
    return 0.0 if score is None else min(max((score - 2) / 8, 0.0), 1.0)


def _chance(model: Chance, values: Mapping[str, float]) -> float:
    return 1 / (
        1 + exp(-(model.intercept + sum(weight * values.get(name, 0.0) for name, weight in model.weights.items())))
    )


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
        odds = [_log_odds(chance[e]) for e in elements if chance[e] > _NONE and e not in kept]
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
                found[element] = 1 / (1 + exp(-_log_odds(chance[element]) - share * low))
    return found


def _log_odds(chance: float) -> float:
    chance = min(max(chance, 1e-6), 1 - 1e-6)
    return log(chance / (1 - chance))
