"""Port: the bus carries hints, tickets and control words to whoever listens now. It may lose and may repeat.

Nothing here is ever the truth: every reader repairs by sequence from the log. Promises, held by every adapter and
tested once in `tests/contract/test_bus.py`:
- what arrives arrived whole; hints of one publisher arrive in the order published, unless some are lost;
- no call raises or blocks for long because RabbitMQ is away: publishing then loses, `connected` says so;
- every queue has a bound; a reader too slow for it loses the oldest.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

HINT_BYTES_MAX = 256 * 1024  # RabbitMQ 4 refuses messages of 16 MiB; small ones also keep neighbours moving
INLINE_BYTES_MAX = 64 * 1024  # a longer event travels as a reference


@dataclass(frozen=True, slots=True)
class Hint:
    """Freshly committed events: NDJSON lines as clients get them, or references `{"job_id":…,"seq":n,"ref":true}`."""

    epoch: str
    lines: list[bytes]


@dataclass(frozen=True, slots=True)
class Ticket:
    """Says that one job of this engine is due. `ack` is the last act of a claim, before the work."""

    engine: str
    ack: Callable[[], Awaitable[None]]


class Tickets(Protocol):
    """A worker's source of tickets. At most one unacknowledged ticket an engine is held."""

    async def get(self) -> Ticket:
        """Waits for the next ticket."""

    async def pause(self) -> None:
        """Stops taking: the last slot is full, or the log is down. Held tickets are acked by their holder."""

    async def resume(self) -> None:
        """Takes again."""


class Bus(Protocol):
    """See the module's docstring for what it promises."""

    name: str  # "rabbitmq" or "memory"
    keeps_copy: bool  # whether there is a durable copy of the log to feed

    @property
    def connected(self) -> bool:
        """False while publishing loses and nothing arrives."""

    async def open(self) -> None:
        """Begins connecting; returns at once when the server is away."""

    async def close(self) -> None:
        """Ends every task and connection; may be called twice."""

    # -- hints
    def publish(self, epoch: str, lines: Sequence[bytes]) -> None:
        """Hands over freshly committed lines; never waits, drops when its bounded buffer is full."""

    def tail(self, on_hint: Callable[[Hint], None], on_bound: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Calls `on_hint` for each hint while the block lasts; `on_bound` after every (re)connect, since anything
        before it may be lost."""

    # -- tickets
    def publish_tickets(self, engine: str, count: int) -> None:
        """Announces that `count` jobs of an engine are due; never waits, may drop."""

    async def ticket_count(self, engine: str) -> int | None:
        """How many tickets wait, None when it cannot be known now."""

    def tickets(self, engines: Sequence[str]) -> AbstractAsyncContextManager[Tickets]:
        """Consumes the tickets of these engines while the block lasts."""

    # -- control
    def send_control(self, worker_id: str, words: bytes) -> None:
        """Tells one worker something now (a cancel); the beat reply says it again."""

    def controls(self, worker_id: str, on_words: Callable[[bytes], None]) -> AbstractAsyncContextManager[None]:
        """Calls `on_words` for each control message to this worker while the block lasts."""

    # -- copy
    async def copy_exists(self) -> bool:
        """Whether the RabbitMQ stream exists. Raises `BusUnavailable`."""

    async def make_copy(self) -> None:
        """Creates the RabbitMQ stream. Raises `BusUnavailable`."""

    async def append_copy(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publishes (message id, structured CloudEvents JSON), returning once all are confirmed. Raises
        `BusUnavailable` when one was not: publish again from the saved cursor."""

    def read_copy(self) -> AsyncIterator[bytes]:
        """Every message of the RabbitMQ stream from its start; ends when it has read what was there."""

    async def copy_start(self) -> int:
        """How many messages RabbitMQ has dropped from the start of its stream to keep within its bounds. Raises
        `BusUnavailable`."""
