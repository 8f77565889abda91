"""A reader of event streams nobody here wrote (httpx-sse), for the tests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from tests.gateway.driving import WAIT_S, Frames, Gateway


class Listener(Frames):
    """A client's end of an event stream. `last_event_id` is what a browser would come back with."""

    def __init__(self, source: EventSource) -> None:
        self.response = source.response
        self.last_event_id = ""
        self.retries: list[int] = []
        self.ids: list[str] = []
        self.data: list[str] = []
        self._events = source.aiter_sse()

    async def frame(self) -> dict[str, Any]:
        """The next frame. Raises `StopAsyncIteration` at the end of the stream."""
        while True:
            async with asyncio.timeout(WAIT_S):
                event: ServerSentEvent = await anext(self._events)
            if event.retry is not None:
                self.retries.append(event.retry)
            if not event.data:
                continue
            assert event.event == "message"
            self.last_event_id = event.id
            self.ids.append(event.id)
            self.data.append(event.data)
            frame: dict[str, Any] = json.loads(event.data)
            return frame

    async def rest(self) -> list[dict[str, Any]]:
        """Every frame up to the end of the stream."""
        frames = []
        while True:
            try:
                frames.append(await self.frame())
            except StopAsyncIteration:
                return frames


@asynccontextmanager
async def listening(
    gateway: Gateway, path: str, last_event_id: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[Listener]:
    headers = {**(headers or {}), **({"Last-Event-ID": last_event_id} if last_event_id else {})}
    async with (
        httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as client,
        aconnect_sse(client, "GET", str(gateway.server.make_url(path)), headers=headers) as source,
    ):
        yield Listener(source)
