"""Drives one client library, whatever it is written in, and holds what it did against a scenario.

A driver (`driver.py`, `clients/js/test/conformance.js`) is a process that reads commands and writes news, each one line
of JSON: `{"event": [seq, type]}` waits for `true` (go on) or `false` (leave), `{"connection": …}` and `{"reset": seq}`
only tell, `{"end": …}` or `{"failed": [error, code]}` is the last. So a fault happens while an event is being handled,
at the same place for every client.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cli.scripted import CAUGHT_UP, Breaks, Closes, FallsSilent, Frame, Play, event, hello

HERE = Path(__file__).parent
BOUND_S = 60.0

Scenario = dict[str, Any]


def scenarios(name: str) -> list[Scenario]:
    """Those of a file; one with `codes` stands for one with each of them in place of CODE."""
    found = []
    for one in json.loads((HERE / f"{name}.json").read_text()):
        codes = one.pop("codes", [None])
        text = json.dumps(one)
        found += [json.loads(text.replace('"CODE"', str(code)).replace("CODE", str(code))) for code in codes]
    return found


def play(lines: list[Any]) -> Play:
    """What a scripted server does on one connection; the last line says how it ends."""
    *frames, ending = lines
    sent = [_frame(line) for line in frames]
    match ending:
        case "breaks":
            return sent, Breaks()
        case "silent":
            return sent, FallsSilent()
        case {"close": code}:
            return sent, Closes(code, ending.get("reason", ""))
        case _:
            raise ValueError(f"a play does not end with {ending}")


def _frame(line: Any) -> Frame | str:
    match line:
        case "hello":
            return hello()
        case "caught_up":
            return CAUGHT_UP
        case int():
            return event(line)
        case list():
            return {"type": "batch", "events": [event(seq) for seq in line]}
        case {"raw": text}:
            return str(text)
        case {"type": "hello"}:
            return hello(**line)
        case {"type": "weather" | "tide" | "heartbeat" | "reset" | "goodbye" | "command_error"}:
            return dict(line)
        case {"seq": seq, "type": kind}:
            return event(seq, kind)
        case _:
            raise ValueError(f"no frame is {line}")


@dataclass
class Followed:
    """What a client delivered, and how it ended."""

    events: list[tuple[int, str]] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    end: Any = None
    failed: list[Any] | None = None

    @property
    def seqs(self) -> list[int]:
        return [seq for seq, _ in self.events]


async def _go_on(_: int) -> bool:
    return True


class Driver:
    """A client library at work in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, transports: list[str] | None) -> None:
        self._process = process
        self._transports = transports

    async def run(self, url: str, asked: dict[str, Any], handle: Callable[[int], Awaitable[bool]] = _go_on) -> Followed:
        """One command to its end. `handle(seq)` runs while the client handles that event, and says whether to go on."""
        self._tell({"url": url, "transports": self._transports} | asked)
        found = Followed()
        while True:
            async with asyncio.timeout(BOUND_S):
                assert self._process.stdout is not None
                line = await self._process.stdout.readline()
            assert line, f"the driver ended; it delivered {found.events}"
            match json.loads(line):
                case {"event": [seq, kind]}:
                    found.events.append((seq, kind))
                    self._tell(await handle(seq))
                case {"connection": connection}:
                    found.connections.append(connection)
                case {"reset": seq}:
                    found.resets.append(seq)
                case {"end": end}:
                    found.end = end
                    return found
                case {"failed": failed}:
                    found.failed = failed
                    return found
                case other:
                    raise AssertionError(other)

    def _tell(self, words: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")


@asynccontextmanager
async def driver(command: list[str], transports: list[str] | None = None) -> AsyncIterator[Driver]:
    """The process of a driver, for the block. What it says on stderr is shown when the test fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=sys.stderr.fileno() if hasattr(sys.stderr, "fileno") and not sys.stderr.isatty() else None,
        limit=16 * 1024 * 1024,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    try:
        yield Driver(process, transports)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
