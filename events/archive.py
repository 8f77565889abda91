"""The archive: objects of many jobs are put there, and jobs are read back one by one.

An object is a gzip file of NDJSON, so `zcat` opens it, with a member for each job (`archive_member.py`). Beside each object
lies its manifest: what it holds, and its SHA-256.
"""

import asyncio
import hashlib
import re
import secrets
import tempfile
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from events.archive_member import FORMAT, Unpacked, unpack
from events.archive_store import PART, ArchiveBroken, ArchiveStore, ArchiveUnavailable
from events.log import FEED_BYTES_MAX, PAGE_EVENTS_MAX
from events.retention import WEEK_MS, Archived
from events.seal_log import Stored
from events.values import encode

KEPT_BYTES_MAX = 8 * 1024**3  # of all jobs kept unpacked, but for one
FETCHES_MAX = 4  # at once
FETCH_S = 60.0
OPEN_MAX = 16  # jobs kept unpacked in files of this machine
_T = TypeVar("_T")
_NAME = re.compile(r"w\d+/[0-9a-f-]{36}-[0-9a-f]{16}\.ndjson\.gz(\.manifest\.json)?(\.part)?")


def week_of(job_id: str) -> int:
    """The week a job was made in, counted from 1970; objects are of one week, as partitions are."""
    return (uuid.UUID(job_id).int >> 80) // WEEK_MS


def manifest_of(name: str) -> str:
    """What an object's manifest is called."""
    return f"{name}.manifest.json"


def object_of(name: str) -> str:
    """The object a name in the store is, or belongs to."""
    return name.removesuffix(PART).removesuffix(".manifest.json")


def is_ours(name: str, lineage: str) -> bool:
    """Whether something in the store is an object of this lineage of a log, its manifest, or half of one."""
    return name.startswith(f"{lineage}/") and _NAME.fullmatch(name.removeprefix(f"{lineage}/")) is not None


async def put_object(
    store: ArchiveStore, lineage: str, path: Path, jobs: Sequence[Mapping[str, Any]], **said: Any
) -> str:
    """Keeps a file of members, reads it back, and describes it: `jobs` are what the manifest says of each, in order, `said`
    what else it says. Returns the object's name, which no other call ever returns. Raises `ArchiveUnavailable`."""
    digest = await asyncio.to_thread(_sha256, path)
    first = str(jobs[0]["job_id"])
    name = f"{lineage}/w{week_of(first)}/{first}-{secrets.token_hex(8)}.ndjson.gz"
    await store.put(name, path)
    with tempfile.TemporaryFile() as back:
        await store.fetch(name, 0, None, back)
        back.seek(0)
        if await asyncio.to_thread(lambda: hashlib.file_digest(back, "sha256").hexdigest()) != digest:
            raise ArchiveBroken(f"the archive does not give back what was put into it: {name}")
    manifest: dict[str, Any] = {"format": "phaseline archive 1", "jobs_as": FORMAT, "object": name, "sha256": digest}
    manifest |= {"bytes": sum(job["length"] for job in jobs), **said, "jobs": list(jobs)}
    described = path.with_name(f"{path.name}.manifest")
    await asyncio.to_thread(described.write_bytes, encode(manifest) + b"\n")
    await store.put(manifest_of(name), described)
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Kept:
    """A job among the last ones asked for; who asks first fetches it."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.unpacked: Unpacked | None = None


class Archive:
    """Reads archived jobs. Each is fetched once while it is among the last ones asked for."""

    def __init__(self, store: ArchiveStore) -> None:
        self._store = store
        self._fetching = asyncio.Semaphore(FETCHES_MAX)
        self._kept: OrderedDict[tuple[str, str | None, int], _Kept] = OrderedDict()

    async def opened(self, one: Archived) -> Unpacked:
        """A job, unpacked. Raises `ArchiveUnavailable`."""
        key = one.job_id, one.place, one.start
        kept = self._kept.setdefault(key, _Kept())
        self._kept.move_to_end(key)
        self._drop_old()
        async with kept.turn:
            if kept.unpacked is None:
                kept.unpacked = await self._fetch(one)
            self._drop_old()
            return kept.unpacked

    def _drop_old(self) -> None:
        while len(self._kept) > OPEN_MAX or (len(self._kept) > 1 and self._bytes > KEPT_BYTES_MAX):
            self._kept.popitem(last=False)

    @property
    def _bytes(self) -> int:
        return sum(kept.unpacked.bytes for kept in self._kept.values() if kept.unpacked is not None)

    async def _fetch(self, one: Archived) -> Unpacked:
        if one.place is None:
            raise ArchiveUnavailable("the job was discarded")
        try:
            async with self._fetching, asyncio.timeout(FETCH_S):
                with tempfile.TemporaryFile() as member:
                    await self._store.fetch(one.place, one.start, one.length, member)
                    member.seek(0)
                    unpacked = await asyncio.to_thread(unpack, member, one.last_seq)
        except TimeoutError:
            raise ArchiveUnavailable from None
        unpacked.hold(one)
        return unpacked

    async def stored(self, one: Archived) -> AsyncIterator[Stored]:
        """Every event, as an audit reads them, the large values held against their names. Raises `ArchiveUnavailable`."""
        await self.ask(one, Unpacked.hold_values)
        after = 0
        while page := await self.ask(one, partial(_stored, after)):
            for stored in page:
                yield stored
            after += len(page)

    async def ask(self, one: Archived, question: Callable[[Unpacked], _T]) -> _T:
        """Asks an unpacked job, in a thread. Raises `ArchiveUnavailable`."""
        unpacked = await self.opened(one)
        try:
            return await asyncio.to_thread(question, unpacked)
        except (OSError, ValueError, KeyError, TypeError) as broken:
            raise ArchiveBroken(f"archived job {one.job_id} cannot be read: {broken}") from broken


def _stored(after: int, unpacked: Unpacked) -> list[Stored]:
    return unpacked.stored(after, PAGE_EVENTS_MAX, FEED_BYTES_MAX)
