"""What every run in these tests ends with: the checks of `phaseline verify`."""

import contextlib
import dataclasses
from collections.abc import Sequence

from events.checker import Violation
from phaseline.settings import Settings
from phaseline.verify import COPY_WAIT_S, Counts, verify
from tests.figures import CHECKED, note
from tests.installation import Viewer
from tests.stores import open_bus, open_log


async def verified(
    settings: Settings,
    rabbit_url: str | None = None,
    viewers: Sequence[Viewer] = (),
    *,
    settled: bool = True,
    copy_wait_s: float = COPY_WAIT_S,
) -> Counts:
    """Checks the log these settings name, what the viewers were sent and, with `rabbit_url`, the RabbitMQ stream.

    `settled`: nothing goes on any more. Raises `AssertionError` with the first violation and its events.
    """
    recordings = {f"viewer {number} of {viewer.job_id}": viewer.recording for number, viewer in enumerate(viewers)}
    async with contextlib.AsyncExitStack() as opened:
        log = await opened.enter_async_context(open_log(settings))
        bus = await opened.enter_async_context(open_bus(rabbit_url, "verifier")) if rabbit_url else None
        try:
            counts = await verify(log, bus, recordings, settled=settled, copy_wait_s=copy_wait_s)
        except Violation as violation:
            raise AssertionError(str(violation)) from violation
        note({"what": CHECKED, **dataclasses.asdict(counts)})
        return counts
