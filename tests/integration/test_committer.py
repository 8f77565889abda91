"""The committer when the database loses answers or somebody else holds a row: nothing doubled, nobody waits for others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from events.errors import LogUnavailable, PhaselineError
from events.log import Transaction
from events.log_sqlite import SqliteLog
from phaseline import database
from tests.builders import a_finish, a_report, a_submit, committing, progress, story, whole_stream
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


class Unequal:
    """Breaks whoever compares it."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("told to break")


@pytest.fixture
async def lossy(tmp_path: Path) -> AsyncIterator[AnswersLost]:
    settings = sqlite_settings(tmp_path)
    await database.migrate(settings)
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
