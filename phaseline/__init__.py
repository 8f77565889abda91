"""Phaseline runs long jobs in named phases and lets anyone watch them, from any point, at any time.

Engine authors need four names: `engine`, `Context`, `InvalidParams`, `NotRetryable` (and `RetryAfter`).
Programs that submit and follow jobs need one: `Client`.
"""

from typing import TYPE_CHECKING, Any

from engine_worker.context import Cancelled, Context
from events.declaration import InvalidParams, NotRetryable, Phase, RetryAfter, engine

if TYPE_CHECKING:
    from phaseline.client import Client

__all__ = ["Cancelled", "Client", "Context", "InvalidParams", "NotRetryable", "Phase", "RetryAfter", "engine"]


def __getattr__(name: str) -> Any:
    """`Client` needs aiohttp, which no engine does: it is imported by whoever asks for it."""
    if name == "Client":
        from phaseline.client import Client

        return Client
    raise AttributeError(f"module 'phaseline' has no attribute {name!r}")
