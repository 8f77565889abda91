"""The answer of the engine: `DecisionOutput`, nested, with the invariants that make it a legal decision.

Units: points are floats rounded to two decimals, money is ints in tenths of a million pounds, shares are 0–1, times
are UTC. A fact has one shape: a player is always a `PlayerRef` (or a card that extends it), so a reader needs no
look-up. Nothing in it is ever NaN or infinite.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Points are rounded to two decimals; a sum of seven of them may be off by this much.
_ROUNDING_PTS = 0.05


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, extra="forbid", defer_build=True)


class PlayerRef(_Part):
    """A player by his element id of this season; `club` is the short name, `position` GKP, DEF, MID or FWD."""

    element: int
    name: str
    club: str
    position: str


class Header(_Part):
    """What was decided, on what ground, by what."""

    team_id: int | None
    season: str
    gameweek: int
    gameweeks: list[int] = Field(description="the gameweeks planned, `gameweek` first")
    deadline_time: str
    generated_at: str
    ruleset_version: str
    engine_version: int
    solver: str
    source: str
    snapshot_sha256: str
    snapshot_time: str


class Confidence(_Part):
    """How often the plan beat holding in joint draws of everybody's points; ties count half."""

    p_better_than_hold: float = Field(ge=0, le=1)
    draws: int
    method: str


class Decision(_Part):
    """The decision in one sentence. `action` is what to do before the deadline."""

    action: Literal["ROLL", "TRANSFER", "CHIP"]
    summary: str = Field(max_length=200)
    expected_gain_pts: float = Field(description="objective of the plan over that of holding, whole horizon")
    gain_this_gameweek_pts: float = Field(description="expected points this gameweek over holding, hits deducted")
    hit_cost_pts: int = Field(ge=0, description="points taken for this gameweek's hits")
    confidence: Confidence | None


class OwnedCard(PlayerRef):
    """An owned player; `chance` is the API's chance of playing next, null for no doubt."""

    purchase_price: int
    selling_price: int
    now_cost: int
    status: str
    chance: int | None


class ReplayCard(_Part):
    """Past gameweeks whose bank and hits were derived again exactly: the ground for prices and free transfers."""

    weeks_checked: int
    weeks_exact: int
    mismatches: list[str]


class Issue(_Part):
    """Something wrong with the squad as it is."""

    kind: Literal["injury", "suspension", "doubt", "unavailable", "blank", "club_limit"]
    element: int | None
    detail: str


class SquadCard(_Part):
    """Where the plan starts."""

    players: list[OwnedCard]
    bank: int = Field(ge=0)
    selling_value: int
    free_transfers: int = Field(ge=0)
    booked_hit_cost_pts: int = Field(
        ge=0, description="points that `booked_transfers` have cost, beside the plan's hits"
    )
    given_back_pts: int = Field(
        default=0, ge=0, description="what they would have cost without the chip that the plan plays now"
    )
    chips_available: list[str]
    issues: list[Issue]
    replay: ReplayCard


class FixtureCard(_Part):
    """One match of a projection; difficulty 1–5 as the API rates it."""

    opponent: str
    home: bool
    difficulty: int


class ComponentsCard(_Part):
    """Expected points of a gameweek by their source; they sum to `xp`.

    `adjustment` is what the line fitted on past seasons adds to the sum of the others.
    """

    appearance: float
    goals: float
    assists: float
    clean_sheet: float
    conceded: float
    saves: float
    bonus: float
    cards: float
    defensive_contribution: float
    adjustment: float


class ProjectionCard(PlayerRef):
    """Expected points in one gameweek with their 10th, 50th and 90th percentile; no fixtures is a blank.

    The owned are given for every gameweek, others for those the plan has them in its squad, and whom only an alternative
    buys for the gameweek to decide. `components` is given for that one.
    """

    gameweek: int
    fixtures: list[FixtureCard]
    xp: float
    p10: int
    p50: int
    p90: int
    p_play: float = Field(ge=0, le=1)
    p_60: float = Field(ge=0, le=1)
    components: ComponentsCard | None = None


