"""What a client may say, and the error it gets for anything else."""

import json
from dataclasses import dataclass

HEARTBEATS = frozenset({"ping", "heartbeat"})


@dataclass(frozen=True, slots=True)
class Ping:
    """The client's own heartbeat; answered with `pong`."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that could not be taken; `code` and `message` go back to the client."""

    code: str
    message: str


MALFORMED = Rejected("malformed", 'Send the text ping, or a JSON object such as {"type":"ping"}.')
BINARY = Rejected("binary", "Binary messages are not understood; send text.")
TOO_LARGE = Rejected("too_large", "The message is larger than this service takes.")
RATE_LIMITED = Rejected("rate_limited", "Too many messages in one second; slow down.")
NO_ACK = Rejected("bad_ack", "This connection did not ask for acks; nothing was marked.")
NO_AUTH = Rejected("unauthorized", "This service asks for no token; the message was ignored.")


def parse(text: str) -> Ping | Rejected:
    """Understand one text message of a client; never raises."""
    if text in HEARTBEATS:
        return Ping()
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return MALFORMED
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return MALFORMED
    match message["type"]:
        case "ping" | "heartbeat":
            return Ping()
        case "ack" | "nack":
            return NO_ACK
        case "auth":
            return NO_AUTH
        case _:
            return Rejected("unknown_type", "Unknown type; this service takes ping.")


class Guard:
    """How much rubbish and how many messages one connection may send; times are seconds."""

    __slots__ = ("_bad", "_rate", "_second", "_taken", "_window_start")

    PATIENCE = 20
    """Errors told within a minute; the next one ends the connection."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._second = -1
        self._taken = 0
        self._window_start = 0.0
        self._bad = 0

    def over_rate(self, now: float) -> bool:
        """Count one message; whether it is more than this second allows."""
        if int(now) != self._second:
            self._second, self._taken = int(now), 0
        self._taken += 1
        return self._taken > self._rate

    def out_of_patience(self, now: float) -> bool:
        """Count one bad message; whether it is one too many within a minute."""
        if now - self._window_start >= 60 or not self._bad:
            self._window_start, self._bad = now, 0
        self._bad += 1
        return self._bad > self.PATIENCE
