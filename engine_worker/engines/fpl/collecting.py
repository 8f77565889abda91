"""Reads a source and keeps what a plan needs: the output of the phase `collecting_data`. No heavy imports.

The output is recorded and handed to a later attempt, so it is small (columns, not API objects) and complete: the
phases after this one never ask the source again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.rules import (
    LAST_GAMEWEEK,
    POSITION_NAMES,
    UNLIMITED_CHIPS,
    Ruleset,
    next_free_transfers,
    ruleset,
)  # fmt: skip
from engine_worker.engines.fpl.sources import NotThere, Reading
from engine_worker.engines.fpl.state import EntryPages, SquadState, chips_left, entry_state, holdings, picks_gameweek

# Club matches looked back on for who plays now; the last three count most (see `projections.py`).
RECENT, LONGER = 3, 10
_NO_SCORES: Mapping[str, Any] = {"h": [], "a": []}


class PlayerRow(NamedTuple):
    """One player as the projections see him; money in tenths, shares 0–1."""

    element: int
    code: int
    name: str
    club: int
    position: int
    now_cost: int
    status: str
    chance: int | None
    minutes: int
    starts: int
    appearances: int
    total_points: int
    played_recent: float
    played_longer: float
    owned_pct: float


class MatchRow(NamedTuple):
    """One fixture of a planned gameweek; difficulty 1–5 as the API rates it."""

    gameweek: int
    home: int
    away: int
    home_difficulty: int
    away_difficulty: int


class ScoreRow(NamedTuple):
    """One match played."""

    home: int
    away: int
    home_goals: int
    away_goals: int


class Warned(BaseModel):
    """Something the reader of the decision should know."""

    code: str
    message: str


class Collected(BaseModel):
    """Everything read from the source for one decision."""

    model_config = ConfigDict(frozen=True)

    source: str
    snapshot_sha256: str
    snapshot_time: str
    rules: Ruleset
    gameweeks: list[int]
    deadline_time: str
    clubs: dict[int, str]
    players: list[PlayerRow]
    fixtures: list[MatchRow]
    scores: list[ScoreRow]
    squad: SquadState
    warnings: list[Warned] = []


def next_gameweek(bootstrap: Mapping[str, Any]) -> int | None:
    """The gameweek whose deadline is next, or None when the season is over."""
    return next((int(event["id"]) for event in bootstrap["events"] if event["is_next"]), None)


def collect(params: FplParams, source_name: str, reading: Reading) -> Collected:
    """Reads the source for `params`, which `check` found valid. Raises `NotThere`, `BrokenSource`, `KeyError`."""
    bootstrap, fixtures = reading.body("bootstrap-static"), reading.body("fixtures")
    rules = ruleset(bootstrap)
    coming = next_gameweek(bootstrap)
    gameweek = params.gameweek or coming or LAST_GAMEWEEK
    gameweeks = list(range(gameweek, min(gameweek + params.horizon - 1, LAST_GAMEWEEK) + 1))
    elements = {element["id"]: element for element in bootstrap["elements"]}
    squad = _squad(params, rules, elements, reading, gameweek, coming or gameweek)
    owned = {holding.element for holding in squad.holdings}
    deadlines = {event["id"]: event["deadline_time"] for event in bootstrap["events"]}
    return Collected(
        source=source_name,
        snapshot_sha256=reading.sha256(),
        snapshot_time=reading.taken_at,
        rules=rules,
        gameweeks=gameweeks,
        deadline_time=deadlines[gameweek],
        clubs={team["id"]: team["short_name"] for team in bootstrap["teams"]},
        players=_players(elements.values(), fixtures, owned),
        fixtures=_coming_fixtures(fixtures, gameweeks),
        scores=[
            ScoreRow(match["team_h"], match["team_a"], match["team_h_score"], match["team_a_score"])
            for match in fixtures
            if match["finished"] and match["team_h_score"] is not None
        ],
        squad=squad,
        warnings=_warnings(params, rules, squad, gameweeks, elements, coming),
    )


def has_entry(reading: Reading, team_id: int) -> bool:
    """Whether the source knows this manager."""
    try:
        reading.body(f"entry/{team_id}/history")
    except NotThere:
        return False
    return True


def entry_pages(reading: Reading, team_id: int, gameweek: int) -> EntryPages:
    """The pages an entry's state is rebuilt from. Raises `NotThere` when it has no picks before `gameweek`."""
    history = reading.body(f"entry/{team_id}/history")
    picked = picks_gameweek(history, gameweek)
    if picked is None:
        raise NotThere(f"entry/{team_id}: no picks before gameweek {gameweek}")
    picks = reading.body(f"entry/{team_id}/event/{picked}/picks")
    return EntryPages(history, reading.body(f"entry/{team_id}/transfers"), picks)


def _squad(
    params: FplParams,
    rules: Ruleset,
    elements: Mapping[int, Mapping[str, Any]],
    reading: Reading,
    gameweek: int,
    coming: int,
) -> SquadState:
    if params.squad is None:
        assert params.team_id is not None
        pages = entry_pages(reading, params.team_id, coming)
        state = entry_state(rules, elements, pages, coming)
        free = state.free_transfers
        for week in range(coming, gameweek):
            # Deciding a gameweek further off: the ones before it are taken as rolled.
            free = next_free_transfers(rules, week, free, 0)
        played = {chip["event"]: chip["name"] for chip in pages.history["chips"]}
        changes: dict[str, Any] = {"free_transfers": free if params.free_transfers is None else params.free_transfers}
        chips = params.available_chips
        changes["chips"] = chips_left(rules, played, gameweek) if chips is None else list(chips)
        return state.model_copy(update=changes)
    bought = {player.element: player.purchase_price for player in params.squad}
    return SquadState(
        holdings=holdings(rules, elements, bought),
        bank=params.bank or 0,
        free_transfers=params.free_transfers or 0,
        chips=list(params.available_chips or []),
    )


