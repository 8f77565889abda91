"""What an engine may say and ask while it runs. The same calls serve sync and async engines.

Runs in the child process: a call hands one message to `send` and may block there, which is the back-pressure
that slows an engine down instead of dropping what it says.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from events.declaration import Phase
from events.values import jsonable, storable_text

TEXT_CHARS_MAX = 1024 * 1024  # what is longer is refused with its event, not cut
NEARLY_DONE = 99.99  # 100 comes once, with `complete`
LOG_LEVELS = ("debug", "info", "warning", "error")


class Cancelled(BaseException):
    """Raised by `Context.raise_if_cancelled`: the job was asked to stop. Not an `Exception`, so that an engine's
    own `except Exception` does not swallow it."""


@dataclass(frozen=True, slots=True)
class Previous:
    """The last job about the same subject that had completed when this one was submitted.

    `ended_at` is in ms, `sha256` (hex) that of its result's exact bytes. `result` is plain JSON, None when over 1 MiB.
    """

    job_id: str
    ended_at: int
    sha256: str
    result: Any = None


class Context:
    """One attempt, seen from its engine.

    `recorded` holds the outputs of phases an earlier attempt (or the job this one reruns) recorded, as plain JSON.
    `previous` is the job before, of an engine that declares a `subject`; every attempt of a job is given the same.
    `send` takes messages `{"op": …}`; see `engine_worker/attempt.py` for the events they become.
    """

    def __init__(
        self,
        phases: tuple[Phase, ...],
        send: Callable[[dict[str, Any]], None],
        *,
        job_id: str = "",
        attempt: int = 1,
        recorded: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        previous: Previous | None = None,
    ) -> None:
        self.job_id = job_id
        self.previous = previous
        self.attempt = attempt
        self._phases = {phase.name: index for index, phase in enumerate(phases)}
        self._bounds = [0.0, *(phase.until for phase in phases)]
        self._send = send
        self._recorded = dict(recorded or {})
        self._deadline = deadline
        self._cancelled = False
        self._draining = False
        self._phase: str | None = None
        self._phase_began = time.monotonic()

    def phase(self, name: str, compute: Callable[[], Any] | None = None) -> Any:
        """Enters a declared phase: viewers see the percent the previous phase ended at.

        With `compute` the phase is durable: its output is recorded as a checkpoint and returned as plain JSON; when
        an earlier attempt recorded it already, `compute` is not called. Raises `ValueError` for an undeclared phase,
        `Unserializable` when the output is no JSON.
        """
        if name not in self._phases:
            raise ValueError(f"phase {name!r} is not declared; declared are {', '.join(self._phases)}")
        self._phase = name
        self._phase_began = time.monotonic()
        self._send({"op": "progress", "phase": name, "progress": self._bounds[self._phases[name]], "mark": True})
        if compute is None:
            return None
        if name not in self._recorded:
            self.checkpoint(compute())
        return self._recorded[name]

    def progress(
        self,
        fraction: float,
        message: str | None = None,
        *,
        done: float | None = None,
        total: float | None = None,
        unit: str | None = None,
    ) -> None:
        """Says how far the current phase is, 0 ≤ fraction ≤ 1 (values outside are clamped). Coalesced on the way:
        at most one event per 250 ms, the latest wins. Raises `ValueError` for NaN and infinities."""
        phase = self._current()
        if not all(map(math.isfinite, (fraction, done or 0.0, total or 0.0))):
            raise ValueError(f"progress of {phase}: fraction {fraction}, done {done}, total {total} must be finite")
        index = self._phases[phase]
        low, high = self._bounds[index], self._bounds[index + 1]
        # The end of a phase is marked by entering the next one; 100 comes once, before `complete`.
        percent = min(low + (high - low) * min(max(float(fraction), 0.0), 1.0), high, NEARLY_DONE)
        message_fields = {"message": _text(message), "done": done, "total": total, "unit": _text(unit)}
        said = {key: value for key, value in message_fields.items() if value is not None}
        self._send({"op": "progress", "phase": phase, "progress": round(percent, 2), **said})

    def partial(self, name: str, value: Any) -> None:
        """Shows an intermediate result worth seeing. Raises `Unserializable` naming the path."""
        self._send({"op": "partial", "phase": self._current(), "name": _text(name), "value": jsonable(value, name)})

    def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """Says something to a person. `level` is one of debug, info, warning, error."""
        if level not in LOG_LEVELS:
            raise ValueError(f"level {level!r} is none of {', '.join(LOG_LEVELS)}")
        self._send({"op": "log", "level": level, "message": _text(message), "fields": jsonable(fields, "fields")})

    def checkpoint(self, output: Any) -> None:
        """Records the current phase's output: a later attempt, or a rerun from a later phase, gets it back."""
        phase = self._current()
        plain = jsonable(output, f"checkpoint {phase}")
        took_ms = int((time.monotonic() - self._phase_began) * 1000)
        self._recorded[phase] = plain
        self._send({"op": "checkpoint", "phase": phase, "output": plain, "duration_ms": took_ms})

    def recorded(self, phase: str) -> Any | None:
        """The output recorded for `phase` in this attempt or an earlier one, as plain JSON, else None."""
        return self._recorded.get(phase)

    def best(self, result: Any) -> None:
        """Offers the best result so far: kept in the terminal event if the job is cancelled or fails."""
        self._send({"op": "best", "results": jsonable(result, "results")})

    @property
    def cancelled(self) -> bool:
        """True once the job was asked to stop; return or raise soon, the grace period is running."""
        return self._cancelled

    @property
    def draining(self) -> bool:
        """True once the worker is shutting down; the job will go on elsewhere from its last checkpoint."""
        return self._draining

    @property
    def deadline(self) -> float | None:
        """Seconds left until this attempt times out (may be negative), or None without a limit."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def raise_if_cancelled(self) -> None:
        """Raises `Cancelled` when the job was asked to stop or the worker drains: the short way out of a loop."""
        if self._cancelled or self._draining:
            raise Cancelled

    def notify(self, *, cancelled: bool = False, draining: bool = False) -> None:
        """Called by the child's control thread, not by engines."""
        self._cancelled = self._cancelled or cancelled
        self._draining = self._draining or draining

    def _current(self) -> str:
        if self._phase is None:
            raise ValueError("call context.phase(...) before saying anything else")
        return self._phase


def _text(text: Any) -> Any:
    """Text a log can keep: an odd character in a message is no reason to fail a job."""
    return None if text is None else storable_text(str(text), TEXT_CHARS_MAX)
