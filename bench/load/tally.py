"""What the readers of one process have got."""

from bench.stamps import age, find, now


class Tally:
    """Ages of stamped messages, in microseconds, and when the last of them came."""

    def __init__(self) -> None:
        self.ages: list[int] = []
        self.last = 0

    def note(self, payload: bytes) -> bool:
        """Note a message; whether it has a stamp."""
        stamp = find(payload)
        if stamp is None:
            return False
        self.last = now()
        self.ages.append(age(stamp, self.last))
        return True

    def take(self) -> dict[str, object]:
        """Everything since it was last asked."""
        taken: dict[str, object] = {"ages": self.ages, "last": self.last}
        self.ages = []
        return taken
