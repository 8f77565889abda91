"""The parts of a decision that describe players: who is owned, what is wrong, what is expected of them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypedDict

from engine_worker.engines.fpl import decision as out
from engine_worker.engines.fpl.autosubs import chance_of_playing
from engine_worker.engines.fpl.collecting import Collected, PlayerRow
from engine_worker.engines.fpl.problem import Moves, WeekPlan
from engine_worker.engines.fpl.projections import ProjectionRow
from engine_worker.engines.fpl.scoring import CAPTAIN_TIMES, TRIPLE_CAPTAIN_TIMES, substitutions
from engine_worker.engines.fpl.seasons import POSITION_NAMES

_ISSUES: dict[str, Literal["injury", "suspension", "doubt", "unavailable"]] = {
    "i": "injury", "s": "suspension", "d": "doubt", "u": "unavailable", "n": "unavailable",
}  # fmt: skip

# A starter below this chance of playing is worth a warning; so many are shown.
_SURE, _RISKS = 0.8, 5


class _Reference(TypedDict):
    element: int
    name: str
    club: str
    position: str


class Cards:
    """Cards of the players of one collection; `rows` and `players` by element, for those who need more."""

    def __init__(self, collected: Collected, rows: Sequence[ProjectionRow]) -> None:
        self._collected = collected
        self.rows = {(row.element, row.gameweek): row for row in rows}
        self.players = {player.element: player for player in collected.players}

    def ref(self, element: int) -> out.PlayerRef:
        """A player by name."""
        return out.PlayerRef(**self.reference(self.players[element]))

    def name(self, element: int) -> str:
        """A player's name, or his number when he has left."""
        player = self.players.get(element)
        return str(element) if player is None else player.name

    def reference(self, player: PlayerRow) -> _Reference:
        """The fields every card begins with."""
        club, position = self._collected.clubs[player.club], POSITION_NAMES[player.position]
        return {"element": player.element, "name": player.name, "club": club, "position": position}

    def squad(self) -> out.SquadCard:
        """The squad before any transfer."""
        squad = self._collected.squad
        owned = []
        for holding in squad.holdings:
            player = self.players[holding.element]
            owned.append(
                out.OwnedCard(
                    **self.reference(player),
                    purchase_price=holding.purchase_price,
                    selling_price=holding.selling_price,
                    now_cost=player.now_cost,
                    status=player.status,
                    chance=player.chance,
                )
            )
        return out.SquadCard(
            players=owned,
            bank=squad.bank,
            selling_value=squad.selling_value,
            free_transfers=squad.free_transfers,
            booked_hit_cost_pts=squad.booked_hit_cost,
            given_back_pts=squad.given_back,
            chips_available=squad.chips,
            issues=self._issues(),
            replay=out.ReplayCard(
                weeks_checked=squad.replay.weeks_checked,
                weeks_exact=squad.replay.weeks_exact,
                mismatches=squad.replay.mismatches,
            ),
        )

    def _issues(self) -> list[out.Issue]:
        found = []
        rules, first = self._collected.rules, self._collected.gameweeks[0]
        owned = [self.players[holding.element] for holding in self._collected.squad.holdings]
        for player in owned:
            if player.status in _ISSUES:
                chance = "unknown chance" if player.chance is None else f"{player.chance} % chance"
                detail = f"{player.name}: {chance} of playing"
                found.append(out.Issue(kind=_ISSUES[player.status], element=player.element, detail=detail))
            if not self.rows[player.element, first].fixtures:
                detail = f"{player.name} has no match in gameweek {first}"
                found.append(out.Issue(kind="blank", element=player.element, detail=detail))
        for club, count in Counter(player.club for player in owned).items():
            if count > rules.club_limit:
                detail = f"{count} players from {self._collected.clubs[club]}, the rules allow {rules.club_limit}"
                found.append(out.Issue(kind="club_limit", element=None, detail=detail))
        return found

    def pairs(self, moves: Moves) -> list[tuple[int, int]]:
        """Sold and bought players matched within their position, dearest with dearest."""

        def ordered(elements: Sequence[int]) -> list[int]:
            return sorted(elements, key=lambda e: (self.players[e].position, -self.players[e].now_cost, e))

        return list(zip(ordered(moves.sold), ordered(moves.bought), strict=True))

    def risks(self, week: WeekPlan) -> list[out.Risk]:
        """Starters who may well not play, and what the game does then: a substitute, and the vice for the captain."""
        rows = {element: self.rows[element, week.gameweek] for element in week.squad}
        plays = {element: chance_of_playing(row.p_play, row.fixtures) for element, row in rows.items()}
        found = []
        for element in week.lineup.starters:
            if plays[element] >= _SURE:
                continue
            lost = rows[element].xp / plays[element] if plays[element] else 0.0
            cover = self._cover(week, element, plays)
            told = "nobody comes on for him" if cover is None else f"{self.players[cover].name} comes on from the bench"
            gained = 0.0 if cover is None else rows[cover].xp
            if element == week.lineup.captain:
                more = (TRIPLE_CAPTAIN_TIMES if week.chip == "3xc" else CAPTAIN_TIMES) - 1
                lost, gained = (1 + more) * lost, gained + more * rows[week.lineup.vice].xp
                told += f"; {self.players[week.lineup.vice].name} is captain"
            found.append(
                out.Risk(
                    scenario=f"{self.players[element].name} does not play",
                    probability=round(1 - plays[element], 3),
                    loss_pts=points(max(lost - gained, 0.0)),
                    mitigation=told,
                )
            )
        return sorted(found, key=lambda risk: (-risk.probability * risk.loss_pts, risk.scenario))[:_RISKS]

    def _cover(self, week: WeekPlan, missing: int, plays: Mapping[int, float]) -> int | None:
        """Who comes on for a starter when everybody else who can play does; a boosted bench plays already."""
        if week.chip == "bboost":
            return None
        playing = {element for element, chance in plays.items() if chance > 0} - {missing}
        places = {element: self.players[element].position for element in week.squad}
        lineup = week.lineup
        made = substitutions(self._collected.rules, lineup.starters, lineup.bench, places, playing.__contains__)
        return next((coming for coming, leaving in made if leaving == missing), None)

    def horizon(self) -> list[out.HorizonWeek]:
        """Blanks and doubles of each planned gameweek."""
        weeks = []
        for gameweek in self._collected.gameweeks:
            matches = [match for match in self._collected.fixtures if match.gameweek == gameweek]
            count = Counter(club for match in matches for club in (match.home, match.away))
            named = sorted(self._collected.clubs.items(), key=lambda item: item[1])
            weeks.append(
                out.HorizonWeek(
                    gameweek=gameweek,
                    fixtures=len(matches),
                    blanks=[name for club, name in named if not count[club]],
                    doubles=[name for club, name in named if count[club] > 1],
                )
            )
        return weeks

    def projections(self, fielded: Collection[tuple[int, int]]) -> list[out.ProjectionCard]:
        """Of the owned for every gameweek, of others only for those in which they are `fielded`: a result stays small."""
        owned = [holding.element for holding in self._collected.squad.holdings]
        wanted = {(element, gameweek) for element in owned for gameweek in self._collected.gameweeks} | set(fielded)
        ordered = sorted(wanted, key=lambda key: (self.players[key[0]].position, *key))
        return [self._projection(self.rows[key]) for key in ordered]

    def _projection(self, row: ProjectionRow) -> out.ProjectionCard:
        player, clubs = self.players[row.element], self._collected.clubs
        fixtures = []
        for match in self._collected.fixtures:
            if match.gameweek == row.gameweek and player.club in (match.home, match.away):
                home = match.home == player.club
                opponent, difficulty = (
                    (match.away, match.home_difficulty) if home else (match.home, match.away_difficulty)
                )
                fixtures.append(out.FixtureCard(opponent=clubs[opponent], home=home, difficulty=difficulty))
        return out.ProjectionCard(
            **self.reference(player),
            gameweek=row.gameweek,
            fixtures=fixtures,
            xp=points(row.xp),
            p10=row.p10,
            p50=row.p50,
            p90=row.p90,
            p_play=round(row.p_play, 3),
            p_60=round(row.p_60, 3),
            components=self._components(row),
        )

    def _components(self, row: ProjectionRow) -> out.ComponentsCard | None:
        """Of the gameweek to decide only."""
        if row.gameweek != self._collected.gameweeks[0]:
            return None
        return out.ComponentsCard(**{name: points(value) for name, value in row.components._asdict().items()})


def points(value: float) -> float:
    """Points as a decision states them: two decimals."""
    return round(value, 2) + 0.0  # no negative zero
