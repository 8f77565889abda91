"""What a gameweek was worth: points of a match, substitutions made by the game, multipliers. PURE."""

from collections.abc import Callable, Mapping, Sequence

from engine_worker.engines.fpl.rules import eleven_violations
from engine_worker.engines.fpl.seasons import GOALKEEPER, POSITION_NAMES, Ruleset

CAPTAIN_TIMES, TRIPLE_CAPTAIN_TIMES = 2, 3


def match_points(rules: Ruleset, position: int, stats: Mapping[str, int]) -> int:
    """Points of one player in one match; `stats` has the API's names.

    A player who never came on scores nothing for minutes, but a card on the bench counts against him.
    """
    scoring, place, minutes = rules.scoring, POSITION_NAMES[position], stats["minutes"]
    points = stats["goals_scored"] * scoring.goals_scored[place]
    for name in ("assists", "penalties_saved", "penalties_missed", "yellow_cards", "red_cards", "own_goals", "bonus"):
        points += stats[name] * getattr(scoring, name)
    if minutes >= scoring.long_play_minutes:
        points += scoring.long_play + stats["clean_sheets"] * scoring.clean_sheets[place]
    elif minutes > 0:
        points += scoring.short_play
    points += stats["goals_conceded"] // scoring.goals_conceded_each * scoring.goals_conceded[place]
    if position == GOALKEEPER:
        points += stats["saves"] // scoring.saves_each * scoring.saves
    if worth := scoring.defensive_contribution[place]:
        points += worth * (stats["defensive_contribution"] >= scoring.defensive_contribution_from[place])
    return points


def substitutions(
    rules: Ruleset,
    starters: Sequence[int],
    bench: Sequence[int],
    position: Mapping[int, int],
    played: Callable[[int], bool],
) -> list[tuple[int, int]]:
    """The (coming on, going off) pairs of elements the game makes after a gameweek.

    Each starter who did not play makes way for the first on the bench who did, was not used yet and keeps the eleven
    legal; a goalkeeper only for a goalkeeper. Starters in their order, the bench in its own.
    """
    eleven, waiting, made = list(starters), [element for element in bench if played(element)], []
    for leaving in (element for element in starters if not played(element)):
        for coming in waiting:
            after = [position[coming if element == leaving else element] for element in eleven]
            if not eleven_violations(rules, after):
                eleven[eleven.index(leaving)] = coming
                waiting.remove(coming)
                made.append((coming, leaving))
                break
    return made


def multipliers(
    starters: Sequence[int],
    bench: Sequence[int],
    captain: int,
    vice: int,
    chip: str | None,
    played: Callable[[int], bool],
) -> dict[int, int]:
    """How often each player's points count; `starters` after substitutions.

    The vice-captain stands in for a captain who did not play, for the triple captain too. When neither played the captain
    keeps his multiplier of nothing.
    """
    times = dict.fromkeys(starters, 1) | dict.fromkeys(bench, int(chip == "bboost"))
    leader = vice if played(vice) and not played(captain) else captain
    if times.get(leader):
        times[leader] = TRIPLE_CAPTAIN_TIMES if chip == "3xc" else CAPTAIN_TIMES
    return times
