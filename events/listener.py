"""Calling a listener that somebody else wrote."""

import logging
from collections.abc import Callable
from typing import ParamSpec

Words = ParamSpec("Words")

log = logging.getLogger(__name__)


def calmly(listener: Callable[Words, None], *args: Words.args, **kwargs: Words.kwargs) -> None:
    """Calls it; what it raises is logged and stays its own: publishers and other listeners go on."""
    try:
        listener(*args, **kwargs)
    except Exception:  # the boundary this module is for
        log.exception("a bus listener failed")
