"""What a position calls unseen is exactly what its reader has not got, however writers interleave."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.moment import microseconds
from app.core.position import Horizon, Incarnation, Lost, Pass, Position, lost
from app.core.snapshot import Snapshot
from app.core.token import Holder, decode, encode
from tests.unit.core.model import Table

HERE = Incarnation(1, "00" * 8)
NOW = datetime(2026, 11, 22, tzinfo=UTC)

WRITER = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), WRITER),
        st.tuples(st.just("insert"), WRITER),
        st.tuples(st.just("commit"), WRITER),
        st.tuples(st.just("roll back"), WRITER),
        # A read that is cut after so many rows, and resumed by the next one.
        st.tuples(st.just("read"), st.integers(0, 3)),
        st.tuples(st.just("read"), st.integers(0, 3)),
    ),
    min_size=10,
    max_size=80,
)


class Reader:
    """A reader that walks the rows of `unseen` in id order and keeps nothing but a position."""

    def __init__(self, table: Table, *, through_tokens: bool) -> None:
        self.table = table
        self.through_tokens = through_tokens
        self.position = Position(table.snapshot(), table.clock, table.incarnation)
        self.got: list[int] = []

    def read(self, most: int) -> None:
        position, table = self.position, self.table
        passing = Pass(position.seen, position.taken_at, table.snapshot(), table.clock, table.incarnation)
        wanted = table.ordered()
        if position.reading is not None:
            # A pass that was cut is ended first, under its own snapshot.
            passing = Pass(position.seen, position.taken_at, position.reading, NOW, table.incarnation)
        wanted = [row for row in wanted if passing.reading.has(row.xid) and not position.has(row.xid, row.id)]
        for row in wanted[:most]:
            self.got.append(row.id)
            self.position = passing.at(row.id)
        if len(wanted) <= most:
            self.position = passing.end()
        if self.through_tokens:
            self.position = decode(encode(self.position, Holder("anna"))).position


def play(table: Table, steps: list[tuple[str, int]], reader: Reader) -> None:
    writers: dict[int, int] = {}
    for what, number in steps:
        match what:
            case "insert":
                if number not in writers:
                    writers[number] = table.begin()
                table.insert(writers[number])
            case "commit" if number in writers:
                table.commit(writers.pop(number))
            case "roll back" if number in writers:
                table.roll_back(writers.pop(number))
            case "read":
                reader.read(number)
    for xid in sorted(table.open):
        table.commit(xid)
    reader.read(1000)
    reader.read(1000)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), st.data())
def test_a_position_has_what_the_definition_says(
    xid: int, row_id: int, after_id: int, data: st.DataObject
) -> None:
    """All of `seen`, and of `reading` the rows up to `after_id`; of a later transaction nothing."""
    seen = Snapshot(5, data.draw(st.frozensets(st.integers(1, 4))))
    reading = Snapshot(9, data.draw(st.frozensets(st.integers(1, 8))))
    position = Position(seen, NOW, HERE, reading, after_id)
    assert position.has(xid, row_id) == (
        (xid < 5 and xid not in seen.in_progress)
        or (xid < 9 and xid not in reading.in_progress and row_id <= after_id)
    )


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.booleans())
def test_every_committed_row_is_read_exactly_once(steps: list[tuple[str, int]], through_tokens: bool) -> None:
    """Reads cut anywhere, resumed from the position alone or from its token: no gap and no repeat."""
    table = Table()
    reader = Reader(table, through_tokens=through_tokens)
    play(table, steps, reader)
    assert sorted(reader.got) == sorted(table.rows)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_what_committed_before_another_began_comes_first(steps: list[tuple[str, int]]) -> None:
    """Order (P3): if A committed before B was written, A is read before B."""
    table = Table()
    reader = Reader(table, through_tokens=False)
    play(table, steps, reader)
    at = {row_id: index for index, row_id in enumerate(reader.got)}
    rows = list(table.rows.values())
    for a in rows:
        for b in rows:
            if a.committed_at is not None and a.committed_at < b.written_at:
                assert at[a.id] < at[b.id]


def test_a_reader_by_id_alone_would_lose_rows() -> None:
    """The control: "id > last" misses what commits late, which is why there are positions."""
    table = Table()
    reader = Reader(table, through_tokens=False)
    late, early = table.begin(), table.begin()
    table.insert(late)
    table.insert(early)
    table.commit(early)
    reader.read(10)
    table.commit(late)
    by_id = [row_id for row_id in sorted(table.rows) if row_id > max(reader.got)]
    assert by_id == []
    reader.read(10)
    assert reader.got == [2, 1]


# ---- what cannot be resumed


def position_at(**changes: object) -> Position:
    values = {"seen": Snapshot(100), "taken_at": NOW, "incarnation": HERE, **changes}
    return Position(**values)  # type: ignore[arg-type]


def judge(position: Position, *, xmax: int = 200, purged: datetime | None = None) -> Lost | None:
    here = Horizon(Snapshot(xmax), NOW, HERE)
    return lost(position, here, purged_through=purged, ancestors={1, 7})


def test_a_position_of_this_database_is_resumed() -> None:
    """The control of those below; equal to the present counts as past."""
    assert judge(position_at(), xmax=100) is None
    assert judge(position_at(reading=Snapshot(150), after_id=3)) is None


def test_a_position_of_a_cluster_not_on_record_is_told_so() -> None:
    """Of one on record it is not lost: the overlap rule takes it."""
    assert judge(position_at(incarnation=Incarnation(2, "00" * 8))) is Lost.OTHER_DATABASE
    assert judge(position_at(incarnation=Incarnation(7, "00" * 8))) is None


def test_a_position_older_than_what_retention_removed_is_told_so() -> None:
    """At the very moment of the last removed delivery it is still whole."""
    assert judge(position_at(), purged=NOW + timedelta(microseconds=1)) is Lost.RETENTION
    assert judge(position_at(), purged=NOW) is None


@pytest.mark.parametrize(
    "changes",
    [{"seen": Snapshot(201)}, {"reading": Snapshot(201)}, {"seen": Snapshot(151), "reading": Snapshot(150)}],
)
def test_a_position_of_the_future_is_told_so_within_one_incarnation(changes: dict[str, Snapshot]) -> None:
    """Across incarnations xids compare to nothing, so it is not judged there."""
    assert judge(position_at(**changes)) is Lost.FUTURE
    assert judge(position_at(**changes, incarnation=Incarnation(1, "11" * 8))) is None


def test_any_change_of_what_the_server_says_is_another_incarnation() -> None:
    """System, database, start time and the random id all count; the system stays comparable."""
    words = ["7", "5", "1700000000.123", "aaaa"]
    first = Incarnation.of("/".join(words))
    assert first.system == 7
    for index in range(4):
        changed = "/".join("8" if i == index else word for i, word in enumerate(words))
        assert Incarnation.of(changed) != first


def test_a_system_identifier_beyond_63_bits_is_one_number() -> None:
    """The server prints it signed; positions carry it unsigned."""
    assert Incarnation.of("-1/5/1/a").system == 2**64 - 1
    assert Incarnation.parse(str(Incarnation.of("-1/5/1/a"))) == Incarnation.of("-1/5/1/a")


@pytest.mark.parametrize(
    "text", ["", "1", "1.00", "x.0000000000000000", "-1.0000000000000000", f"{2**64}.00000000"]
)
def test_what_is_no_incarnation_is_refused(text: str) -> None:
    """A stored one that was tampered with is not taken for another."""
    with pytest.raises(ValueError):
        Incarnation.parse(text)


XID = st.integers(1, 8)
SNAPSHOTS = st.builds(
    lambda xmax, running: Snapshot(xmax, frozenset(xid for xid in running if xid < xmax)), XID, st.sets(XID)
)
POSITIONS = st.builds(
    lambda seen, reading, after_id: Position(seen, NOW, HERE, reading, after_id if reading else 0),
    SNAPSHOTS,
    st.none() | SNAPSHOTS,
    st.integers(0, 6),
)
ROWS = [(xid, row_id) for xid in range(1, 9) for row_id in range(1, 7)]


@given(POSITIONS, POSITIONS)
def test_what_covers_a_position_has_all_its_rows(one: Position, other: Position) -> None:
    """Never more is claimed than is so; and everything covers itself."""
    if one.covers(other):
        assert all(one.has(*row) for row in ROWS if other.has(*row))
    assert one.covers(one)


@given(POSITIONS, POSITIONS)
def test_a_reader_that_advances_has_the_other_and_nothing_beyond_both(one: Position, other: Position) -> None:
    """And what it had seen whole, where the other began below that."""
    both = one.advanced_to(other)

    assert all(both.has(*row) for row in ROWS if other.has(*row))
    assert not any(both.has(*row) for row in ROWS if not one.has(*row) and not other.has(*row))
    if one.seen.covers(other.seen):
        assert both.seen.covers(one.seen)


def test_what_a_reader_had_before_a_restart_is_told_from_what_has_an_xid_of_then_again() -> None:
    """By its time; of the read that the reader was cut in, whose time nobody knows, by its id."""
    cut = position_at(seen=Snapshot(100, frozenset({90})), reading=Snapshot(120), after_id=7)
    now, later = microseconds(NOW), microseconds(NOW + timedelta(seconds=1))

    assert cut.had_before_restart(99, 50, now)
    assert not cut.had_before_restart(99, 50, later)
    assert cut.had_before_restart(90, 7, later)
    assert cut.had_before_restart(110, 7, later)
    assert not cut.had_before_restart(110, 8, later)
    assert not cut.had_before_restart(120, 7, later)
    assert not position_at().had_before_restart(100, 1, now)


def test_positions_of_two_incarnations_say_nothing_of_each_other() -> None:
    """Neither covers the other, and the newer stands for itself."""
    old = Position(Snapshot(9), NOW, Incarnation(1, "11" * 8))
    new = Position(Snapshot(5), NOW, HERE)

    assert not old.covers(new)
    assert old.advanced_to(new) == new
