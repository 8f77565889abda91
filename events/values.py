"""Turns any value an engine offers into JSON, in one place, or names the path that cannot be.

Results, partial values, checkpoint outputs and log fields pass here: pydantic models, dataclasses, datetime,
Decimal, UUID, Enum, set and tuple, nested to any depth, by pydantic's own serialiser.
"""

import math
from collections.abc import Iterator
from typing import Any

import pydantic_core

DATA_BYTES_MAX = 1024 * 1024  # an event's encoded fields; larger values belong into artifacts
# Parsers stop at about 200 levels, and a value is nested a few more inside its event, its page and its job.
DEPTH_MAX = 100
DIGITS_MAX = 1000  # of an integer: Python and most clients refuse to read numbers of some thousands of digits
_INTEGER_BITS_MAX = int(DIGITS_MAX * 3.3219)
# Key that marks an object the serialiser did not know, so that its path can be named; no storable key has a NUL.
_UNKNOWN = "\x00unknown"


class Unserializable(ValueError):
    """A value cannot be written as JSON; `path` says which one, `reason` says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def jsonable(value: Any, root: str = "value") -> Any:
    """Plain JSON types (dict, list, str, int, float, bool, None) equal to `value`.

    Raises `Unserializable` naming the path: for NaN and infinities, for objects no serialiser knows, for strings
    with NUL or a lone surrogate (Postgres and UTF-8 refuse them), for values nested deeper than `DEPTH_MAX`.
    """
    try:
        plain = pydantic_core.to_jsonable_python(value, inf_nan_mode="constants", fallback=_unknown)
    except (pydantic_core.PydanticSerializationError, ValueError, RecursionError, UnicodeError) as failure:
        raise Unserializable(root, str(failure) or type(failure).__name__) from failure
    for path, problem in (
        *_problems(plain, root, 0),
        *_not_finite(_MODELS_OPENED.to_python(value, fallback=str), root),
    ):
        raise Unserializable(path, problem)
    return plain


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON of plain values; keeps `50.0` a float and integers of any size whole."""
    return pydantic_core.to_json(value, inf_nan_mode="constants")


def decode(text: bytes | str) -> Any:
    """The plain value of a JSON text; `ValueError` when it is not JSON. NaN and Infinity are not JSON."""
    return pydantic_core.from_json(text, allow_inf_nan=False)


def text_problem(text: str) -> str | None:
    """Why this string can be stored nowhere, or None."""
    if "\x00" in text:
        return "contains a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "contains a lone surrogate"
    return None


def storable_text(text: str, chars_max: int = 16 * 1024) -> str:
    """`text` with NUL and lone surrogates replaced by U+FFFD, cut at `chars_max`.

    For reports that end an attempt: they are never refused for their content.
    """
    if text_problem(text):
        text = text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text if len(text) <= chars_max else text[:chars_max]


def first_problem(plain: Any, root: str = "") -> tuple[str, str] | None:
    """The (path, reason) of the first value inside plain JSON that cannot be stored, or None."""
    return next(_problems(plain, root, 0), None)


# Opens models and dataclasses and leaves their leaves as they are.
_MODELS_OPENED = pydantic_core.SchemaSerializer(pydantic_core.core_schema.any_schema())


def _not_finite(opened: Any, path: str) -> Iterator[tuple[str, str]]:
    """NaN and infinities inside models: a model's own JSON would make each of them a silent null."""
    if isinstance(opened, dict):
        for key, item in opened.items():
            yield from _not_finite(item, f"{path}.{key}")
    elif isinstance(opened, list | tuple | set | frozenset):
        for index, item in enumerate(opened):
            yield from _not_finite(item, f"{path}[{index}]")
    elif isinstance(opened, float) and not math.isfinite(opened):
        yield path, f"{opened} is not JSON"


def _unknown(value: Any) -> Any:
    return {_UNKNOWN: type(value).__qualname__}


def _problems(plain: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > DEPTH_MAX:
        yield path, f"nested deeper than {DEPTH_MAX} levels"
    elif isinstance(plain, dict):
        if _UNKNOWN in plain:
            yield path, f"an object of type {plain[_UNKNOWN]} is not JSON"
            return
        for key, item in plain.items():
            if problem := text_problem(key):
                yield path, f"a key {problem}"
            yield from _problems(item, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(plain, list):
        for index, item in enumerate(plain):
            yield from _problems(item, f"{path}[{index}]", depth + 1)
    elif isinstance(plain, float):
        if not math.isfinite(plain):
            yield path, f"{plain} is not JSON"
    elif isinstance(plain, int):
        if plain.bit_length() > _INTEGER_BITS_MAX:
            yield path, f"an integer of more than {DIGITS_MAX} digits"
    elif isinstance(plain, str) and (problem := text_problem(plain)):
        yield path, problem
