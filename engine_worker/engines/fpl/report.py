"""Writes the decision down: from plans and projections to `DecisionOutput`. No choice is made here."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, cast

from engine_worker.engines.fpl import decision as out
from engine_worker.engines.fpl.cards import Cards, points
from engine_worker.engines.fpl.collecting import Collected
from engine_worker.engines.fpl.planning import Analysis, ChipValue
from engine_worker.engines.fpl.problem import Chip, Terms, WeekPlan, unlimited
from engine_worker.engines.fpl.projections import ProjectionRow
from engine_worker.engines.fpl.rules import (
    DEFENDER,
    FORWARD,
    HIT_COST_PTS,
    MIDFIELDER,
    UNLIMITED_CHIPS,
)  # fmt: skip
from engine_worker.engines.fpl.simulation import DRAWS, METHOD, Draws

_CANDIDATES = 5


class Report:
    """Everything a decision is written from; `written` may be called for each better analysis."""

    def __init__(
        self, collected: Collected, rows: Sequence[ProjectionRow], team_id: int | None, engine_version: int, solver: str
    ) -> None:
        self._collected = collected
        self._cards = Cards(collected, rows)
        self._team_id = team_id
        self._engine_version = engine_version
        self._solver = solver

    def written(self, analysis: Analysis, now: str, timings: dict[str, float], *, draws: bool) -> out.DecisionOutput:
        """The decision of an analysis. `draws` adds what only simulation knows; without it those fields are null."""
        sampled = Draws(self._cards.rows, [analysis.plan, analysis.hold]) if draws else None
        week, held = analysis.plan.weeks[0], analysis.hold.weeks[0]
        return out.DecisionOutput(
            header=self._header(now),
            decision=self._decision(analysis, sampled),
            squad_state=self._cards.squad(),
            projections=self._cards.projections(analysis.plan),
            transfer_plan=self._plan(analysis),
            hold_plan=out.HoldPlan(
                objective_pts=points(analysis.hold.objective), xp_this_gameweek=points(held.xp_lineup)
            ),
            lineup=self._lineup(week),
            captaincy=self._captaincy(week, sampled),
            chips=[self._chip(chip) for chip in analysis.chips],
            warnings=[
                *(out.Warned(code=w.code, message=w.message) for w in self._collected.warnings),
                *_limits(analysis, self._collected.squad.chips),
            ],
            timings_s={name: round(seconds, 3) for name, seconds in (timings | analysis.seconds).items()},
        )

    def _header(self, now: str) -> out.Header:
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
            expected_gain_pts=points(gain),
            gain_this_gameweek_pts=points(week.xp_lineup - held.xp_lineup - cost),
            hit_cost_pts=cost,
            confidence=confidence,
        )

    def _summary(self, week: WeekPlan, gain: float) -> str:
        captain = self._cards.players[week.lineup.captain].name
        if not week.bought and not week.chip:
            return f"Make no transfer in gameweek {week.gameweek}, captain {captain}."
        names = [f"{self._cards.players[a].name} → {self._cards.players[b].name}" for a, b in self._pairs(week)]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        parts = [f"Play {week.chip}"] if week.chip else []
        parts += [f"transfer {shown}"] if names else []
        parts += [f"for a hit of {HIT_COST_PTS * week.hits}"] if week.hits else []
        text = ", ".join(parts)
        return f"{text[:1].upper()}{text[1:]}; captain {captain}; {gain:+.1f} points over holding."[:200]

    def _plan(self, analysis: Analysis) -> out.TransferPlan:
        gap = analysis.gap
        bound = None if analysis.bound is None else max(analysis.bound, analysis.plan.objective)
        return out.TransferPlan(
            gameweeks=[self._week(analysis, index, week) for index, week in enumerate(analysis.plan.weeks)],
            objective_pts=points(analysis.plan.objective),
            objective_terms=_terms(analysis.plan.terms),
            optimality=out.Optimality(
                status=cast('Literal["optimal", "time_limit", "interrupted", "failed"]', analysis.status),
                stage=cast('Literal["hold", "this_gameweek", "horizon", "chip"]', analysis.stage),
                bound_pts=None if bound is None else points(bound),
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
            unlimited=unlimited(analysis.problem, index, Chip(week.chip, index) if week.chip else None),
            hits=week.hits,
            hit_cost_pts=HIT_COST_PTS * week.hits,
            chip=week.chip,
            bank_after=week.bank,
            formation=self._formation(week),
            captain=self._cards.ref(week.lineup.captain),
            xp_lineup=points(week.xp_lineup),
            xp_bench=points(week.xp_bench),
        )

    def _transfer(self, analysis: Analysis, index: int, sold: int, bought: int) -> out.Transfer:
        problem = analysis.problem
        week = analysis.plan.weeks[index]
        gains = [
            problem.weight(place) * (problem.xp[gameweek][bought] - problem.xp[gameweek][sold])
            for place, gameweek in enumerate(problem.gameweeks)
            if place >= index
        ]
        return out.Transfer(
            sold=self._cards.ref(sold),
            bought=self._cards.ref(bought),
            sell_price=week.sold_for[week.sold.index(sold)],
            buy_price=problem.cost[bought],
            gain_gameweek_pts=points(gains[0] / problem.weight(index)),
            gain_horizon_pts=points(sum(gains)),
        )

    def _pairs(self, week: WeekPlan) -> list[tuple[int, int]]:
        """Sold and bought players matched within their position, dearest with dearest."""

        def ordered(elements: Sequence[int]) -> list[int]:
            return sorted(
                elements, key=lambda e: (self._cards.players[e].position, -self._cards.players[e].now_cost, e)
            )

        return list(zip(ordered(week.sold), ordered(week.bought), strict=True))

    def _lineup(self, week: WeekPlan) -> out.LineupCard:
        def cards(elements: Sequence[int]) -> list[out.LineupPlayer]:
            xp = [points(self._cards.rows[element, week.gameweek].xp) for element in elements]
            return [
                out.LineupPlayer(**self._cards.reference(self._cards.players[e]), xp=expected)
                for e, expected in zip(elements, xp, strict=True)
            ]

        return out.LineupCard(
            formation=self._formation(week),
            starters=cards(week.lineup.starters),
            bench=cards(week.lineup.bench),
            captain=self._cards.ref(week.lineup.captain),
            vice=self._cards.ref(week.lineup.vice),
            xp_total=points(week.xp_lineup),
        )

    def _captaincy(self, week: WeekPlan, sampled: Draws | None) -> out.Captaincy:
        ranked = sorted(week.lineup.starters, key=lambda e: (-self._cards.rows[e, week.gameweek].xp, e))
        top = sampled.top_shares(week.gameweek, week.lineup.starters) if sampled else {}
        best = self._cards.rows[ranked[0], week.gameweek].xp
        candidates = []
        for element in ranked[:_CANDIDATES]:
            row, player = self._cards.rows[element, week.gameweek], self._cards.players[element]
            candidates.append(
                out.CaptainCandidate(
                    **self._cards.reference(player),
                    xp=points(row.xp),
                    p10=row.p10,
                    p90=row.p90,
                    p_top=round(top[element], 3) if top else None,
                    owned_pct=player.owned_pct,
                    regret_pts=points(best - row.xp),
                )
            )
        return out.Captaincy(candidates=candidates, pick=week.lineup.captain, vice=week.lineup.vice)

    def _chip(self, chip: ChipValue) -> out.ChipCard:
        return out.ChipCard(
            name=chip.name,
            window_start=chip.window.start,
            window_stop=chip.window.stop,
            value_now_pts=points(chip.value_now),
            best_gameweek=chip.best_gameweek,
            best_value_pts=points(chip.best_value),
            use_now=chip.use_now,
            reason=chip.reason,
        )

    def _formation(self, week: WeekPlan) -> str:
        count = Counter(self._cards.players[element].position for element in week.lineup.starters)
        return "-".join(str(count[position]) for position in (DEFENDER, MIDFIELDER, FORWARD))


def _terms(terms: Terms) -> out.ObjectiveTerms:
    names = ("xp", "bench", "hits", "hit_margin", "free_transfers", "bank")
    return out.ObjectiveTerms(**{name: points(getattr(terms, name)) for name in names})


def _limits(analysis: Analysis, asked: Sequence[str]) -> list[out.Warned]:
    found = []
    if analysis.status != "optimal":
        text = f"the solver stopped before it could prove the plan best ({analysis.status})"
        found.append(out.Warned(code="not_proven", message=text))
    if any(chip.name in UNLIMITED_CHIPS and chip.value_now > 0 and not chip.use_now for chip in analysis.chips):
        text = "the value of a wildcard or free hit now is an upper view: it is not set against a later gameweek"
        found.append(out.Warned(code="chip_value", message=text))
    valued = {chip.name for chip in analysis.chips}
    if missing := [name for name in asked if name not in valued]:
        text = f"not valued, for want of time or because they may not be played now: {', '.join(missing)}"
        found.append(out.Warned(code="chip_not_valued", message=text))
    return found
