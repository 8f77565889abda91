"""Which pages may call: an exact list, and any port of this machine."""

import ipaddress
from urllib.parse import urlsplit

from gateway.problems import Problem


def origin_allowed(origin: str, allowed: frozenset[str]) -> bool:
    """Whether a page of this origin may open a socket or change anything: one of the allowed ones, exactly, or any port of this machine."""
    if origin in allowed:
        return True
    try:
        parts = urlsplit(origin)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != origin or "@" in parts.netloc:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_origin(origin: str | None, allowed: frozenset[str]) -> None:
    """Raises the 403 for a page that is not allowed. Programs send no Origin, and browsers none with what only reads."""
    if origin is not None and not origin_allowed(origin, allowed):
        raise Problem(
            403,
            "origin",
            f"A page of {origin} may not do this; PHASELINE_ALLOWED_ORIGINS names those that may.",
            errors=[("Origin", "is not allowed")],
        )
