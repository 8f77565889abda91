"""The sources a server configures, by name. Clients name one and never see a path or an address.

    PHASELINE_FPL_SOURCES=synthetic,live,gw10=directory:/srv/fpl/2023-24-gw10,other=synthetic:7

The first is the default. `live` keeps its pages in the folder PHASELINE_FPL_CACHE, one folder inside for each name.
"""

import os
from functools import lru_cache
from pathlib import Path

from engine_worker.engines.fpl.source import Source
from engine_worker.engines.fpl.source_directory import DirectorySource
from engine_worker.engines.fpl.source_live import OFFICIAL, LiveSource
from engine_worker.engines.fpl.synthetic import State, SyntheticSource

SOURCES_VARIABLE = "PHASELINE_FPL_SOURCES"
SOURCES_DEFAULT = "synthetic"
CACHE_VARIABLE = "PHASELINE_FPL_CACHE"
CACHE_DEFAULT = ".data/phaseline/fpl"
_FORMS = "NAME=directory:PATH, live, NAME=live:URL, synthetic or NAME=synthetic:SEED:STATE"


class UnknownSource(LookupError):
    """No source of this name is configured; the message lists those that are."""


def configured() -> dict[str, str]:
    """The configured sources, name → what it is (`synthetic:7`, `directory:/srv/…`, `live`), default first.

    Raises `ValueError` naming the entry that is none of them.
    """
    sources: dict[str, str] = {}
    for entry in (os.environ.get(SOURCES_VARIABLE) or SOURCES_DEFAULT).split(","):
        name, _, what = entry.strip().partition("=")
        what = what or name
        if not name or not _valid(what):
            raise ValueError(f"{SOURCES_VARIABLE}: {entry.strip()!r} is none of {_FORMS}")
        sources[name] = what
    return sources


def source_named(name: str | None) -> Source:
    """The configured source of this name, the server's first for None. One object per process and configuration.

    Raises `UnknownSource`.
    """
    sources = configured()
    chosen = next(iter(sources)) if name is None else name
    if chosen not in sources:
        raise UnknownSource(f"unknown source {chosen!r}, this server has {', '.join(sources)}")
    return _opened(chosen, sources[chosen], os.environ.get(CACHE_VARIABLE) or CACHE_DEFAULT)


def _valid(what: str) -> bool:
    kind, _, detail = what.partition(":")
    match kind:
        case "directory":
            return bool(detail)
        case "live":
            return not detail or detail.startswith(("http://", "https://"))
        case "synthetic":
            return _synthetic(detail) is not None
        case _:
            return False


def _synthetic(detail: str) -> tuple[int, State] | None:
    """Seed and state of `7`, `7:preseason`, `7:25` (that gameweek is next) or `7:over`."""
    seed, _, state = detail.partition(":")
    try:
        return int(seed or 1), State.named(state)
    except ValueError:
        return None


@lru_cache(maxsize=16)
def _opened(name: str, what: str, cache: str) -> Source:
    kind, _, detail = what.partition(":")
    if kind == "directory":
        return DirectorySource(Path(detail))
    if kind == "live":
        return LiveSource(detail or OFFICIAL, Path(cache) / name)
    made_up = _synthetic(detail)
    assert made_up is not None
    return SyntheticSource(*made_up)
