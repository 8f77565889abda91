"""Saved pages of the API in a folder: `bootstrap-static.json`, `entry/7/event/9/picks.json`, … and `MANIFEST.json`.

The manifest gives each page's SHA-256, when it was fetched, and what the site said of it. Pages and manifest are only
ever renamed into place, manifest first with the digest before and the new one, so that a crash at any moment leaves
a folder whose every page is whole and vouched for.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from engine_worker.engines.fpl.source import BrokenSource, NotThere, digest

MANIFEST = "MANIFEST.json"


class Page(BaseModel):
    """What is known of one saved page; times are UTC, ISO 8601."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    fetched_at: str
    etag: str | None = None
    # Nothing will change it any more: picks of a gameweek whose points are checked.
    final: bool = False
    # The page this one takes the place of; what is on disk is one of the two.
    before: "Page | None" = None


class Manifest(BaseModel):
    """The manifest of a folder. Folders made by others may have none, or one that lists no pages."""

    model_config = ConfigDict(frozen=True, extra="allow")

    pages: dict[str, Page] | None = None
    elements_as_of: str | None = None


class Snapshot:
    """A folder of pages. One writer at a time; readers need no lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def manifest(self) -> Manifest:
        """What the folder says of itself. Raises `BrokenSource` for a manifest that is none."""
        try:
            text = (self.root / MANIFEST).read_bytes()
        except FileNotFoundError:
            return Manifest()
        except OSError as failure:
            raise BrokenSource(f"{MANIFEST}: {failure.strerror}") from failure
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as failure:
            raise BrokenSource(f"{MANIFEST}: {failure.errors()[0]['msg']}") from failure

    def content(self, path: str) -> tuple[bytes, Page | None]:
        """A page and what the manifest says of it, None where it lists no pages.

        Raises `NotThere`, and `BrokenSource` for a page that is not the one the manifest vouches for.
        """
        pages = self.manifest().pages
        try:
            content = self.file(path).read_bytes()
        except OSError as failure:
            raise NotThere(path) from failure
        if pages is None:
            return content, None
        sha256, listed = digest(content), pages.get(path)
        for page in (listed, listed.before if listed else None):
            if page is not None and page.sha256 == sha256:
                return content, page
        problem = "not in the manifest" if listed is None else "changed since it was saved, its SHA-256 is another"
        raise BrokenSource(f"{path}.json: {problem}")

    def save(self, path: str, content: bytes, page: Page) -> None:
        """Puts a page in the place of the one before, with its entry in the manifest."""
        pages = dict(self.manifest().pages or {})
        before = pages.get(path)
        pages[path] = page.model_copy(update={"before": before.model_copy(update={"before": None}) if before else None})
        self._write_manifest(pages)
        _replace(self.file(path), content)

    def drop(self, paths: Collection[str]) -> None:
        """Forgets pages: first in the manifest, so that none is vouched for that is not there."""
        gone = set(paths)
        self._write_manifest({path: page for path, page in (self.manifest().pages or {}).items() if path not in gone})
        for path in gone:
            self.file(path).unlink(missing_ok=True)

    def note(self, path: str, page: Page) -> None:
        """Changes what the manifest says of a page that stays as it is."""
        self._write_manifest({**(self.manifest().pages or {}), path: page})

    def file(self, path: str) -> Path:
        """Where a page lies."""
        return self.root / f"{path}.json"

    def _write_manifest(self, pages: dict[str, Page]) -> None:
        stated: dict[str, Any] = self.manifest().model_dump(exclude={"pages"}, exclude_none=True)
        manifest = Manifest(**stated, pages=dict(sorted(pages.items())))
        _replace(self.root / MANIFEST, manifest.model_dump_json(indent=1, exclude_none=True).encode())


def _replace(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    with new.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)
