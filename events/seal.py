"""Seals: hashes that make a change of any stored event show. PURE; the whole format is here (docs/decisions/0004-audit.md).

- An event's *leaf* is the SHA-256 of its envelope and the SHA-256 of its exact data bytes, so that data may be erased.
- A job's *head* after an event is SHA-256(head before it ‖ leaf); before the first it is the SHA-256 of the job's id.
- A *seal* covers a batch of events of many jobs: consecutive ranges of each, with their leaves and the head they end in.
  Its hash covers the ranges and the seal before it: one chain over the whole log, which an anchor signs.
"""

import hashlib
import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from events.values import encode

HASH_BYTES = 32
START = bytes(HASH_BYTES)  # what the first seal comes after
_RANGE = struct.Struct(">16sqq32s")  # job id, first and last sequence, head


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event without its data: every column a reader relies on. `place` is its cursor in the feed."""

    job_id: str
    seq: int
    type: str
    version: int
    attempt: int
    actor: str
    tenant: str
    at: int
    command_id: str
    digest: bytes
    place: str

    @property
    def leaf(self) -> bytes:
        """SHA-256 of the compact UTF-8 JSON array of the columns in this order, the digest in hex."""
        return _leaf(self, self.seq)

    def leaf_at(self, seq: int) -> bytes:
        """Its leaf were it at another sequence: how an event that was moved is recognised."""
        return _leaf(self, seq)


def _leaf(e: Envelope, seq: int) -> bytes:
    columns = [e.job_id, seq, e.type, e.version, e.attempt, e.actor, e.tenant, e.at, e.command_id, e.place]
    return hashlib.sha256(encode([*columns, e.digest.hex()])).digest()


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive events of one job under one seal: their leaves, 32 bytes each, and the job's head after them."""

    job_id: str
    first_seq: int
    last_seq: int
    seal: int
    leaves: bytes
    head: bytes

    def leaf(self, seq: int) -> bytes:
        """The leaf sealed for this sequence; empty when it has none."""
        at = (seq - self.first_seq) * HASH_BYTES
        return self.leaves[at : at + HASH_BYTES]


@dataclass(frozen=True, slots=True)
class Seal:
    """One link of the whole log's chain. `at` in ms; `cursor` is the feed's after the batch; `ranges` is `pack_ranges`."""

    no: int
    at: int
    cursor: str
    events: int
    ranges: bytes
    previous: bytes
    hash: bytes

    def right_hash(self) -> bytes:
        """The hash this content must have."""
        return seal_hash(self.no, self.at, self.cursor, self.events, self.ranges, self.previous)


def seal_hash(no: int, at: int, cursor: str, events: int, ranges: bytes, previous: bytes) -> bytes:
    """SHA-256 of the compact JSON array of these, hashes in hex and `ranges` by its SHA-256."""
    content = ["phaseline seal 1", no, at, cursor, events, hashlib.sha256(ranges).hexdigest(), previous.hex()]
    return hashlib.sha256(encode(content)).digest()


def first_head(job_id: str) -> bytes:
    """A job's head before its first event."""
    return hashlib.sha256(job_id.encode()).digest()


def head_after(head: bytes, leaves: bytes) -> bytes:
    """A job's head after events with these leaves."""
    for at in range(0, len(leaves), HASH_BYTES):
        head = hashlib.sha256(head + leaves[at : at + HASH_BYTES]).digest()
    return head


def pack_ranges(ranges: Iterable[Range]) -> bytes:
    """What a seal keeps of its ranges: 64 bytes each."""
    return b"".join(_RANGE.pack(uuid.UUID(r.job_id).bytes, r.first_seq, r.last_seq, r.head) for r in ranges)


def unpack_ranges(packed: bytes) -> list[tuple[str, int, int, bytes]]:
    """Job id, first and last sequence and head of each. Raises `ValueError` for any other bytes."""
    if len(packed) % _RANGE.size:
        raise ValueError("not ranges")
    return [(str(uuid.UUID(bytes=job)), first, last, head) for job, first, last, head in _RANGE.iter_unpack(packed)]


def make_seal(last: Seal | None, at: int, cursor: str, ranges: Sequence[Range]) -> Seal:
    """The seal after `last`; `ranges` carry its number and are in id order."""
    no, previous = (last.no + 1, last.hash) if last else (1, START)
    events = sum(r.last_seq - r.first_seq + 1 for r in ranges)
    packed = pack_ranges(ranges)
    return Seal(no, at, cursor, events, packed, previous, seal_hash(no, at, cursor, events, packed, previous))
