"""What `phaseline.testing` promises whoever tests an engine."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from events.catalog import Partial, Progress
from phaseline import Context, InvalidParams, NotRetryable, RetryAfter, engine, testing, testing_clock, testing_service
from phaseline.settings import Misconfigured
from phaseline.testing import run_engine, service

pytest_plugins = ["pytester"]

HOUR_S = 3600.0
PHASES = {"collecting": 50, "evaluating": 100}


class Params(BaseModel):
    steps: int = Field(4, ge=1)
    step_s: float = HOUR_S
    wrong: str | None = None


def check(params: Params) -> None:
    if params.steps > 1000:
        raise InvalidParams((("steps",), "too many"))


@engine("patient", version=1, phases=PHASES, check=check)
def patient(params: Params, context: Context) -> dict[str, float]:
    began = time.monotonic()
    collected = context.phase("collecting", lambda: list(range(params.steps)))
    context.phase("evaluating")
    for step in collected:
        time.sleep(params.step_s)
        context.best({"steps": step})
        context.progress((step + 1) / params.steps)
        context.partial("step", step)
        context.raise_if_cancelled()
    match params.wrong:
        case "value":
            raise ValueError("no such thing")
        case "for good":
            raise NotRetryable("never")
        case "later":
            raise RetryAfter("not now", 90.0)
        case "nan":
            return {"steps": float("nan")}
        case _:
            pass
    return {"hours": (time.monotonic() - began) / HOUR_S}


@engine("patient_async", version=1, phases={"waiting": 100})
async def patient_async(params: Params, context: Context) -> list[float]:
    context.phase("waiting")
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def wait(hours: int) -> float:
        await asyncio.sleep(hours * HOUR_S)
        context.log("waited", hours=hours)
        return (loop.time() - began) / HOUR_S

    waited = list(await asyncio.gather(wait(3), wait(1)))
    try:
        async with asyncio.timeout(10 * HOUR_S):
            await asyncio.Event().wait()
    except TimeoutError:
        waited.append((loop.time() - began) / HOUR_S)
    return waited


def test_hours_of_an_engine_pass_in_a_moment():
    began = time.monotonic()
    ran = run_engine(patient, {"steps": 24})
    assert ran.results == {"hours": 24.0}
    assert ran.seconds == 24 * HOUR_S
    assert time.monotonic() - began < HOUR_S


def test_what_an_engine_says_comes_back_in_order_as_events():
    ran = run_engine(patient, {"steps": 2})
    assert ran.status == "completed"
    assert ran.types == ["progress", "checkpoint", "progress", "progress", "partial", "progress", "partial"]
    moved = [(event.phase, event.progress) for event in ran.events if isinstance(event, Progress)]
    assert moved == [("collecting", 0.0), ("evaluating", 50.0), ("evaluating", 75.0), ("evaluating", 99.99)]


def test_progress_is_thinned_as_a_worker_thins_it():
    @engine("hasty", version=1, phases={"counting": 100})
    def hasty(params: Params, context: Context) -> None:
        context.phase("counting")
        for step in range(100):
            time.sleep(0.01)
            context.progress(step / 100)

    moved = [event.progress for event in run_engine(hasty).events if isinstance(event, Progress)]
    assert 4 <= len(moved) <= 6
    assert moved[-1] == 99.0


def test_async_engines_wait_on_the_same_clock():
    ran = run_engine(patient_async)
    assert ran.results == [3.0, 1.0, 13.0]
    assert [event.fields for event in ran.events if event.type == "log"] == [{"hours": 1}, {"hours": 3}]
    assert ran.seconds == 13 * HOUR_S


def test_an_engine_asked_to_stop_keeps_its_best():
    ran = run_engine(patient, {"steps": 10}, cancel_after_s=2.5 * HOUR_S)
    assert (ran.status, ran.results, ran.seconds) == ("cancelled", {"steps": 2}, 3 * HOUR_S)


def test_an_engine_can_be_asked_to_stop_by_what_it_said():
    ran = run_engine(patient, {"steps": 10}, cancel_on=lambda event: isinstance(event, Partial) and event.value == 4)
    assert (ran.status, ran.results) == ("cancelled", {"steps": 4})


def test_an_attempt_whose_time_is_over_is_stopped_where_it_sleeps():
    ran = run_engine(patient, {"steps": 10}, attempt_s=4.5 * HOUR_S)
    assert ran.status == "failed"
    assert ran.error
    assert (ran.error.code, ran.error.retryable) == ("attempt_timeout", True)
    assert (ran.results, ran.seconds) == ({"steps": 3}, 4.5 * HOUR_S)
    assert run_engine(patient_async, attempt_s=2 * HOUR_S).seconds == 2 * HOUR_S


@pytest.mark.parametrize(
    "wrong, kind, code, retryable, retry_after_s",
    [
        ("value", "ValueError", "engine_error", True, None),
        ("for good", "NotRetryable", "engine_error", False, None),
        ("later", "RetryAfter", "engine_error", True, 90.0),
        ("nan", "Unserializable", "engine_error", False, None),
    ],
)
def test_what_an_engine_raises_is_judged_as_a_worker_judges_it(
    wrong: str, kind: str, code: str, *, retryable: bool, retry_after_s: float | None
):
    ran = run_engine(patient, Params(wrong=wrong))
    assert ran.status == "failed"
    assert ran.error
    assert (ran.error.type, ran.error.code, ran.error.retryable) == (kind, code, retryable)
    assert ran.retry_after_s == retry_after_s
    assert ran.results == {"steps": 3}


def test_what_one_attempt_recorded_is_given_to_the_next():
    first = run_engine(patient, {"steps": 3, "wrong": "value"})
    assert first.recorded == {"collecting": [0, 1, 2]}
    again = run_engine(patient, {"steps": 3}, recorded=first.recorded, attempt=2)
    assert "checkpoint" not in again.types
    assert again.recorded == first.recorded


def test_params_that_a_submit_refuses_are_refused():
    with pytest.raises(ValidationError, match="steps"):
        run_engine(patient, {"steps": 0})
    with pytest.raises(InvalidParams, match="steps: too many"):
        run_engine(patient, {"steps": 1001})


def test_time_is_the_machines_again_afterwards_and_always_was_for_others():
    before, seen = time.monotonic, []

    @engine("with_a_thread", version=1, phases={"waiting": 100})
    def with_a_thread(params: Params, context: Context) -> None:
        context.phase("waiting")
        time.sleep(1000 * HOUR_S)
        thread = threading.Thread(target=lambda: seen.append(time.monotonic()))
        thread.start()
        thread.join()

    run_engine(with_a_thread)
    assert time.monotonic is before
    assert abs(seen[0] - time.monotonic()) < HOUR_S


def test_an_engine_that_never_ends_is_a_failure_and_not_a_full_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(testing, "EVENTS_MAX", 1000)

    @engine("endless", version=1, phases={"talking": 100})
    def endless(params: Params, context: Context) -> None:
        context.phase("talking")
        while True:
            try:
                context.log("and")
            except Exception as problem:  # an engine may be that stubborn
                context.log(str(problem))

    with pytest.raises(RuntimeError, match="did not end"):
        run_engine(endless)


def test_an_engine_that_sleeps_or_waits_without_end_is_a_failure_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(testing_clock, "SLEEPS_MAX", 1000)
    monkeypatch.setattr(testing_clock, "WAIT_S", 2.0)

    @engine("looks_again", version=1, phases={"waiting": 100})
    def looks_again(params: Params, context: Context) -> None:
        while not context.cancelled:
            time.sleep(60)

    @engine("looks_again_async", version=1, phases={"waiting": 100})
    async def looks_again_async(params: Params, context: Context) -> None:
        while not context.cancelled:  # noqa: ASYNC110 as engines do
            await asyncio.sleep(60)

    @engine("waits", version=1, phases={"waiting": 100})
    async def waits(params: Params, context: Context) -> None:
        await asyncio.Event().wait()

    for one, why in (
        (looks_again, "slept 1000 times"),
        (looks_again_async, "slept 1000 times"),
        (waits, "did not come"),
    ):
        with pytest.raises(RuntimeError, match=why):
            run_engine(one)
    assert run_engine(looks_again, cancel_after_s=HOUR_S).status == "completed"


GREETER = """
from pydantic import BaseModel
from phaseline import Context, engine