class Transfer(_Part):
    """One player for another of his position; `gain_horizon_pts` compares the two alone, lineups aside.

    Of transfers to be made now: `regret_pts` is what the best plan that never buys him is worth less; the plan stands
    as long as he is expected to score `break_even_xp` while owned, of the `projected_xp` it counts on.
    """

    sold: PlayerRef
    bought: PlayerRef
    sell_price: int
    buy_price: int
    gain_gameweek_pts: float
    gain_horizon_pts: float
    regret_pts: float | None = None
    projected_xp: float | None = None
    break_even_xp: float | None = None


class GameweekPlan(_Part):
    """One gameweek of the plan. `weight` is how much its points count in the objective."""

    gameweek: int
    weight: float
    free_transfers_before: int
    transfers: list[Transfer]
    unlimited: bool = Field(description="transfers cost nothing: a wildcard, a free hit, or the first gameweek")
    hits: int = Field(ge=0)
    hit_cost_pts: int = Field(ge=0)
    chip: str | None
    bank_after: int = Field(ge=0)
    formation: str
    captain: PlayerRef
    xp_lineup: float = Field(description="the eleven with its captain counted twice (or three times)")
    xp_bench: float = Field(description="the bench, weighted by the chance that it comes on")


class ObjectiveTerms(_Part):
    """The parts of the objective, in points; they add up to it."""

    xp: float
    bench: float
    hits: float = Field(description="minus what hits cost, plus `squad_state.given_back_pts`")
    hit_margin: float
    free_transfers: float
    bank: float
    chips: float = Field(description="given up by playing chips now that could wait")


class Optimality(_Part):
    """How good the plan provably is: no plan of the model is worth more than `bound_pts`."""

    status: Literal["optimal", "node_limit", "time_limit", "interrupted", "infeasible", "failed"]
    stage: str = Field(description="the rung of the search that found the plan")
    bound_pts: float | None
    rel_gap: float | None = Field(default=None, ge=0)
    nodes: int


class TransferPlan(_Part):
    """The plan gameweek by gameweek; only the first is to be done now."""

    gameweeks: list[GameweekPlan]
    objective_pts: float
    objective_terms: ObjectiveTerms
    optimality: Optimality

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(self.objective_terms.model_dump().values())
        if abs(total - self.objective_pts) > _ROUNDING_PTS:
            raise ValueError(f"the terms add up to {total:.2f}, the objective is {self.objective_pts}")
        return self


class HoldPlan(_Part):
    """The same horizon without any transfer."""

    objective_pts: float
    xp_this_gameweek: float = Field(description="as `lineup.xp_total`, of the squad before transfers")


class LineupPlayer(PlayerRef):
    """A player of the lineup and his expected points this gameweek."""

    xp: float


class LineupCard(_Part):
    """The team to enter: starters by position, bench in order with its goalkeeper first."""

    formation: str
    starters: list[LineupPlayer] = Field(min_length=11, max_length=11)
    bench: list[LineupPlayer] = Field(min_length=4, max_length=4)
    captain: PlayerRef
    vice: PlayerRef
    xp_total: float = Field(
        description="the eleven with its captain counted twice (or three times), and the bench with a bench boost"
    )
    autosub_xp: float = Field(
        ge=0,
        description="the bench coming on for starters who do not play, by everybody's chance of playing and the rules; "
        "beside xp_total, and nothing with a bench boost, which counts the bench in it",
    )

    @model_validator(mode="after")
    def _is_legal(self) -> Self:
        starters = {player.element for player in self.starters}
        if len(starters | {player.element for player in self.bench}) != 15:
            raise ValueError("a player is in the lineup twice")
        if self.captain.element not in starters or self.vice.element not in starters:
            raise ValueError("captain and vice captain must start")
        if self.captain.element == self.vice.element:
            raise ValueError("captain and vice captain are the same player")
        count = {name: sum(p.position == name for p in self.starters) for name in ("GKP", "DEF", "MID", "FWD")}
        if count["GKP"] != 1 or count["DEF"] < 3 or count["MID"] < 2 or count["FWD"] < 1:
            raise ValueError(f"no legal formation: {count}")
        if self.bench[0].position != "GKP":
            raise ValueError("the bench begins with its goalkeeper")
        if self.autosub_xp > sum(player.xp for player in self.bench) + _ROUNDING_PTS:
            raise ValueError(f"substitutes add {self.autosub_xp}, more than the whole bench is expected to score")
        return self


