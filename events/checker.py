"""Whether a run kept the promises I1–I6 of docs/architecture.md. PURE.

Four checks, each fed one thing at a time and each raising the first `Violation` with the events that show it:
`StreamCheck` a job's stream and its row, `RunCheck` what holds between jobs, `RecordingCheck` what one client was
sent, `CopyCheck` the RabbitMQ stream. None holds the events it was fed. `phaseline/verify.py` feeds them from the log.

Rules: `I1` sequences; `I2` what a client saw; `I3` terminal events; `I4` fencing of attempts; `I5` the row is the fold;
`I6` the copy; `once` no command is recorded twice; `keys` one job an idempotency key; `progress` never falls.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from events.batch import job_row
from events.catalog import ACT, FINAL, RECORDED_TYPES, TERMINAL, AnyEvent, Progress, Started, Submitted
from events.cloudevents import cloudevent
from events.errors import PhaselineError
from events.job import Job, evolve
from events.log import JobRow, differing
from events.record import Recorded
from events.values import decode, encode

SHOWN_CHARS = 600  # of an event in a violation: enough to recognise it, whatever it carries

_SAID = frozenset({"progress", "checkpoint", "partial", "log"})
_WORKER = "worker:"
Key = tuple[str, int]  # job id, seq


class Violation(PhaselineError):
    """A promise was broken: `rule` which, `sentence` how, `events` the events that show it, as text."""

    def __init__(self, rule: str, sentence: str, *events: Recorded | dict[str, Any] | str) -> None:
        self.rule = rule
        self.sentence = sentence
        self.events = tuple(_shown(event) for event in events)
        super().__init__("\n".join([f"{rule}: {sentence}", *(f"  {event}" for event in self.events)]))


# ---- one job ----------------------------------------------------------------------------------------------------


class StreamCheck:
    """One job's stream, event by event, then its row. Holds the state, its last event and the ids of its commands."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.job: Job | None = None
        self.first: Recorded | None = None
        self.seq = 0
        self._submitted: Submitted | None = None
        self._last: Recorded | None = None
        self._attempt: Recorded | None = None  # the `started` of the attempt that goes on
        self._ended: Recorded | None = None  # what ended the one before
        self._commands: dict[str, int] = {}  # command id -> the sequence where its events begin

    def take(self, recorded: Recorded) -> None:
        """The next event. Raises `Violation`."""
        self._in_sequence(recorded)
        self._not_after_the_end(recorded)
        self._of_the_attempt(recorded)
        self._recorded_once(recorded)
        self._folded(recorded)
        self.seq = recorded.seq
        self._last = recorded

    def end(self, row: JobRow | None, *, settled: bool) -> None:
        """The stream is over and this is its row. `settled`: nothing goes on any more, so the job must have ended."""
        last = self._last
        if last is None or self.job is None or self._submitted is None:
            raise Violation("I5", f"job {self.job_id} has a row and no events")
        if row is None:
            raise Violation("I5", f"job {self.job_id} has events and no row", last)
        right = job_row(self.job, self._submitted)
        if names := differing(row, right):
            wrong = ", ".join(f"{name} is {_column(row, name)!r}, not {_column(right, name)!r}" for name in names)
            raise Violation("I5", f"the row of job {self.job_id} is not the fold of its events: {wrong}", last)
        if settled and self.job.status not in FINAL:
            raise Violation("I3", f"job {self.job_id} is {self.job.status}: it never reached its terminal event", last)

    def _in_sequence(self, recorded: Recorded) -> None:
        last = self._last
        if last is None:
            self.first = recorded
            if recorded.seq != 1 or recorded.job_id != self.job_id or recorded.type != "submitted":
                raise Violation("I1", f"the stream of job {self.job_id} does not begin with `submitted` as 1", recorded)
            return
        if recorded.seq != last.seq + 1:
            how = "a repeat" if recorded.seq <= last.seq else "a hole"
            raise Violation("I1", f"{how} in job {self.job_id}: after {last.seq} comes {recorded.seq}", last, recorded)
        if recorded.job_id != last.job_id or recorded.tenant != last.tenant:
            raise Violation("I1", f"an event in the stream of job {self.job_id} belongs to another", last, recorded)
        if recorded.at < last.at:
            raise Violation("I1", f"the time of job {self.job_id} runs backwards", last, recorded)

    def _not_after_the_end(self, recorded: Recorded) -> None:
        last = self._last
        if last is not None and last.type in TERMINAL and recorded.type != "reopened":
            second = "a second terminal event" if recorded.type in TERMINAL else f"`{recorded.type}`"
            raise Violation("I3", f"after the terminal event of job {self.job_id} comes {second}", last, recorded)

    def _of_the_attempt(self, recorded: Recorded) -> None:
        last, attempt = self._last, self._attempt
        if last is None:
            if recorded.attempt != 0:
                raise Violation("I4", f"job {self.job_id} begins in attempt {recorded.attempt}, not 0", recorded)
            return
        if recorded.type == "started":
            if attempt is not None:
                raise Violation("I4", f"job {self.job_id}: an attempt begins before the last ended", attempt, recorded)
            if recorded.attempt != last.attempt + 1:
                raise Violation("I4", f"job {self.job_id}: attempts do not rise by one", last, recorded)
            self._attempt = recorded
            return
        if recorded.attempt != last.attempt:
            said = f"job {self.job_id}: `{recorded.type}` of attempt {recorded.attempt} during attempt {last.attempt}"
            raise Violation("I4", said, last, recorded)
        if attempt is None:
            self._between_attempts(recorded)
        elif recorded.actor.startswith(_WORKER) and recorded.actor != attempt.actor:
            raise Violation(
                "I4", f"job {self.job_id}: a worker wrote that does not hold the attempt", attempt, recorded
            )
        elif recorded.type not in _SAID and recorded.type != "cancel_requested":
            self._attempt, self._ended = None, recorded

    def _between_attempts(self, recorded: Recorded) -> None:
        # Only `submitted` brings checkpoints along: those of the job it reruns.
        assert self.first is not None
        reused = recorded.type == "checkpoint" and recorded.command_id == self.first.command_id
        if not reused and (recorded.type in _SAID or recorded.actor.startswith(_WORKER)):
            before = [self._ended] if self._ended else []
            raise Violation(
                "I4", f"job {self.job_id}: `{recorded.type}` of an attempt that was over", *before, recorded
            )

    def _recorded_once(self, recorded: Recorded) -> None:
        """A command's events stand together, were decided at one moment by one actor, and are no more than one command
        can cause. So a command that was run again shows, unless all it says is told twice within one millisecond."""
        last = self._last
        if last is not None and recorded.command_id == last.command_id:
            if recorded.at != last.at or recorded.actor != last.actor or not _together(last.type, recorded.type):
                raise Violation(
                    "once", f"job {self.job_id}: a command is recorded twice, or is two commands", last, recorded
                )
            return
        before = self._commands.setdefault(recorded.command_id, recorded.seq)
        if before != recorded.seq:
            said = f"job {self.job_id}: the command of sequence {before} is recorded again as {recorded.seq}"
            raise Violation("once", said, recorded)

    def _folded(self, recorded: Recorded) -> None:
        job = self.job
        try:
            event: AnyEvent = recorded.event()
            self.job = evolve(job, event, job_id=recorded.job_id, tenant=recorded.tenant, at=recorded.at)
        except (ValueError, KeyError) as broken:
            raise Violation("I5", f"the events of job {self.job_id} are no stream: {broken}", recorded) from broken
        if isinstance(event, Submitted):
            self._submitted = event
        elif isinstance(event, Started) and recorded.actor != f"{_WORKER}{event.worker}":
            raise Violation("I4", f"job {self.job_id}: an attempt begins for a worker that did not claim it", recorded)
        elif isinstance(event, Progress) and job is not None and event.progress < job.progress:
            said = f"job {self.job_id}: progress falls from {job.progress:g} to {event.progress:g}"
            raise Violation("progress", said, recorded)


