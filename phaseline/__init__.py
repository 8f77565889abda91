"""Phaseline runs long jobs in named phases and lets anyone watch them, from any point, at any time.

Engine authors need four names: `engine`, `Context`, `InvalidParams`, `NotRetryable` (and `RetryAfter`).
Programs that submit and follow jobs need one: `Client`; `ProgressBar` shows what they follow.
"""

from typing import TYPE_CHECKING, Any

from engine_worker.context import Cancelled, Context, Previous
from events.declaration import InvalidParams, NotRetryable, Phase, RetryAfter, engine

if TYPE_CHECKING:
    from phaseline.client import Client
    from phaseline.progress_bar import ProgressBar

__all__ = [
    "Cancelled",
    "Client",
    "Context",
    "InvalidParams",
    "NotRetryable",
    "Phase",
    "Previous",
    "ProgressBar",
    "RetryAfter",
    "engine",
]


def __getattr__(name: str) -> Any:
    """`Client` needs aiohttp and `ProgressBar` rich, which no engine does: they are imported by whoever asks for them."""
    if name == "Client":
        from phaseline.client import Client

        return Client
    if name == "ProgressBar":
        from phaseline.progress_bar import ProgressBar

        return ProgressBar
    raise AttributeError(f"module 'phaseline' has no attribute {name!r}")
