"""What every stream a client reads has in common: its callbacks, its limit, and the waits between connections."""

import asyncio
import inspect
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from phaseline.backoff import Backoff
from phaseline.client_errors import TimedOut
from phaseline.event_types import Event
from phaseline.follow_link import Lost

Connection = Literal["live", "catching_up", "waiting"]
Callback = Callable[[Event], Any]
Callbacks = Callback | Sequence[Callback]

HEARTBEAT_S = 15.0  # until the `hello` says otherwise
WATCHDOG_BEATS = 2.5
CALLBACK_S = 60.0  # an async callback that needs longer is given up and logged
FRAME_BYTES_MAX = 32 * 1024 * 1024  # a batch is 64 KiB, but one event with its result inline may be larger

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told. A callback is plain or async; one that raises is logged."""

    on_event: Callbacks = ()
    on_progress: Callbacks = ()
    on_connection: Callable[[Connection], None] | None = None


class Reading:
    """A stream that is read across broken connections. `connection` is `live`, `catching_up` or `waiting`."""

    def __init__(self, listeners: Listeners, timeout_s: float | None) -> None:
        self.connection: Connection = "waiting"
        self._on_event = _several(listeners.on_event)
        self._on_progress = _several(listeners.on_progress)
        self._on_connection = listeners.on_connection
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self._backoff = Backoff(random.SystemRandom().random)

    def _begin(self) -> None:
        """Starts the clock of the whole limit."""
        if self._timeout_s is not None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout_s

    async def _tell(self, event: Event) -> None:
        progress = self._on_progress if event["type"] == "progress" else ()
        for callback in (*self._on_event, *progress):
            try:
                await _heard(callback, event)
            except Exception:
                # A reader that breaks harms no other reader and not the stream.
                log.exception("a callback failed at sequence %s of job %s", event["seq"], event.get("job_id"))

    async def _pause(self, lost: Lost) -> None:
        self._show("waiting")
        wait_s = self._backoff.next_s(lost.hint_s)
        log.debug("%s waits %.2f s: %s", self, wait_s, lost)
        await asyncio.sleep(self._at_most(wait_s))

    def _at_most(self, seconds: float) -> float:
        """`seconds`, or what is left of the whole limit. Raises `TimedOut` when nothing is."""
        if self._deadline is None:
            return seconds
        left_s = self._deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise self._late(self._timeout_s or 0.0)
        return min(seconds, left_s)

    def _late(self, limit_s: float) -> TimedOut:
        return TimedOut(f"{limit_s:g} s have passed")

    def _show(self, connection: Connection) -> None:
        if connection != self.connection:
            self.connection = connection
            if self._on_connection is not None:
                self._guarded(self._on_connection, connection)

    async def _heed(self, callback: Callable[[Any], Any], value: Any) -> None:
        try:
            await _heard(callback, value)
        except Exception:
            log.exception("a callback for a reset of %s failed", self)

    def _guarded(self, callback: Callable[[Any], None], value: Any) -> None:
        try:
            callback(value)
        except Exception:
            log.exception("a callback for the connection of %s failed", self)


def _several(callbacks: Callbacks) -> tuple[Callback, ...]:
    return (callbacks,) if callable(callbacks) else tuple(callbacks)


async def _heard(callback: Callable[[Any], Any], value: Any) -> None:
    """Calls it, and waits for what it does within its time."""
    answer = callback(value)
    if inspect.isawaitable(answer):
        async with asyncio.timeout(CALLBACK_S):
            await answer
