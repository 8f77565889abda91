"""The streams as AsyncAPI 3.0, made from the models of events, frames and commands."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from events.catalog import EVENT_TYPES
from gateway import answers as a
from gateway.commands import Auth, SubscribeFeed, SubscribeJob, Unsubscribe
from gateway.described import Schema, event_schemas, ref, schemas_of
from gateway.queries import SEQ_MAX

CONTROL: Mapping[str, type[BaseModel]] = {
    "hello": a.Hello,
    "caught_up": a.CaughtUp,
    "heartbeat": a.Heartbeat,
    "reset": a.Reset,
    "goodbye": a.Goodbye,
    "command_error": a.CommandError,
}
CLASSIC: Mapping[str, type[BaseModel]] = {
    "classic_progress": a.ClassicProgress,
    "classic_complete": a.ClassicComplete,
    "classic_error": a.ClassicError,
    "classic_heartbeat": a.ClassicHeartbeat,
}
COMMANDS: Mapping[str, type[BaseModel]] = {
    "subscribe_job": SubscribeJob,
    "subscribe_feed": SubscribeFeed,
    "unsubscribe": Unsubscribe,
    "auth": Auth,
}
EVENT_NAMES = tuple(f"event_{name}" for name in EVENT_TYPES)
BATCH: Schema = {
    "type": "object",
    "description": "Events together, with `batch=1` and on the feed; there with the cursor behind them.",
    "properties": {
        "type": {"const": "batch"},
        "job_id": {"type": "string"},
        "feed": {"const": True},
        "cursor": {"type": "string"},
        "events": {"type": "array", "items": ref("Event")},
    },
    "required": ["type", "events"],
}
FORM: dict[str, Schema] = {
    "batch": {"type": "string", "enum": ["0", "1"]},
    "heartbeat": {"type": "integer", "minimum": 2, "maximum": 30},
    "results": {"type": "string", "enum": ["inline", "ref"]},
    "compress": {"type": "string", "enum": ["0", "1"]},
}
POSITION: dict[str, Schema] = {
    "after": {"type": "integer", "minimum": 0, "maximum": SEQ_MAX},
    "last": {"type": "integer", "minimum": 0, "maximum": SEQ_MAX},
    "epoch": {"type": "string"},
}
FULL = (*CONTROL, "batch", *EVENT_NAMES)


def asyncapi(version: str) -> dict[str, Any]:
    """The whole document, as JSON values."""
    job_id = {"job_id": {"description": "The job's id, a UUIDv7 in lower case."}}
    channels = {
        "job": _channel("/api/v1/jobs/{job_id}/stream", "One job, full protocol.", FULL, POSITION | FORM, job_id),
        "analysis": _channel(
            "/api/v1/analyze/{job_id}/stream",
            "One job of the engine `fpl`, classic protocol; full when the query has a position or `batch`.",
            tuple(CLASSIC),
            {"compress": FORM["compress"]},
            job_id,
        ),
        "many": _channel("/api/v1/stream", "Many jobs and the feed.", (*FULL, "end", *COMMANDS), FORM, {}),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Phaseline streams",
            "version": version or "0",
            "description": "Every fact about a job is one event in its stream. Frames are text, one JSON object each.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            "follow_job": _operation("send", "job", FULL, "Sends a job's events and what tells where it stands."),
            "follow_analysis": _operation("send", "analysis", tuple(CLASSIC), "Says four things of an analysis."),
            "follow_many": _operation("send", "many", (*FULL, "end"), "Sends what was subscribed to."),
            "command": _operation("receive", "many", tuple(COMMANDS), "Takes commands."),
        },
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _channel(
    address: str, says: str, names: tuple[str, ...], query: dict[str, Schema], parameters: dict[str, Any]
) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "description": says,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"ws": {"method": "GET", "query": {"type": "object", "properties": query}}},
    }
    return channel | ({"parameters": parameters} if parameters else {})


def _operation(action: str, channel: str, names: tuple[str, ...], says: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": says,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _messages() -> dict[str, Any]:
    models: dict[str, type[BaseModel]] = {**CONTROL, **CLASSIC, **COMMANDS, "end": a.End}
    payloads = {name: ref(cls.__name__) for name, cls in models.items()}
    payloads |= {name: ref(name) for name in EVENT_NAMES} | {"batch": ref("Batch")}
    return {name: {"name": name, "payload": payload} for name, payload in payloads.items()}


def _schemas() -> dict[str, Schema]:
    models: list[type[BaseModel]] = [*CONTROL.values(), *CLASSIC.values(), *COMMANDS.values(), a.End]
    event = event_schemas()
    event["Event"] = {name: part for name, part in event["Event"].items() if name != "discriminator"}
    return {**schemas_of(models), **event, "Batch": BATCH}
