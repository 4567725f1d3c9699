"""Which web pages may connect: a page of somebody else's would do so with its visitor's rights.

A browser names the page's origin (RFC 6454) in the handshake of a WebSocket and wherever a page asks another
origin; programs and apps that are no browser name none, and nothing here stops them.
"""

import re
from dataclasses import dataclass

from app.gateway.asgi_socket import Message

ANY = "*"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@,*]+")
_USUAL_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Origins:
    """The pages that may connect beside those of this very address; `anyone`: all of them."""

    listed: frozenset[str] = frozenset()
    anyone: bool = False

    @classmethod
    def parse(cls, text: str) -> "Origins":
        """Read origins with commas or blanks between them, or `*`; raises ValueError for anything else."""
        names = text.replace(",", " ").lower().split()
        if names == [ANY]:
            return cls(anyone=True)
        wrong = [name for name in names if not _ORIGIN.fullmatch(name)]
        if wrong or not names:
            expected = "expected `https://app.example` and the like, with commas between, or `*` alone"
            raise ValueError(f"ALLOWED_ORIGINS: {', '.join(wrong) or 'it is empty'}; {expected}")
        return cls(frozenset(_plain(name) for name in names))

    def admit(self, scope: Message) -> bool:
        """Whether the page that asks may; `scope` is that of a WebSocket or of HTTP."""
        named = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"origin"]
        if self.anyone or not named:
            return True
        origin, *others = named
        return not others and (_plain(origin) in self.listed or _is_same(origin, scope))


def _plain(origin: str) -> str:
    """An origin as browsers write it, without the port that its scheme has anyway."""
    scheme = origin.partition(":")[0]
    return origin.removesuffix(_USUAL_PORTS.get(scheme, "\0"))


def _is_same(origin: str, scope: Message) -> bool:
    """Whether a page comes from the address that it asks.

    A page over TLS may ask what a proxy hands on without; never the other way round.
    """
    hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
    scheme = origin.partition(":")[0]
    is_secure = scope.get("scheme") in {"https", "wss"}
    if len(hosts) != 1 or scheme not in _USUAL_PORTS or (is_secure and scheme == "http"):
        return False
    return _plain(origin) == _plain(f"{scheme}://{hosts[0]}")
