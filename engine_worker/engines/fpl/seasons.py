"""Which rules a season is played by: the table `seasons.toml` of this package, and what the API itself states.

Where the two differ the API is right, and `disagreements` names the difference: a rule changed, or the table is wrong.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict

GOALKEEPER, DEFENDER, MIDFIELDER, FORWARD = 1, 2, 3, 4
POSITION_NAMES = {GOALKEEPER: "GKP", DEFENDER: "DEF", MIDFIELDER: "MID", FORWARD: "FWD"}
CHIPS = ("wildcard", "freehit", "bboost", "3xc")
LAST_GAMEWEEK = 38
# What `game_settings` calls the rules it states.
_SETTINGS = {
    "squad_squadsize": "squad_size",
    "squad_squadplay": "eleven_size",
    "squad_team_limit": "club_limit",
    "squad_total_spend": "budget",
    "transfers_sell_on_fee": "sell_on_fee",
}

ByPosition = dict[str, int]


class UnknownSeason(LookupError):
    """A season before the first of the table; a later one is read as the last, with what its API states."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PositionRule(_Frozen):
    """How many players of one position a squad has and a starting eleven may have."""

    position: int
    squad: int
    play_min: int
    play_max: int


class ChipWindow(_Frozen):
    """One copy of a chip and the gameweeks it may be played in, both ends included."""

    name: str
    start: int
    stop: int


class Scoring(_Frozen):
    """Points for what a player did in one match, by the API's names; by position where positions differ.

    `goals_conceded` and `saves` count once for each full `…_each`; a defensive contribution counts once a match, from
    `defensive_contribution_from` actions on. The API states the points but none of these three steps.
    """

    short_play: int
    long_play: int
    long_play_minutes: int
    goals_scored: ByPosition
    assists: int
    clean_sheets: ByPosition
    goals_conceded: ByPosition
    goals_conceded_each: int
    saves: int
    saves_each: int
    penalties_saved: int
    penalties_missed: int
    yellow_cards: int
    red_cards: int
    own_goals: int
    bonus: int
    defensive_contribution: ByPosition
    defensive_contribution_from: ByPosition


class Ruleset(_Frozen):
    """Everything a plan must respect in one season; money in tenths of a million pounds."""

    season: str
    revision: int
    squad_size: int
    eleven_size: int
    club_limit: int
    budget: int
    sell_on_fee: float
    hit_cost: int
    free_transfers_max: int
    # True: a wildcard or free hit leaves one free transfer for the next gameweek (until 2023/24).
    # False: the banked ones are kept, and none is added (since 2024/25).
    chip_resets_free_transfers: bool
    # Gameweeks whose transfers are not counted, and ones whose transfers are counted but cost nothing.
    unlimited_gameweeks: tuple[int, ...]
    free_of_charge: tuple[int, ...] = ()
    # Gameweeks that begin with a set number of free transfers, whatever was banked.
    topped_up: dict[int, int] = {}
    positions: tuple[PositionRule, ...]
    chips: tuple[ChipWindow, ...]
    # Two free hits are not played in consecutive gameweeks.
    free_hits_apart: bool = False
    scoring: Scoring

    @property
    def version(self) -> str:
        """Names this set of rules in a decision."""
        return f"fpl-{self.season}.{self.revision}"

    def position(self, position: int) -> PositionRule:
        """The bounds of one position. Raises `KeyError` for a position the season does not have."""
        for rule in self.positions:
            if rule.position == position:
                return rule
        raise KeyError(position)

    def window(self, chip: str, gameweek: int) -> ChipWindow | None:
        """The first copy of `chip` that may be played in `gameweek`, if there is one."""
        return next((w for w in self.chips if w.name == chip and w.start <= gameweek <= w.stop), None)


def season_of(bootstrap: Mapping[str, Any]) -> str:
    """The season a `bootstrap-static` belongs to, as `2026-27`, from the year of its first deadline."""
    first = min(str(event["deadline_time"]) for event in bootstrap["events"])
    year = int(first[:4])
    return f"{year}-{(year + 1) % 100:02d}"


def ruleset(bootstrap: Mapping[str, Any]) -> Ruleset:
    """The rules of the season of a `bootstrap-static`. Raises `UnknownSeason`, `KeyError` when it lacks its settings."""
    season = season_of(bootstrap)
    return Ruleset.model_validate(_merged(season_table(season), _stated(bootstrap)) | {"season": season})


def disagreements(bootstrap: Mapping[str, Any]) -> list[str]:
    """Rules the API states otherwise than the table, as `name: table, API`; and a season the table does not have."""
    season = season_of(bootstrap)
    found = [] if season in known_seasons() else [f"season {season}: not in the table, {known_seasons()[-1]} is used"]
    table = Ruleset.model_validate(season_table(season))
    ours, theirs = (_flat(rules.model_dump(exclude={"season"})) for rules in (table, ruleset(bootstrap)))
    return found + [f"{name}: {ours[name]}, the API says {theirs[name]}" for name in ours if ours[name] != theirs[name]]


def known_seasons() -> list[str]:
    """The seasons of the table, oldest first."""
    return [entry["name"] for entry in _table()]


def season_table(season: str) -> dict[str, Any]:
    """The rules of one season as the table has them, without any API. Raises `UnknownSeason`."""
    rules: dict[str, Any] = {}
    only: dict[str, Any] = {}
    entry: dict[str, Any] = {}
    for entry in _table():
        if entry["name"] > season:
            break
        rules = _merged(rules, entry.get("since", {}))
        only = entry.get("only", {}) if entry["name"] == season else {}
    if not rules:
        raise UnknownSeason(f"season {season} is before {known_seasons()[0]}, the first whose rules are known")
    revision = next((e["revision"] for e in _table() if e["name"] == season), 0)
    return _merged(rules, only) | {"season": season, "revision": revision}


@cache
def _table() -> list[dict[str, Any]]:
    text = resources.files(__package__ or "").joinpath("seasons.toml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = tomllib.loads(text)["season"]
    return entries


def _stated(bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """What a `bootstrap-static` says of the rules, under our names. Older ones say less."""
    settings = bootstrap["game_settings"]
    stated: dict[str, Any] = {ours: settings[theirs] for theirs, ours in _SETTINGS.items()}
    # The free transfers banked beyond the first, stated since 2024/25.
    if settings.get("max_extra_free_transfers") is not None:
        stated["free_transfers_max"] = int(settings["max_extra_free_transfers"]) + 1
    kinds = [kind for kind in bootstrap["element_types"] if kind["id"] in POSITION_NAMES]
    stated["positions"] = [
        {
            "position": kind["id"],
            "squad": kind["squad_select"],
            "play_min": kind["squad_min_play"],
            "play_max": kind["squad_max_play"],
        }
        for kind in kinds
    ]
    if chips := bootstrap.get("chips"):
        windows = [
            {"name": chip["name"], "start": chip["start_event"], "stop": chip["stop_event"]}
            for chip in chips
            if chip["name"] in CHIPS
        ]
        stated["chips"] = sorted(windows, key=lambda window: (CHIPS.index(window["name"]), window["start"]))
    scoring = (bootstrap.get("game_config") or {}).get("scoring") or {}
    stated["scoring"] = {name: _points(value) for name, value in scoring.items() if name in Scoring.model_fields}
    return stated


def _points(value: Any) -> Any:
    """A number, or numbers for the positions we know (a season had managers too)."""
    if isinstance(value, Mapping):
        return {name: value[name] for name in POSITION_NAMES.values() if name in value}
    return value


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for name, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if nested else value
    return merged


def _flat(rules: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in rules.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat
