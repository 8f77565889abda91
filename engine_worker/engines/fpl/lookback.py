"""The decision before this one against what happened, scored by the game's own substitutions and captaincy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from engine_worker.engines.fpl.lineup import best_lineup
from engine_worker.engines.fpl.params import FplParams, PreviousDecision
from engine_worker.engines.fpl.scoring import multipliers, substitutions
from engine_worker.engines.fpl.seasons import POSITION_NAMES, Ruleset
from engine_worker.engines.fpl.source import BrokenSource, NotThere, Reading
from phaseline import Previous

_PLACES = {name: position for position, name in POSITION_NAMES.items()}


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True)


class Decided(_Lenient):
    """What can be scored of a decision. `held` is the team it would have been without transfer and chip.

    `job_id` and `result_sha256` say which result of the log it is, None when the caller sent it. `expected_pts` counts hits.
    """

    job_id: str | None = None
    result_sha256: str | None = None
    advice: PreviousDecision
    expected_pts: float | None = None
    held: PreviousDecision | None = None
    # (sold, bought)
    transfers: list[tuple[int, int]] = []


class Moved(_Lenient):
    """A transfer that was advised, and what both scored in the gameweek."""

    sold: str
    bought: str
    sold_pts: int
    bought_pts: int


class LookedBack(_Lenient):
    """A decision and its points, hits deducted, beside those of other teams; None where the source does not say, or the
    gameweek is not over."""

    decided: Decided
    advice: str
    advised_pts: int | None = None
    hold_pts: int | None = None
    captain_pts: int | None = None
    actual_pts: int | None = None
    followed: bool | None = None
    average_pts: int | None = None
    transfers: list[Moved] = []


def look_back(
    params: FplParams, rules: Ruleset, reading: Reading, coming: int, source: str = "", previous: Previous | None = None
) -> LookedBack | None:
    """The look back at `params.previous`, else at the job before. None when there is none, or it is of another season."""
    if params.previous is not None:
        decided: Decided | None = Decided(advice=params.previous) if params.previous.gameweek == coming - 1 else None
    else:
        decided = _decided(previous, params, rules, coming, source)
    bootstrap = reading.body("bootstrap-static")
    elements = {element["id"]: element for element in bootstrap["elements"]}
    if decided is None or not _players(decided) <= elements.keys():
        return None
    advice, events = decided.advice, {event["id"]: event for event in bootstrap["events"]}
    names = {element: elements[element]["web_name"] for element in _players(decided)}
    text = f"captain {names[advice.captain]}" + (f", {advice.chip} played" if advice.chip else "")
    shown = LookedBack(decided=decided, advice=text)
    week = _Week(rules, reading, elements, advice.gameweek, coming)
    if not events[advice.gameweek].get("finished") or not week.known:
        return shown
    actual, followed = _done(params.team_id, advice, reading)
    return shown.model_copy(
        update={
            "advised_pts": week.scored(advice),
            "hold_pts": None if decided.held is None else week.scored(decided.held),
            "captain_pts": week.points(advice.captain),
            "actual_pts": actual,
            "followed": followed,
            "average_pts": events[advice.gameweek].get("average_entry_score") or None,
            "transfers": [
                Moved(sold=names[a], bought=names[b], sold_pts=week.points(a), bought_pts=week.points(b))
                for a, b in decided.transfers
            ],
        }
    )


def _players(decided: Decided) -> set[int]:
    teams = [decided.advice] + ([decided.held] if decided.held else [])
    moved = {element for transfer in decided.transfers for element in transfer}
    return moved | {element for team in teams for element in (*team.starters, *team.bench)}


# ---- the result of the job before: of whatever version of the engine, so only what is needed is read of it --------


class _Player(_Lenient):
    element: int
    position: str


class _Lineup(_Lenient):
    starters: list[_Player]
    bench: list[_Player]
    captain: _Player
    vice: _Player
    xp_total: float
    autosub_xp: float = 0.0


class _Swap(_Lenient):
    sold: _Player
    bought: _Player


class _PlanWeek(_Lenient):
    chip: str | None
    hit_cost_pts: int
    transfers: list[_Swap]


class _Plan(_Lenient):
    gameweeks: list[_PlanWeek]


class _Header(_Lenient):
    team_id: int | None
    season: str
    gameweek: int
    source: str


class _Projection(_Lenient):
    element: int
    gameweek: int
    xp: float


class _Squad(_Lenient):
    players: list[_Player]
    booked_hit_cost_pts: int = 0
    given_back_pts: int = 0


class _Review(_Lenient):
    decided: Decided


class _Result(_Lenient):
    header: _Header
    lineup: _Lineup
    transfer_plan: _Plan
    squad_state: _Squad
    projections: list[_Projection]
    review: Any = None


def _decided(previous: Previous | None, params: FplParams, rules: Ruleset, coming: int, source: str) -> Decided | None:
    """The last decision whose deadline has passed: that of the job before, or the one that job looked back at.

    A gameweek may be decided more than once; each result carries on what the one before it was to be measured by.
    """
    if previous is None or previous.result is None:
        return None
    try:
        result = _Result.model_validate(previous.result)
        header = result.header
        if (header.team_id, header.season, header.source) != (params.team_id, rules.season, source):
            return None
        if header.gameweek < coming:
            return _of_result(result, rules, previous)
        return None if result.review is None else _Review.model_validate(result.review).decided
    except (ValidationError, IndexError):
        return None  # of a version that wrote it otherwise


def _of_result(result: _Result, rules: Ruleset, previous: Previous) -> Decided:
    gameweek, lineup, week = result.header.gameweek, result.lineup, result.transfer_plan.gameweeks[0]
    # Transfers made before the decision have cost their points too, whatever was decided.
    hit_cost = week.hit_cost_pts + result.squad_state.booked_hit_cost_pts
    advice = PreviousDecision.model_validate(
        {
            "gameweek": gameweek,
            "starters": [player.element for player in lineup.starters],
            "bench": [player.element for player in lineup.bench],
            "captain": lineup.captain.element,
            "vice": lineup.vice.element,
            "chip": week.chip,
            "hit_cost_pts": hit_cost,
        }
    )
    return Decided(
        job_id=previous.job_id,
        result_sha256=previous.sha256,
        advice=advice,
        expected_pts=round(lineup.xp_total + lineup.autosub_xp - hit_cost, 2),
        held=_held(result, rules),
        transfers=[(swap.sold.element, swap.bought.element) for swap in week.transfers],
    )


def _held(result: _Result, rules: Ruleset) -> PreviousDecision | None:
    """The best eleven of the squad as it was, by the forecasts of that decision."""
    gameweek = result.header.gameweek
    places = {player.element: _PLACES[player.position] for player in result.squad_state.players}
    forecasts = {row.element: row.xp for row in result.projections if row.gameweek == gameweek}
    if not places.keys() <= forecasts.keys():
        return None
    lineup = best_lineup(rules, list(places), places, forecasts)
    # Without its wildcard transfers made before would have cost what they cost; a free hit's squad is the one before them.
    undone = result.transfer_plan.gameweeks[0].chip == "freehit"
    kept = 0 if undone else result.squad_state.given_back_pts
    return PreviousDecision(
        gameweek=gameweek,
        starters=list(lineup.starters),
        bench=list(lineup.bench),
        captain=lineup.captain,
        vice=lineup.vice,
        hit_cost_pts=result.squad_state.booked_hit_cost_pts + kept,
    )


# ---- what happened -----------------------------------------------------------------------------------------------


class _Week:
    """What happened in a gameweek; `known` False when the source does not say."""

    def __init__(
        self, rules: Ruleset, reading: Reading, elements: Mapping[int, Mapping[str, Any]], gameweek: int, coming: int
    ) -> None:
        self._rules = rules
        self._elements = elements
        self.known = True
        if gameweek == coming - 1:
            self._points = {element: int(row["event_points"]) for element, row in elements.items()}
            # A player whose bonus score is exactly zero is not listed; his points show that he was there.
            scored = {element for element, points in self._points.items() if points}
            self._appeared = scored | _listed(reading.body("fixtures"), gameweek)
            return
        try:
            rows = reading.body(f"event/{gameweek}/live")["elements"]
            self._points = {row["id"]: int(row["stats"]["total_points"]) for row in rows}
            self._appeared = {row["id"] for row in rows if row["stats"]["minutes"]}
        except (NotThere, BrokenSource, KeyError):
            self.known = False

    def points(self, element: int) -> int:
        return self._points.get(element, 0)

    def scored(self, team: PreviousDecision) -> int:
        """Points of a team after the game's substitutions, its hits deducted."""
        played: Callable[[int], bool] = self._appeared.__contains__
        position = {element: self._elements[element]["element_type"] for element in (*team.starters, *team.bench)}
        # A boosted bench plays whole: nobody is substituted.
        made = [] if team.chip == "bboost" else substitutions(self._rules, team.starters, team.bench, position, played)
        off = {leaving for _, leaving in made}
        eleven = [element for element in team.starters if element not in off] + [on for on, _ in made]
        bench = [element for element in position if element not in eleven]
        times = multipliers(eleven, bench, team.captain, team.vice, team.chip, played)
        return sum(count * self.points(element) for element, count in times.items()) - team.hit_cost_pts


