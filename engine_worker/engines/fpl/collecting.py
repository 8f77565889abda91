"""Reads a source and keeps what a plan needs: the output of the phase `collecting_data`. No heavy imports.

The output is recorded and handed to a later attempt, so it is small (columns, not API objects) and complete: the
phases after this one never ask the source again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from engine_worker.engines.fpl.entries import booked_states, planned_chip, starting_state
from engine_worker.engines.fpl.lookback import LookedBack, look_back
from engine_worker.engines.fpl.params import AvailabilityOverride, FplParams
from engine_worker.engines.fpl.rules import costs_nothing
from engine_worker.engines.fpl.seasons import LAST_GAMEWEEK, POSITION_NAMES, Ruleset, disagreements, ruleset
from engine_worker.engines.fpl.sheets import SCORES_KEPT, attendance, fielded_of, gameweeks_lately, sheets_of, stayed_of
from engine_worker.engines.fpl.source import BrokenSource, NotThere, Reading
from engine_worker.engines.fpl.state import SquadState
from phaseline import Previous

_DAY_S = 86400.0
_COUNTED = (
    "goals_scored", "assists", "saves", "bonus", "yellow_cards", "red_cards", "own_goals", "penalties_missed",
    "penalties_saved", "defensive_contribution",
)  # fmt: skip
# Match → element → minutes.
Minutes = Mapping[int, Mapping[int, int]]
_NO_MINUTES: Minutes = {}


class Totals(NamedTuple):
    """What a player did this season, by the API's names; `deducted` is the points of cards, own goals and penalties."""

    goals: int = 0
    assists: int = 0
    saves: int = 0
    bonus: int = 0
    deducted: int = 0
    threat: float = 0.0
    creativity: float = 0.0
    defensive_contribution: int = 0


class PriceForecast(NamedTuple):
    """The API's own forecast of one price change to come: −5 a sure fall, 5 a sure rise; 100 % is the threshold."""

    offset: int
    likelihood: int
    percent: float


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
    # Said by the caller: the chance that he can play, and the last gameweek it holds for (None: only the first).
    override: tuple[float, int | None] | None = None
    # His bonus scores in his club's last matches, the newest first; None where he did not appear.
    scores: tuple[int | None, ...] = ()
    # His minutes in the same matches; None where the source does not say.
    minutes_each: tuple[int | None, ...] = ()
    # Transfers of all managers this gameweek, in and out, and how much older the news on him is, in days, than the newest on anybody.
    transfers_in: int = 0
    transfers_out: int = 0
    news_days: float | None = None
    totals: Totals = Totals()
    # By how many tenths his price moved this gameweek, and where it goes by the API's forecast: only changes it sees coming,
    # None where it makes none for him.
    price_moved: int = 0
    price_forecast: tuple[PriceForecast, ...] | None = None
    # As `chance`, but of the gameweek under way or just over; None where nothing was said of him.
    chance_before: int | None = None


class MatchRow(NamedTuple):
    """One fixture of a planned gameweek; difficulty 1–5 as the API rates it."""

    gameweek: int
    home: int
    away: int
    home_difficulty: int
    away_difficulty: int


class ScoreRow(NamedTuple):
    """One match played, so many days before the newest of them."""

    home: int
    away: int
    home_goals: int
    away_goals: int
    days_ago: float = 0.0


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
    # Gameweeks from the next one to the first planned.
    ahead: int = 0
    deadline_time: str
    # When prices change next, as far as the API says: those that `PriceForecast.offset` counts.
    price_times: list[str] = []
    clubs: dict[int, str]
    players: list[PlayerRow]
    fixtures: list[MatchRow]
    scores: list[ScoreRow]
    # Players each club fielded in a match, on average of the last ten.
    fielded: dict[int, float] = {}
    # Of each group of `staying.py`: how many there were before matches of late, and how many of them played.
    stayed: dict[int, tuple[int, int]] = {}
    squad: SquadState
    # The same if one of these chips is played in the first gameweek, which changes what booked transfers come to.
    instead: dict[str, SquadState] = {}
    looked_back: LookedBack | None = None
    warnings: list[Warned] = []

    def begun_with(self, chip: str | None) -> "Collected":
        """What a plan rests on that plays `chip` in the first gameweek."""
        if chip is None or chip not in self.instead:
            return self
        squad = self.instead[chip]
        others = [warning for warning in self.warnings if warning.code != "booked"]
        told = Warned(code="booked", message=_booked_told(chip, squad))
        return self.model_copy(update={"squad": squad, "instead": {}, "warnings": [*others, told]})


def next_gameweek(bootstrap: Mapping[str, Any]) -> int | None:
    """The gameweek whose deadline is next, or None when the season is over."""
    return next((int(event["id"]) for event in bootstrap["events"] if event["is_next"]), None)


