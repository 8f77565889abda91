"""The committer when the database loses answers or somebody else holds a row: nothing doubled, nobody waits for others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import asyncpg
import pytest

from events.batch import Committed
from events.catalog import Expire, Release
from events.clock import Clock
from events.committer import Committer
from events.errors import LeaseLost, LogUnavailable, PhaselineError
from events.job import Job
from events.log import Transaction
from events.log_postgres import PostgresLog
from events.log_sqlite import SqliteLog
from events.postgres_unlocked import PostgresUnlocked
from events.sweeper import SweeperOptions
from phaseline import database
from tests.builders import a_finish, a_report, a_submit, a_worker, committing, fence, progress, story, whole_stream
from tests.proxy import UP, proxy_to
from tests.servers import PostgresServer
from tests.stores import open_log, postgres_settings, sqlite_settings


class AnswersLost(SqliteLog):
    """A log whose next `lost` transactions commit, and whose answers never arrive."""

    lost = 0

    @contextlib.asynccontextmanager
    async def transaction(self, *, patient: bool = True) -> AsyncIterator[Transaction]:
        async with super().transaction(patient=patient) as tx:
            yield tx
        if self.lost:
            self.lost -= 1
            raise LogUnavailable


class UnlockedAnswersLost(PostgresLog):
    """As `AnswersLost`, of batches without locks."""

    lost = 0

    @contextlib.asynccontextmanager
    async def unlocked(self, known: Mapping[str, Job], clock: Callable[[], int]) -> AsyncIterator[PostgresUnlocked]:
        async with super().unlocked(known, clock) as tx:
            yield tx
        if self.lost:
            self.lost -= 1
            raise LogUnavailable


class Unequal:
    """Breaks whoever compares it."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("told to break")


@pytest.fixture
async def lossy(tmp_path: Path) -> AsyncIterator[AnswersLost]:
    settings = sqlite_settings(tmp_path)
    log = AnswersLost(database.sqlite_path(settings))
    await log.open()
    yield log
    await log.close()


@pytest.mark.parametrize("lost", [1, 3])
async def test_commits_whose_answer_was_lost_are_answered_and_never_doubled(lossy: AnswersLost, lost: int) -> None:
    async with committing(lossy) as running:
        claimed = await running.started()
        lossy.lost = lost
        results = await asyncio.gather(
            running.committer.execute(claimed.job.id, a_report(claimed, progress(5.0))),
            running.committer.execute(claimed.job.id, a_report(claimed, progress(6.0))),
            running.committer.submit(a_submit(key="k"), tenant="default"),
        )
        assert [row.seq for rows in results[:2] for row in rows] == [3, 4]
        await running.committer.execute(claimed.job.id, a_finish(claimed))
        assert [kind for _, kind in story(await whole_stream(lossy, claimed.job.id))] == [
            "submitted", "started", "progress", "progress", "progress", "complete",
        ]  # fmt: skip
        assert story(await whole_stream(lossy, results[2][0].job.id)) == [(1, "submitted")]


