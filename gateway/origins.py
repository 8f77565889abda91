"""Which pages may call, and by which names: an exact list, and any port of this machine."""

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from gateway.problems import Problem

NAME_CHARS_MAX = 260  # a name of DNS and a port; what is longer is not kept


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


def check_host(host: str | None, allowed: frozenset[str]) -> None:
    """Raises the 403 for a name a page from elsewhere may have had lead here (DNS rebinding): to the browser it is that page's
    own gateway, whose answers it lets it read. Where no key is asked for nothing else stands before them.

    Addresses, `localhost`, names without a dot, which no such page can have, and those of allowed Origins are good.
    """
    if host is None:  # programs; a browser always sends it
        return
    judge = _stranger if len(host) <= NAME_CHARS_MAX else _stranger.__wrapped__
    if (name := judge(host, allowed)) is not None:
        raise Problem(
            403,
            "host",
            f"No key is asked for here, so {name} is not answered to: make one with `phaseline keys create`, or name the "
            "Origin of its pages in PHASELINE_ALLOWED_ORIGINS.",
            errors=[("Host", "is not allowed")],
        )


@lru_cache(maxsize=256)  # each request asks, mostly by the same few
def _stranger(host: str, allowed: frozenset[str]) -> str | None:
    """The name in a Host header that is not good."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        name = host
    if "." not in name or name.endswith(".localhost") or name in {urlsplit(origin).hostname for origin in allowed}:
        return None
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return None
