"""What the models of who plays are told of each player: numbers on what the API shows before a deadline. PURE.

Minutes in his club's last matches are on a page for each gameweek. Where a source lacks it, presence and bonus score stand
in: a match lists a bonus score for everyone who appeared, and that of a player who was on for an hour is higher by three.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import log, log1p, tanh
from typing import NamedTuple

from engine_worker.engines.fpl.collecting import Collected, PlayerRow
from engine_worker.engines.fpl.seasons import DEFENDER, GOALKEEPER, MIDFIELDER
from engine_worker.engines.fpl.sheets import SCORES_KEPT
from engine_worker.engines.fpl.staying import guessed_minutes, hour_long

# What a share of past matches counts for before the season, in matches.
_LAST_SEASON = 10.0
_LAST_SEASON_MATCHES = 38
_ORDINARY_SCORE = 10.0
# The chances that the API gives, of a hundred.
_CHANCES = (0, 25, 50, 75, 100)
# Minutes of a whole match, of what is nearly one, of what earns the second point, and of a late substitute.
_WHOLE, _NEARLY, _HOUR, _SHORT = 90, 85, 60, 30
# A rival is out at this chance or less.
_HARDLY = 25
# The share of his club's last ten matches from which one who missed the last is taken back.
_OFTEN = 0.4
# Transfers that are counted on both sides of a ratio, so that few of them say little.
_FEW = 50


class _League(NamedTuple):
    """What the features of one player take from all of them: matches of each club, rivals, transfers to a percent of owners."""

    matches: Mapping[int, int]
    rivals: Mapping[tuple[int, int], Sequence[PlayerRow]]
    transfers: float


def features(collected: Collected) -> Iterable[tuple[PlayerRow, dict[str, float], dict[str, float]]]:
    """Each player with his features, and with what they would be without a flag."""
    league = _league(collected)
    for player in collected.players:
        fit = _of_player(player, league)
        yield player, fit | _of_flag(player), fit


def _league(collected: Collected) -> _League:
    matches: dict[int, int] = {}
    for score in collected.scores:
        for club in (score.home, score.away):
            matches[club] = matches.get(club, 0) + 1
    rivals: dict[tuple[int, int], list[PlayerRow]] = {}
    # Players who left are there only where the one who asks owns them: what is said of others may not hang on that.
    there = [player for player in collected.players if player.status not in ("u", "n")]
    for player in there:
        rivals.setdefault((player.club, player.position), []).append(player)
    bought = sum(player.transfers_in for player in there)
    owned = sum(player.owned_pct for player in there)
    return _League(matches, rivals, bought / owned if owned else 0.0)


def _of_player(player: PlayerRow, league: _League) -> dict[str, float]:
    # Before a club's first match the totals are last season's.
    matches = league.matches.get(player.club, 0)
    last_season = min(player.minutes / 90 / _LAST_SEASON_MATCHES, 1.0)
    recent = player.played_recent if matches else last_season
    longer = player.played_longer if matches else last_season
    few, many = (min(matches, 3), min(matches, 10)) if matches else (_LAST_SEASON, _LAST_SEASON)
    # Somebody who played so large a share of it: as if he had been in as many matches, with an ordinary score.
    seen = [None if score is None else float(score) for score in player.scores]
    if not matches:
        seen = [2 + _ORDINARY_SCORE * last_season] * 5
    last, before = (*seen, None, None)[:2]
    minutes = _minutes(player, seen)
    first, second, third = (_present(seen, place, longer) if matches else last_season for place in range(3))
    started = (player.starts + 0.5) / ((matches or _LAST_SEASON_MATCHES) + 1)
    share = 0.6 * recent + 0.4 * longer
    keeper = float(player.position == GOALKEEPER)
    lately = _mean([one / _WHOLE for one in minutes])
    early = 1 / (1 + max(matches, 1))  # no season was seen before its first match
    owners = log1p(player.owned_pct)
    return {
        "recent": log_odds((recent * few + 0.5) / (few + 1)),
        "longer": log_odds((longer * many + 0.5) / (many + 1)),
        "share_squared": share * share,
        "last": first,
        "last_two": first * second,
        "last_three": first * second * third,
        "long_last": hour_long(last),
        "long_before": hour_long(before),
        "long_both": hour_long(last) * hour_long(before),
        "long_lately": sum(map(hour_long, seen)) / SCORES_KEPT,
        "scored_lately": sum(min(one or 0.0, 30.0) for one in seen) / max(len(seen), 1) / 10,
        **_of_minutes([one / _WHOLE for one in minutes]),
        "absences": next((place for place, one in enumerate(seen) if one is not None), len(seen)) / 5,
        "started": started,
        "started_last": started * first,
        "started_squared": started * started,
        **_of_position("defender", player.position == DEFENDER, started, lately),
        **_of_position("midfielder", player.position == MIDFIELDER, started, lately),
        "points": log1p(max(player.total_points, 0) / (matches or _LAST_SEASON_MATCHES)),
        "length": player.minutes / max(player.appearances, 1) / 90,
        "keeper": keeper,
        "keeper_started": keeper * started,
        "keeper_owned": keeper * owners,
        "owned": owners,
        "price": log(player.now_cost / 50),
        **_of_rivals(player, league),
        **_of_market(player, first, league.transfers),
        "early": early,
        "early_price": early * log(player.now_cost / 50),
    }


def _of_rivals(player: PlayerRow, league: _League) -> dict[str, float]:
    """Features of the clubmates of his position: who may take his place, and who may take it back."""
    rivals = [one for one in league.rivals.get((player.club, player.position), []) if one.element != player.element]
    matches = league.matches.get(player.club, 0) or _LAST_SEASON_MATCHES
    share = {one.element: min(one.minutes / 90 / matches, 1.0) for one in rivals}
    fit = [one for one in rivals if one.status == "a"]
    out = [one for one in rivals if one.status != "a" and (one.chance or 0) <= _HARDLY]
    doubtful = [one for one in rivals if one.status == "d" and (one.chance or 0) > _HARDLY]
    back = [one.played_longer for one in fit if one.scores[:1] == (None,) and one.played_longer > _OFTEN]
    dearer = sum(one.now_cost > player.now_cost for one in rivals if one.status in ("a", "d"))
    return {
        "dearer_rivals": min(dearer, 6) / 6,
        "rivals_fit": len(fit) / 6,
        "rivals_out": sum(share[one.element] for one in out),
        "rivals_doubtful": sum(share[one.element] for one in doubtful),
        "rivals_back": sum(back),
    }


def _of_market(player: PlayerRow, last: float, usual: float) -> dict[str, float]:
    """Features of what managers do with him; those who follow the news sell whoever will not play.

    `usual` is how many transfers come to a percent of owners in the whole league: more of them the nearer the deadline.
    """
    bought_or_sold = player.transfers_in + player.transfers_out
    bought = tanh((player.transfers_in - player.transfers_out) / (bought_or_sold + 2000))
    deserted = log((player.transfers_out + 200) / (player.owned_pct * 50_000 + 5000))
    expected = player.owned_pct * usual + _FEW
    return {
        "bought": bought,
        "deserted": deserted,
        "bought_last": bought * last,
        "deserted_last": deserted * last,
        "bought_usual": log((player.transfers_in + _FEW) / expected),
        "deserted_usual": log((player.transfers_out + _FEW) / expected),
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
    cleared = not flagged and chance == 100
    age = min(player.news_days or 0.0, 30.0) / 30
    fresh = 0.0 if player.news_days is None else 1 / (1 + player.news_days)
    return {
        **{f"before_{said}": float(player.chance_before == said) for said in _CHANCES},
        "said_75": float(flagged and chance == 75),
        "said_50": float(flagged and chance == 50),
        "said_25": float(flagged and chance == 25),
        "said_0": float(flagged and not chance),
        "cleared": float(cleared),
        "news": fresh,
        "cleared_news": fresh * cleared,
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
        guessed_minutes(score) if said is None else float(min(said, _WHOLE))
        for score, said in zip(seen, known, strict=False)
    ]


def log_odds(chance: float) -> float:
    """Of a chance, which counts as neither nothing nor certain."""
    chance = min(max(chance, 1e-6), 1 - 1e-6)
    return log(chance / (1 - chance))
