"""Plays the matches of a made-up season: goals, minutes and everything the game counts. PURE but for its `Random`.

Each player's match is a row with the API's names, and its points come from the same scoring rules as a real one, so
totals, form and prices of the season agree with its history by construction.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from math import exp
from random import Random

from engine_worker.engines.fpl.rules import DEFENDER, FORWARD, GOALKEEPER, MIDFIELDER, Ruleset, match_points
from engine_worker.engines.fpl.synthetic.world import PLAYED, Club, Match, Player

GOALS_HOME, GOALS_AWAY = 1.55, 1.25
_ASSISTED, _OWN_GOAL, _YELLOW, _RED, _INJURED = 0.72, 0.03, 0.12, 0.004, 0.03
# Defensive actions in 90 minutes, chosen so that a quarter of defenders and a sixth of midfielders reach the mark.
_CONTRIBUTIONS = {GOALKEEPER: 1.0, DEFENDER: 7.9, MIDFIELDER: 8.6, FORWARD: 4.5}
COUNTED = (
    "minutes", "goals_scored", "assists", "clean_sheets", "goals_conceded", "own_goals", "penalties_saved",
    "penalties_missed", "yellow_cards", "red_cards", "saves", "bonus", "bps", "starts", "defensive_contribution",
    "total_points",
)  # fmt: skip
Row = dict[str, int]


@dataclass
class Played:
    """The season so far: rows by player id, and price changes made along the way on the players themselves."""

    rows: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def points(self, player: int, gameweek: int) -> int:
        """Points of one player in one gameweek, all matches together."""
        return sum(row["total_points"] for row in self.rows[player] if row["event"] == gameweek)

    def minutes(self, player: int, gameweek: int) -> int:
        """Minutes of one player in one gameweek."""
        return sum(row["minutes"] for row in self.rows[player] if row["event"] == gameweek)

    def form(self, player: int, before: int, weeks: int = 4) -> float:
        """Mean points per match over the `weeks` gameweeks before `before`; what a manager looks at."""
        recent = [row["total_points"] for row in self.rows[player] if before - weeks <= row["event"] < before]
        return sum(recent) / max(len(recent), 1)


def play_season(rng: Random, rules: Ruleset, clubs: list[Club], players: list[Player], matches: list[Match]) -> Played:
    """Plays the gameweeks up to `PLAYED`, setting scores, prices and injuries on what it is given."""
    played = Played()
    squads = {club.id: [player for player in players if player.club == club.id] for club in clubs}
    by_id = {club.id: club for club in clubs}
    for gameweek in range(1, PLAYED + 1):
        for match in (match for match in matches if match.event == gameweek):
            _play(rng, rules, by_id[match.home], by_id[match.away], match, squads, played)
        _injure(rng, players, gameweek)
        _reprice(rng, players, played, gameweek)
    return played


@dataclass
class _OnPitch:
    player: Player
    on: int
    off: int
    row: Row

    def there(self, minute: int) -> bool:
        return self.on <= minute < self.off


def _play(
    rng: Random, rules: Ruleset, home: Club, away: Club, match: Match,
    squads: dict[int, list[Player]], played: Played,
) -> None:  # fmt: skip
    assert match.event is not None
    sides = [
        _side(rng, club, match, [p for p in squads[club.id] if p.out_until <= match.event]) for club in (home, away)
    ]
    expected = (GOALS_HOME * home.attack / away.defence, GOALS_AWAY * away.attack / home.defence)
    goals = [sorted(rng.randrange(1, 90) for _ in range(poisson(rng, rate))) for rate in expected]
    match.score = (len(goals[0]), len(goals[1]))
    for scoring, conceding, minutes in ((0, 1, goals[0]), (1, 0, goals[1])):
        for minute in minutes:
            _goal(rng, sides[scoring], sides[conceding], minute)
    everyone = [*sides[0], *sides[1]]
    for one in everyone:
        _count_the_rest(rng, one)
    _give_bonus(rng, everyone)
    for one in everyone:
        one.row["total_points"] = match_points(rules, one.player.position, one.row)
        played.rows[one.player.id].append(one.row)


def _side(rng: Random, club: Club, match: Match, fit: list[Player]) -> list[_OnPitch]:
    """Eleven starters by ability and some rotation, and the substitutes who came on for them."""
    ranked = sorted(fit, key=lambda player: player.ability * rng.lognormvariate(0, 0.12), reverse=True)
    need = dict(zip((GOALKEEPER, DEFENDER, MIDFIELDER, FORWARD), (1, *club.shape), strict=True))
    starters = [p for place, count in need.items() for p in [q for q in ranked if q.position == place][:count]]
    side = [_OnPitch(player, 0, 90, _blank_row(match, player, club.id == match.home, 1)) for player in starters]
    benched = [player for player in ranked if player not in starters and player.position != GOALKEEPER]
    tired = rng.sample([one for one in side if one.player.position != GOALKEEPER], k=min(4, len(benched)))
    for leaving, coming in zip(tired, benched, strict=False):
        leaving.off = rng.randrange(52, 89)
        side.append(_OnPitch(coming, leaving.off, 90, _blank_row(match, coming, club.id == match.home, 0)))
    for one in side:
        one.row["minutes"] = one.off - one.on
    return side


def _blank_row(match: Match, player: Player, was_home: bool, starts: int) -> Row:
    row = dict.fromkeys(COUNTED, 0)
    row |= {"element": player.id, "fixture": match.id, "event": match.event or 0, "was_home": int(was_home)}
    row |= {"opponent_team": match.away if was_home else match.home, "starts": starts}
    return row


def _goal(rng: Random, scoring: list[_OnPitch], conceding: list[_OnPitch], minute: int) -> None:
    attackers = [one for one in scoring if one.there(minute)]
    defenders = [one for one in conceding if one.there(minute)]
    for one in defenders:
        one.row["goals_conceded"] += 1
    if rng.random() < _OWN_GOAL:
        rng.choice(defenders).row["own_goals"] += 1
        return
    scorer = rng.choices(attackers, [one.player.threat + 1e-3 for one in attackers])[0]
    scorer.row["goals_scored"] += 1
    others = [one for one in attackers if one is not scorer]
    if rng.random() < _ASSISTED:
        rng.choices(others, [one.player.creation + 1e-3 for one in others])[0].row["assists"] += 1


def _count_the_rest(rng: Random, one: _OnPitch) -> None:
    row, share = one.row, one.row["minutes"] / 90
    row["clean_sheets"] = int(row["minutes"] >= 60 and row["goals_conceded"] == 0)
    row["saves"] = poisson(rng, 2.6 * share) if one.player.position == GOALKEEPER else 0
    row["yellow_cards"] = int(rng.random() < _YELLOW * share)
    row["red_cards"] = int(rng.random() < _RED * share)
    row["defensive_contribution"] = poisson(rng, _CONTRIBUTIONS[one.player.position] * share)
    if row["red_cards"]:
        one.player.out_until, one.player.suspended = row["event"] + 2, True


def _give_bonus(rng: Random, everyone: list[_OnPitch]) -> None:
    """Three, two and one points to the best three by a score like the official one."""
    for one in everyone:
        row, behind = one.row, one.player.position in (GOALKEEPER, DEFENDER)
        score = 6 if row["minutes"] >= 60 else 3
        score += row["goals_scored"] * (12 if behind else 20) + row["assists"] * 9 + row["saves"] * 2
        score += 12 * row["clean_sheets"] * behind + row["defensive_contribution"] // 2
        score -= 3 * row["yellow_cards"] + 9 * row["red_cards"] + 6 * row["own_goals"]
        row["bps"] = max(score + rng.randrange(0, 6), 1)
    best = sorted(everyone, key=lambda one: (-one.row["bps"], one.player.id))[:3]
    for bonus, one in zip((3, 2, 1), best, strict=True):
        one.row["bonus"] = bonus


def _injure(rng: Random, players: list[Player], gameweek: int) -> None:
    for player in players:
        if player.out_until <= gameweek + 1:
            player.suspended = False
            if rng.random() < _INJURED:
                player.out_until = gameweek + 2 + int(rng.expovariate(0.5))


def _reprice(rng: Random, players: list[Player], played: Played, gameweek: int) -> None:
    """Moves about one price in eight by a tenth, towards form, as the crowd would."""
    for player in players:
        form = played.form(player.id, gameweek + 1) - 0.035 * player.cost[-1]
        chance = min(max(form, -2), 4) / 12
        step = (1 if chance > 0 else -1) if rng.random() < abs(chance) else 0
        player.cost.append(max(player.cost[-1] + step, 36))


def poisson(rng: Random, rate: float) -> int:
    """A Poisson draw by multiplying uniforms, quick enough for the small rates here."""
    limit, product, count = exp(-rate), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count
