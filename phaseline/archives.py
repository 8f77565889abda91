"""What the settings say of retention: its rules, and where archived jobs lie."""

from pathlib import Path

from events.archive import ArchiveStore
from events.archive_folder import FolderStore
from events.retention import Rule, parse_rules
from phaseline.settings import Misconfigured, Settings

DISCARD = "discard"


def make_store(settings: Settings) -> ArchiveStore | None:
    """Where archived jobs lie; None where there is no archive. Raises `Misconfigured`."""
    if settings.archive in {"", DISCARD}:
        return None
    if "://" not in settings.archive:
        return FolderStore(Path(settings.archive))
    if not settings.archive.startswith("s3://"):
        raise Misconfigured(f"PHASELINE_ARCHIVE: {settings.archive!r} is neither a folder nor s3://bucket/prefix")
    try:
        from events.archive_s3 import S3Store
    except ImportError as missing:
        raise Misconfigured(f"PHASELINE_ARCHIVE=s3://… needs `pip install 'phaseline[s3]'` ({missing})") from missing
    try:
        return S3Store(settings.archive)
    except ValueError as problem:
        raise Misconfigured(f"PHASELINE_ARCHIVE: {problem}") from problem


def rules(settings: Settings) -> tuple[Rule, ...]:
    """The rules of retention; none: everything is kept. Raises `Misconfigured`."""
    try:
        parsed = parse_rules(settings.retention)
    except ValueError as problem:
        raise Misconfigured(f"PHASELINE_RETENTION: {problem}") from problem
    if parsed and not settings.archive:
        raise Misconfigured(
            "PHASELINE_RETENTION needs PHASELINE_ARCHIVE: a folder or s3://bucket/prefix for the jobs that go, or `discard`"
        )
    return parsed
