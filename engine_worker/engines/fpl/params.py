"""What a caller may ask of the engine `fpl`. Only what needs no data is validated here; see `checks.py`."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine_worker.engines.fpl.seasons import LAST_GAMEWEEK

SQUAD_SIZE = 15
# Three gameweeks solve to proven optimality in about a second; five take ten.
HORIZON_DEFAULT = 3
TIME_LIMIT_DEFAULT_S = 20

Element = Annotated[int, Field(ge=1, description="element id of this season, as in the official API")]
Chip = Literal["wildcard", "freehit", "bboost", "3xc"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class OwnedPlayer(_Strict):
    """One player of the squad and what was paid for him."""

    element: Element
    purchase_price: int = Field(ge=30, le=250, description="price paid, in tenths of a million pounds (55 is £5.5m)")


class BookedTransfer(_Strict):
    """A transfer already made on the site."""

    sold: Element
    bought: Element


class AvailabilityOverride(_Strict):
    """What the caller knows of a player's fitness."""

    element: Element
    chance: int = Field(ge=0, le=100, description="chance that he can play, in percent")
    until_gameweek: int | None = Field(
        default=None, ge=1, le=LAST_GAMEWEEK, description="the last gameweek it holds for; default only `gameweek`"
    )


class PlannedChip(_Strict):
    """A chip the manager wants played in this gameweek."""

    gameweek: int = Field(ge=1, le=LAST_GAMEWEEK)
    chip: Chip


class PreviousDecision(_Strict):
    """What was advised for the gameweek before: the part of a `DecisionOutput` that can be scored."""

    gameweek: int = Field(ge=1, le=LAST_GAMEWEEK)
    starters: list[Element] = Field(min_length=11, max_length=11)
    bench: list[Element] = Field(min_length=4, max_length=4, description="in order, the goalkeeper first")
    captain: Element
    vice: Element
    chip: Chip | None = None
    hit_cost_pts: int = Field(default=0, ge=0, le=100)

    @model_validator(mode="after")
    def _is_a_team(self) -> Self:
        _refuse_duplicates([*self.starters, *self.bench], "player")
        if not {self.captain, self.vice} <= set(self.starters) or self.captain == self.vice:
            raise ValueError("captain and vice must be two of the starters")
        return self


class FplParams(_Strict):
    """One gameweek's question. Give either `team_id` or `squad` with `bank` and `free_transfers`."""

    team_id: int | None = Field(
        default=None, ge=1, le=20_000_000, description="a manager's entry id, looked up in the source"
    )
    squad: list[OwnedPlayer] | None = Field(
        default=None, min_length=SQUAD_SIZE, max_length=SQUAD_SIZE, description="the 15 players owned now"
    )
    bank: int | None = Field(default=None, ge=0, le=1000, description="money in the bank, in tenths; with `squad`")
    free_transfers: int | None = Field(
        default=None, ge=0, le=5, description="free transfers for `gameweek`; with `squad`, or to correct `team_id`"
    )
    gameweek: int | None = Field(
        default=None, ge=1, le=LAST_GAMEWEEK, description="the gameweek to decide; default the source's next"
    )
    horizon: int = Field(default=HORIZON_DEFAULT, ge=1, le=8, description="gameweeks planned, `gameweek` the first")
    available_chips: list[Chip] | None = Field(
        default=None,
        max_length=4,
        description="chips left; default those of the entry not yet played, none for a bare `squad`",
    )
    locked: list[Element] = Field(default=[], max_length=SQUAD_SIZE, description="owned players never to sell")
    banned: list[Element] = Field(default=[], max_length=1000, description="players never to buy")
    booked_transfers: list[BookedTransfer] = Field(
        default=[], max_length=SQUAD_SIZE, description="transfers already made on the site for `gameweek`, in order"
    )
    availability_overrides: list[AvailabilityOverride] = Field(
        default=[], max_length=100, description="chances of playing that replace what the source says"
    )
    chip_plan: list[PlannedChip] = Field(
        default=[], max_length=4, description="chips to be played in set gameweeks; part of every plan"
    )
    risk_posture: Literal["conservative", "balanced", "aggressive"] = Field(
        default="balanced", description="how much a hit must gain beyond its points, and what a saved transfer is worth"
    )
    max_hits: int = Field(default=1, ge=0, le=5, description="most transfers a gameweek beyond the free ones")
    time_limit_s: int = Field(
        default=TIME_LIMIT_DEFAULT_S, ge=1, le=300, description="seconds the solver may use in all"
    )
    node_limit: int | None = Field(
        default=None, ge=1, le=1_000_000, description="nodes each solve may use; with it the result repeats exactly"
    )
    rel_gap: float = Field(default=3e-4, ge=0, le=0.1, description="relative gap at which a plan is called optimal")
    seed: int = Field(default=1, ge=0, le=2**31 - 1, description="of the solver, the noise and the simulation")
    alternatives: int = Field(default=2, ge=0, le=5, description="next best first moves to price")
    sensitivity_runs: int = Field(
        default=8, ge=0, le=50, description="times the plan is solved again with noise on the projections"
    )
    previous: PreviousDecision | None = Field(
        default=None, description="what was decided for the gameweek before, to be scored against what happened"
    )
    source: str | None = Field(
        default=None, min_length=1, max_length=64, description="name of a source configured on the server"
    )

    @field_validator("squad")
    @classmethod
    def _no_duplicate_players(cls, squad: list[OwnedPlayer] | None) -> list[OwnedPlayer] | None:
        _refuse_duplicates([player.element for player in squad or []], "player")
        return squad

    @field_validator("available_chips")
    @classmethod
    def _no_duplicate_chips(cls, chips: list[Chip] | None) -> list[Chip] | None:
        _refuse_duplicates(chips or [], "chip")
        return chips

    @field_validator("availability_overrides")
    @classmethod
    def _one_override_each(cls, overrides: list[AvailabilityOverride]) -> list[AvailabilityOverride]:
        _refuse_duplicates([override.element for override in overrides], "player")
        return overrides

    @field_validator("chip_plan")
    @classmethod
    def _one_chip_a_gameweek(cls, planned: list[PlannedChip]) -> list[PlannedChip]:
        _refuse_duplicates([one.gameweek for one in planned], "chip for gameweek")
        return planned

    @model_validator(mode="after")
    def _one_way_to_name_the_squad(self) -> Self:
        if (self.team_id is None) == (self.squad is None):
            raise ValueError("give either team_id or squad, not both and not neither")
        if self.squad is None and self.bank is not None:
            raise ValueError("bank belongs to squad; the bank of team_id is read from the source")
        if self.squad is not None and (self.bank is None or self.free_transfers is None):
            missing = " and ".join(name for name in ("bank", "free_transfers") if getattr(self, name) is None)
            raise ValueError(f"squad needs {missing}")
        if both := sorted(set(self.locked) & set(self.banned)):
            raise ValueError(f"locked and banned both name {both}")
        if sold := sorted(set(self.locked) & {transfer.sold for transfer in self.booked_transfers}):
            raise ValueError(f"locked and sold in booked_transfers: {sold}")
        return self


def _refuse_duplicates(items: list[int] | list[Chip], noun: str) -> None:
    if twice := sorted({str(item) for item in items if items.count(item) > 1}):  # type: ignore[arg-type]
        raise ValueError(f"{noun} {', '.join(twice)} given twice")
