"""The source `directory`: a folder of saved responses, refused where it is not what it says."""

import os
from datetime import UTC, datetime
from pathlib import Path

from engine_worker.engines.fpl.snapshot import MANIFEST, Page, Snapshot
from engine_worker.engines.fpl.source import Answer, NotThere, digest, parsed

# Bodies kept parsed: the two that take a tenth of a second to read. Entries are small and read when asked for.
_KEPT = ("bootstrap-static", "fixtures")
Signature = tuple[tuple[int, int], ...]


class DirectorySource:
    """Reads a `Snapshot`; a page that changed on disk is read again."""

    def __init__(self, root: Path) -> None:
        self._snapshot = Snapshot(root)
        self._kept: dict[str, tuple[Signature, Answer]] = {}

    def answer(self, path: str) -> Answer:
        """See `Source.answer`."""
        if path not in _KEPT:
            return self._read(path)
        signature = self._signature(path)
        kept = self._kept.get(path)
        if kept is None or kept[0] != signature:
            kept = self._kept[path] = (signature, self._read(path))
        return kept[1]

    at_hand = answer

    def _read(self, path: str) -> Answer:
        content, page = self._snapshot.content(path)
        body = parsed(path, content, f"{path}.json")
        return Answer(body, digest(content) if page is None else page.sha256, self._taken_at(path, page))

    def _taken_at(self, path: str, page: Page | None) -> str:
        """When a page was true: what the manifest says of all of them, or of this one, or when it was written."""
        if stated := self._snapshot.manifest().elements_as_of:
            return stated
        if page is not None:
            return page.fetched_at
        written = _stat(self._snapshot.file(path)).st_mtime
        return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")

    def _signature(self, path: str) -> Signature:
        page, manifest = _stat(self._snapshot.file(path)), self._snapshot.root / MANIFEST
        said = manifest.stat() if manifest.exists() else page
        return (page.st_mtime_ns, page.st_size), (said.st_mtime_ns, said.st_size)


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as failure:
        raise NotThere(file.name) from failure
