"""Saves everything decisions are made from as a folder that the source `directory` reads.

Everything is read and judged before anything is written, the folder is made beside its place and read again, and only then
takes it: whatever goes wrong, the snapshot that was there stays.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from engine_worker.engines.fpl.collecting import collect
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.sheets import gameweeks_lately
from engine_worker.engines.fpl.snapshot import Page, Snapshot
from engine_worker.engines.fpl.source import BrokenSource, NotThere, Reading, Source, digest
from engine_worker.engines.fpl.source_directory import DirectorySource
from events.values import encode


class NotASnapshot(Exception):
    """The place is taken by something other than an earlier snapshot."""


class Saved(NamedTuple):
    """What a folder holds: its pages, when the oldest of them was true, and the digest decisions on all of it name."""

    paths: list[str]
    taken_at: str
    sha256: str


def save(source: Source, entries: Sequence[int], root: Path) -> Saved:
    """Saves the season and what the squads of `entries` are rebuilt from, in place of an earlier snapshot at `root`.

    Raises `NotThere` for an entry the source does not have, `NoSquadYet`, `KeyError` for a player it does not have,
    `BrokenSource` when a page cannot be had now or only an older one, `NotASnapshot`.
    """
    _restore(root)
    if root.exists() and not _replaceable(root):
        raise NotASnapshot(f"{root} is neither empty nor a snapshot; nothing was written")
    pages = _pages(source, entries)
    new = _beside(root, "new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        _write(pages, new)
        saved = _read_again(pages, new)
        _put(new, root)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return saved


def _pages(source: Source, entries: Sequence[int]) -> Reading:
    """Reads what a decision on each of the entries reads, and leaves nothing out that is there."""
    reading = Reading(source)
    reading.body("bootstrap-static")
    for gameweek in gameweeks_lately(reading.body("fixtures")):
        try:
            reading.body(f"event/{gameweek}/live")
        except NotThere:
            continue  # a season saved without minutes
    for entry in entries:
        collect(FplParams(team_id=entry), "", reading)
    if reading.stale:
        raise BrokenSource(f"only older data of {reading.taken_at} is at hand: {reading.stale}")
    return reading


def _write(pages: Reading, root: Path) -> None:
    snapshot = Snapshot(root)
    for path, answer in pages.used.items():
        content = encode(answer.body)
        snapshot.save(path, content, Page(sha256=digest(content), fetched_at=answer.taken_at))


def _read_again(pages: Reading, root: Path) -> Saved:
    again = Reading(DirectorySource(root))
    for path, answer in pages.used.items():
        if again.body(path) != answer.body:
            raise BrokenSource(f"{path}: reads back as something else than was saved")
    return Saved(sorted(again.used), again.taken_at, again.sha256())


def _replaceable(root: Path) -> bool:
    if not root.is_dir():
        return False
    if not any(root.iterdir()):
        return True
    try:
        return Snapshot(root).manifest().pages is not None
    except BrokenSource:
        return False


def _put(new: Path, root: Path) -> None:
    """Two renames, the old folder kept until the second is done; `_restore` undoes a first one left alone."""
    old = _beside(root, "old")
    if root.exists():
        root.replace(old)
    new.replace(root)
    shutil.rmtree(old, ignore_errors=True)


def _restore(root: Path) -> None:
    old = _beside(root, "old")
    if old.exists() and not root.exists():
        old.replace(root)
    shutil.rmtree(old, ignore_errors=True)


def _beside(root: Path, what: str) -> Path:
    return root.with_name(f".{root.name}.{what}")
