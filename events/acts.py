"""Port: administrative acts, each an event in its tenant's audit stream.

Such an event is alone in a stream of its own: it is of no job, so no job's stream, viewer, worker or webhook ever meets it.
It is appended in the transaction that changes what it tells of, so neither is there without the other, and it is
sealed, fed and exported as every event is. Shown to callers with the scope `admin` only.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Protocol

from uuid_utils import uuid7

from events.catalog import ActName, Administered
from events.record import Recorded, encode_event

ACTOR_CHARS_MAX = 200
REASON_CHARS_MAX = 1000


@dataclass(frozen=True, slots=True)
class By:
    """Who does something, from where and why, as it will stand in the event."""

    actor: str
    address: str | None = None
    reason: str | None = None

    def did(self, act: ActName, target: str, **changed: Any) -> "Deed":
        """What is to be recorded."""
        event = Administered(act=act, target=target, changed=changed, address=self.address, reason=self.reason)
        return Deed(self.actor, event)


@dataclass(frozen=True, slots=True)
class Deed:
    """An act and who did it."""

    actor: str
    event: Administered


def act_id(at: int) -> str:
    """A new stream's id for an act of this time, ms."""
    return str(uuid7(nanoseconds=at * 1_000_000))


def recorded_act(stream_id: str, at: int, tenant: str, deed: Deed) -> Recorded:
    """The act as the log keeps it. Raises `Unstorable`."""
    event = deed.event
    data, command_id = encode_event(event), str(uuid.uuid4())
    return Recorded(stream_id, 1, event.type, event.version, 0, deed.actor, tenant, at, command_id, data)


class Acts(Protocol):
    """Where they are read. Raises `LogUnavailable` within its deadline."""

    async def acts(self, tenant: str, before: str | None, limit: int) -> list[Recorded]:
        """A tenant's, the newest first; `before` is the stream id of the last one of the page before."""
