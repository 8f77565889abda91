"""One archived job as it lies in an object, written and read back. The whole format of a job is here.

A gzip member of its own, so that it is read without the others: a line that names the job, a line for each event with every
column (`data` as exact text, hashes in hex), a line for each large value (base64).
"""

import base64
import gzip
import hashlib
import os
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import IO, Any

from events.archive_store import ArchiveBroken
from events.record import Recorded
from events.retention import Archived, Due
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
PIECE_BYTES = 1024 * 1024
_VALUE = b'{"sha256":'


class JobTooLarge(Exception):
    """A job over `JOB_BYTES_MAX`: nobody would read it back."""


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


def _recorded(row: dict[str, Any]) -> Recorded:
    return Recorded(**{name: row[name] for name in Recorded._fields})
