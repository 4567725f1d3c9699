"""How one answer is gathered from the pages of a read."""

from collections.abc import Sequence
from datetime import UTC, datetime

from app.core.messages import Message
from app.core.position import Incarnation, Lost, Pass, Position
from app.core.reads import Begun, Page
from app.core.snapshot import Snapshot
from app.core.wishes import NOTHING
from app.store.devices import KnownDevice
from app.sync.reading import MOST_BYTES, Answer, read
from app.sync.who import Who

NOW = datetime(2026, 11, 22, tzinfo=UTC)
FIRST = Pass(Snapshot(1), NOW, Snapshot(9), NOW, Incarnation(1, "00" * 8))
PHONE = KnownDevice(5, 1, "ios", None)


def event(number: int) -> Message:
    return Message(number, 2, b"{}", 0)


def uploaded(number: int, origin: int) -> Message:
    return Message(number, 2, b"{}", 0, is_sync=True, origin=origin)


class Archive:
    """Pages, one after the other."""

    def __init__(
        self, *pages: Sequence[Message], lost_at: int | None = None, again: Sequence[Message] = ()
    ) -> None:
        self.again = list(again)
        self._pages = [
            Page(list(page), more=number < len(pages), lost=Lost.RETENTION if number == lost_at else None)
            for number, page in enumerate(pages, 1)
        ]

    def reader(self, user_id: str, *, takes_sync: bool, device_id: int | None) -> "Archive":
        return self

    async def start(self, position: Position | None, *, with_undelivered: bool) -> Begun:
        return Begun(FIRST, self._pages.pop(0))

    async def next_page(self) -> Page:
        return self._pages.pop(0)

    async def due(self, limit: int) -> list[Message]:
        return self.again[:limit]

    async def proven(self, position: Position) -> tuple[tuple[int, ...], tuple[int, ...]]:
        raise AssertionError("reading asks for no proof")


async def answer(
    limit: int, *pages: Sequence[Message], lost_at: int | None = None, again: Sequence[Message] = ()
) -> Answer:
    archive = Archive(*pages, lost_at=lost_at, again=again)
    return await read(lambda _: archive, Who("ada", PHONE), NOTHING, limit)


async def test_pages_of_what_the_device_uploaded_are_gone_through() -> None:
    """They fill no answer, and are behind the position that it tells."""
    mine = [uploaded(number, 5) for number in range(1, 4)]

    some = await answer(2, mine, [uploaded(4, 6), event(5)], [event(6)])
    whole = await answer(2, mine, [uploaded(4, 6)], [uploaded(5, 5)])

    assert ([one.id for one in some.messages], some.more, some.next.position) == ([4, 5], True, FIRST.at(5))
    assert ([one.id for one in whole.messages], whole.more, whole.next.position) == ([4], False, FIRST.end())


async def test_an_answer_that_is_exactly_full_knows_whether_others_follow() -> None:
    """Although that takes another page."""
    last = await answer(2, [event(1), event(2)], [])
    not_last = await answer(2, [event(1), event(2)], [event(3)])

    assert (last.more, last.next.position) == (False, FIRST.end())
    assert (not_last.more, not_last.next.position) == (True, FIRST.at(2))


async def test_rows_that_retention_removes_in_the_middle_are_told() -> None:
    """As when the position had been passed before."""
    told = await answer(9, [event(1)], [event(3)], lost_at=2)

    assert ([one.id for one in told.messages], told.lost) == ([1, 3], Lost.RETENTION)
    assert (await answer(9, [event(1)], [event(3)])).lost is None


async def test_what_comes_again_comes_last_and_where_there_is_room() -> None:
    """Never in place of what is new, nor with it beyond the limit; the position tells nothing of it."""
    new, again = [event(number) for number in (5, 6)], [event(number) for number in (1, 2)]
    cut = await answer(1, new, again=again)
    full = await answer(2, new, again=again)
    some = await answer(3, new, again=again)
    whole = await answer(4, new, again=again)

    assert [len(one.again) for one in (cut, full, some, whole)] == [0, 0, 1, 2]
    assert [one.more for one in (cut, full, some, whole)] == [True, False, False, False]
    assert [one.next.position for one in (full, some, whole)] == 3 * [FIRST.end()]


async def test_what_comes_again_keeps_to_the_bytes_of_an_answer() -> None:
    """A single one may be larger."""
    large = [Message(number, 2, b"x" * MOST_BYTES, 0) for number in range(2)]

    assert (await answer(9, [], again=large)).again == large[:1]
    assert (await answer(9, [event(5)], again=large)).again == []
