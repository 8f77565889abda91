"""How attempts are ended from outside: cancels, limits, drains, and deaths of processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from events.catalog import Cancelled, Error, Interrupted, Retry, Timeouts
from tests.builders import story
from tests.worker.scene import Scene, alive, gone

MIB = 1024 * 1024

# -- cancel


async def test_a_cancel_reaches_an_engine_within_a_second_and_its_best_is_kept(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("countdown", steps=100, step_s=0.02)
        await scene.event(job_id, "partial")
        began = time.monotonic()
        await scene.cancel(job_id, reason="enough")
        stream = await scene.end(job_id)
        took_s = time.monotonic() - began
    cancelled = stream[-1].event()
    assert isinstance(cancelled, Cancelled), story(stream)
    assert cancelled.reason == "enough"
    assert cancelled.results["steps"] >= 20
    assert took_s < 1.0


async def test_a_best_result_over_256_kib_is_kept_by_reference(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("best_effort", number=300_000)
        await scene.event(job_id, "log")
        await scene.cancel(job_id)
        cancelled = (await scene.end(job_id))[-1].event()
    assert isinstance(cancelled, Cancelled)
    assert cancelled.results_ref
    assert await scene.log.artifact(job_id, cancelled.results_ref.sha256) == b'"' + b"x" * 300_000 + b'"'


async def test_a_result_wins_over_a_cancel_that_came_too_late(scene: Scene, tmp_path: Path):
    async with scene.worker():
        job_id = await scene.submit("flag", path=str(tmp_path / "go"))
        await scene.event(job_id, "progress")
        await scene.cancel(job_id)
        (tmp_path / "go").touch()
        assert story(await scene.end(job_id))[-1][1] == "complete"


async def test_an_engine_that_ignores_a_cancel_is_killed_after_its_grace(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("stubborn")
        await scene.event(job_id, "progress")
        began = time.monotonic()
        await scene.cancel(job_id, grace_s=0.3)
        stream = await scene.end(job_id)
        took_s = time.monotonic() - began
        assert story(stream)[3:] == [(4, "cancel_requested"), (5, "cancelled")]
        assert 0.3 <= took_s < 2.0
        # The slot is of use again.
        assert story(await scene.end(await scene.submit("big")))[-1][1] == "complete"


async def test_a_cancel_whose_control_word_is_lost_comes_with_the_beat(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    # What the port allows: control words may be lost.
    monkeypatch.setattr(scene.bus, "send_control", lambda worker_id, words: None)
    async with scene.worker():
        job_id = await scene.submit("best_effort")
        await scene.event(job_id, "log")
        await scene.cancel(job_id)
        assert story(await scene.end(job_id))[-1][1] == "cancelled"


async def test_a_forced_cancel_ends_the_child_though_the_job_is_over_already(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("parent")
        processes = json.loads((await scene.event(job_id, "partial")).data)["value"]
        await scene.cancel(job_id, mode="force")
        await gone(*processes)
        assert story(await scene.end(job_id))[-1][1] == "cancelled"


# -- limits


async def test_an_attempt_over_its_time_is_killed_and_tried_again(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("stubborn", timeouts=Timeouts(attempt_s=0.3))
        retry = (await scene.event(job_id, "retry")).event()
    assert isinstance(retry, Retry)
    assert (retry.error.code, retry.error.message) == ("attempt_timeout", "the attempt took longer than 0.3 s")


async def test_an_engine_that_falls_silent_is_killed_and_tried_again(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("stubborn", timeouts=Timeouts(stall_s=0.3))
        retry = (await scene.event(job_id, "retry")).event()
    assert isinstance(retry, Retry)
    assert (retry.error.code, retry.error.message) == ("stall_timeout", "the engine said nothing for 0.3 s")


async def test_a_job_over_its_total_time_ends_for_good(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("stubborn", timeouts=Timeouts(total_s=0.5))
        error = (await scene.end(job_id))[-1].event()
    assert isinstance(error, Error)
    assert (error.code, error.message) == ("total_timeout", "the job took longer than 0.5 s in all")


async def test_no_limit_passes_while_an_engine_keeps_talking(scene: Scene):
    async with scene.worker():
        timeouts = Timeouts(attempt_s=20, stall_s=0.5, total_s=20)
        stream = await scene.end(await scene.submit("countdown", steps=10, step_s=0.1, timeouts=timeouts))
    assert stream[-1].type == "complete"


# -- drain


async def test_a_drain_waits_for_engines_that_finish(scene: Scene, tmp_path: Path):
    async with scene.worker() as worker:
        job_id = await scene.submit("flag", path=str(tmp_path / "go"))
        await scene.event(job_id, "progress")
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.drain())
            group.create_task(_once_draining(scene, tmp_path / "go"))
        stream = await scene.end(job_id)
        assert json.loads(stream[-1].data) == {"results": "draining"}
        assert await scene.log.workers() == []


async def _once_draining(scene: Scene, file: Path) -> None:
    """Makes the file once a beat said that the worker drains."""
    while not (await scene.log.workers())[0].draining:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.to_thread(file.touch)


async def test_a_drain_gives_back_what_does_not_finish_and_nobody_is_blamed(scene: Scene):
    async with scene.worker(drain_s=0.2) as worker:
        job_id = await scene.submit("stubborn")
        await scene.event(job_id, "progress")
        await worker.drain()
        interrupted = (await scene.event(job_id, "interrupted")).event()
    assert isinstance(interrupted, Interrupted)
    assert interrupted.reason == "drained"
    row = await scene.log.job(job_id)
    assert row
    assert (row.job.status, row.job.failures, row.job.losses) == ("queued", 0, 0)


async def test_an_engine_that_obeys_a_drain_goes_on_in_another_worker(scene: Scene):
    async with scene.worker() as first:
        job_id = await scene.submit("countdown", steps=20, step_s=0.05)
        await scene.event(job_id, "partial")
        await first.drain()
        await scene.event(job_id, "interrupted")
    async with scene.worker():
        assert (await scene.end(job_id))[-1].attempt == 2


async def test_a_second_drain_does_not_wait(scene: Scene):
    async with scene.worker(drain_s=60) as worker:
        job_id = await scene.submit("stubborn")
        await scene.event(job_id, "progress")
        async with asyncio.timeout(10):
            await asyncio.gather(worker.drain(), worker.drain())
        assert (await scene.event(job_id, "interrupted")).attempt == 1


# -- deaths


async def test_killing_a_child_takes_what_its_engine_started(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("parent", max_attempts=1)
        child, grandchild = json.loads((await scene.event(job_id, "partial")).data)["value"]
        os.kill(child, signal.SIGKILL)
        began = time.monotonic()
        error = (await scene.end(job_id))[-1].event()
        assert isinstance(error, Error)
        assert (error.code, error.details and error.details.signal) == ("killed", "SIGKILL")
        assert time.monotonic() - began < 2
        await gone(grandchild)


async def test_a_child_is_used_again_after_a_success_and_replaced_after_enough_of_them(scene: Scene):
    async with scene.worker(child_attempts_max=2):
        pids = [json.loads((await scene.end(await scene.submit("printing")))[-1].data)["results"] for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_a_child_of_a_large_worker_is_used_again(scene: Scene):
    held = np.ones(300 * MIB, dtype=np.uint8)  # touched, so that this process holds it while its children start
    async with scene.worker(child_rss_bytes_max=250 * MIB):
        pids = [json.loads((await scene.end(await scene.submit("printing")))[-1].data)["results"] for _ in range(2)]
    assert psutil.Process().memory_info().rss > held.nbytes
    assert pids[0] == pids[1]


async def test_an_idle_child_that_dies_is_replaced_and_no_job_is_blamed(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("printing")
        pid = json.loads((await scene.end(job_id))[-1].data)["results"]
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        assert story(await scene.end(await scene.submit("printing"))) == [
            (1, "submitted"),
            (2, "started"),
            (3, "progress"),
            (4, "progress"),
            (5, "complete"),
        ]


async def test_an_attempt_the_worker_cannot_carry_on_counts_as_a_failure(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    def breaks(*_: object) -> None:
        raise RuntimeError("told to break")

    monkeypatch.setattr("engine_worker.attempt.outcome_of", breaks)
    async with scene.worker():
        stream = await scene.end(await scene.submit("printing", max_attempts=1))
    error = stream[-1].event()
    assert isinstance(error, Error)
    assert (error.code, error.failures) == ("engine_error", 1)
    assert "told to break" in error.message


WORKER = """
import asyncio, sys
from pathlib import Path
from events.bus_memory import MemoryBus
from tests.stores import open_log, sqlite_settings
from tests.worker.scene import Scene

async def main():
    async with open_log(sqlite_settings(Path(sys.argv[1]))) as log, Scene(log, MemoryBus()).on() as scene:
        async with scene.worker():
            job_id = await scene.submit("parent")
            print((await scene.event(job_id, "partial")).data, flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_children_die_with_their_worker(tmp_path: Path):
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(tmp_path), stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert worker.stdout
    processes = json.loads(await worker.stdout.readline())["value"]
    assert all(map(alive, processes))
    worker.kill()
    await worker.wait()
    await gone(*processes)
