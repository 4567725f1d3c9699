"""Where a client comes from, and whether what a proxy says about that was believed.

The server that runs the application replaces `scope["client"]` by what a proxy that it trusts has forwarded;
nothing here reads a forwarded address.
"""

import logging

from app.core import addresses
from app.core.addresses import NAMING_A_CLIENT, PEER
from app.gateway.asgi_socket import Message

log = logging.getLogger(__name__)


def counted_as(scope: Message) -> str | None:
    """The name under which the attempts of a scope's client are counted; None where they are not."""
    client = scope.get("client")
    return addresses.counted_as(client[0]) if client else None


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
        if all(name.decode("latin-1") not in NAMING_A_CLIENT for name, _ in scope["headers"]):
            return
        self.ignored += 1
        if self.ignored == 1:
            log.warning(
                "ignoring the forwarding headers of %s: only X-Forwarded-For counts, and only from"
                " FORWARDED_ALLOW_IPS (%s). If that is your proxy, add it; this is said once, health counts",
                peer[0],
                self.trusted,
            )
