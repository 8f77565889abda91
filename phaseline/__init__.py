"""Phaseline runs long jobs in named phases and lets anyone watch them, from any point, at any time.

Engine authors need four names: `engine`, `Context`, `InvalidParams`, `NotRetryable` (and `RetryAfter`).
"""

from engine_worker.context import Cancelled, Context
from events.declaration import InvalidParams, NotRetryable, Phase, RetryAfter, engine

__all__ = ["Cancelled", "Context", "InvalidParams", "NotRetryable", "Phase", "RetryAfter", "engine"]
