"""How much of everything: the full measurement, and a quick one that shows that it works."""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Scale:
    """Counts, and seconds where a name says so."""

    rounds: int = 3
    warm_up_seconds: float = 2.0
    latency_seconds: float = 15.0
    latency_rate: int = 300
    """Rows per second."""
    latency_users: int = 200
    saturated_seconds: float = 10.0
    saturated_writers: int = 8
    saturated_users: int = 1000

    rates: tuple[int, ...] = (50, 100, 200, 400, 700, 1000, 1500, 2000, 3000)
    """Rows per second, one after the other."""
    rate_seconds: float = 6.0
    """At each of them."""
    settle_seconds: float = 5.0
    idle_connections: int = 10_000
    retained_rows: int = 5_000_000
    returning_clients: int = 5000
    returning_missed: int = 20
    catch_up_missed: int = 100_000
    slow_readers: int = 100
    slow_seconds: float = 60.0
    room_members: int = 1000
    room_messages: int = 20
    room_inserts: int = 50

    def but(self, changes: list[str]) -> "Scale":
        """With `name=value` changed; raises ValueError for a name that there is not."""
        names = [field.name for field in fields(self) if field.name != "rates"]
        kinds = {name: type(getattr(self, name)) for name in names}
        wanted = dict(change.split("=", 1) for change in changes)
        if unknown := wanted.keys() - kinds.keys():
            raise ValueError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(kinds)}")
        return replace(self, **{name: kinds[name](value) for name, value in wanted.items()})


FULL = Scale()
QUICK = Scale(
    rounds=1,
    warm_up_seconds=0.5,
    latency_seconds=2.0,
    saturated_seconds=2.0,
    rate_seconds=1.0,
    settle_seconds=1.0,
    idle_connections=1000,
    retained_rows=200_000,
    returning_clients=500,
    catch_up_missed=5000,
    slow_readers=20,
    slow_seconds=5.0,
    room_messages=5,
    room_inserts=20,
)
"""Its figures are not those of the table: fewer connections, fewer retained rows, one round."""
