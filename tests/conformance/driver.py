"""Drives the Python client by lines of JSON: a command in, its news out, `end` or `failed` last. See `judge.py`."""

import asyncio
import json
import logging
import random
import sys
from contextlib import aclosing
from typing import Any

from phaseline import Client
from phaseline.client_errors import (
    Busy,
    ClientError,
    Conflict,
    Invalid,
    NotAllowed,
    NotFound,
    NotReachable,
    Problem,
    StreamRefused,
    TimedOut,
)

# Both clients know these; what is more exact is the Python client's own.
KINDS = (NotReachable, TimedOut, StreamRefused, Invalid, NotAllowed, NotFound, Conflict, Busy)


def say(**news: Any) -> None:
    print(json.dumps(news), flush=True)  # noqa: T201 this is its voice


async def heard() -> Any:
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None


def breaks(_: Any) -> None:
    raise RuntimeError("a reader that always breaks: nobody may notice")


async def follow(client: Client, job_id: str, after: int, epoch: str | None) -> dict[str, Any]:
    following = client.follow(
        job_id,
        after,
        epoch=epoch,
        on_event=[breaks],
        on_connection=lambda connection: say(connection=connection),
        on_reset=lambda snapshot: say(reset=snapshot["seq"]),
    )
    async with aclosing(aiter(following)) as events:  # type: ignore[type-var]
        async for event in events:
            say(event=[event["seq"], event["type"]])
            if not await heard():
                break
    return {"status": following.status, "after": following.after, "epoch": following.epoch}


async def call(asked: dict[str, Any]) -> Any:
    limit = {"timeout_s": asked["timeout_s"]} if "timeout_s" in asked else {}
    async with Client(asked["url"], **limit) as client:
        given = asked.get("with", {})
        match asked["do"]:
            case "follow":
                return await follow(client, asked["job"], asked.get("after", 0), asked.get("epoch"))
            case "submit":
                return await client.submit(
                    given["engine"], given.get("params"), key=given.get("key"), tags=given["tags"]
                )
            case "job":
                return await client.job(asked["job"], at=given.get("at"))
            case "events":
                return [event["seq"] async for event in client.events(asked["job"], given.get("after", 0))]
            case "results":
                return json.loads(await client.results(asked["job"]))
            case "cancel":
                return await client.cancel(asked["job"], reason=given.get("reason"))
            case "retry":
                return await client.retry(asked["job"])
            case "rerun":
                return await client.rerun(asked["job"], from_phase=given.get("from_phase"))
            case other:
                raise ValueError(other)


async def main() -> None:
    while asked := await heard():
        try:
            say(end=await call(asked))
        except ClientError as failure:
            kind = next(kind for kind in KINDS if isinstance(failure, kind))
            code = failure.status if isinstance(failure, Problem) else getattr(failure, "code", None)
            say(failed=[kind.__name__, code])


logging.disable()
random.SystemRandom.random = lambda _: 0.01  # type: ignore[method-assign, assignment] # short waits: they are not what is tested
asyncio.run(main())