def hold_act(recorded: Recorded) -> None:
    """An administrative act (`events/acts.py`): of no job, alone in its stream. Raises `Violation`."""
    if recorded.seq != 1 or recorded.attempt != 0:
        raise Violation("I1", f"the act {recorded.job_id} is not the one event of its stream", recorded)
    try:
        recorded.act()
    except ValueError as broken:
        raise Violation("I5", f"the act {recorded.job_id} is none: {broken}", recorded) from broken


def _together(before: str, after: str) -> bool:
    """Whether one command can cause these two in a row (`decide` in `events/job.py`)."""
    if after == "checkpoint":
        return before in _SAID or before == "submitted"
    return before in _SAID if after in _SAID else (before, after) == ("progress", "complete")


def _column(row: JobRow, name: str) -> Any:
    return getattr(row.job, name) if hasattr(row.job, name) else getattr(row, name)


# ---- between jobs -----------------------------------------------------------------------------------------------


class RunCheck:
    """What holds between jobs: a key makes one job, and so does a submit. Some 200 bytes a job."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], str] = {}
        self._submits: dict[str, str] = {}

    def take(self, submitted: Recorded) -> None:
        """The first event of another job. Raises `Violation`."""
        job_id = submitted.job_id
        other = self._submits.setdefault(submitted.command_id, job_id)
        if other != job_id:
            raise Violation("once", f"one submit made two jobs, {other} and {job_id}", submitted)
        key = decode(submitted.data).get("idempotency")
        if key is not None:
            other = self._keys.setdefault((submitted.tenant, key["key_sha256"]), job_id)
            if other != job_id:
                raise Violation("keys", f"one idempotency key made two jobs, {other} and {job_id}", submitted)


# ---- what a client was sent -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Connection:
    """One connection of a recording. `position` is the sequence before the next event, None while unknown."""

    job_id: str
    position: int | None
    head: int | None = None  # of its `hello`
    epoch: str | None = None
    status: str = ""
    resetting: bool = False
    caught_up: bool = False
    last: str = ""  # type of the last event on it


class RecordingCheck:
    """What one client was sent over the full protocol, line by line (docs/cli.md, "Recordings")."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connections = 0
        self.events = 0
        self._line = 0
        self._now: _Connection | None = None
        self._seen: dict[str, int] = {}  # job -> the last sequence this client was ever sent
        self._before: dict[str, Any] | str = ""

    def take(self, line: bytes | str) -> list[dict[str, Any]]:
        """The next line. Returns its events, each to be held against the log by `same`. Raises `Violation`."""
        self._line += 1
        try:
            frame = decode(line)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            raise self._broken("what arrived was no JSON object", _text(line))
        kind = frame.get("type")
        if kind == "connected":
            self._connected(frame)
            return []
        if self._now is None:
            raise self._broken("a frame arrived without a connection", frame)
        events = frame["events"] if kind == "batch" else [frame] if _is_event(frame) else None
        if events is None:
            self._controlled(self._now, frame)
            return []
        for event in events:
            self._sent(self._now, event)
        return list(events)

    @property
    def epoch(self) -> str | None:
        """The lineage of the log on this connection: what was sent in another, a restored log need not have."""
        return self._now.epoch if self._now else None

    def same(self, event: dict[str, Any], recorded: Recorded | None) -> None:
        """Holds an event that was sent against the one the log has. Raises `Violation`."""
        if recorded is None:
            raise self._broken("the log does not have what was sent", event)
        right = decode(recorded.line())
        if event != right and not _same_but_inline(event, right):
            raise self._broken("what was sent is not what the log has", event, recorded)

    def _connected(self, marker: dict[str, Any]) -> None:
        self.connections += 1
        job_id, after = str(marker["job_id"]), marker.get("after")
        seen = self._seen.get(job_id)
        if seen is not None and (after is None or after > seen):
            raise self._broken(f"the client had {seen} and asked for what follows {after}", self._before, marker)
        if seen is None and after is not None:
            self._seen[job_id] = after
        self._now = _Connection(job_id, after)
        self._before = marker

    def _sent(self, now: _Connection, event: dict[str, Any]) -> None:
        if now.head is None:
            raise self._broken("an event came before the `hello`", event)
        if event["job_id"] != now.job_id:
            raise self._broken(f"an event of another job came on the stream of {now.job_id}", event)
        seq = event["seq"]
        if now.position is not None and seq != now.position + 1:
            how = "again" if seq <= now.position else "over a hole"
            raise self._broken(f"after {now.position} came {seq}, {how}", self._before, event)
        if now.last in TERMINAL and event["type"] != "reopened":
            raise self._broken("an event came after the terminal one", self._before, event)
        now.position, now.last = seq, event["type"]
        self._seen[now.job_id] = max(seq, self._seen.get(now.job_id, 0))
        self._before = event
        self.events += 1

    def _controlled(self, now: _Connection, frame: dict[str, Any]) -> None:
        match frame.get("type"):
            case "hello":
                self._greeted(now, frame)
            case "reset":
                self._reset(now, frame)
            case "caught_up":
                self._caught_up(now, frame)
            case "heartbeat" if now.position is not None and frame["seq"] < now.position:
                raise self._broken("a heartbeat's head is behind what was sent", self._before, frame)
            case "closed":
                self._closed(now, frame)
            case _:
                pass  # goodbye, command_error, and what newer servers say

    def _greeted(self, now: _Connection, hello: dict[str, Any]) -> None:
        if now.head is not None:
            raise self._broken("a second `hello` came", hello)
        now.head, now.status, now.resetting = hello["head_seq"], hello["status"], hello["resume"] == "reset"
        now.epoch = hello.get("epoch")
        if now.position is not None and now.position > hello["head_seq"] and not now.resetting:
            raise self._broken(f"the head is behind {now.position}, which was asked for, without a reset", hello)

    def _reset(self, now: _Connection, reset: dict[str, Any]) -> None:
        if not now.resetting:
            raise self._broken("a `reset` came that no `hello` announced", reset)
        snapshot = reset["snapshot"]
        # Of a finished job the terminal event is sent again.
        now.resetting, now.position = False, snapshot["seq"] - (snapshot["status"] in FINAL)
        self._seen[now.job_id] = now.position

    def _caught_up(self, now: _Connection, frame: dict[str, Any]) -> None:
        if now.caught_up:
            raise self._broken("`caught_up` came a second time", frame)
        now.caught_up = True
        if now.head is None or now.resetting:
            raise self._broken("`caught_up` came before the `hello` or its reset", frame)
        if now.position is None:
            now.position = frame["seq"]  # nothing was asked for and nothing was there
        if frame["seq"] != now.position or now.position < now.head:
            said = f"`caught_up` says {frame['seq']}; {now.position} was sent last and the head was {now.head}"
            raise self._broken(said, self._before, frame)

    def _closed(self, now: _Connection, frame: dict[str, Any]) -> None:
        self._now = None
        if frame["code"] not in {1000, 4000}:
            return
        if not now.caught_up:
            raise self._broken("the stream ended before `caught_up`", self._before, frame)
        over = now.last in TERMINAL if now.last else now.status in FINAL
        if not over:
            raise self._broken("the stream ended without a terminal event", self._before, frame)

    def _broken(self, said: str, *events: Recorded | dict[str, Any] | str) -> Violation:
        return Violation("I2", f"{self.name}, line {self._line}: {said}", *(event for event in events if event))