def collect(params: FplParams, source_name: str, reading: Reading, previous: Previous | None = None) -> Collected:
    """Reads the source for `params`, which `check` found valid, and looks back at the job before.

    Raises `NotThere`, `BrokenSource`, `KeyError`.
    """
    bootstrap, fixtures = reading.body("bootstrap-static"), reading.body("fixtures")
    rules = ruleset(bootstrap)
    coming = next_gameweek(bootstrap)
    gameweek = params.gameweek or coming or LAST_GAMEWEEK
    gameweeks = list(range(gameweek, min(gameweek + params.horizon - 1, LAST_GAMEWEEK) + 1))
    elements = {element["id"]: element for element in bootstrap["elements"]}
    before = starting_state(params, rules, elements, reading, coming or gameweek)
    squad, instead = booked_states(params, rules, elements, before, gameweek)
    owned = {holding.element for state in (squad, *instead.values()) for holding in state.holdings}
    deadlines = {event["id"]: event["deadline_time"] for event in bootstrap["events"]}
    minutes = _minutes(reading, gameweeks_lately(fixtures))
    return Collected(
        source=source_name,
        snapshot_sha256=reading.sha256(),
        snapshot_time=reading.taken_at,
        rules=rules,
        gameweeks=gameweeks,
        ahead=gameweek - (coming or gameweek),
        deadline_time=deadlines[gameweek],
        price_times=_price_times(bootstrap),
        clubs={team["id"]: team["short_name"] for team in bootstrap["teams"]},
        players=players_of(bootstrap["elements"], fixtures, owned, params.availability_overrides, minutes),
        fixtures=coming_fixtures(fixtures, gameweeks),
        scores=scores_of(fixtures),
        fielded=fielded_of(fixtures),
        stayed=stayed_of(fixtures),
        squad=squad,
        instead=instead,
        looked_back=look_back(params, rules, reading, coming or LAST_GAMEWEEK + 1, source_name, previous),
        warnings=_warnings(params, rules, squad, gameweeks, elements, coming) + _source_warnings(bootstrap, reading),
    )


def players_of(
    elements: Sequence[Mapping[str, Any]],
    fixtures: Sequence[Mapping[str, Any]],
    owned: AbstractSet[int] = frozenset(),
    overrides: Sequence[AvailabilityOverride] = (),
    minutes: Minutes = _NO_MINUTES,
) -> list[PlayerRow]:
    """Everyone who could be bought, and the owned; those who left their club and managers are no use."""
    sheets = sheets_of(fixtures)
    # The age of news is counted from the newest of all, so that it is the same whenever a snapshot is read.
    news = [moment for element in elements if (moment := _moment(element.get("news_added")))]
    newest = max(news, default=None)
    recent, longer, seen = attendance(sheets)
    last = {club: of_club[: -SCORES_KEPT - 1 : -1] for club, of_club in sheets.items()}
    overridden = {one.element: (one.chance / 100, one.until_gameweek) for one in overrides}
    return [
        _player_row(element, recent, longer, seen)._replace(
            override=overridden.get(element["id"]),
            scores=tuple(sheet.scores.get(element["id"]) for sheet in last.get(element["team"], [])),
            minutes_each=tuple(
                minutes[sheet.match].get(element["id"], 0) if sheet.match in minutes else None
                for sheet in last.get(element["team"], [])
            ),
            transfers_in=element.get("transfers_in_event") or 0,
            transfers_out=element.get("transfers_out_event") or 0,
            news_days=_age(element.get("news_added"), newest),
            totals=_totals(element),
            price_moved=element.get("cost_change_event") or 0,
            price_forecast=_price_forecast(element),
            chance_before=element.get("chance_of_playing_this_round"),
        )
        for element in elements
        if element["id"] in owned or (element["element_type"] in POSITION_NAMES and _for_sale(element))
    ]


def scores_of(fixtures: Sequence[Mapping[str, Any]]) -> list[ScoreRow]:
    """The matches played."""
    played = [match for match in fixtures if match["finished"] and match["team_h_score"] is not None]
    kicked_off = [_moment(match["kickoff_time"]) for match in played]
    newest = max((moment for moment in kicked_off if moment), default=None)
    return [
        ScoreRow(
            match["team_h"],
            match["team_a"],
            match["team_h_score"],
            match["team_a_score"],
            round((newest - moment).total_seconds() / _DAY_S, 2) if newest and moment else 0.0,
        )
        for match, moment in zip(played, kicked_off, strict=True)
    ]


def minutes_of(live: Mapping[str, Any]) -> dict[int, dict[int, int]]:
    """Match → element → minutes, of the body of `event/N/live`; who did not play is not in it."""
    found: dict[int, dict[int, int]] = {}
    for element in live["elements"]:
        for match in element["explain"]:
            played = sum(stat["value"] for stat in match["stats"] if stat["identifier"] == "minutes")
            found.setdefault(match["fixture"], {})[element["id"]] = played
    return found


