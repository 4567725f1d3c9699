"""Rows waiting or in flight: how many, how large, and in which order."""

import pytest

from app.core.messages import Message
from app.core.queue import Queue


def queue_of(*ids: int) -> Queue:
    queue = Queue()
    for row_id in ids:
        queue.add(Message(row_id, 1, b"x" * row_id, 0), None)
    return queue


def ids(queue: Queue) -> list[int]:
    return [message.id for message, _ in queue]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_the_oldest_are_taken_and_the_figures_follow(count: int) -> None:
    """As many as are asked for, or all."""
    queue = queue_of(5, 3, 9)
    taken = [message.id for message, _ in queue.take_up_to(count)]
    assert taken == [5, 3, 9][:count]
    assert ids(queue) == [5, 3, 9][count:]
    assert (queue.count, queue.size) == (len([5, 3, 9][count:]), sum([5, 3, 9][count:]))


def test_an_empty_queue_holds_nothing_and_can_be_filled_again() -> None:
    """One by one, or at once."""
    for empty in (lambda queue: queue.take(), lambda queue: queue.take_up_to(7), Queue.clear):
        queue = queue_of(4)
        empty(queue)
        assert not queue
        assert (queue.count, queue.size, ids(queue)) == (0, 0, [])
        queue.add(Message(2, 1, b"yy", 0), None)
        assert (queue.count, queue.size, ids(queue)) == (1, 2, [2])
