"""What a client asked for when it connected, beyond what every client gets."""

from dataclasses import dataclass

from app.core.position import Position
from app.core.token import TokenError, decode


@dataclass(frozen=True, slots=True)
class Wishes:
    """`token` is the position the client gave, as it gave it; empty when it gave none.

    `positions`: it wants one in every message; `acks`: it acknowledges what it has processed.
    """

    positions: bool = False
    acks: bool = False
    token: str = ""
    position: Position | None = None

    @classmethod
    def parse(cls, position: str | None, *, acks: bool = False, last_event_id: str | None = None) -> "Wishes":
        """Read the parameter `position`; one that cannot be read is kept in mind as malformed.

        `last_event_id`: the position that an SSE client gives by itself, which is the newer one.
        """
        positions = position is not None
        token = last_event_id or position or ""
        try:
            return cls(positions, acks, token, decode(token) if token else None)
        except TokenError:
            return cls(positions, acks, token)

    @property
    def malformed(self) -> bool:
        """Whether a token was given that is none."""
        return bool(self.token) and self.position is None


NOTHING = Wishes()
