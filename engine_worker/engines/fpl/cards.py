"""The parts of a decision that describe players: who is owned, what is wrong, what is expected of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, TypedDict

from engine_worker.engines.fpl import decision as out
from engine_worker.engines.fpl.collecting import Collected, PlayerRow
from engine_worker.engines.fpl.problem import Plan
from engine_worker.engines.fpl.projections import ProjectionRow
from engine_worker.engines.fpl.rules import POSITION_NAMES

_ISSUES: dict[str, Literal["injury", "suspension", "doubt", "unavailable"]] = {
    "i": "injury", "s": "suspension", "d": "doubt", "u": "unavailable", "n": "unavailable",
}  # fmt: skip


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

    def projections(self, plan: Plan) -> list[out.ProjectionCard]:
        """The owned and whoever the plan buys, gameweek by gameweek."""
        wanted = {holding.element for holding in self._collected.squad.holdings}
        wanted |= {element for week in plan.weeks for element in week.bought}
        return [
            self._projection(self.rows[element, gameweek])
            for element in sorted(wanted, key=lambda e: (self.players[e].position, e))
            for gameweek in self._collected.gameweeks
        ]

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
            p_play=row.p_play,
            p_60=row.p_60,
        )


def points(value: float) -> float:
    """Points as a decision states them: two decimals."""
    return round(value, 2) + 0.0  # no negative zero
