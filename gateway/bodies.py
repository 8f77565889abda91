"""Reads request bodies: JSON objects of at most 1 MiB that can be stored, checked against their model."""

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from aiohttp import http_exceptions, web
from pydantic import BaseModel, ValidationError

from events.values import encode, first_problem
from gateway.deps import EVERYONE, IDENTITY
from gateway.limits import LIMITER
from gateway.problems import Problem, bad_parameter, invalid, validation_errors

BODY_BYTES_MAX = 1024 * 1024
BODY_S = 20.0  # for all of it
KEY_CHARS_MAX = 255

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that makes a job, as its idempotency key sees it (hex SHA-256 of the key and of the request)."""

    key_sha256: str | None
    fingerprint: str


async def read_object(
    request: web.Request, *, optional: bool = False, bytes_max: int = BODY_BYTES_MAX
) -> dict[str, Any]:
    """The body as plain JSON. 400 when it is no JSON, 413 over `bytes_max`, 422 when it is no object or holds what no log
    can keep. With `optional` an empty body is `{}`."""
    try:
        async with asyncio.timeout(BODY_S):
            body = await _read(request, bytes_max)
    except TimeoutError:
        raise Problem(408, "too_slow", f"The body did not arrive within {BODY_S:g} s.") from None
    except (web.RequestPayloadError, http_exceptions.HttpProcessingError) as failure:
        raise Problem(400, "not_readable", f"The body cannot be read: {failure}") from None
    who = request.get(IDENTITY, EVERYONE)  # a login: who it is stands in the body, so it counts by its address
    await request.app[LIMITER].body(request, who.tenant, who.actor, len(body))
    if not body and optional:
        return {}
    try:
        # Not pydantic's parser: a lone surrogate is JSON, and is to be refused by its path.
        plain = json.loads(body.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise Problem(400, "not_json", "The body is not UTF-8.") from None
    except (ValueError, RecursionError) as failure:
        raise Problem(400, "not_json", f"The body is not JSON: {failure}") from None
    if not isinstance(plain, dict):
        raise invalid([("", "the body must be a JSON object")])
    if problem := first_problem(plain):
        raise invalid([problem])
    return plain


async def _read(request: web.Request, bytes_max: int) -> bytes:
    body, who = bytearray(), request.get(IDENTITY)
    with request.app[LIMITER].arriving(who.tenant if who else None) as more:
        while part := await request.content.readany():
            if len(body) + len(part) > bytes_max:
                raise Problem(413, "too_large", f"The body is over {bytes_max // 1024} KiB.")
            more(len(part))
            body += part
    return bytes(body)


def checked(model: type[Model], plain: dict[str, Any]) -> Model:
    """The body as its model. 422 naming every field that is wrong or unknown."""
    try:
        return model.model_validate_json(encode(plain))
    except ValidationError as failure:
        raise invalid(validation_errors(failure)) from None


def asked(request: web.Request, plain: dict[str, Any]) -> Asked:
    """The request's idempotency. The same key for another call or body is another request."""
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    fingerprint = hashlib.sha256(f"POST {request.path}\n{canonical}".encode()).hexdigest()
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return Asked(None, fingerprint)
    if not 0 < len(key) <= KEY_CHARS_MAX:
        raise bad_parameter("Idempotency-Key", f"must have 1 to {KEY_CHARS_MAX} characters")
    return Asked(hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest(), fingerprint)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