class CaptainCandidate(PlayerRef):
    """`p_top`: how often he scored most of the eleven in joint draws, ties shared."""

    xp: float
    p10: int
    p90: int
    p_top: float | None
    owned_pct: float
    regret_pts: float = Field(ge=0, description="expected points given up by choosing him over the pick")


class Captaincy(_Part):
    """The best candidates for captain, best first."""

    candidates: list[CaptainCandidate]
    pick: int
    vice: int


class ChipGain(_Part):
    """What a chip adds to the plan without chips, played in one gameweek."""

    gameweek: int
    gain_pts: float


class ChipCard(_Part):
    """What a copy of a chip would add, and what is asked of it: `kept_pts`, its worth if it waits.

    `method` solved: solved again with the chip fixed in each gameweek. lineups: read off the lineups of the plan
    without chips, a lower bound. `planned_gameweek`: where the plan, solved with all chips at once, plays it.
    """

    name: str
    window_start: int
    window_stop: int
    gains: list[ChipGain]
    method: Literal["solved", "lineups"]
    value_now_pts: float | None = Field(description="null where it was not valued: `gains` does not have this gameweek")
    best_gameweek: int | None = Field(description="the gameweek of the largest gain; null without any")
    best_value_pts: float | None
    kept_pts: float
    planned_gameweek: int | None
    use_now: bool
    expires_in_gameweeks: int
    reason: str


class Choice(_Part):
    """Something else to do, priced by the same solver: the best plan with it is worth `regret_pts` less.

    `constraint` choices give the plan more room instead, and are worth `regret_pts` more, below zero. `proven` False:
    the price is only an upper bound of the regret.
    """

    kind: Literal["roll", "no_hit", "without", "more_money", "more_transfers"]
    player: PlayerRef | None
    objective_pts: float
    regret_pts: float
    proven: bool


class Swap(_Part):
    """Who goes for whom."""

    sold: PlayerRef
    bought: PlayerRef


class Alternative(_Part):
    """Another first move and the best plan after it; rank 2 is the second best of all."""

    rank: int
    transfers: list[Swap]
    chip: str | None
    objective_pts: float
    regret_pts: float
    proven: bool


class NearMiss(_Part):
    """A transfer the plan does not make, and by how much the best plan found with it falls short."""

    sold: PlayerRef
    bought: PlayerRef
    short_by_pts: float


class Share(PlayerRef):
    """In which share of the noisy solves."""

    share: float = Field(ge=0, le=1)


class Sensitivity(_Part):
    """The plan solved again on projections with errors that last and are shared within a club."""

    runs: int
    agree_share: float = Field(ge=0, le=1, description="same first moves as the plan")
    rolled_share: float = Field(ge=0, le=1)
    sold: list[Share]
    bought: list[Share]
    captain: list[Share]


class Risk(_Part):
    """Something that may go wrong this gameweek, and what covers it."""

    scenario: str
    probability: float = Field(ge=0, le=1)
    loss_pts: float
    mitigation: str


