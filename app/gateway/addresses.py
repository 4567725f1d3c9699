"""Where a client comes from, and whether what a proxy says about that is to be believed.

The server that runs the application replaces `scope["client"]` by what a proxy that it trusts has forwarded;
nothing here reads a forwarded address.
"""

import logging
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from app.gateway.asgi_socket import Message
from app.gateway.socket import PEER

FORWARDING = frozenset({b"x-forwarded-for", b"x-real-ip", b"forwarded"})
"""Headers by which a proxy tells for whom it asks."""
_ONE_CUSTOMER = 64
"""Bits of an IPv6 address that whoever has one of them cannot choose."""

log = logging.getLogger(__name__)


def counted_as(scope: Message) -> str | None:
    """The name under which the attempts of a client's address are counted; None where they are not.

    Only public addresses are: behind a private one or the machine's own may be everybody.
    """
    client = scope.get("client")
    if not client:
        return None
    try:
        address: IPv4Address | IPv6Address = ip_address(client[0])
    except ValueError:
        return "unknown"  # a proxy's word that is no address: all of these together
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if not address.is_global:
        return None
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((int(address), _ONE_CUSTOMER), strict=False))


class Forwarding:
    """Notes headers of proxies that are not believed, and warns once.

    `trusted`: the addresses whose word counts, as the server was told them; None where it hears no proxy.
    """

    def __init__(self, trusted: str | None) -> None:
        self.trusted = trusted
        self.ignored = 0
        """Requests with such headers from somebody who is not trusted."""

    def note(self, scope: Message) -> None:
        """Look at one request or handshake."""
        peer = scope.get("extensions", {}).get(PEER)
        if peer is None or peer != scope.get("client"):
            return  # a server that does not tell, or somebody whose word was taken
        if all(name not in FORWARDING for name, _ in scope["headers"]):
            return
        self.ignored += 1
        if self.ignored == 1:
            log.warning(
                "ignoring the forwarding headers of %s: only X-Forwarded-For counts, and only from"
                " FORWARDED_ALLOW_IPS (%s). If that is your proxy, add it; this is said once, health counts",
                peer[0],
                self.trusted,
            )
