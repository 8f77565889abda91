"""The season that happened: gameweek after gameweek, with prices and health along the way."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random

import numpy as np

from engine_worker.engines.fpl.seasons import Ruleset
from engine_worker.engines.fpl.synthetic.health import FIT, after_gameweek, available
from engine_worker.engines.fpl.synthetic.matches import COUNTED, Counts, Side, play_match
from engine_worker.engines.fpl.synthetic.world import Club, Match, Player

Row = dict[str, int]


@dataclass
class Played:
    """What happened: a row by player and match he came on in, with the API's names for what it counts."""

    rows: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))
    _points: Counter[tuple[int, int]] = field(default_factory=Counter)
    _minutes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Writes down one player's match."""
        player = row["element"]
        self.rows[player].append(row)
        self._points[player, row["event"]] += row["total_points"]
        self._minutes[player, row["event"]] += row["minutes"]

    def points(self, player: int, gameweek: int) -> int:
        """Points of one player in one gameweek, all matches together."""
        return self._points[player, gameweek]

    def minutes(self, player: int, gameweek: int) -> int:
        """Minutes of one player in one gameweek."""
        return self._minutes[player, gameweek]

    def form(self, player: int, before: int, weeks: int = 4) -> float:
        """Mean points per match over the `weeks` gameweeks before `before`; what a manager looks at."""
        recent = [row["total_points"] for row in self.rows[player] if before - weeks <= row["event"] < before]
        return sum(recent) / max(len(recent), 1)


class Stage:
    """Clubs, players and calendar, ready to play any gameweek in any number of draws."""

    def __init__(self, rules: Ruleset, clubs: list[Club], players: list[Player], matches: list[Match]) -> None:
        self.rules, self.players, self.matches = rules, players, matches
        self.sides = {club.id: Side.of(club, players) for club in clubs}

    def gameweek(
        self, rng: np.random.Generator, gameweek: int, health: "np.ndarray"
    ) -> tuple[list[tuple[Match, Counts, "np.ndarray"]], "np.ndarray"]:
        """Each match with its counts and score, and everybody's health before the next gameweek."""
        fit = available(rng, health)
        sent_off = np.zeros(health.shape, dtype=bool)
        played = []
        for match in (match for match in self.matches if match.event == gameweek):
            home, away = self.sides[match.home], self.sides[match.away]
            counts, score = play_match(rng, self.rules, home, away, fit[:, home.places], fit[:, away.places])
            sent_off[:, self.places(match)] |= counts["red_cards"] > 0
            played.append((match, counts, score))
        return played, after_gameweek(rng, health, sent_off)

    def places(self, match: Match) -> "np.ndarray":
        """Where the players of a match stand in arrays over all players, in the order of its counts."""
        return np.concatenate((self.sides[match.home].places, self.sides[match.away].places))


def play_season(rng: np.random.Generator, chance: Random, stage: Stage, gameweeks: int) -> Played:
    """Plays the first gameweeks, setting scores, prices and health on the stage's matches and players."""
    played = Played()
    health = np.full((1, len(stage.players)), FIT)
    _remember(stage.players, health)
    for gameweek in range(1, gameweeks + 1):
        matches, health = stage.gameweek(rng, gameweek, health)
        for match, counts, score in matches:
            match.score = (int(score[0, 0]), int(score[0, 1]))
            _write_down(stage, played, match, counts)
        _remember(stage.players, health)
        _reprice(chance, stage.players, played, gameweek)
    return played


def _write_down(stage: Stage, played: Played, match: Match, counts: Counts) -> None:
    for index, place in enumerate(stage.places(match)):
        if counts["minutes"][0, index]:
            player = stage.players[place]
            row: Row = {name: int(counts[name][0, index]) for name in COUNTED}
            at_home = player.club == match.home
            row |= {"element": player.id, "fixture": match.id, "event": match.event or 0, "was_home": int(at_home)}
            row["opponent_team"] = match.away if at_home else match.home
            played.add(row)


def _remember(players: list[Player], health: "np.ndarray") -> None:
    for player, state in zip(players, health[0], strict=True):
        player.health.append(int(state))


def _reprice(chance: Random, players: list[Player], played: Played, gameweek: int) -> None:
    """Moves about one price in eight by a tenth, towards form, as the crowd would."""
    for player in players:
        form = played.form(player.id, gameweek + 1) - 0.035 * player.cost[-1]
        push = min(max(form, -2), 4) / 12
        step = (1 if push > 0 else -1) if chance.random() < abs(push) else 0
        player.cost.append(max(player.cost[-1] + step, 36))