def _players(
    elements: Iterable[Mapping[str, Any]], fixtures: Sequence[Mapping[str, Any]], owned: set[int]
) -> list[PlayerRow]:
    """Everyone who could be bought, and the owned; those who left their club and managers are no use."""
    recent, longer, seen = _attendance(fixtures)
    return [
        _player_row(element, recent, longer, seen)
        for element in elements
        if element["id"] in owned or (element["element_type"] in POSITION_NAMES and _for_sale(element))
    ]


def _for_sale(element: Mapping[str, Any]) -> bool:
    return element["status"] not in ("u", "n") and not element.get("removed") and element.get("can_select", True)


def _player_row(
    element: Mapping[str, Any], recent: Mapping[int, float], longer: Mapping[int, float], seen: Mapping[int, int]
) -> PlayerRow:
    identity, minutes = element["id"], element["minutes"]
    # Seasons before 2022/23 do not count starts; a starter stays on for about 85 minutes.
    starts = element.get("starts", round(minutes / 85))
    average, points = float(element["points_per_game"]), element["total_points"]
    # Points per game counts appearances exactly but says so with one decimal; the matches' own lists leave out a
    # player whose bonus score is zero. Neither may fall below what starts and minutes prove.
    by_average = round(points / average) if average else 0
    return PlayerRow(
        identity, element["code"], element["web_name"], element["team"], element["element_type"], element["now_cost"],
        element["status"], element.get("chance_of_playing_next_round"), minutes, starts,
        max(seen.get(identity, 0) or by_average, starts, -(-minutes // 90)), points,
        round(recent.get(identity, 0.0), 3), round(longer.get(identity, 0.0), 3), float(element["selected_by_percent"]),
    )  # fmt: skip


def _attendance(
    fixtures: Sequence[Mapping[str, Any]],
) -> tuple[dict[int, float], dict[int, float], Counter[int]]:
    """Share of his club's last three and last ten matches each player appeared in, and all his appearances.

    A player appears in a match when it lists a bonus score for him; only one with exactly zero goes unseen.
    """
    present: dict[int, list[set[int]]] = {}
    for match in sorted((m for m in fixtures if m["finished"]), key=lambda m: (str(m["kickoff_time"]), m["id"])):
        scores = next((stat for stat in match["stats"] if stat["identifier"] == "bps"), _NO_SCORES)
        for club, side in ((match["team_h"], "h"), (match["team_a"], "a")):
            present.setdefault(club, []).append({one["element"] for one in scores[side]})
    recent: dict[int, float] = {}
    longer: dict[int, float] = {}
    seen: Counter[int] = Counter()
    for matches in present.values():
        seen.update(element for match in matches for element in match)
        for share, count in ((recent, RECENT), (longer, LONGER)):
            last = matches[-count:]
            for element, times in Counter(element for match in last for element in match).items():
                share[element] = max(share.get(element, 0.0), times / len(last))
    return recent, longer, seen


def _coming_fixtures(fixtures: Sequence[Mapping[str, Any]], gameweeks: Sequence[int]) -> list[MatchRow]:
    return [
        MatchRow(m["event"], m["team_h"], m["team_a"], m["team_h_difficulty"], m["team_a_difficulty"])
        for m in fixtures
        if m["event"] in gameweeks
    ]


def _warnings(
    params: FplParams,
    rules: Ruleset,
    squad: SquadState,
    gameweeks: Sequence[int],
    elements: Mapping[int, Mapping[str, Any]],
    coming: int | None,
) -> list[Warned]:
    found = []
    if len(gameweeks) < params.horizon:
        found.append(Warned(code="season_ends", message=f"the season ends with gameweek {gameweeks[-1]}"))
    if coming is not None and gameweeks[0] > coming:
        between = f"gameweeks {coming} to {gameweeks[0] - 1}"
        found.append(Warned(code="gameweek_ahead", message=f"squad and prices of today, {between} taken as rolled"))
    clubs = Counter(elements[holding.element]["team"] for holding in squad.holdings)
    if any(count > rules.club_limit for count in clubs.values()):
        text = "more players from one club than allowed, by a real transfer: the next transfer must put it right"
        found.append(Warned(code="club_limit", message=text))
    if squad.replay.mismatches:
        found.append(Warned(code="replay", message=f"not all derived again: {squad.replay.mismatches[0]}"))
    if params.team_id is not None and params.free_transfers is None:
        text = "transfers already made for this gameweek are not public before its deadline and are not counted"
        found.append(Warned(code="pending_transfers", message=text))
    if unlimited := [gameweek for gameweek in gameweeks if gameweek in rules.unlimited_gameweeks]:
        found.append(Warned(code="unlimited", message=f"transfers cost nothing in gameweek {unlimited[0]}"))
    if set(squad.chips) & set(UNLIMITED_CHIPS):
        text = "wildcard and free hit are valued for the first gameweek only"
        found.append(Warned(code="chips_now_only", message=text))
    return found
