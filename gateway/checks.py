"""Runs what engines declare as `check`, in threads: it is code of others, which may wait or hang.

The threads are no pool's. In the loop's one that hangs would keep out whoever resolves names or packs answers, and any
pool's would keep the process from ending.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any


class Checks:
    """At most `most` at once. Each keeps its place until it has ended, whether somebody still waits for it or not."""

    def __init__(self, most: int) -> None:
        self._places = asyncio.Semaphore(most)

    async def run(self, check: Callable[[Any], object], params: Any) -> None:
        """Checks params, once there is a place. Raises what the check raises."""
        loop, context = asyncio.get_running_loop(), copy_context()
        answer: asyncio.Future[BaseException | None] = loop.create_future()

        def ended(failure: BaseException | None) -> None:
            self._places.release()
            if not answer.done():  # or nobody waits any more
                answer.set_result(failure)

        def work() -> None:
            failure = None
            try:
                context.run(check, params)
            except BaseException as raised:
                failure = raised
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended, failure)

        await self._places.acquire()
        try:
            threading.Thread(target=work, name="check", daemon=True).start()
        except RuntimeError:
            self._places.release()
            raise
        if (failure := await answer) is not None:
            raise failure
