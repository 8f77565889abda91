"""Every way the spine says no, on one screen. The docstring is the default message and names the cure.

PhaselineError
├── Refused                  the command changed nothing
│   ├── UnknownJob           404
│   ├── WrongStatus          409
│   │   └── JobArchived      409
│   ├── LeaseLost            the worker's attempt is over, whatever it still thinks
│   ├── StillAlive           an expiry came too early
│   ├── KeyReused            422
│   ├── UniqueKeyTaken       409, `job_id` has it
│   └── Unstorable           422, 413: content no log can keep
├── Unavailable              try again later; what was accepted stays accepted
│   ├── LogUnavailable       503, the outcome may be unknown
│   ├── Contended            known not to have committed: a lock or a deadlock
│   ├── Overloaded           503
│   └── BusUnavailable       jobs run without it
└── WrongRevision            the schema and the code differ
"""

from __future__ import annotations


class PhaselineError(Exception):
    """Something went wrong in Phaseline."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class Refused(PhaselineError):
    """The command was refused and changed nothing."""


class UnknownJob(Refused):
    """There is no such job. Check the id; finished jobs stay until retention removes them."""


class WrongStatus(Refused):
    """The job's status does not allow this. Read the job and try what its status allows."""

    def __init__(self, message: str | None = None, *, status: str | None = None) -> None:
        super().__init__(message)
        self.status = status


class JobArchived(WrongStatus):
    """The job is archived: it can be read, and changed no more. Rerun it, or submit its params again."""


class LeaseLost(Refused):
    """This attempt is no longer the job's current one. Stop the engine; another attempt owns the job."""


class StillAlive(Refused):
    """The worker renewed its lease before the expiry was committed. Nothing to do."""


class KeyReused(Refused):
    """This Idempotency-Key was used with another body. Use a new key for a new job."""


class UniqueKeyTaken(Refused):
    """Another job with this unique key is unfinished. Wait for its end, cancel it, or submit with unique_mode replace."""

    def __init__(self, message: str | None = None, *, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class Unstorable(Refused):
    """The content cannot be stored; `field` says where, `too_large` whether it is its size."""

    def __init__(self, message: str | None = None, *, field: str = "", too_large: bool = False) -> None:
        super().__init__(message)
        self.field = field
        self.too_large = too_large


class Unavailable(PhaselineError):
    """A server this needs cannot be reached now. Try again; what was accepted stays accepted."""


class LogUnavailable(Unavailable):
    """The database does not answer. Check that it runs and that PHASELINE_DATABASE_URL is right; then try again."""


class Stale(PhaselineError):
    """A batch that was to be written without locks found something else than it was decided on. Nothing was written."""


class Contended(Unavailable):
    """Another transaction holds these rows. Nothing was written; it is tried again."""


class Overloaded(Unavailable):
    """More is waiting to be written than this process may hold. Try again in a moment."""


class BusUnavailable(Unavailable):
    """RabbitMQ does not answer. Jobs and streams go on without it, slower."""


class WrongRevision(PhaselineError):
    """The database schema is not the one this version needs. Run `phaseline db migrate`."""
