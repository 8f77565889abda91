"""Where the engine reads the game from: the port `Source`, its two adapters, and the sources a server configures.

A source answers paths of the official API (`bootstrap-static`, `fixtures`, `entry/7/history`, …) with their bodies.
Clients name a source, never a path: `PHASELINE_FPL_SOURCES` lists what the server offers, the first is the default.

    PHASELINE_FPL_SOURCES=synthetic,gw10=directory:/srv/fpl/2023-24-gw10,other=synthetic:7
"""

import hashlib
import json
import os
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

SOURCES_VARIABLE = "PHASELINE_FPL_SOURCES"
SOURCES_DEFAULT = "synthetic"
# Bodies kept parsed: the two that take a tenth of a second to read. Entries are small and read when asked for.
_KEPT = ("bootstrap-static", "fixtures")
_REQUIRED_KEYS = ("events", "game_settings", "teams", "elements", "element_types")


class Answer(NamedTuple):
    """One body of the API, as JSON values, and the SHA-256 of the bytes it came from."""

    body: Any
    sha256: str


class NotThere(LookupError):
    """The source has no such path: an unknown entry, or picks of a gameweek whose deadline has not passed."""


class UnknownSource(LookupError):
    """No source of this name is configured; the message lists those that are."""


class BrokenSource(Exception):
    """The source's file cannot be used: the page shown while the game is updated, a truncated or foreign file."""


class Source(Protocol):
    """A place the official API's answers come from."""

    @property
    def taken_at(self) -> str:
        """When the answers were true, UTC, ISO 8601."""
        ...

    def answer(self, path: str) -> Answer:
        """The body at an API path without slashes at its ends. Raises `NotThere`, `BrokenSource`."""
        ...


class Reading:
    """Reads one source for one decision and remembers what it used, so that the decision can name its ground."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._used: dict[str, str] = {}

    @property
    def taken_at(self) -> str:
        """See `Source.taken_at`."""
        return self._source.taken_at

    def body(self, path: str) -> Any:
        """The body at `path`. Raises as `Source.answer`."""
        answer = self._source.answer(path)
        self._used[path] = answer.sha256
        return answer.body

    def sha256(self) -> str:
        """One digest over the paths read so far and their contents; the order of reading does not matter."""
        lines = "".join(f"{path} {digest}\n" for path, digest in sorted(self._used.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


class DirectorySource:
    """Saved responses: `bootstrap-static.json`, `fixtures.json`, `entry/7.json`, `entry/7/event/9/picks.json` …"""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kept: dict[str, tuple[tuple[int, int], Answer]] = {}

    @property
    def taken_at(self) -> str:
        """`elements_as_of` of the folder's `MANIFEST.json`, else when its bootstrap was written."""
        manifest = self._root / "MANIFEST.json"
        if manifest.is_file():
            stated = _parsed(manifest, manifest.read_bytes())
            if isinstance(stated, dict) and "elements_as_of" in stated:
                return str(stated["elements_as_of"])
        written = _stat(self._root / "bootstrap-static.json").st_mtime
        return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")

    def answer(self, path: str) -> Answer:
        """See `Source.answer`; a file that changed on disk is read again."""
        file = self._root / f"{path}.json"
        if path not in _KEPT:
            return _read(path, file)
        stat = _stat(file)
        signature = (stat.st_mtime_ns, stat.st_size)
        kept = self._kept.get(path)
        if kept is None or kept[0] != signature:
            kept = self._kept[path] = (signature, _read(path, file))
        return kept[1]


def configured() -> dict[str, str]:
    """The configured sources, name → what it is (`synthetic`, `synthetic:7`, `directory:/srv/…`), default first.

    Raises `ValueError` naming the entry that is neither.
    """
    sources: dict[str, str] = {}
    for entry in (os.environ.get(SOURCES_VARIABLE) or SOURCES_DEFAULT).split(","):
        name, _, what = entry.strip().partition("=")
        what = what or name
        if what.partition(":")[0] not in ("synthetic", "directory") or not name or what == "directory":
            raise ValueError(f"{SOURCES_VARIABLE}: {entry.strip()!r} is neither NAME=directory:PATH nor synthetic")
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
    return _opened(sources[chosen])


@lru_cache(maxsize=16)
def _opened(what: str) -> Source:
    kind, _, detail = what.partition(":")
    if kind == "directory":
        return DirectorySource(Path(detail))
    from engine_worker.engines.fpl.synthetic import SyntheticSource

    return SyntheticSource(int(detail or 1))


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as failure:
        raise NotThere(file.name) from failure


def _read(path: str, file: Path) -> Answer:
    try:
        text = file.read_bytes()
    except OSError as failure:
        raise NotThere(path) from failure
    body = _parsed(file, text)
    if problem := _shape_problem(path, body):
        raise BrokenSource(f"{file.name}: {problem}")
    return Answer(body, hashlib.sha256(text).hexdigest())


def _parsed(file: Path, text: bytes) -> Any:
    start = text.lstrip()[:1]
    if start == b"<":
        raise BrokenSource(f"{file.name}: a web page, not JSON (the site shows one while the game is being updated)")
    try:
        return json.loads(text)
    except ValueError as failure:
        what = "truncated" if start in (b"{", b"[") else "not JSON"
        raise BrokenSource(f"{file.name}: {what}, {len(text)} bytes ({failure})") from failure


def _shape_problem(path: str, body: Any) -> str | None:
    """Why a body cannot be what its path promises; only what a half-written or foreign file gets wrong."""
    if path == "bootstrap-static":
        missing = [key for key in _REQUIRED_KEYS if not isinstance(body, dict) or not body.get(key)]
        return f"lacks {', '.join(missing)}" if missing else None
    if path == "fixtures":
        return None if isinstance(body, list) and body else "is no list of fixtures"
    wanted = list if path.endswith("/transfers") else dict
    return None if isinstance(body, wanted) else f"is no {wanted.__name__}"
