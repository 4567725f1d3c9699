"""Snapshots behave as the sets of transactions they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.snapshot import MAX_XID, Snapshot

HIGHEST = 40
XIDS = range(1, HIGHEST + 2)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    xmax = draw(st.integers(1, HIGHEST))
    in_progress = draw(st.frozensets(st.integers(1, xmax - 1))) if xmax > 1 else frozenset()
    return Snapshot(xmax, in_progress)


def members(snapshot: Snapshot) -> set[int]:
    """The transactions it has, by PostgreSQL's definition."""
    return {xid for xid in XIDS if xid < snapshot.xmax} - snapshot.in_progress


@given(snapshots())
def test_a_snapshot_has_what_ended_before_it(snapshot: Snapshot) -> None:
    """`has` agrees with the set, at the edges too."""
    assert {xid for xid in XIDS if snapshot.has(xid)} == members(snapshot)


@given(snapshots(), snapshots())
def test_a_snapshot_covers_another_when_it_has_all_of_it(one: Snapshot, other: Snapshot) -> None:
    """Never says yes where something is missing; says yes to itself and to any later snapshot."""
    if one.covers(other):
        assert members(one) >= members(other)
    elif one.xmax >= other.xmax:
        assert not members(one) >= members(other)


@given(snapshots(), st.frozensets(st.integers(1, HIGHEST + 1)))
def test_taking_transactions_out_leaves_the_others(snapshot: Snapshot, xids: frozenset[int]) -> None:
    """`without` is the difference of sets."""
    assert members(snapshot.without(xids)) == members(snapshot) - xids


@given(snapshots(), st.integers(0, HIGHEST))
def test_lowering_gives_up_the_highest_and_invents_nothing(snapshot: Snapshot, keep: int) -> None:
    """A lowered snapshot is a subset that keeps everything below the first it gives up."""
    lowered = snapshot.lowered(keep)
    assert len(lowered.in_progress) <= keep or lowered == snapshot
    assert members(lowered) == {xid for xid in members(snapshot) if xid < lowered.xmax}
    assert snapshot.covers(lowered)


@given(snapshots())
def test_the_text_form_is_read_back(snapshot: Snapshot) -> None:
    """PostgreSQL's own form, both ways."""
    assert Snapshot.parse(str(snapshot)) == snapshot


def test_a_server_may_name_an_xmin_below_all_that_is_in_progress() -> None:
    """What is running in other databases lowers xmin and is not in the list."""
    assert Snapshot.parse("5:20:10,12") == Snapshot(20, frozenset({10, 12}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1:2",
        "1:2:3:4",
        "0:2:",
        "3:2:",
        "-1:2:",
        "a:b:",
        "2:2:2",
        "1:5:7",
        "4:9:3",
        f"1:{MAX_XID + 1}:",
    ],
)
def test_what_is_no_snapshot_is_refused(text: str) -> None:
    """A stored position that was tampered with must not be read as some other one."""
    with pytest.raises(ValueError):
        Snapshot.parse(text)
