"""Archived jobs: how they lie in an object, and how they are read back. The whole format is here.

An object is a gzip file of NDJSON, so `zcat` opens it. Each job is a gzip member of its own, so that one job is read
without the others: a line that names it, a line for each event with every column (`data` as exact text, hashes in hex),
a line for each large value (base64). Beside each object lies its manifest: what it holds, and its SHA-256.
"""

import asyncio
import base64
import gzip
import hashlib
import os
import re
import secrets
import tempfile
import uuid
import weakref
import zlib
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from events.errors import LogUnavailable
from events.log import FEED_BYTES_MAX, PAGE_EVENTS_MAX
from events.record import Recorded
from events.retention import WEEK_MS, Archived, Due
from events.seal import Envelope
from events.seal_log import Stored
from events.values import decode, encode

FORMAT = "phaseline job 1"
# What is read comes from outside: each of these holds whatever somebody put there. The archiver writes nothing beyond them.
JOB_BYTES_MAX = 4 * 1024**3  # unpacked
EVENT_BYTES_MAX = 4 * 1024 * 1024  # of a line: an event's data are at most 1 MiB, and twice that as text within text
LINE_BYTES_MAX = 256 * 1024 * 1024  # a value of the largest result there may be, in base64, is less
VALUES_MAX = JOB_BYTES_MAX // (256 * 1024)  # no smaller value is stored apart
EVENTS_BEYOND = 1000  # more than there should be: so that an audit names what was added
KEPT_BYTES_MAX = 8 * 1024**3  # of all jobs kept unpacked, but for one
PIECE_BYTES = 1024 * 1024
FETCHES_MAX = 4  # at once
FETCH_S = 60.0
OPEN_MAX = 16  # jobs kept unpacked in files of this machine
_T = TypeVar("_T")
_NAME = re.compile(r"w\d+/[0-9a-f-]{36}-[0-9a-f]{16}\.ndjson\.gz(\.manifest\.json)?(\.part)?")
PART = ".part"  # what ends the name of a half-written object
_VALUE = b'{"sha256":'


class ArchiveUnavailable(LogUnavailable):
    """The archive does not answer, or lacks an object. Check PHASELINE_ARCHIVE, and that it can be read; then try again."""


class ArchiveBroken(ArchiveUnavailable):
    """The archive answers, and has not what was put into it."""


class ArchiveStore(Protocol):
    """Where objects lie. Each call raises `ArchiveUnavailable`; `fetch` of what is not there `ArchiveBroken`."""

    async def put(self, name: str, content: Path) -> None:
        """Keeps a file's content under a name, whole or not at all. When it returns, it is durable."""

    async def begin(self, *, anew: bool) -> None:
        """Before something is put: whether this is the archive, and not an empty place where it should be. `anew`: nothing
        was ever put there, so that it may be made."""

    async def delete(self, name: str) -> None:
        """Removes an object for good; one that is not there is no failure."""

    async def names(self, before_s: float) -> list[str]:
        """Everything that lies there and was put before this time (seconds since 1970), half-written objects included."""

    async def fetch(self, name: str, start: int, length: int | None, into: IO[bytes]) -> None:
        """Writes a part of an object, or all from `start` on, into a file."""


class JobTooLarge(Exception):
    """A job over `JOB_BYTES_MAX`: nobody would read it back."""


# ---- writing ----------------------------------------------------------------------------------------------------


class MemberWriter:
    """One job's member at the end of a file. Used from one thread at a time; `close` ends it, `undo` leaves nothing of it. All
    but those raise `JobTooLarge`."""

    def __init__(self, file: IO[bytes], due: Due, events: int) -> None:
        self.start = file.tell()
        self._file = file
        self._left = JOB_BYTES_MAX
        # No time and no name in its header: the same job is the same bytes.
        self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0)
        self._write({"format": FORMAT, **asdict(due), "events": events})

    def events(self, page: Sequence[Stored]) -> None:
        """The next events, in sequence."""
        for stored in page:
            columns = asdict(stored.envelope)
            columns["digest"] = stored.envelope.digest.hex()
            self._write({**columns, "size": stored.size, "data": stored.data})

    def value(self, sha256: str, body: bytes) -> None:
        """A large value; after the events."""
        self._write({"sha256": sha256, "body": base64.b64encode(body).decode()})

    def close(self) -> int:
        """Ends the member and returns its length."""
        self._gzip.close()
        return self._file.tell() - self.start

    def undo(self) -> None:
        """The file is as it was before."""
        self._gzip.close()
        self._file.seek(self.start)
        self._file.truncate()

    def _write(self, line: dict[str, Any]) -> None:
        text = encode(line) + b"\n"
        self._left -= len(text)
        if self._left < 0:
            raise JobTooLarge
        self._gzip.write(text)


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


# ---- reading ----------------------------------------------------------------------------------------------------


