"""What a client may say on the socket of many jobs (docs/protocol.md §3)."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from events.values import decode
from gateway.problems import validation_errors
from gateway.queries import SEQ_MAX
from gateway.schemas import Body

Epoch = Annotated[str, StringConstraints(max_length=64)]


class SubscribeJob(Body):
    """Follow one job, after the last sequence seen of it and the epoch that was of."""

    op: Literal["subscribe"]
    job_id: str
    after: Annotated[int, Field(ge=0, le=SEQ_MAX)] = 0
    epoch: Epoch | None = None


class SubscribeFeed(Body):
    """Follow every job of the tenant, from a cursor on; without one from the start, `now` for what comes from now on."""

    op: Literal["subscribe"]
    feed: Literal[True]
    cursor: Annotated[str, StringConstraints(max_length=200)] | None = None


class Unsubscribe(Body):
    """Follow a job, or the feed, no more."""

    op: Literal["unsubscribe"]
    job_id: str | None = None
    feed: bool = False


class Auth(Body):
    """Says who is asking: the first frame where the upgrade did not, later a newer key of the same tenant."""

    op: Literal["auth"]
    token: Annotated[str, StringConstraints(max_length=8192)]


Command = SubscribeJob | SubscribeFeed | Unsubscribe | Auth
COMMANDS: TypeAdapter[Command] = TypeAdapter(Command, config=ConfigDict(defer_build=True))


class BadCommand(Exception):
    """`field` and what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def command_of(text: str) -> Command:
    """The command of a frame. Raises `BadCommand`."""
    try:
        plain = decode(text)
    except ValueError:
        raise BadCommand("", "the frame is no JSON") from None
    if not isinstance(plain, dict):
        raise BadCommand("", "a command is a JSON object")
    op = plain.get("op")
    if not isinstance(op, str) or op not in _BY_OP:
        raise BadCommand("op", f"must be one of {', '.join(_BY_OP)}")
    model = SubscribeFeed if op == "subscribe" and "feed" in plain else _BY_OP[op]
    try:
        return model.model_validate_json(text)
    except ValidationError as failure:
        field, message = validation_errors(failure)[0]
        raise BadCommand(field, message) from None


_BY_OP: dict[str, type[SubscribeJob | Unsubscribe | Auth]] = {
    "subscribe": SubscribeJob,
    "unsubscribe": Unsubscribe,
    "auth": Auth,
}
