"""How talking to a server can end badly. Each message says what to do where that is known.

ClientError
├── NotReachable         nothing answers at the URL, or the connection broke and stayed broken
├── TimedOut             the limit the caller gave has passed; a follow can be resumed after `after`
├── StreamRefused        the server closed a stream for good: `code`, `reason`
└── Problem              the server refused a call (RFC 9457); nothing was changed
    ├── Invalid          400, 413, 422: `fields` says which field and why
    ├── NotAllowed       401, 403
    ├── NotFound         404
    ├── Conflict         409: the job's status does not allow it
    └── Busy             429, 503: try again after `retry_after_s`
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


class Problem(ClientError):
    """The server refused. `fields` are (path of the field, what is wrong with it)."""

    def __init__(self, status: int, document: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
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


class NotAllowed(Problem):
    """The token is missing, expired or not good for this."""


class NotFound(Problem):
    """There is no such thing, or it belongs to somebody else."""


class Conflict(Problem):
    """The job's status does not allow this."""


class Busy(Problem):
    """The server cannot take this now."""


_BY_STATUS: dict[int, type[Problem]] = {
    400: Invalid,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    422: Invalid,
    429: Busy,
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
    return _BY_STATUS.get(status, Problem)(status, document, retry_after_of(headers))


def refused(status: int, detail: str) -> Problem:
    """The typed error for a refusal that came without a body."""
    return _BY_STATUS.get(status, Problem)(status, {"detail": detail})


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` header; None when it is absent or a date."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None


def _fields(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    listed = document.get("errors")
    found = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    return [(str(item.get("path") or item.get("field") or ""), _what(item)) for item in found]


def _what(item: Mapping[str, Any]) -> str:
    return str(item.get("message") or item.get("detail") or "not valid")
