"""Where archived jobs lie: the port of the archive, and how it fails. See `archive_folder.py` and `archive_s3.py`."""

from pathlib import Path
from typing import IO, Protocol

from events.errors import LogUnavailable

PART = ".part"  # what ends the name of a half-written object


class ArchiveUnavailable(LogUnavailable):
    """The archive does not answer, or lacks an object. Check PHASELINE_ARCHIVE, and that it can be read; then try again."""


class ArchiveBroken(ArchiveUnavailable):
    """The archive answers, and has not what was put into it."""


class ArchiveStore(Protocol):
    """Where objects lie. Each call raises `ArchiveUnavailable`; `fetch` of what is not there `ArchiveBroken`."""

    async def put(self, name: str, content: Path) -> None:
        """Keeps a file's content under a name, whole or not at all. When it returns, it is durable."""

    async def begin(self, *, anew: bool) -> None:
        """Before something is put: whether this is the archive, and not an empty place where it should be. `anew`: nothing
        was ever put there, so that it may be made."""

    async def delete(self, name: str) -> None:
        """Removes an object for good; one that is not there is no failure."""

    async def names(self, before_s: float) -> list[str]:
        """Everything that lies there and was put before this time (seconds since 1970), half-written objects included."""

    async def fetch(self, name: str, start: int, length: int | None, into: IO[bytes]) -> None:
        """Writes a part of an object, or all from `start` on, into a file."""