class PriceWatch(PlayerRef):
    """A price that may move: of a player owned, or bought by the plan.

    `basis` forecast: the API's own, with its `likelihood` (5 is surest) that the price moves at `by`, and how far on the way
    to the threshold he will be then. `transfers`: the API makes none, but his price has moved this gameweek and managers go
    on the same way; how likely another change is nobody says, so these three are null.
    """

    direction: Literal["rise", "fall"]
    basis: Literal["forecast", "transfers"]
    likelihood: int | None = Field(ge=-5, le=5, description="below zero for a fall")
    percent: float | None
    by: str | None = Field(description="when prices change, UTC; null where the API does not say")
    owned: bool
    now_cost: int
    moved: int = Field(description="tenths, this gameweek")
    transfers_in: int = Field(ge=0, description="of all managers, this gameweek")
    transfers_out: int = Field(ge=0)

    @model_validator(mode="after")
    def _points_one_way(self) -> Self:
        sign = 1 if self.direction == "rise" else -1
        if self.basis == "forecast":
            if self.likelihood is None or self.likelihood * sign <= 0:
                raise ValueError(f"{self.name}: a {self.direction} of likelihood {self.likelihood}")
        elif self.likelihood is not None or self.moved * sign <= 0:
            raise ValueError(f"{self.name}: a {self.direction} after a price that moved by {self.moved}")
        return self


class HorizonWeek(_Part):
    """Matches of one gameweek: clubs without any, clubs with two or more."""

    gameweek: int
    fixtures: int
    blanks: list[str]
    doubles: list[str]


class Explanation(_Part):
    """Why, in a sentence made of the numbers of this decision."""

    topic: Literal["transfer", "roll", "hit", "constraint", "captain", "chip", "flip"]
    text: str


class ReviewedTransfer(_Part):
    """A transfer of the previous decision, and what both players scored in its gameweek."""

    sold: str
    bought: str
    sold_pts: int
    bought_pts: int


class Team(_Part):
    """A team by element ids, as `params.previous` takes it; the bench in order, its goalkeeper first."""

    gameweek: int
    starters: list[int] = Field(min_length=11, max_length=11)
    bench: list[int] = Field(min_length=4, max_length=4)
    captain: int
    vice: int
    chip: str | None
    hit_cost_pts: int


class ReviewedDecision(_Part):
    """What the previous decision is measured by. A later decision for the same gameweek carries it on."""

    job_id: str | None
    result_sha256: str | None
    advice: Team
    expected_pts: float | None
    held: Team | None
    transfers: list[tuple[int, int]]


class Review(_Part):
    """The last decision for this team whose deadline has passed against what happened; points are after hits.

    It is `previous` of the params, or the result of the job before (`job_id`, and the SHA-256 of its result). `advised_pts` is
    what its team scored, by the game's substitutions, `hold_pts` that of the squad before its transfers, `actual_pts` the
    manager's. Points are null while the gameweek is not over, and where the source does not say.
    """

    gameweek: int
    advice: str
    job_id: str | None
    result_sha256: str | None
    followed: bool | None
    expected_pts: float | None
    advised_pts: int | None
    hold_pts: int | None
    captain_pts: int | None = Field(description="of the captain alone, counted once")
    actual_pts: int | None
    average_pts: int | None
    transfers: list[ReviewedTransfer]
    decided: ReviewedDecision

    @model_validator(mode="after")
    def _is_of_one_decision(self) -> Self:
        if self.decided.advice.gameweek != self.gameweek or self.decided.job_id != self.job_id:
            raise ValueError("the look back and what it is measured by are of two decisions")
        return self


class Receipt(_Part):
    """What fixes this decision. The same inputs give the same `canonical_sha256`, if `repeats`.

    It is of the decision as JSON without `receipt`, `timings_s`, `header.generated_at`, `header.snapshot_time` and the warning
    `stale`: what the pages say counts, not when they were fetched. `repeats` False: a solve was
    ended by the clock, or something was left out for want of time; give a `node_limit` and time enough.
    """

    snapshot_sha256: str
    ruleset_version: str
    engine_version: int
    solver: str
    seed: int
    previous_sha256: str | None = Field(description="of the result looked back at, if it is from the log")
    options_sha256: str
    repeats: bool
    canonical_sha256: str


