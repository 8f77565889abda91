"""How often those who have been playing play again, in the league as it is now. PURE.

Seasons differ in it: since 2022/23 a club makes five substitutions instead of three, and whoever has been on for some
minutes lately comes on again more often. What models learned of past seasons is moved by what this one shows.
"""

from collections.abc import Iterable, Mapping, Sequence

# Club matches whose minutes say how much somebody has been playing, and how many are looked back on.
LATELY, _LOOKED_BACK = 3, 10
# Minutes in those from which a player is counted with the next group.
GROUPS = (1, 90, 225)
# Minutes of a late substitute, and of one who was on for long.
_SHORT, _LONG = 30, 85


def hour_long(score: float | None) -> float:
    """From 0 to 1: whether a bonus score was that of someone who was on for an hour; None is of one who did not play."""
    return 0.0 if score is None else min(max((score - 2) / 8, 0.0), 1.0)


def guessed_minutes(score: float | None) -> float:
    """Minutes by a bonus score."""
    return 0.0 if score is None else _SHORT + (_LONG - _SHORT) * hour_long(score)


def group_of(scores: Iterable[float | None]) -> int | None:
    """The group of one with these bonus scores in his club's last three matches; None of one who was in none."""
    minutes = sum(map(guessed_minutes, scores))
    return max((least for least in GROUPS if minutes >= least), default=None)


def stayed(clubs: Iterable[Sequence[Mapping[int, float]]]) -> dict[int, tuple[int, int]]:
    """Group → how many players had been playing so much before a match of their club, and how many of them appeared in it.

    `clubs` has the bonus scores of each match of a club by element, the oldest match first.
    """
    asked, came = dict.fromkeys(GROUPS, 0), dict.fromkeys(GROUPS, 0)
    for matches in clubs:
        for place in range(max(LATELY, len(matches) - _LOOKED_BACK), len(matches)):
            before = matches[place - LATELY : place]
            for element in {element for scores in before for element in scores}:
                group = group_of(scores.get(element) for scores in before)
                if group is not None:
                    asked[group] += 1
                    came[group] += element in matches[place]
    return {group: (asked[group], came[group]) for group in GROUPS}
