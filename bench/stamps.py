"""When a row's insert began, carried by the row itself: a mood's score or a chat message's id."""

import re
import time

WRAP = 1 << 31
"""Scores are 32-bit integers; microseconds wrap there, every 36 minutes."""
_STAMP = re.compile(rb'"(?:mood_score|message_id)" ?: ?"?(?:at-)?(\d+)')


def now() -> int:
    """Microseconds, wrapped to fit a score; the machine's clock is one for all its processes."""
    return time.time_ns() // 1000 % WRAP


def age(stamp: int, at: int) -> int:
    """Microseconds from the stamp to `at`."""
    return (at - stamp) % WRAP


def find(payload: bytes) -> int | None:
    """The stamp in a message; None where it has none."""
    found = _STAMP.search(payload)
    return None if found is None else int(found[1])
