"""A map over many items that survives kill -9: finished items are recorded, and no later attempt does them again."""

import time
from pathlib import Path

from pydantic import BaseModel, Field

from phaseline import Context, engine

RECORD_EACH_S = 0.2  # each checkpoint holds all results so far, so not one an item


class Items(BaseModel):
    """What to do, and where to note that it was done."""

    items: list[str] = Field(min_length=1, max_length=10_000)
    journal: Path = Field(description="a file that gets a line for each item done; your mails, your uploads")
    seconds_per_item: float = Field(0.01, ge=0, le=60)


def work_on(item: str, params: Items, context: Context) -> int:
    """The work on one item, with its effect outside. What was done since the last checkpoint may be done twice, so an
    effect that matters names its item: here job and item, elsewhere an idempotency key."""
    time.sleep(params.seconds_per_item)
    with params.journal.open("a") as journal:
        journal.write(f"{context.attempt} {context.job_id} {item}\n")
    return len(item)


@engine("map_items", version=1, phases={"mapping": 90, "summing": 100})
def map_items(params: Items, context: Context) -> dict[str, int]:
    """Works on each item once, whatever dies."""
    context.phase("mapping")
    done: list[int] = context.recorded("mapping") or []  # of an earlier attempt
    recorded_at = time.monotonic()
    for item in params.items[len(done) :]:
        done.append(work_on(item, params, context))
        context.progress(len(done) / len(params.items), done=len(done), total=len(params.items), unit="items")
        if time.monotonic() - recorded_at >= RECORD_EACH_S or len(done) == len(params.items):
            context.checkpoint(done)
            recorded_at = time.monotonic()
        context.raise_if_cancelled()

    context.phase("summing")
    return {"items": len(done), "letters": sum(done)}
