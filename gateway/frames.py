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


def reset(reason: str, head_seq: int, snapshot: bytes, job_id: str) -> bytes:
    """Tells the client to drop its state and take this one. `snapshot` is the job as JSON."""
    return b'{"type":"reset","job_id":"%s","reason":"%s","head_seq":%d,"snapshot":%s}' % (
        job_id.encode(),
        reason.encode(),
        head_seq,
        snapshot,
    )


def batch(lines: Sequence[bytes]) -> bytes:
    """Events of one frame."""
    return b'{"type":"batch","events":[' + b",".join(lines) + b"]}"


def caught_up(seq: int) -> bytes:
    """Everything up to `seq`, the head, was sent."""
    return b'{"type":"caught_up","seq":%d}' % seq


def heartbeat(head_seq: int) -> bytes:
    """The stream is alive and its head is this."""
    return b'{"type":"heartbeat","seq":%d}' % head_seq


ALIVE = b'{"type":"heartbeat"}'  # of a socket that follows nothing


def of_job(frame: bytes, job_id: str) -> bytes:
    """A `batch`, `caught_up` or `heartbeat` that says whose it is."""
    head, _, rest = frame.partition(b",")
    return b'%s,"job_id":"%s",%s' % (head, job_id.encode(), rest)


def feed_hello(*, epoch: str, resume: str, heartbeat_s: float, now_ms: int) -> bytes:
    """The first frame of the feed. `resume` is `fresh` or `resumed`."""
    return encode(
        {
            "type": "hello",
            "protocol": PROTOCOL,
            "feed": True,
            "epoch": epoch,
            "resume": resume,
            "heartbeat_s": heartbeat_s,
            "server_time": rfc3339(now_ms),
        }
    )


def feed_batch(lines: Sequence[bytes], cursor: str) -> bytes:
    """Events of the feed, and where to go on behind them."""
    return b'{"type":"batch","feed":true,"cursor":"%s","events":[%s]}' % (cursor.encode(), b",".join(lines))


def feed_caught_up(cursor: str) -> bytes:
    """Everything there was at this moment was sent."""
    return b'{"type":"caught_up","feed":true,"cursor":"%s"}' % cursor.encode()


def feed_heartbeat(cursor: str) -> bytes:
    """The feed is alive, and this is where it stands."""
    return b'{"type":"heartbeat","feed":true,"cursor":"%s"}' % cursor.encode()


def goodbye(reason: str, reconnect_after_ms: int) -> bytes:
    """The server closes next, and when to come back."""
    return b'{"type":"goodbye","reason":"%s","reconnect_after_ms":%d}' % (reason.encode(), reconnect_after_ms)


def end(job_id: str, status: str) -> bytes:
    """The stream of this job is over: its last event was sent and the status there is final."""
    return b'{"type":"end","job_id":"%s","status":"%s"}' % (job_id.encode(), status.encode())


def command_error(message: str, field: str) -> bytes:
    """A bad query."""
    return refused("bad_query", message, field=field)


def refused(code: str, message: str, **about: str | bool) -> bytes:
    """A command that did nothing; the socket lives."""
    return encode({"type": "command_error", "code": code, "message": message, **about})


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


def classic_of(entry: Entry) -> bytes:
    """The classic frame of an event, made once for all viewers."""
    if entry.classic is None:
        entry.classic = classic(entry)
    return entry.classic


def _classic_progress(progress: float, phase: str, timestamp: str, seq: int) -> bytes:
    return encode({"type": "progress", "progress": float(progress), "phase": phase, "timestamp": timestamp, "seq": seq})


def _classic_error(message: str, event: dict[str, Any]) -> bytes:
    return encode({"type": "error", "message": message, "timestamp": event["timestamp"], "seq": event["seq"]})
