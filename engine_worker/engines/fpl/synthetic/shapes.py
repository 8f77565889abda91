"""Puts a made-up season into the shapes of the official API of 2026/27: integers, and strings where it has strings."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from engine_worker.engines.fpl.seasons import CHIPS, LAST_GAMEWEEK, season_table
from engine_worker.engines.fpl.synthetic import crowd
from engine_worker.engines.fpl.synthetic.health import FIT, SHOWN, STATUS, SUSPENDED
from engine_worker.engines.fpl.synthetic.matches import COUNTED, GOALS_AWAY, GOALS_HOME
from engine_worker.engines.fpl.synthetic.season import Played, Row, Stage
from engine_worker.engines.fpl.synthetic.world import Club, Match, Player

SEASON = "2026-27"
_FIRST_DEADLINE = datetime(2026, 8, 21, 17, 30, tzinfo=UTC)
# Gameweeks that come a week later than the one before promises: national teams play.
_AFTER_A_BREAK = (4, 8, 12)
_FORM_WEEKS = 4
_SETTINGS = {
    "squad_squadplay": 11, "squad_squadsize": 15, "squad_team_limit": 3, "squad_total_spend": 1000,
    "transfers_cap": 20, "transfers_sell_on_fee": 0.5, "max_extra_free_transfers": 4, "timezone": "UTC",
}  # fmt: skip
_TYPES = (
    ("Goalkeeper", "GKP", 2, 1, 1),
    ("Defender", "DEF", 5, 3, 5),
    ("Midfielder", "MID", 5, 2, 5),
    ("Forward", "FWD", 3, 1, 3),
)
# Stats a fixture lists, as the API does, only where they are not zero.
_LISTED = (
    "goals_scored", "assists", "own_goals", "penalties_saved", "penalties_missed", "yellow_cards", "red_cards",
    "saves", "bonus", "bps", "defensive_contribution",
)  # fmt: skip
_SET_PIECES = ("penalties", "corners_and_indirect_freekicks", "direct_freekicks")
_RATES = ("starts", "clean_sheets", "saves", "goals_conceded", "defensive_contribution")
# Steps the API leaves out of what it states.
_UNSTATED = ("long_play_minutes", "goals_conceded_each", "saves_each", "defensive_contribution_from")
_NEWS = {
    75: "Knock - 75% chance of playing", 50: "Muscle injury - 50% chance of playing",
    25: "Ankle injury - 25% chance of playing", 0: "Knee injury - Unknown return date",
}  # fmt: skip


def game_settings(played: int = 0) -> dict[str, Any]:
    """The part of a bootstrap that states the rules: settings, positions, chips and the deadlines."""
    scoring = {name: value for name, value in season_table(SEASON)["scoring"].items() if name not in _UNSTATED}
    return {
        "game_settings": _SETTINGS,
        "game_config": {"settings": {"price_change_deadlines": []}, "rules": _SETTINGS, "scoring": scoring},
        "element_types": [
            {"id": number, "singular_name": name, "plural_name": name + "s", "singular_name_short": short,
             "squad_select": squad, "squad_min_play": low, "squad_max_play": high}
            for number, (name, short, squad, low, high) in enumerate(_TYPES, start=1)
        ],
        "chips": _chips(),
        "events": [_event(gameweek, played) for gameweek in range(1, LAST_GAMEWEEK + 1)],
    }  # fmt: skip


def before_deadline(gameweek: int) -> str:
    """Two days before the deadline of a gameweek; after the last one for the gameweek after it."""
    return (_deadline(gameweek) - timedelta(days=2, hours=7, minutes=30)).isoformat()


class Shapes:
    """The bodies of one season at one moment."""

    def __init__(self, chance: Random, clubs: list[Club], stage: Stage, played: Played, gameweeks: int) -> None:
        self._clubs, self._stage, self._played, self._gameweeks = clubs, stage, played, gameweeks
        # Drawn here, in order: bodies are the same whichever is asked for first.
        self._owned = {player.id: chance.lognormvariate(0, 0.5) * player.cost[-1] ** 3 for player in stage.players}
        self._luck = {
            player.id: (chance.lognormvariate(0, 0.2), chance.lognormvariate(0, 0.2)) for player in stage.players
        }
        self._crowd = crowd.luck(chance, self._owned)

    def bootstrap(self) -> dict[str, Any]:
        """The body of `bootstrap-static`."""
        return {
            **game_settings(self._gameweeks),
            "phases": [], "total_players": 11_000_000, "element_stats": [],
            "teams": [self._team(club) for club in self._clubs],
            "elements": self._elements(),
        }  # fmt: skip

    def _elements(self) -> list[dict[str, Any]]:
        elements = [self._element(player) for player in self._stage.players]
        crowd.add_transfers(elements, self._crowd, self._gameweeks)
        crowd.add_ranks(elements)
        return elements

    def fixtures(self) -> list[dict[str, Any]]:
        """The body of `fixtures`, with the statistics of the matches played."""
        rows: dict[int, list[Row]] = {}
        for history in self._played.rows.values():
            for row in history:
                rows.setdefault(row["fixture"], []).append(row)
        strength = {club.id: club.attack * club.defence for club in self._clubs}
        return [_fixture(match, strength, rows.get(match.id, [])) for match in self._stage.matches]

    def element_summary(self, element: int) -> dict[str, Any]:
        """The body of `element-summary/N`: a row for each match of his club, played or not."""
        player = self._stage.players[element - 1]
        rows = {row["fixture"]: row for row in self._played.rows[element]}
        own = [match for match in self._stage.matches if player.club in (match.home, match.away)]
        over = sorted((match for match in own if match.score), key=lambda match: (match.event or 0, match.id))
        coming = [match for match in own if not match.score]
        return {
            "fixtures": [{"id": match.id, "event": match.event, "is_home": match.home == player.club} for match in coming],
            "history": [_history_row(player, match, rows.get(match.id)) for match in over],
            "history_past": [],
        }  # fmt: skip

    def live(self, gameweek: int) -> dict[str, Any]:
        """The body of `event/N/live`: what everybody did in the gameweek, and the minutes of each of his matches."""
        matches = [match for match in self._stage.matches if match.event == gameweek and match.score]
        return {"elements": [self._live(player, matches) for player in self._stage.players]}

    def _live(self, player: Player, matches: list[Match]) -> dict[str, Any]:
        rows = {row["fixture"]: row for row in self._played.rows[player.id]}
        own = [match for match in matches if player.club in (match.home, match.away)]
        did = [rows[match.id] for match in own if match.id in rows]
        minutes = {match.id: rows[match.id]["minutes"] if match.id in rows else 0 for match in own}
        return {
            "id": player.id,
            "stats": {name: sum(row[name] for row in did) for name in ("minutes", "total_points")},
            "explain": [
                {"fixture": match, "stats": [{"identifier": "minutes", "points": 0, "value": value}]}
                for match, value in minutes.items()
            ],
        }

    def _team(self, club: Club) -> dict[str, Any]:
        over = [match for match in self._stage.matches if match.score and club.id in (match.home, match.away)]
        # This season's API has no strengths, so neither has the made-up one: ratings are ours to fit.
        zero = {f"strength_{what}_{where}": 0 for what in ("attack", "defence") for where in ("home", "away")}
        return {
            "id": club.id, "code": 1000 + club.id, "name": club.name, "short_name": club.short_name, "strength": None,
            "strength_overall_home": 3, "strength_overall_away": 3, **zero, "played": len(over), "unavailable": False,
            # The API has a table here and leaves it empty.
            "win": 0, "draw": 0, "loss": 0, "points": 0, "position": 0, "form": None, "team_division": None,
            "pulse_id": club.id,
        }  # fmt: skip

    def _element(self, player: Player) -> dict[str, Any]:
        rows, played = self._played.rows[player.id], self._gameweeks
        totals = {name: sum(row[name] for row in rows) for name in COUNTED}
        if played == 0:
            totals |= player.last_season
        appearances = len(rows) if played else max(totals["starts"], round(totals["minutes"] / 75))
        form = sum(row["total_points"] for row in rows if row["event"] > played - _FORM_WEEKS) / _FORM_WEEKS
        health = player.health[-1]
        chance, status = SHOWN[health], STATUS[health]
        news = "Suspended" if health == SUSPENDED else "" if chance is None else _NEWS[chance]
        cost, before = player.cost[-1], player.cost[-2] if len(player.cost) > 1 else player.cost[0]
        expected = self._expected(player, totals)
        wanted = min(1500 * self._owned[player.id] / sum(self._owned.values()), 70.0)
        return {
            "id": player.id, "code": 500_000 + player.id, "first_name": player.first_name,
            "second_name": player.second_name, "web_name": player.second_name, "team": player.club,
            "team_code": 1000 + player.club, "element_type": player.position, "now_cost": cost,
            "cost_change_start": cost - player.cost[0], "cost_change_start_fall": player.cost[0] - cost,
            "cost_change_event": cost - before, "cost_change_event_fall": before - cost,
            "status": status, "chance_of_playing_next_round": chance, "chance_of_playing_this_round": chance,
            "news": news, "news_added": None if health == FIT else before_deadline(played + 1)[:19] + "Z",
            "form": f"{form:.1f}", "points_per_game": f"{totals['total_points'] / max(appearances, 1):.1f}",
            "ep_this": f"{form:.1f}" if played else None,
            "ep_next": f"{form * (1 if chance is None else chance / 100):.1f}" if played < LAST_GAMEWEEK else None,
            "selected_by_percent": f"{wanted:.1f}", "event_points": self._played.points(player.id, played),
            "removed": False, "can_select": True, "can_transact": True, "special": False, "scout_risks": [],
            "photo": f"{500_000 + player.id}.jpg", "squad_number": None, "dreamteam_count": 0, "in_dreamteam": False,
            "value_form": f"{form / cost * 10:.1f}", "value_season": f"{totals['total_points'] / cost * 10:.1f}",
            **dict.fromkeys(f"{kind}_order" for kind in _SET_PIECES), **dict.fromkeys((f"{kind}_text" for kind in _SET_PIECES), ""),
            "price_change_percent": "0.0", "price_change_calibrating": False, "price_change_locked_until": None,
            "price_change_projections": [{"offset": day, "projected_percent": "0.0", "likelihood": 0} for day in range(3)],
            **totals, **expected, **_per_90(totals, expected),
            **crowd.indices(player.position, expected, totals["bps"], self._crowd[player.id]),
        }  # fmt: skip

    def _expected(self, player: Player, totals: dict[str, int]) -> dict[str, str]:
        """Expected goals and the like: what he did, drawn towards what his ability promised, as text."""
        nineties, luck = totals["minutes"] / 90, self._luck[player.id]
        goals = 0.5 * totals["goals_scored"] + 0.06 * player.threat * nineties * luck[0]
        assists = 0.5 * totals["assists"] + 0.04 * player.creation * nineties * luck[1]
        conceded = 0.6 * totals["goals_conceded"] + 0.5 * nineties
        return {
            "expected_goals": f"{goals:.2f}", "expected_assists": f"{assists:.2f}",
            "expected_goal_involvements": f"{goals + assists:.2f}", "expected_goals_conceded": f"{conceded:.2f}",
        }  # fmt: skip


def _event(gameweek: int, played: int) -> dict[str, Any]:
    """One gameweek; they are a week or two apart, and the one after those played is next."""
    deadline = _deadline(gameweek)
    return {
        "id": gameweek, "name": f"Gameweek {gameweek}", "deadline_time": _iso(deadline),
        "deadline_time_epoch": int(deadline.timestamp()), "finished": gameweek <= played,
        "data_checked": gameweek <= played, "is_previous": gameweek == played - 1, "is_current": gameweek == played,
        "is_next": gameweek == played + 1, "average_entry_score": 50 if gameweek <= played else 0,
        "chip_plays": [], "most_captained": None, "most_selected": None, "most_transferred_in": None,
        "most_vice_captained": None, "top_element": None, "top_element_info": None, "highest_score": None,
        "highest_scoring_entry": None, "ranked_count": 0, "transfers_made": 0, "release_time": None,
        "deadline_time_game_offset": 0, "cup_leagues_created": False, "h2h_ko_matches_created": False,
    }  # fmt: skip


def _chips() -> list[dict[str, Any]]:
    windows = [(name, 2 if name in ("wildcard", "freehit") else 1) for name in CHIPS]
    chips = [(name, start, 19) for name, start in windows] + [(name, 20, LAST_GAMEWEEK) for name, _ in windows]
    return [
        {"id": number, "name": name, "number": 1, "start_event": start, "stop_event": stop,
         "chip_type": "transfer" if name in ("wildcard", "freehit") else "team",
         "overrides": {"rules": {}, "scoring": {}, "element_types": [], "pick_multiplier": None}}
        for number, (name, start, stop) in enumerate(chips, start=1)
    ]  # fmt: skip


def _history_row(player: Player, match: Match, row: Row | None) -> dict[str, Any]:
    counts = {name: row[name] if row else 0 for name in COUNTED}
    at_home, gameweek = player.club == match.home, match.event or 0
    home_score, away_score = match.score or (None, None)
    return {
        "element": player.id, "fixture": match.id, "round": gameweek, "kickoff_time": _kickoff(match),
        "was_home": at_home, "opponent_team": match.away if at_home else match.home, "team_h_score": home_score,
        "team_a_score": away_score, "value": player.cost[gameweek - 1], **counts,
    }  # fmt: skip


def _per_90(totals: dict[str, int], expected: dict[str, str]) -> dict[str, float]:
    nineties = totals["minutes"] / 90
    counted = {name: float(totals[name]) for name in _RATES} | {name: float(value) for name, value in expected.items()}
    return {f"{name}_per_90": round(value / nineties, 2) if nineties else 0 for name, value in counted.items()}


def _fixture(match: Match, strength: dict[int, float], rows: list[Row]) -> dict[str, Any]:
    over = match.score is not None
    home_score, away_score = match.score or (None, None)
    edge = GOALS_HOME / GOALS_AWAY
    return {
        "id": match.id, "code": 9_000_000 + match.id, "event": match.event, "kickoff_time": _kickoff(match),
        "team_h": match.home, "team_a": match.away, "team_h_score": home_score, "team_a_score": away_score,
        "team_h_difficulty": _difficulty(strength[match.away] / edge),
        "team_a_difficulty": _difficulty(strength[match.home] * edge),
        "started": over, "finished": over, "finished_provisional": over, "minutes": 90 if over else 0,
        "provisional_start_time": False, "pulse_id": 70_000 + match.id, "stats": [_listed(name, rows) for name in _LISTED] if over else [],
    }  # fmt: skip


def _difficulty(strength: float) -> int:
    """The API's 2–5 for an opponent's strength (1.0 is average, home advantage included)."""
    return 2 if strength < 0.75 else 3 if strength < 1.15 else 4 if strength < 1.6 else 5


def _listed(name: str, rows: list[Row]) -> dict[str, Any]:
    def side(home: int) -> list[dict[str, int]]:
        some = [
            {"value": row[name], "element": row["element"]} for row in rows if row["was_home"] == home and row[name]
        ]
        return sorted(some, key=lambda one: (-one["value"], one["element"]))

    return {"identifier": name, "a": side(0), "h": side(1)}


def _kickoff(match: Match) -> str | None:
    return None if match.event is None else _iso(_deadline(match.event) + timedelta(hours=2 + match.id % 48))


def _deadline(gameweek: int) -> datetime:
    breaks = sum(gameweek >= after for after in _AFTER_A_BREAK)
    return _FIRST_DEADLINE + timedelta(days=7 * (gameweek - 1 + breaks))


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