def _moment(text: str | None) -> datetime | None:
    """A time of the API; None for none or one that is not understood."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _age(said: str | None, now: datetime | None) -> float | None:
    moment = _moment(said)
    return None if moment is None or now is None else round(max((now - moment).total_seconds() / _DAY_S, 0.0), 2)


def _price_times(bootstrap: Mapping[str, Any]) -> list[str]:
    settings = (bootstrap.get("game_config") or {}).get("settings") or {}
    times = settings.get("price_change_deadlines") or []
    return [str(time) for time in times if _moment(str(time))]


def _price_forecast(element: Mapping[str, Any]) -> tuple[PriceForecast, ...] | None:
    """Seasons before 2026/27 have none; of a player whose figures the API still works out it is not one."""
    said = element.get("price_change_projections")
    if not isinstance(said, list) or element.get("price_change_calibrating"):
        return None
    try:
        return tuple(
            PriceForecast(int(one["offset"]), int(one["likelihood"]), float(one["projected_percent"]))
            for one in said
            if int(one["likelihood"])
        )
    except (KeyError, TypeError, ValueError):
        return None  # another shape than is known: nothing is lost but a hint


def _totals(element: Mapping[str, Any]) -> Totals:
    got = {name: element.get(name) or 0 for name in _COUNTED}
    deducted = -got["yellow_cards"] - 3 * got["red_cards"] - 2 * got["own_goals"] - 2 * got["penalties_missed"]
    return Totals(
        goals=got["goals_scored"],
        assists=got["assists"],
        saves=got["saves"],
        bonus=got["bonus"],
        deducted=deducted + 5 * got["penalties_saved"],
        threat=float(element.get("threat") or 0),
        creativity=float(element.get("creativity") or 0),
        defensive_contribution=got["defensive_contribution"],
    )


def _for_sale(element: Mapping[str, Any]) -> bool:
    return element["status"] not in ("u", "n") and not element.get("removed") and element.get("can_select", True)


def _player_row(
    element: Mapping[str, Any], recent: Mapping[int, float], longer: Mapping[int, float], seen: Mapping[int, int]
) -> PlayerRow:
    identity, minutes = element["id"], element["minutes"]
    # Seasons before 2022/23 do not count starts; a starter stays on for about 85 minutes.
    starts = round(minutes / 85) if element.get("starts") is None else element["starts"]
    average, points = float(element["points_per_game"] or 0), element["total_points"]
    # Points per game counts appearances exactly but says so with one decimal; the matches' own lists leave out a
    # player whose bonus score is zero. Neither may fall below what starts and minutes prove.
    by_average = round(points / average) if average else 0
    return PlayerRow(
        identity, element["code"], element["web_name"], element["team"], element["element_type"], element["now_cost"],
        element["status"], element.get("chance_of_playing_next_round"), minutes, starts,
        max(seen.get(identity, 0) or by_average, starts, -(-minutes // 90)), points,
        round(recent.get(identity, 0.0), 3), round(longer.get(identity, 0.0), 3), float(element["selected_by_percent"] or 0),
    )  # fmt: skip


def _minutes(reading: Reading, gameweeks: Sequence[int]) -> Minutes:
    """Minutes by match. A source may not have them, or not now: bonus scores stand in then, no reason to wait."""
    found: dict[int, dict[int, int]] = {}
    for gameweek in gameweeks:
        try:
            found |= minutes_of(reading.body(f"event/{gameweek}/live"))
        except NotThere:
            continue
        except BrokenSource:
            break  # the next page would only be waited for in vain
    return found


def coming_fixtures(fixtures: Sequence[Mapping[str, Any]], gameweeks: Sequence[int]) -> list[MatchRow]:
    """The matches of some gameweeks."""
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
    if params.team_id is not None and params.free_transfers is None and not params.booked_transfers:
        text = "transfers already made for this gameweek are not public before its deadline and are not counted"
        found.append(Warned(code="pending_transfers", message=text))
    if unlimited := [gameweek for gameweek in gameweeks if costs_nothing(rules, gameweek)]:
        found.append(Warned(code="unlimited", message=f"transfers cost nothing in gameweek {unlimited[0]}"))
    if params.team_id is not None and not squad.replay.weeks_checked:
        text = (
            "no squad picked yet: the plan starts from the cheapest legal one with the rest of the budget in the bank"
        )
        found.append(Warned(code="new_entry", message=text))
    if params.booked_transfers:
        found.append(Warned(code="booked", message=_booked_told(planned_chip(params, gameweeks[0]), squad)))
    return found


def _booked_told(chip: str | None, squad: SquadState) -> str:
    """What became of the transfers already made."""
    if chip == "freehit":
        return "transfers already made are of the free hit: its squad is chosen anew, the one before them comes back"
    told = f"transfers already made are in the squad, their {squad.booked_hit_cost} points are spent"
    if squad.given_back:
        told = f"transfers already made are in the squad, the {chip} gives their {squad.given_back} points back"
    return told


def _source_warnings(bootstrap: Mapping[str, Any], reading: Reading) -> list[Warned]:
    found = [Warned(code="rules", message=text) for text in disagreements(bootstrap)]
    if reading.stale:
        found.append(Warned(code="stale", message=f"older data of {reading.taken_at} stands in: {reading.stale}"))
    return found
