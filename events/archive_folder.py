"""An archive in a folder, which may be a mounted one."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import IO

from events.archive_store import PART, ArchiveBroken, ArchiveUnavailable

MARKER = "phaseline-archive"


class FolderStore:
    """See `ArchiveStore`. A file in it says that it is an archive: an empty mount point has none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def begin(self, *, anew: bool) -> None:
        try:
            await asyncio.to_thread(self._begin, anew)
        except OSError as failure:
            raise ArchiveUnavailable(f"{self._folder} takes no archive: {failure}") from failure

    def _begin(self, anew: bool) -> None:
        marker = self._folder / MARKER
        if marker.exists():
            return
        if not anew:
            raise ArchiveUnavailable(
                f"{self._folder} is not the archive jobs lie in, which has a file {MARKER}: mount it"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        marker.write_text("Phaseline keeps archived jobs here.\n")

    async def put(self, name: str, content: Path) -> None:
        try:
            await asyncio.to_thread(self._put, name, content)
        except OSError as failure:
            raise ArchiveUnavailable(f"{self._folder} takes no archive: {failure}") from failure

    async def fetch(self, name: str, start: int, length: int | None, into: IO[bytes]) -> None:
        try:
            await asyncio.to_thread(self._fetch, name, start, length, into)
        except OSError as failure:
            # A folder that is not mounted is away; one that is there and lacks a file has lost it.
            gone = isinstance(failure, FileNotFoundError) and (self._folder / MARKER).exists()
            kind = ArchiveBroken if gone else ArchiveUnavailable
            raise kind(f"{self._folder / name} cannot be read: {failure}") from failure

    async def delete(self, name: str) -> None:
        try:
            await asyncio.to_thread((self._folder / name).unlink, missing_ok=True)
        except OSError as failure:
            raise ArchiveUnavailable(f"{self._folder / name} cannot be removed: {failure}") from failure

    async def names(self, before_s: float) -> list[str]:
        try:
            return await asyncio.to_thread(self._names, before_s)
        except OSError as failure:
            raise ArchiveUnavailable(f"{self._folder} cannot be read: {failure}") from failure

    def _names(self, before_s: float) -> list[str]:
        there = [path for path in self._folder.glob("*/w*/*") if path.is_file() and path.stat().st_mtime < before_s]
        return sorted(path.relative_to(self._folder).as_posix() for path in there)

    def _put(self, name: str, content: Path) -> None:
        target = self._folder / name
        if not (self._folder / MARKER).exists():
            raise FileNotFoundError(f"there is no {MARKER}")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}{PART}")
        with content.open("rb") as source, part.open("wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
        for folder in (target.parent, target.parent.parent, self._folder):  # a name is durable when its folder is
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _fetch(self, name: str, start: int, length: int | None, into: IO[bytes]) -> None:
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            left = length
            while left is None or left > 0:
                piece = file.read(1 << 20 if left is None else min(left, 1 << 20))
                if not piece:
                    break
                into.write(piece)
                left = left if left is None else left - len(piece)
