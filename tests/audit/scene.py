"""What tests of the audit do: write jobs, seal them, tamper as the owner of the database could, verify."""

from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from events import audit
from events.acts import By
from events.catalog import Log as LogEvent
from events.keys import draw
from events.log_sqlite import sqlite_engine
from events.postgres_line import asyncpg_url
from events.seal_check import Finding
from events.sealer import Sealer
from phaseline import database
from phaseline.settings import Settings
from tests.builders import Committing, a_cancel, a_failure, a_finish, a_reopen, a_report, progress


class Scene:
    """One installation."""

    def __init__(self, settings: Settings, log: Any, running: Committing) -> None:
        self.settings = settings
        self.log = log
        self.running = running
        self.sealer = Sealer(log, log, "test")
        self._engine: AsyncEngine | None = None
        self._tampering: AsyncConnection | None = None

    async def write(self, jobs: int, *, said: int = 4) -> list[str]:
        """Jobs of every fate: completed, failed and reopened, cancelled, still running."""
        ids = []
        for number in range(jobs):
            claimed = await self.running.started()
            ids.append(claimed.job.id)
            for step in range(said):
                words = LogEvent(level="info", message=f"step {step} of {number}")
                await self.running.committer.execute(claimed.job.id, a_report(claimed, progress(step), words))
            match number % 4:
                case 0:
                    await self.running.committer.execute(claimed.job.id, a_finish(claimed, number))
                case 1:
                    await self.running.committer.execute(claimed.job.id, a_failure(claimed, retryable=False))
                    await self.running.committer.execute(claimed.job.id, a_reopen())
                    await self.running.committer.execute(claimed.job.id, a_cancel(reason="no longer needed"))
                case 2:
                    await self.running.committer.execute(claimed.job.id, a_cancel())
                case _:
                    pass
        return ids

    async def act(self) -> str:
        """Makes an API key; returns the id of the act that tells of it."""
        key, _ = draw("default", "CI", ["admin"], now_ms=await self.log.now())
        await self.log.add_key(key, By("user:ada", None, "a new colleague"))
        [act] = await self.log.acts("default", None, 1)
        return str(act.job_id)

    async def verify(self, **options: Any) -> audit.Report:
        return await audit.verify(self.log, **options)

    async def findings(self, **options: Any) -> list[Finding]:
        return (await self.verify(**options)).findings

    async def tamper(self, *statements: str, **parameters: Any) -> None:
        """Runs statements as the owner, past the triggers, in one transaction."""
        owner = await self._owner()
        async with owner.begin():
            for statement in statements:
                used = {name: value for name, value in parameters.items() if f":{name}" in statement}
                found = await owner.execute(text(statement), used)
                assert found.rowcount != 0, statement

    async def _owner(self) -> AsyncConnection:
        if self._tampering is None:
            if url := self.settings.database_url:
                self._engine = create_async_engine(asyncpg_url(url), poolclass=NullPool)
            else:
                self._engine = sqlite_engine(database.sqlite_path(self.settings), begin="BEGIN IMMEDIATE")
            self._tampering = await self._engine.connect()
            async with self._tampering.begin():
                await self._tampering.run_sync(_without_triggers)
        return self._tampering

    async def close(self) -> None:
        if self._tampering is not None and self._engine is not None:
            await self._tampering.close()
            await self._engine.dispose()


def _without_triggers(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET session_replication_role = 'replica'"))
        connection.execute(text("SET synchronous_commit = off"))  # what is undone at once need not be durable
        return
    for (name,) in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
        connection.execute(text(f"DROP TRIGGER {name}"))
