"""What counts of the position that a client gave, and where its reader begins."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.position import Incarnation, Position
from app.core.snapshot import Snapshot
from app.core.token import Holder, encode
from app.core.wishes import Wishes

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)
HERE, BEFORE = Incarnation(1, "00" * 8), Incarnation(1, "ff" * 8)
PHONE, NAMELESS = Holder("anna", 7), Holder("anna")


def at(xmax: int, taken_at: datetime = NOON, incarnation: Incarnation = HERE) -> Position:
    return Position(Snapshot(xmax), taken_at, incarnation)


def given(position: Position, holder: Holder) -> Wishes:
    return Wishes.parse(encode(position, holder))


@pytest.mark.parametrize("holder", [PHONE, NAMELESS])
def test_ones_own_wins_over_what_is_stored(holder: Holder) -> None:
    """In mid-read too; of a phone's nothing is missing for who gets no sync rows."""
    position = replace(at(50), reading=Snapshot(60), after_id=3)
    wishes = given(position, PHONE)
    assert wishes.of(holder, at(90)) == (wishes, position)
    assert wishes.position == position


def test_another_users_is_malformed() -> None:
    """As if none had been given, and the client is told."""
    wishes, begins = given(at(50), NAMELESS).of(Holder("bert"), at(9))
    assert begins == at(9)
    assert wishes.position is None
    assert wishes.malformed


@pytest.mark.parametrize(
    ("position", "stored", "begins"),
    [
        pytest.param(at(50), None, at(50), id="nothing stored"),
        pytest.param(at(50), at(90), at(50), id="stored has more"),
        pytest.param(at(50), at(40), at(40), id="stored has less"),
        pytest.param(at(50, NOON), at(40, LATER), at(40, LATER), id="stored has less, noted later"),
        pytest.param(at(50, LATER, BEFORE), at(40, NOON), at(40, NOON), id="of before, noted later"),
        pytest.param(at(50, NOON, BEFORE), at(90, LATER), at(50, NOON, BEFORE), id="of before"),
        pytest.param(
            replace(at(50), reading=Snapshot(60), after_id=3), at(55, LATER), at(50), id="cut in mid-read"
        ),
        pytest.param(
            at(50),
            replace(at(40), reading=Snapshot(60), after_id=3),
            replace(at(40), reading=Snapshot(60), after_id=3),
            id="stored in mid-read",
        ),
    ],
)
@pytest.mark.parametrize("origin", [NAMELESS, Holder("anna", 8)])
def test_without_the_devices_sync_rows_it_begins_at_what_has_less(
    position: Position, stored: Position | None, begins: Position, origin: Holder
) -> None:
    """A row that neither has is not passed over, whatever the times say; and nothing is proven."""
    wishes, where = given(position, origin).of(PHONE, stored)
    assert where == begins
    assert wishes.position is None
    assert not wishes.malformed


def test_what_cannot_be_read_is_malformed() -> None:
    """What is stored counts."""
    wishes = Wishes.parse("rubbish")
    assert wishes.malformed
    assert wishes.of(PHONE, at(9)) == (wishes, at(9))