class Params(BaseModel):
    name: str = "world"

@engine("greet_kit", version=1, phases={"greeting": 100})
def greet(params: Params, context: Context) -> str:
    context.phase("greeting")
    return f"Hello, {params.name}!"
"""


@pytest.fixture
def greeter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with an engine, importable here and in child processes."""
    (tmp_path / "greeter_of_the_kit.py").write_text(GREETER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "greeter_of_the_kit"


def test_a_service_runs_jobs_as_a_server_does(greeter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PHASELINE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    with service(greeter, folder=tmp_path, slots=1) as phaseline:
        ended = phaseline.run("greet_kit", {"name": "you"}, tags=["kit"])
    assert (ended.status, ended.results) == ("completed", "Hello, you!")
    assert list(dict.fromkeys(ended.types)) == ["submitted", "started", "progress", "complete"]
    assert ended.job["tags"] == ["kit"]
    assert list(tmp_path.glob("*.sqlite3")) or list(tmp_path.glob("*.db")), list(tmp_path.iterdir())


def test_a_service_that_cannot_start_says_why():
    with pytest.raises(Misconfigured, match="no_such_module"), service("no_such_module"):
        pass


def test_a_service_whose_start_took_too_long_does_not_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(testing_service, "WAIT_S", 0.0)
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError), service(folder=tmp_path):
        raise AssertionError("it cannot have started")
    (left,) = (one for one in threading.enumerate() if one.name == "phaseline" and one not in before)
    left.join(60)
    assert not left.is_alive()


def test_the_plugin_gives_its_fixtures_to_any_test(tmp_path: Path, pytester: Any):
    pytester.makepyfile(greeter_of_the_kit=GREETER)
    pytester.makeini("[pytest]\nphaseline_engines = greeter_of_the_kit\npythonpath = .\n")
    pytester.makepyfile(
        test_it="""
        from greeter_of_the_kit import greet

        def test_an_engine(run_engine):
            assert run_engine(greet, {"name": "you"}).results == "Hello, you!"

        def test_a_program(phaseline_service):
            ended = phaseline_service.run("greet_kit")
            assert ended.results == "Hello, world!"
        """
    )
    run = pytester.runpytest_subprocess("-q", "-p", "no:schemathesis", "-p", "no:anyio", timeout=100)
    run.assert_outcomes(passed=2)
