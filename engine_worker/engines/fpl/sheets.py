"""What fixtures say of who appeared in each club's matches. PURE."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from engine_worker.engines.fpl.staying import stayed

# Club matches looked back on for who plays now; the last three count most (see `features.py`).
RECENT, LONGER = 3, 10
# Club matches whose bonus scores are kept for each player.
SCORES_KEPT = 5
# A club whose matches were moved may have its last five in many gameweeks; nobody's need more pages than this.
_LIVE_PAGES_MAX = 6
_NO_SCORES: Mapping[str, Any] = {"h": [], "a": []}


class Sheet(NamedTuple):
    """A match of a club: the bonus score of each of its players who appeared."""

    match: int
    scores: dict[int, int]


def sheets_of(fixtures: Sequence[Mapping[str, Any]]) -> dict[int, list[Sheet]]:
    """The matches of each club in order.

    A player appears in a match when it lists a bonus score for him; only one with exactly zero goes unseen.
    """
    found: dict[int, list[Sheet]] = {}
    for match in sorted((m for m in fixtures if m["finished"]), key=lambda m: (str(m["kickoff_time"]), m["id"])):
        scores = next((stat for stat in match["stats"] if stat["identifier"] == "bps"), _NO_SCORES)
        for club, side in ((match["team_h"], "h"), (match["team_a"], "a")):
            of_side = {one["element"]: one["value"] for one in scores[side]}
            found.setdefault(club, []).append(Sheet(match["id"], of_side))
    return found


def attendance(
    sheets: Mapping[int, Sequence[Sheet]],
) -> tuple[dict[int, float], dict[int, float], Counter[int]]:
    """Share of his club's last three and last ten matches each player appeared in, and all his appearances."""
    recent: dict[int, float] = {}
    longer: dict[int, float] = {}
    seen: Counter[int] = Counter()
    for of_club in sheets.values():
        seen.update(element for sheet in of_club for element in sheet.scores)
        for share, count in ((recent, RECENT), (longer, LONGER)):
            last = of_club[-count:]
            for element, times in Counter(element for sheet in last for element in sheet.scores).items():
                share[element] = max(share.get(element, 0.0), times / len(last))
    return recent, longer, seen


def fielded_of(fixtures: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Players each club fielded in a match, on average of its last ten."""
    return {
        club: round(sum(len(sheet.scores) for sheet in sheets[-LONGER:]) / len(sheets[-LONGER:]), 3)
        for club, sheets in sheets_of(fixtures).items()
    }


def stayed_of(fixtures: Sequence[Mapping[str, Any]]) -> dict[int, tuple[int, int]]:
    """How many of those who had been playing played again, by group; see `staying.py`."""
    return stayed([sheet.scores for sheet in sheets] for sheets in sheets_of(fixtures).values())


def gameweeks_lately(fixtures: Sequence[Mapping[str, Any]]) -> list[int]:
    """The gameweeks of each club's last matches, whose minutes are worth knowing; at most the last `_LIVE_PAGES_MAX`."""
    events = {match["id"]: match["event"] for match in fixtures}
    last = {events[sheet.match] for sheets in sheets_of(fixtures).values() for sheet in sheets[-SCORES_KEPT:]}
    return sorted(event for event in last if event)[-_LIVE_PAGES_MAX:]