class Unpacked:
    """One job's lines in a nameless file of this machine, and where each begins. Goes with its last reader."""

    def __init__(self, descriptor: int, ends: "array[int]", values: dict[str, tuple[int, int]]) -> None:
        self._descriptor = descriptor
        self._ends = ends  # of the head line and of each event's
        self._values = values  # first byte and end
        self.bytes = os.fstat(descriptor).st_size
        weakref.finalize(self, os.close, descriptor)

    @property
    def events(self) -> int:
        """How many there are; their sequences are 1 to this."""
        return len(self._ends) - 1

    def rows(self, after: int, limit: int) -> Iterator[dict[str, Any]]:
        """The events after a sequence, each as its line."""
        for seq in range(after + 1, min(after + limit, self.events) + 1):
            start, end = self._ends[seq - 1], self._ends[seq]
            yield decode(os.pread(self._descriptor, end - start, start))

    def page(self, after: int, limit: int, bytes_max: int) -> list[Recorded]:
        """As `Log.read`."""
        found: list[Recorded] = []
        total = 0
        for row in self.rows(after, limit):
            total += int(row["size"])
            if found and total > bytes_max:
                break
            found.append(_recorded(row))
        return found

    def back(self, before: int, limit: int) -> list[Recorded]:
        """As `Log.read_back`."""
        first = max(min(before, self.events + 1) - limit, 1)
        return [_recorded(row) for row in self.rows(first - 1, min(before - first, limit))][::-1]

    def checkpoints(self) -> list[Recorded]:
        """As `Log.checkpoints`."""
        return [_recorded(row) for row in self.rows(0, self.events) if row["type"] == "checkpoint"]

    def stored(self, after: int, limit: int, bytes_max: int) -> list[Stored]:
        """As an audit reads them."""
        found: list[Stored] = []
        total = 0
        for row in self.rows(after, limit):
            total += len(row["data"])
            if found and total > bytes_max:
                break
            size, data = row.pop("size"), row.pop("data")
            found.append(Stored(Envelope(**row | {"digest": bytes.fromhex(row["digest"])}), size, data))
        return found

    def value_size(self, sha256: str) -> int | None:
        """The bytes of a large value."""
        body = self.value(sha256)
        return None if body is None else len(body)

    def value(self, sha256: str) -> bytes | None:
        """A large value."""
        place = self._values.get(sha256)
        if place is None:
            return None
        body = base64.b64decode(decode(os.pread(self._descriptor, place[1] - place[0], place[0]))["body"])
        if hashlib.sha256(body).hexdigest() != sha256:
            raise ArchiveBroken(f"a large value was changed in the archive: {sha256}")
        return body

    def hold(self, one: Archived) -> None:
        """Raises `ArchiveBroken` when this is not the job it should be, or not that tenant's."""
        first = next(self.rows(0, 1), None)
        if first is None or (first["job_id"], first["tenant"]) != (one.job_id, one.tenant):
            raise ArchiveBroken(f"where job {one.job_id} should lie in the archive lies something else")

    def hold_values(self) -> None:
        """Raises `ArchiveBroken` when a large value is not what it is named by."""
        for sha256 in self._values:
            self.value(sha256)


def unpack(member: IO[bytes], events: int) -> Unpacked:
    """Reads a member through, of a job with so many events. Raises `ArchiveBroken`, and stops there, when it holds more than any
    job may: a few KiB of gzip can be as many GiB."""
    ends, values = array("q"), dict[str, tuple[int, int]]()
    with tempfile.TemporaryFile() as file:
        try:
            with gzip.GzipFile(fileobj=member) as lines:
                for head, start, end in _copied(lines, file):
                    if head.startswith(_VALUE):
                        values[decode(head.partition(b',"body"')[0] + b"}")["sha256"]] = start, end
                    else:
                        ends.append(end)
                    if len(ends) > 1 + events + EVENTS_BEYOND or len(values) > VALUES_MAX:
                        raise ValueError("it has more lines than a job")
        except (OSError, EOFError, ValueError, zlib.error) as broken:
            raise ArchiveBroken(f"an archived job cannot be read: {broken}") from broken
        if not ends:
            raise ArchiveBroken("an archived job cannot be read: it is empty")
        file.flush()
        return Unpacked(os.dup(file.fileno()), ends, values)


def _copied(lines: gzip.GzipFile, file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Each line, once it is copied: how it begins, its first byte and its end. What is held in memory is one piece of it."""
    end = 0
    while piece := lines.readline(PIECE_BYTES):
        head, start = piece[:96], end
        most = LINE_BYTES_MAX if head.startswith(_VALUE) else EVENT_BYTES_MAX
        while True:
            end += len(piece)
            if end > JOB_BYTES_MAX or end - start > most:
                raise ValueError("it is larger unpacked than a job may be")
            file.write(piece)
            if piece.endswith(b"\n"):
                break
            piece = lines.readline(PIECE_BYTES)
            if not piece:
                raise EOFError("a line breaks off")
        yield head, start, end


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


def _recorded(row: dict[str, Any]) -> Recorded:
    return Recorded(**{name: row[name] for name in Recorded._fields})
