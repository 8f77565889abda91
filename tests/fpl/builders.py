"""Runs the engine without a worker, builds small problems, and checks a decision against the rules once more."""

import random
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

from engine_worker.context import Context
from engine_worker.engines.fpl import fpl
from engine_worker.engines.fpl.build import build_problem
from engine_worker.engines.fpl.collecting import Collected, collect
from engine_worker.engines.fpl.decision import DecisionOutput
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.problem import Problem
from engine_worker.engines.fpl.projections import Projected, project
from engine_worker.engines.fpl.source import Reading
from engine_worker.engines.fpl.sources import source_named

MANAGERS = (1, 2, 3, 4, 5, 6, 7)


@dataclass
class Made:
    """A decision and everything the engine said on the way."""

    decision: DecisionOutput
    messages: list[dict[str, Any]]

    def said(self, op: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["op"] == op]

    @property
    def recorded(self) -> dict[str, Any]:
        return {message["phase"]: message["output"] for message in self.said("checkpoint")}


# Time enough on a busy machine, so that no clock has a part in it, and nothing solved that a test does not look at.
UNHURRIED = {"time_limit_s": 100, "alternatives": 0, "sensitivity_runs": 0}

EVERYTHING = {"alternatives": 2, "sensitivity_runs": 3}


def decided(params: dict[str, Any], **context: Any) -> Made:
    """Checks and runs the engine on params as a client would send them, `UNHURRIED` unless they say otherwise."""
    checked = fpl.params.model_validate({**UNHURRIED, **params})
    if fpl.check is not None:
        fpl.check(checked)
    messages: list[dict[str, Any]] = []
    return Made(fpl.run(checked, Context(fpl.phases, messages.append, **context)), messages)


def without_times(decision: DecisionOutput) -> dict[str, Any]:
    """What must be equal in two runs on grounds that hold the same."""
    plain = decision.model_dump()
    plain.pop("timings_s")
    plain.pop("receipt")
    plain["header"].pop("generated_at")
    return plain


@cache
def collected(team_id: int = 1, horizon: int = 3, **params: Any) -> Collected:
    return collect(
        FplParams(team_id=team_id, horizon=horizon, **params), "synthetic", Reading(source_named("synthetic"))
    )


@cache
def projected(team_id: int = 1, horizon: int = 3) -> Projected:
    return project(collected(team_id, horizon))


@cache
def bootstrap() -> dict[str, Any]:
    body: dict[str, Any] = Reading(source_named("synthetic")).body("bootstrap-static")
    return body


def a_problem(team_id: int = 1, horizon: int = 1, candidates: int = 24, seed: int = 0, **changes: Any) -> Problem:
    """A problem over the squad of a made-up manager and a few players drawn at random."""
    ground, rows = collected(team_id, horizon), projected(team_id, horizon).rows
    owned = {holding.element for holding in ground.squad.holdings}
    others = [player for player in ground.players if player.element not in owned and player.minutes > 300]
    drawn = {player.element for player in random.Random(seed).sample(others, candidates)}
    few = ground.model_copy(update={"players": [p for p in ground.players if p.element in owned | drawn]})
    known: dict[str, Any] = {key: changes.pop(key) for key in ("bank", "free_transfers") if key in changes}
    squad = few.squad.model_copy(update={"chips": [], **known})
    kept = [row for row in rows if row.element in owned | drawn]
    params = FplParams(
        team_id=team_id, horizon=horizon, max_hits=changes.pop("max_hits", 0), available_chips=[], **changes
    )
    problem = build_problem(few.model_copy(update={"squad": squad}), kept, params)
    assert len(problem.elements) == len(owned | drawn)
    return problem


def a_squad(team_id: int = 1) -> dict[str, Any]:
    """The squad of a made-up manager as params would spell it out."""
    squad = collected(team_id).squad
    return {
        "squad": [{"element": h.element, "purchase_price": h.purchase_price} for h in squad.holdings],
        "bank": squad.bank,
        "free_transfers": squad.free_transfers,
        "available_chips": squad.chips,
    }


def assert_within_the_rules(decision: DecisionOutput) -> None:
    """Follows the plan with nothing but the decision itself: money, free transfers, squads, lineup."""
    players = {player.element: player for player in decision.squad_state.players}
    places = {element: player.position for element, player in players.items()}
    clubs = {element: player.club for element, player in players.items()}
    worth = {element: player.selling_price for element, player in players.items()}
    squad, bank, most_free = set(players), decision.squad_state.bank, 2 if decision.header.season < "2024-25" else 5
    for week in decision.transfer_plan.gameweeks:
        kept = (set(squad), bank)
        for transfer in week.transfers:
            assert transfer.sold.element in squad
            assert transfer.bought.element not in squad
            assert transfer.sold.position == transfer.bought.position
            assert transfer.sell_price == worth.get(transfer.sold.element, transfer.sell_price)
            places[transfer.bought.element] = transfer.bought.position
            clubs[transfer.bought.element] = transfer.bought.club
            worth[transfer.bought.element] = transfer.buy_price
            bank += transfer.sell_price - transfer.buy_price
        squad -= {transfer.sold.element for transfer in week.transfers}
        squad |= {transfer.bought.element for transfer in week.transfers}
        assert bank == week.bank_after >= 0
        assert Counter(places[element] for element in squad) == {"GKP": 2, "DEF": 5, "MID": 5, "FWD": 3}
        assert max(Counter(clubs[element] for element in squad).values()) <= 3
        assert 0 <= week.free_transfers_before <= max(most_free, decision.squad_state.free_transfers)
        assert week.hits == (0 if week.unlimited else max(0, len(week.transfers) - week.free_transfers_before))
        if week.chip == "freehit":
            squad, bank = kept
    starters = Counter(player.position for player in decision.lineup.starters)
    assert starters["GKP"] == 1
    assert starters["DEF"] >= 3
    assert starters["MID"] >= 2
    assert starters["FWD"] >= 1
