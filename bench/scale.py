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

    rate_seconds: float = 6.0
    """At each rate."""
    settle_seconds: float = 5.0
    idle_connections: int = 10_000
    retained_rows: int = 5_000_000
    returning_clients: int = 5000
    returning_missed: int = 20
    room_members: int = 1000
    room_messages: int = 20
    room_inserts: int = 50

    def but(self, changes: list[str]) -> "Scale":
        """With `name=value` changed; raises ValueError for a name that there is not."""
        kinds = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        wanted = dict(change.split("=", 1) for change in changes)
        if unknown := wanted.keys() - kinds.keys():
            raise ValueError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(kinds)}")
        return replace(self, **{name: kinds[name](value) for name, value in wanted.items()})


FULL = Scale()
QUICK = Scale(
    rounds=1,
    warm_up_seconds=1.0,
    latency_seconds=3.0,
    saturated_seconds=3.0,
    rate_seconds=1.0,
    settle_seconds=1.5,
    idle_connections=2000,
    retained_rows=200_000,
    returning_clients=500,
    room_messages=5,
    room_inserts=20,
)
"""Its figures are not those of the table: fewer connections, fewer retained rows, one round."""
