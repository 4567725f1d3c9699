"""One answer: what a position has not seen, as much as fits, and the position after it."""

from dataclasses import dataclass, field

from app.core.messages import Message
from app.core.position import Lost, Pass, Position
from app.core.reads import Begun
from app.core.token import Token
from app.core.wishes import Wishes
from app.sync.ports import ArchiveOf, Reader
from app.sync.who import Who

MOST_MESSAGES = 500
MOST_BYTES = 1 << 20
"""Of the messages of one answer; a single message may be larger."""
MOST_AGAIN = 100
"""Of those, what was refused and comes again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Messages in order; `next` has them and what came before, `more` says that others follow.

    `again` are messages that this reader refused and is to be sent once more. No position covers them: they
    come with every whole answer until their ids are acknowledged.

    `lost` says why the reader could not go on exactly where it was.
    """

    messages: list[Message]
    again: list[Message]
    next: Token
    more: bool
    lost: Lost | None
    epoch: str


@dataclass(slots=True)
class _Basket:
    """What has been gathered, and where that leaves the reader."""

    limit: int
    position: Position
    messages: list[Message] = field(default_factory=list)
    again: list[Message] = field(default_factory=list)
    size: int = 0
    lost: Lost | None = None

    def takes(self, message: Message, first: Pass) -> bool:
        """Put a message in, unless it is full."""
        if not self._has_room(message):
            return False
        self.messages.append(message)
        self.position = first.at(message.id)
        return True

    def takes_again(self, message: Message) -> bool:
        """Put in one that the reader is sent once more, unless it is full."""
        if not self._has_room(message):
            return False
        self.again.append(message)
        return True

    def _has_room(self, message: Message) -> bool:
        count, size = len(self.messages) + len(self.again), self.size + len(message.body)
        if count == self.limit or (count and size > MOST_BYTES):
            return False
        self.size = size
        return True


async def read(archive_of: ArchiveOf, who: Who, wishes: Wishes, limit: int) -> Answer:
    """Read at most `limit` messages; raises Interrupted, Unavailable and UserErased.

    A position that was cut in mid-read is read to the end of that read first, and then on.
    """
    # One row more than is given: whether others follow is then known without another page.
    reader = archive_of(limit + 1).reader(who.user_id, takes_sync=who.takes_sync, device_id=who.device_id)
    wishes, position = wishes.of(who.holder, None if who.device is None else who.device.position)
    # What the client's own position covers it has, delivered or not.
    begun = await reader.start(position, with_undelivered=wishes.position is None)
    basket = _Basket(limit, begun.first.end(), lost=Lost.MALFORMED if wishes.malformed else None)
    whole = await _gather(reader, who, begun, basket)
    while whole and begun.partial:
        begun = await reader.start(begun.first.end(), with_undelivered=False)
        whole = await _gather(reader, who, begun, basket)
    if whole:
        # Last, so that however many they are the rest goes on.
        for message in await reader.due(MOST_AGAIN):
            if not basket.takes_again(message):
                break
    return Answer(
        basket.messages,
        basket.again,
        Token.of(basket.position, who.holder),
        not whole,
        basket.lost,
        begun.first.incarnation.life,
    )


async def _gather(reader: Reader, who: Who, begun: Begun, basket: _Basket) -> bool:
    """Take the rows of a read, in order; whether all of them were taken."""
    page = begun.page
    basket.lost = basket.lost or begun.lost
    while True:
        for message in page.messages:
            if who.gets(message) and not basket.takes(message, begun.first):
                return False
        if not page.more:
            basket.position = begun.first.end()
            return True
        page = await reader.next_page()
        basket.lost = basket.lost or page.lost
