"""Writes the decision down: from plans and projections to `DecisionOutput`. No choice is made here."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, cast

from engine_worker.engines.fpl import decision as out
from engine_worker.engines.fpl.analysis import Analysis, gap
from engine_worker.engines.fpl.autosubs import chance_of_playing, expected_from_bench
from engine_worker.engines.fpl.cards import Cards, points
from engine_worker.engines.fpl.choices import Choices
from engine_worker.engines.fpl.collecting import Collected
from engine_worker.engines.fpl.explain import explanations, given_back
from engine_worker.engines.fpl.fitted import shipped
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.prices import price_watch
from engine_worker.engines.fpl.problem import Plan, Problem, Terms, WeekPlan, hold_plan, unlimited
from engine_worker.engines.fpl.projections import ProjectionRow
from engine_worker.engines.fpl.receipt import receipt
from engine_worker.engines.fpl.scoring import CAPTAIN_TIMES, TRIPLE_CAPTAIN_TIMES
from engine_worker.engines.fpl.seasons import DEFENDER, FORWARD, MIDFIELDER
from engine_worker.engines.fpl.simulation import DRAWS, METHOD, Draws

_CANDIDATES = 5


class Report:
    """Everything a decision is written from; `written` may be called for each better analysis."""

    def __init__(
        self,
        collected: Collected,
        rows: Sequence[ProjectionRow],
        params: FplParams,
        engine_version: int,
        solver: str,
    ) -> None:
        self._collected = collected
        self._cards = Cards(collected, rows)
        self._rows = rows
        self._params = params
        self._engine_version = engine_version
        self._solver = solver

    def written(
        self, analysis: Analysis, problem: Problem, now: str, timings: dict[str, float], *, draws: bool
    ) -> out.DecisionOutput:
        """The decision of an analysis. `draws` adds what only simulation knows; without it those fields are null."""
        begun = self._collected.begun_with(analysis.moves[0].chip)
        if begun is not self._collected:
            other = Report(begun, self._rows, self._params, self._engine_version, self._solver)
            return other.written(analysis, problem, now, timings, draws=draws)
        plan, hold = analysis.plan(problem), hold_plan(problem)
        sampled = Draws(self._cards.rows, [plan, hold], self._params.seed) if draws else None
        choices = Choices(self._cards, problem, analysis, plan)
        shown, alternatives = choices.choices(), choices.alternatives()
        transfers = self._plan(analysis, problem, plan, choices)
        captaincy, chips = self._captaincy(plan.weeks[0], sampled), self._chips(analysis, problem, plan)
        written = out.DecisionOutput(
            header=self._header(now),
            decision=self._decision(plan, hold, sampled),
            squad_state=self._cards.squad(),
            projections=self._cards.projections(choices.fielded()),
            transfer_plan=transfers,
            hold_plan=out.HoldPlan(
                objective_pts=points(hold.objective), xp_this_gameweek=points(hold.weeks[0].xp_counted)
            ),
            lineup=self._lineup(plan.weeks[0]),
            captaincy=captaincy,
            chips=chips,
            choices=shown,
            alternatives=alternatives,
            near_misses=choices.near_misses(),
            sensitivity=choices.sensitivity(),
            risks=self._cards.risks(plan.weeks[0]),
            price_watch=price_watch(
                self._collected, self._cards, {element for week in plan.weeks for element in week.bought}
            ),
            horizon=self._cards.horizon(),
            review=self._review(),
            calibration=self._calibration(),
            explanations=[
                *explanations(transfers, captaincy, chips, shown, alternatives),
                *given_back(plan.weeks[0].chip, self._collected.squad.given_back),
            ],
            warnings=[
                *(out.Warned(code=w.code, message=w.message) for w in self._collected.warnings),
                *_limits(analysis, problem, chips),
            ],
            timings_s={name: round(seconds, 3) for name, seconds in (timings | analysis.seconds).items()},
        )
        return receipt(written, self._params, repeats=not analysis.clocked)

    def _header(self, now: str) -> out.Header:
        collected = self._collected
        return out.Header(
            team_id=self._params.team_id,
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

    def _review(self) -> out.Review | None:
        seen = self._collected.looked_back
        if seen is None:
            return None
        decided = seen.decided
        return out.Review(
            gameweek=decided.advice.gameweek,
            job_id=decided.job_id,
            result_sha256=decided.result_sha256,
            expected_pts=decided.expected_pts,
            **seen.model_dump(),
        )

    def _calibration(self) -> out.Calibration | None:
        fitted = shipped()
        if fitted.calibration is None:
            return None
        return out.Calibration(parameters=fitted.version, fitted_on=fitted.fitted_on, **fitted.calibration.model_dump())

    def _decision(self, plan: Plan, hold: Plan, sampled: Draws | None) -> out.Decision:
        week, held = plan.weeks[0], hold.weeks[0]
        cost = week.hit_cost
        gain = plan.objective - hold.objective
        confidence = None
        if sampled is not None and (week.bought or week.chip):
            share = round(sampled.beats(plan, hold), 3)
            confidence = out.Confidence(p_better_than_hold=share, draws=DRAWS, method=METHOD)
        return out.Decision(
            action="CHIP" if week.chip else "TRANSFER" if week.bought else "ROLL",
            summary=self._summary(week, gain),
            expected_gain_pts=points(gain),
            gain_this_gameweek_pts=points(week.xp_counted - held.xp_counted - cost + self._collected.squad.given_back),
            hit_cost_pts=cost,
            confidence=confidence,
        )

    def _summary(self, week: WeekPlan, gain: float) -> str:
        captain = self._cards.players[week.lineup.captain].name
        if not week.bought and not week.chip:
            return f"Make no transfer in gameweek {week.gameweek}, captain {captain}."
        names = [
            f"{self._cards.players[a].name} → {self._cards.players[b].name}" for a, b in self._cards.pairs(week.moves)
        ]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        parts = [f"Play {week.chip}"] if week.chip else []
        parts += [f"transfer {shown}"] if names else []
        parts += [f"for a hit of {week.hit_cost}"] if week.hits else []
        text = ", ".join(parts)
        return f"{text[:1].upper()}{text[1:]}; captain {captain}; {gain:+.1f} points over holding."[:200]

    def _plan(self, analysis: Analysis, problem: Problem, plan: Plan, choices: Choices) -> out.TransferPlan:
        near = gap(plan, analysis.bound)
        bound = None if analysis.bound is None else max(analysis.bound, plan.objective)
        weeks = [self._week(problem, plan, index, choices) for index in range(len(plan.weeks))]
        return out.TransferPlan(
            gameweeks=weeks,
            objective_pts=points(plan.objective),
            objective_terms=_terms(plan.terms),
            optimality=out.Optimality(
                status=cast(
                    'Literal["optimal", "node_limit", "time_limit", "interrupted", "infeasible", "failed"]',
                    analysis.status,
                ),
                stage=analysis.stage,
                bound_pts=None if bound is None else points(bound),
                rel_gap=None if near is None else round(near, 6),
                nodes=analysis.nodes,
            ),
        )

    def _week(self, problem: Problem, plan: Plan, index: int, choices: Choices) -> out.GameweekPlan:
        week = plan.weeks[index]
        return out.GameweekPlan(
            gameweek=week.gameweek,
            weight=round(problem.weight(index), 6),
            free_transfers_before=week.free_transfers,
            transfers=[self._transfer(problem, plan, index, pair, choices) for pair in self._cards.pairs(week.moves)],
            unlimited=unlimited(problem, index, week.chip),
            hits=week.hits,
            hit_cost_pts=week.hit_cost,
            chip=week.chip,
            bank_after=week.bank,
            formation=self._formation(week),
            captain=self._cards.ref(week.lineup.captain),
            xp_lineup=points(week.xp_lineup),
            xp_bench=points(week.xp_bench),
        )

    def _transfer(
        self, problem: Problem, plan: Plan, index: int, pair: tuple[int, int], choices: Choices
    ) -> out.Transfer:
        week, (sold, bought) = plan.weeks[index], pair
        ends = index + 1 if week.chip == "freehit" else len(problem.gameweeks)
        gains = [
            problem.weight(place) * (problem.xp[gameweek][bought] - problem.xp[gameweek][sold])
            for place, gameweek in enumerate(problem.gameweeks[:ends])
            if place >= index
        ]
        return out.Transfer(
            sold=self._cards.ref(sold),
            bought=self._cards.ref(bought),
            sell_price=week.sold_for[week.sold.index(sold)],
            buy_price=problem.cost[bought],
            gain_gameweek_pts=points(gains[0] / problem.weight(index)),
            gain_horizon_pts=points(sum(gains)),
            **(choices.price(bought) if index == 0 else {}),
        )

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
            xp_total=points(week.xp_counted),
            autosub_xp=points(self._from_bench(week)),
        )

    def _from_bench(self, week: WeekPlan) -> float:
        if week.chip == "bboost":
            return 0.0
        rows = {element: self._cards.rows[element, week.gameweek] for element in week.squad}
        return expected_from_bench(
            self._collected.rules,
            week.lineup,
            {element: self._cards.players[element].position for element in rows},
            {element: chance_of_playing(row.p_play, row.fixtures) for element, row in rows.items()},
            {element: row.xp for element, row in rows.items()},
        )

    def _captaincy(self, week: WeekPlan, sampled: Draws | None) -> out.Captaincy:
        ranked = sorted(week.lineup.starters, key=lambda e: (-self._cards.rows[e, week.gameweek].xp, e))
        top = sampled.top_shares(week.gameweek, week.lineup.starters) if sampled else {}
        best = self._cards.rows[ranked[0], week.gameweek].xp
        # A captain counts once more than the others, a triple captain twice.
        more = (TRIPLE_CAPTAIN_TIMES if week.chip == "3xc" else CAPTAIN_TIMES) - 1
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
                    regret_pts=points(more * (best - row.xp)),
                )
            )
        return out.Captaincy(candidates=candidates, pick=week.lineup.captain, vice=week.lineup.vice)

    def _chips(self, analysis: Analysis, problem: Problem, plan: Plan) -> list[out.ChipCard]:
        return [self._chip(index, analysis, problem, plan) for index in range(len(problem.chips))]

    def _chip(self, index: int, analysis: Analysis, problem: Problem, plan: Plan) -> out.ChipCard:
        copy, gameweeks = problem.chips[index], problem.gameweeks
        window = self._collected.rules.window(copy.name, gameweeks[copy.weeks[0]])
        assert window is not None
        valued = [value for value in analysis.chips if value.name == copy.name]
        gains = {gw: gain for value in valued for gw, gain in value.gains.items() if window.start <= gw <= window.stop}
        best = max(gains, key=lambda gameweek: gains[gameweek]) if gains else None
        planned = next((plan.weeks[i].gameweek for i in copy.weeks if plan.weeks[i].chip == copy.name), None)
        asked = planned is not None and problem.played.get(gameweeks.index(planned)) == copy.name
        return out.ChipCard(
            name=copy.name,
            window_start=window.start,
            window_stop=window.stop,
            gains=[out.ChipGain(gameweek=gameweek, gain_pts=points(gain)) for gameweek, gain in sorted(gains.items())],
            method="solved" if any(value.solved for value in valued) else "lineups",
            value_now_pts=points(gains[gameweeks[0]]) if gameweeks[0] in gains else None,
            best_gameweek=best,
            best_value_pts=None if best is None else points(gains[best]),
            kept_pts=points(copy.kept),
            planned_gameweek=planned,
            use_now=planned == gameweeks[0],
            expires_in_gameweeks=max(window.stop - gameweeks[0] + 1, 0),
            reason=_chip_reason(copy.kept, gains, best, planned, asked=asked),
        )

    def _formation(self, week: WeekPlan) -> str:
        count = Counter(self._cards.players[element].position for element in week.lineup.starters)
        return "-".join(str(count[position]) for position in (DEFENDER, MIDFIELDER, FORWARD))


def _chip_reason(kept: float, gains: dict[int, float], best: int | None, planned: int | None, *, asked: bool) -> str:
    if asked:
        return f"played in gameweek {planned} as asked"
    if planned is not None:
        worth = f"adds {gains[planned]:z.1f} points there" if planned in gains else "is part of the best plan"
        return f"in gameweek {planned} it {worth}; kept for later it would be worth {kept:.1f}"
    if best is None:
        return "not valued for want of time"
    return f"at best {gains[best]:z.1f} points in gameweek {best}, against {kept:.1f} if it waits"


def _terms(terms: Terms) -> out.ObjectiveTerms:
    names = ("xp", "bench", "hits", "hit_margin", "free_transfers", "bank", "chips")
    return out.ObjectiveTerms(**{name: points(getattr(terms, name)) for name in names})


def _limits(analysis: Analysis, problem: Problem, chips: Sequence[out.ChipCard]) -> list[out.Warned]:
    found = []
    if analysis.status != "optimal":
        text = f"the solver stopped before it could prove the plan best ({analysis.status})"
        found.append(out.Warned(code="not_proven", message=text))
    unvalued = [card.name for card in chips if not card.gains and problem.played.get(0) != card.name]
    if unvalued and not any(card.planned_gameweek for card in chips if card.name in unvalued):
        found.append(out.Warned(code="chip_not_valued", message=f"not valued for want of time: {', '.join(unvalued)}"))
    return found
