"""What engines return, say and raise, and what becomes of it."""

import json
import time

import pytest

from events.batch import digest_of
from events.catalog import Checkpoint, Complete, Error, Retry, Started
from tests.builders import story
from tests.worker.scene import Scene


async def test_an_async_engine_runs_like_any_other(scene: Scene):
    async with scene.worker():
        stream = await scene.end(await scene.submit("well_behaved_async", number=7))
    assert story(stream) == [(1, "submitted"), (2, "started"), (3, "progress"), (4, "progress"), (5, "complete")]
    assert json.loads(stream[-1].data) == {"results": {"number": 7}}


@pytest.mark.parametrize(
    "kind, code, message",
    [
        ("nan", "engine_error", "results.rows[1].points: nan is not JSON"),
        ("object", "engine_error", "results.rows[0]: an object of type Odd is not JSON"),
        ("surrogate", "engine_error", "results"),
        ("too_much", "engine_error", "a partial event of 11"),
        ("invalid", "invalid_params", "number: no such number"),
        ("final", "engine_error", "never mind"),
        ("garbage", "engine_error", "the engine said what no event can hold"),
    ],
)
async def test_what_another_attempt_would_not_mend_ends_the_job_and_says_why(
    scene: Scene, kind: str, code: str, message: str
):
    async with scene.worker():
        stream = await scene.end(await scene.submit("badly", kind=kind))
    error = stream[-1].event()
    assert isinstance(error, Error), story(stream)
    assert (error.code, error.failures) == (code, 1)
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    "kind, type_, message",
    [
        ("undeclared", "ValueError", "phase 'third' is not declared; declared are first, second"),
        ("memory", "MemoryError", "the engine ran out of memory"),
        ("exit", "SystemExit", "the engine called sys.exit(3)"),
        ("hard_exit", "ProcessEnded", "the engine's process exited with code 7"),
        ("message", "ValueError", "a \ufffd and a \ufffd"),
    ],
)
async def test_what_may_have_been_bad_luck_is_tried_again(scene: Scene, kind: str, type_: str, message: str):
    async with scene.worker():
        retry = (await scene.event(await scene.submit("badly", kind=kind), "retry", "error")).event()
    assert isinstance(retry, Retry)
    assert (retry.error.type, retry.error.message) == (type_, message)


async def test_an_engine_may_say_when_to_try_again(scene: Scene):
    async with scene.worker():
        row = await scene.event(await scene.submit("badly", kind="later"), "retry")
    retry = row.event()
    assert isinstance(retry, Retry)
    assert retry.not_before == row.at + 3_600_000


async def test_a_result_over_256_kib_is_stored_apart_byte_for_byte(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("big", number=300_000)
        complete = (await scene.end(job_id))[-1].event()
    assert isinstance(complete, Complete)
    ref = complete.results_ref
    assert ref
    body = await scene.log.artifact(job_id, ref.sha256)
    assert body == b'"' + b"x" * 300_000 + b'"'
    assert (ref.url, ref.size, ref.sha256) == (f"/api/v1/jobs/{job_id}/results", len(body), digest_of(body))


async def test_a_result_over_the_limit_fails_the_job_at_once(scene: Scene):
    async with scene.worker(result_bytes_max=1000):
        error = (await scene.end(await scene.submit("big", number=1000)))[-1].event()
    assert isinstance(error, Error)
    assert (error.code, error.message) == ("result_too_large", "the result is 1002 bytes of JSON, at most 1000 fit")


@pytest.mark.parametrize("size", [10, 300_000, 6_000_000])
async def test_a_recorded_phase_is_not_computed_again_after_a_crash(scene: Scene, size: int):
    async with scene.worker():
        stream = await scene.end(await scene.submit("resuming", number=size))
    assert story(stream) == [
        (1, "submitted"),
        (2, "started"),
        (3, "progress"),
        (4, "checkpoint"),
        (5, "progress"),
        (6, "retry"),
        (7, "started"),
        (8, "progress"),
        (9, "progress"),
        (10, "progress"),
        (11, "complete"),
    ]
    checkpoint, started, complete = stream[3].event(), stream[6].event(), stream[-1].event()
    assert isinstance(checkpoint, Checkpoint)
    assert (checkpoint.output_ref is None) == (size < 300_000)
    assert isinstance(started, Started)
    assert (started.reused_phases, started.progress) == (("first",), 50.0)
    assert isinstance(complete, Complete)
    assert complete.results == {"made_in": 1, "size": size}


async def test_what_an_engine_prints_disturbs_nothing(scene: Scene):
    async with scene.worker():
        assert story(await scene.end(await scene.submit("printing")))[-1] == (5, "complete")


async def test_everything_a_talkative_engine_says_is_kept_in_order(scene: Scene):
    async with scene.worker():
        stream = await scene.end(await scene.submit("chatty", number=3000))
    said = [json.loads(row.data)["value"]["index"] for row in stream if row.type == "partial"]
    assert said == list(range(3000))


async def test_many_jobs_share_the_slots_and_all_complete(scene: Scene):
    began = time.monotonic()
    async with scene.worker(slots=2):
        jobs = [await scene.submit("countdown", steps=5, step_s=0.0) for _ in range(20)]
        ends = [(await scene.end(job_id))[-1].type for job_id in jobs]
    assert ends == ["complete"] * 20
    assert time.monotonic() - began < 20
