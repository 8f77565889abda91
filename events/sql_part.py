"""What a part of `SqlLog` (jobs, the fleet, keys, webhooks, schedules, holds, acts) is given by the whole: reads, writes and the clock."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from sqlalchemy import ColumnElement, Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection

WRITE_S = 5.0


class SqlPart:
    """See `SqlLog`, which fulfils these."""

    name: str

    async def _rows(self, query: Select[Any], tenant: str | None = None) -> Sequence[Row[Any]]:
        raise NotImplementedError

    def _writing(self, deadline_s: float) -> AbstractAsyncContextManager[AsyncConnection]:
        raise NotImplementedError

    def _now_sql(self) -> ColumnElement[int]:
        raise NotImplementedError

    async def now(self) -> int:
        """The database's time in ms."""
        raise NotImplementedError

    async def accepts(self, job_id: str) -> bool:
        """As `Log`."""
        raise NotImplementedError

    async def make_partitions(self) -> None:
        """As `Log`."""
        raise NotImplementedError

    def _insert_or_ignore(self, table: Any) -> Any:
        raise NotImplementedError
