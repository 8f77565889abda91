"""Named places at which this process may be made to die, so that tests see what is left and who repairs it.

In production nothing is armed and `reached` looks at one global. `arm` makes the process kill itself at one place
(the composition root does, told by the variable `PHASELINE_CRASH_AT`); tests in one process set `on_reached`.
"""

import logging
import os
import signal
from collections.abc import Callable

# Every place, and what is true there. One command's name stands for the whole batch it is in.
POINTS: dict[str, str] = {
    # -- the committer (events/committer.py, batch.py)
    "submit.before_commit": "a new job is decided, not committed",
    "submit.committed": "a job exists; nothing was announced and its submitter has no answer",
    "claim.before_commit": "a claim is decided, not committed",
    "claim.committed": "a job runs, by a worker that does not know it yet",
    "report.before_commit": "what an engine said is decided on, not committed",
    "report.committed": "what an engine said is recorded; no hint went out and the worker has no answer",
    "finish.before_commit": "a result is decided on, not committed",
    "finish.committed": "a job is completed; no hint went out and the worker has no answer",
    "fail.before_commit": "a failure is decided on, not committed",
    "fail.committed": "a failure is recorded; nothing was announced and the worker has no answer",
    "release.before_commit": "a draining worker's job is to be given back; nothing is committed",
    "release.committed": "a draining worker's job is queued again; nothing was announced",
    "stop.before_commit": "the end of a cancelled attempt is decided, not committed",
    "stop.committed": "a job is cancelled; no hint went out and the worker has no answer",
    "expire.before_commit": "an expiry is written in an open transaction",
    "expire.committed": "an attempt is ended for its lost worker; nothing was announced",
    "cancel.before_commit": "a cancel is decided, not committed",
    "cancel.committed": "a cancel is recorded; the worker was not told and who asked has no answer",
    "reopen.before_commit": "a reopening is written in an open transaction",
    "reopen.committed": "a job is queued again; nothing was announced and who asked has no answer",
    "artifacts.put": "large values are written in an open transaction, the events that name them are not",
    "batch.unanswered": "the database gave no answer to a batch, which may be committed or not",
    "batch.taken_apart": "a batch was rolled back and its commands are about to run one by one",
    # -- what goes out to RabbitMQ (events/rabbit_publish.py)
    "hints.taken": "hints left their buffer and were not sent",
    "hints.confirmed": "RabbitMQ has the hints",
    "tickets.taken": "tickets left their buffer and were not sent",
    "tickets.confirmed": "RabbitMQ has the tickets, and this process does not know it yet",
    "control.taken": "a control word left its buffer and was not sent",
    "control.confirmed": "RabbitMQ has the control word",
    # -- the worker (engine_worker/)
    "ticket.delivered": "a ticket arrived, nothing is claimed",
    "claim.answered": "the worker knows what it claimed; the ticket is not acknowledged and no engine runs",
    "ticket.acked": "a ticket is acknowledged",
    "attempt.unstarted": "an attempt has a child process, which has not heard of it",
    "attempt.started": "the child process was told to run the engine",
    "attempt.ended": "the engine has ended; how is not recorded",
    "beat.answered": "the lease is renewed; the reply was not looked at",
    "cancel.heard": "the worker knows of a cancel, the engine does not",
    "worker.declared": "the worker's engines are in the log, nothing more",
    "drain.begun": "the worker was asked to end and has done nothing about it",
    "worker.emptied": "everything is given back; the worker's row is still there",
    "worker.left": "the worker's row is gone, the process is not",
    # -- the gateway (gateway/websocket.py, full.py)
    "stream.head_read": "a viewer's stream is open; nothing was sent",
    "stream.replaying": "a viewer has a part of what the log holds",
    "stream.ended": "a viewer has the last event, not the close",
    # -- the sweeper (events/sweeper.py, log_postgres.py)
    "leader.taken": "the process leads a sweep and has not begun it",
    "sweep.found": "overdue jobs are found, none is expired",
    "tickets.counted": "tickets are missing and not published",
    "copy.cursor_reset": "the copy will begin again; its RabbitMQ stream does not exist",
    "copy.made": "the RabbitMQ stream of the copy was just made",
    "copy.confirmed": "events are in the copy, the cursor is still before them",
    "copy.cursor_saved": "the cursor stands behind the copied events",
    "schedule.made": "a tick has its job, the schedule still stands before it",
    "partitions.half_made": "one partition is made in an open transaction",
    "partitions.made": "the coming weeks' partitions were just made",
    # -- webhooks (events/deliverer.py)
    "webhook.claimed": "a delivery is claimed, the receiver has not heard of it",
    "webhook.answered": "a receiver has answered, which is not noted",
    # -- the database's commands (migrations/, phaseline/database.py)
    "migration.locked": "the migration's turn has come, nothing is changed",
    "migration.before_commit": "a revision is applied in an open transaction",
    "migration.committed": "the schema is up to date; the lock is still held",
    "epoch.before_commit": "the epoch is raised in an open transaction",
    "epoch.committed": "the epoch is raised, nobody has noticed",
    # -- retention (events/archiver.py)
    "erasure.written": "an object without the payload lies in the archive; the one with it is still named",
    "erasure.committed": "an archived job is erased; the object with its payload is still there",
    "retention.written": "jobs and their manifest lie in the archive; the database still has them",
    "retention.taken_out": "jobs went from the database; their events are still there",
    "retention.part_dropped": "a part of the events of archived jobs is deleted",
}

on_reached: Callable[[str], None] | None = None

_log = logging.getLogger(__name__)


def reached(point: str) -> None:
    """Marks a place. Free where it is passed once a batch or less; inside loops over events there is none."""
    if on_reached is not None:
        on_reached(point)


def arm(where: str) -> None:
    """Makes this process kill itself at `where`: a point, or `point:n` for the n-th time. Raises `ValueError`."""
    global on_reached  # noqa: PLW0603 the one switch
    point, _, nth = where.partition(":")
    if point not in POINTS:
        raise ValueError(f"there is no crash point {point!r}")
    left = int(nth or 1)

    def die(passed: str) -> None:
        nonlocal left
        left -= passed == point
        if not left:
            os.write(2, f"crash point {point} reached\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    _log.warning("ARMED: this process kills itself at crash point %s (%s). For tests only.", where, POINTS[point])
    on_reached = die
