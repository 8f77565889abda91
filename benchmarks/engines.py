"""Engines that do nothing, so that only Phaseline is measured."""

import time

from pydantic import BaseModel

from phaseline import Context, engine


class Nothing(BaseModel):
    """No params."""


@engine("noop", version=1, phases={"working": 100})
def noop(params: Nothing, context: Context) -> int:
    """Says when its code began to run, in ns since 1970."""
    del params
    began = time.time_ns()
    context.phase("working")
    return began
