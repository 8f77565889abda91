"""What the settings say of retention: its rules, and where archived jobs lie."""

import asyncio
from pathlib import Path

from events.archive_folder import FolderStore
from events.archive_store import ArchiveStore, ArchiveUnavailable
from events.retention import Rule, parse_rules
from phaseline.findings import Finding, failed, ok
from phaseline.settings import Misconfigured, Settings

DISCARD = "discard"
WITHIN_S = 20.0


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


async def examined(settings: Settings) -> Finding:
    """Whether the rules fit together and the archive answers. Changes nothing."""
    try:
        parsed, store = rules(settings), make_store(settings)
        if store is not None:
            async with asyncio.timeout(WITHIN_S):
                await store.names(0.0)
    except Misconfigured as wrong:
        return failed("archive", str(wrong), "correct it: docs/operations.md tells what each setting means")
    except (ArchiveUnavailable, TimeoutError) as away:
        cure = "bring it back, or correct PHASELINE_ARCHIVE; until then archived jobs answer 503 and none goes there"
        return failed("archive", str(away) or "it does not answer", cure)
    said = ", ".join(map(str, parsed)) or "no rules: nothing goes there from here"
    return ok("archive", f"{settings.archive} answers; {said}")
