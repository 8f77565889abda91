"""Puts a made-up season into the shapes of the official API: integers, and strings where the API has strings."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from engine_worker.engines.fpl.rules import LAST_GAMEWEEK
from engine_worker.engines.fpl.synthetic.matches import COUNTED, GOALS_AWAY, GOALS_HOME, Played
from engine_worker.engines.fpl.synthetic.world import PLAYED, Club, Match, Player

_FIRST_DEADLINE = datetime(2026, 8, 21, 17, 30, tzinfo=UTC)
# Gameweeks that come a week later than the one before promises: national teams play.
_AFTER_A_BREAK = (4, 8, 12)
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


def game_settings() -> dict[str, Any]:
    """The part of a bootstrap that states the rules: settings, positions, chips and the deadlines."""
    return {
        "game_settings": _SETTINGS,
        "element_types": [
            {"id": number, "singular_name": name, "plural_name": name + "s", "singular_name_short": short,
             "squad_select": squad, "squad_min_play": low, "squad_max_play": high}
            for number, (name, short, squad, low, high) in enumerate(_TYPES, start=1)
        ],
        "chips": _chips(),
        "events": calendar_events(),
    }  # fmt: skip


def calendar_events() -> list[dict[str, Any]]:
    """Thirty-eight gameweeks, a week or two apart; the one after those played is next."""
    return [
        {"id": gameweek, "name": f"Gameweek {gameweek}", "deadline_time": _iso(_deadline(gameweek)),
         "finished": gameweek <= PLAYED, "data_checked": gameweek <= PLAYED, "is_previous": gameweek == PLAYED - 1,
         "is_current": gameweek == PLAYED, "is_next": gameweek == PLAYED + 1}
        for gameweek in range(1, LAST_GAMEWEEK + 1)
    ]  # fmt: skip


def bootstrap_body(
    rng: Random, clubs: list[Club], players: list[Player], matches: list[Match], played: Played
) -> dict[str, Any]:
    """The body of `bootstrap-static`."""
    wanted = {player.id: rng.lognormvariate(0, 0.5) * player.cost[-1] ** 3 for player in players}
    total = sum(wanted.values())
    return {
        **game_settings(),
        "phases": [], "total_players": 11_000_000, "element_stats": [],
        "teams": [_team(club, matches) for club in clubs],
        "elements": [_element(rng, player, played, min(1500 * wanted[player.id] / total, 70.0)) for player in players],
    }  # fmt: skip


def fixtures_body(clubs: list[Club], matches: list[Match], played: Played) -> list[dict[str, Any]]:
    """The body of `fixtures`, with the statistics of the matches played."""
    rows: dict[int, list[dict[str, int]]] = {}
    for history in played.rows.values():
        for row in history:
            rows.setdefault(row["fixture"], []).append(row)
    strength = {club.id: club.attack * club.defence for club in clubs}
    return [_fixture(match, strength, rows.get(match.id, [])) for match in matches]


def _chips() -> list[dict[str, Any]]:
    windows = [(name, 2 if name in ("wildcard", "freehit") else 1) for name in ("wildcard", "freehit", "bboost", "3xc")]
    chips = [(name, start, 19) for name, start in windows] + [(name, 20, LAST_GAMEWEEK) for name, _ in windows]
    return [
        {"id": number, "name": name, "number": 1, "start_event": start, "stop_event": stop,
         "chip_type": "transfer" if name in ("wildcard", "freehit") else "team", "overrides": {}}
        for number, (name, start, stop) in enumerate(chips, start=1)
    ]  # fmt: skip


def _team(club: Club, matches: list[Match]) -> dict[str, Any]:
    over = [match for match in matches if match.score and club.id in (match.home, match.away)]
    # This season's API has no strengths, so neither has the made-up one: ratings are ours to fit.
    zero = {f"strength_{what}_{where}": 0 for what in ("attack", "defence") for where in ("home", "away")}
    return {
        "id": club.id, "code": 1000 + club.id, "name": club.name, "short_name": club.short_name, "strength": None,
        "strength_overall_home": 3, "strength_overall_away": 3, **zero, "played": len(over), "unavailable": False,
    }  # fmt: skip


def _element(rng: Random, player: Player, played: Played, owned: float) -> dict[str, Any]:
    rows = played.rows[player.id]
    totals = {name: sum(row[name] for row in rows) for name in COUNTED}
    form = sum(row["total_points"] for row in rows if row["event"] > PLAYED - 4) / 4
    status, chance, news = _flag(rng, player)
    return {
        "id": player.id, "code": 500_000 + player.id, "first_name": player.first_name,
        "second_name": player.second_name, "web_name": player.second_name, "team": player.club,
        "team_code": 1000 + player.club, "element_type": player.position, "now_cost": player.cost[-1],
        "cost_change_start": player.cost[-1] - player.cost[0], "cost_change_event": player.cost[-1] - player.cost[-2],
        "status": status, "chance_of_playing_next_round": chance, "chance_of_playing_this_round": chance, "news": news,
        "news_added": None if chance is None else "2026-11-24T09:00:00Z",
        "form": f"{form:.1f}", "points_per_game": f"{totals['total_points'] / max(len(rows), 1):.1f}",
        "ep_this": f"{form:.1f}", "ep_next": f"{form * (1 if chance is None else chance / 100):.1f}",
        "selected_by_percent": f"{owned:.1f}", "event_points": played.points(player.id, PLAYED),
        "removed": False, "can_select": True, "can_transact": True,
        **totals, **_expected(rng, player, totals),
    }  # fmt: skip


def _expected(rng: Random, player: Player, totals: dict[str, int]) -> dict[str, str]:
    """Expected goals and the like: what he did, drawn towards what his ability promised, as text."""
    nineties = totals["minutes"] / 90
    goals = max(0.5 * totals["goals_scored"] + 0.06 * player.threat * nineties * rng.lognormvariate(0, 0.2), 0)
    assists = max(0.5 * totals["assists"] + 0.04 * player.creation * nineties * rng.lognormvariate(0, 0.2), 0)
    conceded = 0.6 * totals["goals_conceded"] + 0.5 * nineties
    return {
        "expected_goals": f"{goals:.2f}", "expected_assists": f"{assists:.2f}",
        "expected_goal_involvements": f"{goals + assists:.2f}", "expected_goals_conceded": f"{conceded:.2f}",
    }  # fmt: skip


def _flag(rng: Random, player: Player) -> tuple[str, int | None, str]:
    """Status, chance of playing next and news; chance is None for a player nobody worries about."""
    missing = player.out_until - (PLAYED + 1)
    if missing <= 0:
        return ("d", 75, "Knock, 75% chance of playing") if rng.random() < 0.03 else ("a", None, "")
    if player.suspended:
        return "s", 0, f"Suspended until gameweek {player.out_until}"
    if missing == 1 and rng.random() < 0.5:
        chance = rng.choice((25, 50))
        return "d", chance, f"Muscle strain, {chance}% chance of playing"
    return "i", 0, "Knee injury, unknown return date"


def _fixture(match: Match, strength: dict[int, float], rows: list[dict[str, int]]) -> dict[str, Any]:
    over = match.score is not None
    home_score, away_score = match.score or (None, None)
    kickoff = None if match.event is None else _iso(_deadline(match.event) + timedelta(hours=2 + match.id % 48))
    edge = GOALS_HOME / GOALS_AWAY
    return {
        "id": match.id, "code": 9_000_000 + match.id, "event": match.event, "kickoff_time": kickoff,
        "team_h": match.home, "team_a": match.away, "team_h_score": home_score, "team_a_score": away_score,
        "team_h_difficulty": _difficulty(strength[match.away] / edge),
        "team_a_difficulty": _difficulty(strength[match.home] * edge),
        "started": over, "finished": over, "finished_provisional": over, "minutes": 90 if over else 0,
        "provisional_start_time": False, "stats": [_listed(name, rows) for name in _LISTED] if over else [],
    }  # fmt: skip


def _difficulty(strength: float) -> int:
    """The API's 2–5 for an opponent's strength (1.0 is average, home advantage included)."""
    return 2 if strength < 0.75 else 3 if strength < 1.15 else 4 if strength < 1.6 else 5


def _listed(name: str, rows: list[dict[str, int]]) -> dict[str, Any]:
    def side(home: int) -> list[dict[str, int]]:
        some = [
            {"value": row[name], "element": row["element"]} for row in rows if row["was_home"] == home and row[name]
        ]
        return sorted(some, key=lambda one: (-one["value"], one["element"]))

    return {"identifier": name, "a": side(0), "h": side(1)}


def _deadline(gameweek: int) -> datetime:
    breaks = sum(gameweek >= after for after in _AFTER_A_BREAK)
    return _FIRST_DEADLINE + timedelta(days=7 * (gameweek - 1 + breaks))


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
