"""The clubs, players and calendar of a made-up season. PURE: everything follows from the seed."""

from dataclasses import dataclass, field, replace
from random import Random

from engine_worker.engines.fpl.seasons import DEFENDER, FORWARD, GOALKEEPER, LAST_GAMEWEEK, MIDFIELDER
from engine_worker.engines.fpl.synthetic.names import CLUBS, player_names

# Players per club by position; clubs with an even id have one forward more. About 650 in all.
_DEPTH = {GOALKEEPER: 3, DEFENDER: 11, MIDFIELDER: 13, FORWARD: 5}
_SHAPES = ((4, 4, 2), (4, 5, 1), (3, 5, 2), (4, 3, 3))
# Price of the plainest player of a position, and what a unit of ability adds, in tenths.
_PRICE_FLOOR = {GOALKEEPER: 39, DEFENDER: 38, MIDFIELDER: 43, FORWARD: 43}
_PRICE_SLOPE = {GOALKEEPER: 5.0, DEFENDER: 7.5, MIDFIELDER: 15.0, FORWARD: 17.0}
# Goal and assist weights relative to an ordinary midfielder.
_THREAT = {GOALKEEPER: 0.0, DEFENDER: 0.3, MIDFIELDER: 1.0, FORWARD: 2.3}
_CREATION = {GOALKEEPER: 0.03, DEFENDER: 0.6, MIDFIELDER: 1.3, FORWARD: 0.9}
# (from gameweek, to gameweek, which match): blanks and doubles.
_MOVED = ((13, 14, 0), (18, 20, 5), (29, 34, 2), (29, 34, 6), (33, 36, 4))
# (from gameweek, which match, gameweeks played before a new date is known, the new gameweek).
_WITHOUT_DATE = (16, 3, 20, 35)


@dataclass
class Club:
    """`attack` and `defence` multiply the goals scored and divide the goals conceded; 1.0 is average."""

    id: int
    name: str
    short_name: str
    attack: float
    defence: float
    shape: tuple[int, int, int]


@dataclass
class Player:
    """A player, his true ability and what became of him so far."""

    id: int
    first_name: str
    second_name: str
    club: int
    position: int
    ability: float
    threat: float
    creation: float
    cost: list[int] = field(default_factory=list)  # by gameweek, [0] before the first deadline
    health: list[int] = field(default_factory=list)  # likewise; see `health.py`
    # What he did last season, by the API's names; empty for one who was not in the league.
    last_season: dict[str, int] = field(default_factory=dict)


@dataclass
class Match:
    """One fixture; `event` is None while it waits for a new date."""

    id: int
    event: int | None
    home: int
    away: int
    score: tuple[int, int] | None = None


def make_clubs(rng: Random) -> list[Club]:
    """Twenty clubs of unequal strength."""
    clubs = []
    for number, (name, short_name) in enumerate(CLUBS, start=1):
        strength = rng.gauss(0, 0.2)
        attack, defence = 2.7 ** (strength + rng.gauss(0, 0.1)), 2.7 ** (strength + rng.gauss(0, 0.1))
        clubs.append(Club(number, name, short_name, attack, defence, rng.choice(_SHAPES)))
    return clubs


def make_players(rng: Random, clubs: list[Club]) -> list[Player]:
    """About 650 players, ids from 1, club by club; better ones cost more, with some luck for the buyer."""
    places = [(club, position) for club in clubs for position, depth in _DEPTH.items() for _ in range(depth)]
    places += [(club, FORWARD) for club in clubs if club.id % 2 == 0]
    places.sort(key=lambda place: (place[0].id, place[1]))
    names = player_names(rng, len(places))
    return [
        _make_player(rng, number, name, club, position)
        for number, (name, (club, position)) in enumerate(zip(names, places, strict=True), start=1)
    ]


def make_calendar(rng: Random, played: int) -> list[Match]:
    """A double round-robin of 38 gameweeks as published after `played` of them, with a few matches moved."""
    ring = list(range(1, len(CLUBS) + 1))
    rng.shuffle(ring)
    first_half = [_round(ring, number) for number in range(len(ring) - 1)]
    rounds = first_half + [[(away, home) for home, away in pairs] for pairs in first_half]
    moved: dict[tuple[int, int], int | None] = {(gameweek, index): to for gameweek, to, index in _MOVED}
    gameweek, index, known_after, to = _WITHOUT_DATE
    moved[gameweek, index] = to if played >= known_after else None
    matches: list[Match] = []
    for gameweek, pairs in enumerate(rounds[:LAST_GAMEWEEK], start=1):
        for index, (home, away) in enumerate(pairs):
            matches.append(Match(len(matches) + 1, moved.get((gameweek, index), gameweek), home, away))
    return matches


def _make_player(rng: Random, number: int, name: tuple[str, str], club: Club, position: int) -> Player:
    ability = rng.lognormvariate(0, 0.55) * (club.attack if position in (MIDFIELDER, FORWARD) else club.defence)
    price = _PRICE_FLOOR[position] + _PRICE_SLOPE[position] * ability + rng.gauss(0, 1.5)
    return Player(
        id=number,
        first_name=name[0],
        second_name=name[1],
        club=club.id,
        position=position,
        ability=ability,
        threat=_THREAT[position] * ability * rng.lognormvariate(0, 0.3),
        creation=_CREATION[position] * ability * rng.lognormvariate(0, 0.3),
        cost=[min(max(round(price), _PRICE_FLOOR[position]), 150)],
    )


def _round(ring: list[int], number: int) -> list[tuple[int, int]]:
    """The pairs of one round by the circle method: the first stays, the others turn."""
    turned = [ring[0], *ring[1:][number:], *ring[1:][:number]]
    half = len(ring) // 2
    pairs = list(zip(turned[:half], reversed(turned[half:]), strict=True))
    return [(away, home) if (number + index) % 2 else (home, away) for index, (home, away) in enumerate(pairs)]


def copied(player: Player) -> Player:
    """The same player with nothing lived through yet."""
    return replace(player, cost=player.cost[:1], health=[], last_season={})