def _listed(fixtures: Sequence[Mapping[str, Any]], gameweek: int) -> set[int]:
    """Players listed with a bonus score in a match of the gameweek."""
    listed = (
        stat[side]
        for match in fixtures
        if match["event"] == gameweek
        for stat in match["stats"]
        if stat["identifier"] == "bps"
        for side in ("h", "a")
    )
    return {one["element"] for side in listed for one in side}


def _done(team_id: int | None, advice: PreviousDecision, reading: Reading) -> tuple[int | None, bool | None]:
    """Points of what the manager did, hits deducted, and whether it was the advice."""
    if team_id is None:
        return None, None
    try:
        picks = reading.body(f"entry/{team_id}/event/{advice.gameweek}/picks")
    except NotThere:
        return None, None
    week = picks["entry_history"]
    captain = next((pick["element"] for pick in picks["picks"] if pick["is_captain"]), None)
    starters = {pick["element"] for pick in picks["picks"] if pick["position"] <= len(advice.starters)}
    # The game has put substitutes into the eleven it shows by now.
    for swap in picks.get("automatic_subs", ()):
        starters = starters - {swap["element_in"]} | {swap["element_out"]}
    same = starters == set(advice.starters) and captain == advice.captain
    same = same and picks.get("active_chip") == advice.chip
    return week["points"] - week["event_transfers_cost"], same
