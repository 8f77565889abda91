"""How recorded lines become hint messages and back. PURE.

Lines travel as they are, newline between them, so nothing is encoded twice between commit and socket. What is too
long to travel goes as a reference: its reader takes the event from the log.
"""

from collections.abc import Iterable, Sequence
from zlib import crc32

from events.bus import HINT_BYTES_MAX, INLINE_BYTES_MAX
from events.record import job_id_of, seq_of


def travelling(line: bytes) -> bytes:
    """The line itself, or over 64 KiB its reference `{"job_id":…,"seq":n,"ref":true}`."""
    if len(line) <= INLINE_BYTES_MAX:
        return line
    return f'{{"job_id":"{job_id_of(line)}","seq":{seq_of(line)},"ref":true}}'.encode()


def batches(lines: Iterable[bytes]) -> list[list[bytes]]:
    """The lines in order, cut so that each batch joined by newlines is at most 256 KiB."""
    cut: list[list[bytes]] = []
    room = 0
    for line in lines:
        size = len(line) + 1
        if size > room:
            cut.append([])
            room = HINT_BYTES_MAX
        cut[-1].append(line)
        room -= size
    return cut


def joined(lines: Sequence[bytes]) -> bytes:
    """NDJSON. JSON text as we write it holds no raw newline."""
    return b"\n".join(lines)


def split(body: bytes) -> list[bytes]:
    """The lines of an NDJSON body, empty ones left out."""
    return [line for line in body.split(b"\n") if line]


def partition_of(line: bytes, partitions: int) -> int:
    """Which partition a line's job belongs to, the same in every process and version."""
    return 0 if partitions == 1 else crc32(job_id_of(line).encode()) % partitions
