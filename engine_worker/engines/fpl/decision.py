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
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, extra="forbid")


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
    chips_available: list[str]
    issues: list[Issue]
    replay: ReplayCard


class FixtureCard(_Part):
    """One match of a projection; difficulty 1–5 as the API rates it."""

    opponent: str
    home: bool
    difficulty: int


class ProjectionCard(PlayerRef):
    """Expected points in one gameweek with their 10th, 50th and 90th percentile; no fixtures is a blank."""

    gameweek: int
    fixtures: list[FixtureCard]
    xp: float
    p10: int
    p50: int
    p90: int
    p_play: float = Field(ge=0, le=1)
    p_60: float = Field(ge=0, le=1)


class Transfer(_Part):
    """One player for another of his position; `gain_horizon_pts` compares the two alone, lineups aside."""

    sold: PlayerRef
    bought: PlayerRef
    sell_price: int
    buy_price: int
    gain_gameweek_pts: float
    gain_horizon_pts: float


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
    """The parts of the objective, in points."""

    xp: float
    bench: float
    hits: float
    hit_margin: float
    free_transfers: float
    bank: float


class Optimality(_Part):
    """How good the plan provably is: no plan of the model is worth more than `bound_pts`."""

    status: Literal["optimal", "time_limit", "interrupted", "failed"]
    stage: Literal["hold", "this_gameweek", "horizon", "chip"]
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
    xp_this_gameweek: float


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
    xp_total: float = Field(description="the eleven with its captain counted twice (or three times)")

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


class ChipCard(_Part):
    """What a chip would add. Bench boost and triple captain are valued in each gameweek from the plan's lineups, a
    lower bound; wildcard and free hit by solving again with the chip fixed to the first gameweek."""

    name: str
    window_start: int
    window_stop: int
    value_now_pts: float
    best_gameweek: int
    best_value_pts: float
    use_now: bool
    reason: str


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
    warnings: list[Warned]
    timings_s: dict[str, float]

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
    def _no_club_too_many(self) -> Self:
        team = (*self.lineup.starters, *self.lineup.bench)
        crowded = {player.club for player in team if sum(other.club == player.club for other in team) > 3}
        excused = any(issue.kind == "club_limit" for issue in self.squad_state.issues)
        if crowded and (self.transfer_plan.gameweeks[0].transfers or not excused):
            raise ValueError(f"more than three players from {', '.join(sorted(crowded))}")
        return self
