"""How talking to a server can end badly. Each message says what to do where that is known.

ClientError
├── NotReachable         nothing answers at the URL, or the connection broke and stayed broken
├── TimedOut             the limit the caller gave has passed; a follow can be resumed after `after`
├── StreamRefused        the server closed a stream for good: `code`, `reason`
├── Corrupt              what arrived is not what its SHA-256 says
└── Problem              the server refused a call (RFC 9457); nothing was changed
    ├── Invalid          400, 413, 422: `fields` says which field and why
    │   ├── TooLarge         over 1 MiB, or over what an event may hold
    │   └── KeyReused        the Idempotency-Key was used with another request
    ├── NotAllowed       401, 403
    ├── NotFound         404
    │   ├── UnknownJob       no such job, or it is somebody else's
    │   ├── UnknownEngine    nobody declares it; the message lists those that are known
    │   ├── UnknownRoute     this server has no such call: is it older than this client?
    │   └── NoResult         the job left no result, or not that artifact
    ├── Conflict         409
    │   ├── WrongStatus      the job is `job_status`, which does not allow it
    │   └── UniqueKeyTaken   job `job_id` has the unique key and has not ended
    ├── BeyondHead       404 and 409 (a NotFound and a Conflict): the stream ends at `head_seq`
    ├── Busy             429, 503: try again after `retry_after_s`
    │   ├── Overloaded       more is asked of this gateway than it takes at once
    │   ├── Unavailable      the database does not answer, or needs another version of this service
    │   └── Closing          this gateway shuts down; another one answers
    └── ServerFault      500: a fault of the service, logged there
"""

from collections.abc import Mapping
from typing import Any

from events.values import decode


class ClientError(Exception):
    """A call or a stream ended badly."""


class NotReachable(ClientError):
    """No server answers at this URL."""

    def __init__(self, url: str, cause: object) -> None:
        super().__init__(f"no server answers at {url} ({cause or 'no answer in time'})")
        self.url = url


class TimedOut(ClientError):
    """The caller's limit has passed. The job itself goes on; `after` is the last sequence that was delivered."""

    def __init__(self, message: str, after: int = 0) -> None:
        super().__init__(message)
        self.after = after


class StreamRefused(ClientError):
    """The server closed the stream in a way that says: do not come back."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the server refused the stream: {reason or 'no reason given'} (close code {code})")
        self.code = code
        self.reason = reason


class Corrupt(ClientError):
    """Something between here and the store changed the bytes."""


class Problem(ClientError):
    """The server refused. `code` is its word for why, such as `unknown_job`, "" when something in between answered;
    `fields` are (path of the field, what is wrong with it)."""

    def __init__(self, status: int, document: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.code = _code(document)
        self.title = str(document.get("title") or f"HTTP {status}")
        self.detail = str(document.get("detail") or "")
        self.fields = _fields(document)
        self.document = dict(document)
        self.retry_after_s = retry_after_s
        super().__init__(self._message())

    def _message(self) -> str:
        told = self.detail or self.title
        fields = [f"{path}: {message}" if path else message for path, message in self.fields]
        # The detail usually is the first field's line already.
        return "\n  ".join([told, *(line for line in fields if line not in told)])


class Invalid(Problem):
    """The request cannot be served as it is; `fields` says what to change."""


class TooLarge(Invalid):
    """More than one request or one event may hold."""


class KeyReused(Invalid):
    """The Idempotency-Key was used with another request. Draw another, or send the same request."""


class NotAllowed(Problem):
    """The token is missing, expired or not good for this."""


class NotFound(Problem):
    """There is no such thing, or it belongs to somebody else."""


class UnknownJob(NotFound):
    """There is no such job, or it belongs to somebody else."""


class UnknownEngine(NotFound):
    """No worker ever declared an engine of this name."""


class UnknownRoute(NotFound):
    """The server has no such call."""


class NoResult(NotFound):
    """The job left no result, or not this artifact."""


class Conflict(Problem):
    """The state of the job does not allow this."""


class WrongStatus(Conflict):
    """The job's status does not allow this."""

    @property
    def job_status(self) -> str:
        """The status the job was in."""
        return str(self.document.get("job_status", ""))


class UniqueKeyTaken(Conflict):
    """Another job with this unique key has not ended."""

    @property
    def job_id(self) -> str:
        """That job."""
        return str(self.document.get("job_id", ""))


class BeyondHead(NotFound, Conflict):
    """The job's stream has no such sequence yet. As 404 of a job, as 409 of its events: both are caught."""

    @property
    def head_seq(self) -> int:
        """The last sequence there is."""
        return int(self.document.get("head_seq", 0))


class Busy(Problem):
    """The server cannot take this now."""


class Overloaded(Busy):
    """More is asked of this gateway than it takes at once."""


class Unavailable(Busy):
    """The database behind the gateway does not answer, or not yet as this version needs it."""


class Closing(Busy):
    """This gateway shuts down; whoever replaces it answers."""


class ServerFault(Problem):
    """A fault of the service, which logged it. Trying again may help."""


_URN = "urn:phaseline:problem:"
# Where the code says more than the status.
_BY_CODE: dict[str, type[Problem]] = {
    "beyond_head": BeyondHead,
    "check_timeout": Unavailable,
    "closing": Closing,
    "key_reused": KeyReused,
    "no_result": NoResult,
    "overloaded": Overloaded,
    "unavailable": Unavailable,
    "unique_key_taken": UniqueKeyTaken,
    "unknown_artifact": NoResult,
    "unknown_engine": UnknownEngine,
    "unknown_job": UnknownJob,
    "unknown_route": UnknownRoute,
    "wrong_revision": Unavailable,
    "wrong_status": WrongStatus,
}
_BY_STATUS: dict[int, type[Problem]] = {
    400: Invalid,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    408: Busy,
    409: Conflict,
    413: TooLarge,
    422: Invalid,
    429: Busy,
    500: ServerFault,
    503: Busy,
}


def problem_of(status: int, body: bytes, headers: Mapping[str, str]) -> Problem:
    """The typed error for an answer of 400 and above, whatever its body holds."""
    try:
        document = decode(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        # Something in between answered, such as a proxy: its text is the best explanation there is.
        document = {"detail": body[:200].decode(errors="replace").strip()}
    kind = _BY_CODE.get(_code(document)) or _BY_STATUS.get(status, Problem)
    return kind(status, document, retry_after_of(headers))


def refused(status: int, detail: str) -> Problem:
    """The typed error for a refusal that came without a body."""
    return _BY_STATUS.get(status, Problem)(status, {"detail": detail})


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` header; None when it is absent or a date."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None


def _code(document: Mapping[str, Any]) -> str:
    """`unknown_job` of `urn:phaseline:problem:unknown_job`."""
    kind = str(document.get("type") or "")
    return kind.removeprefix(_URN) if kind.startswith(_URN) else ""


def _fields(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    listed = document.get("errors")
    found = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    return [(str(item.get("path") or item.get("field") or ""), _what(item)) for item in found]


def _what(item: Mapping[str, Any]) -> str:
    return str(item.get("message") or item.get("detail") or "not valid")
