"""How parent and child speak over their socket: length-prefixed frames, the same in both directions. PURE.

A frame is two big-endian 32-bit lengths, a JSON object (`{"op": …}`) and a body: the exact JSON bytes of a value that
may be large (result, checkpoint, best; towards the child what earlier attempts recorded), which the parent can store
without decoding it. No body is no value.
"""

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from events.values import decode, encode

LENGTHS = struct.Struct(">II")
FIELDS_BYTES_MAX = 4 * 1024 * 1024  # an event holds 1 MiB; a run's params and ours beside it
BODY_BYTES_MAX = 1024 * 1024 * 1024  # a sanity bound: the child refuses a value over the settings' limit earlier


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: what it says, and the JSON text of the value it carries."""

    fields: dict[str, Any]
    body: bytes = b""
    size: int = 0  # bytes on the socket

    @property
    def op(self) -> str:
        """What kind of message this is."""
        return str(self.fields.get("op"))


class Garbled(ValueError):
    """These bytes are no frame: the other side, or the engine in it, wrote something else into the socket."""


def pack(fields: dict[str, Any], body: bytes = b"") -> bytes:
    """The bytes of a frame. Raises `ValueError` for text no UTF-8 can hold."""
    head = encode(fields)
    return LENGTHS.pack(len(head), len(body)) + head + body


def read_frame(read: Callable[[int], bytes]) -> Frame:
    """Reads one frame with a blocking `read` of exactly n bytes."""
    head, body = lengths(read(LENGTHS.size))
    return Frame(_fields(read(head)), read(body) if body else b"", head + body)


async def receive_frame(read: Callable[[int], Awaitable[bytes]]) -> Frame:
    """Reads one frame with an awaitable `read` of exactly n bytes."""
    head, body = lengths(await read(LENGTHS.size))
    return Frame(_fields(await read(head)), await read(body) if body else b"", head + body)


def lengths(prefix: bytes) -> tuple[int, int]:
    """The two lengths of a frame. Raises `Garbled` when they cannot be."""
    head, body = LENGTHS.unpack(prefix)
    if head > FIELDS_BYTES_MAX or body > BODY_BYTES_MAX:
        raise Garbled(f"a frame of {head} + {body} bytes")
    return head, body


def _fields(text: bytes) -> dict[str, Any]:
    try:
        fields = decode(text)
    except ValueError as problem:
        raise Garbled(str(problem)) from problem
    if not isinstance(fields, dict):
        raise Garbled("a frame that is no object")
    return fields
