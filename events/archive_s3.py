"""An archive in S3, or in what speaks like it; with the extra `phaseline[s3]`.

Credentials, region and endpoint are AWS's own variables (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL` …). What was
put is durable when the service says so, and whole: S3 shows an object only then.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from events.archive_store import ArchiveBroken, ArchiveUnavailable

if TYPE_CHECKING:
    from obstore.store import RetryConfig

RETRIES: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}  # of one call; a request has 30 s


class S3Store:
    """See `ArchiveStore`. `url` is `s3://bucket/prefix`. Raises `ValueError` for one that cannot be."""

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            self._store = from_url(url, retry_config=RETRIES)
        except BaseError as problem:
            raise ValueError(str(problem)) from problem

    async def begin(self, *, anew: bool) -> None:
        del anew  # a bucket is there or it is not

    async def put(self, name: str, content: Path) -> None:
        async with self._told(name):
            await obstore.put_async(self._store, name, content)

    async def fetch(self, name: str, start: int, length: int | None, into: IO[bytes]) -> None:
        async with self._told(name):
            if length is not None:
                into.write(await obstore.get_range_async(self._store, name, start=start, length=length))
                return
            async for piece in (await obstore.get_async(self._store, name)).stream():
                into.write(piece)

    async def delete(self, name: str) -> None:
        async with self._told(name):
            await obstore.delete_async(self._store, name)

    async def names(self, before_s: float) -> list[str]:
        found: list[str] = []
        async with self._told(""):
            async for page in obstore.list(self._store):
                found += [one["path"] for one in page if one["last_modified"].timestamp() < before_s]
        return sorted(found)

    @asynccontextmanager
    async def _told(self, name: str) -> AsyncIterator[None]:
        try:
            yield
        except FileNotFoundError as gone:
            raise ArchiveBroken(f"{self._url} lacks {name}") from gone
        except (BaseError, OSError) as failure:
            raise ArchiveUnavailable(f"{self._url} does not answer: {str(failure)[:300]}") from failure
