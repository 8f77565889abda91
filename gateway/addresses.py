"""Where a request came from: what events that a person or key causes record as `address`.

The peer's own address, unless the peer is a proxy a setting trusts: then the last address in `X-Forwarded-For` that is no
such proxy. What stands before it was written by whoever asked, and counts for nothing.
"""

import ipaddress
from functools import lru_cache

from aiohttp import web

from gateway.deps import DEPS

CHARS_MAX = 100  # an IPv6 address with a zone is shorter
HOPS_MAX = 20  # addresses looked at, from the end
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(request: web.Request) -> str | None:
    """The client's address, None when the connection has none, such as a local socket."""
    trusted = request.app[DEPS].trusted_proxies
    found = parsed(request.remote or "")
    if found is None or not within(found, trusted):
        return str(found) if found else None
    said = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
    for text in reversed(said[-HOPS_MAX:]):
        before = parsed(text.strip())
        if before is None:  # nothing a trusted proxy wrote: the proxy itself is all that is known
            break
        found = before
        if not within(found, trusted):
            break
    return str(found)


def networks(words: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks (`10.0.0.0/8`) of a setting. Raises `ValueError` naming the wrong one."""
    return tuple(ipaddress.ip_network(word) for word in words)


def within(address: Address, trusted: tuple[Network, ...]) -> bool:
    """Whether it is in one of these networks."""
    return any(address in network for network in trusted)


def parsed(text: str) -> Address | None:
    """An address as it is compared, IPv4 inside IPv6 as IPv4; None for what is none."""
    return _known(text) if len(text) <= CHARS_MAX else None


@lru_cache(maxsize=1024)  # each request asks
def _known(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
