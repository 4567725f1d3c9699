"""Addresses, and whose word on them counts: one answer for everybody here who asks.

The *peer* is at the other end of the TCP connection and cannot be made up. The *client* is whom a proxy that
the server trusts has named instead, and the peer where there is none; it is only counted, never trusted.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

PEER = "mindvibe.peer"
"""Key in a scope's extensions: the peer, as `scope["client"]` has the client."""

NAMING_A_CLIENT = frozenset({"x-forwarded-for", "x-real-ip", "forwarded"})
"""Headers by which a proxy tells for whom it asks, in lower case."""
_ONE_CUSTOMER = 64
"""Bits of an IPv6 address that whoever has one of them cannot choose."""


def tells_of_a_proxy(header: str) -> bool:
    """Whether only a proxy sends a header, whose name is in lower case."""
    return header in NAMING_A_CLIENT or header == "via" or header.startswith("x-forwarded-")


def peer_of(scope: Mapping[str, Any]) -> str | None:
    """The peer's address, where the server tells it; the client's where it does not."""
    extensions = scope.get("extensions") or {}
    known = extensions[PEER] if PEER in extensions else scope.get("client")
    return known[0] if known else None


def is_loopback(host: str | None) -> bool:
    """Whether this is an address of the machine itself."""
    address = _parsed(host or "")
    return address is not None and address.is_loopback


def counted_as(host: str) -> str | None:
    """The name under which the attempts of a client's address are counted; None where they are not.

    Only public addresses are: behind a private one or the machine's own may be everybody.
    """
    address = _parsed(host)
    if address is None:
        return "unknown"  # a proxy's word that is no address: all of these together
    if not address.is_global:
        return None
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((int(address), _ONE_CUSTOMER), strict=False))


def trusts_everybody(trusted: str) -> bool:
    """Whether a list of proxies, as the server takes it, holds every address of a family."""
    return any(one == "*" or one.endswith("/0") for one in trusted.replace(",", " ").split())


def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