def _is_event(frame: dict[str, Any]) -> bool:
    return "job_id" in frame and "seq" in frame and "attempt" in frame and "actor" in frame


def _same_but_inline(event: dict[str, Any], right: dict[str, Any]) -> bool:
    """`results=inline` puts the value where the log has its reference."""
    if "results_ref" not in right or "results" not in event:
        return False
    return {**event, "results": None} == {**{k: v for k, v in right.items() if k != "results_ref"}, "results": None}


# ---- the copy ---------------------------------------------------------------------------------------------------


class CopyCheck:
    """The RabbitMQ stream against the log: first every event of the log, then every message. Nine bytes an event."""

    def __init__(self) -> None:
        self._logged: dict[str, array[int]] = {}  # job -> hash of the message each of its events must be
        self._copied: dict[str, bytearray] = {}  # job -> 1 for each event found
        self.first: Key | None = None  # what retention left as the oldest message
        self.messages = 0
        self.beyond: dict[Key, bytes] = {}  # copied, and newer than what we read of the log

    def logged(self, recorded: Recorded) -> None:
        """An event of the log, each job's in sequence."""
        self._logged.setdefault(recorded.job_id, array("q")).append(hash(cloudevent(recorded)))

    def begin(self) -> None:
        """The RabbitMQ stream is read from its start."""
        self._copied = {job_id: bytearray(len(hashes)) for job_id, hashes in self._logged.items()}
        self.first, self.messages = None, 0
        self.beyond.clear()

    def copied(self, message: bytes) -> None:
        """The next message. Raises `Violation`."""
        self.messages += 1
        key, event = _identified(message)
        job_id, seq = key
        self.first = self.first or key
        hashes = self._logged.get(job_id, ())
        if not 0 < seq <= len(hashes):
            self.beyond[key] = message
            return
        if hash(message) != hashes[seq - 1] and not _older_version(event):
            raise Violation("I6", f"the copy of event {seq} of job {job_id} is not what the log has", _text(message))
        self._copied[job_id][seq - 1] = 1

    def held_against(self, message: bytes, recorded: Recorded | None) -> None:
        """One of `beyond`, and what the log has there by now. Raises `Violation`."""
        if recorded is None:
            raise Violation("I6", "the RabbitMQ stream holds an event that the log does not have", _text(message))
        if cloudevent(recorded) != message and not _older_version(decode(message)):
            raise Violation("I6", "the copy of an event is not what the log has", _text(message), recorded)

    def excuse(self, job_id: str, seq: int) -> None:
        """This event lies before the oldest message: RabbitMQ's retention has removed it."""
        if 0 < seq <= len(self._copied.get(job_id, ())):
            self._copied[job_id][seq - 1] = 1

    def missing(self) -> Iterator[Key]:
        """Every event that was logged and not copied."""
        for job_id, found in self._copied.items():
            at = found.find(0)
            while at >= 0:
                yield job_id, at + 1
                at = found.find(0, at + 1)


