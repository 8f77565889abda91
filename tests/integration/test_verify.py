"""`phaseline verify` on real logs, real RabbitMQ streams and real recordings: silent on honest runs, exact on others."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from events.checker import Violation
from events.cloudevents import cloudevent, event_id
from events.log import Log
from events.log_sql import EVENTS_PAGE
from events.postgres_line import asyncpg_url
from phaseline.settings import Settings
from phaseline.verify import verify
from tests.builders import Committing, a_failure, a_finish, a_report, committing, progress
from tests.stores import open_bus, open_log, postgres_settings, sqlite_settings
from tests.verified import verified


@pytest.fixture(params=["sqlite", "postgres"])
async def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "sqlite":
        return sqlite_settings(tmp_path)
    return await postgres_settings(request.getfixturevalue("postgres"), tmp_path)


@pytest.fixture
async def log(settings: Settings) -> AsyncIterator[Log]:
    async with open_log(settings) as log:
        yield log


async def a_run(running: Committing) -> list[str]:
    """Four jobs: completed, failed, running, queued."""
    done = await running.started(key="k")
    await running.committer.execute(done.job.id, a_report(done, progress(20.0)))
    await running.committer.execute(done.job.id, a_finish(done))
    failed = await running.started()
    await running.committer.execute(failed.job.id, a_failure(failed, retryable=False))
    return [done.job.id, failed.job.id, (await running.started()).job.id, await running.submit()]


async def tamper(settings: Settings, *statements: str) -> None:
    """Changes what nobody can: the triggers that forbid it are dropped first."""
    url = settings.database_url
    engine = create_async_engine(
        asyncpg_url(url) if url else f"sqlite+aiosqlite:///{settings.data_dir / 'phaseline.db'}"
    )
    async with engine.begin() as connection:
        if url is None:
            triggers = await connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
            for name in triggers.scalars().all():
                await connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            await connection.execute(text("SET LOCAL session_replication_role = 'replica'"))
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


async def test_an_honest_run_is_counted(settings: Settings, log: Log) -> None:
    async with committing(log) as running:
        await a_run(running)
    counts = await verify(log)
    assert (counts.jobs, counts.events) == (4, 5 + 3 + 2 + 1)
    assert str(counts) == "4 jobs, 11 events, 0 recordings, no copy"
    with pytest.raises(AssertionError, match=r"I3: .* is running: it never reached its terminal event"):
        await verified(settings)


@pytest.mark.parametrize(
    "statement, rule",
    [
        ("UPDATE jobs SET losses = 1 WHERE id = '{done}'", "I5"),
        ("DELETE FROM events WHERE job_id = '{done}'", "I5"),
        ("DELETE FROM jobs WHERE id = '{failed}'", "I5"),
        ("DELETE FROM events WHERE job_id = '{done}' AND seq = 3", "I1"),
        ("DELETE FROM events WHERE job_id = '{done}' AND seq = 5", "I5"),
        ("UPDATE events SET attempt = 2 WHERE job_id = '{done}' AND seq = 4", "I4"),
        (
            """UPDATE events SET command_id = (SELECT command_id FROM events WHERE job_id = '{done}' AND seq = 2)
            WHERE job_id = '{done}' AND seq = 3""",
            "once",
        ),
        (
            """UPDATE events SET data = (SELECT data FROM events WHERE job_id = '{done}' AND seq = 1)
            WHERE job_id = '{failed}' AND seq = 1""",
            "keys",
        ),
    ],
)
async def test_a_log_that_was_tampered_with_is_found_out(
    settings: Settings, log: Log, statement: str, rule: str
) -> None:
    async with committing(log) as running:
        done, failed, _, _ = await a_run(running)
    await tamper(settings, statement.format(done=done, failed=failed))
    with pytest.raises(Violation) as caught:
        await verify(log)
    assert caught.value.rule == rule


async def test_every_event_is_read_in_order_whatever_the_pages(log: Log) -> None:
    async with committing(log) as running:
        long = await running.started()
        for _ in range(EVENTS_PAGE // 100 + 1):
            await running.committer.execute(long.job.id, a_report(long, *[progress(1.0)] * 100))
        jobs = sorted([await running.submit() for _ in range(3)])  # ids of one millisecond are in any order
    keys = [(row.job_id, row.seq) async for row in log.all_events()]
    head = await log.head(long.job.id)
    assert head is not None
    assert keys == [*((long.job.id, seq) for seq in range(1, head.seq + 1)), *((job_id, 1) for job_id in jobs)]


async def test_a_run_that_goes_on_meanwhile_passes(log: Log) -> None:
    async with committing(log) as running:
        claimed = await running.started()
        rows = [row async for row in log.all_jobs()]
        await running.committer.execute(claimed.job.id, a_report(claimed, progress(20.0)))

        class Behind:
            """A log whose rows were read before the last event."""

            def __getattr__(self, name: str) -> object:
                return getattr(log, name)

            async def all_jobs(self) -> object:
                for row in rows:
                    yield row

        assert (await verify(Behind())).events == 3  # type: ignore[arg-type]


# ---- the copy


@pytest.fixture
def vhost(rabbit) -> str:
    url: str = rabbit.create_vhost()
    return url


async def test_the_copy_is_held_against_the_log(tmp_path: Path, vhost: str) -> None:
    settings = sqlite_settings(tmp_path)
    async with open_log(settings) as log, open_bus(vhost, "copier") as bus:
        async with committing(log) as running:
            await a_run(running)
        rows = [row async for row in log.all_events()]
        messages = [(event_id(row), cloudevent(row)) for row in rows]
        await bus.make_copy()
        await bus.append_copy([*messages[:4], *messages[2:4], *messages[5:]])
        with pytest.raises(Violation, match="lacks an event") as caught:
            await verify(log, bus, copy_wait_s=0)
        assert (caught.value.rule, len(caught.value.events)) == ("I6", 1)
        assert f'"job_id":"{rows[4].job_id}","seq":{rows[4].seq},' in caught.value.events[0]
        await bus.append_copy([messages[4]])
        counts = await verify(log, bus, copy_wait_s=0)
        assert str(counts) == "4 jobs, 11 events, 0 recordings, copy complete"
        assert counts.copied == len(rows) + 2
        ghost = rows[0]._replace(seq=77)
        await bus.append_copy([(event_id(ghost), cloudevent(ghost))])
        with pytest.raises(Violation, match="the log does not have") as caught:
            await verify(log, bus, copy_wait_s=0)
        assert caught.value.rule == "I6"


# ---- recordings


async def test_what_was_sent_before_a_restore_need_not_be_in_the_log(tmp_path: Path) -> None:
    async with open_log(sqlite_settings(tmp_path)) as log:
        async with committing(log) as running:
            done = (await a_run(running))[0]
        event = json.loads((await log.read(done, 0))[0].line()) | {"engine": "lost"}
        for epoch, kept in (("1-another", True), (log.epoch, False)):
            hello = {"type": "hello", "job_id": done, "status": "queued", "head_seq": 1, "resume": "fresh"}
            lines = [{"type": "connected", "job_id": done, "after": 0}, hello | {"epoch": epoch}, event]
            recording = {"viewer": list(map(json.dumps, lines))}
            if kept:
                assert (await verify(log, None, recording)).recordings == 1
            else:
                with pytest.raises(Violation, match="not what the log has"):
                    await verify(log, None, recording)


# ---- the command


def command(*words: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "phaseline", "verify", "--data-dir", str(data_dir), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_the_command_counts_or_prints_the_first_violation(tmp_path: Path) -> None:
    settings = sqlite_settings(tmp_path)
    async with open_log(settings) as log, committing(log) as running:
        done = (await a_run(running))[0]
        events = [json.loads(row.line()) for row in await log.read(done, 0)]
    lines = [
        {"type": "connected", "job_id": done, "after": 0},
        {"type": "hello", "job_id": done, "status": "completed", "head_seq": 5, "resume": "fresh"},
        *events,
        {"type": "caught_up", "seq": 5},
        {"type": "closed", "code": 1000},
    ]
    recording = tmp_path / "viewer.ndjson"
    recording.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"half')
    good = command("--recording", str(recording), data_dir=tmp_path)
    assert (good.returncode, good.stdout) == (
        0,
        "4 jobs, 11 events, 1 recordings, no copy: no violation\n",
    )
    recording.write_text("".join(f"{json.dumps(line)}\n" for line in lines if line.get("seq") != 3))
    bad = command("--recording", str(recording), data_dir=tmp_path)
    assert bad.returncode == 1
    assert f"I2: {recording}, line 5: after 2 came 4, over a hole" in bad.stderr
    assert bad.stderr.count('"seq":') == 2
    settled = command("--settled", data_dir=tmp_path)
    assert settled.returncode == 1
    assert "I3: " in settled.stderr
    assert "Traceback" not in bad.stderr + settled.stderr
