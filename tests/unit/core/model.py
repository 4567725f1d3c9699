"""PostgreSQL as far as positions go: transactions, snapshots, rows, and a crash that hands xids out again."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.core.messages import Message
from app.core.position import Horizon, Incarnation, Pass, Position
from app.core.reads import Begun, Page
from app.core.snapshot import Snapshot

START = datetime(2026, 1, 1, tzinfo=UTC)
OVERLAP = timedelta(seconds=300)


@dataclass
class Row:
    """A row, with what the model knows and a reader does not: when it was written and committed."""

    id: int
    xid: int
    created_at: datetime
    written_at: int
    committed_at: int | None = None
    delivered: bool = False

    @property
    def message(self) -> Message:
        return Message(self.id, self.xid, b"{}", 0)


@dataclass
class Table:
    """One user's rows and the transactions that write them; `tick` numbers every step."""

    next_xid: int = 100
    next_id: int = 1
    clock: datetime = START
    tick: int = 0
    life: int = 0
    open: dict[int, list[Row]] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)

    @property
    def incarnation(self) -> Incarnation:
        return Incarnation(1, f"{self.life:016x}")

    def step(self) -> int:
        self.tick += 1
        self.clock += timedelta(seconds=1)
        return self.tick

    def begin(self) -> int:
        xid, self.next_xid = self.next_xid, self.next_xid + 1
        self.open[xid] = []
        return xid

    def insert(self, xid: int) -> None:
        row = Row(self.next_id, xid, self.clock, self.step())
        self.next_id += 1
        self.open[xid].append(row)

    def commit(self, xid: int) -> None:
        now = self.step()
        for row in self.open.pop(xid):
            row.committed_at = now
            self.rows[row.id] = row

    def roll_back(self, xid: int) -> None:
        self.step()
        del self.open[xid]

    def crash(self) -> None:
        """Lose what is open; hand out again every xid beyond the last committed one."""
        self.step()
        self.open.clear()
        self.next_xid = max((row.xid for row in self.rows.values()), default=99) + 1
        self.life += 1

    def snapshot(self) -> Snapshot:
        return Snapshot(self.next_xid, frozenset(self.open))

    def horizon(self) -> Horizon:
        return Horizon(self.snapshot(), self.clock, self.incarnation)

    def unseen(self, position: Position, reading: Snapshot) -> list[Row]:
        """What `reading` has and `position` has not."""
        same = position.incarnation == self.incarnation
        since = position.taken_at - OVERLAP
        return [
            row
            for row in self.ordered()
            if reading.has(row.xid)
            and (not position.has(row.xid, row.id) or (not same and row.created_at >= since))
        ]

    def ordered(self) -> list[Row]:
        return [self.rows[row_id] for row_id in sorted(self.rows)]


class Reading:
    """A read of the table by one reader, as the outbox makes it, page by page."""

    def __init__(self, table: Table, page: int, refused: AbstractSet[int]) -> None:
        self._table = table
        self._refused = refused
        self._page = page
        self._rest: list[Row] = []
        self._life = -1

    @property
    def broken(self) -> bool:
        return self._life != self._table.life

    def start(self, position: Position | None, *, with_undelivered: bool) -> Begun:
        table = self._table
        self._life = table.life
        horizon = table.horizon()
        if (
            position is not None
            and position.incarnation == table.incarnation
            and position.reading is not None
        ):
            self._rest = [
                row
                for row in table.ordered()
                if (not position.seen.has(row.xid) or (with_undelivered and not row.delivered))
                and position.reading.has(row.xid)
                and row.id > position.after_id
                and row.id not in self._refused
            ]
            taken_at = position.taken_at
            seen = position.seen.without(row.xid for row in self._rest)
            first = Pass(seen, taken_at, position.reading, taken_at, horizon.incarnation, kept=position.seen)
            return Begun(first, self.next_page(), partial=True)
        seen = horizon.snapshot if position is None else position.seen
        wanted = [] if position is None else table.unseen(position, horizon.snapshot)
        undelivered = [row for row in table.ordered() if with_undelivered and not row.delivered]
        found = {row.id: row for row in (*wanted, *undelivered) if row.id not in self._refused}
        self._rest = sorted(found.values(), key=lambda row: row.id)
        comparable = position is not None and position.incarnation == table.incarnation
        if not comparable:
            seen = horizon.snapshot
        first = Pass(
            seen.without(row.xid for row in self._rest),
            horizon.taken_at if position is None else position.taken_at,
            horizon.snapshot,
            horizon.taken_at,
            horizon.incarnation,
            kept=seen if comparable else None,
        )
        return Begun(first, self.next_page())

    def next_page(self) -> Page:
        page, self._rest = self._rest[: self._page], self._rest[self._page :]
        return Page([row.message for row in page], bool(self._rest))


class Tail:
    """The tail of one process: what it has routed, and in which passes."""

    def __init__(self, table: Table) -> None:
        self._table = table
        horizon = table.horizon()
        self.position = Position(horizon.snapshot, horizon.taken_at, horizon.incarnation)
        self.routed: set[tuple[int, datetime]] = set()
        self.done: Pass | None = None

    def read(self) -> tuple[Pass, list[Row]]:
        table, position = self._table, self.position
        horizon = table.horizon()
        rows = [
            row
            for row in table.unseen(position, horizon.snapshot)
            if (row.id, row.created_at) not in self.routed
        ]
        if position.incarnation == horizon.incarnation:
            found = Pass(
                position.seen, position.taken_at, horizon.snapshot, horizon.taken_at, horizon.incarnation
            )
        else:
            seen = horizon.snapshot.without(row.xid for row in rows)
            found = Pass(seen, horizon.taken_at, horizon.snapshot, horizon.taken_at, horizon.incarnation)
        self.position = found.end()
        self.routed |= {(row.id, row.created_at) for row in rows}
        return found, rows