class Calibration(_Part):
    """How forecasts of regulars did in past `seasons`, each by parameters fitted on earlier ones only.

    `parameters` names those of this decision, fitted on `fitted_on`. `slope` is that of what happened on the forecast, 1 is
    calibrated; `coverage` the share of outcomes from P10 to P90; `rmse_ep_next` the error of the API's own forecast.
    """

    parameters: str
    fitted_on: list[str]
    seasons: list[str]
    n: int
    rmse: float
    rmse_ep_next: float
    bias: float
    slope: float
    coverage: float
    brier_play: float


class Warned(_Part):
    """Something the reader should know before acting."""

    code: str
    message: str


class DecisionOutput(_Part):
    """A decision for one gameweek: what to do, the plan behind it, and what it rests on."""

    schema_version: Literal[1] = 1
    header: Header
    decision: Decision
    squad_state: SquadCard
    projections: list[ProjectionCard]
    transfer_plan: TransferPlan
    hold_plan: HoldPlan
    lineup: LineupCard
    captaincy: Captaincy
    chips: list[ChipCard]
    choices: list[Choice]
    alternatives: list[Alternative]
    near_misses: list[NearMiss]
    sensitivity: Sensitivity | None
    risks: list[Risk]
    price_watch: list[PriceWatch]
    horizon: list[HorizonWeek]
    explanations: list[Explanation]
    review: Review | None = None
    calibration: Calibration | None = None
    warnings: list[Warned]
    timings_s: dict[str, float]
    receipt: Receipt | None = None

    @model_validator(mode="after")
    def _lineup_is_the_squad_after_transfers(self) -> Self:
        now = self.transfer_plan.gameweeks[0]
        sold = {transfer.sold.element for transfer in now.transfers}
        after = {player.element for player in self.squad_state.players} - sold
        after |= {transfer.bought.element for transfer in now.transfers}
        if {player.element for player in (*self.lineup.starters, *self.lineup.bench)} != after:
            raise ValueError("the lineup is not the squad after this gameweek's transfers")
        return self

    @model_validator(mode="after")
    def _hits_are_what_the_rules_take(self) -> Self:
        for week in self.transfer_plan.gameweeks:
            due = 0 if week.unlimited else max(0, len(week.transfers) - week.free_transfers_before)
            if week.hits != due:
                raise ValueError(f"gameweek {week.gameweek}: {week.hits} hits, {due} are due")
        return self

    @model_validator(mode="after")
    def _money_adds_up(self) -> Self:
        bank = self.squad_state.bank
        for week in self.transfer_plan.gameweeks:
            after = bank + sum(transfer.sell_price - transfer.buy_price for transfer in week.transfers)
            if after != week.bank_after:
                raise ValueError(f"gameweek {week.gameweek}: bank {week.bank_after}, the transfers leave {after}")
            # The squad of a free hit is handed back, and the money with it.
            bank = bank if week.chip == "freehit" else after
        return self

    @model_validator(mode="after")
    def _the_bound_is_not_below_the_plan(self) -> Self:
        bound = self.transfer_plan.optimality.bound_pts
        if bound is not None and bound < self.transfer_plan.objective_pts:
            raise ValueError(f"bound {bound} below the plan's {self.transfer_plan.objective_pts}")
        return self

    @model_validator(mode="after")
    def _no_club_too_many(self) -> Self:
        team = (*self.lineup.starters, *self.lineup.bench)
        crowded = {player.club for player in team if sum(other.club == player.club for other in team) > 3}
        excused = any(issue.kind == "club_limit" for issue in self.squad_state.issues)
        if crowded and (self.transfer_plan.gameweeks[0].transfers or not excused):
            raise ValueError(f"more than three players from {', '.join(sorted(crowded))}")
        return self
