"""Finds members of JSON objects we encoded ourselves, so that their exact bytes can be served. PURE.

Only for our own text: one object, compact, valid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecoder

_decode_at = JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object's text: where its name begins, where its value begins and ends."""

    name: str
    start: int
    value: int
    end: int


def members(text: str) -> Iterator[Member]:
    """The members in order."""
    place = 1
    while place < len(text) - 1:
        name, after_name = _decode_at(text, place)
        _, end = _decode_at(text, after_name + 1)
        yield Member(name, place, after_name + 1, end)
        place = end + 1


def value_of(text: str, name: str) -> str | None:
    """The exact text of a member's value, None when there is no such member."""
    found = next((member for member in members(text) if member.name == name), None)
    return None if found is None else text[found.value : found.end]


def with_results(line: bytes, results: bytes) -> bytes:
    """The event with its `results_ref` replaced by the value itself."""
    text = line.decode()
    found = next((member for member in members(text) if member.name == "results_ref"), None)
    if found is None:
        return line
    return b"".join([text[: found.start].encode(), b'"results":', results, text[found.end :].encode()])