async def test_batches_without_locks_whose_answer_was_lost_are_never_doubled(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    log = UnlockedAnswersLost(str(settings.database_url))
    await log.open()
    try:
        async with committing(log) as running:
            claimed = await running.started()
            log.lost = 1
            results = await asyncio.gather(
                running.committer.execute(claimed.job.id, a_report(claimed, progress(5.0))),
                running.committer.execute(claimed.job.id, a_report(claimed, progress(6.0))),
                running.committer.submit(a_submit(key="k"), tenant="default"),
            )
            assert (log.lost, running.telemetry.value("phaseline_unknown_outcomes_total")) == (0, 3)
            assert [row.seq for rows in results[:2] for row in rows] == [3, 4]
            await running.committer.execute(claimed.job.id, a_report(claimed, progress(7.0)))
            await running.committer.execute(claimed.job.id, a_finish(claimed))
            assert running.telemetry.value("phaseline_stale_batches_total") == 0
            assert [seq for seq, _ in story(await whole_stream(log, claimed.job.id))] == list(range(1, 8))
            assert story(await whole_stream(log, results[2][0].job.id)) == [(1, "submitted")]
    finally:
        await log.close()


async def test_what_was_found_out_about_lost_answers_is_counted(lossy: AnswersLost) -> None:
    async with committing(lossy) as running:
        claimed = await running.started()
        lossy.lost = 2
        await running.committer.execute(claimed.job.id, a_report(claimed, progress(5.0)))
        count = running.telemetry.value
        assert count("phaseline_unknown_outcomes_total") == 1
        assert count("phaseline_unknown_outcomes_resolved_total", found="before") == 1
        assert count("phaseline_events_appended_total", type="submitted") == 1
        assert count("phaseline_committer_waiting_commands") == 0
        assert count("phaseline_committer_waiting_bytes") == 0


async def test_a_late_write_is_refused_counted_and_logged(lossy: AnswersLost, caplog: pytest.LogCaptureFixture) -> None:
    async with committing(lossy) as running:
        late = await running.started()
        release = Release(**fence(late), reason="released")
        await running.committer.execute(late.job.id, release)
        await running.claim("w2")
        with pytest.raises(LeaseLost):
            await running.committer.execute(late.job.id, a_report(late, progress(5.0)))
        count = running.telemetry.value
        assert count("phaseline_fenced_writes_total") == 1
        assert count("phaseline_commands_refused_total", reason="lease_lost") == 1
        assert count("phaseline_attempts_ended_total", how="released") == 1
        (line,) = [record.__dict__ for record in caplog.records if record.levelname == "WARNING"]
        about = {name: line[name] for name in ("job_id", "attempt", "worker", "command")}
        assert about == {"job_id": late.job.id, "attempt": 1, "worker": "w1", "command": "Report"}
        assert [kind for _, kind in story(await whole_stream(lossy, late.job.id))] == [
            "submitted", "started", "interrupted", "started",
        ]  # fmt: skip


async def test_a_late_expiry_by_a_worker_that_lost_the_job_is_counted_as_fenced(lossy: AnswersLost) -> None:
    async with committing(lossy) as running:
        late = await running.started(timeouts={"total_s": 0.001})
        overdue = Expire(**fence(late), cause="total_timeout")
        await running.committer.execute(late.job.id, Release(**fence(late), reason="released"))
        with pytest.raises(LeaseLost):
            await running.committer.execute(late.job.id, overdue)
        assert running.telemetry.value("phaseline_fenced_writes_total") == 1


async def test_an_announcement_that_breaks_neither_fails_nor_doubles_what_it_is_about(lossy: AnswersLost) -> None:
    def announce(_: Committed) -> None:
        raise RuntimeError("told to break")

    committer = Committer(lossy, announce)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(committer.run())
        row, _ = await committer.submit(a_submit(), tenant="default")
        await lossy.beat(a_worker("w1"), 60.0)
        [claimed] = await committer.claim("w1", a_worker("w1").engines, 1, idle=True)
        await committer.execute(row.job.id, a_report(claimed, progress(5.0)))
        assert story(await whole_stream(lossy, row.job.id)) == [(1, "submitted"), (2, "started"), (3, "progress")]
        task.cancel()


async def test_an_answer_lost_while_a_batch_is_taken_apart_doubles_nothing(lossy: AnswersLost) -> None:
    async with committing(lossy) as running:
        claimed = await running.started()
        broken = a_report(claimed, progress(5.0))
        object.__setattr__(broken, "lease_id", Unequal())  # nothing makes such a command: it breaks inside the batch
        fine = running.committer.execute(claimed.job.id, a_report(claimed, progress(7.0)))
        gathered = asyncio.gather(running.committer.execute(claimed.job.id, broken), fine, return_exceptions=True)
        lossy.lost = 1
        answers = await gathered
        assert isinstance(answers[0], PhaselineError)
        assert isinstance(answers[1], list)
        assert [row.seq for row in answers[1]] == [3]
        assert len(await whole_stream(lossy, claimed.job.id)) == 3


async def test_a_row_somebody_else_holds_delays_its_job_only(postgres: PostgresServer, tmp_path: Path) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    async with open_log(settings) as log, committing(log) as running:
        stuck, free = await running.started(), await running.started()
        outsider = await asyncpg.connect(settings.database_url)
        lock = outsider.transaction()
        await lock.start()
        await outsider.execute("SELECT 1 FROM jobs WHERE id = $1 FOR UPDATE", stuck.job.id)
        waiting = [
            asyncio.ensure_future(running.committer.execute(stuck.job.id, a_report(stuck, progress(percent))))
            for percent in (1.0, 2.0, 3.0)
        ]
        for percent in range(4, 24):
            await running.committer.execute(free.job.id, a_report(free, progress(float(percent))))
        assert not any(task.done() for task in waiting)
        await lock.rollback()
        await outsider.close()
        rows = [row for rows in await asyncio.gather(*waiting) for row in rows]
        assert [row.event().progress for row in rows] == [1.0, 2.0, 3.0]  # type: ignore[union-attr]
        assert running.committer.waiting == 0


async def test_a_process_that_stands_still_in_a_transaction_holds_its_job_for_less_than_a_lease(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Or its takeover would wait for it."""
    settings = await postgres_settings(postgres, tmp_path)
    async with open_log(settings) as log, committing(log) as running:
        claimed = await running.started()
        async with open_log(settings) as frozen:
            transaction = frozen.transaction()
            tx = await transaction.__aenter__()
            await tx.lock([claimed.job.id])
            async with asyncio.timeout(SweeperOptions().lease_s):
                await running.committer.execute(claimed.job.id, a_report(claimed, progress()))
            with pytest.raises(LogUnavailable):
                await transaction.__aexit__(None, None, None)


async def test_a_line_that_was_slow_for_a_while_does_not_put_the_clock_ahead(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    async with proxy_to(str(settings.database_url)) as line:
        through = settings.model_copy(update={"database_url": line.url})
        async with open_log(through) as log, committing(log) as running:
            claimed = await running.started()
            line.delay(0.1, UP)  # what is sent arrives late, and is answered at once
            for percent in (1.0, 2.0):
                await running.committer.execute(claimed.job.id, a_report(claimed, progress(percent)))
            line.heal()
            (event,) = await running.committer.execute(claimed.job.id, a_report(claimed, progress(3.0)))
            assert event.at <= Clock().now_ms()  # the server's clock is this machine's
