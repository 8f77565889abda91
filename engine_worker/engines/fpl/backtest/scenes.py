"""What managers see before one deadline of a past season, and what then happened. Made once, used by every squad replayed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine_worker.engines.fpl.backtest.history import Deadline, Outcome, PastSeason, ground
from engine_worker.engines.fpl.collecting import Collected, PlayerRow, players_of
from engine_worker.engines.fpl.fitted import Fitted
from engine_worker.engines.fpl.projections import project

# What a plan may be made from: forecasts of this engine, the API's own, and the form it shows.
ENGINE, OFFICIAL, FORM = "engine", "ep_next", "form"
Points = Mapping[int, Mapping[int, float]]


@dataclass(frozen=True)
class Scene:
    """`collected` has everyone for sale, `gone` those who are not but may be owned.

    `beliefs` has the points each expects, by gameweek of the horizon and element; `outcomes` what they did in the first.
    """

    season: str
    collected: Collected
    gone: Mapping[int, PlayerRow]
    beliefs: Mapping[str, Points]
    outcomes: Mapping[int, Outcome]

    @property
    def gameweek(self) -> int:
        """The gameweek to decide."""
        return self.collected.gameweeks[0]


def scene_of(season: PastSeason, deadline: Deadline, fitted: Fitted, horizon: int) -> Scene:
    """The scene before a deadline, with forecasts by these parameters."""
    collected = ground(deadline, horizon)
    ours: dict[int, dict[int, float]] = {gameweek: {} for gameweek in collected.gameweeks}
    for row in project(collected, fitted).rows:
        ours[row.gameweek][row.element] = row.xp
    elements = {element["id"]: element for element in deadline.bootstrap["elements"]}
    everyone = players_of(deadline.bootstrap["elements"], deadline.fixtures, elements.keys())
    for_sale = {player.element for player in collected.players}
    matches = _matches(collected)
    return Scene(
        season=season.name,
        collected=collected,
        gone={player.element: player for player in everyone if player.element not in for_sale},
        beliefs={
            ENGINE: ours,
            OFFICIAL: _scaled(collected, matches, {e: _official(elements[e], matches) for e in for_sale}),
            FORM: _scaled(collected, matches, {e: _form(elements[e]) for e in for_sale}),
        },
        outcomes={
            element: outcome
            for (element, gameweek), outcome in season.outcomes.items()
            if gameweek == deadline.gameweek
        },
    )


def _matches(collected: Collected) -> dict[tuple[int, int], int]:
    """(club, gameweek) → its matches."""
    found: dict[tuple[int, int], int] = {}
    for match in collected.fixtures:
        for club in (match.home, match.away):
            found[club, match.gameweek] = found.get((club, match.gameweek), 0) + 1
    return found


def _scaled(
    collected: Collected, matches: Mapping[tuple[int, int], int], a_match: Mapping[int, float]
) -> dict[int, dict[int, float]]:
    return {
        gameweek: {
            player.element: a_match[player.element] * matches.get((player.club, gameweek), 0)
            for player in collected.players
        }
        for gameweek in collected.gameweeks
    }


def _official(element: Mapping[str, Any], matches: Mapping[tuple[int, int], int]) -> float:
    """The API's forecast of the next gameweek for each of its matches; his form before a blank, where it says nothing."""
    gameweek = min((when for _, when in matches), default=0)
    count = matches.get((element["team"], gameweek), 0)
    return float(element["ep_next"] or 0) / count if count else _form(element)


def _form(element: Mapping[str, Any]) -> float:
    """Points a match over the last thirty days; nothing of those who cannot play."""
    return float(element["form"] or 0) if element["status"] in ("a", "d") else 0.0
