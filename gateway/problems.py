"""Every error over HTTP is `application/problem+json` (RFC 9457) and names the offending field."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from events.errors import (
    KeyReused,
    LeaseLost,
    Overloaded,
    PhaselineError,
    StillAlive,
    Unavailable,
    UniqueKeyTaken,
    UnknownJob,
    Unstorable,
    WrongRevision,
    WrongStatus,
)
from events.values import encode

RETRY_AFTER_S = 1  # a hint; clients add jitter

# First match wins, so a class stands before its parents.
_STATUS: tuple[tuple[type[PhaselineError], int, str], ...] = (
    (UnknownJob, 404, "unknown_job"),
    (WrongStatus, 409, "wrong_status"),
    (LeaseLost, 409, "lease_lost"),
    (StillAlive, 409, "still_alive"),
    (KeyReused, 422, "key_reused"),
    (UniqueKeyTaken, 409, "unique_key_taken"),
    (Unstorable, 422, "unstorable"),
    (Overloaded, 503, "overloaded"),
    (WrongRevision, 503, "wrong_revision"),
    (Unavailable, 503, "unavailable"),
)

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(Exception):
    """An answer of 400 and above. `errors` are (field, message); `extra` are further members of the document."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = extra

    def response(self) -> web.Response:
        """The document as an answer."""
        document = {
            "type": f"urn:phaseline:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "errors": [{"field": field, "message": message} for field, message in self.errors],
        } | self.extra
        if self.status == 503:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        return web.Response(
            status=self.status, body=encode(document), content_type="application/problem+json", headers=self.headers
        )


def bad_parameter(name: str, message: str) -> Problem:
    """400 for a query parameter or header."""
    return Problem(400, "bad_parameter", f"{name}: {message}", errors=[(name, message)])


def invalid(errors: Sequence[tuple[str, str]]) -> Problem:
    """422 for a body that is JSON but not what the call takes."""
    field, message = errors[0]
    return Problem(422, "invalid", f"{field}: {message}" if field else message, errors=errors)


def field_path(location: Sequence[str | int], root: str = "") -> str:
    """`params.squad[3].name` of a location as pydantic gives it."""
    path = root
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def validation_errors(failure: ValidationError, root: str = "") -> list[tuple[str, str]]:
    """(field, message) of everything a model refused; never the input itself."""
    errors = failure.errors(include_url=False, include_context=False, include_input=False)
    return [(field_path(error["loc"], root), error["msg"]) for error in errors]


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns everything a handler raises into a problem document; what nobody foresaw is logged and told to nobody."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except PhaselineError as error:
        return _of(error).response()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _of_aiohttp(request, error).response()
    except Exception as failure:  # a boundary: one request must not end the process, nor show its insides
        if isinstance(failure, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            return web.Response(status=400)  # the client left: nobody hears this, and it is no fault of ours
        log.exception("%s %s failed", request.method, request.rel_url.raw_path)
        return Problem(500, "internal", "Something went wrong here. It was logged; trying again may help.").response()


def _of(error: PhaselineError) -> Problem:
    status, kind = next(((status, kind) for cls, status, kind in _STATUS if isinstance(error, cls)), (500, "internal"))
    errors: list[tuple[str, str]] = []
    if isinstance(error, Unstorable):
        status = 413 if error.too_large else status
        errors = [(error.field, str(error))]
    extra: dict[str, Any] = {"job_status": error.status} if isinstance(error, WrongStatus) else {}
    if isinstance(error, UniqueKeyTaken):
        errors = [("unique_key", str(error))]
        extra = {"job_id": error.job_id}
    return Problem(status, kind, str(error), errors=errors, **extra)


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> Problem:
    headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    match error.status:
        case 404:
            return Problem(404, "unknown_route", f"There is nothing at {request.path}.")
        case 405:
            allowed = headers.get("Allow", "other methods")
            return Problem(
                405, "method_not_allowed", f"{request.method} is not possible here; {allowed} is.", headers=headers
            )
        case 413:
            return Problem(413, "too_large", "The body is over 1 MiB.")
        case status:
            return Problem(status, "http", error.text or error.reason)
