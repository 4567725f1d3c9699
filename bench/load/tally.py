"""What the readers of one process have got."""

from bench.stamps import age, find, now


class Tally:
    """Ages of stamped messages, in microseconds, and when the first and the last of them came."""

    def __init__(self) -> None:
        self.ages: list[int] = []
        self.first = 0
        self.last = 0

    def note(self, payload: bytes) -> bool:
        """Note a message; whether it has a stamp."""
        stamp = find(payload)
        if stamp is None:
            return False
        self.last = now()
        if not self.ages:
            self.first = self.last
        self.ages.append(age(stamp, self.last))
        return True

    def take(self) -> dict[str, object]:
        """Everything since it was last asked."""
        taken = {"ages": self.ages, "seconds": age(self.first, self.last) / 1e6, "last": self.last}
        self.ages = []
        return taken
