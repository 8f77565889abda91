"""The engine in a real worker: killed at each phase, cancelled, out of time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, get_args

import pytest

from engine_worker.engines.fpl.decision import DecisionOutput
from engine_worker.engines.fpl.receipt import canonical
from tests.figures import note
from tests.fpl.halting import Moment
from tests.installation import Api, Viewer, api, embedded, running

pytestmark = pytest.mark.long

ENVIRONMENT = {
    "PHASELINE_ENGINE_MODULES": "tests.fpl.halting",
    "PHASELINE_SLOTS": "7",
    "PHASELINE_LEASE_S": "5",
    "PHASELINE_BEAT_S": "1",
    "PHASELINE_SWEEP_S": "0.3",
    "PHASELINE_LOG_LEVEL": "WARNING",
}
BOUND_S = 110
QUESTION = {
    "team_id": 2,
    "horizon": 2,
    "available_chips": ["3xc"],
    "alternatives": 1,
    "sensitivity_runs": 1,
    "time_limit_s": 300,
    "node_limit": 1000,
}
# What each moment finds recorded when the next attempt begins.
RECORDED = {
    "initializing": [],
    "collecting_data": [],
    "projecting_points": ["collecting_data"],
    "analyzing_transfers": ["collecting_data", "projecting_points"],
    "an incumbent": ["collecting_data", "projecting_points"],
    "finalizing": ["collecting_data", "projecting_points", "analyzing_transfers"],
}


async def until(viewer: Viewer, seen: Callable[[dict[str, Any]], bool]) -> Viewer:
    """Follows until an event is `seen`."""
    async with asyncio.timeout(BOUND_S):
        while not any(map(seen, viewer.events)):
            await viewer.follow(until=len(viewer.events) + 1)
    return viewer


def halted(event: dict[str, Any]) -> bool:
    return event["type"] == "log" and event["message"] == "halted"


@pytest.fixture
async def http(tmp_path) -> AsyncIterator[Api]:
    async with running(embedded(tmp_path, **ENVIRONMENT)) as installation, api(installation.url) as http:
        yield http


@pytest.mark.timeout(180)
async def test_killed_at_each_phase_the_next_attempt_decides_the_same_from_what_was_recorded(tmp_path):
    """One kill -9 of everything while six jobs stand at six moments."""
    installation = embedded(tmp_path, **ENVIRONMENT)
    async with running(installation), api(installation.url) as http:
        moments = get_args(Moment)
        jobs = {m: await http.submit("fpl_halting", {**QUESTION, "halt_at": m}) for m in moments}
        viewers = {m: Viewer(installation.url, job_id, bound_s=BOUND_S) for m, job_id in jobs.items()}
        undisturbed = await viewers.pop("never").follow_to_the_end()
        await asyncio.gather(*(until(viewer, halted) for viewer in viewers.values()))
        await installation.kill()
        await installation.start()
        await asyncio.gather(*(viewer.follow_to_the_end() for viewer in viewers.values()))
    expected = DecisionOutput.model_validate(undisturbed.events[-1]["results"])
    assert expected.receipt is not None
    assert expected.receipt.repeats
    for moment, viewer in viewers.items():
        assert [event["seq"] for event in viewer.events] == list(range(1, len(viewer.events) + 1))
        again = [event for event in viewer.events if event["type"] == "started"][1]
        assert again["reused_phases"] == RECORDED[moment]
        recorded = [event["phase"] for event in viewer.events if event["type"] == "checkpoint"]
        assert sorted(recorded) == ["analyzing_transfers", "collecting_data", "projecting_points"]
        decision = DecisionOutput.model_validate(viewer.events[-1]["results"])
        assert canonical(decision) == canonical(expected)
        assert decision.receipt == expected.receipt


@pytest.mark.timeout(180)
async def test_a_takeover_looks_back_at_the_same_decision_of_the_log(tmp_path):
    """The season goes on by a gameweek between two decisions; the second is killed before and after it looked back."""
    asked = {**QUESTION, "source": "season", "horizon": 1, "sensitivity_runs": 0, "alternatives": 0}
    at = [ENVIRONMENT | {"PHASELINE_FPL_SOURCES": f"season=synthetic:7:{gameweek}"} for gameweek in (12, 13)]
    async with running(embedded(tmp_path, **at[0])) as installation, api(installation.url) as http:
        before = await http.submit("fpl_halting", asked)
        decided = (await Viewer(installation.url, before, bound_s=BOUND_S).follow_to_the_end()).events[-1]["results"]
    installation = embedded(tmp_path, **at[1])
    async with running(installation), api(installation.url) as http:
        jobs = [
            await http.submit("fpl_halting", {**asked, "halt_at": moment})
            for moment in ("collecting_data", "projecting_points", "never")
        ]
        viewers = [Viewer(installation.url, job_id, bound_s=BOUND_S) for job_id in jobs]
        undisturbed = await viewers[-1].follow_to_the_end()
        await asyncio.gather(*(until(viewer, halted) for viewer in viewers[:-1]))
        await installation.kill()
        await installation.start()
        await asyncio.gather(*(viewer.follow_to_the_end() for viewer in viewers[:-1]))
    review = undisturbed.events[-1]["results"]["review"]
    assert (review["gameweek"], review["job_id"]) == (12, before)
    assert review["decided"]["advice"]["captain"] == decided["lineup"]["captain"]["element"]
    assert review["advised_pts"] is not None
    for viewer in viewers:
        decision = DecisionOutput.model_validate(viewer.events[-1]["results"])
        assert canonical(decision) == canonical(DecisionOutput.model_validate(undisturbed.events[-1]["results"]))
        assert viewer.events[0]["subject"] == '[2,"season"]'


LONG = {"team_id": 1, "horizon": 8, "time_limit_s": 300}


def over_the_horizon(event: dict[str, Any]) -> bool:
    return event["type"] == "partial" and event["name"] == "incumbent" and event["value"]["stage"] == "horizon"


def first_shown_s(viewer: Viewer, stage: str) -> float:
    """From the start of the attempt to the first plan of this rung that a viewer could follow."""
    started, plan = (
        next(datetime.fromisoformat(event["timestamp"]) for event in viewer.events if kind(event))
        for kind in (
            lambda event: event["type"] == "started",
            lambda event: (
                event["type"] == "partial" and event["name"] == "incumbent" and event["value"]["stage"] == stage
            ),
        )
    )
    return (plan - started).total_seconds()


@pytest.mark.parametrize("grace_s", [30, 0.001])
async def test_a_cancel_inside_the_solver_keeps_the_best_plan_so_far(http: Api, grace_s: float):
    """Asked, or killed at once."""
    job_id = await http.submit("fpl", LONG)
    viewer = await until(Viewer(http.url, job_id, bound_s=BOUND_S), over_the_horizon)
    asked = time.monotonic()
    await http.post(f"/api/v1/jobs/{job_id}/cancel", {"grace_s": grace_s}, 200)
    acknowledged = time.monotonic() - asked
    await viewer.follow_to_the_end()
    took = time.monotonic() - asked
    for stage in ("hold", "this_gameweek"):
        note({"what": f"fpl: first plan of the rung {stage} after the start", "seconds": first_shown_s(viewer, stage)})
    note({"what": "fpl: cancel inside the solver, acknowledged", "seconds": acknowledged})
    note({"what": f"fpl: cancel inside the solver, grace {grace_s:g} s, ended", "seconds": took})
    assert viewer.events[-1]["type"] == "cancelled"
    kept = DecisionOutput.model_validate(viewer.events[-1]["results"])
    assert kept.decision.action == "TRANSFER"
    assert kept.transfer_plan.optimality.status != "optimal"
    first = next(event["value"]["objective_pts"] for event in viewer.events if over_the_horizon(event))
    assert kept.transfer_plan.objective_pts >= first - 0.01
    assert took < 15  # 0.2–0.6 s on an idle machine


async def test_a_forced_cancel_leaves_the_best_plan_in_the_stream(http: Api):
    """A worker that lives keeps what its engine offered; without one the incumbents remain, which were said before."""
    job_id = await http.submit("fpl", LONG)
    viewer = await until(Viewer(http.url, job_id, bound_s=BOUND_S), over_the_horizon)
    await http.post(f"/api/v1/jobs/{job_id}/cancel", {"mode": "force"}, 200)
    await viewer.follow_to_the_end()
    end = viewer.events[-1]
    assert end["type"] == "cancelled"
    # Forced is the end over the head of a worker that did not answer in time, as on a machine that is very busy.
    if not end["forced"]:
        assert DecisionOutput.model_validate(end["results"]).decision.action == "TRANSFER"
    last = [event["value"] for event in viewer.events if event["type"] == "partial" and event["name"] == "incumbent"][
        -1
    ]
    assert last["transfers"]


async def test_a_job_about_to_run_out_of_its_total_time_ends_with_the_best_plan_so_far(http: Api):
    """The engine leaves the solver in time to write it down; were it too slow, the worker would keep what it offered."""
    job_id = await http.submit("fpl", LONG, timeouts={"total_s": 12}, max_attempts=1)
    viewer = await Viewer(http.url, job_id, bound_s=BOUND_S).follow_to_the_end()
    assert viewer.events[-1]["type"] in {"complete", "error"}
    kept = DecisionOutput.model_validate(viewer.events[-1]["results"])
    assert kept.transfer_plan.objective_pts >= kept.hold_plan.objective_pts
    assert kept.transfer_plan.optimality.status != "optimal"


async def test_incumbents_reach_the_stream_as_they_are_found_and_only_get_better(http: Api):
    job_id = await http.submit("fpl", {"team_id": 3, "horizon": 3, "time_limit_s": 30, "sensitivity_runs": 0})
    viewer = await Viewer(http.url, job_id, bound_s=BOUND_S).follow_to_the_end()
    values = [event["value"] for event in viewer.events if event["type"] == "partial" and event["name"] == "incumbent"]
    found = [value["elapsed_s"] for value in values]
    assert found == sorted(found)
    assert [value["stage"] for value in values][:2] == ["hold", "this_gameweek"]
    worth = [value["objective_pts"] for value in values]
    assert worth == sorted(worth)
    print(f"\nfirst plans after {values[0]['elapsed_s']} s and {values[1]['elapsed_s']} s, {len(values)} in all")  # noqa: T201 it is a result


async def test_a_rerun_with_other_params_computes_only_what_they_touch(http: Api):
    """Asked from the last phase on: the engine sees for itself which of the recorded phases still hold."""
    asked = {**QUESTION, "available_chips": [], "alternatives": 0, "sensitivity_runs": 0}
    job_id = await http.submit("fpl", asked)
    first = await Viewer(http.url, job_id, bound_s=BOUND_S).follow_to_the_end()
    bought = first.events[-1]["results"]["transfer_plan"]["gameweeks"][0]["transfers"][0]["bought"]["element"]
    body = {"from_phase": "finalizing", "params": {**asked, "banned": [bought]}}
    rerun = await http.post(f"/api/v1/jobs/{job_id}/rerun", body, 202)
    viewer = await Viewer(http.url, rerun["id"], bound_s=BOUND_S).follow_to_the_end()
    plan = next(event["value"] for event in viewer.events if event["type"] == "partial" and event["name"] == "plan")
    assert plan["reused_phases"] == ["collecting_data", "projecting_points"]
    decision = DecisionOutput.model_validate(viewer.events[-1]["results"])
    assert bought not in {player.element for player in (*decision.lineup.starters, *decision.lineup.bench)}
    percents = [event["progress"] for event in viewer.events if event["type"] == "progress"]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0