def _identified(message: bytes) -> tuple[Key, dict[str, Any]]:
    try:
        event: dict[str, Any] = decode(message)
        key = str(event["subject"]), int(event["sequence"])
        if event["specversion"] == "1.0" and event["id"] == f"{key[0]}.{key[1]}" and "source" in event:
            return key, event
    except (ValueError, KeyError, TypeError):
        pass
    raise Violation("I6", "the RabbitMQ stream holds what is no CloudEvent of ours", _text(message))


def _older_version(event: dict[str, Any]) -> bool:
    """Copied by an older build: an equal event in other words. Its type had a lower version then, or was an act, which
    builds that knew none took for an event of a job."""
    if event.get("type") == f"phaseline.job.{ACT}":
        return True
    name, _, version = str(event.get("dataschema", "")).removeprefix("urn:phaseline:").partition(":")[2].partition(":")
    known = RECORDED_TYPES.get(name)
    return known is not None and version.isdecimal() and int(version) < known.version


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode(errors="replace")


def _shown(event: Recorded | dict[str, Any] | str) -> str:
    if isinstance(event, Recorded):
        text = f"{event.line().decode()} command {event.command_id}"
    else:
        text = event if isinstance(event, str) else encode(event).decode()
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}… ({len(text)} characters)"


def check_all(events: Sequence[Recorded], row: JobRow | None, *, settled: bool) -> None:
    """A whole stream at once, for those that are small. Raises `Violation`."""
    check = StreamCheck(events[0].job_id if events else row.job.id if row else "")
    for recorded in events:
        check.take(recorded)
    check.end(row, settled=settled)
