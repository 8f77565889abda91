"""The query box: `status:failed engine:fpl tag:weekly created_after:1h`, as one string (docs/protocol.md §2)."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

from events.catalog import Status
from events.clock import parse_instant
from events.log import JobQuery
from gateway.problems import bad_parameter

STATUSES: tuple[Status, ...] = get_args(Status)
QUERY_CHARS_MAX = 1000
TAGS_MAX = 5

_TERM = re.compile(r'(\w+):(?:"([^"]*)"|(\S+))(?=\s|$)')
_AGO = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_MS: Mapping[str, int] = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@dataclass(frozen=True, slots=True)
class Search:
    """What was asked for. Of any of these statuses, with all of these tags; `created_after` in ms, `rerun_of` an id."""

    status: tuple[str, ...] = ()
    engine: str | None = None
    tags: tuple[str, ...] = ()
    created_after: int | None = None
    rerun_of: str | None = None

    def query(self, tenant: str, limit: int) -> JobQuery:
        """For the log."""
        return JobQuery(
            tenant,
            self.status,
            self.engine,
            tags=self.tags,
            created_after=self.created_after,
            rerun_of=self.rerun_of,
            limit=limit,
        )

    @property
    def empty(self) -> bool:
        """It asks for every job there is."""
        return self == Search()


def search_of(text: str, now_ms: int) -> Search:
    """Reads a query. Raises the 400 `Problem` that says which term is wrong."""
    if len(text) > QUERY_CHARS_MAX:
        raise _wrong(f"has over {QUERY_CHARS_MAX} characters")
    search, rest = Search(), text.strip()
    while rest:
        found = _TERM.match(rest)
        if found is None:
            word = rest.split(maxsplit=1)[0][:40]
            raise _wrong(f"{word!r} is no term such as status:failed, engine:fpl, tag:weekly or created_after:1h")
        search = _with(search, found[1], found[2] if found[2] is not None else found[3], now_ms)
        rest = rest[found.end() :].lstrip()
    return search


def _with(search: Search, name: str, value: str, now_ms: int) -> Search:
    match name:
        case "status":
            return replace(search, status=(*search.status, *statuses(value.split(","), "q")))
        case "engine" if search.engine is None:
            return replace(search, engine=value)
        case "tag" if len(search.tags) < TAGS_MAX:
            return replace(search, tags=tuple(dict.fromkeys((*search.tags, value))))
        case "created_after" if search.created_after is None:
            return replace(search, created_after=instant(value, "q", now_ms))
        case "rerun_of" if search.rerun_of is None:
            return replace(search, rerun_of=_id(value))
        case "engine" | "created_after" | "rerun_of":
            raise _wrong(f"{name} is given twice")
        case "tag":
            raise _wrong(f"has over {TAGS_MAX} tags")
        case _:
            raise _wrong(f"there is no {name!r}; known are status, engine, tag, created_after, rerun_of")


def statuses(words: list[str], parameter: str) -> tuple[str, ...]:
    """Each a status. Raises the 400."""
    if unknown := [word for word in words if word not in STATUSES]:
        raise bad_parameter(parameter, f"{unknown[0]!r} is none of {', '.join(STATUSES)}")
    return tuple(words)


def instant(text: str, parameter: str, now_ms: int) -> int:
    """An RFC 3339 time, or how long ago: `30m`, `1h`, `7d`. Raises the 400."""
    if ago := _AGO.fullmatch(text):
        return max(now_ms - int(ago[1]) * _MS[ago[2]], 0)
    try:
        return parse_instant(text)
    except ValueError:
        raise bad_parameter(
            parameter, f"{text!r} is no RFC 3339 time such as 2026-11-24T08:00:00Z, nor 1h ago"
        ) from None


def _id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise _wrong(f"{text[:40]!r} is no job's id") from None


def _wrong(message: str) -> Exception:
    return bad_parameter("q", message)
