"""What a client asked for when it connected, beyond what every client gets."""

from dataclasses import dataclass

from app.core.position import Position
from app.core.token import TokenError, decode


@dataclass(frozen=True, slots=True)
class Wishes:
    """`token` is the position the client gave, as it gave it; empty when it only asks for positions."""

    positions: bool = False
    token: str = ""
    position: Position | None = None

    @classmethod
    def parse(cls, position: str | None) -> "Wishes":
        """Read the parameter `position`; one that cannot be read is kept in mind as malformed."""
        if position is None:
            return NOTHING
        try:
            return cls(positions=True, token=position, position=decode(position) if position else None)
        except TokenError:
            return cls(positions=True, token=position)

    @property
    def malformed(self) -> bool:
        """Whether a token was given that is none."""
        return bool(self.token) and self.position is None


NOTHING = Wishes()
