"""Every frame the gateway makes itself, and the classic form of events. PURE.

Events of the full protocol are not made here: their lines go out as they were committed.
"""

from collections.abc import Sequence
from typing import Any

from events.catalog import TERMINAL, Ref
from events.clock import rfc3339
from events.log import Head
from events.values import decode, encode
from gateway.ring import Entry
from gateway.splice import value_of

PROTOCOL = "phaseline.v1"


# ---- full -----------------------------------------------------------------------------------------------------


def hello(job_id: str, head: Head, *, epoch: str, resume: str, heartbeat_s: float, now_ms: int) -> bytes:
    """The first frame of a full stream. `resume` is `fresh`, `resumed` or `reset`."""
    return encode(
        {
            "type": "hello",
            "protocol": PROTOCOL,
            "job_id": job_id,
            "status": head.status,
            "head_seq": head.seq,
            "epoch": epoch,
            "resume": resume,
            "heartbeat_s": heartbeat_s,
            "server_time": rfc3339(now_ms),
        }
    )


def reset(reason: str, head_seq: int, snapshot: bytes) -> bytes:
    """Tells the client to drop its state and take this one. `snapshot` is the job as JSON."""
    return b'{"type":"reset","reason":"%s","head_seq":%d,"snapshot":%s}' % (reason.encode(), head_seq, snapshot)


def batch(lines: Sequence[bytes]) -> bytes:
    """Events of one frame."""
    return b'{"type":"batch","events":[' + b",".join(lines) + b"]}"


def caught_up(seq: int) -> bytes:
    """Everything up to `seq`, the head, was sent."""
    return b'{"type":"caught_up","seq":%d}' % seq


def heartbeat(head_seq: int) -> bytes:
    """The stream is alive and its head is this."""
    return b'{"type":"heartbeat","seq":%d}' % head_seq


def goodbye(reason: str, reconnect_after_ms: int) -> bytes:
    """The server closes next, and when to come back."""
    return b'{"type":"goodbye","reason":"%s","reconnect_after_ms":%d}' % (reason.encode(), reconnect_after_ms)


def command_error(message: str, field: str) -> bytes:
    """A bad query or command."""
    return encode({"type": "command_error", "code": "bad_query", "message": message, "field": field})


# ---- classic --------------------------------------------------------------------------------------------------


def classic_state(status: str, progress: float, phase: str | None, *, seq: int, now_ms: int) -> bytes:
    """The current state of a job that is not final, as one `progress`."""
    if status == "queued":
        progress, phase = 0.0, "queued"
    return _classic_progress(progress, phase or "initializing", rfc3339(now_ms), seq)


def classic_heartbeat(now_ms: int) -> bytes:
    """The stream is alive."""
    return b'{"type":"heartbeat","timestamp":"%s"}' % rfc3339(now_ms).encode()


def classic(entry: Entry, results: bytes | None = None) -> bytes:
    """The classic frame of an event, `b""` for types the classic protocol does not have.

    `results` are the exact bytes of a result stored apart; without them a `complete` carries its inline value.
    """
    if entry.type != "progress" and entry.type not in TERMINAL:
        return b""
    event = decode(entry.line)
    match entry.type:
        case "progress":
            return _classic_progress(event["progress"], event["phase"], event["timestamp"], entry.seq)
        case "complete":
            value = results if results is not None else (value_of(entry.line.decode(), "results") or "null").encode()
            tail = b',"timestamp":"%s","seq":%d}' % (event["timestamp"].encode(), entry.seq)
            return b"".join([b'{"type":"complete","results":', value, tail])
        case "error":
            return _classic_error(f"Analysis failed: {event['message']}", event)
        case _:
            because = f": {event['reason']}" if event.get("reason") else ""
            return _classic_error(f"Analysis cancelled{because}", event)


def ref_of(entry: Entry) -> Ref | None:
    """Where the result of a terminal event is stored apart, None when it is not."""
    if entry.type not in TERMINAL:
        return None
    ref = decode(entry.line).get("results_ref")
    return Ref.model_validate(ref) if ref is not None else None


def _classic_progress(progress: float, phase: str, timestamp: str, seq: int) -> bytes:
    return encode({"type": "progress", "progress": float(progress), "phase": phase, "timestamp": timestamp, "seq": seq})


def _classic_error(message: str, event: dict[str, Any]) -> bytes:
    return encode({"type": "error", "message": message, "timestamp": event["timestamp"], "seq": event["seq"]})
