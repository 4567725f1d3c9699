"""Who is turned away before anything is looked up: from where, how often, and with how long an address."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.core.allowance import Allowance
from app.gateway.addresses import counted_as
from app.gateway.asgi_socket import Message
from app.gateway.origins import Origins
from app.request_limits import size_of_url


@dataclass(frozen=True, slots=True)
class Turned:
    """An answer that ends an attempt; `retry_after` is seconds, None where trying again is of no use."""

    status: int
    code: str
    message: str
    retry_after: int | None = None


FOREIGN = Turned(403, "origin", "Pages of this origin may not connect.")


def too_long(scope: Message, most: int) -> Turned | None:
    """The answer to a URL of more than `most` bytes."""
    size = size_of_url(scope)
    return Turned(414, "too_large", f"The URL has more than {most} bytes.") if size > most else None


class Door:
    """What every attempt to connect has to pass.

    `attempts` counts those of one public address; `url_size` is bytes; `clock` gives seconds.
    """

    def __init__(
        self,
        origins: Origins,
        attempts: Allowance,
        *,
        url_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._origins = origins
        self._attempts = attempts
        self._url_size = url_size
        self._clock = clock

    def turns_away(self, scope: Message) -> Turned | None:
        """Count an attempt; say why it ends here, None when it may go on."""
        address = counted_as(scope)
        wait = 0.0 if address is None else self._attempts.take(address, self._clock())
        if wait:
            message = "Too many attempts to connect from this address; try again later."
            return Turned(429, "rate_limited", message, math.ceil(wait))
        if not self._origins.admit(scope):
            return FOREIGN
        return too_long(scope, self._url_size)
