"""A list of jobs, one page or all of them."""

from collections.abc import AsyncIterator, Generator, Mapping
from typing import Any, NamedTuple

from phaseline.calls import Calls


class JobPage(NamedTuple):
    """Jobs, newest first, and the cursor of the next page, None after the last."""

    jobs: list[dict[str, Any]]
    cursor: str | None


class Jobs:
    """Awaited it is one `JobPage`; iterated over it is every job, a page at a time. Jobs made meanwhile do not come."""

    def __init__(self, calls: Calls, filters: Mapping[str, Any], cursor: str | None, limit: int) -> None:
        self._calls = calls
        self._filters = {**filters, "limit": limit}
        self._cursor = cursor

    def __await__(self) -> Generator[Any, None, JobPage]:
        return self._page(self._cursor).__await__()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        page = await self._page(self._cursor)
        while True:
            for job in page.jobs:
                yield job
            if page.cursor is None:
                return
            page = await self._page(page.cursor)

    async def _page(self, cursor: str | None) -> JobPage:
        query = self._filters if cursor is None else {**self._filters, "cursor": cursor}
        page = await self._calls.object("GET", "/api/v1/jobs", query=query)
        return JobPage(page["jobs"], page.get("next_cursor"))
