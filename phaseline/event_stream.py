"""One answer of server-sent events, frame by frame (docs/protocol.md §4). Holds one frame and one chunk of the network."""

from typing import NamedTuple

import aiohttp

from phaseline.follow_link import Lost
from phaseline.reading import FRAME_BYTES_MAX


class Frame(NamedTuple):
    """`identity` is None for control frames, `text` the JSON."""

    identity: str | None
    text: str


class EventStream:
    """Reads one response. `retry_s` is when the server wants us back, once it said so."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.retry_s: float | None = None
        self._response = response
        self._buffer = bytearray()
        self._looked = 0  # so far no line ends in the buffer

    async def aclose(self) -> None:
        """Drops the connection; there is more on it that nobody reads."""
        self._response.close()

    async def next(self) -> Frame:
        """Waits for the next frame; comments are passed over. Raises `Lost` at the end of the answer."""
        identity: str | None = None
        texts: list[str] = []
        while True:
            name, _, value = (await self._line()).partition(":")
            value = value.removeprefix(" ")
            match name:
                case "data":
                    texts.append(value)
                case "id":
                    identity = value
                case "retry" if value.isdecimal():
                    self.retry_s = int(value) / 1000
                case "" if not value and texts:
                    return Frame(identity, "\n".join(texts))
                case _:
                    pass  # a comment, a field nobody knows, an empty line behind one of them

    async def _line(self) -> str:
        while (end := self._buffer.find(b"\n", self._looked)) < 0:
            self._looked = len(self._buffer)
            if self._looked > FRAME_BYTES_MAX:
                raise Lost(f"a line of over {FRAME_BYTES_MAX} bytes")
            try:
                chunk = await self._response.content.readany()
            except (aiohttp.ClientError, OSError) as failure:
                raise Lost(failure, self.retry_s) from failure
            if not chunk:
                raise Lost("the answer ended", self.retry_s)
            self._buffer += chunk
        line = self._buffer[:end].decode(errors="replace").removesuffix("\r")
        del self._buffer[: end + 1]
        self._looked = 0
        return line
