"""Writes the decision down: from plans and projections to `DecisionOutput`. No choice is made here."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, cast

from engine_worker.engines.fpl import decision as out
from engine_worker.engines.fpl.collecting import Collected, PlayerRow
from engine_worker.engines.fpl.planning import Analysis, ChipValue
from engine_worker.engines.fpl.problem import Plan, Terms, WeekPlan
from engine_worker.engines.fpl.projections import ProjectionRow
from engine_worker.engines.fpl.rules import (
    DEFENDER, FORWARD, HIT_COST_PTS, MIDFIELDER, POSITION_NAMES, UNLIMITED_CHIPS,
)  # fmt: skip
from engine_worker.engines.fpl.simulation import DRAWS, METHOD, Draws

_CANDIDATES = 5
_ISSUES: dict[str, Literal["injury", "suspension", "doubt", "unavailable"]] = {
    "i": "injury", "s": "suspension", "d": "doubt", "u": "unavailable", "n": "unavailable",
}  # fmt: skip


class Report:
    """Everything a decision is written from; `written` may be called for each better analysis."""

    def __init__(
        self, collected: Collected, rows: Sequence[ProjectionRow], team_id: int | None, engine_version: int, solver: str
    ) -> None:
        self._collected = collected
        self._rows = {(row.element, row.gameweek): row for row in rows}
        self._players = {player.element: player for player in collected.players}
        self._team_id = team_id
        self._engine_version = engine_version
        self._solver = solver

    def written(
        self, analysis: Analysis, now: datetime, timings: dict[str, float], *, draws: bool
    ) -> out.DecisionOutput:
        """The decision of an analysis. `draws` adds what only simulation knows; without it those fields are null."""
        sampled = Draws(self._rows, [analysis.plan, analysis.hold]) if draws else None
        week, held = analysis.plan.weeks[0], analysis.hold.weeks[0]
        return out.DecisionOutput(
            header=self._header(now),
            decision=self._decision(analysis, sampled),
            squad_state=self._squad(),
            projections=self._projections(analysis.plan),
            transfer_plan=self._plan(analysis),
            hold_plan=out.HoldPlan(
                objective_pts=_points(analysis.hold.objective), xp_this_gameweek=_points(held.xp_lineup)
            ),
            lineup=self._lineup(week),
            captaincy=self._captaincy(week, sampled),
            chips=[self._chip(chip) for chip in analysis.chips],
            warnings=[*(out.Warned(code=w.code, message=w.message) for w in self._collected.warnings), *_limits(analysis)],
            timings_s={name: round(seconds, 3) for name, seconds in (timings | analysis.seconds).items()},
        )

    def _header(self, now: datetime) -> out.Header:
        collected = self._collected
        return out.Header(
            team_id=self._team_id,
            season=collected.rules.season,
            gameweek=collected.gameweeks[0],
            gameweeks=collected.gameweeks,
            deadline_time=collected.deadline_time,
            generated_at=now,
            ruleset_version=collected.rules.version,
            engine_version=self._engine_version,
            solver=self._solver,
            source=collected.source,
            snapshot_sha256=collected.snapshot_sha256,
            snapshot_time=collected.snapshot_time,
        )

    def _decision(self, analysis: Analysis, sampled: Draws | None) -> out.Decision:
        week, held = analysis.plan.weeks[0], analysis.hold.weeks[0]
        cost = HIT_COST_PTS * week.hits
        gain = analysis.plan.objective - analysis.hold.objective
        confidence = None
        if sampled is not None and (week.bought or week.chip):
            share = round(sampled.beats(analysis.plan, analysis.hold), 3)
            confidence = out.Confidence(p_better_than_hold=share, draws=DRAWS, method=METHOD)
        return out.Decision(
            action="CHIP" if week.chip else "TRANSFER" if week.bought else "ROLL",
            summary=self._summary(week, gain),
            expected_gain_pts=_points(gain),
            gain_this_gameweek_pts=_points(week.xp_lineup - held.xp_lineup - cost),
            hit_cost_pts=cost,
            confidence=confidence,
        )

    def _summary(self, week: WeekPlan, gain: float) -> str:
        captain = self._players[week.lineup.captain].name
        if not week.bought and not week.chip:
            return f"Make no transfer in gameweek {week.gameweek}, captain {captain}."
        names = [f"{self._players[a].name} → {self._players[b].name}" for a, b in self._pairs(week)]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        parts = [f"Play {week.chip}"] if week.chip else []
        parts += [f"transfer {shown}"] if names else []
        parts += [f"for a hit of {HIT_COST_PTS * week.hits}"] if week.hits else []
        text = ", ".join(parts)
        return f"{text[:1].upper()}{text[1:]}; captain {captain}; {gain:+.1f} points over holding."[:200]

    def _squad(self) -> out.SquadCard:
        squad = self._collected.squad
        owned = []
        for holding in squad.holdings:
            player = self._players[holding.element]
            owned.append(
                out.OwnedCard(
                    **self._reference(player),
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
            replay=out.ReplayCard(**squad.replay.model_dump()),
        )

    def _issues(self) -> list[out.Issue]:
        found = []
        rules, first = self._collected.rules, self._collected.gameweeks[0]
        owned = [self._players[holding.element] for holding in self._collected.squad.holdings]
        for player in owned:
            if player.status in _ISSUES:
                chance = "unknown chance" if player.chance is None else f"{player.chance} % chance"
                detail = f"{player.name}: {chance} of playing"
                found.append(out.Issue(kind=_ISSUES[player.status], element=player.element, detail=detail))
            if not self._rows[player.element, first].fixtures:
                detail = f"{player.name} has no match in gameweek {first}"
                found.append(out.Issue(kind="blank", element=player.element, detail=detail))
        for club, count in Counter(player.club for player in owned).items():
            if count > rules.club_limit:
                detail = f"{count} players from {self._collected.clubs[club]}, the rules allow {rules.club_limit}"
                found.append(out.Issue(kind="club_limit", element=None, detail=detail))
        return found

    def _projections(self, plan: Plan) -> list[out.ProjectionCard]:
        wanted = {holding.element for holding in self._collected.squad.holdings}
        wanted |= {element for week in plan.weeks for element in week.bought}
        return [
            self._projection(self._rows[element, gameweek])
            for element in sorted(wanted, key=lambda e: (self._players[e].position, e))
            for gameweek in self._collected.gameweeks
        ]

    def _projection(self, row: ProjectionRow) -> out.ProjectionCard:
        player, clubs = self._players[row.element], self._collected.clubs
        fixtures = []
        for match in self._collected.fixtures:
            if match.gameweek == row.gameweek and player.club in (match.home, match.away):
                home = match.home == player.club
                opponent, difficulty = (
                    (match.away, match.home_difficulty) if home else (match.home, match.away_difficulty)
                )
                fixtures.append(out.FixtureCard(opponent=clubs[opponent], home=home, difficulty=difficulty))
        return out.ProjectionCard(
            **self._reference(player),
            gameweek=row.gameweek,
            fixtures=fixtures,
            xp=_points(row.xp),
            p10=row.p10,
            p50=row.p50,
            p90=row.p90,
            p_play=row.p_play,
            p_60=row.p_60,
        )

    def _plan(self, analysis: Analysis) -> out.TransferPlan:
        gap = analysis.gap
        bound = None if analysis.bound is None else max(analysis.bound, analysis.plan.objective)
        return out.TransferPlan(
            gameweeks=[self._week(analysis, index, week) for index, week in enumerate(analysis.plan.weeks)],
            objective_pts=_points(analysis.plan.objective),
            objective_terms=_terms(analysis.plan.terms),
            optimality=out.Optimality(
                status=cast('Literal["optimal", "time_limit", "interrupted"]', analysis.status),
                stage=cast('Literal["hold", "this_gameweek", "horizon", "chip"]', analysis.stage),
                bound_pts=None if bound is None else _points(bound),
                rel_gap=None if gap is None else round(gap, 6),
                nodes=analysis.nodes,
            ),
        )

    def _week(self, analysis: Analysis, index: int, week: WeekPlan) -> out.GameweekPlan:
        return out.GameweekPlan(
            gameweek=week.gameweek,
            weight=round(analysis.problem.weight(index), 6),
            free_transfers_before=week.free_transfers,
            transfers=[self._transfer(analysis, index, sold, bought) for sold, bought in self._pairs(week)],
            hits=week.hits,
            hit_cost_pts=HIT_COST_PTS * week.hits,
            chip=week.chip,
            bank_after=week.bank,
            formation=self._formation(week),
            captain=self._ref(week.lineup.captain),
            xp_lineup=_points(week.xp_lineup),
            xp_bench=_points(week.xp_bench),
        )

    def _transfer(self, analysis: Analysis, index: int, sold: int, bought: int) -> out.Transfer:
        problem = analysis.problem
        earlier = {element for week in analysis.plan.weeks[:index] for element in (*week.bought, *week.sold)}
        gains = [
            problem.weight(place) * (problem.xp[gameweek][bought] - problem.xp[gameweek][sold])
            for place, gameweek in enumerate(problem.gameweeks)
            if place >= index
        ]
        return out.Transfer(
            sold=self._ref(sold),
            bought=self._ref(bought),
            sell_price=problem.cost[sold] if sold in earlier else problem.selling.get(sold, problem.cost[sold]),
            buy_price=problem.cost[bought],
            gain_gameweek_pts=_points(gains[0] / problem.weight(index)),
            gain_horizon_pts=_points(sum(gains)),
        )

    def _pairs(self, week: WeekPlan) -> list[tuple[int, int]]:
        """Sold and bought players matched within their position, dearest with dearest."""

        def ordered(elements: Sequence[int]) -> list[int]:
            return sorted(elements, key=lambda e: (self._players[e].position, -self._players[e].now_cost, e))

        return list(zip(ordered(week.sold), ordered(week.bought), strict=True))

    def _lineup(self, week: WeekPlan) -> out.LineupCard:
        def cards(elements: Sequence[int]) -> list[out.LineupPlayer]:
            xp = [_points(self._rows[element, week.gameweek].xp) for element in elements]
            return [
                out.LineupPlayer(**self._reference(self._players[e]), xp=points)
                for e, points in zip(elements, xp, strict=True)
            ]

        return out.LineupCard(
            formation=self._formation(week),
            starters=cards(week.lineup.starters),
            bench=cards(week.lineup.bench),
            captain=self._ref(week.lineup.captain),
            vice=self._ref(week.lineup.vice),
            xp_total=_points(week.xp_lineup),
        )

    def _captaincy(self, week: WeekPlan, sampled: Draws | None) -> out.Captaincy:
        ranked = sorted(week.lineup.starters, key=lambda e: (-self._rows[e, week.gameweek].xp, e))
        top = sampled.top_shares(week.gameweek, week.lineup.starters) if sampled else {}
        best = self._rows[ranked[0], week.gameweek].xp
        candidates = []
        for element in ranked[:_CANDIDATES]:
            row, player = self._rows[element, week.gameweek], self._players[element]
            candidates.append(
                out.CaptainCandidate(
                    **self._reference(player),
                    xp=_points(row.xp),
                    p10=row.p10,
                    p90=row.p90,
                    p_top=round(top[element], 3) if top else None,
                    owned_pct=player.owned_pct,
                    regret_pts=_points(best - row.xp),
                )
            )
        return out.Captaincy(candidates=candidates, pick=week.lineup.captain, vice=week.lineup.vice)

    def _chip(self, chip: ChipValue) -> out.ChipCard:
        return out.ChipCard(
            name=chip.name,
            window_start=chip.window.start,
            window_stop=chip.window.stop,
            value_now_pts=_points(chip.value_now),
            best_gameweek=chip.best_gameweek,
            best_value_pts=_points(chip.best_value),
            use_now=chip.use_now,
            reason=chip.reason,
        )

    def _formation(self, week: WeekPlan) -> str:
        count = Counter(self._players[element].position for element in week.lineup.starters)
        return "-".join(str(count[position]) for position in (DEFENDER, MIDFIELDER, FORWARD))

    def _ref(self, element: int) -> out.PlayerRef:
        return out.PlayerRef(**self._reference(self._players[element]))

    def _reference(self, player: PlayerRow) -> dict[str, int | str]:
        club, position = self._collected.clubs[player.club], POSITION_NAMES[player.position]
        return {"element": player.element, "name": player.name, "club": club, "position": position}


def _points(value: float) -> float:
    return round(value, 2) + 0.0  # no negative zero


def _terms(terms: Terms) -> out.ObjectiveTerms:
    names = ("xp", "bench", "hits", "hit_margin", "free_transfers", "bank")
    return out.ObjectiveTerms(**{name: _points(getattr(terms, name)) for name in names})


def _limits(analysis: Analysis) -> list[out.Warned]:
    found = []
    if analysis.status != "optimal":
        text = f"the solver stopped before it could prove the plan best ({analysis.status})"
        found.append(out.Warned(code="not_proven", message=text))
    if any(chip.name in UNLIMITED_CHIPS and chip.value_now > 0 and not chip.use_now for chip in analysis.chips):
        text = "the value of a wildcard or free hit now is an upper view: it is not set against a later gameweek"
        found.append(out.Warned(code="chip_value", message=text))
    return found
