"""What an exception of an engine means for its attempt. PURE."""

import math
from typing import Any

from pydantic import ValidationError

from engine_worker.context import Cancelled
from events.declaration import InvalidParams, NotRetryable, RetryAfter
from events.values import Unserializable, storable_text

RETRY_AFTER_S_MAX = 7 * 24 * 3600.0


class ResultTooLarge(ValueError):
    """An engine returned more than a result may be."""


class SaidTooLarge(ValueError):
    """An engine said more at once than an event may hold."""


def failed_fields(problem: BaseException) -> dict[str, Any]:
    """The frame that tells the parent how an attempt ended: `failed`, or `stopped` for an engine that obeyed a cancel.

    Its `error` has the shape of `events.catalog.AttemptError`; all text in it can be stored.
    """
    if isinstance(problem, Cancelled):
        return {"op": "stopped"}
    code, retryable = _judged(problem)
    error = {"type": type(problem).__name__, "message": _message(problem), "code": code, "retryable": retryable}
    return {"op": "failed", "error": error, "retry_after_s": _retry_after_s(problem)}


def invalid_params(problem: ValidationError) -> InvalidParams:
    """The params no longer fit the engine's model: said the way an engine would say it."""
    return InvalidParams(*((error["loc"], error["msg"]) for error in problem.errors(include_url=False)))


def _judged(problem: BaseException) -> tuple[str, bool]:
    match problem:
        case InvalidParams():
            return "invalid_params", False
        case ResultTooLarge():
            return "result_too_large", False
        case NotRetryable() | Unserializable() | SaidTooLarge():
            return "engine_error", False  # the same code would say the same again
        case _:
            return "engine_error", True


def _message(problem: BaseException) -> str:
    try:
        text = str(problem)
    except Exception as worse:  # an exception whose __str__ raises still has to be told
        text = f"(its message raised {type(worse).__name__})"
    if isinstance(problem, MemoryError) and not text:
        text = "the engine ran out of memory"
    if isinstance(problem, SystemExit):
        text = f"the engine called sys.exit({text})"
    return storable_text(text or type(problem).__name__)


def _retry_after_s(problem: BaseException) -> float | None:
    if not isinstance(problem, RetryAfter):
        return None
    seconds = float(problem.seconds)
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX) if math.isfinite(seconds) else None
