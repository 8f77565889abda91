"""Claims by tickets and by polls, and what a worker does about a log or a bus it cannot reach."""

import asyncio
import itertools
import json
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from engine_worker.outbox import EVENTS_MAX
from engine_worker.supervisor import Supervisor
from events.catalog import Interrupted
from events.committer import Committer
from tests.builders import story
from tests.worker.scene import OPTIONS, Scene, alive, gone


async def test_without_tickets_jobs_are_found_by_polls(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    # What the port allows: tickets may be lost.
    monkeypatch.setattr(scene.bus, "publish_tickets", lambda engine, count: None)
    async with scene.worker():
        ends = [story(await scene.end(await scene.submit("big")))[-1][1] for _ in range(2)]
    assert ends == ["complete", "complete"]


async def test_tickets_are_acknowledged_before_the_work_and_left_to_others_while_no_slot_is_free(
    scene: Scene, tmp_path: Path
):
    async with scene.worker(poll_s=60.0):
        go = str(tmp_path / "go")
        first = await scene.submit("flag", path=go)
        await scene.event(first, "progress")
        second = await scene.submit("flag", path=go)
        assert await scene.bus.ticket_count("flag") == 1
        async with scene.worker(poll_s=60.0):
            await scene.event(second, "progress")
        (tmp_path / "go").touch()
        await scene.end(second)


async def test_a_worker_declares_its_engines_and_itself(scene: Scene):
    async with scene.worker(build="1.2.3") as worker:
        await scene.end(await scene.submit("big"))
        declared = {row.name: row for row in await scene.log.engines()}
        assert declared["countdown"].params_schema["properties"]["steps"]["default"] == 10
        assert declared["countdown"].phases[0] == {"name": "initializing", "until": 10.0}
        [row] = await scene.log.workers()
        assert (row.id, row.slots, row.build, row.engines["countdown"]) == (worker.worker_id, 1, "1.2.3", 1)
    assert await scene.log.workers() == []


async def test_a_job_that_took_workers_down_runs_alone(scene: Scene, tmp_path: Path):
    poison = await scene.submit("flag", path=str(tmp_path / "go"))
    await scene.lose(poison)
    await scene.lose(poison)
    async with scene.worker(slots=2):
        await scene.event(poison, "progress", where=lambda event: event.phase == "first")
        other = await scene.submit("big")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):  # several polls
                await scene.event(other, "started")
        (tmp_path / "go").touch()
        await scene.end(other)


async def test_a_job_that_must_run_alone_gets_its_turn_on_a_worker_that_is_never_idle(scene: Scene, tmp_path: Path):
    """Without room made for it, it would wait as long as other jobs come."""
    numbers = itertools.count()
    gates = [tmp_path / f"gate{next(numbers)}" for _ in range(2)]
    async with scene.worker(slots=2, lease_s=0.6, beat_s=0.2):
        for gate in gates:
            await scene.event(await scene.submit("flag", path=str(gate)), "progress")
        poison = await scene.submit("big")
        await scene.lose(poison)
        await scene.lose(poison)
        async with asyncio.timeout(20):
            while poison not in scene.seen("complete"):
                started, ended = len(scene.seen("started")), len(scene.seen("complete"))
                gates.append(tmp_path / f"gate{next(numbers)}")
                await scene.submit("flag", path=str(gates[-1]))
                gates.pop(0).touch()
                await scene.until_seen("complete", ended + 1)
                with suppress(TimeoutError):  # the next one starts before another ends, unless room is being made
                    async with asyncio.timeout(3):
                        await scene.until_seen("started", started + 1)
        for gate in gates:
            gate.touch()


async def test_a_worker_cut_from_its_log_ends_its_children_and_gives_their_jobs_back_when_it_returns(
    scene: Scene, tmp_path: Path
):
    async with scene.worker(lease_s=1.0, outage_grace_s=0.5):
        job_id = await scene.submit("parent")
        processes = json.loads((await scene.event(job_id, "partial")).data)["value"]
        with closing(sqlite3.connect(tmp_path / "phaseline.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            await gone(*processes)
            assert 0.5 < time.monotonic() - began < 6
            other.execute("ROLLBACK")
        interrupted = (await scene.event(job_id, "interrupted")).event()
        assert isinstance(interrupted, Interrupted)
        assert interrupted.reason == "released"
        again = json.loads((await scene.event(job_id, "partial", where=lambda e: e.value != processes)).data)["value"]
        assert all(map(alive, again))
        await scene.cancel(job_id, mode="force")
        await gone(*again)


async def test_a_short_outage_disturbs_no_engine(scene: Scene, tmp_path: Path):
    async with scene.worker(lease_s=1.0, outage_grace_s=30.0):
        job_id = await scene.submit("countdown", steps=40, step_s=0.05)
        await scene.event(job_id, "partial")
        with closing(sqlite3.connect(tmp_path / "phaseline.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(1.5)
            other.execute("ROLLBACK")
        stream = await scene.end(job_id)
    assert [row.seq for row in stream] == list(range(1, len(stream) + 1))
    assert (stream[-1].type, stream[-1].attempt) == ("complete", 1)


async def test_an_attempt_the_log_gave_to_another_is_stopped(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("parent")
        processes = json.loads((await scene.event(job_id, "partial")).data)["value"]
        # What a sweeper does after this worker was frozen for a while.
        await scene.expire_lost(job_id)
        await gone(*processes)


async def test_an_engine_waits_while_the_log_does_not_answer_and_nothing_is_lost(scene: Scene, tmp_path: Path):
    async with scene.worker() as worker:
        job_id = await scene.submit("chatty", number=2000)
        await scene.event(job_id, "partial")
        [attempt] = worker._slots.running.values()
        with closing(sqlite3.connect(tmp_path / "phaseline.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(10):
                while len(attempt._outbox._entries) < EVENTS_MAX:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # it goes on talking
            assert len(attempt._outbox._entries) == EVENTS_MAX
            other.execute("ROLLBACK")
        stream = await scene.end(job_id)
    said = [json.loads(row.data)["value"]["index"] for row in stream if row.type == "partial"]
    assert said == list(range(2000))


async def test_a_worker_whose_committer_answers_no_more_lets_its_lease_end(scene: Scene):
    committer = Committer(scene.log)
    async with asyncio.TaskGroup() as group:
        committing = group.create_task(committer.run())
        worker = Supervisor(scene.log, scene.bus, committer, scene.engines, replace(OPTIONS, lease_s=1.0))
        working = group.create_task(worker.run())
        job_id = await scene.submit("countdown", steps=1000, step_s=0.05)
        async with asyncio.timeout(30):
            while len(await scene.log.read(job_id, 0)) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            committing.cancel()
            while await scene.log.overdue(10) == []:  # noqa: ASYNC110 its beats would succeed
                await asyncio.sleep(0.05)
            while worker.running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        working.cancel()
    await scene.expire_lost(job_id)
    assert story(await scene.log.read(job_id, 0))[-1][1] == "interrupted"
