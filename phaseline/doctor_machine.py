"""What this machine and this environment give: open files, engines, room on disk."""

import resource
import shutil

from events.declaration import installed_engines
from phaseline.findings import Finding, failed, ok, warning
from phaseline.settings import OTHER_FILES, Settings, words

ROOM_WARNING_BYTES = 1024**3
ROOM_FAILED_BYTES = 100 * 1024**2


def examined(settings: Settings) -> list[Finding]:
    found = [_files(settings), _engines(settings)]
    if not settings.database_url:
        found.append(_room(settings))
    return found


def _files(settings: Settings) -> Finding:
    needed = settings.connections_max + OTHER_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        cure = f"raise it where processes are started (`ulimit -n {needed}`, LimitNOFILE=), or lower PHASELINE_CONNECTIONS_MAX"
        return warning(
            "open files", f"{hard} are allowed, {settings.connections_max} connections may need {needed}", cure
        )
    return ok(
        "open files", f"{'any number' if hard == resource.RLIM_INFINITY else hard} allowed, {needed} may be needed"
    )


def _engines(settings: Settings) -> Finding:
    try:
        engines = installed_engines(words(settings.engine_modules))
    except (ImportError, ValueError) as problem:
        return failed("engines", str(problem), "correct PHASELINE_ENGINE_MODULES, or install what the engine imports")
    return ok("engines", ", ".join(sorted(engines)))


def _room(settings: Settings) -> Finding:
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1024**2:.0f} MiB free for {settings.data_dir}"
    cure = "free some, or move the data directory to a larger disk (--data-dir)"
    if free < ROOM_FAILED_BYTES:
        return failed("disk", detail, cure)
    return warning("disk", detail, cure) if free < ROOM_WARNING_BYTES else ok("disk", detail)
