"""Where a webhook may go: which URLs are taken at submit, and which addresses are connected to. PURE.

A name says nothing about where it leads, and may lead elsewhere a moment later: the name is looked up once for each
attempt, and the address that is about to be connected to is the one that is judged.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

URL_CHARS_MAX = 2048
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# IPv6 that carries an IPv4 address to be connected to elsewhere: NAT64 (RFC 6052, RFC 8215), 6to4, Teredo.
_CARRIERS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
# Protocol assignments (RFC 6890): Python took them for global before 3.13, and a cloud serves metadata there.
_RESERVED = ipaddress.ip_network("192.0.0.0/24")
# A public address by its number, and the metadata of every machine of that cloud: Azure's.
_METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed besides `https://` to public addresses."""

    networks: tuple[Network, ...] = ()
    plain_http: bool = False

    def allows(self, text: str) -> bool:
        """Whether a socket may be opened to this address."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks) or _is_public(address)

    def checked(self, url: str) -> str:
        """The URL as it is stored. Raises `ValueError` with what is wrong with it."""
        if len(url) > URL_CHARS_MAX:
            raise ValueError(f"at most {URL_CHARS_MAX} characters")
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise ValueError("only printable ASCII: names in Punycode, anything else percent-encoded")
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port  # a port that is none raises ValueError by itself
        if parts.scheme not in (("https", "http") if self.plain_http else ("https",)):
            raise ValueError("must begin with https://" if not self.plain_http else "must be https:// or http://")
        if not host or port == 0:
            raise ValueError("names no host, or port 0")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold a user or a password")
        if parts.fragment or url.endswith("#"):
            raise ValueError("must not have a fragment")
        if _looks_like_an_address(host) and not self.allows(host):
            raise ValueError("leads to an address that is not public")
        return parts._replace(scheme=parts.scheme, netloc=parts.netloc.lower(), path=parts.path or "/").geturl()


def networks(words: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks of a setting. Raises `ValueError` naming the wrong one."""
    return tuple(ipaddress.ip_network(word) for word in words)


def lane_of(tenant: str, url: str) -> str:
    """What waits for what: deliveries of one tenant to one host. The triggers of migration 0014 say the same."""
    return f"{tenant} {url[: (url + '/').index('/', 8)]}"


def _is_public(address: Address) -> bool:
    """Public unicast. Not loopback, private, link-local (where clouds serve metadata), shared, or reserved."""
    if address in _METADATA or address in _RESERVED or any(address in network for network in _CARRIERS):
        return False
    return address.is_global and not address.is_multicast and not getattr(address, "is_site_local", False)


def _looks_like_an_address(host: str) -> bool:
    """Also the short and the numeric forms, `127.1` and `2130706433`, which connect without a look-up."""
    last = host.rstrip(".").rpartition(".")[2]
    return ":" in host or last.isdigit() or last.startswith("0x")
